"""Mistakes that would surface late in a run, found before anything is built or written."""

import os
from pydoc import locate
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry

from deq_collapse.errors import UserError, nearest

STRATEGIES = ("auto", "ddp", "ddp_fork", "ddp_notebook", "single_device")
LARGEST_SEED = 2**32 - 1
"""The largest seed that numpy accepts."""

LONGEST_NAME = 200
"""In bytes; file systems allow 255, and files beside the directory have longer names."""


def check_devices(trainer: Any, oversubscribe: bool = False) -> None:
    """Checks that the machine has the devices that a trainer's configuration requests.

    Args:
        trainer: the configuration.
        oversubscribe: whether more processes than cores are intended.

    Raises:
        UserError: if it does not.
    """
    asked = int(trainer.devices) if str(trainer.devices).isdigit() else 1
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    if trainer.accelerator == "cpu" and asked > cores and not oversubscribe:
        raise UserError(
            f"{asked} CPU processes are asked for, but this machine has {cores} cores: lower trainer.devices,"
            " or --oversubscribe true."
        )
    if trainer.accelerator in ("gpu", "cuda") and asked > gpus:
        raise UserError(
            f"{asked} GPUs are asked for, but this machine has {gpus}: --trainer.accelerator cpu."
        )


def check_checkpoints(trainer: Any) -> None:
    """Checks that a run keeps the checkpoint from which it goes on, and which is measured later.

    Args:
        trainer: the configuration.

    Raises:
        UserError: if it would not.
    """
    for name, value in (("barebones", True), ("enable_checkpointing", False)):
        if trainer[name] is value:
            raise UserError(
                f"trainer.{name} is {str(value).lower()}, but a run keeps the checkpoint from which"
                " it goes on: leave it out."
            )


def check_strategy(strategy: Any) -> None:
    """Checks that every process of a run would have the whole network, and can be started.

    Args:
        strategy: a name, or a configuration with ``class_path``.

    Raises:
        UserError: if not.
    """
    if isinstance(strategy, str):
        name = strategy
        if name == "auto":
            return
        if name not in StrategyRegistry.available_strategies():
            raise UserError(f"there is no trainer.strategy {name}; {nearest(name, STRATEGIES)}")
        kind = StrategyRegistry[name]["strategy"]
        start = StrategyRegistry[name]["init_params"].get("start_method")
    else:
        name = strategy.class_path.rpartition(".")[2]
        kind, start = locate(strategy.class_path), (strategy.get("init_args") or {}).get("start_method")
    if not (isinstance(kind, type) and issubclass(kind, (DDPStrategy, SingleDeviceStrategy))):
        raise UserError(
            f"trainer.strategy is {name}, but a run is measured on the whole network in every process: it is"
            " auto, ddp or ddp_fork."
        )
    if start == "spawn":
        raise UserError(
            f"trainer.strategy is {name}, whose processes begin with a pickled copy of the run, and a run"
            " cannot be pickled: it is auto, ddp or ddp_fork."
        )


def check_slurm() -> None:
    """Checks that SLURM sets how the processes of a run are distributed over its nodes.

    Raises:
        UserError: if it does not.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if SLURMEnvironment.detect() and tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(
            f"SLURM starts {tasks} tasks (SLURM_NTASKS) and does not say how many on a node: give sbatch or"
            " srun --ntasks-per-node, or unset SLURM_NTASKS for a run in one process."
        )


def check_seed(seed: Any) -> None:
    """Checks that a seed is valid for the random number generators.

    Raises:
        UserError: if not.
    """
    if not isinstance(seed, bool) and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed_everything is {seed}, but a seed is a whole number from 0 to {LARGEST_SEED}.")


def check_name(name: str) -> None:
    """Checks that a run may have a name, which is also that of its directory.

    Raises:
        UserError: for an empty name, one that leaves its directory, and one that is too long for a file
            system.
    """
    parts = name.split("/")
    if any(part.strip() in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts):
        raise UserError(
            f"--name is {name[:80]!r}, but a name is that of a directory: not empty, without '.' or '..' as a"
            f" part, and at most {LONGEST_NAME} bytes."
        )

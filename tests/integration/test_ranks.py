"""A run on several ranks: what one process gives, whoever starts them, and what is left where one dies."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from deq_collapse.config.run import lightning_main
from deq_collapse.errors import exit_code

CONF = Path(__file__).parents[2] / "conf" / "ranks"
WARM = ["--trainer.callbacks+", "deq_collapse.callbacks.WarmStarts"]
"""States that ranks share, and a run that goes on has again."""
PENALTY = ["--model.refinement.init_args.jacobian_weight", "1.0"]
UNLIKE = [*PENALTY, "--trainer.callbacks+", f"{__name__}.RanksDraw"]
"""A Jacobian term, whose random directions are other ones on each rank."""
LIMIT = 300
"""Seconds after which a rank hangs."""


class RanksDraw(Callback):
    """Draws a number more on every further rank before each step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.rand(trainer.global_rank)


def main(args: list[str], environment: dict[str, str], said: Path, values: Path) -> None:
    """One rank, as its launcher starts it; the first one writes what was measured."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)

    def run() -> None:
        trainer = lightning_main(args).trainer
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if environment.get("RANK", "0") == "0":
            values.write_text(json.dumps(measured))

    sys.exit(exit_code(run))


class Ranks:
    """Processes of one run on this machine, with their imports done, as a launcher's environment has them."""

    def __init__(self, args: list[str], count: int, folder: Path, launcher: str = "lightning") -> None:
        folder.mkdir(exist_ok=True)
        self.said = [folder / f"said-{rank}.txt" for rank in range(count)]
        self.values = folder / "values.json"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["deq_collapse.config.run"])
        self.processes: list[BaseProcess] = []
        for rank in range(count):
            variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}
            variables |= LAUNCHERS[launcher](rank, count)
            target = (args, variables, self.said[rank], self.values)
            self.processes.append(context.Process(target=main, args=target))
            self.processes[-1].start()

    def codes(self) -> list[int | None]:
        """How they ended."""
        end = time.monotonic() + LIMIT
        for process in self.processes:
            process.join(max(0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def measured(self) -> dict[str, float]:
        """What the run measured last."""
        assert self.codes() == [0] * len(self.processes), [path.read_text() for path in self.said]
        return json.loads(self.values.read_text())


LAUNCHERS = {
    "lightning": lambda rank, count: {"LOCAL_RANK": str(rank), "NODE_RANK": "0"},
    "torchrun": lambda rank, count: {
        "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "1",
    },
    "slurm": lambda rank, count: {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "run", "SLURM_NTASKS": str(count), "SLURM_PROCID": str(rank),
        "SLURM_NTASKS_PER_NODE": str(count), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
        "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost",
    },
}  # fmt: skip
"""What each says to a rank."""


def options(count: int, batch: int = 128) -> list[str]:
    """Ranks that together have one batch."""
    shared = [
        "--config",
        str(CONF / "several.yaml"),
        "--trainer.devices",
        str(count),
        "--oversubscribe",
        "true",
    ]
    return [*shared, "--data.batch_size", str(batch // count)] if count > 1 else []


def losses(run: Path) -> list[float]:
    history = pd.read_csv(run / "history.csv")
    return history[(history.split == "fit") & (history.metric == "loss")].value.tolist()


@pytest.fixture(scope="module")
def alone(small_fit, tmp_path_factory) -> Path:
    """A run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert Ranks(small_fit(run, refinement="equilibrium"), 1, run.parent / "said").measured()
    return run


@pytest.fixture(scope="module")
def two(small_fit, tmp_path_factory) -> Path:
    """The same on two."""
    run = tmp_path_factory.mktemp("two") / "run"
    args = small_fit(run, *options(2), refinement="equilibrium")
    assert Ranks(args, 2, run.parent / "said").measured()
    return run


def test_two_ranks_with_one_global_batch_train_as_one_process_does(alone: Path, two: Path):
    assert losses(two)[:1] == pytest.approx(losses(alone)[:1], rel=1e-6)


def test_one_to_four_ranks_measure_the_same(alone: Path, tmp_path: Path):
    args = ["validate", "--config", str(alone / "config.yaml"), "--ckpt_path", "last"]
    args += ["--trainer.precision", "64-true", "--trainer.callbacks+", "deq_collapse.callbacks.LastStep"]
    (one, *others) = [
        Ranks([*args, *options(count)], count, tmp_path / str(count)).measured() for count in (1, 2, 3, 4)
    ]
    assert {
        "train/nc1",
        "test/nc3",
        "train/loss",
        "train/spectral_radius",
        "test/last_step_q90",
    } <= one.keys()
    for many in others:
        assert many == pytest.approx(one, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_whoever_starts_the_ranks_the_run_is_the_same(launcher, small_fit, two: Path, tmp_path: Path):
    args = small_fit(tmp_path / "run", "--config", str(CONF / f"{launcher}.yaml"), refinement="equilibrium")
    args += ["--data.batch_size", "64"]
    assert Ranks(args, 2, tmp_path / "said", launcher).measured()
    assert losses(tmp_path / "run")[0] == losses(two)[0]


def test_a_rank_that_dies_ends_the_others_by_a_sentence_and_the_run_goes_on(small_fit, tmp_path: Path):
    whole, run = tmp_path / "whole", tmp_path / "run"
    common = [*options(2), *WARM, *UNLIKE]
    assert Ranks(small_fit(whole, *common, refinement="equilibrium", epochs=4), 2, tmp_path).measured()
    args = small_fit(run, *common, refinement="equilibrium", epochs=4)
    ranks = Ranks(args, 2, tmp_path / "said")
    while not (run / "last.ckpt").exists():
        assert None in [process.exitcode for process in ranks.processes]
        time.sleep(0.01)
    dies = ranks.processes[1]
    os.kill(dies.pid or 0, signal.SIGKILL)
    assert ranks.codes() == [2, -signal.SIGKILL]
    said = ranks.said[0].read_text()
    assert "another process of the run ended" in said
    assert "--ckpt_path last" in said
    assert "Traceback" not in said
    assert Ranks([*args, "--ckpt_path", "last"], 2, tmp_path / "again").measured()
    a, b = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (whole, run))
    assert all(torch.equal(a[name], b[name]) for name in a)

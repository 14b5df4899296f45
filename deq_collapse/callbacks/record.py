"""The record of a finished run: one JSON record and the class geometry, written last."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deq_collapse import fit_end
from deq_collapse.callbacks.averaging import settle
from deq_collapse.callbacks.costs import Costs, cost_images, flops_per_image, spread
from deq_collapse.callbacks.ending import Ending
from deq_collapse.callbacks.history import History
from deq_collapse.callbacks.root_device import on_its_device
from deq_collapse.data import CollapseDataModule
from deq_collapse.errors import UserError
from deq_collapse.files import write_json
from deq_collapse.metrics.modes import evaluating
from deq_collapse.models.classifiers import linear_map
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.measures import precise
from deq_collapse.models.module import CollapseModule
from deq_collapse.models.solvers import name_of
from deq_collapse.runs.files import CHECKPOINT, RESULT, SPLITS
from deq_collapse.runs.geometry import write_geometry

FEATURES_KEPT = 2000
"""Largest number of test features kept for figures."""


class RunRecord(Callback):
    """Writes ``geometry.npz`` and then ``result.json``, whose existence marks the run as finished.

    Args:
        name: of the run.
        study: the study it belongs to, or ``None``.
        axes: its place in the study's grid, label by axis.
    """

    def __init__(self, name: str, study: str | None = None, axes: dict[str, str] | None = None) -> None:
        self.name, self.study, self.axes = name, study, axes or {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keeps a finished run.

        Raises:
            UserError: if the directory holds one.
        """
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            keep_finished(Path(trainer.default_root_dir))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps an interrupted run; only now is it known whether a checkpoint was loaded.

        Raises:
            UserError: if the directory holds one that is not continued.
        """
        directory = Path(trainer.default_root_dir)
        started = not trainer.fast_dev_run and (directory / CHECKPOINT).exists()  # type: ignore[attr-defined]
        loaded = trainer.ckpt_path is not None or trainer.strategy.restore_checkpoint_after_setup
        if started and not loaded:
            raise UserError(
                f"{directory} holds an interrupted run: continue it by ckpt_path={directory / CHECKPOINT}, or"
                " choose another directory."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes both files.

        Raises:
            UserError: if the last measurement is not of the final weights.
        """
        history, costs = (_find(trainer, kind) for kind in (History, Costs))
        if trainer.interrupted or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not history.measured(trainer.global_step):
            raise UserError(
                f"the run ended after step {trainer.global_step} without a measurement of its final weights:"
                " there is no record of it."
            )
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, CollapseModule)
        assert isinstance(data, CollapseDataModule)
        settle(trainer, pl_module)
        directory = Path(trainer.default_root_dir)
        precision = trainer.precision_plugin
        with on_its_device(trainer, pl_module), precision.forward_context():
            of_test, of_costs = (
                precision.convert_input(images)
                for images in (_test_images(data, pl_module.device), cost_images(data, pl_module.device))
            )
            write_geometry(geometry(pl_module, data, of_test), directory)
            flops = flops_per_image(pl_module.network, of_costs)
        record: dict[str, Any] = {"name": self.name, "axes": self.axes, "study": self.study}
        record |= summary(pl_module, data, history)
        record |= {
            **end(trainer),
            "steps": trainer.global_step,
            "parameters": pl_module.network.parameter_counts(),
            "flops_per_image": flops,
            "activation_bytes": costs.activation_bytes,
            "seconds_per_step": costs.seconds_per_step(),
        }
        write_json(directory / RESULT, record)


def keep_finished(directory: Path) -> None:
    """Checks that a directory holds no finished run.

    Raises:
        UserError: if it does.
    """
    if (directory / RESULT).exists():
        raise UserError(
            f"{directory} holds a finished run, and nothing is overwritten: choose another directory."
        )


def end(trainer: Trainer) -> dict[str, Any]:
    """The number of epochs that have ended, what ended the fit, how many epochs were whole, and the planned
    limits, null for none.
    """
    noted: Ending = _find(trainer, Ending)
    return {
        "epochs": noted.epochs or trainer.current_epoch,
        "end": {
            "by": noted.by or fit_end.why(trainer),
            "whole_epochs": noted.whole_epochs if noted.epochs else trainer.current_epoch,
            "planned_epochs": _limit(trainer.max_epochs),
            "planned_steps": _limit(trainer.max_steps),
        },
    }


def _limit(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def summary(module: CollapseModule, data: CollapseDataModule, history: History) -> dict[str, Any]:
    """The results: final measures of all splits, terminal phase, fall of NC1, solver."""
    errors, nc1 = history.curve("train", "error"), history.curve("train", "nc1")
    last = nc1[max(nc1)] if nc1 else math.nan
    fall = nc1[min(nc1)] / last if nc1 and last > 0 else math.nan
    return {
        "dataset": data.source.name,
        "class_counts": list(data.class_counts),
        "majority": None if data.majority is None else list(data.majority),
        "terminal_epoch": min((epoch for epoch, error in errors.items() if error == 0), default=None),
        "nc1_fall": _finite(fall),
        **{
            split: {name: _finite(value) for name, value in values.items()}
            for split in SPLITS
            if (values := history.values(split))
        },
        "solver": solver(module, history),
    }


def solver(module: CollapseModule, history: History) -> dict[str, Any] | None:
    """Statistics of an equilibrium's solver; ``None`` for other refinements."""
    refinement = module.network.refinement
    if not isinstance(refinement, Equilibrium):
        return None
    fit = history.values("fit")
    missed, missed_backward = (history.curve("fit", f"{d}_unconverged") for d in ("forward", "backward"))
    return {
        "solver": name_of(refinement.solver),
        "backward_solver": name_of(refinement.backward_solver),
        "gradient": str(refinement.gradient),
        "tolerance": refinement.tol.relative,
        "forward_evaluations": fit.get("forward_evaluations"),
        "backward_evaluations": fit.get("backward_evaluations"),
        "residual": _finite(fit.get("forward_residual", math.nan)),
        "unconverged": missed[max(missed)] if missed else None,
        "unconverged_worst_epoch": max(missed.values(), default=None),
        "backward_tolerance": refinement.backward_tol.relative,
        "backward_residual": _finite(fit.get("backward_residual", math.nan)),
        "backward_unconverged": missed_backward[max(missed_backward)] if missed_backward else None,
        "backward_unconverged_worst_epoch": max(missed_backward.values(), default=None),
    }


@torch.no_grad()
def geometry(module: CollapseModule, data: CollapseDataModule, images: Tensor) -> dict[str, Any]:
    """Arrays for the figures: class means, classifier, some test features. Half precision becomes float32,
    because numpy has no bfloat16.
    """
    network = module.network
    weight, bias = linear_map(network.classifier)
    with evaluating(network):
        features = [network.features(part) for part in torch.split(images, data.eval_batch_size)]
    return {
        **{f"class_means_{split}": _array(means) for split, means in module.class_means.items()},
        "weight": _array(weight),
        "bias": np.zeros(len(weight)) if bias is None else _array(bias),
        "test_features": torch.cat([part.float().cpu() for part in features]).numpy(),
        "test_labels": data.source.test.labels[_kept(data)].numpy(),
        "class_names": np.array(data.class_names),
        "majority": np.array(data.majority or (), dtype=np.int64),
    }


def _array(values: Tensor) -> Any:
    return precise(values).cpu().numpy()


def _kept(data: CollapseDataModule) -> Tensor:
    """Positions evenly spread over the test split, which may be sorted by class."""
    return spread(len(data.source.test.labels), FEATURES_KEPT)


def _test_images(data: CollapseDataModule, device: torch.device) -> Tensor:
    return data.normalise(data.source.test.images[_kept(data)]).to(device)


def _find(trainer: Trainer, kind: type[Any]) -> Any:
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

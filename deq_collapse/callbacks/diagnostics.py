"""Solver statistics of an equilibrium in every epoch, and the conditioning of measured fixed points."""

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from deq_collapse.callbacks.quantiles import of_all_ranks, quantile
from deq_collapse.data.batches import EvaluationBatches
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.module import CollapseModule
from deq_collapse.models.solution import Solution, Solve

PROBES = 8
"""Number of images whose spectral radius is estimated, over all ranks."""


class Diagnostics(Callback):
    """Logs statistics of both kinds of solves in every epoch, and bounds of the measured fixed points.

    For each direction, ``fit/forward_*`` and ``fit/backward_*``: ``evaluations`` (mean over batches),
    ``residual`` (largest over samples), ``residual_median``, ``residual_q90``, ``unconverged`` (share of
    samples that missed the tolerance). A gradient without an adjoint solve has no ``fit/backward_*``. If
    adjoint solves miss the tolerance, a warning reports it once per epoch. Every call of a step counts, with
    the adjoint solves of its own graph; steps of unrolled pre-training solve nothing and do not count.

    With measurements, it logs ``train/spectral_radius`` (largest over a few images, evenly spread over the
    clean training split for any number of ranks). For a cell with a known bound L on its Lipschitz constant
    it also logs ``train/lipschitz_bound`` and, if L is below 1, ``<split>/error_bound``:
    ``residual / (1 - L)`` bounds ``||z - z*|| / ||z||`` for every sample of the split (Banach).

    Solves are recorded on the device and read once per epoch.
    """

    def __init__(self) -> None:
        self._forget()
        self._batch: list[Solution] = []
        self._recording = ExitStack()
        self._places: dict[int, list[int]] = {}
        self._probed: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier fit. A run that resumes within an epoch does not start that epoch."""
        self._forget()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts recording the calls of the batch."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None:
            self._batch = self._recording.enter_context(refinement.recorded())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the solves of the batch."""
        self._recording.close()
        refinement = equilibrium_of(pl_module)
        for solution in self._batch:
            if refinement is not None and solution.gradient == refinement.gradient:
                self._solves["forward"].append(solution.forward)
                self._solves["backward"] += solution.backward
        self._batch = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs cost and accuracy of all solves of the epoch; per batch, this would cost a step's time."""
        for direction, solves in self._solves.items():
            if solves:
                _log_solves(trainer, pl_module, direction, solves)
        self._forget()

    def _forget(self) -> None:
        self._solves: dict[str, list[Solve]] = {"forward": [], "backward": []}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stops recording."""
        self._recording.close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses the images whose spectral radius is estimated."""
        self._places, self._probed = {}, []
        splits = trainer.val_dataloaders
        train = splits.get("train") if isinstance(splits, dict) else None
        if equilibrium_of(pl_module) is not None and isinstance(train, EvaluationBatches):
            self._places = train.places(probes(len(train.data.labels)))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the chosen images of the batch and the final states of their solves."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None and dataloader_idx == 0 and batch_idx in self._places:
            assert refinement.state is not None
            some = self._places[batch_idx]
            # Lightning measures in inference mode, in which derivatives are impossible.
            with torch.inference_mode(False):
                self._probed.append((batch[0][some].clone(), refinement.state[some].clone()))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the largest spectral radius, and the bounds of the splits measured."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None and refinement.state is not None:
            radius = _spectral_radius(trainer, pl_module, refinement, self._probed)
            pl_module.log("train/spectral_radius", radius, sync_dist=True, reduce_fx="max")
        self._probed = []
        _log_bounds(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the bound of the test split."""
        _log_bounds(pl_module)


def _log_bounds(module: LightningModule) -> None:
    refinement = equilibrium_of(module)
    bound = None if refinement is None else refinement.cell.lipschitz_bound()
    if bound is None:
        return
    assert isinstance(module, CollapseModule)
    splits = module.measured()
    if "train" in splits:
        module.log("train/lipschitz_bound", bound, sync_dist=True)
    for split in splits:
        if bound < 1:
            error = module.largest_residual(split) / (1 - bound)
            module.log(f"{split}/error_bound", error, sync_dist=True)


def equilibrium_of(module: LightningModule) -> Equilibrium | None:
    """The module's refinement if it is an equilibrium."""
    refinement = module.network.refinement if isinstance(module, CollapseModule) else None
    return refinement if isinstance(refinement, Equilibrium) else None


def _log_solves(trainer: Trainer, module: LightningModule, direction: str, solves: list[Solve]) -> None:
    options: dict[str, Any] = {"on_epoch": True, "on_step": False, "sync_dist": True}
    evaluations = sum(solve.evaluations for solve in solves) / len(solves)
    module.log(f"fit/{direction}_evaluations", evaluations, **options)
    residual, missed = (
        of_all_ranks(trainer, torch.cat(parts))
        for parts in ([solve.residual for solve in solves], [solve.missed for solve in solves])
    )
    for name, value in (
        ("residual", residual.max()),
        ("residual_median", quantile(residual, 0.5)),
        ("residual_q90", quantile(residual, 0.9)),
        ("unconverged", missed.float().mean()),
    ):
        module.log(f"fit/{direction}_{name}", value, **options)
    if direction == "backward" and missed.any():
        refinement = equilibrium_of(module)
        assert refinement is not None
        rank_zero_warn(
            f"in epoch {trainer.current_epoch + 1} the gradients of {float(missed.float().mean()):.2%} of the"
            f" samples missed the backward solver's tolerance of {refinement.backward_tol.relative:g}"
            f" (largest relative residual {float(residual.max()):.1e})."
        )


def _spectral_radius(
    trainer: Trainer, module: LightningModule, refinement: Equilibrium, probed: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Largest over images (N, C, H, W) and the final states of their solves; see `largest`."""
    assert isinstance(module, CollapseModule)
    assert refinement.state is not None
    if not probed:
        return largest(refinement.state.new_empty(0))
    with torch.inference_mode(False), torch.no_grad(), trainer.precision_plugin.forward_context():
        images, states = map(torch.cat, zip(*probed, strict=True))
        h0 = module.network.encoder(trainer.precision_plugin.convert_input(images))
        return largest(refinement.spectral_radius(h0, states))


def largest(radii: Tensor) -> Tensor:
    """The largest radius of this rank's samples; without any, a value below that of every other rank."""
    return radii.max() if len(radii) else radii.new_tensor(-torch.inf)


def probes(count: int) -> list[int]:
    """Positions of the images, out of `count`, whose spectral radius is estimated: at most `PROBES`."""
    return list(range(0, count, max(1, count // PROBES)))[:PROBES]

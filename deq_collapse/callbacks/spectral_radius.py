"""The conditioning of the fixed points found in training, epoch by epoch."""

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from deq_collapse.callbacks.diagnostics import equilibrium_of, largest, probes
from deq_collapse.metrics.modes import evaluating
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.solution import Solution


class SpectralRadius(Callback):
    """Logs ``fit/spectral_radius``: the largest over a few images, evenly spread over each epoch's first
    training batch for any number of ranks, at the states and with the weights of that step.

    :class:`~deq_collapse.callbacks.Diagnostics` log the same for the clean training split, but only with
    measurements, after which the weights change. Above 1, plain iteration diverges from that state; a
    Jacobian term counteracts this. The map is that of eval mode, so training's computations and random
    numbers do not change. Each time it costs 12 vector-Jacobian products of 8 images and, for a bounded cell,
    the exact norms of its weights. Does nothing for an explicit refinement.

    In a configuration: ``conf/trainer/spectral_radius.yaml``.
    """

    def __init__(self) -> None:
        self._watching = ExitStack()
        self._inputs: list[Tensor] = []
        self._solutions: list[Solution] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watches the refinement in the epoch's first batch."""
        refinement = equilibrium_of(pl_module)
        if refinement is None or batch_idx > 0:
            return

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module is refinement:  # not the copy used for counting costs
                self._inputs.append(inputs[0].detach())

        self._watching.callback(refinement.register_forward_pre_hook(keep).remove)
        self._solutions = self._watching.enter_context(refinement.recorded())

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures before the weights change."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None and self._solutions:
            state = self._solutions[-1].state
            some = _of_rank(probes(len(state) * trainer.world_size), trainer.global_rank, trainer.world_size)
            radius = _measure(refinement, self._inputs[-1][some], state[some])
            options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1}
            pl_module.log("fit/spectral_radius", radius, sync_dist=True, reduce_fx="max", **options)
            self._close()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops watching, also if there was no backward pass."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Watches no more."""
        self._close()

    def _close(self) -> None:
        self._watching.close()
        self._inputs, self._solutions = [], []


def _measure(refinement: Equilibrium, h0: Tensor, state: Tensor) -> Tensor:
    if not len(state):
        return largest(state.new_empty(0))
    with evaluating(refinement):  # so that a bounded cell keeps its singular vectors
        return largest(refinement.spectral_radius(h0, state))


def _of_rank(places: list[int], rank: int, ranks: int) -> list[int]:
    """Places in a batch over all ranks, as seen by one rank: ranks take the samples in turn."""
    return [place // ranks for place in places if place % ranks == rank]

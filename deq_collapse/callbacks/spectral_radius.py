"""How the fixed points that training finds are conditioned, epoch by epoch."""

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from deq_collapse.callbacks.diagnostics import equilibrium_of, largest, probes
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.solution import Solution


class SpectralRadius(Callback):
    """Logs ``fit/spectral_radius``: the largest over a few images of the first training batch of each epoch,
    evenly spread over it whatever the ranks, at the states that the step found and with the weights that it
    found them with.

    :class:`~deq_collapse.callbacks.Diagnostics` log the same of the clean training split, but with
    measurements only, and after them weights move on. Above 1, plain iteration runs away from that state; a
    Jacobian term holds it back. The map is the one of eval mode, so nothing that training computes or draws
    changes. Costs 12 vector-Jacobian products of 8 images a time, and of a bounded cell the exact norms of
    its weights. Does nothing for an explicit refinement.

    In a configuration: ``conf/trainer/spectral_radius.yaml``.
    """

    def __init__(self) -> None:
        self._watching = ExitStack()
        self._inputs: list[Tensor] = []
        self._solutions: list[Solution] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """In the epoch's first batch, watches the refinement."""
        refinement = equilibrium_of(pl_module)
        if refinement is None or batch_idx > 0:
            return

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module is refinement:  # not the copy that a step's costs are counted on
                self._inputs.append(inputs[0].detach())

        self._watching.callback(refinement.register_forward_pre_hook(keep).remove)
        self._solutions = self._watching.enter_context(refinement.recorded())

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures before the weights move."""
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
        """Watches no more, also where there was no backward pass."""
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
    refinement.eval()  # where a bounded cell finds its norms without moving the vectors it follows them by
    try:
        return largest(refinement.spectral_radius(h0, state))
    finally:
        refinement.train()


def _of_rank(places: list[int], rank: int, ranks: int) -> list[int]:
    """Places of a batch that lies over all ranks as one rank has them: ranks take its samples in turn."""
    return [place // ranks for place in places if place % ranks == rank]

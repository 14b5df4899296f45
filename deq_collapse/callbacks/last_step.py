"""How near to a fixed point a network's computation ends: the relative size of its last step."""

from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from deq_collapse.callbacks.along import blocks
from deq_collapse.callbacks.diagnostics import equilibrium_of
from deq_collapse.callbacks.quantiles import of_all_ranks, quantile
from deq_collapse.errors import UserError
from deq_collapse.metrics.taps import named_modules
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.explicit import Explicit
from deq_collapse.models.module import CollapseModule
from deq_collapse.models.solvers import norms, relative_residual
from deq_collapse.models.unfolded import Unfolded


class LastStep(Callback):
    """Logs ``<split>/last_step`` and ``<split>/last_step_q90``, median and 90% quantile over the samples of
    ``||z_k - z_{k-1}|| / ||z_k||``, z_k being the state after the last of k steps, wherever a split is
    measured.

    It is 0 at a fixed point, and about 1 or more where the last step still changes everything. Of tied blocks
    it is the relative residual at z_{k-1}, the number for which an equilibrium has a tolerance; of an
    equilibrium, the residual at which its solve ended. So it tells how much of an equilibrium an explicit
    network is. Nothing is evaluated for it, and training is not changed.

    In a configuration: ``conf/trainer/last_step.yaml``, also for the test of a finished run.
    """

    def __init__(self) -> None:
        self._states: deque[Tensor] = deque(maxlen=2)
        self._hooks: list[RemovableHandle] = []
        self._sizes: dict[str, list[Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a network without steps, and one whose steps are out of sight.

        Raises:
            UserError: for a refinement that takes fewer than two steps, or is of no kind known here, and for
                a compiled one.
        """
        assert isinstance(pl_module, CollapseModule)
        refinement = pl_module.network.refinement
        if isinstance(refinement, Equilibrium):
            return
        if not isinstance(refinement, Explicit | Unfolded) or refinement.depth < 2:
            depth = f" with a depth of {refinement.depth}" if hasattr(refinement, "depth") else ""
            raise UserError(
                "LastStep takes the last two states of Explicit or Unfolded with a depth of 2 or more, or the"
                f" residual of Equilibrium, but the refinement is {type(refinement).__name__}{depth}."
            )
        if pl_module.compiled:
            raise UserError("LastStep sees no step of a compiled refinement: leave out model.compile.")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follows the steps."""
        self._follow(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follows the steps."""
        self._follow(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Notes the last step of every sample."""
        self._note(pl_module, tuple(trainer.val_dataloaders or ())[dataloader_idx])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Notes the last step of every sample."""
        self._note(pl_module, "test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs both numbers of every split."""
        self._log(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs both numbers of the test split."""
        self._log(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Follows nothing any more."""
        self._leave()

    def _follow(self, module: LightningModule) -> None:
        self._leave()
        self._sizes = {}
        assert isinstance(module, CollapseModule)
        network = module.network
        if isinstance(network.refinement, Equilibrium):
            return
        for name in named_modules(network, blocks(network.refinement)):
            hook = network.get_submodule(name).register_forward_hook(lambda *call: self._see(call[-1]))
            self._hooks.append(hook)

    def _see(self, state: Tensor) -> None:
        self._states.append(state.detach())

    def _leave(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()
        self._states.clear()

    def _note(self, module: LightningModule, split: str) -> None:
        equilibrium = equilibrium_of(module)
        if equilibrium is not None:
            assert equilibrium.forward_solve is not None
            size = equilibrium.forward_solve.residual
        else:
            before, after = self._states
            size = relative_residual(norms(after - before), after)
            self._states.clear()
        self._sizes.setdefault(split, []).append(size)

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        self._leave()
        for split, noted in self._sizes.items():
            sizes = of_all_ranks(trainer, torch.cat(noted))
            module.log(f"{split}/last_step", quantile(sizes, 0.5), sync_dist=True)
            module.log(f"{split}/last_step_q90", quantile(sizes, 0.9), sync_dist=True)

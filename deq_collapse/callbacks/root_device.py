"""Where a network is measured after a fit."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import LightningModule, Trainer


@contextmanager
def on_its_device(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Moves a module to the device that it was trained on: before ``on_fit_end`` Lightning takes it from
    there to the CPU.
    """
    home = module.device
    module.to(trainer.strategy.root_device)
    try:
        yield
    finally:
        module.to(home)

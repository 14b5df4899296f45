"""The logger's old import path, for configurations saved before `tracking` was a package."""

from deq_collapse.tracking.logger import CollapseWandbLogger

__all__ = ["CollapseWandbLogger"]

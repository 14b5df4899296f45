"""Where configurations saved before `tracking` was a package find their logger."""

from deq_collapse.tracking.logger import CollapseWandbLogger

__all__ = ["CollapseWandbLogger"]

"""Samples that wait on their rank until the class means of all ranks are known."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from deq_collapse.metrics.functional import tally_samples
from deq_collapse.metrics.local_states import LocalStates
from deq_collapse.metrics.statistics import ClassStatistics


class HeldSamples(LocalStates):
    """Base of metrics that look at every sample once more when all means are known.

    Args:
        buffer_dtype: type of the features held; None keeps the type they come in.
        buffer_device: where they are held; None keeps them where they are.
        buffer_limit: bytes of features at most.
        kwargs: passed to `torchmetrics.Metric`.

    """

    buffered_features: list[Tensor]
    buffered_labels: list[Tensor]
    buffered_decisions: list[Tensor]

    def __init__(
        self,
        buffer_dtype: torch.dtype | None,
        buffer_device: torch.device | str | None,
        buffer_limit: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.buffer_dtype = buffer_dtype
        self.buffer_device = buffer_device
        self.buffer_limit = buffer_limit

    def add_held_samples(self) -> None:
        """Add the states: without this call nothing can be held."""
        for name in ("buffered_features", "buffered_labels", "buffered_decisions"):
            self.add_local_state(name)

    def hold(self, features: Tensor, buckets: Tensor, decisions: Tensor) -> None:
        """Keep features (n, d), the buckets they were counted in (n,), and the classes decided on (n,).

        Raises:
            ValueError: if more than `buffer_limit` bytes would be held.

        """
        dtype, device = self.buffer_dtype or features.dtype, self.buffer_device or features.device
        held = sum(chunk.nbytes for chunk in self.buffered_features)
        if held + features.nelement() * dtype.itemsize > self.buffer_limit:
            raise ValueError(
                f"features kept for nc4 would take more than buffer_limit={self.buffer_limit} bytes; "
                "raise it, choose a smaller buffer_dtype, or leave nc4 (and weighting='classes') out"
            )
        self.buffered_features.append(features.to(device, dtype, copy=True))
        self.buffered_labels.append(buckets.to(device))
        self.buffered_decisions.append(decisions.to(device))

    def count_held(self, stats: ClassStatistics, spread: bool) -> Tensor:
        """Return `tally_samples` of this rank or, inside `compute`, of all: counts travel, samples stay."""
        buffers = (self.buffered_features, self.buffered_labels, self.buffered_decisions)
        tally = tally_samples(stats, *buffers, spread=spread)
        if self._is_synced:
            gather = self.dist_sync_fn or gather_all_tensors
            tally = torch.stack(gather(tally, self.process_group)).sum(0)
        return tally

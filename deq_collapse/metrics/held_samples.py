"""Samples kept on their rank until the class means of all ranks are known."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from deq_collapse.metrics.functional import tally_directions, tally_samples
from deq_collapse.metrics.local_states import LocalStates
from deq_collapse.metrics.statistics import ClassStatistics


class HeldSamples(LocalStates):
    """Base of metrics that use every sample again once all means are known.

    Args:
        buffer_dtype: type of the features held; None keeps their type.
        buffer_device: device that holds them; None keeps them on theirs.
        buffer_limit: largest size of the features in bytes.
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
        if buffer_dtype is not None and not buffer_dtype.is_floating_point:
            raise ValueError(f"buffer_dtype must be a floating type, got {buffer_dtype}")
        self.buffer_dtype = buffer_dtype
        self.buffer_device = buffer_device
        self.buffer_limit = buffer_limit
        self._counted, self._held = 0, 0

    def add_held_samples(self) -> None:
        """Add the states; nothing can be held without this call."""
        for name in ("buffered_features", "buffered_labels", "buffered_decisions"):
            self.add_local_state(name)

    def check_room(self, features: Tensor) -> None:
        """Raise ValueError if, with features (n, d), more than `buffer_limit` bytes would be held."""
        if len(self.buffered_features) != self._counted:  # reset, merged or loaded since the last call
            self._held = sum(chunk.nbytes for chunk in self.buffered_features)
            self._counted = len(self.buffered_features)
        dtype = self.buffer_dtype or features.dtype
        if self._held + features.nelement() * dtype.itemsize > self.buffer_limit:
            raise ValueError(
                f"features kept for nc4 would take more than buffer_limit={self.buffer_limit} bytes; "
                "raise it, choose a smaller buffer_dtype, or leave nc4 (and weighting='classes') out"
            )

    def copied(self, features: Tensor) -> Tensor:
        """Return the copy of features (n, d) that `hold` keeps."""
        return features.to(
            self.buffer_device or features.device, self.buffer_dtype or features.dtype, copy=True
        )

    def hold(self, features: Tensor, buckets: Tensor, decisions: Tensor) -> None:
        """Keep `copied` features (n, d), the buckets they were counted in, and the classes decided."""
        self.buffered_features.append(features)
        self.buffered_labels.append(buckets.to(features.device))
        self.buffered_decisions.append(decisions.to(features.device))
        self._held += features.nbytes
        self._counted += 1

    def count_held(self, stats: ClassStatistics, spread: bool) -> Tensor:
        """Return `tally_samples` of this rank or, inside `compute`, of all: they exchange only counts."""
        buffers = (self.buffered_features, self.buffered_labels, self.buffered_decisions)
        tally = tally_samples(stats, *buffers, spread=spread)
        if self.buffer_dtype is not None and not self._fits(len(stats.counts)):
            tally.fill_(torch.nan)  # raising here would leave other ranks waiting
        tally = self._over_ranks(tally)
        if bool(tally.isfinite().all()):
            return tally
        if self.buffer_dtype is not None:
            raise ValueError(f"features are too large for buffer_dtype={self.buffer_dtype}")
        raise ValueError("features are too large for float32 arithmetic; hand them over as float64")

    def count_directions(self, stats: ClassStatistics) -> Tensor:
        """Return `tally_directions` of this rank or, inside `compute`, of all ranks."""
        return self._over_ranks(tally_directions(stats, self.buffered_features, self.buffered_labels))

    def _over_ranks(self, tally: Tensor) -> Tensor:
        if not self._is_synced:
            return tally
        gather = self.dist_sync_fn or gather_all_tensors
        return torch.stack(gather(tally, self.process_group)).sum(0)

    def _fits(self, num_classes: int) -> bool:
        pairs = zip(self.buffered_features, self.buffered_labels, strict=True)
        return all(bool((x.isfinite().all(1) | (y >= num_classes)).all()) for x, y in pairs)

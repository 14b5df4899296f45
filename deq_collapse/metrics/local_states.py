"""A torchmetrics Metric with states that stay on their rank and sums that stay in float64."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

MARK = "made_with_"


class LocalStates(Metric):
    """Base of metrics that hold samples: lists of chunks that are merged, saved and moved, never gathered.

    Everything else about states is torchmetrics' own: reset, `merge_state`, `forward`, checkpoints and
    devices.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._local: list[str] = []

    def add_local_state(self, name: str) -> None:
        """Add a list of tensors that no other rank ever sees; its chunks must not be written to."""
        self.add_state(name, [], dim_zero_cat)
        self._local.append(name)

    def add_zeros(self, name: str, length: int, reduction: str | Callable[[Tensor], Tensor]) -> None:
        """Add a vector of float64 sums."""
        self.add_state(name, torch.zeros(0, dtype=torch.float64), reduction)
        setattr(self, name, torch.zeros(length, dtype=torch.float64))
        # The default that a reset copies: one zero, expanded to `length`, because a second vector would
        # double the memory.
        self._defaults[name] = torch.zeros(1, dtype=torch.float64).expand(length)

    def mark_states(self, kind: str, content: bytes) -> None:
        """Add an empty state whose name identifies `content`, a setting that changes what is counted; it
        replaces the last of that kind.

        torchmetrics shares, merges and loads states of equal names; metrics that count differently thus stay
        apart.
        """
        for name in [name for name in self._local if name.startswith(f"{MARK}{kind}_")]:
            self._local.remove(name)
            for states in (self._defaults, self._persistent, self._reductions, self.__dict__):
                states.pop(name)
        self.add_local_state(f"{MARK}{kind}_{crc32(content):08x}")

    def make_states_writable(self) -> None:
        """Outside inference mode, copy sums created in it, e.g. by a reset, to make them writable."""
        for name in self._defaults:
            state = getattr(self, name)
            if isinstance(state, Tensor) and state.is_inference() and not torch.is_inference_mode_enabled():
                setattr(self, name, state.clone())

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        reductions = self._reductions
        self._reductions = {name: how for name, how in reductions.items() if name not in self._local}
        try:
            super()._sync_dist(dist_sync_fn, process_group)
        finally:
            self._reductions = reductions

    @contextmanager
    def sync_context(self, *, should_unsync: bool = True, **how: Any) -> Iterator[None]:  # type: ignore[override]
        """Torchmetrics' own, but an error within it leaves no counts of other ranks behind."""
        try:
            with super().sync_context(should_unsync=should_unsync, **how):
                yield
        except Exception:
            self.unsync(should_unsync=self._is_synced and should_unsync)
            raise

    def _forward_reduce_state_update(self, *args: Any, **kwargs: Any) -> Any:
        """Torchmetrics' own, but a batch that raises leaves the earlier counts intact."""
        states, count = self._copy_state_dict(), self._update_count
        settings = {name: getattr(self, name) for name in ("_to_sync", "_should_unsync", "compute_on_cpu")}
        try:
            return super()._forward_reduce_state_update(*args, **kwargs)
        except Exception:
            for name, value in {**states, **settings}.items():
                setattr(self, name, value)
            self._update_count, self._computed, self._enable_grad = count, None, False
            raise

    def merge_state(self, incoming_state: "dict[str, Any] | Metric") -> None:
        """Torchmetrics' own, but `compute` does not return its earlier result from the cache.

        Raises:
            ValueError: if the states of the other metric have other names or shapes.

        """
        other = incoming_state.metric_state if isinstance(incoming_state, Metric) else incoming_state
        if _shapes(other) != _shapes(self.metric_state):
            raise ValueError("metrics of different arguments have different states and cannot be merged")
        super().merge_state(incoming_state)
        self._computed = None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Torchmetrics' own, but states of a metric with other arguments are refused and change nothing."""
        given = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
        own = _shapes(self.metric_state)
        marks = {name for name in given if name.startswith(MARK)}
        shapes = _shapes({name: state_dict[key] for name, key in given.items() if name in own})
        if marks <= own.keys() and all(shape == own[name] for name, shape in shapes.items()):
            rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
            super()._load_from_state_dict(state_dict, prefix, *rest)
            return
        where = f"{prefix.rstrip('.')}: " if prefix else ""
        error_msgs.append(f"{where}metrics of different arguments have different states; none was loaded")
        for name in (*marks, *shapes):
            state_dict.pop(given[name], None)

    def _copy_state_dict(self) -> dict[str, Tensor | list[Any]]:
        # Chunks are never written to, so another list of the same tensors saves copying all samples.
        kept = {name: list(getattr(self, name)) for name in self._local}
        defaults = self._defaults
        self._defaults = {name: value for name, value in defaults.items() if name not in self._local}
        try:
            return {**super()._copy_state_dict(), **kept}
        finally:
            self._defaults = defaults

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> "LocalStates":
        """Follow a module to its device, but keep the dtype: sums in bfloat16 would be worthless."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, exclude_state)
        return self


def _shapes(states: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(state, "shape", None) for name, state in states.items()}

"""Taps of a network: modules by name, and features of their outputs, recorded by forward hooks."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Pool = Callable[[Any], Tensor]
"""Turns a module's output into features (N, d)."""


def average(output: Any) -> Tensor:
    """Average a module's output over all positions.

    Args:
        output: (N, d), returned unchanged; (N, T, d), tokens; or (N, d, ...), maps of any dimension.

    Returns:
        Features (N, d); averages of half precision are float32.

    Raises:
        ValueError: for anything but a tensor of floats with two or more dimensions.

    """
    if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
        got = f"{tuple(output.shape)} {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"(N, d), (N, T, d) or (N, d, ...) floats are needed, got {got}; `pool` can make them"
        )
    if output.ndim == 2:
        return output
    positions = 1 if output.ndim == 3 else tuple(range(2, output.ndim))
    return output.mean(positions, dtype=torch.promote_types(output.dtype, torch.float32))


def named_modules(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Return the names of the modules that the patterns match, each once, in the order of the patterns.

    Raises:
        ValueError: for a pattern that matches none, with the nearest names; and for one pattern alone instead
            of some.

    """
    if isinstance(patterns, str):
        raise ValueError(f"modules are a list, got {patterns!r}: give [{patterns!r}]")  # noqa: TRY004
    names = [name for name, _ in model.named_modules()]
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if _matches(name.split("."), pattern.split("."))]
        if not matches:
            near = get_close_matches(pattern, names, n=3)
            children = [name for name, _ in model.named_children()]
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(children)}"
            raise ValueError(f"the model has no module {pattern}; {hint}")
        found |= dict.fromkeys(matches)
    return list(found)


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match part by part, so that ``*`` does not match across a dot."""
    return len(name) == len(pattern) and all(map(fnmatchcase, name, pattern))


class Taps:
    """Records features of the modules' outputs, call by call, inside a ``with`` block.

    Args:
        model: called as usual; its outputs and gradients do not change.
        names: of its modules.
        pool: see `Pool`.

    """

    def __init__(self, model: nn.Module, names: Sequence[str], pool: Pool) -> None:
        self.model = model
        self.names = names
        self.pool = pool
        self._hooks: list[RemovableHandle] = []
        self._noted: list[tuple[str, Tensor]] = []

    def __enter__(self) -> "Taps":
        """Hook the modules."""
        for name in self.names:
            module = self.model.get_submodule(name)
            self._hooks.append(module.register_forward_hook(partial(self._note, name)))
        if "" not in self.names:
            # A pass that was not taken, e.g. of a skipped batch, must not leak into the next one.
            self._hooks.append(self.model.register_forward_pre_hook(lambda *_: self._noted.clear()))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks, whatever happened, and discard what was not taken."""
        while self._hooks:
            self._hooks.pop().remove()
        self._noted.clear()

    def take(self) -> list[tuple[str, Tensor]]:
        """Return the name and features (N, d) of every call of the latest pass, and discard them."""
        noted, self._noted[:] = list(self._noted), []
        return noted

    @torch.no_grad()
    def _note(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        try:
            features = self.pool(output)
        except ValueError as error:
            raise ValueError(f"the output of {name}: {error}") from error
        # A copy: the next module may work in place.
        self._noted.append((name, features.detach().clone()))

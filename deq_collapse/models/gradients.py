"""How a training step differentiates through an equilibrium, and the name of each way in tables."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq_collapse.errors import UserError

FORMS = re.compile(
    r"(?P<exact>ift|jfb)"
    r"|phantom\(\s*(?P<phantom>\d+)\s*,\s*(?P<tau>\d*\.?\d+(e-?\d+)?)\s*\)"
    r"|unrolled\(\s*(?P<unrolled>\d+)\s*\)"
)


class Gradient(ABC):
    """Base of every gradient mode; its ``str`` is the text that :meth:`parse` reads.

    >>> Gradient.parse("phantom(5,0.50)")
    Phantom(steps=5, tau=0.5)
    >>> str(Phantom(steps=5, tau=0.5))
    'phantom(5, 0.5)'
    """

    @property
    @abstractmethod
    def engine(self) -> dict[str, Any]:
        """The options of torchdeq's core for this mode."""

    @property
    def local(self) -> "Phantom | None":
        """The steps that the gradient is of, if it needs nothing but the final state; else None."""
        return None

    def check(self) -> None:  # noqa: B027 - user-defined ones may have none
        """Refuses numbers out of range, see :class:`~deq_collapse.models.solvers.base.Solver`.

        Raises:
            UserError: for such a number.
        """

    @classmethod
    def of(cls, given: "str | Gradient") -> "Gradient":
        """The given gradient, or the one that the text describes.

        Raises:
            UserError: if the text describes none, and for numbers out of range.
        """
        if isinstance(given, str):
            return cls.parse(given)
        given.check()
        return given

    @staticmethod
    def parse(text: str) -> "Gradient":
        """The gradient that a text describes.

        Raises:
            UserError: if the text has none of the four forms, or a number is out of range.
        """
        found = FORMS.fullmatch(text.strip())
        gradient: Gradient | None = None
        if found is not None and found["exact"]:
            gradient = Implicit() if found["exact"] == "ift" else JacobianFree()
        elif found is not None and found["unrolled"]:
            gradient = Unrolled(int(found["unrolled"]))
        elif found is not None:
            gradient = Phantom(int(found["phantom"]), float(found["tau"]))
        with suppress(UserError):
            if gradient is not None:
                gradient.check()
                return gradient
        raise UserError(
            f"the gradient is {text}, but it is one of ift, jfb, phantom(k, tau) and unrolled(k), with a"
            " whole number k of at least 1 and tau above 0 and at most 1, as in phantom(5, 0.5)."
        )


@dataclass(frozen=True)
class Implicit(Gradient):
    """``ift``: the implicit function theorem, exact at the fixed point (Bai et al. 2019)."""

    def __str__(self) -> str:
        return "ift"

    @property
    def engine(self) -> dict[str, Any]:
        """An adjoint solve."""
        return {"ift": True}


@dataclass(frozen=True)
class JacobianFree(Gradient):
    """``jfb``: the one-step approximation of ``ift`` (Fung et al., "JFB: Jacobian-Free Backpropagation for
    Implicit Networks", 2022).
    """

    def __str__(self) -> str:
        return "jfb"

    @property
    def local(self) -> "Phantom":
        """One plain step."""
        return Phantom(1, 1.0)

    @property
    def engine(self) -> dict[str, Any]:
        """That of its step."""
        return self.local.engine


@dataclass(frozen=True)
class Phantom(Gradient):
    """``phantom(k, tau)``: k damped steps ``z <- (1 - tau) z + tau f(z)`` from the fixed point,
    differentiated through (Geng et al., "On Training Implicit Models", 2021); ``phantom(1, 1)`` is ``jfb``.

    Args:
        steps: k, at least 1.
        tau: share of ``f(z)`` in a step, in (0, 1].
    """

    steps: int
    tau: float

    def check(self) -> None:
        """See :class:`Gradient`."""
        _check_steps(self.steps)
        if not 0 < self.tau <= 1:
            raise UserError(f"tau is {self.tau}, but it is above 0 and at most 1.")

    def __str__(self) -> str:
        return f"phantom({self.steps}, {self.tau:g})"

    @property
    def local(self) -> "Phantom":
        """Itself."""
        return self

    @property
    def engine(self) -> dict[str, Any]:
        """Its steps."""
        return {"ift": False, "grad": self.steps, "tau": self.tau}

    def attached(self, f: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
        """The state to the bit, with the graph of the damped steps from it instead of its own."""
        start = after = state.detach()
        for _ in range(self.steps):
            after = after + self.tau * (f(after) - after)
        return start + (after - after.detach())


@dataclass(frozen=True)
class Unrolled(Gradient):
    """``unrolled(k)``: in training, k plain steps from the start instead of a solver, differentiated through.

    Args:
        steps: k, at least 1.
    """

    steps: int

    def check(self) -> None:
        """See :class:`Gradient`."""
        _check_steps(self.steps)

    def __str__(self) -> str:
        return f"unrolled({self.steps})"

    @property
    def engine(self) -> dict[str, Any]:
        """None: the core only measures."""
        return {}

    def states(self, f: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
        """The last two states, with the graph through all of them."""
        previous = z = start
        for _ in range(self.steps):
            previous, z = z, f(z)
        return previous, z


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UserError(f"a gradient of {steps} steps is asked for, but it takes at least 1.")


def refuse_second_derivatives(gradient: Tensor) -> None:
    """A hook for a state whose backward pass is not differentiable.

    Raises:
        RuntimeError: if the backward pass is to build a graph.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "second derivatives of an equilibrium are not implemented, and create_graph would give wrong"
            " ones; the gradient unrolled(k) has them."
        )

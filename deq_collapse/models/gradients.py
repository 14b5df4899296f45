"""How a training step differentiates through an equilibrium, and what that is called in every table."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deq_collapse.errors import UserError

FORMS = re.compile(
    r"(?P<exact>ift|jfb)"
    r"|phantom\(\s*(?P<phantom>\d+)\s*,\s*(?P<tau>\d*\.?\d+(e-?\d+)?)\s*\)"
    r"|unrolled\(\s*(?P<unrolled>\d+)\s*\)"
)


@dataclass(frozen=True)
class Gradient:
    """A gradient mode; ``str`` of it is the text that :meth:`parse` reads.

    ``ift``: the implicit function theorem, exact at the fixed point (Bai et al. 2019). ``jfb``: its one-step
    approximation (Fung et al. 2022). ``phantom(k, tau)``: k damped steps ``z <- (1 - tau) z + tau f(z)`` from
    the fixed point, and through them (Geng et al., "On Training Implicit Models", 2021); ``phantom(1, 1)`` is
    ``jfb``. ``unrolled(k)``: no solver in training but k plain steps from the start, and through them.

    >>> str(Gradient.parse("phantom(5,0.50)"))
    'phantom(5, 0.5)'
    """

    mode: Literal["ift", "jfb", "phantom", "unrolled"]
    steps: int = 1
    tau: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Gradient":
        """From its text.

        Raises:
            UserError: where it is none of the four forms, or a number is out of range.
        """
        found = FORMS.fullmatch(text.strip())
        gradient = None
        if found is not None and found["exact"]:
            gradient = cls(found["exact"])  # type: ignore[arg-type]
        elif found is not None and found["unrolled"]:
            gradient = cls("unrolled", int(found["unrolled"]))
        elif found is not None:
            gradient = cls("phantom", int(found["phantom"]), float(found["tau"]))
        if gradient is None or gradient.steps < 1 or not 0 < gradient.tau <= 1:
            raise UserError(
                f"the gradient is {text}, but it is one of ift, jfb, phantom(k, tau) and unrolled(k), with a"
                " whole number k of at least 1 and tau above 0 and at most 1, as in phantom(5, 0.5)."
            )
        return gradient

    def __str__(self) -> str:
        arguments = {"phantom": f"({self.steps}, {self.tau:g})", "unrolled": f"({self.steps})"}
        return self.mode + arguments.get(self.mode, "")

    @property
    def engine(self) -> dict[str, Any]:
        """The options of torchdeq's core that mean this; for ``unrolled`` there are none."""
        return {"ift": self.mode == "ift", "grad": self.steps, "tau": self.tau}


def unroll(f: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The last two states of ``steps`` plain iterations, with the graph through all of them."""
    previous = z = start
    for _ in range(steps):
        previous, z = z, f(z)
    return previous, z


def refuse_second_derivatives(gradient: Tensor) -> None:
    """A hook for a state whose backward pass is not itself differentiable.

    Raises:
        RuntimeError: where a graph of the backward pass is being made.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "second derivatives of an equilibrium are not implemented, and create_graph would give wrong"
            " ones; the gradient unrolled(k) has them."
        )

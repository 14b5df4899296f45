"""The style of all figures: colours and marks for colour-blind readers and grey print, and SVG for pages."""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

INK = "#222222"
FAINT = "#8a8a8a"
COLOURS = ("#123f7a", "#e07b10", "#3f9c8f", "#8a5fb0", "#767676", "#b0325a")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")
"""Dashes of lines that are not refinements, in turn."""

# Any: the type of rc_context requires the literal names of all of matplotlib's settings.
RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    # Text stays text: selectable, and in the fonts of the page.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # Ids are hashed with a random salt unless one is given; the same study must give the same bytes.
    "svg.hashsalt": "deq_collapse",
}

METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""The kinds of files of a figure, and metadata without anything that changes from one saving to the next."""


@dataclass(frozen=True)
class Series:
    """The style of one refinement; `text` is a darker shade, readable on white at label size."""

    colour: str
    text: str
    marker: str
    filled: bool


# Dark and light (told apart in grey), blue and orange (told apart by every kind of colour blindness), filled
# discs and hollow squares (told apart by anyone).
_ONCE = Series("#123f7a", "#123f7a", "o", True)
_SERIES = {
    "explicit": _ONCE,
    "once": _ONCE,
    "tied": Series("#2f9e8f", "#16695e", "^", True),
    "untied": Series("#b04a8f", "#8a2f6d", "v", True),
    "unfolded": Series("#4aa3df", "#1f6a9c", "p", True),
    "equilibrium": Series("#e07b10", "#a24f00", "s", False),
}
_OTHERS = (
    Series("#767676", "#5a5a5a", "D", False),
    Series("#8c6d1f", "#6b5212", "P", True),
    Series("#6a51a3", "#4d3a80", "X", True),
)


# Towards black (-1) or white (1).
_SHADES = (-0.5, 0.45, -0.25)
# That look another when hollow, which a cross does not at this size.
_MARKS = (">", "<", "D", "*", "p")


def _mixed(colour: str, shade: float) -> str:
    """A colour some way towards black, if `shade` is negative, or white."""
    target = 1.0 if shade > 0 else 0.0
    red, green, blue = (c + abs(shade) * (target - c) for c in to_rgb(colour))
    return to_hex((red, green, blue))


def series(refinement: str) -> Series:
    """The style of a refinement by its label: explicit or once, tied, untied, unfolded, equilibrium.

    A label that begins with one of these, such as `tied_penalised`, has one of three shades of its colour and
    one of five other marks, with another filling; other labels have one of three styles.
    """
    if refinement in _SERIES:
        return _SERIES[refinement]
    for known, look in _SERIES.items():
        if refinement.startswith(known):
            rest = refinement.removeprefix(known).strip("_- ")
            mark, place = divmod(zlib.crc32(rest.encode()), len(_SHADES))
            shade, marker = _SHADES[place], _MARKS[mark % len(_MARKS)]
            return Series(
                _mixed(look.colour, shade), _mixed(look.text, min(shade, 0)), marker, not look.filled
            )
    return _OTHERS[zlib.crc32(refinement.encode()) % len(_OTHERS)]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Move labels as little as possible (least squares) to lie `gap` apart, in order, in [low, high].

    Subtracting the gaps turns "at least `gap` apart" into "not decreasing": isotonic regression. Without room
    for all gaps, the labels keep their order and extend beyond `high`.
    """
    order = np.argsort(positions, kind="stable")
    steps = gap * np.arange(len(order))
    room = max(high - steps[-1], low) if len(order) else high
    placed = np.empty(len(order))
    if len(order):
        ordered = np.asarray(positions, dtype=float)[order]
        placed[order] = isotonic_regression(ordered - steps, y_min=low, y_max=room) + steps
    return placed


def saved(figure: Figure, kind: str) -> bytes:
    """A figure made under `matplotlib.rc_context(RC)` as svg, png or pdf; the same gives the same bytes."""
    buffer = BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format=kind, dpi=150, metadata=METADATA[kind])
    return buffer.getvalue()


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for an HTML page, reproducible byte by byte.

    Args:
        figure: a figure made under `matplotlib.rc_context(RC)`.
        name: prefix of every id, unique on the page.
        description: text for readers who cannot see the figure.
    """
    return inline(saved(figure, "svg").decode(), name, description)


def inline(text: str, name: str, description: str) -> str:
    """The text of an svg file as an element for an HTML page; arguments as for `svg`."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    # Inside HTML, an svg needs no namespaces and takes its width from the page.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r'(?<= )(?:d|x|y|points|transform)="[^"]*"', _rounded, text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def _rounded(geometry: re.Match[str]) -> str:
    """Rounds to hundredths of a point, finer than any print, with half the digits."""
    return re.sub(
        r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), geometry[0]
    )

"""Figures as files, for papers and pages."""

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deq_collapse.figures.style import RC
from deq_collapse.files import write_atomically

METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""Metadata without anything that changes from one writing to the next."""


def saved(figure: Figure, kind: str) -> bytes:
    """A figure made under `style.RC` as svg, png or pdf; the same figure gives the same bytes."""
    buffer = BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format=kind, dpi=150, metadata=METADATA[kind])
    return buffer.getvalue()


def write_figure(path: Path, figure: Figure) -> str:
    """Writes a figure made under `style.RC` as svg, png and pdf.

    Args:
        path: without suffix.
        figure: the figure.

    Returns:
        The svg, for `style.inline`.

    Raises:
        UserError: if it cannot be written.
    """
    kinds = {kind: saved(figure, kind) for kind in METADATA}
    for kind, content in kinds.items():
        write_atomically(path.with_name(f"{path.name}.{kind}"), content)
    return kinds["svg"].decode()

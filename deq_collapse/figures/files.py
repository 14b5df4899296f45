"""Figures as files, for papers and pages."""

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deq_collapse.figures.style import RC
from deq_collapse.files import write_atomically

METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""Metadata without anything that changes from one writing to the next."""


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure made under `style.RC` as svg, png and pdf.

    Args:
        path: without suffix.
        figure: the figure.

    Raises:
        UserError: if it cannot be written.
    """
    for suffix, metadata in METADATA.items():
        buffer = BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
        write_atomically(path.with_name(f"{path.name}.{suffix}"), buffer.getvalue())

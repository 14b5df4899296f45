"""Figures as files, for papers and pages."""

from pathlib import Path

from matplotlib.figure import Figure

from deq_collapse.figures.style import METADATA, saved
from deq_collapse.files import write_atomically


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

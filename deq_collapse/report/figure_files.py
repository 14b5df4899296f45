"""The figures of a study as files, for papers and pages."""

from collections.abc import Iterable
from pathlib import Path

from deq_collapse.figures.files import write_figure
from deq_collapse.figures.style import METADATA
from deq_collapse.report.leftovers import keep_only
from deq_collapse.report.sections import Section, all_drawings


def write_figures(folder: Path, sections: Iterable[Section]) -> dict[str, str]:
    """Writes every figure of a study as svg, png and pdf; removes figures that only the previous report had.

    Returns:
        The svg of each by its name, so that the report need not draw it again.

    Raises:
        UserError: if a figure cannot be written.
    """
    drawn = {
        drawing.name: write_figure(folder / drawing.name, drawing.draw())
        for drawing in all_drawings(sections)
    }
    keep_only(folder, [f"{name}.{kind}" for name in drawn for kind in METADATA])
    return drawn

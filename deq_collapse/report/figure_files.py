"""The figures of a study as files, for papers and pages."""

from pathlib import Path

from deq_collapse.figures.files import METADATA, write_figure
from deq_collapse.report.leftovers import keep_only
from deq_collapse.report.sections import all_drawings, figure_sections
from deq_collapse.runs.study import read_study


def write_figures(study_dir: Path) -> Path:
    """Writes every figure of a study as svg, png and pdf; removes figures that only the previous report had.

    Returns:
        Their folder, ``<study_dir>/figures``.

    Raises:
        UserError: if the folder is not a study's, or a figure cannot be written.
    """
    folder = study_dir / "figures"
    drawings = list(all_drawings(figure_sections(read_study(study_dir))))
    for drawing in drawings:
        write_figure(folder / drawing.name, drawing.draw())
    keep_only(folder, [f"{drawing.name}.{kind}" for drawing in drawings for kind in METADATA])
    return folder

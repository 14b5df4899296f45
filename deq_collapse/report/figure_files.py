"""The figures of a study as files, for papers and pages."""

from pathlib import Path

from deq_collapse.figures.files import write_figure
from deq_collapse.report.sections import all_drawings, figure_sections
from deq_collapse.runs.study import read_study


def write_figures(study_dir: Path) -> Path:
    """Writes every figure of a study as svg, png and pdf.

    Returns:
        Their folder, ``<study_dir>/figures``.

    Raises:
        UserError: where the folder is not a study's, or a figure cannot be written.
    """
    folder = study_dir / "figures"
    for drawing in all_drawings(figure_sections(read_study(study_dir))):
        write_figure(folder / drawing.name, drawing.draw())
    return folder

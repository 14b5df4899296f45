"""The figures of a study as files, for papers and pages."""

from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deq_collapse.files import write_atomically
from deq_collapse.study.records import read_study
from deq_collapse.study.sections import all_drawings, figure_sections
from deq_collapse.study.style import RC

METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""Nothing that changes from one writing to the next."""


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


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure that was made under `style.RC` as svg, png and pdf.

    Args:
        path: without its suffix.
        figure: what is drawn.

    Raises:
        UserError: where it cannot be written.
    """
    for suffix, metadata in METADATA.items():
        buffer = BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
        write_atomically(path.with_name(f"{path.name}.{suffix}"), buffer.getvalue())

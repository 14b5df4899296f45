"""The figures of a study as files, for papers and pages."""

import re
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deq_collapse.files import write_atomically
from deq_collapse.study.along import along_figure, along_scales, courses, lines
from deq_collapse.study.curves import collapse_curves, shared_scales
from deq_collapse.study.gram import gram_maps
from deq_collapse.study.records import read_study
from deq_collapse.study.style import RC

METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
"""Nothing that changes from one writing to the next."""


def write_figures(study_dir: Path) -> Path:
    """Writes the collapse curves and the Gram maps (first seed) of each setting, and all settings along the
    computation, as svg, png and pdf.

    Returns:
        Their folder, ``<study_dir>/figures``.

    Raises:
        UserError: where the folder is not a study's, or a figure cannot be written.
    """
    folder = study_dir / "figures"
    study = read_study(study_dir)
    scales = shared_scales(study.runs)
    for setting, cell in study.cells.items():
        name = "-".join(re.findall(r"\w+", setting.lower()))
        first = {refinement: runs[0] for refinement, runs in cell.items()}
        write_figure(folder / f"{name}-curves", collapse_curves(cell, scales, columns=2))
        write_figure(folder / f"{name}-gram", gram_maps(first))
    along = lines(courses(study.runs))
    if along:
        write_figure(folder / "along", along_figure(along, along_scales(along)))
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

"""The figures of a study as files, for papers and pages."""

import re
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from deq_collapse.files import write_atomically
from deq_collapse.study.curves import collapse_curves, shared_scales
from deq_collapse.study.gram import gram_maps
from deq_collapse.study.records import read_study
from deq_collapse.study.style import RC

METADATA = {"svg": {"Date": None}, "png": {}}
"""Nothing that changes from one writing to the next."""


def write_figures(study_dir: Path) -> Path:
    """Writes the collapse curves and the Gram maps (first seed) of each setting as svg and png.

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
        _write(folder / f"{name}-curves", collapse_curves(cell, scales, columns=2))
        _write(folder / f"{name}-gram", gram_maps(first))
    return folder


def _write(path: Path, figure: Figure) -> None:
    for suffix, metadata in METADATA.items():
        buffer = BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
        write_atomically(path.with_name(f"{path.name}.{suffix}"), buffer.getvalue())

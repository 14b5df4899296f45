"""A study in one small file: what its report reads of every finished run, without weights."""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.runs.files import (
    ALONG,
    CONFIG,
    CONFUSION,
    ENVIRONMENT,
    GEOMETRY,
    HISTORY,
    MANIFEST,
    PUBLISHED,
    RESULT,
    RESULTS,
    THEORY,
    THEORY_GRAMS,
)
from deq_collapse.runs.finished import runs_below
from deq_collapse.runs.geometry import without_features
from deq_collapse.study.plan import PLAN
from deq_collapse.study.results import gather

OF_A_STUDY = (PLAN, RESULTS, PUBLISHED)
OF_A_RUN = (CONFIG, MANIFEST, ENVIRONMENT, HISTORY, ALONG, CONFUSION, RESULT, THEORY, THEORY_GRAMS)


def pack(directory: Path, archive: Path) -> None:
    """Writes a study, or a directory of runs, as a tar file compressed with xz, 30 to 100 KB a run.

    Unpacked, it gives the same report, tables and figures, but for the figure of test features, which are
    most of a run's size; a study in it can get more seeds. The same study gives the same bytes.

    Raises:
        UserError: if there is no finished run, a file is damaged, or the archive exists.
    """
    if archive.exists():
        raise UserError(f"{archive} exists and is not overwritten: name another file, or remove it.")
    runs = runs_below(directory)
    gather(directory)
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz", preset=9) as tar:
        for path, data in _files(directory, runs):
            member = tarfile.TarInfo(str(directory.absolute().name / path.relative_to(directory)))
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    write_atomically(archive, content.getvalue())


def _files(directory: Path, runs: list[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in (directory / name for name in OF_A_STUDY):
        if path.exists():
            yield path, path.read_bytes()
    # Files of one kind together, since they are alike.
    for path in (run / name for name in OF_A_RUN for run in runs):
        if path.exists():
            yield path, path.read_bytes()
    for run in runs:
        yield run / GEOMETRY, without_features(run)

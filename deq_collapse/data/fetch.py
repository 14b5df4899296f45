"""Downloading a file, with progress, continued after interruptions, and checked before anything reads it."""

import time
from collections.abc import Sequence
from http.client import HTTPException
from io import FileIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from torchvision.datasets.utils import check_integrity

from deq_collapse.errors import UserError

ATTEMPTS = 4
"""Consecutive attempts without any bytes before an address is given up."""
PAUSE = 1.0
"""Seconds before the next attempt."""
TIMEOUT = 30.0
"""Seconds without a byte before a connection counts as broken."""
CHUNK = 1 << 18
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, SERVER_ERROR = 206, 416, 500


def download(addresses: Sequence[str], path: Path, md5: str) -> None:
    """Download a file to `path`, complete and with this MD5 sum, or not at all.

    The part received is kept in `path`.part, and the next attempt, in this call or a later one, requests only
    the rest (HTTP range requests, RFC 9110 section 14). If the disk fails, the part is deleted.

    Args:
        addresses: of the same file, tried in this order.
        path: in a folder that exists.
        md5: in hexadecimal digits.

    Raises:
        UserError: if no address provides the file, or it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    # The part left by an earlier call may belong to another file; then all of it is requested once more.
    rounds = 2 if part.exists() else 1
    reasons = []
    for address in [*addresses] * rounds:
        try:
            _bring(address, part)
        except (OSError, HTTPException) as error:
            reasons.append(f"{address}: {error}")
            continue
        if check_integrity(part, md5):
            part.replace(path)
            return
        part.unlink()
        reasons.append(f"{address}: what it gives is not the file that was published, by its MD5 sum")
    kept = f" ({part.stat().st_size:,} bytes are kept, the next try continues)" if part.exists() else ""
    raise UserError("; ".join(dict.fromkeys(reasons)) + kept)


def _bring(address: str, part: Path) -> None:
    """Get all bytes of the address into `part`, in as many connections as it takes."""
    attempts = 0
    while True:
        before = _size(part)
        try:
            return _append(address, part)
        except (OSError, HTTPException) as error:
            refused = isinstance(error, HTTPError) and error.code < SERVER_ERROR
            attempts = 1 if _size(part) > before else attempts + 1
            if refused or attempts == ATTEMPTS:
                raise
        time.sleep(PAUSE)


def _append(address: str, part: Path) -> None:
    """Request once what `part` lacks, and append it."""
    begun = _size(part)
    request = Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if begun and error.code == RANGE_NOT_SATISFIABLE:
            return  # nothing follows: the sum shows whether it is complete
        raise
    with response:
        if response.status != PARTIAL_CONTENT:
            begun = 0  # the server sends all of it again
        rest = response.headers["Content-Length"]
        whole = None if rest is None else begun + int(rest)
        numbers = DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        columns = TextColumn("{task.description}"), BarColumn(), *numbers
        with (
            Progress(*columns, console=Console(stderr=True)) as progress,
            part.open("ab" if begun else "wb", buffering=0) as file,
        ):
            task = progress.add_task(part.stem, total=whole, completed=begun)
            while chunk := response.read(CHUNK):
                _write(file, chunk, part)
                progress.advance(task, len(chunk))
    if whole is not None and _size(part) < whole:
        raise ConnectionError(f"the connection broke off after {_size(part):,} of {whole:,} bytes")


def _write(file: FileIO, chunk: bytes, part: Path) -> None:
    try:
        rest = memoryview(chunk)
        while rest:  # a disk that fills up first takes a part
            rest = rest[file.write(rest) :]
    except OSError as error:
        part.unlink()
        raise UserError(f"{part.stem} cannot be written: {error.strerror}") from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0

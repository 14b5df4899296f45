"""Data sets that torchvision reads, fetched from the addresses that it lists."""

import gzip
import os
import shutil
import tarfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

from filelock import FileLock
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from deq_collapse.data.fetch import download
from deq_collapse.data.source import Source, Split
from deq_collapse.errors import UserError

# Exceptions of the standard library, NumPy, SciPy and torchvision for a damaged archive or file.
DAMAGE = (
    *(OSError, EOFError, tarfile.TarError, zlib.error),
    *(RuntimeError, ValueError, TypeError, LookupError, AssertionError),
)


class Archive(NamedTuple):
    """A published file, packed or plain.

    Attributes:
        files: the files needed from it, relative to the root of all data sets, and their MD5 sums if known.
        addresses: of the publication.
        md5: its MD5 sum.
        exact: whether a local copy must also have that sum; distributions may recompress files.
    """

    files: Mapping[str, str | None]
    addresses: tuple[str, ...]
    md5: str
    exact: bool = True


class DownloadedSource(Source):
    """A data set in files of a known layout in the folder `root`.

    If all files are there, nothing is written: `root` may be shared and read-only. Otherwise one process per
    machine downloads or unpacks what is missing in a hidden folder inside `root`, and moves it into place
    once complete. An interrupted download is kept there and continued by the next call.

    Args:
        root: the folder that holds the files of all data sets, as torchvision lays them out.
    """

    # A folder of the operating system that may already hold the archives.
    system_folder: ClassVar[Path | None] = None

    def __init__(self, root: str | os.PathLike[str] = "data") -> None:
        self.root = Path(root)

    @property
    @abstractmethod
    def archives(self) -> Mapping[str, Archive]:
        """The archives of the files, by name relative to `root`; a local copy there is used."""

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Like `load`, once all files exist."""

    @property
    def files(self) -> dict[str, str | None]:
        """The files that `read` needs, relative to `root`, and their MD5 sums if known."""
        return {name: md5 for archive in self.archives.values() for name, md5 in archive.files.items()}

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, C, H, W) and labels (N,), fetched first if missing."""
        self.fetch()
        with self.reading():
            return self.read(split)

    def fetch(self) -> None:
        """Put all files in place.

        Raises:
            UserError: if that is impossible.
        """
        if not (missing := self._missing(self.files)):
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{self.name}.lock"):
                for name, archive in self.archives.items():
                    if self._missing(archive.files):
                        self._fetch(name, archive)
        except (UserError, OSError) as error:
            raise UserError(
                f"{self.name} has no {missing[0]} in {self.root}, and it cannot be fetched: {error}"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Report what goes wrong in this block as damage to a file.

        Raises:
            UserError: naming the file.
        """
        try:
            yield
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise UserError(f"{self.name} cannot be read from {self.root}: {error}") from error
            damaged = (self.root / name for name in self.files if not self.intact(self.root, name))
            raise damage(next(damaged, self.root)) from error

    def intact(self, root: Path, name: str) -> bool:
        """Whether one of the `files` below `root` is as published, as far as can be known."""
        return bool(check_integrity(root / name, self.files[name]))

    def _missing(self, files: Mapping[str, str | None]) -> list[str]:
        return [name for name in files if not (self.root / name).is_file()]

    def _fetch(self, name: str, archive: Archive) -> None:
        """Unpack an archive, downloading it if needed; only complete files are put in place."""
        staging = self.root / f".{self.name}"
        unpacked = staging / "unpacked"
        try:
            shutil.rmtree(unpacked, ignore_errors=True)  # left by a killed process
            unpacked.mkdir(parents=True)
            local = self._local(name)
            path = local or staging / Path(name).name
            if local is None:
                if not check_integrity(path, archive.md5):
                    download(archive.addresses, path, archive.md5)
            elif archive.exact and not check_integrity(path, archive.md5):
                raise damage(path)
            unpack(path, archive.files, unpacked)
            for file in archive.files:
                if not self.intact(unpacked, file):
                    raise damage(path)
            for file in archive.files:
                (self.root / file).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / file).replace(self.root / file)
            if local is None:
                path.unlink()
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
            with suppress(OSError):
                staging.rmdir()  # stays if a later call can continue from it

    def _local(self, name: str) -> Path | None:
        places = [self.root / name]
        if self.system_folder is not None:
            places.append(self.system_folder / Path(name).name)
        return next((place for place in places if place.is_file()), None)


def unpack(archive: Path, names: Mapping[str, str | None], folder: Path) -> None:
    """Unpack the files of these names, relative to `folder`, and no others.

    Raises:
        UserError: if the archive is damaged or lacks one of them.
        OSError: if the disk fails.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                for member in tar:  # in order: lookup by name would unpack earlier ones again
                    packed = tar.extractfile(member) if member.name in names else None
                    if packed is not None:
                        _copy(packed, folder / member.name)
        else:
            (name,) = names
            with gzip.open(archive) if archive.suffix == ".gz" else archive.open("rb") as content:
                _copy(content, folder / name)
    except DAMAGE as error:
        # Such an error has a number if the disk failed, and none if gzip found a wrong checksum.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damage(archive) from error


def _copy(packed: IO[bytes] | gzip.GzipFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(packed, file)


def damage(path: Path) -> UserError:
    """The error about a file that is not as published."""
    return UserError(f"{path} is truncated or altered: delete it to have it fetched anew, or replace it")

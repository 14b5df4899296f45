"""Data sets that torchvision reads, fetched from where it says they are published."""

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

# What a damaged archive or file makes the standard library, NumPy, SciPy or torchvision raise.
DAMAGE = (
    *(OSError, EOFError, tarfile.TarError, zlib.error),
    *(RuntimeError, ValueError, TypeError, LookupError, AssertionError),
)


class Archive(NamedTuple):
    """A file that is published, packed or as it is.

    Attributes:
        files: the files wanted out of it, relative to the root of all data sets, and their MD5 sums where
            known.
        addresses: where it is published.
        md5: its MD5 sum.
        exact: whether a local copy must have that sum too; distributions may compress files anew.
    """

    files: Mapping[str, str | None]
    addresses: tuple[str, ...]
    md5: str
    exact: bool = True


class DownloadedSource(Source):
    """A data set in files of a known layout, under the folder `root`.

    Where all files lie there, nothing is written: `root` may be shared and read-only. Otherwise one process
    per machine downloads or unpacks what is missing in a hidden folder inside `root`, and moves it to its
    place once it is whole. A download that broke off is kept there, and continued by the next call.

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
        """What the files come from, by its own name relative to `root`; a local copy is used from there."""

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Like `load`, where all files are there."""

    @property
    def files(self) -> dict[str, str | None]:
        """The files that `read` needs, relative to `root`, and their MD5 sums where known."""
        return {name: md5 for archive in self.archives.values() for name, md5 in archive.files.items()}

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, C, H, W) and labels (N,), fetched first where they are missing."""
        self.fetch()
        with self.reading():
            return self.read(split)

    def fetch(self) -> None:
        """Have all files in their place.

        Raises:
            UserError: where that cannot be.
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
        """What goes wrong in this block is told as damage of a file.

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
        """Whether one of the `files` below `root` is as it was published, as far as that can be known."""
        return bool(check_integrity(root / name, self.files[name]))

    def _missing(self, files: Mapping[str, str | None]) -> list[str]:
        return [name for name in files if not (self.root / name).is_file()]

    def _fetch(self, name: str, archive: Archive) -> None:
        """Unpack an archive, downloaded if need be; only whole files get to their place."""
        staging = self.root / f".{self.name}"
        unpacked = staging / "unpacked"
        try:
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
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
                staging.rmdir()  # stays where it holds what a later call continues

    def _local(self, name: str) -> Path | None:
        places = [self.root / name]
        if self.system_folder is not None:
            places.append(self.system_folder / Path(name).name)
        return next((place for place in places if place.is_file()), None)


def unpack(archive: Path, names: Mapping[str, str | None], folder: Path) -> None:
    """Unpack the files of these names, relative to `folder`, and no others.

    Raises:
        UserError: where the archive is damaged or lacks one of them.
        OSError: where the disk fails.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                for member in tar:  # in their order, as finding one by name would unpack all before it again
                    packed = tar.extractfile(member) if member.name in names else None
                    if packed is not None:
                        _copy(packed, folder / member.name)
        else:
            (name,) = names
            with gzip.open(archive) if archive.suffix == ".gz" else archive.open("rb") as content:
                _copy(content, folder / name)
    except DAMAGE as error:
        # Such an error has a number where the disk failed, and none where gzip found a wrong checksum.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damage(archive) from error


def _copy(packed: IO[bytes] | gzip.GzipFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(packed, file)


def damage(path: Path) -> UserError:
    """What is told of a file that is not as it was published."""
    return UserError(f"{path} is truncated or altered: delete it to have it fetched anew, or replace it")

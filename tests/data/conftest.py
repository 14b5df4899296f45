"""Small files in the real formats, made here."""

import gzip
import hashlib
import http.server
import io
import math
import pickle
import resource
import struct
import tarfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from deq_collapse.data import STL10, fetch


def idx(array: np.ndarray) -> bytes:
    """The idx format of MNIST: magic number, big-endian sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves a folder, parts of files as well; may hang up amid a file whose full length it announced."""

    folder: ClassVar[Path]
    served: ClassVar[list[tuple[str, int]]]
    """Name of each file asked for, and the bytes of it that were sent."""
    hangs_up_after: ClassVar[int | None]
    """Bytes of a file after which the connection breaks."""
    connections: ClassVar[float]
    """Connections before the server has enough and refuses."""
    knows_ranges: ClassVar[bool]

    def do_GET(self):
        mirror = type(self)
        name = self.path.lstrip("/")
        if mirror.connections < 1:
            return self.send_error(503)
        mirror.connections -= 1
        if not (mirror.folder / name).is_file():
            return self.send_error(404)
        content, asked = (mirror.folder / name).read_bytes(), self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and mirror.knows_ranges else 0
        if asked and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start:][: mirror.hangs_up_after]
        mirror.served.append((name, len(sent)))
        return self.wfile.write(sent)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of an empty folder: `mirror.folder`, `mirror.address`; see `Mirror` for its moods."""
    monkeypatch.setattr(fetch, "PAUSE", 0)

    class OfThisTest(Mirror):
        folder = tmp_path / "mirror"
        served: ClassVar[list[tuple[str, int]]] = []
        hangs_up_after = None
        connections = math.inf
        knows_ranges = True

    OfThisTest.folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OfThisTest) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        OfThisTest.address = f"http://127.0.0.1:{server.server_port}/"
        yield OfThisTest
        server.shutdown()
        thread.join()


def tar_file(path: Path, folder: str, files: dict[str, bytes]) -> None:
    """A compressed tar file with these files in one folder."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture
def mnist_mirror(mirror, monkeypatch):
    """A served folder of four idx .gz files, which torchvision's MNIST takes for the published ones."""
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (mirror.folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (mirror.folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    sums = [(name, md5(mirror.folder / name)) for name, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [mirror.address])
    return mirror


@pytest.fixture
def cifar_mirror(mirror, monkeypatch):
    """A served folder with a CIFAR-10 tar file, which torchvision's CIFAR10 takes for the published one."""
    random = np.random.default_rng(0)
    cifar = datasets.CIFAR10
    contents = {"batches.meta": {"label_names": [f"class {c}" for c in range(10)]}}
    for name, _ in cifar.train_list + cifar.test_list:
        pixels = random.integers(256, size=(10, 3072), dtype=np.uint8)
        contents[name] = {"data": pixels, "labels": list(range(10))}
    files = {name: pickle.dumps(content) for name, content in contents.items()}
    tar_file(mirror.folder / cifar.filename, cifar.base_folder, files)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(cifar, "train_list", [[name, sums[name]] for name, _ in cifar.train_list])
    monkeypatch.setattr(cifar, "test_list", [[name, sums[name]] for name, _ in cifar.test_list])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(cifar, "tgz_md5", md5(mirror.folder / cifar.filename))
    monkeypatch.setattr(cifar, "url", mirror.address + cifar.filename)
    return mirror


@pytest.fixture
def svhn_mirror(mirror, monkeypatch):
    """A served folder of MATLAB files, which torchvision's SVHN takes for the published ones."""
    random = np.random.default_rng(0)
    listed = dict(datasets.SVHN.split_list)
    for split, count in (("train", 30), ("test", 20)):
        name = listed[split][1]
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10
        labels[labels == 0] = 10  # as there
        images = random.integers(256, size=(32, 32, 3, count), dtype=np.uint8)
        savemat(mirror.folder / name, {"X": images, "y": labels}, do_compression=True)
        listed[split] = [mirror.address + name, name, md5(mirror.folder / name)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    return mirror


@pytest.fixture
def stl_mirror(mirror, monkeypatch):
    """A served folder with an STL-10 tar file, which our source takes for the published one."""
    random = np.random.default_rng(0)
    stl = STL10.dataset
    files = {"unlabeled_X.bin": b"many images", "class_names.txt": b"airplane\nbird\n"}
    for split, count in (("train", 20), ("test", 10)):
        files[f"{split}_X.bin"] = random.integers(256, size=(count, 3, 96, 96), dtype=np.uint8).tobytes()
        files[f"{split}_y.bin"] = (np.arange(count, dtype=np.uint8) % 10 + 1).tobytes()
    tar_file(mirror.folder / stl.filename, stl.base_folder, files)
    for listed in ("train_list", "test_list"):
        sums = [[name, hashlib.md5(files[name]).hexdigest()] for name, _ in getattr(stl, listed)]
        monkeypatch.setattr(stl, listed, sums)
    monkeypatch.setattr(stl, "tgz_md5", md5(mirror.folder / stl.filename))
    monkeypatch.setattr(stl, "url", mirror.address + stl.filename)
    return mirror


@pytest.fixture
def full_disk():
    """A block in which no file may grow beyond a number of bytes.

    Never around a whole test, whose output may be a file.
    """

    @contextmanager
    def block(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return block

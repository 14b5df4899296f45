"""Small files in the real formats, made here."""

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from torchvision import datasets


def idx(array: np.ndarray) -> bytes:
    """The idx format of MNIST: magic number, big-endian sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; may hang up amid a file whose full length it announced."""

    breaks_off = False
    served: ClassVar[list[str]] = []

    def do_GET(self):
        self.served.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(100) if self.breaks_off else source.read())

    def log_message(self, *args):
        pass


@pytest.fixture
def hanging_up():
    """A block in which every download breaks off."""

    @contextmanager
    def block():
        Mirror.breaks_off = True
        yield
        Mirror.breaks_off = False

    return block


@pytest.fixture
def served():
    """The paths downloaded since the mirror was set up."""
    return Mirror.served


@pytest.fixture
def mirror(tmp_path):
    """An empty folder and the address under which it is served."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Mirror.served.clear()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def mnist_mirror(mirror, monkeypatch):
    """A served folder of four idx .gz files, which torchvision's MNIST takes for the published ones."""
    mirror, address = mirror
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        images = random.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (mirror / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (mirror / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    sums = [(name, md5(mirror / name)) for name, _ in datasets.MNIST.resources]
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
    return mirror


@pytest.fixture
def cifar_mirror(mirror, monkeypatch):
    """A served folder with a CIFAR-10 tar file, which torchvision's CIFAR10 takes for the published one."""
    mirror, address = mirror
    random = np.random.default_rng(0)
    cifar = datasets.CIFAR10
    contents = {"batches.meta": {"label_names": [f"class {c}" for c in range(10)]}}
    for name, _ in cifar.train_list + cifar.test_list:
        pixels = random.integers(256, size=(10, 3072), dtype=np.uint8)
        contents[name] = {"data": pixels, "labels": list(range(10))}
    files = {name: pickle.dumps(content) for name, content in contents.items()}
    with tarfile.open(mirror / cifar.filename, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{cifar.base_folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(cifar, "train_list", [[name, sums[name]] for name, _ in cifar.train_list])
    monkeypatch.setattr(cifar, "test_list", [[name, sums[name]] for name, _ in cifar.test_list])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    monkeypatch.setattr(cifar, "tgz_md5", md5(mirror / cifar.filename))
    monkeypatch.setattr(cifar, "url", address + cifar.filename)
    return mirror

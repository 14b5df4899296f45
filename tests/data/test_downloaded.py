"""Files of the real formats are read, fetched whole or not at all, and damage is named in one sentence."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from deq_collapse.data import CIFAR10, MNIST, FashionMNIST
from deq_collapse.errors import UserError

# torchvision unpacks tar files without naming a filter, which Python 3.12 and 3.13 warn of.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")


def files(folder: Path) -> set[str]:
    """What lies in a folder, but for the lock."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".lock")}


def one_sentence(error) -> bool:
    return "\n" not in str(error.value)


def test_mnist_is_downloaded_whole_and_read_as_its_files_say(mnist_mirror, tmp_path):
    source = MNIST(tmp_path / "root")
    assert source.image_shape == (1, 28, 28)
    assert source.num_classes == 10
    raw = gzip.decompress((mnist_mirror / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    assert source.train.images.numpy().tobytes() == raw
    assert source.test.labels.tolist() == [*range(10)] * 2
    assert files(tmp_path / "root") == set(source.files)


def test_cifar_is_downloaded_whole_and_read_as_its_files_say(cifar_mirror, tmp_path):
    source = CIFAR10(tmp_path / "root")
    assert source.image_shape == (3, 32, 32)
    assert source.class_names == tuple(f"class {c}" for c in range(10))
    assert source.train.labels.tolist() == [*range(10)] * 5
    theirs = datasets.CIFAR10(tmp_path / "root")
    assert torch.equal(source.train.images[7], torch.from_numpy(theirs.data[7]).permute(2, 0, 1))
    assert files(tmp_path / "root") == set(source.files)


def test_who_comes_while_another_downloads_waits_and_reads_the_same(mnist_mirror, served, tmp_path):
    MNIST(tmp_path / "alone").train  # noqa: B018
    alone = sorted(served)
    served.clear()
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: MNIST(tmp_path / "root").train, range(4)))
    assert all(torch.equal(source.images, sources[0].images) for source in sources)
    assert sorted(served) == alone


def test_archives_laid_there_by_hand_are_unpacked_without_a_network(mnist_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.parent.mkdir(parents=True)
    mnist_mirror.rename(raw)
    assert len(MNIST(tmp_path / "root").train.labels) == 40


def test_an_archive_of_the_operating_system_is_used(mnist_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    monkeypatch.setattr(MNIST, "system_folder", mnist_mirror)
    assert len(MNIST(tmp_path / "root").train.labels) == 40


@pytest.mark.skipif(
    not FashionMNIST.system_folder.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_comes_from_debians_package(tmp_path):
    source = FashionMNIST(tmp_path)
    assert source.train.labels.bincount().tolist() == [6000] * 10
    assert source.test.labels.bincount().tolist() == [1000] * 10


def test_complete_files_are_read_and_nothing_is_written(mnist_mirror, tmp_path):
    root = tmp_path / "root"
    MNIST(root).train  # noqa: B018
    (root / ".mnist.lock").unlink()
    before = {path: path.stat() for path in [root, *root.rglob("*")]}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Their modes and times are compared as well: whoever may write everywhere passes a mere refusal.
    before = {path: path.stat().st_mtime_ns for path in before}
    assert len(MNIST(root).train.labels) == 40
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before
    for path in before:
        path.chmod(0o755)


@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_a_truncated_file_is_named(source, request, tmp_path):
    request.getfixturevalue("mnist_mirror" if source is MNIST else "cifar_mirror")
    source(tmp_path / "root").train  # noqa: B018
    victim = tmp_path / "root" / next(iter(source().files))
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(UserError, match=f"{victim.name} is truncated or altered") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:-8] + b"12345678", lambda b: b""])
@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_a_damaged_archive_is_named_and_leaves_nothing(source, damage, request, tmp_path):
    mirror = request.getfixturevalue("mnist_mirror" if source is MNIST else "cifar_mirror")
    name = next(iter(source().archives))
    archive = tmp_path / "root" / name
    archive.parent.mkdir(parents=True)
    archive.write_bytes(damage((mirror / archive.name).read_bytes()))
    with pytest.raises(UserError, match=f"{archive.name} is truncated or altered") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == {name}


@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_a_download_that_differs_from_what_is_published_leaves_nothing(source, request, tmp_path):
    mirror = request.getfixturevalue("mnist_mirror" if source is MNIST else "cifar_mirror")
    archive = mirror / Path(next(iter(source().archives))).name
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(UserError, match="cannot be fetched") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == set()


@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(source, request, tmp_path, hanging_up):
    request.getfixturevalue("mnist_mirror" if source is MNIST else "cifar_mirror")
    with hanging_up(), pytest.raises(UserError, match="cannot be fetched") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == set()
    assert len(source(tmp_path / "root").train.labels) > 0


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
@pytest.mark.parametrize("source", [MNIST, CIFAR10])
def test_a_file_that_cannot_be_read_is_not_called_damaged(source, request, tmp_path):
    request.getfixturevalue("mnist_mirror" if source is MNIST else "cifar_mirror")
    source(tmp_path / "root").train  # noqa: B018
    victim = tmp_path / "root" / next(iter(source().files))
    victim.unlink()
    victim.symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=f"{source.name} cannot be read from .*Input/output error") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)


def test_a_folder_that_cannot_be_made_is_named(mnist_mirror, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"train-images-idx3-ubyte in .*file/root.*cannot be fetched"
    ) as error:
        MNIST(tmp_path / "file" / "root").train  # noqa: B018
    assert one_sentence(error)

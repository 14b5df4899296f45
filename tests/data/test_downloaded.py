"""Files of the real formats are read, fetched whole or not at all, and damage is named in one sentence."""

import gzip
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from scipy.io import loadmat
from torchvision import datasets

from deq_collapse.data import CIFAR10, MNIST, STL10, SVHN, FashionMNIST
from deq_collapse.errors import UserError

MIRRORS = {MNIST: "mnist_mirror", CIFAR10: "cifar_mirror", SVHN: "svhn_mirror", STL10: "stl_mirror"}
ALL = pytest.mark.parametrize("source", MIRRORS, ids=lambda source: source.name)
PACKED = pytest.mark.parametrize("source", [MNIST, CIFAR10, STL10], ids=lambda source: source.name)


@pytest.fixture
def published(request, source):
    """The server of the test's data set."""
    return request.getfixturevalue(MIRRORS[source])


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
    raw = gzip.decompress((mnist_mirror.folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
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


def test_svhn_is_downloaded_whole_and_read_as_its_files_say(svhn_mirror, tmp_path):
    source = SVHN(tmp_path / "root")
    assert source.image_shape == (3, 32, 32)
    assert source.num_classes == 10
    assert source.train.labels.tolist() == [*range(10)] * 3  # its label 10 is the digit 0
    stored = loadmat(svhn_mirror.folder / "train_32x32.mat")["X"]
    assert source.train.images[7, 2, 5, 11] == stored[5, 11, 2, 7]
    assert files(tmp_path / "root") == set(source.files) == {"train_32x32.mat", "test_32x32.mat"}


def test_of_svhn_only_the_split_that_is_missing_is_fetched(svhn_mirror, tmp_path):
    SVHN(tmp_path / "root").train  # noqa: B018
    (tmp_path / "root" / "test_32x32.mat").unlink()
    svhn_mirror.served.clear()
    assert len(SVHN(tmp_path / "root").test.labels) == 20
    assert [name for name, _ in svhn_mirror.served] == ["test_32x32.mat"]


def test_stl_gives_its_labelled_images_and_leaves_the_others_packed(stl_mirror, tmp_path):
    source = STL10(tmp_path / "root")
    assert source.image_shape == (3, 96, 96)
    assert source.num_classes == 10
    assert source.train.labels.tolist() == [*range(10)] * 2
    # Its files hold columns first.
    stored = (tmp_path / "root" / "stl10_binary" / "train_X.bin").read_bytes()
    assert source.train.images[3, 2].T.flatten().tolist() == list(stored[(3 * 3 + 2) * 9216 :][:9216])
    assert files(tmp_path / "root") == set(source.files)
    assert "unlabeled_X.bin" not in str(files(tmp_path / "root"))


def test_who_comes_while_another_downloads_waits_and_reads_the_same(mnist_mirror, tmp_path):
    MNIST(tmp_path / "alone").train  # noqa: B018
    alone = sorted(mnist_mirror.served)
    mnist_mirror.served.clear()
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: MNIST(tmp_path / "root").train, range(4)))
    assert all(torch.equal(source.images, sources[0].images) for source in sources)
    assert sorted(mnist_mirror.served) == alone


def test_archives_laid_there_by_hand_are_unpacked_without_a_network(mnist_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.parent.mkdir(parents=True)
    mnist_mirror.folder.rename(raw)
    assert len(MNIST(tmp_path / "root").train.labels) == 40


def test_an_archive_of_the_operating_system_is_used(mnist_mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])
    monkeypatch.setattr(MNIST, "system_folder", mnist_mirror.folder)
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


@ALL
def test_a_truncated_file_is_named(source, published, tmp_path):
    source(tmp_path / "root").train  # noqa: B018
    victim = tmp_path / "root" / next(iter(source().files))
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(UserError, match=f"{victim.name} is truncated or altered") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:-8] + b"12345678", lambda b: b""])
@PACKED
def test_a_damaged_archive_is_named_and_leaves_nothing(source, damage, published, tmp_path):
    name = next(iter(source().archives))
    archive = tmp_path / "root" / name
    archive.parent.mkdir(parents=True)
    archive.write_bytes(damage((published.folder / archive.name).read_bytes()))
    with pytest.raises(UserError, match=f"{archive.name} is truncated or altered") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == {name}


@ALL
def test_a_download_that_differs_from_what_is_published_leaves_nothing(source, published, tmp_path):
    archive = published.folder / Path(next(iter(source().archives))).name
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(UserError, match="cannot be fetched") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == set()


@ALL
def test_an_interrupted_download_is_continued_by_the_next_call(source, published, tmp_path):
    published.hangs_up_after, published.connections = 1000, 1
    with pytest.raises(UserError, match=r"cannot be fetched: .*1,000 bytes are kept") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    begun, _ = published.served[0]
    assert files(tmp_path / "root") == {f".{source.name}/{begun}.part"}
    published.hangs_up_after, published.connections = None, math.inf
    published.served.clear()
    assert len(source(tmp_path / "root").train.labels) > 0
    assert published.served[0] == (begun, (published.folder / begun).stat().st_size - 1000)
    assert files(tmp_path / "root") == set(source().files)


@ALL
def test_a_full_disk_leaves_nothing(source, published, tmp_path, full_disk):
    with full_disk(1000), pytest.raises(UserError, match=r"cannot be fetched: .*File too large") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == set()


@PACKED
def test_a_disk_that_is_full_while_unpacking_leaves_nothing_half_written(
    source, published, tmp_path, full_disk
):
    places = {tmp_path / "root" / name: published.folder / Path(name).name for name in source().archives}
    for place, packed in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        packed.rename(place)
    before = files(tmp_path / "root")
    with full_disk(1000), pytest.raises(UserError, match=r"cannot be fetched: .*File too large") as error:
        source(tmp_path / "root").train  # noqa: B018
    assert one_sentence(error)
    assert files(tmp_path / "root") == before
    assert len(source(tmp_path / "root").train.labels) > 0


def test_what_a_killed_process_unpacked_is_swept_away(mnist_mirror, tmp_path):
    half = tmp_path / "root" / ".mnist" / "unpacked" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert len(MNIST(tmp_path / "root").train.labels) == 40
    assert files(tmp_path / "root") == set(MNIST().files)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
@ALL
def test_a_file_that_cannot_be_read_is_not_called_damaged(source, published, tmp_path):
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

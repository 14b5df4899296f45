"""Data sets are what they say, and an own one needs no more than `load`."""

import hashlib
import warnings

import pytest
import torch
from PIL import Image

from deq_collapse.data import Digits, ImageFolder, Source
from deq_collapse.errors import UserError

# Of a process that may use fewer cores than a tree has workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Own(Source):
    """Whatever the test wants loaded."""

    def __init__(self, images, labels, test_labels=None):
        self.images = images
        self.labels = {"train": labels, "test": labels if test_labels is None else test_labels}

    def load(self, split):
        return self.images, self.labels[split]


class Triple(Own):
    def load(self, split):
        return *super().load(split), 1


class Named(Own):
    name = "mine"
    class_names = ("cat", "dog", "owl")


IMAGES = torch.randint(256, (6, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_an_own_source_has_everything_from_load_alone():
    source = Own(IMAGES, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert (source.name, source.num_classes, source.class_names) == ("Own", 3, ("0", "1", "2"))
    assert source.image_shape == (3, 4, 5)


def test_arrays_of_numpy_are_taken_too():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    ours, theirs = Own(IMAGES, labels), Own(IMAGES.numpy(), labels.numpy())
    assert torch.equal(theirs.train.images, ours.train.images)
    assert theirs.sha256 == ours.sha256
    values = torch.rand(6, 4, requires_grad=True)
    assert Own(values, labels).sha256 == Own(values.detach(), labels).sha256


def test_mean_and_std_are_those_of_the_training_pixels():
    mean, std = Own(IMAGES, torch.tensor([0, 1, 2, 0, 1, 2])).mean_and_std
    pixels = IMAGES.double() / 255
    torch.testing.assert_close(mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(std, pixels.std((0, 2, 3), correction=0))


def test_a_channel_without_variation_is_centred_and_not_blown_up():
    mean, std = Own(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8), torch.tensor([0, 1])).mean_and_std
    assert mean.item() == pytest.approx(0.2)
    assert std.item() == 1


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (Named(IMAGES, torch.tensor([0, 1, 2, 3, 0, 1])), r"mine has the label 3.*0\.\.2"),
        (Named(IMAGES, torch.tensor([0, 1, 2, -1, 0, 1])), r"mine has the label -1.*0\.\.2"),
        (Named(IMAGES, torch.tensor([0, 1, 0, 1, 0, 1])), "no image of class 2"),
        (Own(IMAGES, torch.tensor([0, 2, 0, 2, 0, 2])), "training split of Own has no image of class 1"),
        (
            Own(IMAGES, torch.arange(6), torch.arange(6).clamp(max=4)),
            "test split of Own has no image of class 5",
        ),
        (Own(IMAGES, torch.tensor([0, 1])), "one int64 per image"),
        (Own(IMAGES, torch.zeros(6)), "one int64 per image"),
        (Own(IMAGES.double(), torch.arange(6)), "float64 .* but images are a non-empty uint8 tensor"),
        (Own(IMAGES.float()[:, 0, 0, 0], torch.arange(6)), r"float32 tensor \(N, \.\.\.\)"),
        (Own(IMAGES / 0, torch.arange(6)), "no finite number, in sample"),
        (Own(IMAGES[:, 0], torch.arange(6)), "uint8 tensor"),
        (Own(IMAGES[:0], torch.arange(0)), "non-empty"),
        (
            Own(IMAGES.permute(0, 2, 3, 1)[:, :, :, :3].repeat(1, 2, 1, 1), torch.arange(6)),
            "channels come second",
        ),
        (Own(IMAGES, list(range(6))), r"\(Tensor, list\), but load gives two tensors"),
        (Triple(IMAGES, torch.arange(6)), r"\(Tensor, Tensor, int\), but load gives two tensors"),
    ],
)
def test_what_is_no_labelled_image_is_refused(source, sentence):
    with pytest.raises(UserError, match=sentence):
        source.num_classes  # noqa: B018


def test_digits_are_the_real_ones_split_in_the_same_way_for_ever():
    source = Digits()
    assert source.image_shape == (1, 8, 8)
    assert source.train.labels.bincount().tolist() == [142, 145, 141, 146, 144, 145, 144, 143, 139, 144]
    assert len(source.train.labels) + len(source.test.labels) == 1797
    assert int(source.train.images.max()) == 255
    # Written down once: another sum means another split, and no result before it can be repeated.
    assert hashlib.sha256(source.train.images.numpy().tobytes()).hexdigest() == (
        "de924abc67c98df9196b810079d165db6f647e3fd2dc8b08db0b5813ca9d5a74"
    )


@pytest.fixture
def tree(tmp_path):
    """Class folders of PNG files whose pixels are the label and a serial number."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(["cat", "dog"]):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (5, 4), (label, i, 0)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_a_tree_of_class_folders_is_read_in_order(tree):
    source = ImageFolder(tree, name="pets")
    assert (source.name, source.class_names, source.image_shape) == ("pets", ("cat", "dog"), (3, 4, 5))
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.train.images[:, :2, 0, 0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert source.test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("content", [b"", b"no image", b"half"])
def test_an_image_that_cannot_be_decoded_is_named(tree, content):
    victim = tree / "train" / "dog" / "1.png"
    victim.write_bytes(victim.read_bytes()[:50] if content == b"half" else content)
    with pytest.raises(UserError, match=r"train/dog/1\.png cannot be decoded"):
        ImageFolder(tree).train  # noqa: B018


def test_an_image_of_another_size_is_named(tree):
    Image.new("RGB", (6, 4)).save(tree / "test" / "cat" / "1.png")
    with pytest.raises(UserError, match=r"test/cat/1\.png is 4 x 6 pixels, .* is 4 x 5: give a size"):
        ImageFolder(tree).test  # noqa: B018


def test_folders_that_do_not_match_or_are_not_there_are_named(tree):
    (tree / "test" / "dog").rename(tree / "test" / "owl")
    with pytest.raises(UserError, match="differ in the class dog"):
        ImageFolder(tree).test  # noqa: B018
    for image in (tree / "train" / "dog").iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r"train/dog has no image \(\.jpg, "):
        ImageFolder(tree).train  # noqa: B018
    with pytest.raises(UserError, match="absent/train is not a folder of class folders"):
        ImageFolder(tree / "absent").train  # noqa: B018


def test_files_that_are_left_out_are_told(tree):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*left out")
        (tree / "train" / "cat" / ".DS_Store").touch()
        assert len(ImageFolder(tree).train.labels) == 6
    for name in ("cat/3.gif", "dog/notes.txt", "lost.png"):
        (tree / "train" / name).touch()
    with pytest.warns(
        UserWarning, match=r"^3 files of .*train are left out, such as .*: images must be in class"
    ):
        assert len(ImageFolder(tree).train.labels) == 6

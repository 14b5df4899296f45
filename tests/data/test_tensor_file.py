"""Arrays of the user's own, in the files NumPy and torch write."""

import numpy as np
import pytest
import torch

from deq_collapse.data import TensorFile
from deq_collapse.errors import UserError

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(256, size=(6, 3, 8, 9), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def arrays(images=COLOUR, labels=LABELS, **changes):
    return {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[:3],
        "test_labels": labels[:3],
        **changes,
    }


def tensors(content):
    return {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in content.items()}


@pytest.fixture
def write(tmp_path):
    """Writes arrays as a file of either kind."""

    def write(content, suffix=".npz"):
        path = tmp_path / f"own{suffix}"
        if suffix == ".npz":
            np.savez_compressed(path, **content)
        else:
            torch.save(tensors(content), path)
        return path

    return write


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".pth"])
def test_both_kinds_of_file_give_what_was_stored(suffix, write):
    source = TensorFile(write(arrays(), suffix))
    assert (source.name, source.num_classes, source.image_shape) == ("own", 3, (3, 8, 9))
    assert torch.equal(source.train.images, torch.from_numpy(COLOUR))
    assert source.test.labels.tolist() == [0, 1, 2]
    assert TensorFile(source.path, name="mine").name == "mine"


@pytest.mark.parametrize(
    "stored",
    [COLOUR[:, 0], COLOUR[:, :1], COLOUR[:, :1].transpose(0, 2, 3, 1)],
    ids=["N H W", "N 1 H W", "N H W 1"],
)
def test_grey_images_may_lack_the_channel_or_have_it_on_either_side(stored, write):
    source = TensorFile(write(arrays(stored)))
    assert torch.equal(source.train.images, torch.from_numpy(COLOUR[:, :1]))


def test_colours_may_come_last(write):
    source = TensorFile(write(arrays(COLOUR.transpose(0, 2, 3, 1))))
    assert torch.equal(source.train.images, torch.from_numpy(COLOUR))


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS.astype(np.uint8), LABELS.astype(np.int32)])
def test_labels_may_be_of_any_whole_type_and_a_column(labels, write):
    assert TensorFile(write(arrays(labels=labels))).train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_features_of_another_network_are_taken_as_they_are(kind, write):
    features = RANDOM.standard_normal((6, 5)).astype(kind)
    source = TensorFile(write(arrays(features)))
    assert source.image_shape == (5,)
    assert torch.equal(source.train.images, torch.from_numpy(features.astype(np.float32)))


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_classes_may_have_names(suffix, write):
    names = ["cat", "dog", "owl"]
    stored = np.array(names) if suffix == ".npz" else names
    assert TensorFile(write(arrays() | {"class_names": stored}, suffix)).class_names == tuple(names)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"x_train": COLOUR},
            "own.npz has no train_images; its keys are x_train, but needed are train_images",
        ),
        (arrays(labels=LABELS.astype(float)), r"train_labels of .* are torch\.float64, but .* whole numbers"),
        (arrays(labels=np.array([0, 1, 2, 3, 5, 0])), "no image of class 4"),
        (arrays(labels=LABELS - 1), r"label -1.*0\.\.1"),
        (arrays() | {"class_names": np.array(["cat", "dog"])}, r"label 2, but labels are 0\.\.1"),
        (arrays(labels=LABELS[:4]), "one int64 per image"),
        (arrays(RANDOM.integers(9, size=(6, 8, 8, 7), dtype=np.uint8)), r"\(6, 8, 8, 7\).* 1 to 4 channels"),
        (arrays(COLOUR.astype(np.int16)), "int16"),
        (arrays(np.array(["a", "b"] * 3)), r"train_images of .* is no array of numbers"),
        (arrays() | {"test_images": COLOUR[:3, :, :4]}, r"shape \(3, 4, 9\), its training split \(3, 8, 9\)"),
        (arrays(np.array([{}] * 6)), "cannot be read as a .npz file"),  # pickled: could run anything
    ],
)
def test_what_is_wrong_with_the_content_is_told(content, sentence, write):
    with pytest.raises(UserError, match=sentence) as error:
        TensorFile(write(content)).num_classes  # noqa: B018
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no archive"])
def test_a_damaged_file_is_named(suffix, damage, write):
    path = write(arrays(), suffix)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"own\{suffix} cannot be read") as error:
        TensorFile(path).train  # noqa: B018
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"own\.csv ends in '\.csv', but it is read as"):
        TensorFile(tmp_path / "own.csv").train  # noqa: B018
    with pytest.raises(UserError, match=r"absent\.npz cannot be read.*No such file"):
        TensorFile(tmp_path / "absent.npz").train  # noqa: B018
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list, but a dict of tensors is needed"):
        TensorFile(tmp_path / "list.pt").train  # noqa: B018


def test_floats_may_have_their_channels_last_where_images_are_square(write):
    pictures = RANDOM.random((6, 9, 9, 3)).astype(np.float32)
    images, _ = TensorFile(write(arrays(pictures))).load("train")
    assert np.array_equal(images.numpy(), pictures.transpose(0, 3, 1, 2))
    maps = RANDOM.random((6, 16, 4, 4)).astype(np.float32)  # of a network: 16 channels
    images, _ = TensorFile(write(arrays(maps))).load("train")
    assert np.array_equal(images.numpy(), maps)


def test_floats_that_may_be_read_in_two_ways_are_refused(write):
    with pytest.raises(UserError, match=r"\.npz has samples of shape \(6, 8, 9, 3\), which may be"):
        TensorFile(write(arrays(RANDOM.random((6, 8, 9, 3))))).load("train")

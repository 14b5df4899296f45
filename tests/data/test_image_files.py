"""Images too many for memory are read from their files as they would have been from memory."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from deq_collapse.data import CollapseDataModule, CropFlip, Cutout, ImageFiles, ImageFolder, LongTailed
from deq_collapse.data.image_files import decode
from deq_collapse.errors import UserError

# Fewer cores than workers; Python 3.12 and later, of fork in a process with threads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Class folders of PNG files of noise, 12 and 5 images of each of 3 classes."""
    root = tmp_path_factory.mktemp("tree")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 12), ("test", 5)):
        for name in ("cat", "dog", "owl"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (6, 5, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / split / name / f"{i}.png")
    return root


def module(tree, folder, **where):
    data = CollapseDataModule(
        ImageFolder(tree, **where),
        LongTailed(3),
        batch_size=4,
        eval_batch_size=7,
        augment=[CropFlip(padding=1), Cutout(2)],
        mixup=0.5,
    )
    data.trainer = Trainer(accelerator="cpu", default_root_dir=folder, logger=False)
    data.setup("fit")
    return data


def batches(data):
    training = data.train_dataloader()
    training.sampler.set_epoch(1)
    return [batch for loader in (training, *data.val_dataloader().values()) for batch in loader]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_files_and_memory_give_the_same_batches_and_manifest(workers, tree, tmp_path):
    memory = module(tree, tmp_path / "memory")
    files = module(tree, tmp_path / "files", memory=0, workers=workers)
    assert isinstance(memory.source.train.images, torch.Tensor)
    assert isinstance(files.train_set.images, ImageFiles)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("memory", "files")]
    assert manifests[0] == manifests[1]
    expected, found = batches(memory), batches(files)
    assert len(expected) == 6 + 4 + 3
    for (x, y), (x_files, y_files) in zip(expected, found, strict=True):
        assert torch.equal(x, x_files)
        assert torch.equal(y, y_files)


def test_reading_files_leaves_the_random_numbers_of_the_network_alone(tree):
    files = ImageFolder(tree, memory=0).train.images
    before = torch.random.get_rng_state()
    list(files.batches(torch.arange(9).tensor_split(3)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_fits_into_memory_is_in_memory(tree):
    needed = 3 * 12 * 3 * 6 * 5
    assert isinstance(ImageFolder(tree, memory=needed).train.images, torch.Tensor)
    assert isinstance(ImageFolder(tree, memory=needed - 1).train.images, ImageFiles)


def test_what_looks_at_images_by_index_need_not_know_where_they_are(tree):
    memory, files = ImageFolder(tree).test.images, ImageFolder(tree, memory=0).test.images
    assert (files.shape, files.dtype, len(files)) == (tuple(memory.shape), memory.dtype, len(memory))
    kept = torch.tensor([3, 0, 14])
    assert torch.equal(files[kept], memory[kept])


def test_images_are_brought_to_one_size_by_their_middle(tmp_path):
    picture = Image.new("RGB", (30, 10))
    picture.paste((200, 100, 50), (10, 0, 20, 10))
    picture.save(tmp_path / "wide.png")
    files = ImageFiles([str(tmp_path / "wide.png")], size=5)
    assert files.shape == (1, 3, 5, 5)
    inner = files[torch.tensor([0])][0, :, :, 1:4].flatten(1).T.tolist()  # the filter blurs the edge
    assert inner == [pytest.approx([200, 100, 50], abs=3)] * 15


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_ends_the_epoch_and_is_named(workers, tree, tmp_path):
    (tmp_path / "tree").symlink_to(tree)
    paths = [str(path) for path in sorted(tree.glob("train/*/*.png"))]
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(paths[0]).read_bytes()[:60])
    files = ImageFiles([*paths[:8], str(broken)], workers=workers)
    with pytest.raises(UserError, match=r"broken\.png cannot be decoded") as error:
        list(files.batches(torch.arange(9).tensor_split(3)))
    assert "\n" not in str(error.value)


def test_a_renamed_resized_or_missing_file_is_another_data_set(tree, tmp_path):
    before = ImageFolder(tree).sha256
    shutil.copytree(tree, tmp_path / "elsewhere")
    assert ImageFolder(tmp_path / "elsewhere").sha256 == before
    victim = tree / "train" / "cat" / "0.png"
    content = victim.read_bytes()
    victim.write_bytes(content + b"\0")
    assert ImageFolder(tree).sha256 != before
    victim.rename(victim.with_name("00.png")).write_bytes(content)
    assert ImageFolder(tree).sha256 != before
    victim.with_name("00.png").rename(victim)
    assert ImageFolder(tree).sha256 == before


@pytest.mark.parametrize("arguments", [{"size": 0}, {"memory": -1}, {"workers": -1}], ids=str)
def test_arguments_out_of_range_are_refused(arguments, tree):
    with pytest.raises(UserError, match="a size is at least 1 pixel"):
        ImageFolder(tree, **arguments)


RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_read_as_the_nearest_of_8(suffix, tmp_path):
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257 + 100).save(path)
    assert np.array_equal(decode(str(path), None), np.repeat(RAMP[..., None], 3, 2))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_an_unknown_range_are_refused(kind, tmp_path):
    path = tmp_path / "wide.tiff"
    Image.fromarray(RAMP.astype(kind)).save(path)
    with pytest.raises(UserError, match=r"wide\.tiff has pixels of 32 bits"):
        decode(str(path), None)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused_and_an_opaque_alpha_is_none(mode, tmp_path):
    path, image = tmp_path / "alpha.png", Image.fromarray(RAMP).convert(mode)
    image.save(path)
    assert np.array_equal(decode(str(path), None), np.repeat(RAMP[..., None], 3, 2))
    image.putalpha(Image.fromarray(RAMP))
    image.save(path)
    with pytest.raises(UserError, match=r"alpha\.png is partly transparent"):
        decode(str(path), None)

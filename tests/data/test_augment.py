"""The whole-batch augmentation does, in distribution, what torchvision does image by image."""

import math

import pytest
import torch
from torchvision.transforms import v2

from deq_collapse.data import CropFlip
from deq_collapse.errors import UserError


def pictures(image, count):
    return image.expand(count, *image.shape).contiguous()


def seen(images):
    """How often each distinct image occurs."""
    distinct, often = torch.unique(images.flatten(1), dim=0, return_counts=True)
    return {tuple(image.tolist()): count for image, count in zip(distinct, often.tolist(), strict=True)}


def test_the_results_are_exactly_those_of_torchvision_in_equal_shares():
    image = torch.arange(1, 25, dtype=torch.uint8).reshape(2, 3, 4)  # no symmetry, C != H != W
    ours = seen(CropFlip(padding=1)(pictures(image, 20_000), torch.Generator().manual_seed(0)))
    padded = torch.nn.functional.pad(image, [1] * 4)
    crops = [v2.functional.crop(padded, top, left, 3, 4) for top in range(3) for left in range(3)]
    possible = {tuple(v.flatten().tolist()) for crop in crops for v in (crop, v2.functional.hflip(crop))}
    assert set(ours) == possible
    assert len(possible) == 18
    # 20,000 / 18 = 1,111 each, with standard deviation 32.
    assert all(abs(count - 1111) < 160 for count in ours.values())


def test_each_image_is_changed_on_its_own_and_stays_itself():
    images = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 3, 5, 5).contiguous()
    changed = CropFlip(padding=0)(images, torch.Generator().manual_seed(1))
    assert torch.equal(changed, images)


def test_without_flip_and_padding_nothing_changes():
    images = torch.randint(256, (7, 3, 6, 5), dtype=torch.uint8)
    assert torch.equal(CropFlip(padding=0, flip=0)(images, torch.Generator()), images)


def test_a_flip_that_is_certain_flips_every_image():
    images = torch.randint(256, (7, 3, 6, 5), dtype=torch.uint8)
    assert torch.equal(CropFlip(padding=0, flip=1)(images, torch.Generator()), images.flip(-1))


@pytest.mark.parametrize("arguments", [{"padding": -1}, {"flip": 1.5}, {"flip": math.nan}], ids=str)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match=r"padding >= 0 and flip is in 0\.\.1"):
        CropFlip(**arguments)

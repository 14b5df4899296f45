"""The whole-batch augmentation does, in distribution, what torchvision does image by image."""

import math
from itertools import product

import pytest
import torch
from scipy.stats import beta, chi2_contingency, kstest
from torchvision.transforms import v2

from deq_collapse.data import CropFlip, Cutout
from deq_collapse.data.augment import Mixup
from deq_collapse.data.batches import Normalise
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


def test_crop_flip_and_normalise_are_torchvisions_image_by_image_in_distribution():
    image = torch.arange(0, 240, 10, dtype=torch.uint8).reshape(2, 3, 4)
    mean, std = torch.tensor([[0.4, 0.5], [0.2, 0.3]])
    steps = [
        v2.RandomCrop((3, 4), padding=1),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    theirs = v2.Compose([*steps, v2.Normalize(mean.tolist(), std.tolist())])
    torch.manual_seed(0)
    sampled = torch.stack([theirs(image) for _ in range(2000)])
    cropped = CropFlip(padding=1)(pictures(image, 2000), torch.Generator().manual_seed(0))
    ours, theirs = (seen(images.mul(1e4).round()) for images in (Normalise(mean, std)(cropped), sampled))
    assert ours.keys() == theirs.keys()
    assert chi2_contingency([[often[image] for image in ours] for often in (ours, theirs)]).pvalue > 1e-3


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


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_cutout_hides_the_squares_around_all_pixels_in_equal_shares(size):
    image = torch.arange(1, 13, dtype=torch.uint8).reshape(1, 3, 4)
    ours = seen(Cutout(size, fill=99)(pictures(image, 24_000), torch.Generator().manual_seed(0)))
    expected = {}
    for row, column in product(range(3), range(4)):
        hidden = image.clone()
        top, left = row - size // 2, column - size // 2
        hidden[:, max(top, 0) : top + size, max(left, 0) : left + size] = 99
        key = tuple(hidden.flatten().tolist())
        expected[key] = expected.get(key, 0) + 2000
    assert ours.keys() == expected.keys()
    # 24,000 draws of a centre with probability 1/12: standard deviation 43; of m centres, below 43 sqrt(m).
    assert all(abs(ours[key] - often) < 5 * 43 * (often / 2000) ** 0.5 for key, often in expected.items())


def test_cutout_hides_all_channels_and_each_image_on_its_own():
    images = torch.full((200, 3, 8, 8), 7, dtype=torch.uint8)
    changed = Cutout(4)(images, torch.Generator().manual_seed(0))
    assert torch.equal(changed.amin(1), changed.amax(1))
    assert len(torch.unique(changed.flatten(1), dim=0)) > 30
    assert images.min() == 7  # the source's own images stay


@pytest.mark.parametrize("arguments", [{"size": 0}, {"fill": 256}, {"fill": -1}], ids=str)
def test_cutout_out_of_range_is_refused(arguments):
    with pytest.raises(UserError, match=r"size >= 1 and fill is in 0\.\.255"):
        Cutout(**arguments)


@pytest.mark.parametrize("augmentation", [CropFlip(), Cutout()])
def test_vectors_have_nothing_to_crop_or_hide(augmentation):
    with pytest.raises(UserError, match=r"changes images \(C, H, W\), but the samples here have the shape"):
        augmentation(torch.zeros(5, 7), torch.Generator())


def test_mixup_moves_samples_and_labels_where_torchvision_moves_them():
    torch.manual_seed(0)
    x, labels = torch.randn(6, 3, 4, 5), torch.arange(6) % 4
    true = torch.nn.functional.one_hot(labels, 4).float()

    def moved(mixed, y):
        """How far, where the share is 1: a label is left by as much as its sample."""
        share = 1 - y[0, 0]
        return (mixed - x) / share, (y - true) / share

    for ours, theirs in zip(
        moved(*Mixup(1.0, 4)(x, labels, 0)),
        moved(*v2.MixUp(alpha=1.0, num_classes=4)(x, labels)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_of_mixup_are_from_its_beta_distribution(alpha):
    x, labels = torch.zeros(2, 1), torch.arange(2)
    shares = [float(Mixup(alpha, 2)(x, labels, 0, batch)[1][0, 0]) for batch in range(2000)]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_of_one_sample_leaves_it_and_its_label():
    x, y = Mixup(1.0, 3)(torch.ones(1, 2), torch.tensor([2]), 0)
    assert torch.equal(x, torch.ones(1, 2))
    assert y.tolist() == [[0, 0, 1]]

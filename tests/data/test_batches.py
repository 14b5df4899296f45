"""Every image is seen as often as promised, on any number of ranks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deq_collapse.data import CropFlip, ImageSet, Sampler, Shuffled
from deq_collapse.data.augment import Mixup
from deq_collapse.data.batches import EpochOrder, EvaluationBatches, Normalise, Shard, TrainingBatches
from deq_collapse.errors import UserError

AS_IT_IS = Normalise(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
ONE = Shard(rank=0, ranks=1)
COUNTS = st.integers(1, 60)
RANKS = st.integers(1, 5)
SIZES = st.integers(1, 20)


def numbered(count):
    """Images whose label is their number."""
    numbers = torch.arange(count)
    return ImageSet(numbers.to(torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous(), numbers)


def training(count, size=8, seed=0, shard=ONE, epoch=0, sampler=None, **changes):
    data = numbered(count)
    order = EpochOrder(data.labels, sampler or Shuffled(), seed, shard)
    batches = TrainingBatches(data, order, size, AS_IT_IS, **changes)
    batches.sampler.set_epoch(epoch)
    return batches


def labels(batches):
    return [label for _, y in batches for label in y.tolist()]


@given(COUNTS, RANKS, SIZES)
def test_training_shares_are_equal_and_disjoint(count, ranks, size):
    ranks = min(ranks, count)
    loaders = [training(count, size, shard=Shard(rank, ranks)) for rank in range(ranks)]
    shares = [labels(loader) for loader in loaders]
    assert {len(share) for share in shares} == {count // ranks}
    assert len(set().union(*shares)) == count // ranks * ranks
    for loader in loaders:
        sizes = [len(y) for _, y in loader]
        assert len(loader) == len(sizes)
        assert all(n == size for n in sizes[:-1])
        assert 1 <= sizes[-1] <= size


@given(COUNTS, RANKS, SIZES)
def test_evaluation_covers_all_once_in_order_with_equally_many_full_batches(count, ranks, size):
    ranks = min(ranks, count)
    loaders = [
        EvaluationBatches(numbered(count), size, AS_IT_IS, Shard(rank, ranks)) for rank in range(ranks)
    ]
    assert [label for loader in loaders for label in labels(loader)] == list(range(count))
    assert len({len(loader) for loader in loaders}) == 1
    for loader in loaders:
        sizes = [len(y) for _, y in loader]
        assert len(sizes) == len(loader)
        assert min(sizes) >= 1
        assert max(sizes) <= max(size, 2)


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_together_train_on_the_order_of_one(ranks):
    alone = labels(training(60, 60))
    together = [labels(training(60, 60, shard=Shard(rank, ranks))) for rank in range(ranks)]
    assert [label for step in zip(*together, strict=True) for label in step] == alone


def test_the_order_is_new_every_epoch_and_for_every_seed_and_else_the_same():
    assert labels(training(50)) == labels(training(50))
    assert labels(training(50)) != labels(training(50, epoch=1))
    assert labels(training(50)) != labels(training(50, seed=1))
    loader = training(50)
    assert labels(loader) == labels(loader)


def test_images_keep_their_labels():
    for x, y in training(50):
        assert torch.equal((255 * x[:, 0, 0, 0]).round().long(), y)


def test_augmentation_differs_between_epochs_and_ranks_and_repeats_by_seed():
    def first(**changes):
        return next(iter(training(64, 32, augment=[CropFlip(padding=1)], **changes)))[0] > 0

    assert torch.equal(first(), first())
    # Images of one value: what is left visible is the crop alone.
    assert not torch.equal(first(), first(epoch=1))
    assert not torch.equal(first(shard=Shard(0, 2)), first(shard=Shard(1, 2)))


def test_mixup_differs_between_batches_epochs_and_ranks_and_repeats_by_seed():
    def shares(**changes):
        loader = training(64, 32, mixup=Mixup(1.0, 64), **changes)
        return [y.max(1).values[0].item() for _, y in loader]

    assert shares() == shares()
    first = [*shares(), *shares(epoch=1), *shares(seed=1), *shares(shard=Shard(1, 2))]
    assert len(set(first)) == len(first)


def test_an_own_sampler_decides_the_order_of_all_ranks_and_must_fill_the_epoch():
    class Backwards(Sampler):
        def order(self, labels, seed, epoch):
            return torch.arange(len(labels)).flip(0)[epoch:]

    shares = [labels(training(9, sampler=Backwards(), shard=Shard(rank, 2))) for rank in range(2)]
    assert shares == [[8, 6, 4, 2], [7, 5, 3, 1]]
    with pytest.raises(UserError, match=r"Backwards gives 8 samples .* as there are images, 9"):
        next(iter(training(9, sampler=Backwards(), epoch=1)))


def test_training_images_have_mean_zero_and_variance_one():
    images = torch.randint(256, (40, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.double() / 255
    normalise = Normalise(pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0))
    x = normalise(images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_more_ranks_than_images_are_refused():
    for batches in (training, lambda n, shard: EvaluationBatches(numbered(n), 8, AS_IT_IS, shard)):
        with pytest.raises(UserError, match="3 processes but only 2 images"):
            batches(2, shard=Shard(0, 3))


def test_only_the_interrupted_epoch_is_shortened_and_only_once():
    whole = labels(training(50))
    begun = training(50)
    batches = iter(begun)
    next(batches), next(batches)
    resumed = training(50)
    resumed.load_state_dict(begun.state_dict())
    assert labels(resumed) == whole[16:]
    assert labels(resumed) == whole
    resumed.load_state_dict(begun.state_dict())
    resumed.sampler.set_epoch(1)
    assert labels(resumed) == labels(training(50, epoch=1))

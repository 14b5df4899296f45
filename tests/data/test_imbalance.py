"""Class counts are LDAM's to the image, and a seed alone says which images they are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deq_collapse.data import Balanced, Counts, LongTailed, Natural, ParetoTailed, Step, select
from deq_collapse.errors import UserError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=200).map(torch.tensor)
SEEDS = st.integers(0, 2**32)


def test_cifar10_long_tail_has_the_counts_of_ldam():
    counts = LongTailed(100).counts([5000] * 10)
    assert counts == (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    assert sum(counts) == 12_406


def test_cifar100_long_tail_has_the_images_of_ldam():
    assert sum(LongTailed(100).counts([500] * 100)) == 10_847


@pytest.mark.parametrize("available", [[5000] * 10, [500] * 100], ids=["cifar10", "cifar100"])
def test_step_100_has_the_images_of_ldam(available):
    assert sum(Step(len(available) // 2, 100).counts(available)) == 25_250


@pytest.mark.parametrize("ratio", [10, 20, 50, 100, 200])
@pytest.mark.parametrize(("largest", "classes"), [(5000, 10), (500, 100)], ids=["cifar10", "cifar100"])
def test_the_long_tail_is_the_formula_of_ldam_as_its_authors_wrote_it(ratio, largest, classes):
    factor = 1 / ratio
    theirs = tuple(int(largest * factor ** (c / (classes - 1.0))) for c in range(classes))
    assert LongTailed(ratio).counts([largest] * classes) == theirs


def test_digits_step_as_in_the_demo():
    assert Step(3, 10).counts([142, 145, 141, 146, 144, 145, 144, 143, 139, 144]) == (139,) * 3 + (13,) * 7


@given(st.integers(2, 30), st.integers(1, 500), st.integers(1, 50))
def test_the_ends_are_exactly_the_ratio_apart_where_it_divides(classes, smallest, ratio):
    available = [smallest * ratio] * classes
    for rule in (LongTailed(ratio), ParetoTailed(ratio), ParetoTailed(ratio, 3.0), Step(1, ratio)):
        counts = rule.counts(available)
        assert (counts[0], counts[-1]) == (smallest * ratio, smallest)
        assert list(counts) == sorted(counts, reverse=True)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20))
def test_without_imbalance_all_rules_are_balanced_at_the_smallest_class(available):
    expected = (min(available),) * len(available)
    assert Balanced().counts(available) == expected
    assert Step(1, 1).counts(available) == expected
    assert LongTailed(1).counts(available) == expected
    assert ParetoTailed(1).counts(available) == expected


def test_n_max_caps_the_largest_class_only():
    assert Balanced(7).counts([10, 9, 8]) == (7, 7, 7)
    assert Step(1, 2, n_max=8).counts([8, 5, 4]) == (8, 4, 4)


def test_only_step_knows_a_majority():
    assert Step(3, 10).majority(10) == (0, 1, 2)
    for rule in (Balanced(), Natural(), Counts([1]), LongTailed(10), ParetoTailed(10)):
        assert rule.majority(10) is None


@pytest.mark.parametrize(
    ("rule", "majority"),
    [
        (Step(fraction=0.3), (0, 1, 2)),
        (Step(fraction=0.25), (0, 1, 2)),  # 2.5 classes: halves go up
        (Step(3, which="last"), (7, 8, 9)),
        (Step(fraction=0.1, which="last"), (9,)),
        (Step(which=[5, 0, 8]), (0, 5, 8)),
    ],
    ids=repr,
)
def test_the_majority_is_whom_the_user_names(rule, majority):
    assert rule.majority(10) == majority
    counts = rule.counts([100] * 10)
    assert [c for c, n in enumerate(counts) if n == 100] == list(majority)
    assert {n for n in counts if n != 100} == {10}


def test_a_random_majority_is_decided_by_its_seed_for_ever_and_every_class_has_a_chance():
    # Written down once: another choice breaks every result before it.
    assert Step(3, which="random", seed=0).majority(10) == (3, 4, 6)
    drawn = [Step(3, which="random", seed=seed).majority(10) for seed in range(100)]
    assert all(len(set(classes)) == 3 for classes in drawn)
    often = torch.tensor(drawn).flatten().bincount(minlength=10)
    assert often.min() > 10  # 30 expected, standard deviation 4.6
    assert often.max() < 50


@pytest.mark.parametrize(("alpha", "ratio"), [(0.5, 10), (1, 100), (2, 50), (6, 256)])
def test_pareto_sizes_are_quantiles_of_the_distribution_cut_off_at_both_ends(alpha, ratio):
    largest, classes = 100_000, 21
    counts = ParetoTailed(ratio, alpha).counts([largest] * classes)
    assert (counts[0], counts[-1]) == (largest, int(largest / ratio))
    low = largest / ratio
    for c, count in enumerate(counts):
        # P(size > n) of Pareto(alpha) between low and largest; it falls between two whole sizes.
        above, at = (((low / n) ** alpha - ratio**-alpha) / (1 - ratio**-alpha) for n in (count + 1, count))
        assert above - 1e-12 <= c / (classes - 1) <= at + 1e-12


def test_pareto_with_alpha_one_is_zipfs_law():
    assert ParetoTailed(10).counts([5040] * 10) == tuple(5040 // rank for rank in range(1, 11))


@pytest.mark.parametrize("ratio", [10, 100])
def test_pareto_becomes_the_exponential_tail_as_alpha_vanishes(ratio):
    near, limit = (rule.counts([500] * 100) for rule in (ParetoTailed(ratio, 1e-6), LongTailed(ratio)))
    assert max(abs(a - b) for a, b in zip(near, limit, strict=True)) <= 1


def test_natural_and_listed_sizes_are_kept_up_to_the_cap():
    assert Natural().counts([10, 9, 8]) == (10, 9, 8)
    assert Natural(9).counts([10, 9, 8]) == (9, 9, 8)
    assert Counts([3, 1, 8]).counts([10, 9, 8]) == (3, 1, 8)
    assert Counts([3, 1, 8], n_max=2).counts([10, 9, 8]) == (2, 1, 2)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (Step(3, 0.5), r"ratio R is 0\.5.*R >= 1"),
        (LongTailed(0), r"ratio R is 0.*R >= 1"),
        (LongTailed(math.nan), r"ratio R is nan.*R >= 1"),
        (Step(0, 10), r"num_majority \(K_A\) is 0.*1\.\.3"),
        (Step(4, 10), r"num_majority \(K_A\) is 4.*1\.\.3"),
        (Step(1, 101), r"R = 101 leaves no image of class 1.*largest R allowed is 100"),
        (LongTailed(100.5), r"R = 100\.5 leaves no image of class 3.*largest R allowed is 100"),
        (LongTailed(math.inf), r"R = inf leaves no image of class"),
        (Balanced(101), "class 2 would keep 101 images, but only 100"),
        (Balanced(0), "n_max is 0.*n_max >= 1"),
        (Natural(0), "n_max is 0.*n_max >= 1"),
        (Counts([1, 2, 3]), "3 class sizes are listed, but the data set has 4 classes"),
        (Counts([1, 2, 3, 0]), "class 3 would keep 0 images, but every class keeps at least one"),
        (Counts([1, 151, 3, 4]), "class 1 would keep 151 images, but only 150"),
        (ParetoTailed(10, 0), "alpha is 0, but .* above 0"),
        (ParetoTailed(0.5), r"ratio R is 0\.5.*R >= 1"),
        (Step(), "exactly one of them must set the majority"),
        (Step(2, fraction=0.5), "num_majority is 2, fraction 0.5"),
        (Step(2, which=[0, 1]), r"num_majority is 2, .* \[0, 1\], but exactly one"),
        (Step(fraction=1.0), "above 0, below 1"),
        (Step(fraction=0.01), r"num_majority \(K_A\) is 0.*1\.\.3"),
        (Step(which=[]), r"num_majority \(K_A\) is 0.*1\.\.3"),
        (Step(which=[0, 0]), r"majority classes are \[0, 0\].*different classes of 0\.\.3"),
        (Step(which=[4]), r"majority classes are \[4\].*0\.\.3"),
        (Step(2, which="random", seed=-1), "seed of the majority is -1"),
    ],
    ids=repr,
)
def test_a_rule_that_does_not_fit_says_why_and_what_is_allowed(rule, sentence):
    with pytest.raises(UserError, match=sentence):
        rule.counts([200, 150, 100, 300])


@given(LABELS, SEEDS, st.data())
def test_a_selection_has_exactly_the_counts_and_repeats_nothing(labels, seed, data):
    available = labels.bincount(minlength=5).tolist()
    counts = [data.draw(st.integers(0, n)) for n in available]
    indices = select(labels, counts, seed)
    assert labels[indices].bincount(minlength=5).tolist() == counts
    assert indices.tolist() == sorted(set(indices.tolist()))


@given(LABELS, SEEDS)
def test_fewer_images_of_one_seed_are_among_more_of_it(labels, seed):
    available = labels.bincount(minlength=5).tolist()
    half = select(labels, [n // 2 for n in available], seed)
    assert set(half.tolist()) <= set(select(labels, available, seed).tolist())


def test_a_seed_chooses_the_same_images_for_ever():
    # Written down once: a change of these numbers breaks every manifest ever written.
    frozen = [0, 1, 3, 6, 7, 28, 29, 30]
    labels = torch.arange(40) % 4
    assert select(labels, [2, 2, 2, 2], seed=0).tolist() == frozen
    assert select(labels, [2, 2, 2, 2], seed=1).tolist() != frozen

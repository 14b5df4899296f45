"""Facts of paired tests: what scipy says of the same numbers, what has no test, how Holm's method steps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deq_collapse.analysis.pairing import compare, holm, pool

finite = st.floats(-100, 100, allow_nan=False)


def by_seed(values: list[float]) -> dict[str, float | None]:
    return {str(seed): value for seed, value in enumerate(values)}


@settings(max_examples=30)
@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=12))
def test_the_test_and_the_interval_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    one, two = map(np.array, zip(*pairs, strict=True))
    made = compare(by_seed(list(one)), by_seed(list(two)))
    if np.ptp(two - one) <= 1e-9:
        return
    expected = stats.ttest_rel(two, one)
    interval = expected.confidence_interval(0.95)
    assert made.p == pytest.approx(expected.pvalue)
    assert made.interval == pytest.approx((interval.low, interval.high))
    assert made.effect == pytest.approx((two - one).mean())
    excludes_zero = made.low > 0 or made.high < 0
    assert excludes_zero == (made.p < 0.05) or made.p == pytest.approx(0.05)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=2, max_size=8),
    st.floats(1e-3, 1e3),
)
def test_a_ratio_does_not_change_with_the_unit(pairs: list[tuple[float, float]], unit: float) -> None:
    one, two = zip(*pairs, strict=True)
    made = compare(by_seed(list(one)), by_seed(list(two)), ratio=True)
    scaled = compare(by_seed([unit * x for x in one]), by_seed([unit * x for x in two]), ratio=True)
    assert scaled.effect == pytest.approx(made.effect, rel=1e-6)
    swapped = compare(by_seed(list(two)), by_seed(list(one)), ratio=True)
    assert swapped.effect == pytest.approx(1 / made.effect, rel=1e-6)


def test_only_seeds_that_both_have_are_paired() -> None:
    one = {"0": 1.0, "1": 2.0, "2": None, "3": 4.0, "4": math.inf}
    two = {"0": 1.5, "2": 9.0, "3": 4.1, "4": 1.0, "5": 7.0}
    made = compare(one, two)
    assert list(made.differences) == ["0", "3"]
    assert made.unpaired == ("1", "2", "4", "5")


def test_one_pair_has_an_effect_and_no_test() -> None:
    made = compare({"0": 1.0}, {"0": 1.5})
    assert made.effect == 0.5
    assert math.isnan(made.p)
    assert math.isnan(made.low)
    assert "one pair" in made.remark


def test_two_pairs_have_an_interval_and_no_test_however_alike_they_are() -> None:
    made = compare(by_seed([1.0, 1.0]), by_seed([2.0, 2.001]))
    assert made.interval == pytest.approx(stats.ttest_1samp([1.0, 1.001], 0).confidence_interval(0.95))
    assert made.low > 0
    assert math.isnan(made.p)
    assert made.remark == "two pairs, so no test"


def test_no_pair_has_nothing() -> None:
    made = compare({"0": 1.0}, {"1": 1.5})
    assert made.n == 0
    assert math.isnan(made.effect)
    assert "no seed" in made.remark


@pytest.mark.parametrize("base", [[0.9, 0.9, 0.9], [0.91, 0.92, 0.95]])
def test_equal_differences_have_no_test_even_if_they_differ_by_rounding(base: list[float]) -> None:
    made = compare(by_seed(base), by_seed([value + 0.01 for value in base]))
    assert made.effect == pytest.approx(0.01)
    assert math.isnan(made.p)
    assert "all 3 differences are equal" in made.remark


def test_pooling_is_the_mean_within_each_seed_over_seeds_that_have_all() -> None:
    one = compare(by_seed([0.0, 0.0, 0.0, 0.0]), by_seed([1.0, 2.0, 4.0, 9.0]))
    two = compare(by_seed([0.0, 0.0, 0.0]), by_seed([3.0, 5.0, 5.0]))
    empty = compare({}, {"0": 1.0})
    pooled = pool([one, two, empty])
    assert pooled.differences == {"0": 2.0, "1": 3.5, "2": 4.5}
    assert pooled.unpaired == ("3",)
    assert pooled.p == pytest.approx(stats.ttest_1samp([2.0, 3.5, 4.5], 0).pvalue)
    assert pool([]).n == 0


def test_pooling_takes_settings_of_one_seed_for_one_repetition() -> None:
    """Nine settings that repeat each other must not look like nine times the evidence."""
    one = compare(by_seed([0.0, 0.0, 0.0]), by_seed([1.0, 2.0, 4.0]))
    assert pool([one] * 9).p == pytest.approx(one.p)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_keeps_the_order_and_rejects_what_the_step_down_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
    rejected, m = set(), len(p)
    for rank, i in enumerate(order):
        if (m - rank) * p[i] >= 0.05:
            break
        rejected.add(i)
    assert rejected == {i for i, value in enumerate(adjusted) if value < 0.05}


def test_what_has_no_test_is_no_member_of_the_family() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(adjusted[1])

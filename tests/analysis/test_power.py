"""The power of a paired t test, against simulation and a published table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deq_collapse.analysis.power import pairs_needed, power


@pytest.mark.parametrize(("effect", "pairs"), [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_the_pairs_of_cohens_effects_are_those_of_the_books(effect: float, pairs: int) -> None:
    # Small, medium and large effects at 0.05, two-sided, power 0.8, as G*Power tells them.
    found = power(effect, np.array([pairs - 1, pairs]))
    assert found[0] < 0.8 <= found[1]


def test_power_is_the_share_of_rejections_in_a_simulation() -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.0, (20_000, 8))
    rejected = float((stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean())
    assert power(1.0, np.array([8]))[0] == pytest.approx(rejected, abs=0.01)


@pytest.mark.parametrize(
    ("differences", "level", "pairs"),
    [([4, 5, 6], 0.05 / 45, 5), ([7, 8, 9], 0.05 / 45, 4), ([2, 3, 4], 0.05 / 20, 6)],
)
def test_large_effects_need_few_pairs(differences: list[float], level: float, pairs: int) -> None:
    # By numerical integration of the non-central t distribution, whose function in scipy is nan there.
    assert pairs_needed(differences, level) == pairs


@pytest.mark.parametrize("effect", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 90])
def test_power_is_a_probability_that_grows_with_the_pairs(effect: float, level: float) -> None:
    found = power(effect, np.arange(3, 1001), level)
    assert ((found > 0) & (found < 1 + 1e-6)).all()
    assert (np.diff(found) > -1e-6).all()


@given(
    differences=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=12),
    factor=st.sampled_from([-8.0, -1.0, 0.25, 4.0]),
)
def test_units_and_sign_change_nothing(differences: list[float], factor: float) -> None:
    spread = np.ptp(differences)
    if spread < 1e-6 * max(map(abs, differences)):
        return  # where nothing but rounding varies
    assert pairs_needed(differences) == pairs_needed([factor * value for value in differences])


def test_without_spread_or_pairs_there_is_no_number() -> None:
    assert pairs_needed([]) is pairs_needed([1.0]) is pairs_needed([2.0, 2.0]) is None

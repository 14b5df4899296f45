"""When a run is measured."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback

from deq_collapse.callbacks import MeasurementSchedule
from deq_collapse.errors import UserError

schedules = st.builds(MeasurementSchedule, st.integers(1, 50), st.floats(1, 3))
lengths = st.integers(1, 500)


@given(schedules, lengths)
def test_the_first_epochs_and_the_last_are_measured(schedule, last):
    epochs = schedule.epochs(last)
    assert epochs >= set(range(1, min(schedule.dense, last) + 1)) | {last}
    assert epochs <= set(range(1, last + 1))


@given(schedules, lengths)
def test_gaps_only_grow(schedule, last):
    """But for the last, which ends the run, and but for rounding to whole epochs."""
    gaps = [b - a for a, b in pairwise(sorted(schedule.epochs(last)))][:-1]
    assert all(a <= b + 1 for a, b in pairwise(gaps))


@given(schedules, lengths)
def test_no_two_neighbours_are_further_apart_than_the_growth_allows(schedule, last):
    for a, b in pairwise(sorted(schedule.epochs(last))):
        assert b <= max(a + 1, a * schedule.growth + 0.5)


@given(st.integers(1, 50), st.floats(1, 3), lengths, lengths)
def test_a_longer_run_is_measured_where_the_shorter_one_was_but_for_its_end(dense, growth, one, other):
    """So that a run can be continued for longer."""
    schedule, (short, long) = MeasurementSchedule(dense, growth), sorted((one, other))
    assert schedule.epochs(short) - {short} <= schedule.epochs(long)


@given(st.integers(1, 50), lengths)
def test_a_growth_of_one_measures_every_epoch(dense, last):
    assert MeasurementSchedule(dense, 1.0).epochs(last) == set(range(1, last + 1))


def test_the_default_thins_a_long_run_out():
    assert len(MeasurementSchedule().epochs(1000)) < 70


@pytest.mark.parametrize(
    ("dense", "growth"), [(0, 1.1), (-1, 1.1), (20, 0.9), (20, float("nan")), (20, float("inf"))]
)
def test_values_that_make_no_schedule_are_refused(dense, growth):
    with pytest.raises(UserError, match="dense >= 1 and growth >= 1"):
        MeasurementSchedule(dense, growth)


class Validated(Callback):
    """Notes the epochs, counted from 1, after which the trainer really measured."""

    def __init__(self):
        self.epochs: list[int] = []

    def on_validation_end(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch + 1)


def test_a_real_trainer_measures_after_exactly_those_epochs(ready, tmp_path):
    watch = Validated()
    run = ready(tmp_path, "explicit", epochs=9, watching=[watch])
    run.trainer.fit(run.module, run.data)
    assert watch.epochs == [1, 2, 4, 8, 9] == sorted(run.callback(MeasurementSchedule).epochs(9))

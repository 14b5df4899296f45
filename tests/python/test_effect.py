"""Effects of a change from Python are those of the report."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deq_collapse import UserError, read_study
from deq_collapse.report.table_files import write_tables
from deq_collapse.results import StudyResults
from deq_collapse.runs.study import Contrast, Study
from deq_collapse.runs.study import read_study as read_files

Values = Callable[[str, str, int], dict]


def test_an_effect_is_the_difference_of_pairs(made_up: Callable[..., Study], noisy: Values) -> None:
    results = StudyResults(made_up(noisy))
    rows = results.effect("refinement", "explicit", "equilibrium").set_index("measure")
    runs = results.runs.pivot(index="axis_seed", columns="refinement", values=["test_accuracy", "train_nc1"])
    accuracy, nc1 = (runs[name].equilibrium.astype(float) for name in ("test_accuracy", "train_nc1"))
    assert rows.effect["test_accuracy"] == pytest.approx((accuracy - runs.test_accuracy.explicit).mean())
    ratios = np.log((nc1 / runs.train_nc1.explicit).astype(float))
    assert rows.effect["train_nc1"] == pytest.approx(np.exp(ratios.mean()))


def test_effects_are_those_of_the_report(made_up: Callable[..., Study], noisy: Values, tmp_path) -> None:
    contrast = Contrast("explicit to equilibrium", "refinement", "explicit", "equilibrium")
    study = replace(made_up(noisy, imbalances=("balanced", "step_ka3_r10")), contrasts=(contrast,))
    tables = write_tables(study, tmp_path)
    found = StudyResults(study).effect("refinement", "explicit", "equilibrium")
    assert found.to_csv(index=False) == (tables / "effects.csv").read_text(encoding="utf-8")


def test_effects_by_epoch_are_those_of_the_report(make_study: Callable[..., Path]) -> None:
    sides = {"axis": "refinement", "before": "explicit", "after": "equilibrium"}
    contrast = {"name": "explicit to equilibrium"} | sides
    study = make_study(seeds=3, edit=lambda results: results.update(contrasts=[contrast]))
    tables = write_tables(read_files(study), study)
    found = read_study(study).effect_by_epoch("refinement", "explicit", "equilibrium")
    assert set(found["measure"]) >= {"train_nc1", "train_nc2_etf_means", "train_nc3", "train_loss"}
    assert found.to_csv(index=False) == (tables / "effects_by_epoch.csv").read_text(encoding="utf-8")


def test_a_label_and_an_axis_without_runs_are_told(made_up: Callable[..., Study]) -> None:
    with pytest.raises(UserError, match="no run is equilibrum on the axis refinement; did you mean"):
        StudyResults(made_up()).effect("refinement", "explicit", "equilibrum")
    with pytest.raises(UserError, match="there is no axis refinment; did you mean refinement"):
        StudyResults(made_up()).effect("refinment", "explicit", "equilibrium")

"""Settings: what they are called, and which stand under one heading."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deq_collapse.analysis.imbalance import imbalance_kind
from deq_collapse.analysis.settings import settings
from deq_collapse.runs.config import Saved
from deq_collapse.runs.study import Study, call_data_by_name, read_study

MakeUp = Callable[..., Study]


def test_settings_are_grouped_by_what_is_no_imbalance(made_up: MakeUp) -> None:
    axes = [{"imbalance": i, "loss": loss} for i in ("balanced", "step_ka3_r10") for loss in ("ce", "mse")]
    parts = [made_up(axes=entry, imbalances=(entry["imbalance"],)) for entry in axes]
    study = Study("four", "", tuple(run for part in parts for run in part.runs), ())
    assert [(setting.heading, setting.label) for setting in settings(study)] == [
        ("loss ce", "balanced"),
        ("loss ce", "step, K_A=3, R=10"),
        ("loss mse", "balanced"),
        ("loss mse", "step, K_A=3, R=10"),
    ]


def test_a_data_set_is_called_as_it_calls_itself(made_up: MakeUp) -> None:
    study = made_up(imbalances=("balanced", "step_ka3_r10"), axes={"dataset": "d", "loss": "mse"})
    study = replace(study, runs=study.runs[:-1])  # what is only planned is called so too
    assert {setting.heading for setting in settings(call_data_by_name(study))} == {"digits; loss mse"}


def test_labels_of_one_data_set_stay_apart(made_up: MakeUp) -> None:
    small, large = (made_up(axes={"data": name}) for name in ("small", "large"))
    both = call_data_by_name(replace(small, runs=small.runs + large.runs))
    assert {setting.label for setting in settings(both)} == {
        "small; step, K_A=3, R=10",
        "large; step, K_A=3, R=10",
    }


def test_a_group_of_one_needs_no_heading(made_up: MakeUp) -> None:
    (setting,) = settings(made_up(axes={"loss": "mse"}))
    assert (setting.group, setting.heading) == ("loss mse", "")
    assert setting.label == setting.name == "loss mse; step, K_A=3, R=10"


def test_a_setting_that_has_begun_is_named_as_when_it_is_finished(make_study: Callable[..., Path]) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["cells"] = [{"name": run["name"], "axes": run["axes"]} for run in results["runs"]]
        results["runs"] = results["runs"][:2]
        axes = {"imbalance": "step_ka7_r50", "refinement": "explicit", "seed": "0"}
        results["cells"].append({"name": "not begun", "axes": axes})

    named = [setting.name for setting in settings(read_study(make_study(edit=edit)))]
    assert named == ["balanced", "step, K_A=3, R=10", "step ka7 r50"]


def test_a_data_set_as_it_is_is_no_long_tail_unless_one_class_has_twice_as_many(made_up) -> None:
    (run, *_) = made_up().runs
    for counts, saved, kind in [
        ((129, 150, 168), {"natural": "natural"}, "balanced"),
        ((60, 150, 168), {"natural": "natural"}, "long-tailed"),
        ((129, 150, 168), {"long_tailed": "long-tailed"}, "long-tailed"),
    ]:
        given = replace(run, class_counts=counts, majority=None, saved=Saved(saved))
        assert imbalance_kind(given) == kind

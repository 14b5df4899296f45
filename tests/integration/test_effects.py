"""Every committed effect is what pandas and scipy make of the committed runs, without the package.

So this holds for the studies, too, whose runs themselves are nowhere any more.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
EFFECTS = sorted((ROOT / "docs" / "results").glob("*/tables/effects.csv"))
RATIOS = ("train_nc1", "train_loss")
FEWEST = 3
"""Pairs that a test takes."""
MISSED = 1.0001e-3
"""A tenth of a percent, as far as float32 rounds it."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def usable(runs: pd.DataFrame, measure: str) -> pd.Series:
    """One measure of the runs that ended as planned, at fixed points in training and where it is measured."""
    split = measure.partition("_")[0]
    missed = ["solver_unconverged_worst_epoch", "train_unconverged", f"{split}_unconverged"]
    sound = runs.complete & ~(runs.reindex(columns=missed).fillna(0) > MISSED).any(axis=1)
    values = np.log(runs[measure]) if measure in RATIOS else runs[measure]
    return values.where(sound & np.isfinite(values))


def differences(runs: pd.DataFrame, measure: str, axis: str, before: str, after: str) -> pd.DataFrame:
    """after - before by seed, in rows, and by label on the other axis, in columns."""
    other = f"axis_{'family' if axis == 'refinement' else 'refinement'}"
    place = runs[other] if other in runs else pd.Series("", runs.index)
    table = pd.DataFrame(
        {
            "value": usable(runs, measure),
            "seed": runs.axis_seed,
            "side": runs[f"axis_{axis}"],
            "place": place.str.replace("_", " ").replace("equilibrium", "DEQ"),
        }
    )
    sides = table.set_index(["side", "seed", "place"]).value
    return (sides[after] - sides[before]).unstack("place").dropna(axis="columns", how="all")


def paired(found: pd.Series, ratio: bool) -> dict[str, float]:
    """Student's paired t test and its interval."""
    test = stats.ttest_1samp(found, 0.0)
    told = np.array([found.mean(), *test.confidence_interval(0.95)])
    return dict(zip(["effect", "low", "high"], np.exp(told) if ratio else told, strict=True)) | {
        "pairs": len(found),
        "p": test.pvalue if len(found) >= FEWEST else np.nan,
    }


def recomputed(runs: pd.DataFrame, measure: str, contrast: pd.Series) -> pd.DataFrame:
    """The effects of one contrast on one measure by place, and their mean over places within each seed."""
    found = differences(runs, measure, contrast.axis, contrast.before, contrast.after)
    rows = {place: paired(column.dropna(), measure in RATIOS) for place, column in found.items()}
    if found.shape[1] > 1:
        rows[f"mean of {found.shape[1]}"] = paired(found.dropna().mean(axis=1), measure in RATIOS)
    return pd.DataFrame(rows).T


def holm(p: pd.Series) -> pd.Series:
    """Adjusted p values; what was not tested counts for nothing."""
    tests = p.dropna().sort_values()
    return (tests * np.arange(len(tests), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*too small:UserWarning")  # of one pair
@pytest.mark.parametrize("path", EFFECTS, ids=name)
def test_effects_are_those_of_the_runs(path: Path) -> None:
    committed = pd.read_csv(path, dtype={"imbalance": str, "in": str}).fillna({"imbalance": "", "in": ""})
    runs = pd.read_csv(path.parent / "runs.csv")
    for (imbalance, measure), column in committed.groupby(["imbalance", "measure"]):
        here = runs[runs.setting.str.endswith(imbalance)]
        for _, rows in column.groupby("contrast"):
            expected = recomputed(here, measure, rows.iloc[0])
            found = rows.set_index("in")[list(expected)].astype(float)
            pd.testing.assert_frame_equal(found, expected, rtol=1e-6, check_like=True, check_names=False)
        np.testing.assert_allclose(column.p_holm, holm(column.p), rtol=1e-9)

"""What is printed of results is what the committed tables give, and those are what the runs gave.

On the README and the pages of results every interval stands in a table of effects, and every mean with its
spread is one of runs that are there; and a packed study gives the tables beside it.
"""

import re
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deq_collapse.report.table_files import write_tables
from deq_collapse.runs.study import read_study

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", *sorted(RESULTS.glob("*.md"))]
STUDIES = sorted(RESULTS.glob("*/*.tar.xz"))

NUMBER = r"[+−-]?\d+(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER})\*{{0,2}} (?:points )?\[({NUMBER}), ({NUMBER})\]")
SPREAD = re.compile(rf"({NUMBER}) ± ({NUMBER})")
SCALES = (1.0, 100.0, 1000.0, 1e-3, 1e-6)
"""Shares in percent and points, losses in thousandths, FLOPs in thousands and millions."""

NOT_OF_TABLES = {
    # Of networks that were measured once more, within 2,000 evaluations: the page has the command.
    ("gradient.md", "+0.48 [−2.44, 3.39]"),
    ("gradient.md", "−6.26 [−9.34, −3.18]"),
    # Of the first five seeds of ten, and of the others: the committed table is of all.
    ("gradient.md", "1.42 [1.09, 1.83]"),
    ("gradient.md", "0.90 [0.68, 1.18]"),
    # Of all pairs, with the runs that missed fixed points, which the page says; from runs.csv.
    ("gradient.md", "−0.95 [−3.61, 1.71]"),
    ("gradient.md", "+0.72 [−1.21, 2.66]"),
    ("gradient.md", "+0.47 [−0.55, 1.49]"),
    ("gradient.md", "+1.85 [−0.78, 4.48]"),
    ("gradient.md", "−0.17 [−0.59, 0.26]"),
    ("gradient.md", "−1.48 [−2.23, −0.73]"),
    ("families.md", "1.023 [0.857, 1.221]"),
    ("families.md", "0.245 [0.197, 0.305]"),
    ("families.md", "−6.94 [−10.72, −3.15]"),
    # Of runs that others replaced, told as such.
    ("families.md", "0.252 [0.180, 0.352]"),
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def numbers(found: re.Match[str]) -> tuple[np.ndarray, np.ndarray]:
    """What is printed, and half a unit of its last digit."""
    words = [word.replace("−", "-") for word in found.groups()]
    digits = [len(word.partition(".")[2]) for word in words]
    return np.array(words, float), 0.5 * 10.0 ** -np.array(digits) + 1e-9


def printed(page: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for found in pattern.finditer(page.read_text(encoding="utf-8")):
        yield found[0].replace("**", ""), *numbers(found)


def stands_in(table: np.ndarray, values: np.ndarray, half: np.ndarray) -> bool:
    return any((np.abs(table * scale - values) <= half).all(axis=1).any() for scale in SCALES)


@cache
def intervals() -> np.ndarray:
    """Every effect of every committed table with its interval, and the other way round."""
    columns = ["effect", "low", "high"]
    tables = [pd.read_csv(path) for path in RESULTS.glob("*/tables/*.csv")]
    found = pd.concat([table[columns] for table in tables if set(columns) <= set(table)]).to_numpy(float)
    return np.concatenate([found, -found[:, [0, 2, 1]], over_the_settings()])


def over_the_settings() -> np.ndarray:
    """Of an equilibrium in five settings, averaged within each of five seeds: a section of gradient.md."""
    tables = (RESULTS / name / "tables/runs.csv" for name in ("gradient", "gradient_grid"))
    runs = pd.concat([pd.read_csv(path).query("axis_seed < 5") for path in tables])
    rows = []
    for measure, ratio in (("nc1", True), ("nc2_etf_means", False), ("nc3", False), ("loss", True)):
        values = runs.pivot_table(f"train_{measure}", ["axis_seed", "setting"], "axis_refinement")
        sides = np.log(values) if ratio else values
        effects = (sides.equilibrium_phantom - sides.tied_phantom).unstack()
        assert effects.shape == (5, 5)
        assert not effects.isna().any(axis=None)
        seeds = effects.mean(axis=1)
        row = np.array([seeds.mean(), *stats.ttest_1samp(seeds, 0).confidence_interval()])
        rows.append(np.exp(row) if ratio else row)
    return np.stack(rows)


@cache
def spreads() -> np.ndarray:
    """Mean and standard deviation over seeds of every final value of every network in every setting."""
    found = []
    for path in RESULTS.glob("*/tables/runs.csv"):
        runs = pd.read_csv(path)
        seeds = runs.select_dtypes("number").groupby([runs.setting, runs.refinement])
        found.append(np.stack([seeds.mean().to_numpy().ravel(), seeds.std().to_numpy().ravel()], axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_interval_is_of_a_committed_table(page: Path) -> None:
    without = [text for text, *found in printed(page, INTERVAL) if not stands_in(intervals(), *found)]
    assert {(page.name, text) for text in without} <= NOT_OF_TABLES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_mean_and_spread_is_of_committed_runs(page: Path) -> None:
    assert not [text for text, *found in printed(page, SPREAD) if not stands_in(spreads(), *found)]


def test_a_wrong_last_digit_is_found() -> None:
    right, half = np.array([0.27, 0.18, 0.40]), np.array([0.005, 0.005, 0.005])
    assert stands_in(intervals(), right, half)
    assert not stands_in(intervals(), right + np.array([0.01, 0, 0]), half)


@pytest.mark.parametrize("archive", STUDIES, ids=name)
def test_a_packed_study_gives_the_tables_beside_it(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    tables = write_tables(read_study(next(tmp_path.iterdir())), tmp_path)
    committed = [*archive.parent.glob("tables/*.csv"), *archive.parent.glob("runs.csv")]
    assert committed
    for path in committed:
        pd.testing.assert_frame_equal(pd.read_csv(tables / path.name), pd.read_csv(path), rtol=1e-9)

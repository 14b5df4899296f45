"""docs/metrics.md: its examples run, its table has every value, and what it states of each value is true."""

import math
import re
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from deq_collapse.metrics import TABLE, ClassStatistics, NeuralCollapse, functional
from deq_collapse.metrics.geometry import simplex_etf_gram

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
TEXT = PAGE.read_text()
SECTION = TEXT[TEXT.index("## Every value") : TEXT.index("## Options")]
ROWS = {
    cells[0].strip("`"): dict(
        zip(("formula", "range", "ideal", "needs", "cost", "source"), cells[1:], strict=True)
    )
    for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in SECTION.splitlines())
    if len(cells) == 7 and cells[0].startswith("`")
}
# The page's word for what a formula needs.
WORDS = {
    "within": set(),
    "classifier": {"classifier"},
    "samples": {"samples"},
    "minority": {"majority"},
    "minority_pair": {"majority", "minority"},
    "outside": {"outside"},
    "matrix": {"matrix"},
    "fixed": {"fixed"},
}


def test_the_table_has_every_value_once_and_no_other():
    assert list(ROWS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_needs_are_those_of_the_table(name):
    words = {word.strip() for word in ROWS[name]["needs"].split(",")} - {""}
    assert words == set().union(*(WORDS[need] for need in TABLE[name].needs))


def test_the_examples_run_in_their_order():
    names = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(code, names)
    assert names["values"].keys() == {"nc1", "cdnv", "nc2_etf_means", "uniformity"}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, **quiet)
    model, loader = names["Classifier"](), DataLoader(names["dataset"], 50)
    (logged,) = trainer.validate(model, loader, verbose=False)
    assert logged["val/nc1"] == pytest.approx(float(names["values"]["nc1"]), rel=1e-5)
    # `validate` leaves tensors of inference mode behind, `fit` adds to them outside it while it checks first.
    quiet |= {"log_every_n_steps": 1, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet)
    trainer.fit(model.train(), loader, loader)
    assert 0 < float(trainer.callback_metrics["val/nc1"]) < 2 * logged["val/nc1"]


def test_links_and_named_options_exist():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)", TEXT, re.M)
    }
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (PAGE.parent / path).exists()
        assert path or anchor in anchors, target
    assert "## In a loop of your own" in (PAGE.parent / "howto" / "measure.md").read_text()


def evaluated(expression: str, K: int, d: int) -> object:
    names = {"K": K, "d": d, "inf": math.inf, "sqrt": math.sqrt, "log": math.log, "min": min}
    return eval(expression, {"__builtins__": {}}, names)


def measured(features, labels, weight, bias=None, outside=None, **kwargs):
    metric = NeuralCollapse(len(weight), features.shape[1], metrics=list(TABLE), **kwargs)
    metric.fix_means(ClassStatistics.from_features(features, labels, len(weight)))
    metric.update(features, labels, weight, bias)
    if outside is not None:
        metric.update_outside(outside)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize("K", [2, 3, 4, 10, 21])
def test_ideals_are_those_of_the_exact_geometries(K):
    # Means that are an orthogonal frame are, centred, a simplex ETF; one more direction is orthogonal to all.
    basis = torch.linalg.qr(torch.randn(K + 2, K + 2, generator=torch.Generator().manual_seed(K)).double()).Q
    frame, outside = 3 * basis[:K], basis[K:].sum(0, keepdim=True)
    labels = torch.arange(K).repeat(4)
    found = {
        "": measured(frame[labels], labels, frame - frame.mean(0), outside=outside, majority=[0]),
        "frame": measured(frame[labels], labels, frame, majority=[0]),
    }
    assert found[""].keys() == {name for name in TABLE if K > 2 or not name.startswith("minority_cos")}
    for name in found[""]:
        ideal, geometry = re.fullmatch(r"`(.*)`(?: (frame))?", ROWS[name]["ideal"]).groups(default="")
        assert found[geometry][name] == pytest.approx(evaluated(ideal, K, K + 2), abs=1e-7), name


def features_at_their_worst(K, d):
    """Means and classifiers that drive values to the ends of their ranges."""
    generator = torch.Generator().manual_seed(K)
    labels = torch.arange(K).repeat(6)
    means = torch.randn(K, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    ray = torch.arange(K, dtype=torch.float64)[:, None] * means[:1]
    lone = means * (torch.arange(K) == 0)[:, None]
    weight = torch.randn(K, d, generator=generator, dtype=torch.float64)
    for centres in (means, 1e3 + means, 0 * means, ray, means[:1].expand(K, d)):
        centred = centres - centres.mean(0)
        rows = (weight, centred, -centred, 0 * weight, lone, weight[:1].expand(K, d))
        for i, W in enumerate(rows):
            for size in (0, (1e-6, 1, 1e3)[i % 3]):
                yield centres[labels] + size * noise, labels, W


@pytest.mark.parametrize(("K", "d"), [(2, 1), (3, 8), (7, 3)])
def test_values_stay_in_their_ranges(K, d):
    outside = torch.ones(1, d)
    for features, labels, weight in features_at_their_worst(K, d):
        for name, value in measured(features, labels, weight, outside=outside, majority=[0]).items():
            low, high = evaluated(ROWS[name]["range"].strip("`"), K, d)
            assert low - 1e-7 <= value <= high + 1e-7, (name, value)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
    return features, labels, torch.randn(3, 5, generator=generator, dtype=torch.float64)


def test_a_classifier_of_zeros_has_values(batch):
    found = measured(*batch[:2], torch.zeros(3, 5), majority=[0])
    for name in ("nc3", "nc2_etf_weights", "seli_weights", "gof_weights"):
        assert found[name] == pytest.approx(1), name
    assert found["nc3_alignment"] == found["nc2_norm_weights"] == 0
    assert found["majority_minority_norm_weights"] == math.inf


def test_values_of_the_classifier_alone_take_the_rows_of_absent_classes(batch):
    features, labels, weight = batch
    more = torch.cat([weight, 5 * weight[:1]])
    found, rows = measured(features, labels, more), functional.norm_variation(more)
    assert found["nc2_norm_weights"] == pytest.approx(float(rows))
    assert found["nc3"] == pytest.approx(measured(features, labels, weight)["nc3"])


def test_a_batch_refused_leaves_nothing_behind(batch):
    features, labels, weight = batch
    metric = NeuralCollapse(3, 5)
    metric.update(features, labels, weight)
    before = metric.compute()
    for wrong in ((features, labels + 1), (features[:, 1:], labels), (features, labels, weight.T)):
        with pytest.raises(ValueError, match=r"labels|features|weight"):
            metric.update(*wrong)
    metric.update(features[:0], labels[:0], weight)
    assert metric.compute() == before


def test_nc4_is_that_of_the_batches_that_came_with_a_classifier(batch):
    features, labels, weight = batch
    metric = NeuralCollapse(3, 5)
    metric.update(features[:20], labels[:20], -weight)
    metric.update(features[20:40], labels[20:40])
    metric.update(features[40:], labels[40:], weight)
    found = metric.compute()
    stats = ClassStatistics.from_features(features, labels, 3)
    nearest = functional.nearest_mean(stats, features, labels)
    decided = torch.cat([(features[:20] @ -weight.float().T), (features[40:] @ weight.float().T)]).argmax(1)
    differs = decided != nearest[torch.arange(60) // 20 != 1]
    assert float(found["nc4"]) == pytest.approx(float(differs.float().mean()))
    torch.testing.assert_close(found["nc2_norm_weights"], functional.norm_variation(weight))


def test_a_collection_can_be_plotted(batch):
    mpl.use("Agg")
    collection = MetricCollection({"collapse": NeuralCollapse(3, 5, metrics=["nc1", "cdnv"])})
    collection.update(batch[0], batch[1])
    figure, axes = collection.plot(together=True)
    assert len(axes.get_lines()) == 2
    mpl.pyplot.close(figure)


def test_two_classes_have_opposite_means_whatever_was_learnt():
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    found = measured(features, torch.arange(40) % 2, torch.ones(2, 5))
    for name in ("nc2_norm_means", "nc2_angle_means", "nc2_etf_means", "uniformity"):
        assert found[name] == pytest.approx(0, abs=1e-7), name


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_narrow_space_has_no_room_for_an_etf(d):
    K = 6
    # What the projection to d of the K - 1 directions reaches, and no matrix of rank d can undercut.
    least = math.sqrt(2 - 2 * math.sqrt(d / (K - 1)))
    vectors = torch.linalg.eigh(simplex_etf_gram(K))[1][:, -d:]
    assert float(functional.etf_distance(vectors @ vectors.T)) == pytest.approx(least)
    for features, labels, weight in features_at_their_worst(K, d):
        found = measured(features, labels, weight)
        for name in ("nc2_etf_means", "nc2_etf_weights", "nc3_product", "seli_means", "seli_logits"):
            assert found[name] > min(least, 1) - 1e-7, name  # 1 is that of a zero matrix
        assert found["between_rank"] <= d


def test_statistics_of_a_stream_serve_around():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(90, 4, generator=generator), torch.arange(90) % 3
    metric = NeuralCollapse(3, 4, metrics=["nc1"])
    for h, y in zip(features.split(20), labels.split(20), strict=True):
        metric.update(h, y)
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    exact = ClassStatistics.from_features(features, labels, 3)
    found, expected = (functional.nc1(stats.around(means)) for stats in (metric.statistics(), exact))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)

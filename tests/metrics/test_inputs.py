"""Bad input: a documented value or one clear ValueError each."""

import math
from collections import Counter

import pytest
import torch

from deq_collapse.metrics import COSTLY, TABLE, ClassStatistics, NeuralCollapse
from deq_collapse.metrics.accumulate import accumulate
from deq_collapse.metrics.moments import Moments


@pytest.fixture
def metric():
    return NeuralCollapse(3, 4)


@pytest.mark.parametrize(
    ("features", "labels", "match"),
    [
        (torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), r"features must be \(N, 4\)"),
        (torch.zeros(4), torch.zeros(1, dtype=torch.int64), r"features must be \(N, 4\)"),
        (torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), "floats"),
        (torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64), r"labels must be \(2,\)"),
        (torch.zeros(2, 4), torch.zeros(2), "integers"),
        (torch.zeros(2, 4), torch.tensor([0, 3]), "labels must lie in 0..2, got 0..3"),
        (torch.zeros(2, 4), torch.tensor([-1, 0]), "labels must lie in 0..2, got -1..0"),
        (
            torch.zeros(2, 4, 3, 3),
            torch.zeros(2, dtype=torch.int64),
            "average maps over their positions first",
        ),
        (torch.zeros(2, 4), [0.0, 1.0], "integers, got"),
        (torch.zeros(2, 4), ["cat", "dog"], "integers, got list"),
        (None, torch.zeros(2, dtype=torch.int64), "floats, got NoneType"),
    ],
)
def test_features_and_labels_that_do_not_fit(metric, features, labels, match):
    with pytest.raises(ValueError, match=match):
        metric.update(features, labels)
    if getattr(features, "shape", ()) != (2, 5):  # which are features of another width
        with pytest.raises(ValueError, match=match.replace("4", r"\d+")):
            ClassStatistics.from_features(features, labels, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_statistics_of_features_that_are_not_finite_are_refused(bad):
    features = torch.zeros(3, 4)
    features[1, 2] = bad
    with pytest.raises(ValueError, match="1 samples have non-finite features"):
        ClassStatistics.from_features(features, torch.tensor([0, 1, 2]), 3)


@pytest.mark.parametrize("labels", [torch.uint8, torch.int32, "array", "list"])
@pytest.mark.parametrize("features", ["tensor", "array"])
def test_arrays_lists_and_small_integers_are_taken_like_tensors(make, features, labels):
    h, y = make([20, 30, 10], 4, 0.3)
    expected = NeuralCollapse(3, 4)
    expected.update(h, y, torch.ones(3, 4))
    given = {"array": y.numpy(), "list": y.tolist()}.get(labels) if isinstance(labels, str) else y.to(labels)
    taken = h.numpy() if features == "array" else h
    metric = NeuralCollapse(3, 4)
    metric.update(taken, given, torch.ones(3, 4).numpy())
    assert metric.compute() == expected.compute()
    stats = ClassStatistics.from_features(taken, given, 3)
    torch.testing.assert_close(stats.means, ClassStatistics.from_features(h, y, 3).means)


def test_samples_with_the_label_to_ignore_take_no_part(make, measure):
    features, labels = make([20, 30, 10], 4, 0.3)
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    more, marked = torch.cat([features, 9 * features[:15]]), torch.cat([labels, torch.full((15,), -100)])
    found = measure(more, marked, weight, classes=3, ignore_index=-100, batch=1000)
    assert found == measure(features, labels, weight, classes=3, batch=1000)
    with pytest.raises(ValueError, match="labels must lie"):
        measure(more, marked, weight, classes=3)


@pytest.mark.parametrize("reason", ["buffer", "labels", "device"])
def test_whatever_raises_has_changed_nothing(make, reason):
    features, labels = make([20, 20, 20], 8, 1e-6)
    features = features.float()
    metric = NeuralCollapse(3, 8, buffer_limit=60 * 8 * 4)
    metric.update(features, labels, torch.ones(3, 8))
    before = metric.compute()
    weight, rows = torch.ones(3, 8, device="meta" if reason == "device" else "cpu"), 60
    if reason == "device":
        metric.buffer_limit, rows = 2 * metric.buffer_limit, 1
    with pytest.raises((ValueError, RuntimeError)):
        metric.update(features[:rows] + 1, labels[:rows] + (reason == "labels"), weight)
    metric.update(features[:0], labels[:0])
    assert metric.compute() == before


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean nc3_alignment"):
        NeuralCollapse(3, 4, ["nc3_aligment"])


def test_counts_by_class_are_read_as_such():
    labels = [2, 0, 0, 1, 0, 1]
    for counts in (Counter(labels), {0: 3, 2: 1, 1: 2}):
        assert NeuralCollapse(3, 4, class_counts=counts).class_counts == [3, 2, 1]
    with pytest.raises(ValueError, match="3 positive numbers, got"):
        NeuralCollapse(3, 4, class_counts={0: 3, 1: 2})
    with pytest.raises(ValueError, match=r"\[3\], which are not in 0..2"):
        NeuralCollapse(3, 4, class_counts={0: 3, 1: 2, 2: 1, 3: 1})


def test_the_arguments_given_are_shown():
    metric = NeuralCollapse(3, 4, metrics=["nc1"], majority=[0], buffer_dtype=torch.float16)
    shown = "num_classes=3, num_features=4, metrics=('nc1',), majority=[0], buffer_dtype=torch.float16"
    assert repr(metric) == f"NeuralCollapse({shown})"
    assert repr(NeuralCollapse(3, 4)) == "NeuralCollapse(num_classes=3, num_features=4)"


@pytest.mark.parametrize(
    "classifier",
    [(torch.zeros(4, 3), None), (torch.zeros(3, 4), torch.zeros(4)), (torch.zeros(3, 4).cfloat(), None)],
)
def test_classifiers_that_do_not_fit(metric, classifier):
    with pytest.raises(ValueError, match=r"weight|bias"):
        metric.update(torch.zeros(2, 4), torch.tensor([0, 1]), *classifier)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 1},
        {"num_features": 0},
        {"num_classes": 3.5},
        {"metrics": ["nc7"]},
        {"majority": []},
        {"majority": [0, 1, 2]},
        {"majority": [0, 0]},
        {"majority": [5]},
        {"class_counts": [1, 2]},
        {"decays": [1e-3]},
        {"decays": [1e-3, -1]},
        {"class_counts": [1, 2, 0]},
    ],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        NeuralCollapse(**{"num_classes": 3, "num_features": 4, **arguments})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_features_raise_or_are_skipped(make, measure, bad):
    features, labels = make([20, 20, 20], 4, 0.3)
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    spoilt = torch.cat([torch.full((1, 4), bad).double(), features, features[:1]])
    spoilt[-1, 2] = bad
    y = torch.cat([labels[:1], labels, labels[:1]])
    with pytest.raises(ValueError, match="2 samples have non-finite features"):
        measure(spoilt, y, weight, torch.zeros(3))
    skipped = measure(spoilt, y, weight, torch.zeros(3), nonfinite="skip")
    assert skipped.pop("skipped_samples") == 2
    clean = measure(features, labels, weight, torch.zeros(3))
    assert clean.pop("skipped_samples") == 0
    assert skipped == pytest.approx(clean, rel=1e-9, abs=1e-12)


def test_labels_out_of_range_on_an_accelerator_are_found_at_compute(metric):
    metric.update(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    # The CPU refuses them at once; an accelerator's update only counts them.
    accumulate(Moments.of(metric.moments, 3, 4), torch.randn(2, 4), torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="2 labels lie outside"):
        metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_or_one_class_alone_cannot_be_measured(metric):
    with pytest.raises(ValueError, match="at least 2 need samples, 0 had any"):
        metric.compute()
    metric.update(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 need samples, 1 had any"):
        metric.compute()


def test_a_classifier_that_is_not_finite_is_refused(metric):
    metric.update(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), torch.full((3, 4), math.nan))
    with pytest.raises(ValueError, match="weight or bias is not finite"):
        metric.compute()


def test_empty_batches_change_nothing(make, measure):
    features, labels = make([20, 20, 20], 4, 0.3)
    weight = torch.ones(3, 4).double()
    metric = NeuralCollapse(3, 4)
    for h, y in ((features[:0], labels[:0]), (features, labels), (features[:0], labels[:0])):
        metric.update(h, y, weight)
    assert {n: float(v) for n, v in metric.compute().items()} == measure(features, labels, weight, batch=1000)


def test_single_samples_two_classes_and_zero_weights_have_values(measure):
    values = measure(
        torch.tensor([[1.0, 0], [0, 1.0]]), torch.tensor([0, 1]), torch.zeros(2, 2), majority=[0]
    )
    assert values["nc1"] == values["cdnv"] == 0
    assert values["nc3"] == 1
    assert values["nc3_alignment"] == 0
    assert values["nc2_norm_weights"] == 0
    assert values["nc2_etf_weights"] == 1
    assert not any(math.isnan(value) for value in values.values())


def test_values_that_cannot_be_known_are_left_out(make, measure):
    features, labels = make([20, 20, 20], 4, 0.3)
    bare = measure(features, labels)
    with_classifier = measure(features, labels, torch.ones(3, 4).double())
    everything = measure(features, labels, torch.ones(3, 4).double(), majority=[0])
    assert {"nc3", "nc4", "seli_weights"} <= set(with_classifier) - set(bare)
    assert not any(TABLE[name].needs & {"classifier"} for name in bare)
    assert set(everything) == set(TABLE) - set(COSTLY) - {"nc5"}
    lonely = measure(features, labels, torch.ones(3, 4).double(), majority=[0, 1])
    assert set(everything) - set(lonely) == {n for n in TABLE if n.startswith("minority_cos")}


def test_the_buffer_is_bounded(make):
    features, labels = make([20, 20, 20], 4, 0.3)
    metric = NeuralCollapse(3, 4, buffer_limit=60 * 4 * 4, buffer_dtype=torch.float32)
    metric.update(features, labels, torch.ones(3, 4))
    assert metric.buffered_features[0].dtype == torch.float32
    with pytest.raises(ValueError, match="buffer_limit"):
        metric.update(features, labels, torch.ones(3, 4))


def test_nc4_without_any_decided_sample_is_refused(make, metric):
    features, labels = make([20, 20, 20], 4, 0.3)
    metric.update(features, labels)
    metric.update(features[:0], labels[:0], torch.ones(3, 4))
    with pytest.raises(ValueError, match="nc4 needs samples"):
        metric.compute()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"centre": "sample"}, "centre must be 'classes' or 'samples', got 'sample'"),
        ({"weighting": "class"}, "weighting must be 'samples' or 'classes'"),
        ({"nonfinite": "ignore"}, "nonfinite must be 'raise' or 'skip'"),
        ({"buffer_dtype": torch.int8}, "floating type"),
        ({"weighting": "classes", "buffer_dtype": torch.float16}, "must be None"),
        ({"metrics": ["cdnv_directional"], "buffer_dtype": torch.float16}, "must be None"),
    ],
)
def test_choices_that_do_not_exist(arguments, words):
    with pytest.raises(ValueError, match=words):
        NeuralCollapse(3, 4, **arguments)


def test_a_single_name_and_tensors_of_classes_are_taken_as_they_are_meant():
    metric = NeuralCollapse(
        3, 4, metrics="nc1", majority=torch.tensor([0]), class_counts=torch.tensor([5, 2, 2])
    )
    assert (metric.metrics, metric.majority, metric.class_counts) == (("nc1",), [0], [5, 2, 2])


def test_features_that_a_type_cannot_hold_are_refused():
    y = torch.arange(30) % 3
    far = 1e25 * torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    for metrics in (["nc1"], ["nc1", "nc4"], ["cdnv"]):
        metric = NeuralCollapse(3, 8, metrics=metrics)
        metric.update(far, y)
        with pytest.raises(ValueError, match="too large for float32"):
            metric.compute()
    metric = NeuralCollapse(3, 8, metrics=["nc4"], buffer_dtype=torch.float16)
    metric.update(1e-20 * far, y, torch.randn(3, 8))
    with pytest.raises(ValueError, match="too large for buffer_dtype"):
        metric.compute()


def test_outside_features_that_are_not_finite():
    outside = torch.randn(4, 6)
    outside[1, 2] = torch.nan
    values = []
    for policy, given in (("skip", outside), ("raise", outside[[0, 2, 3]])):
        metric = NeuralCollapse(3, 6, metrics=["nc5"], nonfinite=policy)
        metric.update(torch.eye(6)[:3].repeat(2, 1), torch.arange(6) % 3)
        metric.update_outside(given)
        values.append(float(metric.compute()["nc5"]))
    assert values[0] == pytest.approx(values[1])
    metric.update_outside(outside)
    with pytest.raises(ValueError, match="1 out-of-distribution samples"):
        metric.compute()
    with pytest.raises(ValueError, match="nc5, which was not selected"):
        NeuralCollapse(3, 6, metrics=["nc1"]).update_outside(outside)


def test_what_is_left_out_is_said():
    metric = NeuralCollapse(3, 6, metrics=["nc1", "nc3", "nc4", "nc5", "minority_cos_means_mean"])
    metric.update(torch.eye(6)[:3].repeat(2, 1), torch.arange(6) % 3)
    assert set(metric.compute()) == {"nc1"}
    left_out = metric.left_out()
    assert left_out["nc3"] == left_out["nc4"] == "no weight was given"
    assert set(left_out) == {"nc3", "nc4", "nc5", "minority_cos_means_mean"}
    metric.update(torch.eye(6)[:3], torch.arange(3), torch.eye(6)[:3])
    assert not {"nc3", "nc4"} & set(metric.left_out())
    assert left_out["minority_cos_means_mean"].startswith("no majority was given")
    metric = NeuralCollapse(3, 6, metrics=["minority_cos_means_mean"], majority=[0, 1])
    metric.update(torch.eye(6)[:3], torch.arange(3))
    assert metric.left_out() == {"minority_cos_means_mean": "there are not two minority classes"}


def test_half_precision_features_are_finite_where_their_sum_is_not():
    generator = torch.Generator().manual_seed(0)
    h, y = (130 + 20 * torch.rand(40, 512, generator=generator)).half(), torch.arange(40) % 2
    assert not h.sum(1).isfinite().any()
    found = []
    for features in (h, h.float()):
        metric = NeuralCollapse(2, 512, metrics=["nc1", "nc5", "nc4_fixed"])
        metric.update(features, y)
        metric.update_outside(features)
        metric.fix_means()
        metric.update(features, y, torch.randn(2, 512, generator=generator.manual_seed(1)).to(features.dtype))
        assert int(metric.decided[0]) == 40
        found.append(metric.compute())
    assert found[0]["nc5"] == found[1]["nc5"]
    assert found[0]["nc1"] == found[1]["nc1"]

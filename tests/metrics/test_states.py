"""What torchmetrics promises of a metric: merge, forward, checkpoint, device, collection, plot."""

import pickle

import matplotlib as mpl
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchmetrics import MetricCollection

from deq_collapse.metrics import NeuralCollapse, geometry
from deq_collapse.metrics.geometry import gof, gram_distance, relu_ce, seli


@pytest.fixture
def data(make):
    features, labels = make([30, 40, 50, 20], 6, 0.3)
    return (
        features,
        labels,
        torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double(),
        torch.ones(4),
    )


def filled(data, rows=slice(None), **kwargs):
    features, labels, weight, bias = data
    metric = NeuralCollapse(4, 6, **kwargs)
    metric.update(features[rows], labels[rows], weight, bias)
    return metric


def same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-9, atol=1e-9)


def test_merge_state_is_one_metric_over_both(data):
    metric = filled(data, slice(0, 50))
    metric.merge_state(filled(data, slice(50, None)))
    same(metric.compute(), filled(data).compute())


def test_forward_gives_the_batch_and_accumulates(data):
    features, labels, weight, bias = data
    metric = NeuralCollapse(4, 6)
    batches = [slice(0, 70), slice(70, None)]
    found = [metric(features[rows], labels[rows], weight, bias) for rows in batches]
    for value, rows in zip(found, batches, strict=True):
        same(value, filled(data, rows).compute())
    same(metric.compute(), filled(data).compute())


@pytest.mark.parametrize("there", ["made", "reset", "forward", "updated", "loaded", "merged"])
def test_inference_mode_leaves_nothing_that_cannot_be_added_to_outside_it(data, there):
    features, labels, weight, bias = data
    half = (features[:70], labels[:70], weight, bias)
    metric = NeuralCollapse(4, 6)
    metric.update_outside(features)
    with torch.inference_mode():
        if there == "made":
            metric = NeuralCollapse(4, 6)
            metric.update_outside(features)
            metric.update(*half)
        elif there == "reset":
            metric.reset()
        elif there == "loaded":
            metric = NeuralCollapse(4, 6)
            metric.persistent(True)
            source = filled(data, slice(0, 70))
            source.persistent(True)
            source.update_outside(features)
            metric.load_state_dict(source.state_dict())
        elif there == "merged":
            metric.merge_state(filled(data, slice(0, 70)))
        else:
            (metric if there == "forward" else metric.update)(*half)
            metric.compute()
    if there == "reset":
        metric.update_outside(features)
        metric.update(*half)
    metric.update_outside(features)
    metric.update(features[70:], labels[70:], weight, bias)
    with torch.inference_mode():
        found = metric.compute()
    expected = filled(data)
    expected.update_outside(features)
    same(found, expected.compute())


def test_update_goes_on_after_compute_and_reset_forgets(data):
    features, labels, weight, bias = data
    metric = filled(data, slice(0, 50))
    metric.compute()
    metric.update(features[50:], labels[50:], weight, bias)
    same(metric.compute(), filled(data).compute())
    metric.reset()
    metric.update(features[:60], labels[:60])
    bare = NeuralCollapse(4, 6)
    bare.update(features[:60], labels[:60])
    same(metric.compute(), bare.compute())


@pytest.mark.parametrize("copy", [lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_their_own_way(data, copy):
    features, labels, weight, bias = data
    metric = filled(data, slice(0, 50))
    other = copy(metric)
    other.update(features[50:], labels[50:], weight, bias)
    same(other.compute(), filled(data).compute())
    same(metric.compute(), filled(data, slice(0, 50)).compute())


def test_a_checkpoint_restores_what_was_counted(data):
    features, labels, weight, bias = data
    metric = filled(data, slice(0, 50))
    assert not metric.state_dict()
    metric.persistent(True)
    restored = NeuralCollapse(4, 6)
    restored.persistent(True)
    restored.load_state_dict(metric.state_dict())
    restored.update(features[50:], labels[50:], weight, bias)
    same(restored.compute(), filled(data).compute())


@pytest.mark.parametrize("cast", ["bfloat16", "half", "float", "double"])
def test_a_module_cast_to_low_precision_leaves_the_sums_alone(data, cast):
    metric = filled(data)
    module = torch.nn.ModuleDict({"metric": metric})
    getattr(module, cast)()
    module.to(torch.bfloat16)
    assert metric.moments.dtype == torch.float64
    same(metric.compute(), filled(data).compute())


def test_buffered_features_do_not_change_with_the_callers_tensor(data):
    features, labels, weight, bias = data
    metric = NeuralCollapse(4, 6)
    reused = features.clone()
    metric.update(reused, labels, weight, bias)
    reused.zero_()
    same(metric.compute(), filled(data).compute())


def test_a_collection_never_mixes_metrics_up(data):
    features, labels, weight, bias = data
    variants = {
        "all": {},
        "nc1": {"metrics": ["nc1"]},
        "cheap": {"metrics": ["cdnv", "nc3"]},
        "samples": {"centre": "samples"},
        "majority": {"majority": [0, 1]},
        "short": {"buffer_dtype": torch.float16},
    }
    collection = MetricCollection({name: NeuralCollapse(4, 6, **kw) for name, kw in variants.items()})
    for rows in (slice(0, 1), slice(1, 60), slice(60, None)):
        collection.update(features[rows], labels[rows], weight=weight, bias=bias)
    found = collection.compute()
    for name, kwargs in variants.items():
        expected = NeuralCollapse(4, 6, **kwargs)
        for rows in (slice(0, 1), slice(1, 60), slice(60, None)):
            expected.update(features[rows], labels[rows], weight, bias)
        for value, number in expected.compute().items():
            key = f"{name}_{value}" if f"{name}_{value}" in found else value
            torch.testing.assert_close(found[key], number, rtol=1e-9, atol=1e-9)


def test_what_is_not_selected_costs_nothing(data):
    whole = filled(data)
    no_scatter = filled(data, metrics=["nc1_trace_ratio", "nc3"])
    assert whole.moments.numel() - no_scatter.moments.numel() == 36
    assert not hasattr(no_scatter, "buffered_features")
    assert not hasattr(no_scatter, "outside")
    assert not hasattr(filled(data, metrics=["nc1"]), "classifier")
    assert list(filled(data, metrics=["nc3", "nc1"]).compute()) == ["nc3", "nc1"]


def test_out_of_distribution_features_give_nc5(data):
    metric = filled(data)
    assert "nc5" not in metric.compute()
    outside = torch.randn(30, 6, generator=torch.Generator().manual_seed(3)).double()
    metric.update_outside(outside[:10])
    metric.update_outside(outside[10:])
    features, labels, _, _ = data
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    expected = torch.cosine_similarity(means, outside.mean(0)[None], dim=1).abs().mean()
    torch.testing.assert_close(metric.compute()["nc5"], expected)
    same({n: v for n, v in metric.compute().items() if n != "nc5"}, filled(data).compute())


def test_class_values(data):
    features, labels, weight, bias = data
    values = filled(data).class_values()
    right = (features @ weight.T + bias).argmax(1) == labels
    expected = torch.stack([right[labels == c].double().mean() for c in range(4)])
    torch.testing.assert_close(values["accuracy"], expected)
    torch.testing.assert_close(values["counts"], torch.bincount(labels, minlength=4).double())
    torch.testing.assert_close(values["norms_weights"], weight.norm(dim=1))
    assert values["cdnv"].mean() == pytest.approx(float(filled(data).compute()["cdnv"]))
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    centred = means - means.mean(0)
    variances = [(features[labels == c] - means[c]).square().sum(1).mean() for c in range(4)]
    torch.testing.assert_close(values["variances"], torch.stack(variances))
    between = centred.square().sum(1).mean()
    torch.testing.assert_close(values["nc1_trace_ratio"], torch.stack(variances) / between)
    torch.testing.assert_close(values["norms_means"], centred.norm(dim=1))
    torch.testing.assert_close(values["gram_means"], centred @ centred.T)
    cosines = torch.cosine_similarity(centred[:, None], centred[None], dim=2)
    torch.testing.assert_close(values["cos_means"], cosines)


def test_class_values_of_classes_that_coincide_or_have_no_samples():
    metric = NeuralCollapse(3, 4, metrics=["nc1_trace_ratio"])
    metric.update(torch.tensor([[1.0], [-1.0]]).repeat(2, 4), torch.tensor([0, 0, 1, 1]))
    assert float(metric.compute()["nc1_trace_ratio"]) == torch.inf
    values = metric.class_values()
    assert values["nc1_trace_ratio"][:2].tolist() == [torch.inf] * 2
    for name in ("variances", "nc1_trace_ratio", "cdnv", "norms_means"):
        assert values[name].isnan().tolist()[2], name


def test_the_training_counts_set_the_targets_of_a_balanced_test_split(data):
    found = filled(data, class_counts=[9, 9, 1, 1], metrics=["seli_weights", "gof_weights"]).compute()
    gram = data[2] @ data[2].T
    same(
        found,
        {
            "seli_weights": gram_distance(gram, seli([9, 9, 1, 1]).weights),
            "gof_weights": gram_distance(gram, gof([9, 9, 1, 1]).weights),
        },
    )


@pytest.mark.parametrize("decays", [(0.0, 0.0), (1e-4, 1e-4)])
@pytest.mark.parametrize("target", ["seli", "gof", "relu_ce"])
def test_a_test_split_that_lacks_a_class_finds_what_is_exact_exact(target, decays):
    counts, K = [90, 40, 20, 8], 4
    weights, means, _ = seli(counts) if target == "seli" else getattr(geometry, target)(counts, *decays)
    root = torch.linalg.eigh(means)
    h = root.eigenvectors * root.eigenvalues.clamp(min=0).sqrt()
    # Rows and means share their basis, so that products are exact too.
    if target == "seli":
        w = torch.linalg.pinv(h, rtol=1e-6).T
    else:
        w = torch.diag(weights.diagonal().sqrt()) @ root.eigenvectors
    if target == "relu_ce":
        d = geometry.relu_ce_diagonals(counts, *decays)
        w = geometry.centred_rows(torch.diag(d.weights.sqrt()) @ root.eigenvectors)
    metric = NeuralCollapse(K, K, class_counts=counts, decays=decays)
    labels = torch.tensor([0, 1, 3, 0, 1, 3])
    metric.update(h[labels], labels, w)
    found = metric.compute()
    for name in ("means", "weights", "logits"):
        assert float(found[f"{target}_{name}"]) == pytest.approx(0, abs=1e-7), name


def test_decays_set_the_targets_of_orthogonal_frames(data):
    counts, decays = torch.bincount(data[1]).tolist(), (1e-3, 2e-3)
    names = ["gof_weights", "relu_ce_weights", "relu_ce_means"]
    found = filled(data, metrics=names, decays=decays).compute()
    gram = data[2] @ data[2].T
    means = torch.stack([data[0][data[1] == c].mean(0) for c in range(4)])
    same(
        found,
        {
            "gof_weights": gram_distance(gram, gof(counts, *decays).weights),
            "relu_ce_weights": gram_distance(gram, relu_ce(counts, *decays).weights),
            "relu_ce_means": gram_distance(means @ means.T, relu_ce(counts, *decays).means),
        },
    )


def test_plot_draws_every_value(data):
    mpl.use("Agg")
    figure, axes = filled(data, metrics=["nc1", "nc3"]).plot()
    assert figure is axes.figure
    assert len(axes.get_lines()) == 2
    mpl.pyplot.close(figure)


@pytest.mark.parametrize("width", [6, 16])
def test_update_never_waits_for_an_accelerator(width):
    # Fake tensors have no values: whoever asks for one, as a wait for the device would, raises.
    metric = NeuralCollapse(5, width, majority=[0])
    with FakeTensorMode():
        for name in ("moments", "classifier"):
            state = getattr(metric, name)
            setattr(metric, name, torch.empty(state.shape, dtype=state.dtype, device="cuda"))
        features, weight = (torch.empty(rows, width, device="cuda") for rows in (64, 5))
        labels = torch.empty(64, dtype=torch.int64, device="cuda")
        for _ in range(2):
            metric.update(features, labels, weight, weight[:, 0])
        with pytest.raises(DataDependentOutputException):
            metric.compute()


@pytest.mark.parametrize("rows", [0, 1])
def test_a_forward_that_raises_takes_nothing_with_it(data, rows):
    features, labels, weight, _ = data
    metric = NeuralCollapse(4, 6)
    metric.update(features, labels, weight)
    expected = metric.compute()
    with pytest.raises(ValueError, match="at least 2 need samples"):
        metric(features[:rows], labels[:rows], weight)
    found = metric.compute()
    assert found == expected
    assert metric(features, labels, weight)["nc1"] == pytest.approx(float(expected["nc1"]))


def test_an_error_while_ranks_share_their_counts_leaves_each_its_own(data):
    features, labels, weight, bias = data

    def twice(state, group=None):
        return [state, state]

    metric = NeuralCollapse(4, 6, dist_sync_fn=twice, distributed_available_fn=lambda: True)
    metric.update(features[:3], labels[:3] * 0, weight, bias)
    with pytest.raises(ValueError, match="at least 2 need samples"):
        metric.compute()
    assert not metric._is_synced
    metric.update(features, labels, weight, bias)
    alone = NeuralCollapse(4, 6)
    alone.update(torch.cat([features[:3], features]), torch.cat([labels[:3] * 0, labels]), weight, bias)
    assert metric.compute()["nc1"] == pytest.approx(float(alone.compute()["nc1"]))


@pytest.mark.parametrize("kind", ["cuda", "mkldnn"])
def test_either_way_of_asking_torch_for_faster_products_is_left_as_it_was(data, kind):
    """`torch.get_float32_matmul_precision` raises after the newer one."""
    matmul = getattr(torch.backends, kind).matmul
    expected, before = filled(data).compute(), matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        same(filled(data).compute(), expected)
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    torch.set_float32_matmul_precision("high")
    try:
        same(filled(data).compute(), expected)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_group_of_a_collection_measures_batches_without_a_classifier_too(data):
    features, labels, weight, _ = data
    both = MetricCollection(
        {"a": NeuralCollapse(4, 6, ["nc4"]), "b": NeuralCollapse(4, 6, ["nc4", "nc1"], weighting="classes")}
    )
    alone = NeuralCollapse(4, 6, ["nc4", "nc1"], weighting="classes")
    for metric in (both, alone):
        metric.update(features=features[:90], labels=labels[:90], weight=weight)
        metric.update(features=features[90:], labels=labels[90:])
    found = both.compute()
    assert found["b_nc1" if "b_nc1" in found else "nc1"] == pytest.approx(float(alone.compute()["nc1"]))


def test_merging_forgets_what_was_computed_and_refuses_other_arguments(data):
    features, labels, weight, _ = data
    one, two = NeuralCollapse(4, 6), NeuralCollapse(4, 6)
    one.update(features[:70], labels[:70], weight)
    before = one.compute()["nc1"]
    two.update(features[70:], labels[70:], weight)
    one.merge_state(two)
    assert one.compute()["nc1"] != before
    with pytest.raises(ValueError, match="cannot be merged"):
        one.merge_state(NeuralCollapse(4, 6, ["nc3"]))


@pytest.mark.parametrize("other", [(4, 7), (5, 6), (3, 8), (4, 6, ["nc3"])])
def test_states_of_other_arguments_are_not_loaded(data, other):
    metric = filled(data)
    before = metric.compute()
    source = NeuralCollapse(*other)
    for each in (metric, source):
        each.persistent(True)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="different arguments have different states; none was loaded"):
            metric.load_state_dict(source.state_dict(), strict=strict)
    metric.update(data[0][:0], data[1][:0])
    assert metric.compute() == before
    with pytest.raises(ValueError, match="cannot be merged"):
        metric.merge_state(source)


@pytest.mark.parametrize(
    "kwargs", [{"buffer_dtype": torch.bfloat16}, {"buffer_limit": 10**6}, {"ignore_index": 3}, {}]
)
def test_what_changes_the_state_separates_the_groups_of_a_collection(data, kwargs):
    # The first batch leaves both states equal; from then on a shared one would be that of the first metric.
    features, labels, weight, _ = data
    both = MetricCollection(
        {"a": NeuralCollapse(4, 6, ["nc4", "cdnv"]), "b": NeuralCollapse(4, 6, ["nc4", "cdnv"], **kwargs)}
    )
    for rows in ((labels < 2).nonzero()[:, 0], (labels >= 0).nonzero()[:, 0]):
        both.update(features=features[rows], labels=labels[rows], weight=weight)
    assert len(both.compute_groups) == (2 if kwargs else 1)


def test_exactly_collapsed_features_never_give_a_negative_value():
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(5, 7, generator=generator)
        labels = torch.arange(5).repeat(3)
        metric = NeuralCollapse(5, 7, ["nc1", "nc1_trace_ratio", "cdnv"])
        metric.update(means[labels], labels)
        assert min(metric.compute().values()) >= 0

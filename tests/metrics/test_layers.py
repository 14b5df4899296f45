"""Collapse along a computation is the collapse of what every module gave, whatever the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from deq_collapse.metrics import LayerwiseCollapse, NeuralCollapse
from deq_collapse.metrics.layers import every, spaced

CLASSES, WIDTH = 3, 6
METRICS = ["nc1", "nc2_etf_means", "cdnv", "nc3", "nc4"]


def loop(dtype=torch.float32):
    """An encoder, a block to be called any number of times, and a classifier."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    parts = {"encoder": nn.Linear(4, WIDTH), "block": block, "head": nn.Linear(WIDTH, CLASSES)}
    return nn.ModuleDict(parts).to(dtype)


def run(model, x, calls):
    """All states: H0 and one per call."""
    states = [model["encoder"](x)]
    for _ in range(calls):
        states.append(model["block"](states[-1]))
    return states


def batches(numbers, dtype=torch.float32):
    """A batch for each number of calls, of different sizes."""
    generator = torch.Generator().manual_seed(1)
    sizes = [7 + 2 * i for i in range(len(numbers))]
    return [
        (torch.randn(n, 4, generator=generator, dtype=dtype), torch.arange(n) % CLASSES, calls)
        for n, calls in zip(sizes, numbers, strict=True)
    ]


def separately(features, labels, classifier, metrics=METRICS):
    metric = NeuralCollapse(CLASSES, features[0].shape[1], metrics)
    for h, y in zip(features, labels, strict=True):
        metric.update(h.detach(), y, *classifier)
    return metric.compute()


def powers_of_two(call):
    return 1 << (call - 1).bit_length()


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=12)
def test_each_point_is_the_metric_of_its_states_and_the_last_state_counts_for_later_points(numbers):
    model, data = loop(), batches(numbers)
    classifier = (model["head"].weight, model["head"].bias)
    with LayerwiseCollapse(model, ["encoder", "block"], CLASSES, METRICS) as layers:
        for x, y, calls in data:
            run(model, x, calls)
            layers.update(y, *classifier)
    points = layers.compute()
    names = [("encoder", 1), *(("block", call + 1) for call in range(max(numbers)))]
    assert [(point.module, point.call) for point in points] == names
    labels = [y for _, y, _ in data]
    for k, point in enumerate(points):
        states = [run(model, x, min(k, calls))[-1] for x, _, calls in data]
        assert same(point.values, separately(states, labels, classifier))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
@settings(max_examples=12)
def test_fewer_points_are_those_of_every_call_and_the_last_call_is_one(numbers):
    model, data = loop(), batches(numbers)
    found = []
    for spacing in (every, powers_of_two):
        with LayerwiseCollapse(model, ["encoder", "block"], CLASSES, METRICS, spacing=spacing) as layers:
            for x, y, calls in data:
                run(model, x, calls)
                layers.update(y, model["head"].weight, model["head"].bias)
        found.append({(point.module, point.call, point.place): point.values for point in layers.compute()})
    whole, spaced_out = found
    kept = {("encoder", 1, 0)} | {
        ("block", call, call) for call in range(1, max(numbers) + 1) if call in (1, 2, 4, 8, 16, max(numbers))
    }
    assert spaced_out.keys() == kept
    assert all(same(values, whole[key]) for key, values in spaced_out.items())


def test_three_hundred_calls_have_some_thirty_points():
    points = sorted({spaced(call) for call in range(1, 301)})
    later = [20, 23, 27, 32, 39, 46, 54, 64, 77, 91, 108, 128, 153, 182, 216, 256, 305]
    assert points == [*range(1, 17), *later]


def test_different_modules_called_in_turn_keep_the_order_of_the_computation():
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    with LayerwiseCollapse(model, ["b", "a"], CLASSES, ["nc1"]) as layers:
        for sequence in ("ab", "aabb", "aaabb"):
            z = torch.randn(9, 4)
            for name in sequence:
                z = model[name](z)
            layers.update(torch.arange(9) % CLASSES)
    found = [(point.module, point.call) for point in layers.compute()]
    assert found == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


@torch.no_grad()
def test_a_torchvision_network_by_its_modules_names():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=CLASSES).eval()
    data = [(torch.randn(8, 3, 32, 32), torch.arange(8) % CLASSES) for _ in range(2)]
    plain = [model(x) for x, _ in data]
    with LayerwiseCollapse(model, ["layer*", "avgpool"], CLASSES, ["nc1", "nc2_etf_means", "nc3"]) as layers:
        for (x, y), logits in zip(data, plain, strict=True):
            assert torch.equal(model(x), logits)
            layers.update(y, model.fc.weight, model.fc.bias)
    names = ["layer1", "layer2", "layer3", "layer4", "avgpool"]
    points = layers.compute()
    assert [(point.module, point.call) for point in points] == [(name, 1) for name in names]
    # The classifier has the width of the last two: only there is NC3 known.
    assert ["nc3" in point.values for point in points] == [False, False, False, True, True]
    maps = [create_feature_extractor(model, names)(x) for x, _ in data]
    for point in points:
        states = [z[point.module].mean((2, 3)) for z in maps]
        classifier = (model.fc.weight, model.fc.bias) if "nc3" in point.values else ()
        metrics = ["nc1", "nc2_etf_means", "nc3"]
        assert same(point.values, separately(states, [y for _, y in data], classifier, metrics))


@pytest.mark.parametrize(
    ("module", "features"),
    [
        (nn.Unflatten(1, (3, 2, 2)), lambda x: x.view(-1, 3, 4).mean(2)),  # a map
        (nn.Unflatten(1, (4, 3)), lambda x: x.view(-1, 4, 3).mean(1)),  # tokens
        (nn.Identity(), lambda x: x),
    ],
)
def test_maps_and_tokens_are_averaged_over_positions(module, features):
    x, y = torch.randn(30, 12), torch.arange(30) % CLASSES
    with LayerwiseCollapse(nn.Sequential(module), ["0"], CLASSES, ["nc1"]) as layers:
        module(x)
        layers.update(y)
    torch.testing.assert_close(layers.compute()[0].values, separately([features(x)], [y], (), ["nc1"]))


def test_a_map_in_bfloat16_is_averaged_in_float32():
    torch.manual_seed(0)
    x, y = torch.randn(60, 3, 8, 8).bfloat16(), torch.arange(60) % CLASSES
    model = nn.Sequential(nn.Identity())
    with LayerwiseCollapse(model, ["0"], CLASSES, ["nc1"]) as layers:
        model(x)
        layers.update(y)
    expected = separately([x.float().mean((2, 3))], [y], (), ["nc1"])
    assert same(layers.compute()[0].values, expected)


def test_a_pool_of_ones_own_makes_the_features():
    x, y = torch.randn(30, 5, 4), torch.arange(30) % CLASSES
    model = nn.Sequential(nn.Identity())
    with LayerwiseCollapse(model, ["0"], CLASSES, ["nc1"], pool=lambda tokens: tokens[:, 0]) as layers:
        model(x)
        layers.update(y)
    assert same(layers.compute()[0].values, separately([x[:, 0]], [y], (), ["nc1"]))


def test_what_a_module_gave_counts_even_if_the_next_one_overwrites_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    x, y = torch.randn(30, 4), torch.arange(30) % CLASSES
    with torch.no_grad(), LayerwiseCollapse(model, ["0", "1"], CLASSES, ["nc1"]) as layers:
        model(x)
        layers.update(y)
        states = [model[0](x), model(x)]
    for point, state in zip(layers.compute(), states, strict=True):
        assert same(point.values, separately([state], [y], (), ["nc1"]))


def test_hooks_are_gone_after_an_exception_and_after_none():
    def hooks(model):
        return [h for m in model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]

    model = loop()
    with LayerwiseCollapse(model, ["block*", "encoder"], CLASSES):
        assert len(hooks(model)) == 3
    assert hooks(model) == []
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        LayerwiseCollapse(model, ["block", "encoder"], CLASSES),
    ):
        model["encoder"](torch.zeros(2, 5))
    assert hooks(model) == []


def test_a_pass_that_was_not_counted_is_forgotten():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4))
    x, y = torch.randn(30, 4), torch.arange(30) % CLASSES
    with LayerwiseCollapse(model, ["0"], CLASSES, ["nc1"]) as layers:
        model(torch.randn(30, 4))
        model(x)
        layers.update(y)
    (point,) = layers.compute()
    assert same(point.values, separately([model(x)], [y], (), ["nc1"]))


def test_batches_may_be_counted_inside_and_outside_inference_mode():
    model, data = loop(), batches([2, 3, 4])
    with LayerwiseCollapse(model, ["block"], CLASSES, ["nc1"]) as layers:
        for i, (x, y, calls) in enumerate(data):
            with torch.inference_mode(i % 2 == 0):
                run(model, x, calls)
                layers.update(y)
    last = layers.compute()[-1]
    states = [run(model, x, calls)[-1] for x, _, calls in data]
    assert same(last.values, separately(states, [y for _, y, _ in data], (), ["nc1"]))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["layr1"], "no module layr1; did you mean layer1"),
        (["layer1.0.conv9"], "did you mean layer1.0.conv"),
        (["*.0.relu.*"], r"no module \*.0.relu.\*; "),
        (["head"], r"no module head; it has conv1, bn1, .*fc"),
        (["layer1", "layer1*0"], r"layer1\*0"),  # * stops at a dot
    ],
)
def test_a_name_that_no_module_has_is_told_with_the_nearest(names, told):
    with pytest.raises(ValueError, match=told) as refusal:
        LayerwiseCollapse(torchvision.models.resnet18(num_classes=2), names, 2)
    assert "\n" not in str(refusal.value)


def test_other_mistakes_are_told_in_one_sentence():
    model = loop()
    with pytest.raises(ValueError, match="unknown metrics"):
        LayerwiseCollapse(model, ["block"], CLASSES, ["nc9"])
    with LayerwiseCollapse(model, ["encoder", "block"], CLASSES) as layers:
        model["encoder"](torch.zeros(2, 4))
        with pytest.raises(ValueError, match="block was not called"):
            layers.update(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="nothing was counted"):
        layers.compute()
    attention = nn.Sequential(nn.LSTM(4, 4, batch_first=True))
    with (
        LayerwiseCollapse(attention, ["0"], CLASSES),
        pytest.raises(
            ValueError, match=r"the output of 0: .*floats are needed, got tuple; `pool` can make them"
        ),
    ):
        attention(torch.zeros(2, 5, 4))


def test_a_batch_refused_at_one_point_is_counted_at_none():
    model, [(x, y, _)] = loop(torch.float64), batches([2], torch.float64)
    room = {"buffer_limit": 8 * WIDTH * len(x)}  # for one batch
    with LayerwiseCollapse(model, ["encoder", "block"], CLASSES, ["cdnv", "nc4"], **room) as layers:
        run(model, x, 2)
        layers.update(y, model["head"].weight)
        before = layers.compute()
        run(model, 2 * x, 3)  # a point more, which is none as long as nothing was counted there
        with pytest.raises(ValueError, match="buffer_limit"):
            layers.update(y, model["head"].weight)
        assert layers.compute() == before


@pytest.mark.parametrize(("spacing", "count"), [(every, 20), (spaced, 18)])
def test_ranks_with_different_numbers_of_calls_give_the_points_of_one_process(spacing, count, tmp_path: Path):
    data = batches([2, 1, 19, 17, 1, 2], torch.float64)
    model = loop(torch.float64)
    classifier = (model["head"].weight.detach(), model["head"].bias.detach())
    arguments = {"num_classes": CLASSES, "metrics": METRICS, "spacing": spacing}
    job = {"model": model, "classifier": classifier, "arguments": arguments}
    # The last rank sees nothing.
    torch.save(job | {"shards": [data[:2], data[2:], []]}, tmp_path / "job.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    worker = Path(__file__).with_name("layers_worker.py")
    # Ranks that wait for each other for ever fail the test instead of holding it.
    subprocess.run([sys.executable, worker, "3", tmp_path], env=environment, timeout=100, check=True)
    with LayerwiseCollapse(model, ["encoder", "block"], **arguments) as layers:
        for x, y, calls in data:
            run(model, x, calls)
            layers.update(y, *classifier)
    expected = [(point.module, point.call, point.values) for point in layers.compute()]
    assert len(expected) == count
    for rank in range(3):
        for points in torch.load(tmp_path / f"rank{rank}.pt"):
            assert [point[:2] for point in points] == [point[:2] for point in expected]
            for (*_, found), (*_, values) in zip(points, expected, strict=True):
                torch.testing.assert_close(found, values, rtol=1e-9, atol=1e-12)

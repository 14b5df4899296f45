"""One call measures a model of one's own as the metric would, and leaves the model as it was."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deq_collapse.metrics import HookedCollapse, LayerwiseCollapse, NeuralCollapse, measure, measure_along


class Network(nn.Module):
    """Its classifier is not the last layer that it registers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head, self.unused = nn.Linear(8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.fixture
def loader() -> DataLoader:
    draw = torch.Generator().manual_seed(1)
    images, labels = torch.randn(40, 1, 4, 4, generator=draw), torch.arange(40) % 3
    return DataLoader(TensorDataset(images, labels, torch.arange(40)), batch_size=7)


def test_one_call_gives_the_values_of_the_metric_in_eval_mode(loader: DataLoader) -> None:
    model = Network()
    images, labels, _ = (torch.cat(parts) for parts in zip(*loader, strict=True))
    metric = NeuralCollapse(3, 8, majority=[0])
    with torch.no_grad():
        metric.update(model.eval().body(images), labels, model.head.weight, model.head.bias)
    expected = metric.compute()
    model.train()
    model.body[3].eval()
    found = measure(model, loader, "head", majority=[0])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], float(value), rtol=1e-5, atol=1e-6, equal_nan=True)
    assert model.training
    assert model.body[4].training
    assert not model.body[3].training
    assert found == measure(model, loader, "head", majority=[0])


def test_the_last_linear_layer_is_the_classifier_where_none_is_named(loader: DataLoader) -> None:
    model = Network()
    other = "the last .* is 'unused', but 'head' is the last one called"
    with pytest.raises(ValueError, match=other):
        measure(model, loader)
    with pytest.raises(ValueError, match=other):
        measure_along(model, loader, ["body.*"])
    with pytest.raises(ValueError, match=r"give \['body.\*'\]"):
        measure_along(model, loader, "body.*", "head")
    del model.unused
    assert measure(model, loader) == measure(model, loader, "head")


def test_a_head_that_is_registered_before_the_body_is_not_taken_for_it(loader: DataLoader) -> None:
    model = Network()
    model.body, model.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), model.body  # the names say nothing
    model.forward = lambda x: model.body(model.head(x))
    del model.unused
    with pytest.raises(ValueError, match=r"is 'head\.1', but 'body\.1' is the last one called"):
        measure(model, loader)


def test_nothing_stays_on_the_model(loader: DataLoader) -> None:
    model = Network()
    measure(model, loader, "head")
    measure_along(model, loader, ["body.*"], "head")
    with pytest.raises(ValueError, match="labels"):
        measure(model, [(torch.ones(2, 1, 4, 4), torch.tensor([0, 7]))], "head")
    assert not [part for part in model.modules() if part._forward_pre_hooks or part._forward_hooks]
    metric = HookedCollapse(model.head)
    assert model.head._forward_pre_hooks
    metric.unhook()
    assert not model.head._forward_pre_hooks


def test_along_named_modules_the_last_place_has_the_models_own_values(loader: DataLoader) -> None:
    model = Network()
    found = measure_along(model, loader, ["body.*"], "head")
    assert list(found) == [f"body.{place}" for place in range(5)]
    assert found["body.4"]["nc1"] == pytest.approx(measure(model, loader, "head")["nc1"], rel=1e-6)
    assert "nc3" in found["body.4"]
    assert "nc3" not in found["body.0"]
    with torch.no_grad(), LayerwiseCollapse(model.eval(), ["body.1"], num_classes=3) as layers:
        for images, labels, _ in loader:
            model(images)
            layers.update(labels, model.head.weight, model.head.bias)
    (point,) = layers.compute()
    assert found["body.1"]["nc1"] == pytest.approx(float(point.values["nc1"]), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "batch", "name", "words"),
    [
        (nn.Conv2d(1, 3, 4), (torch.ones(2, 1, 4, 4), torch.arange(2)), None, "no torch.nn.Linear"),
        (Network(), (torch.ones(2, 1, 4, 4), torch.arange(2)), "haed", "there are 'body.1', 'head'"),
        (Network(), {"x": 1}, "head", "got dict"),
        (Network(), ((1, 2), torch.arange(2)), "head", "inputs are a tensor, got tuple"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    model: nn.Module, batch: object, name: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        measure(model, [batch], name)
    assert model.training

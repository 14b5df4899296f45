"""The metric where others expect a number, or hand over predictions alone."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection, MetricTracker
from torchmetrics.classification import MulticlassAccuracy

from deq_collapse.metrics import CollapseValue, HookedCollapse, NeuralCollapse


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.fixture
def batches():
    x, y = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    return list(zip(x.split(20), y.split(20), strict=True))


def expected(model, batches, **kwargs):
    metric = NeuralCollapse(3, 4, **kwargs)
    for x, y in batches:
        metric.update(model[:-1](x), y, model[-1].weight, model[-1].bias)
    return metric.compute()


def test_one_value_is_a_number_and_that_of_the_whole_metric(model, batches):
    values = expected(model, batches)
    for name in ("nc1", "nc3", "nc4"):
        metric = CollapseValue(name, 3, 4, centre="classes")
        for x, y in batches:
            metric.update(model[:-1](x), y, model[-1].weight, model[-1].bias)
        assert metric.compute() == values[name]
    bare = CollapseValue("nc3", 3, 4)
    bare.update(torch.eye(4)[:3], torch.arange(3))
    with pytest.raises(ValueError, match="nc3 cannot be known: no weight was given"):
        bare.compute()
    with pytest.raises(ValueError, match="unknown metrics"):
        CollapseValue("nc9", 3, 4)


def test_a_tracker_finds_the_best_of_one_value():
    tracker = MetricTracker(CollapseValue("nc1", 3, 4), maximize=False)
    generator = torch.Generator().manual_seed(0)
    for noise in (0.5, 0.1, 0.3):
        tracker.increment()
        labels = torch.arange(60) % 3
        tracker.update(torch.eye(4)[labels] + noise * torch.randn(60, 4, generator=generator), labels)
    best, step = tracker.best_metric(return_step=True)
    assert step == 1
    assert best == pytest.approx(float(tracker.compute_all()[1]))


def test_a_collection_by_position_measures_what_the_classifier_received(model, batches):
    both = MetricCollection([MulticlassAccuracy(3), HookedCollapse(model[-1])])
    for x, y in batches:
        both.update(model(x), y)
    found, values = both.compute(), expected(model, batches)
    for name, value in values.items():
        assert found[name] == value, name
    both.reset()
    x, y = batches[0]
    assert both(model(x), y)["nc1"] == pytest.approx(float(expected(model, batches[:1])["nc1"]))


def test_a_classifier_that_is_called_by_keyword_is_heard(batches):
    x, y = batches[0]
    classifier = nn.Linear(x.shape[1], 3)
    metric = HookedCollapse(classifier, metrics=["nc1"])
    metric(classifier(input=x), y)
    assert metric.compute()["nc1"] == metric(classifier(x), y)["nc1"]


def test_a_batch_is_counted_once_and_only_after_a_pass(model, batches):
    metric = HookedCollapse(model[-1])
    x, y = batches[0]
    model(x)
    metric.update(None, y)
    with pytest.raises(ValueError, match="not called since the last update"):
        metric.update(None, y)
    with pytest.raises(ValueError, match=r"weight of shape \(K, d\)"):
        HookedCollapse(nn.ReLU())


def test_the_classifier_is_not_part_of_the_metric_and_copies_listen_to_it_too(model, batches):
    metric = HookedCollapse(model[-1])
    other = metric.clone()
    assert not list(metric.parameters())
    x, y = batches[0]
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        each(x)
    model(x)
    metric.update(None, y)
    other.update(None, y)
    assert metric.compute() == other.compute()
    pair = pickle.loads(pickle.dumps((model, metric)))
    pair[0](x)
    pair[1].update(None, y)
    assert pair[1].compute()["nc1"] == metric.compute()["nc1"]


def test_a_copied_model_is_not_heard(model, batches):
    metric = HookedCollapse(model[-1])
    twin = copy.deepcopy(model)
    twin(batches[0][0])
    with pytest.raises(ValueError, match="not called"):
        metric.update(None, batches[0][1])


class Logged(LightningModule):
    """Logs one value as Lightning logs a metric: by its object."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.nc1 = CollapseValue("nc1", 3, 4)

    def validation_step(self, batch, index):
        x, y = batch
        self.nc1.update(self.model[:-1](x), y)
        self.log("nc1", self.nc1)


def test_lightning_logs_one_value_over_the_whole_epoch(model, batches):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    trainer, module = Trainer(accelerator="cpu", devices=1, **quiet), Logged(model)
    for _ in range(2):  # it is reset after each
        (logged,) = trainer.validate(module, DataLoader(TensorDataset(x, y), 20), verbose=False)
        assert logged["nc1"] == pytest.approx(float(expected(model, batches)["nc1"]), rel=1e-5)

"""The table of a run's values."""

import pytest
import torch
from lightning.pytorch import Callback
from torch.nn import functional as F

from deq_collapse.callbacks import History
from deq_collapse.metrics import NeuralCollapse


def test_the_table_is_tidy(finished):
    table = finished.history
    assert list(table.columns) == ["epoch", "step", "split", "metric", "value"]
    assert not table.duplicated(["epoch", "split", "metric"]).any()
    assert set(table["split"]) == {"train", "test", "fit"}
    assert table["epoch"].is_monotonic_increasing
    assert table["value"].notna().all()
    steps = len(finished.data.train_dataloader())
    assert (table["step"] == table["epoch"] * steps).all()


def test_fit_values_lie_at_every_epoch_and_measures_where_they_are_scheduled(finished):
    table = finished.history
    epochs = table.groupby("split")["epoch"].unique().map(list).to_dict()
    assert epochs == {"fit": [1, 2, 3, 4, 5], "train": [1, 2, 4, 5], "test": [1, 2, 4, 5]}


def test_every_epoch_measured_has_the_same_metrics(finished):
    table = finished.history
    table = table[table["split"] != "fit"]
    assert (table.groupby(["split", "metric"]).size() == 4).all()
    assert {"nc1", "nc2_etf_means", "nc3", "nc4", "accuracy_minority", "loss"} <= set(table["metric"])


def test_the_learning_rate_written_is_the_one_the_epoch_trained_with(finished):
    table = finished.history
    rates = table[table["metric"] == "learning_rate"]["value"].tolist()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    expected = []
    for _ in range(5):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(rates, expected)


class Losses(Callback):
    """Adds up each epoch's losses by hand."""

    def __init__(self):
        self.epochs: dict[int, list[tuple[float, int]]] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pair = (float(outputs["loss"]), len(batch[1]))
        self.epochs.setdefault(trainer.current_epoch + 1, []).append(pair)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(ready, tmp_path):
    watch = Losses()
    run = ready(tmp_path, "explicit", epochs=3, watching=[watch])
    run.trainer.fit(run.module, run.data)
    by_hand = {
        e: sum(v * n for v, n in pairs) / sum(n for _, n in pairs) for e, pairs in watch.epochs.items()
    }
    assert run.callback(History).curve("fit", "loss") == pytest.approx(by_hand)


@torch.no_grad()
def test_the_last_rows_are_what_a_plain_loop_over_the_final_network_gives(finished):
    network = finished.module.network.eval()
    values = finished.callback(History).values("train")
    metric = NeuralCollapse(
        10, network.num_features, majority=finished.data.majority, class_counts=finished.data.class_counts
    )
    images, labels = finished.data.train_set
    h = network.features(finished.data.normalise(images))
    metric.update(h, labels, network.classifier.weight, network.classifier.bias)
    for name, value in metric.compute().items():
        torch.testing.assert_close(values[name], float(value), rtol=1e-4, atol=1e-6)
    logits = network.classifier(h)
    torch.testing.assert_close(values["loss"], float(F.cross_entropy(logits, labels)), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(values["error"], float((logits.argmax(1) != labels).double().mean()))


def test_a_solvers_conduct_is_told_for_an_equilibrium_and_for_no_other(finished):
    fit = finished.callback(History).values("fit")
    solver = {f"{d}_{m}" for d in ("forward", "backward") for m in ("evaluations", "residual", "unconverged")}
    if finished.refinement == "equilibrium":
        assert solver <= fit.keys()
        assert fit["forward_unconverged"] == fit["backward_unconverged"] == 0
        assert 0 < fit["forward_residual"] <= 1e-4
        assert 1 < fit["forward_evaluations"] < 40
        assert 0 < finished.callback(History).values("test")["residual"] <= 1e-5
    else:
        assert not solver & fit.keys()


def test_curves_are_read_by_epoch():
    history = History()
    history.rows = [
        (1, 10, "train", "nc1", 0.5),
        (2, 20, "train", "nc1", float("nan")),
        (4, 40, "train", "nc1", 0.1),
    ]
    assert history.curve("train", "nc1") == {1: 0.5, 4: 0.1}
    assert history.values("train") == {"nc1": 0.1}
    assert history.values("test") == {}

"""What a run leaves behind."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy

from deq_collapse.callbacks import History
from deq_collapse.callbacks.record import solver, summary
from deq_collapse.metrics import NeuralCollapse


def read(run):
    return json.loads((run.directory / "result.json").read_text())


def test_a_finished_run_leaves_these_files_and_no_drafts(finished):
    left = {path.name for path in finished.directory.iterdir()}
    assert left - {"predictions.csv"} == {
        "environment.json",
        "geometry.npz",
        "history.csv",
        "last.ckpt",
        "manifest.json",
        "result.json",
    }


def test_the_record_says_what_the_run_was(finished):
    record = read(finished)
    network = finished.module.network
    expected = {
        "name": "digits-" + finished.refinement,
        "axes": {"refinement": finished.refinement},
        "study": "study",
        "dataset": "digits",
        "class_counts": [139] * 3 + [13] * 7,
        "majority": [0, 1, 2],
        "epochs": 5,
        "steps": 5 * len(finished.data.train_dataloader()),
        "parameters": network.parameter_counts(),
    }
    assert {key: record[key] for key in expected} == expected
    assert record["flops_per_image"] > 0
    assert record["activation_bytes"] > 0


def test_the_records_measures_are_the_tables_last(finished):
    record, table = read(finished), finished.history
    for split in ("train", "test"):
        last = table[(table["split"] == split) & (table["epoch"] == 5)]
        assert record[split] == pytest.approx(dict(zip(last["metric"], last["value"], strict=True)))
    nc1 = table[(table["split"] == "train") & (table["metric"] == "nc1")]["value"].tolist()
    assert record["nc1_fall"] == pytest.approx(nc1[0] / nc1[-1])


def test_only_an_equilibrium_has_a_solver(finished):
    solver = read(finished)["solver"]
    if finished.refinement == "explicit":
        assert solver is None
    else:
        assert (solver["gradient"], solver["tolerance"]) == ("ift", 1e-4)
        assert solver["unconverged"] == solver["unconverged_worst_epoch"] == 0


def test_the_worst_epoch_of_a_solver_is_kept_beside_the_last(finished):
    history = History()
    history.rows = [
        (epoch, epoch, "fit", "forward_unconverged", share) for epoch, share in ((1, 0.02), (2, 0.0))
    ]
    found = solver(finished.module, history)
    if finished.refinement == "explicit":
        assert found is None
        return
    assert (found["unconverged"], found["unconverged_worst_epoch"]) == (0, 0.02)
    nothing = solver(finished.module, History())
    assert nothing["unconverged"] is nothing["unconverged_worst_epoch"] is None


def test_no_batch_is_larger_than_asked_for_and_convolutions_are_exact(ready, tmp_path):
    sizes = []
    run = ready(tmp_path, "equilibrium", epochs=1)
    run.data.eval_batch_size = 100
    run.module.network.encoder.register_forward_hook(lambda _, images, __: sizes.append(len(images[0])))
    torch.backends.cudnn.allow_tf32 = True
    run.trainer.fit(run.module, run.data)
    assert max(sizes) <= 128  # that of training
    assert len(np.load(tmp_path / "geometry.npz")["test_features"]) > 128
    assert not torch.backends.cudnn.allow_tf32


@torch.no_grad()
def test_the_geometry_is_that_of_the_final_network(finished):
    arrays = np.load(finished.directory / "geometry.npz")
    network, data = finished.module.network.eval(), finished.data
    assert set(arrays) == {
        "class_means_train",
        "class_means_test",
        "weight",
        "bias",
        "test_features",
        "test_labels",
        "class_names",
        "majority",
    }
    np.testing.assert_array_equal(arrays["weight"], network.classifier.weight)
    np.testing.assert_array_equal(arrays["bias"], network.classifier.bias)
    for split, (images, labels) in (("train", data.train_set), ("test", data.source.test)):
        h = network.features(data.normalise(images)).double()
        means = torch.stack([h[labels == c].mean(0) for c in range(10)])
        np.testing.assert_allclose(arrays[f"class_means_{split}"], means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["test_features"], h, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(arrays["test_labels"], labels)
    assert arrays["class_names"].tolist() == list(data.class_names)
    assert arrays["majority"].tolist() == [0, 1, 2]


def test_the_terminal_phase_begins_with_the_first_epoch_without_error(finished):
    history = History()
    rows = {1: (0.5, 2.0), 2: (0.0, 1.0), 4: (0.1, 0.5), 5: (0.0, 0.25)}
    for epoch, (error, nc1) in rows.items():
        history.rows += [(epoch, epoch, "train", "error", error), (epoch, epoch, "train", "nc1", nc1)]
    told = summary(finished.module, finished.data, history)
    assert told["terminal_epoch"] == 2
    assert told["nc1_fall"] == 8
    history.rows = [row for row in history.rows if row[4] != 0]
    assert summary(finished.module, finished.data, history)["terminal_epoch"] is None


def test_a_value_that_is_not_finite_is_written_as_null(finished):
    history = History()
    history.rows = [(1, 1, "train", "nc1", float("nan")), (1, 1, "test", "nc3", float("inf"))]
    told = summary(finished.module, finished.data, history)
    assert told["train"] == {"nc1": None}
    assert told["test"] == {"nc3": None}
    assert told["nc1_fall"] is None
    json.dumps(told, allow_nan=False)


class Stop(Callback):
    """A user's Ctrl-C amid the third epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_leaves_no_record_but_its_checkpoint(ready, tmp_path):
    run = ready(tmp_path, "explicit", watching=[Stop()])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run.trainer.fit(run.module, run.data)
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "last.ckpt").exists()
    assert run.history["epoch"].max() == 2


def test_predictions_are_a_table_in_the_order_of_the_test_split(finished, capsys):
    predicted = finished.trainer.predict(finished.module, finished.data)
    table = pd.read_csv(finished.directory / "predictions.csv")
    assert list(table.columns) == ["label", "predicted", "probability"]
    assert table["label"].tolist() == finished.data.source.test.labels.tolist()
    assert table["predicted"].tolist() == torch.cat([batch["predicted"] for batch in predicted]).tolist()
    assert table["probability"].between(0.1, 1).all()  # the largest of ten
    accuracy = (table["label"] == table["predicted"]).mean()
    assert accuracy == pytest.approx(finished.callback(History).values("test")["accuracy"])
    assert "predictions.csv" in capsys.readouterr().out


def test_testing_the_final_weights_gives_the_logged_values(finished):
    (tested,) = finished.trainer.test(finished.module, finished.data, verbose=False)
    logged = finished.callback(History).values("test")
    assert {name.removeprefix("test/"): value for name, value in tested.items()} == pytest.approx(logged)


@pytest.mark.parametrize(
    ("refinement", "precision"),
    [("equilibrium", "64-true"), ("explicit", "16-true"), ("explicit", "bf16-true")],
)
def test_in_any_precision_the_record_holds_what_the_network_gives(ready, tmp_path, refinement, precision):
    run = ready(tmp_path, refinement, epochs=1, precision=precision, limit_train_batches=1)
    run.trainer.fit(run.module, run.data)
    record, network = read(run), run.module.network.eval()
    dtype = next(network.parameters()).dtype
    assert dtype == {"64": torch.float64, "16": torch.float16, "bf16": torch.bfloat16}[precision[:-5]]
    truth = NeuralCollapse(10, network.num_features, ["nc1"])
    losses = []
    with torch.no_grad():
        for x, y in run.data.val_dataloader()["train"]:
            h = network.features(x.to(dtype))
            truth.update(h.double(), y, network.classifier.weight.double())
            losses.append(cross_entropy(network.classifier(h).double(), y, reduction="none"))
    assert record["train"]["nc1"] == pytest.approx(float(truth.compute()["nc1"]), rel=1e-5)
    assert record["train"]["loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert record["flops_per_image"] > 0
    with np.load(tmp_path / "geometry.npz") as arrays:
        assert arrays["weight"] == pytest.approx(network.classifier.weight.detach().double().numpy())
        assert np.isfinite(arrays["test_features"]).all()
    run.trainer.predict(run.module, run.data)
    assert pd.read_csv(tmp_path / "predictions.csv").probability.between(0.1, 1).all()

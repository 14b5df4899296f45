"""Collapse along the computation: what is measured at each point, and when the table is there."""

import json
from functools import partial

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from deq_collapse.callbacks import Along
from deq_collapse.data import CollapseDataModule, Digits, Step
from deq_collapse.errors import UserError
from deq_collapse.metrics import NeuralCollapse
from deq_collapse.metrics.layers import spaced
from deq_collapse.models import Cell, CollapseModule, ConvCell, ConvEncoder, Equilibrium, Explicit, MDEQCell

TOLERANCE = 1e-6
QUIET = {"accelerator": "cpu", "logger": False, "enable_model_summary": False, "enable_progress_bar": False}
BLOCK = partial(ConvCell, lipschitz=None)


class Pull(Cell):
    """A contraction that takes long for few samples: batches stop after different numbers of evaluations.

    A solver drops the samples that are done, so a sample's bits must not depend on its batch. Those of a
    matrix product, and on some processors of ``pow(8)``, do; sums, products and squares by element do not.
    """

    def __init__(self, shape):
        super().__init__()
        matrix = torch.randn(shape[0], shape[0])
        self.matrix = nn.Parameter(0.95 * matrix / torch.linalg.matrix_norm(matrix, 2))

    def forward(self, z, h0):
        gain = (100 * h0.flatten(1).sum(1) % 1).square().square().square()[:, None, None, None]
        pulled = sum(column[:, None, None] * z[:, c, None] for c, column in enumerate(self.matrix.T))
        return torch.tanh(h0 + gain * pulled)


class Own(nn.Module):
    """A refinement that nothing is known of."""

    def __init__(self, shape):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(shape[0], shape[0], 1) for _ in range(2)))
        self.unused = nn.Identity()
        self.pair = nn.LSTM(shape[2], shape[2], batch_first=True)
        self.far = nn.Identity()

    def forward(self, h0):
        self.pair(h0[:, 0])
        self.far(h0 / 0)
        return self.layers(h0)


def parts(refinement):
    """A network that was never trained, its data in batches of unequal difficulty, and a trainer."""
    torch.manual_seed(0)
    data = CollapseDataModule(Digits(), Step(3, 10.0), eval_batch_size=30)
    module = CollapseModule(
        encoder=partial(ConvEncoder, width=6, depth=2),
        refinement=refinement,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        image_shape=data.image_shape,
        class_counts=data.class_counts,
        majority=data.majority,
    )
    return Trainer(**QUIET), module, data


def values(table, split, evaluations):
    rows = table[(table["split"] == split) & (table["evaluations"] == evaluations)]
    return dict(zip(rows["metric"], rows["value"], strict=True))


@torch.no_grad()
def assert_points(table, module, data, states):
    """The table holds what is measured of states computed one by one, of every state up to the 16th, and no
    point more.
    """
    network = module.network.eval()
    for split, loader in data.val_dataloader().items():
        batches = [(states(network, network.encoder(x)), y) for x, y in loader]
        last = max(len(zs) for zs, _ in batches)
        kept = [k for k in range(last) if k in (0, spaced(k), last - 1)]
        assert list(table[table["split"] == split]["evaluations"].unique()) == kept
        for k in kept:
            metric = NeuralCollapse(10, 6, values(table, split, k).keys(), data.majority, data.class_counts)
            for zs, y in batches:
                h = network.readout(zs[min(k, len(zs) - 1)])
                metric.update(h, y, network.classifier.weight, network.classifier.bias)
            assert values(table, split, k) == {name: float(v) for name, v in metric.compute().items()}


def layer_by_layer(network, h0):
    zs = [h0]
    for block in network.refinement.blocks:
        zs.append(block(zs[-1], h0))
    return zs


def iterate_by_iterate(network, h0):
    """Plain iteration, where a sample that has reached the tolerance stays put."""
    z, zs = torch.zeros_like(h0), [h0]
    done = torch.zeros(len(h0), dtype=torch.bool)
    while not done.all():
        new = network.refinement.cell(z, h0)
        step, size = (v.flatten(1).norm(dim=1) for v in (new - z, new))
        z = torch.where(done[:, None, None, None], z, new)
        zs.append(z)
        done |= step / size <= TOLERANCE
    return zs


def test_an_explicit_network_block_by_block():
    trainer, module, data = parts(partial(Explicit, block=BLOCK, depth=2))
    table = Along().measure(trainer, module, data)
    assert list(table["module"].unique()) == ["encoder", "refinement.blocks.0", "refinement.blocks.1"]
    assert {"nc1", "nc2_etf_means", "nc3", "minority_cos_means_mean"} <= set(table["metric"])
    assert_points(table, module, data, layer_by_layer)


def test_an_equilibrium_iterate_by_iterate():
    solve = partial(Equilibrium, cell=Pull, solver="fixed_point_relative", eval_tol=TOLERANCE)
    trainer, module, data = parts(solve)
    table = Along().measure(trainer, module, data)
    assert module.network.encoder.training
    module.eval()  # what follows is to move no running statistics
    assert set(table["module"]) == {"encoder", "refinement.iterate"}
    calls = {
        len(iterate_by_iterate(module.network, module.network.encoder(x)))
        for x, _ in data.val_dataloader()["train"]
    }
    assert len(calls) > 1, "all batches stop alike: this would test nothing"
    assert max(calls) > 18, "no solve is so long that not every iterate is measured"
    assert_points(table, module, data, iterate_by_iterate)


@pytest.mark.parametrize("refinement", [partial(Explicit, depth=2, tied=True), Equilibrium])
def test_states_of_several_scales_are_measured_as_the_features_that_they_give(refinement):
    kind = "block" if isinstance(refinement, partial) else "cell"
    trainer, module, data = parts(partial(refinement, **{kind: partial(MDEQCell, groups=2)}))
    trainer.validate(module, data, verbose=False)
    table = Along().measure(trainer, module, data)
    last = values(table, "train", table["evaluations"].max())
    assert {"nc1", "nc3"} <= last.keys()
    measured = {name: float(trainer.callback_metrics[f"train/{name}"]) for name in last}
    assert last == pytest.approx(measured, rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_the_last_point_is_what_validation_measures_in_any_precision(precision):
    _, module, data = parts(partial(Explicit, block=BLOCK, depth=2))
    trainer = Trainer(**QUIET, precision=precision)
    trainer.validate(module, data, verbose=False)
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    table = Along().measure(trainer, module, data)
    for split in ("train", "test"):
        last = values(table, split, 2)
        assert last == {name: measured[f"{split}/{name}"] for name in last}


def test_a_refinement_of_ones_own_is_watched_at_its_end_or_where_it_is_told():
    trainer, module, data = parts(Own)
    table = Along().measure(trainer, module, data)
    assert table[["evaluations", "module"]].drop_duplicates().values.tolist() == [
        [0, "encoder"],
        [1, "refinement"],
    ]
    names = ["encoder.0", "encoder.5", "refinement.layers.*"]
    table = Along(names).measure(trainer, module, data)
    points = table[table["split"] == "train"][["evaluations", "module"]].drop_duplicates()
    assert points.values.tolist() == [
        [-2, "encoder.0"],
        [-1, "encoder.5"],
        [0, "encoder"],
        [1, "refinement.layers.0"],
        [2, "refinement.layers.1"],
    ]
    assert values(table, "train", -1) == values(table, "train", 0)  # the encoder's last layer gives H0


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["refinement.layer.*"], "no module refinement.layer.*; did you mean refinement.layer"),
        (["refinement.unused"], "refinement.unused cannot be watched"),
        (["classifier"], "classifier cannot be watched"),
        (["refinement.pair"], "the output of refinement.pair: .*got tuple"),
    ],
)
def test_a_module_that_cannot_be_watched_is_told_before_the_fit(names, told):
    _, module, data = parts(Own)
    with pytest.raises(UserError, match=told) as refusal:
        Along(names).check(module.network, data.image_shape)
    assert "\n" not in str(refusal.value)
    assert module.network.training


@pytest.fixture(scope="module", params=["explicit", "equilibrium"])
def whole(request, ready, tmp_path_factory):
    """A run fitted without a break."""
    run = ready(tmp_path_factory.mktemp("along"), request.param, epochs=2, watching=[Along()])
    run.trainer.fit(run.module, run.data)
    return run


def test_the_last_point_is_what_the_run_itself_measured(whole):
    table = pd.read_csv(whole.directory / "along.csv")
    assert list(table.columns) == ["split", "evaluations", "module", "metric", "value"]
    assert not table.duplicated(["split", "evaluations", "metric"]).any()
    record = json.loads((whole.directory / "result.json").read_text())
    for split in ("train", "test"):
        last = values(table, split, table[table["split"] == split]["evaluations"].max())
        # The run's NC1 may be summed in another way, which rounds in float32.
        assert last == pytest.approx({name: record[split][name] for name in last}, rel=1e-6)


class Killed(Exception):  # noqa: N818
    pass


class Kill(Callback):
    """Raises when all is done but the record."""

    def on_fit_end(self, trainer, pl_module):
        raise Killed


def test_the_table_is_there_before_the_record_and_a_run_killed_between_them_leaves_the_same(
    whole, ready, tmp_path
):
    killed = ready(tmp_path, whole.refinement, epochs=2, watching=[Along(), Kill()])
    with pytest.raises(Killed):
        killed.trainer.fit(killed.module, killed.data)
    expected = (whole.directory / "along.csv").read_bytes()
    assert (tmp_path / "along.csv").read_bytes() == expected
    assert not (tmp_path / "result.json").exists()
    (tmp_path / "along.csv").unlink()
    goes_on = ready(tmp_path, whole.refinement, epochs=2, watching=[Along()])
    goes_on.trainer.fit(goes_on.module, goes_on.data, ckpt_path=tmp_path / "last.ckpt")
    assert (tmp_path / "result.json").exists()
    assert (tmp_path / "along.csv").read_bytes() == expected


def test_a_point_without_finite_features_costs_the_table_and_not_the_run(tmp_path):
    _, module, data = parts(Own)
    along = Along(["refinement.far"])
    along.check(module.network, data.image_shape)
    quick = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer = Trainer(**QUIET, **quick, default_root_dir=tmp_path, callbacks=[along])
    with pytest.warns(UserWarning, match=r"along.csv is not written: refinement.far, call 1: .* non-finite"):
        trainer.fit(module, data)
    assert not (tmp_path / "along.csv").exists()

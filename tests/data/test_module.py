"""What a run sees: through real Trainers, from the first epoch to a resumed one."""

from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer

from deq_collapse.data import Balanced, CollapseDataModule, CropFlip, Digits, Step
from deq_collapse.errors import UserError

# Lightning 2.6 on torch 2.14; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

CONF = Path(__file__).parents[2] / "conf" / "data"


class Diary(LightningModule):
    """Writes down the training images of every step, by the checksum of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen: list[tuple[int, float, tuple[int, ...]]] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((self.current_epoch, float(x.double().sum()), tuple(y.tolist())))
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def digits(**changes) -> CollapseDataModule:
    return CollapseDataModule(Digits(), **{"imbalance": Balanced(n_max=20), "batch_size": 64} | changes)


def trainer(folder: Path, **changes) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    changes.setdefault("callbacks", [])
    changes.setdefault("enable_checkpointing", False)
    return Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **changes)


def test_every_epoch_sees_every_image_once_in_a_new_order(tmp_path):
    diary = Diary()
    trainer(tmp_path, max_epochs=3).fit(diary, datamodule=digits())
    epochs = [[labels for at, _, labels in diary.seen if at == epoch] for epoch in range(3)]
    assert [len(batches) for batches in epochs] == [4, 4, 4]  # 200 images: 64 + 64 + 64 + 8
    orders = {tuple(label for batch in batches for label in batch) for batches in epochs}
    assert len(orders) == 3
    assert all(sorted(order) == sorted([*range(10)] * 20) for order in orders)


class Keep(Callback):
    """Saves a checkpoint at every moment at which Lightning's ModelCheckpoint may."""

    def save(self, trainer, when):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{when}-{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, *_):
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self.save(trainer, "epoch")


@pytest.mark.parametrize(
    "checkpoint",
    ["batch-1", "batch-4", "batch-6", "batch-8", "validation-4", "validation-8", "epoch-4", "epoch-8"],
)
def test_a_resumed_run_sees_what_the_unbroken_run_sees(tmp_path, checkpoint):
    whole, rest = Diary(), Diary()
    crop = CropFlip(padding=1)
    trainer(tmp_path, max_epochs=3, callbacks=[Keep()]).fit(whole, datamodule=digits(augment=crop))
    path = tmp_path / f"{checkpoint}.ckpt"
    trainer(tmp_path, max_epochs=3).fit(rest, datamodule=digits(augment=crop), ckpt_path=path)
    assert rest.seen == whole.seen[int(checkpoint.split("-")[1]) :]


def test_a_limit_on_the_batches_of_an_epoch_does_not_carry_over_to_the_next(tmp_path):
    diary = Diary()
    trainer(tmp_path, max_epochs=2, limit_train_batches=2).fit(diary, datamodule=digits())
    data = digits()
    for epoch in range(2):
        batches = data.train_dataloader()
        batches.sampler.set_epoch(epoch)
        first_two = [tuple(y.tolist()) for _, y in batches][:2]
        assert [labels for at, _, labels in diary.seen if at == epoch] == first_two


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "at least 1 image"),
        ({"eval_batch_size": 0}, "at least 1"),
        ({"seed": -1}, "not negative"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        digits(**arguments)


def test_what_is_measured_on_is_clean_and_unchanged_by_the_imbalance():
    data = digits(imbalance=Step(3, 10), augment=CropFlip(padding=1))
    train, test = data.val_dataloader()
    assert torch.cat([y for _, y in train]).bincount().tolist() == list(data.class_counts)
    assert torch.cat([y for _, y in test]).equal(data.source.test.labels)
    mean, std = data.source.mean_and_std
    expected = (data.train_set.images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(torch.cat([x for x, _ in train]), expected.float(), rtol=1e-5, atol=1e-5)
    assert data.majority == (0, 1, 2)


@pytest.mark.parametrize("name", ["cifar10", "digits", "fashion_mnist"])
def test_every_shipped_source_gives_a_data_module_with_the_run_seed(name):
    config = CONF / f"{name}.yaml"
    parser = ArgumentParser(parser_mode="omegaconf+")
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=int)
    parser.add_class_arguments(CollapseDataModule, "data")
    data = parser.instantiate(parser.parse_args(["--config", str(config), "--seed_everything", "3"])).data
    assert isinstance(data, CollapseDataModule)
    assert data.source.name == config.stem
    assert data.seed == 3

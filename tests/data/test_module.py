"""What a run sees: through real Trainers, from the first epoch to a resumed one."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch._subclasses.fake_tensor import FakeTensorMode

from deq_collapse.data import (
    Balanced,
    CollapseDataModule,
    CropFlip,
    Cutout,
    Digits,
    GaussianMixture,
    ImageSet,
    Natural,
    Resampled,
    Shuffled,
    Step,
)
from deq_collapse.data.augment import Mixup
from deq_collapse.data.batches import EpochOrder, EvaluationBatches, Shard, TrainingBatches
from deq_collapse.errors import UserError

# Lightning 2.6 on torch 2.14; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")


class Diary(LightningModule):
    """Writes down the training images of every step, by the checksum of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen: list[tuple[int, float, tuple]] = []

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
    options = {"augment": CropFlip(padding=1), "mixup": 0.5, "sampler": Resampled(from_epoch=1)}
    trainer(tmp_path, max_epochs=3, callbacks=[Keep()]).fit(whole, datamodule=digits(**options))
    path = tmp_path / f"{checkpoint}.ckpt"
    trainer(tmp_path, max_epochs=3).fit(rest, datamodule=digits(**options), ckpt_path=path)
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
        ({"mixup": 0.0}, "mixup is 0, .* mixup > 0"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        digits(**arguments)


def test_what_is_measured_on_is_clean_and_unchanged_by_the_imbalance():
    data = digits(imbalance=Step(3, 10), augment=CropFlip(padding=1))
    train, test = data.val_dataloader().values()
    assert torch.cat([y for _, y in train]).bincount().tolist() == list(data.class_counts)
    assert torch.cat([y for _, y in test]).equal(data.source.test.labels)
    mean, std = data.source.mean_and_std
    expected = (data.train_set.images.double() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(torch.cat([x for x, _ in train]), expected.float(), rtol=1e-5, atol=1e-5)
    assert data.majority == (0, 1, 2)


def test_what_is_measured_on_is_never_mixed_or_resampled():
    data = digits(mixup=1.0, sampler=Resampled(), imbalance=Step(3, 10))
    assert all(
        y.dtype == torch.int64 and y.shape == x.shape[:1]
        for loader in data.val_dataloader().values()
        for x, y in loader
    )
    assert torch.cat([y for _, y in data.val_dataloader()["train"]]).bincount().tolist() == list(
        data.class_counts
    )
    labels = torch.cat([y for _, y in data.train_dataloader()])
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(len(labels)))
    # Of every class a tenth, where 139 of the first and 13 of the last are there.
    torch.testing.assert_close(labels.mean(0), torch.full((10,), 0.1), atol=0.005, rtol=0)


def test_all_data_at_once_are_not_copied():
    data = digits(imbalance=Natural())
    assert data.train_set.images is data.source.train.images


@pytest.mark.parametrize("lying", ["cuda", "cpu"])
def test_batches_are_made_on_the_device_wherever_the_images_lie(lying):
    data = digits(augment=[CropFlip(padding=1), Cutout(3)])
    labels, normalise, device = data.train_set.labels, data.normalise, torch.device("cuda")
    # Fake tensors have devices but no values: an operation on tensors of two devices raises, as on a GPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = ImageSet(*(part.to(lying) for part in data.train_set))
        order = EpochOrder(labels, Shuffled(), 0, Shard())
        training = TrainingBatches(there, order, 64, normalise, data.augment, Mixup(0.2, 10), device)
        evaluation = EvaluationBatches(there, 64, normalise, Shard(), device)
        for batches in (training, evaluation):
            assert {part.device.type for batch in batches for part in batch} == {"cuda"}


def test_images_move_to_a_device_that_has_room_for_them():
    data = digits().train_set
    moved = data.resident(torch.device("meta"))
    assert {part.device.type for part in moved} == {"meta"}
    assert data.resident(torch.device("mps")) is data  # nothing is known of its memory


@pytest.mark.parametrize("changes", [{"augment": CropFlip()}, {"augment": [Cutout()]}])
def test_vectors_are_not_cropped_and_the_run_leaves_nothing(changes, tmp_path):
    data = CollapseDataModule(GaussianMixture(3, 4), Balanced(), **changes)
    with pytest.raises(UserError, match=r"the samples here have the shape \(4,\)"):
        trainer(tmp_path / "run", max_epochs=1).fit(Diary(), datamodule=data)
    assert not (tmp_path / "run").exists()


def test_the_images_held_out_are_the_same_under_every_imbalance_and_never_trained_on():
    held_out = None
    for imbalance in (Balanced(n_max=100), Step(num_majority=3, ratio=10, n_max=100), Natural(n_max=50)):
        data = digits(imbalance=imbalance, validation=30, seed=4)
        labels = data.source.train.labels
        assert labels[data.validation_indices].bincount().tolist() == [30] * 10
        assert not torch.isin(data.validation_indices, data.indices).any()
        assert held_out is None or torch.equal(held_out, data.validation_indices)
        held_out = data.validation_indices
    assert not torch.equal(held_out, digits(validation=30, seed=5).validation_indices)


def test_a_class_must_have_images_for_both():
    with pytest.raises(UserError, match="class 0 has 0 beside those trained on: lower n_max"):
        _ = digits(imbalance=Natural(), validation=5).validation_indices
    with pytest.raises(UserError, match="at least 1 image per class"):
        digits(validation=0)


class Splits(Diary):
    """Counts the samples that each validation epoch sees of each split."""

    def on_validation_epoch_start(self):
        self.counted = dict.fromkeys(self.trainer.val_dataloaders, 0)
        self.epochs = [*getattr(self, "epochs", []), self.counted]

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.counted[list(self.counted)[dataloader_idx]] += len(batch[1])


def test_the_test_split_is_looked_at_after_the_last_epoch_only(tmp_path):
    module, data = Splits(), digits(validation=10)
    trainer(tmp_path, max_epochs=3, num_sanity_val_steps=0).fit(module, datamodule=data)
    tested = len(data.source.test.labels)
    assert [epoch["test"] for epoch in module.epochs] == [0, 0, tested]
    assert all(epoch["train"] == 200 and epoch["validation"] == 100 for epoch in module.epochs)

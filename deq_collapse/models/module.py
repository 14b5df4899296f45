"""The LightningModule: trains the network and measures its collapse. Wiring only."""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import SGD

from deq_collapse import fit_end
from deq_collapse.errors import UserError
from deq_collapse.losses import Criterion, CriterionFactory, CrossEntropy
from deq_collapse.losses.trial import check_loss
from deq_collapse.metrics.functional.imbalance import FEW, MANY
from deq_collapse.models.alternatives import Alternatives
from deq_collapse.models.cells import ConvCell, Shape
from deq_collapse.models.classifiers import linear_map
from deq_collapse.models.device import check_compiler, prepare_device
from deq_collapse.models.encoders import ConvEncoder
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.explicit import Explicit
from deq_collapse.models.lr_schedules import follow, monitored
from deq_collapse.models.measures import SplitMeasures, class_groups, divergence_told, precise
from deq_collapse.models.network import ClassifierFactory, EncoderFactory, Network, RefinementFactory, make
from deq_collapse.models.readouts import GlobalAverage
from deq_collapse.runs.files import SPLITS

CONTRACTION: RefinementFactory = partial(Equilibrium, cell=ConvCell)
USUAL_SGD: OptimizerCallable = partial(SGD, lr=0.05, momentum=0.9, weight_decay=5e-3)
"""Default of `CollapseModule.for_data`: the optimizer of ``conf/model/common.yaml``."""


class Facts(Protocol):
    """What a network must know about its data; a `CollapseDataModule` provides it."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one sample."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images per class."""

    @property
    def majority(self) -> tuple[int, ...] | None:
        """The majority classes of a step imbalance, else ``None``."""


class CollapseModule(LightningModule):
    """Trains encoder, refinement and classifier; measures the clean training and other splits in eval mode.

    Validation loaders are a dictionary by split: ``train``, optionally ``validation``, and ``test``. Image
    shape, class counts and majority come from the data module; the command line links them.

    Args:
        encoder: image x -> H0; the same for the branches that are compared.
        refinement: H0 -> feature map: ``Explicit``, ``Equilibrium``, or one of your own;
            ``torch.nn.Identity`` for the encoder alone.
        optimizer: takes the parameters.
        lr_scheduler: takes the optimizer; stepped once per epoch. Lightning's ``ReduceLROnPlateau`` is
            stepped after epochs that measured the value it monitors.
        readout: feature map -> features h (N, d).
        classifier: takes d and K.
        criterion: takes the class counts.
        metrics: names of the collapse metrics to measure; ``null`` for all cheap ones.
        decays: of the classifier and of the features of one sample in the loss, for the GOF and ReLU targets
            that ``gof_*`` and ``relu_ce_*`` measure; ``null`` for their limit as decays vanish.
        many: without step imbalance, classes with more training images are "many" in the reported accuracies.
        few: classes with fewer are "few", those in between "medium".
        tau: exponent of the tau-normalised classifier, whose accuracy on the test split is reported, too.
        channels_last: see :class:`~deq_collapse.models.network.Network`.
        compile: compile the encoder and the refinement (of an equilibrium, the cell) with ``torch.compile``.
            The first steps take a minute or two, so it suits long runs; on a CPU it needs a C++ compiler.
        image_shape: channels, height and width of an image.
        class_counts: training images per class.
        majority: majority classes of a step imbalance, else ``null``.
    """

    def __init__(
        self,
        encoder: EncoderFactory,
        refinement: RefinementFactory,
        optimizer: OptimizerCallable,
        image_shape: Shape,
        class_counts: tuple[int, ...],
        lr_scheduler: LRSchedulerCallable | None = None,
        readout: nn.Module | None = None,
        classifier: ClassifierFactory = nn.Linear,
        criterion: CriterionFactory = CrossEntropy,
        metrics: Sequence[str] | None = None,
        decays: tuple[float, float] | None = None,
        majority: tuple[int, ...] | None = None,
        many: int = MANY,
        few: int = FEW,
        tau: float = 1.0,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.optimizer = _Shared(optimizer)
        self.lr_scheduler = None if lr_scheduler is None else _Shared(lr_scheduler)
        num_classes = len(class_counts)
        self.network = Network(
            image_shape,
            num_classes,
            encoder,
            refinement,
            readout or GlobalAverage(),
            classifier,
            channels_last,
        )
        self.criterion = make("criterion", criterion, class_counts)
        check_loss(self.criterion, num_classes)
        if isinstance(self.criterion, Criterion):
            self.criterion.check(self.network.classifier)
        self.groups = class_groups(class_counts, majority, many, few)
        measured = (
            num_classes,
            self.network.num_features,
            class_counts,
            majority,
            metrics,
            self.groups,
            decays,
        )
        try:
            self.measures = nn.ModuleDict({f"{split}_split": SplitMeasures(*measured) for split in SPLITS})
        except ValueError as error:
            raise UserError(f"model.metrics and model.decays: {error}.") from error
        if not 0 <= tau < math.inf:
            raise UserError(
                f"model.tau is {tau}, but the exponent of a tau-normalised classifier is at least 0."
            )
        self.alternatives = Alternatives(num_classes, tau)
        self.compiled = compile
        self.class_means: dict[str, Tensor] = {}
        self.confusions: dict[str, Tensor] = {}
        self._train_means: Tensor | None = None  # of the current weights
        self._measured = False  # in this epoch

    @classmethod
    def for_data(
        cls,
        data: Facts,
        *,
        encoder: EncoderFactory = ConvEncoder,
        refinement: RefinementFactory = CONTRACTION,
        optimizer: OptimizerCallable = USUAL_SGD,
        **options: Any,
    ) -> "CollapseModule":
        """Makes a module for a data module's images and classes, in plain Python.

        ``refinement=partial(Explicit, block=ConvCell)`` makes the explicit twin of the default.

        Args:
            data: provides image shape, class counts and majority.
            encoder: makes the encoder from the image shape; a class or a ``partial`` of one.
            refinement: makes the refinement from the shape of H0.
            optimizer: makes the optimizer from the parameters; by default that of the shipped configurations.
            options: further arguments of the class.

        Raises:
            UserError: if the parts do not fit the images or each other.

        Example:
            >>> from deq_collapse.data import CollapseDataModule, Digits, Step
            >>> data = CollapseDataModule(Digits(), Step(num_majority=3, ratio=10))
            >>> module = CollapseModule.for_data(data, encoder=partial(ConvEncoder, width=8))
            >>> module(torch.zeros(2, 1, 8, 8)).shape
            torch.Size([2, 10])

        """
        return cls(
            encoder,
            refinement,
            optimizer,
            image_shape=data.image_shape,
            class_counts=data.class_counts,
            majority=data.majority,
            **options,
        )

    def setup(self, stage: str) -> None:
        """Converts the weights to the trainer's precision, turns TF32 off, and compiles if requested.

        Raises:
            UserError: on a device without float64, without the compiler that the device needs, and for an
                explicit refinement with a Jacobian term.
        """
        device = self.trainer.strategy.root_device.type
        prepare_device(device)
        # Lightning converts only after it has loaded a checkpoint, which would round 64-bit weights to 32
        # bits.
        self.trainer.precision_plugin.convert_module(self)
        if self.compiled:
            refinement = self.network.refinement
            if isinstance(refinement, Explicit) and refinement.jacobian_weight:
                raise UserError(
                    "model.compile and the jacobian_weight of an explicit refinement exclude each other: the"
                    " term needs a second derivative, which compiled code does not have."
                )
            check_compiler(device)
            # Each batch size on its own: with dynamic=None the gradients of a smaller last batch were 25% off
            # for a ConvCell in channels_last (torch 2.14.1 on a CPU).
            torch._dynamo.config.recompile_limit = 32  # sizes, each with and without a gradient
            self.network.compile(dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The criterion on one batch, logged as ``fit/loss``, plus the refinement's Jacobian term if it has a
        weight; the term is logged unweighted as ``fit/jacobian``.
        """
        x, y = batch
        options: dict[str, Any] = {"on_epoch": True, "on_step": False, "sync_dist": True}
        options["batch_size"] = len(y)
        loss: Tensor = self.criterion(precise(self(x)), y)
        self.log("fit/loss", loss, **options)
        refinement = self.network.refinement
        if isinstance(refinement, Equilibrium | Explicit) and refinement.jacobian is not None:
            self.log("fit/jacobian", refinement.jacobian, **options)
            loss = loss + refinement.jacobian_weight * refinement.jacobian
        return loss

    def on_train_epoch_start(self) -> None:
        """Passes the epoch to the criterion, and discards the class means, which belong to older weights."""
        self._tell_epoch()
        self._train_means, self._measured = None, False

    def on_train_epoch_end(self) -> None:
        """Steps a schedule that follows a measure, if it was taken in this epoch.

        Lightning would do so after saving the checkpoint, and a run resumed from there would miss the step.
        """
        for config in self.trainer.lr_scheduler_configs:
            name = monitored(config.scheduler)
            if name is not None and (self._measured or name.partition("/")[0] not in SPLITS):
                follow(config.scheduler, self.trainer.callback_metrics)

    def on_validation_epoch_start(self) -> None:
        """Starts new measures, with the criterion's state for this epoch, also for an average of weights."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._tell_epoch()
        self._reset_measures()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Counts a batch of one split."""
        split = tuple(self.trainer.val_dataloaders or SPLITS)[dataloader_idx]
        if split == "test" and batch_idx == 0 and self._split("train").comparable():
            with divergence_told("train", self.trainer.global_step):
                self._train_means = self._split("train").class_means()
        self._measure(split, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs all measures of the splits counted."""
        for split in self.measured():
            self._log_measures(split)
        self._measured = not self.trainer.sanity_checking

    def on_test_epoch_start(self) -> None:
        """Starts new measures."""
        self._reset_measures()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Counts a batch of the test split."""
        self._measure("test", batch)

    def on_test_epoch_end(self) -> None:
        """Logs all measures of the test split."""
        self._log_measures("test")

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Labels (N,), predicted classes (N,) and their probabilities (N,)."""
        x, y = batch
        probability, predicted = precise(self(x)).softmax(1).max(1)
        return {"label": y, "predicted": predicted, "probability": probability}

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters, and its schedule.

        Raises:
            UserError: for a schedule that follows a measure without naming it.
        """
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return [optimizer], []
        schedule = self.lr_scheduler(optimizer)
        monitor = monitored(schedule)
        if monitor is None:
            return [optimizer], [schedule]
        # Lightning does not step it: see `on_train_epoch_end`.
        return [optimizer], [{"scheduler": schedule, "monitor": monitor, "frequency": sys.maxsize}]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the weights of another architecture.

        Raises:
            UserError: if names or shapes differ.
        """
        ours = {name: tuple(value.shape) for name, value in self.state_dict().items()}
        theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
        differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if differing:
            name = differing[0]
            raise UserError(
                f"the checkpoint is of another architecture: {name} is {theirs.get(name, 'absent')} there and"
                f" {ours.get(name, 'absent')} in this model ({len(differing)} tensors differ in all);"
                " use the config.yaml beside the checkpoint."
            )

        self.class_means = checkpoint.get("class_means", {})
        self.confusions = checkpoint.get("confusions", {})
        self._train_means = checkpoint.get("train_means")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the latest class means and confusion matrices, so that a run killed after its last epoch can
        still be recorded.
        """
        checkpoint["class_means"] = self.class_means
        checkpoint["confusions"] = self.confusions
        checkpoint["train_means"] = self._train_means

    def measured(self) -> tuple[str, ...]:
        """The splits with samples counted since the last reset."""
        return tuple(split for split in SPLITS if self._split(split).loss.update_called)

    def measure_names(self, split: str) -> list[str]:
        """Names of the values that every measurement of a split logs, such as ``nc1``."""
        solved = hasattr(self.network.refinement, "forward_solve")
        beside = ["accuracy_tau", "accuracy_ncm"] if split == "test" else []
        return self._split(split).names(solved) + beside

    def largest_residual(self, split: str) -> Tensor:
        """The largest residual over the samples of a split measured so far, over all ranks."""
        residual: Tensor = self._split(split).residual.compute()
        return residual

    def _tell_epoch(self) -> None:
        if isinstance(self.criterion, Criterion):
            epochs = fit_end.length(self.trainer, int(self.trainer.num_training_batches))
            self.criterion.at_epoch(self.current_epoch, epochs)

    def _split(self, split: str) -> SplitMeasures:
        measures = self.measures[f"{split}_split"]
        assert isinstance(measures, SplitMeasures)
        return measures

    def _measure(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        h = self.network.features(x)
        logits = precise(self.network.classifier(h))
        solve = getattr(self.network.refinement, "forward_solve", None)
        self._split(split).update(h, logits, y, self.criterion(logits, y), self.network.classifier, solve)
        if split == "test":
            self.alternatives.update(h, y, linear_map(self.network.classifier)[0], self._train_means)

    def _log_measures(self, split: str) -> None:
        measures = self._split(split)
        if not measures.comparable():  # the one batch of fast_dev_run, if samples are sorted by class
            return
        with divergence_told(split, self.trainer.global_step):
            values = measures.compute()
            self.class_means[split] = measures.class_means()
        self.confusions[split] = measures.confusion.compute().clone()
        if split == "test":
            values |= self.alternatives.compute()
        self.log_dict({f"{split}/{name}": value for name, value in values.items()}, add_dataloader_idx=False)
        measures.reset()

    def _reset_measures(self) -> None:
        for split in SPLITS:
            self._split(split).reset()
        self.alternatives.reset()


class _Shared:
    """Makes an optimizer or a schedule, for a module and its copies: the command line's makers hold the
    parser, which cannot be copied.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __call__(self, of: Any) -> Any:
        return self._make(of)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self

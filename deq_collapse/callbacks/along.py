"""Collapse along the computation of a trained network: at H0, and after every evaluation of a block."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from deq_collapse.callbacks.averaging import settle
from deq_collapse.callbacks.root_device import on_its_device
from deq_collapse.data import CollapseDataModule
from deq_collapse.errors import UserError
from deq_collapse.metrics.layers import LayerwiseCollapse, spaced
from deq_collapse.metrics.modes import evaluating
from deq_collapse.metrics.taps import Pool, Taps, average, named_modules
from deq_collapse.models.classifiers import linear_map
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.explicit import Explicit
from deq_collapse.models.module import CollapseModule
from deq_collapse.models.network import Network
from deq_collapse.models.unfolded import Unfolded
from deq_collapse.runs.along import COLUMNS, write_along
from deq_collapse.runs.files import ALONG

H0 = "encoder"
"""The module of a network whose output is point 0."""


class Along(Callback):
    """Writes ``along.csv`` at the end of a fit: split, evaluations, module, metric, value; one row per value.

    It takes one pass over each split in eval mode. ``evaluations`` is 0 at H0 and increases by one with each
    call of a watched module; calls before H0, inside the encoder, are negative. Of a module's calls, the
    iterates of a solver, the first 16 are measured, then four for each doubling, and the last, so that three
    hundred take the memory and time of some thirty. Features are the readout of the state there, so that the
    last ones are the classifier's input.

    Args:
        modules: names or patterns of other modules to watch, such as ``refinement.layers.*``. ``null``
            watches every block of an explicit refinement, every iterate of an equilibrium's solver or of an
            unfolded refinement, and the output of any other.
    """

    def __init__(self, modules: list[str] | None = None) -> None:
        self.modules = modules

    def check(self, network: Network, image_shape: Sequence[int]) -> None:
        """Finds a mistake before the fit, not after it.

        Raises:
            UserError: see `places`.
        """
        with evaluating(network):
            places(network, self.modules, torch.zeros(1, *image_shape))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, and writes the table."""
        if trainer.interrupted or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, CollapseModule)
        assert isinstance(data, CollapseDataModule)
        settle(trainer, pl_module)
        try:
            table = self.measure(trainer, pl_module, data)
        except ValueError as error:  # e.g. non-finite features: no reason to lose the run
            rank_zero_warn(f"{ALONG} is not written: {error}")
            return
        if trainer.is_global_zero:
            write_along(table, Path(trainer.default_root_dir))

    @torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]  # else hooks would be passed by
    @torch.no_grad()
    def measure(self, trainer: Trainer, module: CollapseModule, data: CollapseDataModule) -> pd.DataFrame:
        """Returns the table, over all ranks of the trainer, on its device and in its precision.

        Raises:
            UserError: see `places`.
            ValueError: if collapse cannot be measured on the features.
        """
        network = module.network
        with on_its_device(trainer, module), evaluating(network):
            with trainer.precision_plugin.forward_context():
                (image,) = _moved(trainer, torch.zeros(1, *data.image_shape))
                names, pool = places(network, self.modules, image)
            rows = [
                (split, *row)
                for split, batches in data.val_dataloader().items()
                for row in _measure(trainer, network, data, names, pool, batches)
            ]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(
    trainer: Trainer,
    network: Network,
    data: CollapseDataModule,
    names: Sequence[str],
    pool: Pool,
    batches: Any,
) -> Iterator[tuple[int, str, str, float]]:
    weight, bias = linear_map(network.classifier)
    with LayerwiseCollapse(
        network,
        names,
        data.num_classes,
        pool=pool,
        spacing=spaced,
        majority=data.majority,
        class_counts=data.class_counts,
    ) as layers:
        for batch in batches:
            x, y = _moved(trainer, *batch)
            with trainer.precision_plugin.forward_context():
                network.features(x)
                layers.update(y, weight, bias)
    points = layers.compute()
    start = next(point.place for point in points if point.module == H0)
    for point in points:
        for metric, value in point.values.items():
            yield point.place - start, point.module, metric, float(value)


def _moved(trainer: Trainer, *parts: Tensor) -> tuple[Tensor, ...]:
    converted = trainer.precision_plugin.convert_input(parts)
    return tuple(part.to(trainer.strategy.root_device) for part in converted)


@torch.no_grad()
def places(network: Network, patterns: Sequence[str] | None, images: Tensor) -> tuple[list[str], Pool]:
    """Where a network is watched, and how features are made there.

    Args:
        network: in eval mode; `images` pass through it once.
        patterns: see `Along`.
        images: (N, C, H, W).

    Returns:
        Names of modules, H0's first; and the network's readout, for states of the shape it takes or of that
        which an explicit refinement's blocks work on. States of another shape, e.g. inside the encoder, are
        averaged over positions.

    Raises:
        UserError: for a name that no module has, a module that is not called, or one without features.
    """
    h0 = network.encoder(images)
    readout, shape = deepcopy(network.readout), network.refinement(h0).shape[1:]
    stack = network.refinement if isinstance(network.refinement, Explicit) else None
    inside = stack.lift(h0).shape[1:] if stack else None
    # A copy, as of the readout, since calls of its modules for features are none of the network's.
    stack = deepcopy(stack) if inside != h0.shape[1:] else None

    def pool(state: Any) -> Tensor:
        if stack and isinstance(state, Tensor) and state.shape[1:] == inside:
            state = stack.output(state)
        if isinstance(state, Tensor) and state.shape[1:] == shape:
            features: Tensor = readout(state)
            return features
        return average(state)

    try:
        watched = named_modules(network, blocks(network.refinement) if patterns is None else patterns)
        names = list(dict.fromkeys([H0, *watched]))
        named = {H0, *watched} if patterns is None else {H0, *patterns}
        # Matches of a pattern that give no features, such as containers of blocks, are left out.
        giving = _called(network, names, lambda state: _features(state, pool), images)
        kept = [name for name in names if name in named | giving]
        called = _called(network, kept, pool, images)
    except ValueError as error:
        raise UserError(f"modules watched along the computation: {error}") from error
    idle = [name for name in kept if name not in called] or ([] if called - {H0} else names[1:])
    if idle:
        raise UserError(
            f"{idle[0]} cannot be watched along the computation: no pass to the features calls it."
        )
    return kept, pool


def _called(network: Network, names: Sequence[str], pool: Pool, images: Tensor) -> set[str]:
    """The modules that a pass calls and that give features."""
    with Taps(network, names, pool) as taps:
        network.features(images)
        return {name for name, features in taps.take() if features.numel()}


def _features(state: Any, pool: Pool) -> Tensor:
    """Features, empty if the state has none."""
    try:
        return pool(state)
    except ValueError:
        return torch.empty(0)


def blocks(refinement: nn.Module) -> list[str]:
    """The modules of a network whose calls are evaluations of a block of its refinement."""
    if isinstance(refinement, Equilibrium | Unfolded):
        return ["refinement.iterate"]
    if isinstance(refinement, Explicit):
        return ["refinement.blocks.*"]
    return ["refinement"]

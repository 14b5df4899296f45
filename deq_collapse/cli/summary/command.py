"""``deq-collapse summary``: the costs of the model that a configuration describes, or of several branches."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from deq_collapse.cli.summary.branch import measure
from deq_collapse.cli.summary.table import cost_table, remarks
from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.files import is_configuration
from deq_collapse.config.run import lightning_main
from deq_collapse.config.sources import made_once
from deq_collapse.data import Source
from deq_collapse.errors import UserError

USAGE = "deq-collapse summary --config FILE [--config FILE ...] [--branch FILE ...] [--KEY VALUE ...]"
DESCRIPTION = (
    "Prints parameters, FLOPs and activation memory, by part, of the model that the configuration makes;"
    " nothing is trained or written. Each --branch FILE in turn takes its place as one more --config: the"
    " branches stand side by side, with their differences from the first."
)


class SummaryCLI(CollapseCLI):
    """Builds data and model as a run would, but nothing that trains or writes.

    Args:
        sources: data sets loaded by other branches, by class and arguments; this one adds its own.
    """

    def __init__(self, sources: dict[str, Source], *args: Any, **kwargs: Any) -> None:
        self.sources = sources
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """The parser, with the texts of this command."""
        return super().init_parser(**kwargs | {"usage": USAGE, "description": DESCRIPTION})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds all arguments of a fit, so that the configuration of any run is accepted."""
        super().add_arguments_to_parser(parser)
        parser.add_method_arguments(Trainer, "fit", skip=set(self.subcommands()["fit"]))

    def before_instantiate_classes(self) -> None:
        """Finds the checkpoint, drops everything that writes, and reads no data set twice."""
        self._resolve_checkpoint()
        self.settings.trainer.logger = self.settings.trainer.callbacks = None
        self.parser.add_instantiator(self._source, Source)

    def _source(self, kind: type[Source], *args: Any, **kwargs: Any) -> Source:
        return made_once(self.sources, kind, *args, **kwargs)

    def instantiate_classes(self) -> None:
        """Builds only data and model."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = self.config_init.data, self.config_init.model
        if self.settings.ckpt_path:
            checkpoint = torch.load(self.settings.ckpt_path, map_location="cpu", weights_only=True)
            self.model.on_load_checkpoint(checkpoint)
            self.model.load_state_dict(checkpoint["state_dict"])


def summary_main(args: Sequence[str]) -> int:
    """Prints the costs; returns the exit code.

    Raises:
        UserError: for every mistake in the configuration.
    """
    branches = []
    make = partial(SummaryCLI, {})
    for name, arguments in split_branches(args):
        cli = lightning_main(arguments, make, run=False)
        branches.append(measure(name or cli.settings.name, cli.model.network, cli.datamodule))
    console, table = Console(highlight=False), cost_table(branches)
    # A truncated number would be worse than a line that the terminal wraps.
    width = max(console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    Console(width=width).print(table)
    for remark in remarks(branches):
        console.print(remark)
    return 0


def split_branches(args: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of each branch: its ``--branch FILE`` becomes ``--config FILE``, others are dropped.

    A branch is named after its file's stem, with its folder if stems are the same. Without ``--branch`` there
    is one branch without a name.

    Raises:
        UserError: for a branch without a file.
    """
    shared: list[str] = []
    branches: list[tuple[int, str]] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag != "--branch":
            shared.append(arg)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise UserError("--branch needs a configuration file.")
        branches.append((len(shared), value))
    if not branches:
        yield "", shared
    files = [value for _, value in branches if not is_configuration(value)]
    alike = len({Path(file).stem for file in files}) < len(files)
    for number, (place, value) in enumerate(branches, 1):
        path = Path(value)
        name = f"{path.parent.name}/{path.stem}" if alike else path.stem
        if is_configuration(value):
            name = f"branch {number}"
        yield name, [*shared[:place], "--config", value, *shared[place:]]

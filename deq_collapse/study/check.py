"""Finds mistakes in a study before its first run: every cell is parsed, every kind of cell is built."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from deq_collapse.callbacks import check_whole
from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.files import expand_parts, sentence
from deq_collapse.config.run import lightning_main
from deq_collapse.config.sources import made_once
from deq_collapse.data import Source
from deq_collapse.errors import UserError
from deq_collapse.runs.files import CONFIG, MANIFEST, RESULT
from deq_collapse.runs.reading import read_json
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.identity import check_same, content_hash
from deq_collapse.study.plan import Planned, arguments


def check_study(study: StudyFile) -> list[Planned]:
    """Resolves every cell, compares it with an existing run in its directory, and builds what a missing run
    would build, once for cells that differ only in their seed.

    Raises:
        UserError: for the first mistake, naming the cell; nothing is written.
    """
    cli = lightning_main(arguments(study, study.cells[0]), partial(_Checking, study))
    assert isinstance(cli, _Checking)
    for first, second in same(cli.planned, cli.data):
        print(
            f"deq-collapse: {first.name} and {second.name} are one and the same run: the label in which they"
            " differ changes nothing.",
            file=sys.stderr,
        )
    return cli.planned


def same(planned: Sequence[Planned], data: Sequence[str]) -> list[tuple[Planned, Planned]]:
    """Pairs of cells with the same resolved configuration: the first, and another one.

    Args:
        planned: the cells.
        data: the data set of each with its place, which a hash leaves out.
    """
    firsts: dict[tuple[str, str], Planned] = {}
    keyed = [((cell.hash, source), cell) for cell, source in zip(planned, data, strict=True)]
    return [(first, cell) for key, cell in keyed if (first := firsts.setdefault(key, cell)) is not cell]


class _Checking(CollapseCLI):
    """One command line, hence one parser, for all cells of a study; it runs nothing.

    Args:
        study: the study to check.
    """

    def __init__(self, study: StudyFile, *args: Any, **kwargs: Any) -> None:
        self.study = study
        self.planned: list[Planned] = []
        self.data: list[str] = []
        self._cell = study.cells[0]
        self._built: set[str] = set()
        self._made: dict[str, Source] = {}
        self._sources: dict[str, Source] = {}
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses a cell's configuration; errors name the cell."""
        with _named(self._cell):
            super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Does nothing yet: the cells are checked one by one when a run would start."""

    def instantiate_classes(self) -> None:
        """Does nothing yet."""

    def _check_other_run(self) -> None:
        """Does nothing: `check_same` compares, and a run may start or end in another process meanwhile."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Checks all cells."""
        self.parser.add_instantiator(self._source, Source)
        for cell in self.study.cells:
            self._check(cell)

    def _check(self, cell: Cell) -> None:
        directory, self._cell = self.study.directory / cell.name, cell
        self.parse_arguments(self.parser, expand_parts(arguments(self.study, cell)))
        epochs = self.settings.trainer.max_epochs
        if not epochs or epochs < 1:
            raise UserError(
                f"the run {cell.name} cannot start: trainer.max_epochs is {epochs}, but a run of a study has"
                " an end: at least 1 epoch."
            )
        if self.settings.trainer.fast_dev_run:
            raise UserError(
                f"the run {cell.name} cannot start: trainer.fast_dev_run leaves no record, and a study is"
                " made of them; try the run out by `deq-collapse fit`."
            )
        with _named(cell):
            check_whole(self.settings.trainer)
        config = yaml.safe_load(self._parser("fit").dump(self.settings, skip_none=False))
        if (directory / CONFIG).exists():
            check_same(directory, self.completed(directory / CONFIG), config)
        self.planned.append(Planned(cell.name, cell.axes, content_hash(config), epochs))
        self._source_key = json.dumps(config["data"]["source"], sort_keys=True)
        self.data.append(self._source_key)
        seedless = config | {"seed_everything": 0, "data": config["data"] | {"seed": 0}}
        kind = content_hash(seedless) + self._source_key
        if kind not in self._built and not (directory / RESULT).exists():
            self._built.add(kind)
            with _named(cell):
                super().before_instantiate_classes()
                super().instantiate_classes()
        _check_data(directory, self._sources.get(self._source_key))

    def _source(self, kind: type[Source], *args: Any, **kwargs: Any) -> Source:
        """Makes a data set once for all cells. One that takes another is made last, and is the cell's."""
        self._sources[self._source_key] = made = made_once(self._made, kind, *args, **kwargs)
        return made


@contextmanager
def _named(cell: Cell) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"the run {cell.name} cannot start: {error}") from error
    except Exception as error:  # from a user's part, or from Lightning
        reason = f"{type(error).__name__}: {sentence(str(error))}"
        raise UserError(f"the run {cell.name} cannot start: {reason}") from error


def _check_data(directory: Path, source: Source | None) -> None:
    """Compares the data of a run's manifest with those of the configuration, whatever their location.

    Raises:
        UserError: if they differ.
    """
    manifest = directory / MANIFEST
    if source is None or not manifest.exists():
        return
    if read_json(manifest).get("sha256") != source.sha256:
        raise UserError(
            f"{directory} holds a run on other data than {source.name} as it is now: restore the data, give"
            " the changed study another name, or move that directory away."
        )

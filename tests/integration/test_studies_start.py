"""Every shipped study could start: networks of all its labels are built, on images that need not be there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deq_collapse.data import CIFAR10, MNIST, FashionMNIST, ImageFolder, Source
from deq_collapse.study.check import check_study
from deq_collapse.study.grid import Cell, read_study_file

CONF = Path(__file__).parents[2] / "conf"
PER_CLASS = 6000


def blank(*shape: int) -> Callable[[Source, str], tuple[Tensor, Tensor]]:
    """Loads as many images as the largest class needs, all of them one in memory."""

    def load(source: Source, split: str) -> tuple[Tensor, Tensor]:
        labels = torch.arange(10).repeat_interleave(PER_CLASS if split == "train" else 1000)
        return torch.zeros(1, *shape, dtype=torch.uint8).expand(len(labels), *shape), labels

    return load


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank ones in place of files."""
    for source in (FashionMNIST, MNIST):
        monkeypatch.setattr(source, "load", blank(1, 28, 28))
    for source in (CIFAR10, ImageFolder):
        monkeypatch.setattr(source, "load", blank(3, 32, 32))
        monkeypatch.setattr(source, "class_names", tuple(map(str, range(10))))
    monkeypatch.setattr(Source, "mean_and_std", (torch.zeros(1), torch.ones(1)))


def all_labels(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The first cells with each label and each configuration, instead of the whole product of the axes."""
    seen: set[object] = set()
    for cell in cells:
        if new := {*cell.axes.items(), *cell.configs} - seen:
            seen |= new
            yield cell


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "study").glob("*.yaml")))
def test_a_shipped_study_starts(name: str, images: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = read_study_file(CONF / "study" / f"{name}.yaml", seeds=1)
    cells = tuple(all_labels(study.cells))
    planned = check_study(replace(study, cells=cells, directory=tmp_path / name))
    assert [cell.name for cell in planned] == [cell.name for cell in cells]
    assert len({cell.hash for cell in planned}) == len(planned)
    assert not list(tmp_path.iterdir())
    # Neither that two cells are one run, nor that a class inherits an option.
    assert not capsys.readouterr().err

"""A run that continues must train on the images it began with."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from deq_collapse.data import Balanced, CollapseDataModule, Source, Step
from deq_collapse.errors import UserError


class Stripes(Source):
    """Forty images in two classes."""

    def __init__(self, shade=255):
        self.shade = shade

    def load(self, split):
        labels = torch.arange(40) % 2
        images = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
        images[labels == 1, :, ::2] = self.shade
        return images, labels


def begin(folder, source=None, imbalance=None, seed=0, **trainer):
    data = CollapseDataModule(source or Stripes(), imbalance or Step(1, 10.0), seed=seed)
    data.trainer = Trainer(accelerator="cpu", default_root_dir=folder, logger=False, **trainer)
    data.setup("fit")
    return data


def test_the_manifest_says_which_images_a_run_sees(tmp_path):
    data = begin(tmp_path / "run")
    written = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert written["source"] == "Stripes"
    assert written["seed"] == 0
    assert written["counts"] == [20, 2] == list(data.class_counts)
    assert written["indices"] == data.indices.tolist()
    assert written["imbalance"] == {
        "class_path": "deq_collapse.data.imbalance.Step",
        "init_args": {"num_majority": 1, "ratio": 10.0, "n_max": None},
    }
    assert torch.equal(data.source.train.labels[written["indices"]], data.train_set.labels)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json"}


def test_the_same_data_may_continue_and_leave_the_manifest_alone(tmp_path):
    begin(tmp_path)
    before = (tmp_path / "manifest.json").stat()
    begin(tmp_path)
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": Stripes(254)}, "sha256"),
        ({"seed": 1}, "seed, indices"),
        ({"imbalance": Step(1, 5.0)}, "imbalance, counts, indices"),
        ({"imbalance": Balanced()}, "imbalance, counts, indices"),
    ],
)
def test_other_data_are_refused_and_the_difference_is_named(tmp_path, change, named):
    begin(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=f"in: {named} "):
        begin(tmp_path, **change)
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_file_that_is_no_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read the manifest .*manifest\.json"):
        begin(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"manifest\.json cannot be written"):
        begin(tmp_path / "file" / "run")


def test_a_development_run_leaves_nothing(tmp_path):
    begin(tmp_path, fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []

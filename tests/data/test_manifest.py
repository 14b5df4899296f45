"""A run that continues must train on the images it began with."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from deq_collapse.data import Balanced, CollapseDataModule, Replay, Source, Step
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
        "class_path": "deq_collapse.data.step.Step",
        "init_args": vars(Step(1, 10.0)),
    }
    assert written["majority"] == [0]
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
        ({"imbalance": Balanced()}, "imbalance, counts, majority, indices"),
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


def replay(manifest):
    return Replay(str(manifest / "manifest.json"))


def test_another_run_may_have_exactly_the_images_of_this_one(tmp_path):
    first = begin(tmp_path / "first", imbalance=Step(1, 5.0, which="last"), seed=3)
    again = begin(tmp_path / "again", imbalance=replay(tmp_path / "first"), seed=8)
    assert again.indices.tolist() == first.indices.tolist()
    assert again.class_counts == first.class_counts == (4, 20)
    assert again.majority == first.majority == (1,)
    # The replay's own manifest can be replayed in turn, and its run continued.
    third = begin(tmp_path / "third", imbalance=replay(tmp_path / "again"))
    assert third.indices.tolist() == first.indices.tolist()
    begin(tmp_path / "again", imbalance=replay(tmp_path / "first"), seed=8)


def test_a_replay_trains_on_no_image_that_it_holds_out(tmp_path):
    begin(tmp_path / "first", imbalance=Step(1, 10.0, n_max=10), seed=3)

    def again(seed):
        data = CollapseDataModule(Stripes(), replay(tmp_path / "first"), validation=5, seed=seed)
        return data, data.validation_indices

    data, held_out = again(3)
    assert len(held_out) == 10
    assert not set(held_out.tolist()) & set(data.indices.tolist())
    with pytest.raises(UserError, match="use the seed of the manifest, not 4"):
        again(4)


def test_a_replay_of_other_data_is_refused(tmp_path):
    begin(tmp_path / "first")
    with pytest.raises(
        UserError, match=r"is of other data: its Stripes has the checksum \w{12}\.\.\."
    ) as error:
        begin(tmp_path / "again", Stripes(254), replay(tmp_path / "first"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"indices": [0, 1, 2]}, "was altered: its indices and counts do not agree"),
        ({"indices": [1] * 22}, "was altered"),
        ({"indices": [*range(18), -1, 1, 3, 5]}, "was altered"),
        ({"indices": [*range(21), 40]}, "was altered"),
        ({"counts": [1, 1]}, "was altered"),
        ({"indices": ["0"] * 22}, "indices is no list of whole numbers"),
        ({"indices": [0.5] * 22}, "indices is no list of whole numbers"),
        ({"indices": 5}, "indices is no list of whole numbers"),
        ({"counts": [20, True]}, "counts is no list of whole numbers"),
        ({"majority": "first"}, "majority is no list of whole numbers"),
        ({"counts": None}, "it has no counts"),
        ({"majority": None}, "it has no majority"),
    ],
    ids=str,
)
def test_a_manifest_that_was_altered_is_refused(change, sentence, tmp_path):
    begin(tmp_path / "first")
    path = tmp_path / "first" / "manifest.json"
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(UserError, match=sentence):
        begin(tmp_path / "again", imbalance=replay(tmp_path / "first"))


def test_a_manifest_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the manifest .*absent/manifest\.json"):
        begin(tmp_path / "again", imbalance=replay(tmp_path / "absent"))

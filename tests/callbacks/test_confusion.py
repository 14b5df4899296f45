"""The table of confusions: counted by hand, and of a real run."""

import io
import math

import pandas as pd
import pytest
import torch

from deq_collapse.callbacks.confusion import table

UNKNOWN = pytest.approx(math.nan, nan_ok=True)


def test_accuracies_and_confusions_counted_by_hand():
    confusion = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    rows = table({"test": confusion}, ("cat", "dog", "eel"), (50, 5, 5), {"many": (0,), "few": (1, 2)})
    assert rows.to_dict("records") == [
        {
            "split": "test", "class": "cat", "group": "many", "training_images": 50, "accuracy": 0.75,
            "as cat": 3, "as dog": 1, "as eel": 0,
        },
        {
            "split": "test", "class": "dog", "group": "few", "training_images": 5, "accuracy": 1.0,
            "as cat": 0, "as dog": 2, "as eel": 0,
        },
        {
            "split": "test", "class": "eel", "group": "few", "training_images": 5, "accuracy": UNKNOWN,
            "as cat": 0, "as dog": 0, "as eel": 0,
        },
    ]  # fmt: skip


def test_the_confusions_of_a_run_add_up_to_its_accuracies(finished):
    module, data = finished.module, finished.data
    rows = table(module.confusions, data.class_names, data.class_counts, module.groups)
    rows = pd.read_csv(io.StringIO(rows.to_csv(index=False)))
    taken = rows.filter(like="as ")
    last = finished.history.query("epoch == 5").set_index(["split", "metric"]).value
    for split in ("train", "test"):
        of_split = rows.split == split
        seen = taken[of_split].sum(axis=1)
        right = (rows[of_split].accuracy * seen).sum()
        assert right / seen.sum() == pytest.approx(last[split, "accuracy"])
        assert rows[of_split].accuracy.mean() == pytest.approx(last[split, "balanced_accuracy"])
        minority = rows[of_split & (rows.group == "minority")]
        assert len(minority) == 7
    assert taken[rows.split == "train"].sum(axis=1).tolist() == [139] * 3 + [13] * 7

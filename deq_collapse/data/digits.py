"""The handwritten digits that ship inside scikit-learn: 1,797 images of 8 x 8, no download."""

import torch
from torch import Tensor

from deq_collapse.data.draw import Purpose
from deq_collapse.data.imbalance import select
from deq_collapse.data.source import Source, Split


class Digits(Source):
    """UCI's optical digits as shipped by scikit-learn, with pixels 0..16 scaled to 0..255.

    They have no official split. Here the split is fixed: int(0.8 n) images of each class, drawn with seed 0,
    are for training (139 of the smallest class, 1,433 in all), and the other 364 for testing.
    """

    name = "digits"

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 1, 8, 8) and labels (N,)."""
        from sklearn.datasets import load_digits  # slow to import, and needed only here

        bunch = load_digits()
        images = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        counts = [int(0.8 * n) for n in labels.bincount().tolist()]
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        chosen[select(labels, counts, seed=0, purpose=Purpose.SPLIT)] = True
        keep = chosen if split == "train" else ~chosen
        return images[keep], labels[keep]

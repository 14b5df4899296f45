"""Parts of a user's own that are wrong, for the messages about them."""

from torch import Tensor, nn


class Unmade(nn.Module):
    """Asks for what an image shape does not have."""

    def __init__(self, image_shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.last = image_shape[3]


class Failing(nn.Module):
    """Fails on the first image."""

    def __init__(self, image_shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return {}["a key that is not there"]


class NoCell(nn.Module):
    """A module, but no cell."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()


class EachSample(nn.Module):
    """The loss of every sample, of which nobody took the mean."""

    def __init__(self, class_counts: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none")

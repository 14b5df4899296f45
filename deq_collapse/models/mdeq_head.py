"""MDEQ's head for classification: a bottleneck at every scale, finer ones taken down to the coarsest (Bai,
Koltun & Kolter, "Multiscale Deep Equilibrium Models", NeurIPS 2020).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from deq_collapse.errors import UserError
from deq_collapse.models.cells.kernels import INIT_STD
from deq_collapse.models.cells.scales import unfold


class MDEQHead(nn.Module):
    """Features of all scales of ``MDEQCell(folded=True)``: ``(N, C (4^(S-1) + ... + 1), h, w)`` to ``(N,
    width)``.

    A bottleneck block of ResNet (He et al. 2016) takes the channels of scale i to ``4 inner[i]``. From the
    finest scale on, a 3x3 convolution of stride 2, a batch norm and a ReLU take the sum down to the next one;
    after the coarsest come a 1x1 convolution to ``width``, a batch norm, a ReLU and the mean over the map.

    Args:
        channels: C, of every scale.
        inner: inner channels of the bottleneck at each scale, the finest first; their number is S.
        width: of the features.

    Raises:
        UserError: for an argument out of range.
    """

    def __init__(self, channels: int, inner: Sequence[int] = (8, 16), width: int = 200) -> None:
        super().__init__()
        if len(inner) < 2 or min(channels, width, *inner) < 1:
            raise UserError(
                f"channels is {channels}, inner {list(inner)} and width {width}, but each is at least 1, and"
                " there are at least two scales."
            )
        outer = [Bottleneck.expansion * each for each in inner]
        self.channels = channels
        self.blocks = nn.ModuleList(_bottleneck(channels, each) for each in inner)
        self.downs = nn.ModuleList(_normed(nn.Conv2d(a, b, 3, 2, 1)) for a, b in pairwise(outer))
        self.last = _normed(nn.Conv2d(outer[-1], width, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=INIT_STD)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, std=INIT_STD)

    def forward(self, folded: Tensor) -> Tensor:
        """Features h."""
        maps = unfold(folded, len(self.blocks))
        if maps[0].shape[1] != self.channels:
            raise UserError(
                f"MDEQHead is for scales of {self.channels} channels, but they have {maps[0].shape[1]}."
            )
        y: Tensor = self.blocks[0](maps[0])
        for block, down, z in zip(self.blocks[1:], self.downs, maps[1:], strict=True):
            y = block(z) + down(y)
        features: Tensor = self.last(y).mean((2, 3))
        return features


def _bottleneck(channels: int, inner: int) -> Bottleneck:
    """The block, whose inner norms have no affine map."""
    outer = Bottleneck.expansion * inner
    projection = nn.Sequential(nn.Conv2d(channels, outer, 1, bias=False), nn.BatchNorm2d(outer))
    norm = partial(nn.BatchNorm2d, affine=False)
    return Bottleneck(channels, inner, downsample=projection if channels != outer else None, norm_layer=norm)


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())

"""Residual encoders for small images: ResNet-18 with a CIFAR stem, ResNet-32 and the like (He et al., "Deep
Residual Learning for Image Recognition", 2016).
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Shape


class ResNetEncoder(nn.Sequential):
    """A 3x3 convolution of stride 1, then basic residual blocks; every stage after the first halves the map.

    The defaults are ResNet-18 as used on CIFAR, without the 7x7 stem and the pooling for ImageNet.
    ``widths=(16, 32, 64), stage_blocks=5, shortcut="pad"`` is the ResNet-32 of He et al.'s section 4.2, which
    the literature on imbalance uses (Cao et al., "LDAM", 2019). With all blocks it is a complete backbone, to
    be followed by ``torch.nn.Identity``; with fewer, a refinement replaces the missing blocks.

    Maps ``(N, C, H, W)`` to ``(N, C', ceil(H / s), ceil(W / s))``: C' and s = 2^stage of the last block kept.

    Args:
        image_shape: channels, height and width of an image.
        widths: channels of each stage.
        stage_blocks: residual blocks in each stage, at least 1.
        shortcut: around a block that changes the shape: ``projection``, a 1x1 convolution (their option B),
            or ``pad``, every other pixel and zeros for the new channels (option A, no parameters).
        blocks: number of residual blocks to keep, from the first; ``None`` for all.

    Raises:
        UserError: for impossible widths or numbers of blocks.
    """

    def __init__(
        self,
        image_shape: Shape,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stage_blocks: int = 2,
        shortcut: Literal["projection", "pad"] = "projection",
        blocks: int | None = None,
    ) -> None:
        if not widths or min(widths) < 1 or stage_blocks < 1:
            raise UserError(
                f"widths {widths}, stage_blocks {stage_blocks}: there is at least one, each at least 1."
            )
        if shortcut == "pad" and list(widths) != sorted(widths):
            raise UserError(f"widths are {widths}, but a shortcut that pads needs widths that never fall.")
        total = len(widths) * stage_blocks
        kept = total if blocks is None else blocks
        if not 0 <= kept <= total:
            raise UserError(f"blocks is {blocks}, but this network has 0 to {total} residual blocks to keep.")
        convolution = nn.Conv2d(image_shape[0], widths[0], 3, padding=1, bias=False)
        layers: list[nn.Module] = [convolution, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        channels = [widths[0]] + [width for width in widths for _ in range(stage_blocks)]
        for index, (c_in, c_out) in enumerate(list(pairwise(channels))[:kept]):
            stride = 2 if index and index % stage_blocks == 0 else 1
            layers.append(BasicBlock(c_in, c_out, stride, _shortcut(shortcut, c_in, c_out, stride)))
        super().__init__(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PadShortcut(nn.Module):
    """Option A of He et al.: every ``stride``-th pixel, between channels of zeros.

    Args:
        channels: total number of new channels, half of them before and half after the input's.
        stride: of the block.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to ``(N, C + channels, ceil(H / stride), ceil(W / stride))``."""
        before = self.channels // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.channels - before))


def _shortcut(kind: str, c_in: int, c_out: int, stride: int) -> nn.Module | None:
    if c_in == c_out and stride == 1:
        return None
    if kind == "pad":
        return PadShortcut(c_out - c_in, stride)
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))

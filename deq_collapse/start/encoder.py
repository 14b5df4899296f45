"""Your own encoder: any module made for the shape of an image that returns H0, maps or vectors."""

from torch import nn


class MyEncoder(nn.Sequential):
    """Two convolutions; images (N, C, H, W) to maps (N, width, H/2, W/2).

    Args:
        image_shape: channels, height and width of an image, passed to every encoder.
        width: channels of H0.
    """

    def __init__(self, image_shape: tuple[int, ...], width: int = 24) -> None:
        super().__init__(
            nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

"""Residual encoders: their parameters, their shapes, and the networks they are."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from deq_collapse.errors import UserError
from deq_collapse.models import ResNetEncoder

RESNET32 = {"widths": (16, 32, 64), "stage_blocks": 5, "shortcut": "pad"}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_resnet_18_for_cifar_has_the_parameters_it_is_known_for():
    classifier = 10 * 512 + 10
    assert parameters(ResNetEncoder((3, 32, 32))) + classifier == 11_173_962


def test_resnet_32_has_the_parameters_it_is_known_for():
    classifier = 10 * 64 + 10
    assert parameters(ResNetEncoder((3, 32, 32), **RESNET32)) + classifier == 464_154


def test_it_is_torchvisions_resnet_18_with_another_stem():
    torch.manual_seed(0)
    ours, theirs = ResNetEncoder((3, 16, 16)).eval(), resnet18().eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.fc = nn.Identity()
    weights = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(weights)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(ours(x).mean((2, 3)), theirs(x))


@pytest.mark.parametrize(
    ("blocks", "shape"),
    [
        (0, (64, 9, 9)),
        (2, (64, 9, 9)),
        (3, (128, 5, 5)),
        (7, (512, 2, 2)),
        (8, (512, 2, 2)),
        (None, (512, 2, 2)),
    ],
)
def test_the_first_blocks_make_h0(blocks, shape):
    assert ResNetEncoder((1, 9, 9), blocks=blocks).eval()(torch.randn(2, 1, 9, 9)).shape == (2, *shape)


def test_fewer_blocks_are_the_same_network_cut_off():
    torch.manual_seed(0)
    whole = ResNetEncoder((3, 8, 8), **RESNET32).eval()
    cut = ResNetEncoder((3, 8, 8), **RESNET32, blocks=11).eval()
    cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.state_dict()})
    x = torch.randn(2, 3, 8, 8)
    kept = nn.Sequential(*list(whole)[: 3 + 11])
    assert torch.equal(kept(x), cut(x))


def test_a_padding_shortcut_is_every_other_pixel_between_channels_of_zeros():
    block = ResNetEncoder((3, 8, 8), **RESNET32)[3 + 5]
    x = torch.randn(2, 16, 8, 8)
    y = block.downsample(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": ()}, "at least one"),
        ({"widths": (4, 0)}, "at least 1"),
        ({"stage_blocks": 0}, "at least 1"),
        ({"blocks": 9}, "blocks is 9, but this network has 0 to 8"),
        ({"blocks": -1}, "0 to 8"),
        ({"widths": (8, 4), "shortcut": "pad"}, "never fall"),
    ],
)
def test_a_network_that_cannot_be_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        ResNetEncoder((3, 8, 8), **options)

"""torchvision's classification models as encoders: their features are what their last layer consumes."""

import warnings

import pytest
import torch
from torchvision.models import get_model

from deq_collapse.errors import UserError
from deq_collapse.models import TorchvisionEncoder

HEADS = {
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "densenet121": "classifier",
    "convnext_tiny": "classifier.2",
    "swin_t": "head",
}
"""Where the last linear layer lies, by the naming of torchvision."""


def features_of_the_original(encoder: TorchvisionEncoder, head: str, model: torch.nn.Module, x: torch.Tensor):
    """What the head of torchvision's own model consumes, at the weights of the encoder."""
    consumed = []
    model.load_state_dict(encoder.model.state_dict(), strict=False)
    model.get_submodule(head).register_forward_hook(lambda _, inputs, __: consumed.append(inputs[0]))
    model.eval()(x)
    return consumed[0]


@pytest.mark.parametrize("name", HEADS)
def test_features_are_what_the_last_layer_of_the_original_consumes(name):
    head = HEADS[name]
    encoder, x = TorchvisionEncoder((3, 32, 32), name), torch.randn(2, 3, 32, 32)
    original = get_model(name)
    missing = set(original.state_dict()) - set(encoder.model.state_dict())
    assert missing == {f"{head}.weight", f"{head}.bias"}
    with torch.no_grad():
        assert torch.equal(encoder.eval()(x), features_of_the_original(encoder, head, original, x))


def test_options_reach_the_model():
    encoder = TorchvisionEncoder((1, 32, 32), "vit_b_16", options={"image_size": 32})
    with torch.no_grad():
        assert encoder.eval()(torch.randn(2, 1, 32, 32)).shape == (2, 768)


def test_grey_images_are_repeated_and_small_ones_scaled():
    encoder = TorchvisionEncoder((1, 8, 8), "mobilenet_v3_small", resize=32).eval()
    x = torch.randn(2, 1, 1, 1).expand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(encoder(x), encoder.model(x[:, :, :1, :1].expand(2, 3, 32, 32)), atol=1e-6)


def test_it_is_made_ready_for_training():
    encoder = TorchvisionEncoder((3, 32, 32), "resnet18")
    assert all(part.training for part in encoder.modules())
    assert not encoder.model.bn1.running_mean.any()


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((3, 32, 32), {"name": "resnett18"}, "no classification model resnett18; did you mean resnet18"),
        ((3, 32, 32), {"name": "fcn_resnet50"}, "no classification model fcn_resnet50"),
        ((3, 32, 32), {"name": "zzz"}, "among others, resnet50"),
        ((2, 32, 32), {"name": "resnet18"}, r"1 or 3 channels, but a sample has shape \(2, 32, 32\)"),
        ((1, 28, 28), {"name": "densenet121"}, "densenet121 cannot take images of 28 x 28 .resize would"),
        ((3, 32, 32), {"name": "squeezenet1_1"}, "does not end in a linear layer"),
        (
            (3, 32, 32),
            {"name": "resnet18", "weights": "V9"},
            "no weights V9; allowed are DEFAULT, IMAGENET1K_V1",
        ),
        ((3, 32, 32), {"name": "resnet18", "options": {"depht": 2}}, "cannot make resnet18 .*depht"),
        ((3, 32, 32), {"name": "resnet18", "resize": 0}, "resize is 0"),
    ],
)
def test_what_torchvision_cannot_do_is_told_in_a_sentence(shape, options, said):
    with pytest.raises(UserError, match=said):
        TorchvisionEncoder(shape, **options)


def test_auxiliary_classifiers_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torchvision, on how it will draw weights
        with pytest.raises(UserError, match="googlenet has auxiliary classifiers"):
            TorchvisionEncoder((3, 32, 32), "googlenet")

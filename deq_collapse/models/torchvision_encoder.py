"""Any classification model of torchvision as an encoder, without its classifier."""

from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights, list_models

from deq_collapse.errors import UserError
from deq_collapse.metrics.modes import evaluating
from deq_collapse.models.cells import Shape

SOME = (
    "resnet50",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "swin_t",
    "vit_b_16",
)
"""Examples of names, for an error message."""


class TorchvisionEncoder(nn.Module):
    """Images to the input of a torchvision model's last linear layer: ``(N, C, H, W)`` to ``(N, d)``.

    That layer, whatever its name, is the one whose output is the model's. The features are its input, after
    any hidden layers and dropout of the head. Grey images are repeated in three channels, so that no weights
    change. It is a complete backbone, to be followed by ``torch.nn.Identity`` or by a cell on vectors.

    Args:
        image_shape: channels, height and width of an image, of 1 or 3 channels.
        name: one of ``torchvision.models.list_models(module=torchvision.models)``, e.g. ``convnext_tiny``.
        weights: pre-trained weights by name, e.g. ``IMAGENET1K_V1`` or ``DEFAULT``, which torchvision
            downloads; ``None`` initialises at random. Images are normalised as set by their data set.
        resize: side of the square to which images are first scaled; ``None`` keeps their size.
        options: further arguments of the model, e.g. ``{image_size: 32}`` for a vision transformer.

    Raises:
        UserError: for names, options or weights that torchvision does not have, for images that the model
            cannot take, and for a model that does not end in a linear layer.
    """

    def __init__(
        self,
        image_shape: Shape,
        name: str,
        weights: str | None = None,
        resize: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(image_shape) != 3 or image_shape[0] not in (1, 3):
            raise UserError(f"{name} takes images of 1 or 3 channels, but a sample has shape {image_shape}.")
        if resize is not None and resize < 1:
            raise UserError(f"resize is {resize}, but an image has at least 1 pixel a side.")
        self.resize = resize
        self.model = _build(name, weights, options or {})
        self._cut_head(name, image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Features, ``(N, d)``."""
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.resize is not None:
            x = F.interpolate(x, (self.resize, self.resize), mode="bilinear", antialias=True)
        features: Tensor = self.model(x)
        return features

    @torch.no_grad()
    def _cut_head(self, name: str, image_shape: Shape) -> None:
        """Replaces the linear layer whose output is the model's by an identity."""
        called: list[tuple[str, Tensor]] = []

        def note(key: str, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            called.append((key, output))

        linear = [(key, part) for key, part in self.model.named_modules() if isinstance(part, nn.Linear)]
        hooks = [layer.register_forward_hook(partial(note, key)) for key, layer in linear]
        size = f"{image_shape[1]} x {image_shape[2]}"
        try:
            with evaluating(self):
                logits = self(torch.zeros(1, *image_shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{name} cannot take images of {size} (resize would scale them): {reason}"
            ) from error
        for hook in hooks:
            hook.remove()
        head = next((key for key, output in called if output is logits), None)
        if head is None:
            raise UserError(f"{name} does not end in a linear layer, whose input would be the features.")
        parent, _, child = head.rpartition(".")
        setattr(self.model.get_submodule(parent), child, nn.Identity())


def _build(name: str, weights: str | None, options: dict[str, Any]) -> nn.Module:
    names = list_models(module=torchvision.models)
    if name not in names:
        near = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has, among others, {', '.join(SOME)}."
        raise UserError(f"torchvision has no classification model {name}; {hint}")
    known = ["DEFAULT", *(weight.name for weight in get_model_weights(name))]
    if weights is not None and weights not in known:
        raise UserError(f"{name} has no weights {weights}; allowed are {', '.join(known)} and null.")
    try:
        model: nn.Module = get_model(name, weights=weights, **options)
    except (OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"torchvision cannot make {name} with {options or weights}: {reason}") from error
    if getattr(model, "aux_logits", False):
        raise UserError(f"{name} has auxiliary classifiers: leave them out by options {{aux_logits: false}}.")
    return model

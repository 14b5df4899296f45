"""The network: encoder -> refinement -> readout -> classifier, as a plain module without any training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Shape

EncoderFactory = Callable[[Shape], nn.Module]
"""Makes an encoder for images of a shape."""
RefinementFactory = Callable[[Shape], nn.Module]
"""Makes a refinement for an H0 of a shape."""
ClassifierFactory = Callable[[int, int], nn.Module]
"""Makes a classifier from the feature width d and the number of classes K; it has ``weight`` (K, d) and
``bias``.
"""


class Network(nn.Module):
    """Image x -> H0 -> feature map -> features h -> logits.

    Args:
        image_shape: channels, height and width of an image.
        num_classes: K.
        encoder: makes the module x -> H0, ``(N, C, H, W)`` to ``(N, C', H', W')``.
        refinement: makes the module H0 -> feature map, of the same shape.
        readout: feature map -> features h, ``(N, d)``.
        classifier: makes the module h -> logits, ``(N, K)``.

    Raises:
        UserError: where a part's output does not have the shape the next one needs.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        encoder: EncoderFactory,
        refinement: RefinementFactory,
        readout: nn.Module,
        classifier: ClassifierFactory,
    ) -> None:
        super().__init__()
        self.encoder = encoder(image_shape)
        h0 = self._probe(self.encoder, torch.zeros(1, *image_shape), "encoder", dims=4)
        self.refinement = refinement((h0.shape[1], h0.shape[2], h0.shape[3]))
        self.readout = readout
        refined = self._probe(self.refinement, h0, "refinement", dims=4)
        h = self._probe(self.readout, refined, "readout", dims=2)
        self.num_features = h.shape[1]
        self.classifier = classifier(self.num_features, num_classes)

    @staticmethod
    @torch.no_grad()
    def _probe(module: nn.Module, x: Tensor, name: str, dims: int) -> Tensor:
        training = module.training
        y = module.eval()(x)
        module.train(training)
        if not isinstance(y, Tensor) or y.dim() != dims:
            wanted = "(N, C, H, W)" if dims == 4 else "(N, d)"
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise UserError(f"the {name} turns {tuple(x.shape)} into {got}, but {wanted} is needed.")
        return y

    def features(self, x: Tensor) -> Tensor:
        """Features h, what the classifier receives: images (N, C, H, W) to (N, d)."""
        h: Tensor = self.readout(self.refinement(self.encoder(x)))
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Logits: images (N, C, H, W) to (N, K)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters of each part, and their total."""
        parts = {"encoder": self.encoder, "refinement": self.refinement, "classifier": self.classifier}
        counts = {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()
        }
        counts["total"] = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return counts

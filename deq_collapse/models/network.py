"""The network: encoder -> refinement -> readout -> classifier, as a plain module without any training."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.metrics.modes import evaluating
from deq_collapse.models.cells import Shape
from deq_collapse.models.readouts import UnitLength

EncoderFactory = Callable[[Shape], nn.Module]
"""Makes an encoder for images of a given shape."""
RefinementFactory = Callable[[Shape], nn.Module]
"""Makes a refinement for an H0 of a given shape."""
ClassifierFactory = Callable[[int, int], nn.Module]
"""Makes a classifier from the feature width d and the number of classes K; see
:mod:`deq_collapse.models.classifiers`.
"""


def make(name: str, maker: Callable[..., nn.Module], *facts: Any) -> nn.Module:
    """Makes a part of the network, or the criterion.

    Args:
        name: of the part, in words.
        maker: a class, or a function.
        facts: its arguments, e.g. the image shape.

    Raises:
        UserError: if it cannot be made from them; the message has the line of the user's code.
    """
    try:
        return maker(*facts)
    except UserError:
        raise
    except Exception as error:
        told = ", ".join(map(str, facts))
        raise UserError(f"the {name} cannot be made for {told}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What happened, and in which line of the user's code, outside installed libraries."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if _own(frame.filename)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    kind = "" if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}{where}"


def _own(file: str) -> bool:
    return not Path(file).is_relative_to(Path(__file__).parents[1]) and not {
        "site-packages",
        "dist-packages",
    } & {*Path(file).parts}


class Network(nn.Module):
    """Image x -> H0 -> feature map -> features h -> logits.

    Args:
        image_shape: channels, height and width of an image.
        num_classes: K.
        encoder: makes the module x -> H0, ``(N, C, H, W)`` to ``(N, C', H', W')``, ``(N, d)`` or the like.
        refinement: makes the module H0 -> feature map; ``torch.nn.Identity`` for the encoder alone.
        readout: feature map -> features h, ``(N, d)``; for a classifier that normalises, their directions.
        classifier: makes the module h -> logits, ``(N, K)``.
        channels_last: keep the channels of a pixel adjacent in the memory of maps and kernels, as
            convolutions prefer; the values are the same up to rounding. Parts must then ``flatten`` or
            ``reshape`` a map instead of using ``view``.

    Raises:
        UserError: if a part cannot take its input, or returns something that the next part cannot take.
    """

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        encoder: EncoderFactory,
        refinement: RefinementFactory,
        readout: nn.Module,
        classifier: ClassifierFactory,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        # Convolutions return maps in the memory format of their kernels.
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder = make("encoder", encoder, image_shape).to(memory_format=memory_format)
        h0 = self._probe(self.encoder, torch.zeros(1, *image_shape), "encoder")
        self.refinement = make("refinement", refinement, tuple(h0.shape[1:])).to(memory_format=memory_format)
        refined = self._probe(self.refinement, h0, "refinement")
        self.readout = readout
        h = self._probe(self.readout, refined, "readout", vectors=True)
        self.num_features = h.shape[1]
        self.classifier = make("classifier", classifier, self.num_features, num_classes)
        if getattr(self.classifier, "normalises", False):
            self.readout = nn.Sequential(readout, UnitLength())

    @staticmethod
    @torch.no_grad()
    def _probe(module: nn.Module, x: Tensor, name: str, vectors: bool = False) -> Tensor:
        """The output of a part for one sample, in eval mode."""
        try:
            with evaluating(module):
                y = module(x)
        except UserError:
            raise
        except Exception as error:  # torch's errors about shapes, or any error of a user's part
            raise UserError(
                f"the {name} cannot take an input of shape {tuple(x.shape)}: {_reason(error)}"
            ) from error
        if not isinstance(y, Tensor) or y.dim() < 2 or len(y) != 1 or (vectors and y.dim() > 2):
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            wanted = "(N, d)" if vectors else "(N, d) or (N, C, ...)"
            raise UserError(f"the {name} turns {tuple(x.shape)} into {got}, but {wanted} is needed.")
        return y

    def compile(self, *args: Any, **options: Any) -> None:
        """Compiles the encoder and the refinement (of an equilibrium, its cell) with ``torch.compile``, which
        takes these arguments. The values are the same up to rounding, and a copy is not compiled.
        """
        self.encoder.compile(*args, **options)
        self.refinement.compile(*args, **options)

    def features(self, x: Tensor) -> Tensor:
        """Features h, the classifier's input: images (N, C, H, W) to (N, d)."""
        h: Tensor = self.readout(self.refinement(self.encoder(x)))
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Logits: images (N, C, H, W) to (N, K)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def parts(self) -> dict[str, nn.Module]:
        """The parts by name, in the order that an image passes through them."""
        return {name: getattr(self, name) for name in ("encoder", "refinement", "readout", "classifier")}

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters of each part, and their total."""
        counts = {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad)
            for name, part in self.parts().items()
        }
        counts["total"] = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return counts

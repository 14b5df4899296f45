"""The base of our criteria: class weights that may start late, soft labels, and a check of the classifier."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.weights import ClassWeights


class Criterion(nn.Module, ABC):
    """A mean loss of logits and labels.

    The mean over a batch is weighted: ``sum_i w_{y_i} l_i / sum_i w_{y_i}``, as in torch's cross entropy and
    the code of LDAM. If class weights differ, the loss of a split, a mean over its batches, therefore depends
    on how it is divided into batches.

    Labels may be class probabilities, (N, K), as made by mixup. Their loss is the expected loss: a sample
    counts as every class, weighted by that class's share.

    Args:
        class_counts: training images per class, (K,), all above 0.
        weights: class weights; ``None`` for equal ones.

    Raises:
        UserError: for a class without images, and for weights out of range.
    """

    class_weights: Tensor | None

    def __init__(self, class_counts: Sequence[int], weights: ClassWeights | None = None) -> None:
        super().__init__()
        if min(class_counts) < 1:
            raise UserError(f"class counts are {list(class_counts)}, but every class has a training image.")
        self.weights = weights
        switched_on = None if weights is None else weights.of(class_counts)
        self.register_buffer("_switched_on", switched_on, persistent=False)
        # The weights in effect are part of the state, so that a checkpoint is measured with the weights it
        # was trained with.
        self.register_buffer("class_weights", None if switched_on is None else torch.ones_like(switched_on))
        if weights is not None and not weights.after:
            self.at_epoch(0, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Criterion":
        """Follows the network to a device, but not to half precision: logits come in float32 or better."""

        def precisely(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        applied: Criterion = super()._apply(precisely, recurse)  # type: ignore[no-untyped-call]
        return applied

    @abstractmethod
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""

    def at_epoch(self, epoch: int, epochs: int) -> None:
        """Called when a training epoch begins, counted from 0, out of all epochs: sets the weights in effect.

        Raises:
            UserError: for deferred weights of a run whose number of epochs is not known beforehand.
        """
        if self.weights is not None and self.class_weights is not None:
            on = self.weights.on(epoch, epochs)
            self.class_weights.copy_(self.get_buffer("_switched_on") if on else torch.ones(()))

    def check(self, classifier: nn.Module) -> None:
        """Called once with the classifier that computes the logits.

        Raises:
            UserError: for a classifier whose logits do not suit this criterion.
        """

    def mean(self, loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over a batch of a loss per sample.

        Args:
            loss: takes logits (M, K) and classes (M,), returns (M,).
            logits: (N, K).
            labels: classes (N,) or probabilities (N, K).
        """
        share = None
        if labels.dim() == 2:
            samples, classes = labels.nonzero(as_tuple=True)
            share, logits, labels = labels[samples, classes], logits[samples], classes
        if self.class_weights is not None:
            weights = self.class_weights[labels]
            share = weights if share is None else share * weights
        losses = loss(logits, labels)
        return losses.mean() if share is None else (share * losses).sum() / share.sum()


def gives_cosines(classifier: nn.Module, scale: float) -> bool:
    """Whether a classifier's logits are ``scale cos(w_c, h)``, tested on one h."""
    weight = classifier.weight
    if not isinstance(weight, Tensor):
        return False
    with torch.no_grad():
        h = torch.linspace(-1, 2, weight.shape[1], dtype=weight.dtype, device=weight.device)[None]
        cosines = F.normalize(h) @ F.normalize(weight).T
        return torch.allclose(classifier(h), scale * cosines, rtol=1e-4, atol=1e-4 * scale)

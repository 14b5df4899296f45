"""Two other decision rules on the features of a trained network, for the test split: the tau-normalised
classifier and the nearest class mean (Kang et al., "Decoupling Representation and Classifier for Long-Tailed
Recognition", ICLR 2020). Neither needs training.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from deq_collapse.metrics.functional import decide


class Alternatives(nn.Module):
    """Accumulates the accuracies of both rules over batches and ranks.

    Args:
        num_classes: K.
        tau: of the tau-normalised classifier, at least 0.
    """

    def __init__(self, num_classes: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.tau_normalised = MulticlassAccuracy(num_classes, average="micro")
        self.nearest_mean = MulticlassAccuracy(num_classes, average="micro")

    def update(self, h: Tensor, labels: Tensor, weight: Tensor, train_means: Tensor | None) -> None:
        """Counts a batch of features (N, d) and labels (N,).

        Args:
            h: (N, d).
            labels: (N,).
            weight: the classifier's, (K, d).
            train_means: class means of the training split (K, d), if known.
        """
        self.tau_normalised.update(decide_tau_normalised(h, weight, self.tau), labels)
        if train_means is not None:
            self.nearest_mean.update(decide_nearest_mean(h, train_means), labels)

    def compute(self) -> dict[str, Tensor]:
        """``accuracy_tau``, and ``accuracy_ncm`` if means were given, in [0, 1]."""
        named = {"accuracy_tau": self.tau_normalised, "accuracy_ncm": self.nearest_mean}
        return {name: metric.compute() for name, metric in named.items() if metric.update_called}

    def reset(self) -> None:
        """Forgets everything counted."""
        self.tau_normalised.reset()
        self.nearest_mean.reset()


def decide_tau_normalised(h: Tensor, weight: Tensor, tau: float) -> Tensor:
    """``argmax_c w_c h / ||w_c||^tau``, without bias, in float32 or better; Kang et al. 2020, section 4.

    Frequent classes tend to have longer rows. tau = 0 is the classifier without its bias; tau = 1 gives all
    rows the same length. The paper chooses tau on a validation split.

    Args:
        h: (N, d).
        weight: (K, d).
        tau: at least 0.

    Returns:
        Classes (N,).
    """
    lengths = weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return decide(h, weight / lengths**tau, None)


def decide_nearest_mean(h: Tensor, means: Tensor) -> Tensor:
    """``argmax_c cos(mu_c, h)``, nearest by angle, in float32 or better; the nearest class mean of Kang et
    al. 2020, section 4.

    Unlike NC4, which uses distances, because features of rare classes are short.

    Args:
        h: (N, d).
        means: class means of the training split, (K, d).

    Returns:
        Classes (N,).
    """
    return decide(h, F.normalize(means), None)

"""Criteria: losses of logits and labels that receive the class counts of the training split.

Your own criterion is a class whose first argument is the tuple of class counts; name it by ``class_path``. It
may be any module; a :class:`Criterion` also supports class weights, soft labels, the epoch and a check of the
classifier.
"""

from collections.abc import Callable

from torch import nn

from deq_collapse.losses.criterion import Criterion
from deq_collapse.losses.cross_entropy import CrossEntropy
from deq_collapse.losses.dot_regression import DotRegression
from deq_collapse.losses.focal import Focal
from deq_collapse.losses.ldam import LDAM
from deq_collapse.losses.logit_adjustment import BalancedSoftmax, LogitAdjustment
from deq_collapse.losses.squared_error import SquaredError
from deq_collapse.losses.vector_scaling import VectorScaling
from deq_collapse.losses.weights import ClassWeights

CriterionFactory = Callable[[tuple[int, ...]], nn.Module]
"""Makes a criterion for class counts; in a config, its ``class_path`` and other arguments."""

__all__ = [
    "LDAM",
    "BalancedSoftmax",
    "ClassWeights",
    "Criterion",
    "CriterionFactory",
    "CrossEntropy",
    "DotRegression",
    "Focal",
    "LogitAdjustment",
    "SquaredError",
    "VectorScaling",
]

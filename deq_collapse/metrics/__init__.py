"""Measures of neural collapse: one Metric, pure functions over class statistics, reference geometries."""

from deq_collapse.metrics.hooked import HookedCollapse
from deq_collapse.metrics.layers import LayerwiseCollapse
from deq_collapse.metrics.measure import measure, measure_along
from deq_collapse.metrics.neural_collapse import NeuralCollapse
from deq_collapse.metrics.one_value import CollapseValue
from deq_collapse.metrics.statistics import ClassStatistics
from deq_collapse.metrics.table import COSTLY, TABLE

__all__ = [
    "COSTLY",
    "TABLE",
    "ClassStatistics",
    "CollapseValue",
    "HookedCollapse",
    "LayerwiseCollapse",
    "NeuralCollapse",
    "measure",
    "measure_along",
]

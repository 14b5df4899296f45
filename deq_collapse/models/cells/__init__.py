"""Cells: the function f(z, H0) that an equilibrium refinement solves for."""

from deq_collapse.models.cells.base import Cell, CellFactory, Shape
from deq_collapse.models.cells.batch_norm import BatchNormCell
from deq_collapse.models.cells.contractive import ConvCell, MLPCell
from deq_collapse.models.cells.linear import LinearCell
from deq_collapse.models.cells.mdeq import MDEQCell
from deq_collapse.models.cells.monotone import MonotoneCell
from deq_collapse.models.cells.multiscale import MultiscaleCell
from deq_collapse.models.cells.opteq import OptEqCell
from deq_collapse.models.cells.residual import ResidualCell
from deq_collapse.models.cells.transformer import TransformerCell

__all__ = [
    "BatchNormCell",
    "Cell",
    "CellFactory",
    "ConvCell",
    "LinearCell",
    "MDEQCell",
    "MLPCell",
    "MonotoneCell",
    "MultiscaleCell",
    "OptEqCell",
    "ResidualCell",
    "Shape",
    "TransformerCell",
]

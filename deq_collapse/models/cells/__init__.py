"""Cells: the function f(z, H0) that an equilibrium refinement solves for."""

from deq_collapse.models.cells.base import Cell, CellFactory, Shape
from deq_collapse.models.cells.contractive import BoundedConv2d, ConvCell

__all__ = ["BoundedConv2d", "Cell", "CellFactory", "ConvCell", "Shape"]

"""Encoders, explicit and equilibrium refinements, and the LightningModule that trains and measures them."""

from deq_collapse.models.cells import (
    BatchNormCell,
    Cell,
    ConvCell,
    LinearCell,
    MDEQCell,
    MLPCell,
    MonotoneCell,
    MultiscaleCell,
    OptEqCell,
    ResidualCell,
    TransformerCell,
)
from deq_collapse.models.classifiers import CosineClassifier, FixedETF
from deq_collapse.models.encoders import (
    CircularEncoder,
    ConvEncoder,
    LinearEncoder,
    PatchEncoder,
    PooledEncoder,
    VectorEncoder,
)
from deq_collapse.models.equilibrium import Equilibrium
from deq_collapse.models.explicit import Explicit
from deq_collapse.models.gradients import Implicit, JacobianFree, Phantom, Unrolled
from deq_collapse.models.lr_schedules import WarmupMultiStep
from deq_collapse.models.mdeq_head import MDEQHead
from deq_collapse.models.module import CollapseModule
from deq_collapse.models.network import Network
from deq_collapse.models.readouts import ConvReadout, GlobalAverage, PatchAverage, TokenAverage
from deq_collapse.models.resnet import ResNetEncoder
from deq_collapse.models.solvers import Anderson, Broyden, FixedPoint
from deq_collapse.models.tolerance import Tolerance
from deq_collapse.models.torchvision_encoder import TorchvisionEncoder
from deq_collapse.models.unfolded import Unfolded

__all__ = [
    "Anderson",
    "BatchNormCell",
    "Broyden",
    "Cell",
    "CircularEncoder",
    "CollapseModule",
    "ConvCell",
    "ConvEncoder",
    "ConvReadout",
    "CosineClassifier",
    "Equilibrium",
    "Explicit",
    "FixedETF",
    "FixedPoint",
    "GlobalAverage",
    "Implicit",
    "JacobianFree",
    "LinearCell",
    "LinearEncoder",
    "MDEQCell",
    "MDEQHead",
    "MLPCell",
    "MonotoneCell",
    "MultiscaleCell",
    "Network",
    "OptEqCell",
    "PatchAverage",
    "PatchEncoder",
    "Phantom",
    "PooledEncoder",
    "ResNetEncoder",
    "ResidualCell",
    "TokenAverage",
    "Tolerance",
    "TorchvisionEncoder",
    "TransformerCell",
    "Unfolded",
    "Unrolled",
    "VectorEncoder",
    "WarmupMultiStep",
]

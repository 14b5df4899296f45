"""Callbacks that watch a run: when it is measured, what it logs, what it costs and which files it leaves."""

from deq_collapse.callbacks.along import Along
from deq_collapse.callbacks.averaging import check_averaging
from deq_collapse.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint, damage, lacks
from deq_collapse.callbacks.confusion import Confusion
from deq_collapse.callbacks.costs import Costs
from deq_collapse.callbacks.diagnostics import Diagnostics
from deq_collapse.callbacks.divergence import Divergence
from deq_collapse.callbacks.ending import Ending
from deq_collapse.callbacks.environment import Environment
from deq_collapse.callbacks.gradient_norm import GradientNorm
from deq_collapse.callbacks.history import History
from deq_collapse.callbacks.jacobian_schedule import JacobianSchedule
from deq_collapse.callbacks.last_step import LastStep
from deq_collapse.callbacks.predictions import PredictionWriter
from deq_collapse.callbacks.pretraining import Pretraining
from deq_collapse.callbacks.progress import RunProgress
from deq_collapse.callbacks.record import RunRecord, keep_finished
from deq_collapse.callbacks.schedule import MeasurementSchedule
from deq_collapse.callbacks.spectral_radius import SpectralRadius
from deq_collapse.callbacks.warm_starts import WarmStarts
from deq_collapse.callbacks.whole import check_whole

__all__ = [
    "Along",
    "AtomicCheckpointIO",
    "Confusion",
    "Costs",
    "Diagnostics",
    "Divergence",
    "Ending",
    "Environment",
    "GradientNorm",
    "History",
    "JacobianSchedule",
    "LastCheckpoint",
    "LastStep",
    "MeasurementSchedule",
    "PredictionWriter",
    "Pretraining",
    "RunProgress",
    "RunRecord",
    "SpectralRadius",
    "WarmStarts",
    "check_averaging",
    "check_whole",
    "damage",
    "keep_finished",
    "lacks",
]

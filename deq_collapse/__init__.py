"""What deep equilibrium models learn, seen through neural collapse, next to explicit networks.

What most users need is here, and is imported on first use: ``deq_collapse.measure`` alone does not import
Lightning. Sources and imbalances are in ``data``, encoders and cells in ``models``; ``losses`` and
``callbacks`` have their own packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deq_collapse.data import CollapseDataModule
    from deq_collapse.errors import UserError
    from deq_collapse.metrics import LayerwiseCollapse, NeuralCollapse, measure, measure_along
    from deq_collapse.models import CollapseModule
    from deq_collapse.results import StudyResults, read_study
    from deq_collapse.training import run_callbacks, run_trainer

__version__ = "0.2.0"

__all__ = [
    "CollapseDataModule",
    "CollapseModule",
    "LayerwiseCollapse",
    "NeuralCollapse",
    "StudyResults",
    "UserError",
    "__version__",
    "measure",
    "measure_along",
    "read_study",
    "run_callbacks",
    "run_trainer",
]

_HOMES = {
    "CollapseDataModule": "data",
    "CollapseModule": "models",
    "LayerwiseCollapse": "metrics",
    "NeuralCollapse": "metrics",
    "StudyResults": "results",
    "UserError": "errors",
    "measure": "metrics",
    "measure_along": "metrics",
    "read_study": "results",
    "run_callbacks": "training",
    "run_trainer": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

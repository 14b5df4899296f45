"""Checks that a run logs the values that its parts follow, such as early stopping."""

from collections.abc import Iterable

from lightning.pytorch import Callback, Trainer

from deq_collapse.callbacks import GradientNorm, JacobianSchedule, LastStep, SpectralRadius
from deq_collapse.data import CollapseDataModule
from deq_collapse.models import CollapseModule, Equilibrium, Explicit
from deq_collapse.models.lr_schedules import not_measured

OURS = ("deq_collapse", "lightning")
"""Packages whose callbacks log only the values listed here; other callbacks may log any value."""
SOLVES = ("evaluations", "residual", "residual_median", "residual_q90", "unconverged")


def check_monitors(trainer: Trainer, module: CollapseModule, data: CollapseDataModule) -> None:
    """Checks that every value followed by a callback or a learning-rate schedule is logged.

    Raises:
        UserError: if one is not.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    followed = [*_of_callbacks(callbacks), *_of_schedules(module)]
    if not followed or any(type(callback).__module__.partition(".")[0] not in OURS for callback in callbacks):
        return
    logged = logged_names(module, data, callbacks)
    for what, name in followed:
        if name not in logged:
            raise not_measured(what, name, logged)


def logged_names(
    module: CollapseModule, data: CollapseDataModule, callbacks: Iterable[Callback]
) -> list[str]:
    """The values that a run logs from its first epoch on, such as ``train/nc1``; for an equilibrium also
    those that depend on its gradient and its cell.
    """
    refinement = module.network.refinement
    solved = isinstance(refinement, Equilibrium)
    # With a validation split, the test split is measured only at the end.
    splits = ("train", "test") if data.validation is None else ("train", "validation")
    names = ["fit/loss", *(f"{split}/{name}" for split in splits for name in module.measure_names(split))]
    if any(isinstance(callback, GradientNorm) for callback in callbacks):
        names += [f"fit/{name}" for name in ("gradient_norm", "gradient_norm_max", "gradient_longer")]
    if any(isinstance(callback, LastStep) for callback in callbacks):
        names += [f"{split}/{name}" for split in splits for name in ("last_step", "last_step_q90")]
    if solved:
        names += [f"fit/{direction}_{name}" for direction in ("forward", "backward") for name in SOLVES]
        names += ["fit/jacobian", "train/spectral_radius", "train/lipschitz_bound"]
        names += [f"{split}/error_bound" for split in splits]
        for kind, name in ((SpectralRadius, "spectral_radius"), (JacobianSchedule, "jacobian_weight")):
            names += [f"fit/{name}" for callback in callbacks if isinstance(callback, kind)]
    elif isinstance(refinement, Explicit) and refinement.jacobian_weight:
        names.append("fit/jacobian")
    return names


def _of_callbacks(callbacks: Iterable[Callback]) -> list[tuple[str, str]]:
    """The callbacks that require their value: ``EarlyStopping`` may have ``strict`` turned off."""
    return [
        (type(callback).__name__, name)
        for callback in callbacks
        if isinstance(name := getattr(callback, "monitor", None), str) and getattr(callback, "strict", True)
    ]


def _of_schedules(module: CollapseModule) -> list[tuple[str, str]]:
    _, schedules = module.configure_optimizers()
    return [("model.lr_scheduler", entry["monitor"]) for entry in schedules if isinstance(entry, dict)]

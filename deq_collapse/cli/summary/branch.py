"""The costs of one model: parameters, FLOPs and activations, by part."""

from dataclasses import dataclass

import torch

from deq_collapse.callbacks.costs import TOTAL, cost_images, flops_by_part, saved_per_image
from deq_collapse.data import CollapseDataModule
from deq_collapse.models import Network


@dataclass(frozen=True)
class Branch:
    """A model's costs; each count by part, with its total.

    Attributes:
        name: of the model.
        refinement: its class and its ``extra_repr``.
        parameters: trainable ones.
        flops: of one image in eval mode.
        evaluations: of an equilibrium's cell in that pass, for the image that needs most; else ``None``.
        activations: bytes that each image of a training step saves for the backward pass.
        step: number of images in a training step.
        step_activations: bytes that a step saves.
    """

    name: str
    refinement: str
    parameters: dict[str, int]
    flops: dict[str, int]
    evaluations: int | None
    activations: dict[str, int]
    step: int
    step_activations: int


def measure(name: str, network: Network, data: CollapseDataModule) -> Branch:
    """Counts the costs of a model on images of its data, with the functions used for a run's record."""
    parts, x = network.parts(), cost_images(data, torch.device("cpu"))
    flops = flops_by_part(parts, x)
    solve = getattr(network.refinement, "forward_solve", None)
    activations, fixed = saved_per_image(parts, x)
    words = network.refinement.extra_repr()
    step = min(data.batch_size, sum(data.class_counts))
    return Branch(
        name=name,
        refinement=type(network.refinement).__name__ + (f"({words})" if words else ""),
        parameters=network.parameter_counts(),
        flops=flops,
        evaluations=None if solve is None else solve.evaluations,
        activations=activations,
        step=step,
        step_activations=fixed[TOTAL] + step * activations[TOTAL],
    )

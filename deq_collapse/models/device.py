"""What a device has to have, and how it has to compute, for a network to be trained and measured on it."""

import os
import shutil

import torch

from deq_collapse.errors import UserError


def prepare_device(kind: str) -> None:
    """Turns TF32 off for convolutions.

    Args:
        kind: of the device, such as ``cpu`` or ``cuda``.

    Raises:
        UserError: for a device without float64.
    """
    if kind == "mps":
        raise UserError("geometry is measured in float64, which mps has not: --trainer.accelerator cpu.")
    # By default GPUs round what convolutions take to ten bits, with which residuals end near 1e-4. It is off
    # for explicit twins, too.
    torch.backends.cudnn.allow_tf32 = False


def check_compiler(kind: str) -> None:
    """Checks that there is the compiler that ``torch.compile`` calls for code of a device.

    Raises:
        UserError: if there is none.
    """
    language, names = {
        "cpu": ("C++", (os.environ.get("CXX", "c++"), "g++", "clang++")),
        "cuda": ("C", (os.environ.get("CC", "cc"), "gcc", "clang")),  # of triton, for what starts a kernel
    }.get(kind, ("", ()))
    if names and not any(map(shutil.which, names)):
        raise UserError(f"model.compile needs a {language} compiler on {kind}, and none is installed.")

"""A training step of a DEQ beside torchdeq's at an equal residual and beside explicit twins of equal FLOPs:
time and peak memory; memory against evaluations; what watching the solves costs.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_steps.py [--device cuda] [--compile]
"""

import argparse
import ctypes
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torchdeq
from lightning.pytorch import Callback, Trainer
from resident import reset, resident
from torch import Tensor, nn

from deq_collapse.allocator import M_MMAP_THRESHOLD, keep_freed_memory
from deq_collapse.callbacks import Diagnostics
from deq_collapse.data import Balanced, CollapseDataModule, Digits
from deq_collapse.models import CollapseModule, ConvCell, ConvEncoder, Equilibrium, Explicit

BATCH, SHAPE, TOL, GROWTH = 128, (64, 8, 8), 1e-4, 10
EQUAL = {"f_stop_mode": "rel", "f_tol": TOL, "f_max_iter": 200}


class TorchDEQ(nn.Module):
    """The same cell under torchdeq's own solvers; ``residual`` is the largest of the last solve."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.cell, self.deq = ConvCell(SHAPE, 0.9), torchdeq.get_deq(**EQUAL, **options)

    def forward(self, h0: Tensor) -> Tensor:
        """Its last state."""
        states, info = self.deq(self.cell.at(h0), torch.zeros_like(h0))
        self.said = f"{int(info['nstep'].max())} evaluations, residual {float(info['rel_lowest'].max()):.0e}"
        return states[-1]


def ours(**options: Any) -> Equilibrium:
    """Our equilibrium, solved to the tolerance."""
    return Equilibrium(SHAPE, partial(ConvCell, lipschitz=0.9), **({"max_iter": 200, "tol": TOL} | options))


def twin(depth: int) -> Explicit:
    """A block applied ``depth`` times."""
    return Explicit(SHAPE, partial(ConvCell, lipschitz=None), depth, tied=depth > 1)


def prepared(make: Callable[[], nn.Module], device: str, last: bool = False) -> Callable[[], nn.Module]:
    """A step of a module whose weights are large and positive, as after training to the bound."""
    torch.manual_seed(0)
    module = make().train().to(device)
    for weight in module.parameters():
        weight.data.abs_().mul_(GROWTH if not isinstance(module, Explicit) else 1)
    memory_format = torch.channels_last if last else torch.contiguous_format
    module = module.to(memory_format=memory_format)
    h0 = torch.randn(BATCH, *SHAPE, device=device).to(memory_format=memory_format).requires_grad_()
    if not isinstance(module, Explicit):
        for _ in range(50):  # what follows the weights step by step gets there
            module.cell.at(h0[:1])

    def step() -> nn.Module:
        module.zero_grad()
        module(h0).square().mean().backward()
        return module

    return step


def said(module: nn.Module) -> str:
    """What the last step's solves took and reached."""
    if isinstance(module, Equilibrium):
        forward, backward = module.forward_solve, module.backward_solve
        text = f"{forward.evaluations} evaluations, residual {float(forward.residual.max()):.0e}"
        return text + (f", backward {backward.evaluations}" if backward else "")
    return getattr(module, "said", "")


def peak_megabytes(make: Callable[[], Callable[[], nn.Module]], device: str) -> float:
    """The most that a step takes above what lies there before it."""
    if device == "cuda":
        step = make()
        step()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return in_child(partial(_peak_of_process, make))


def in_child(measure: Callable[[], Any]) -> Any:
    """What a measurement gives in a process of its own."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(measure()))
    child.start()
    value = receive.recv()
    child.join()
    return value


def _peak_of_process(make: Callable[[], Callable[[], nn.Module]]) -> float:
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)  # what is freed goes back: the heap has no part in it
    step = make()
    reset()
    before = resident("VmRSS")
    step()
    return (resident("VmHWM") - before) / 1024


def evaluations() -> int:
    """Of the cell, in a step of ours."""
    count: int = prepared(ours, "cpu")().forward_solve.evaluations
    return count


def table(makes: dict[str, Callable[[], Callable[[], nn.Module]]], rounds: int, device: str) -> None:
    """Peak memory of each alone, and median times of contenders that take turns."""
    peaks = {name: peak_megabytes(make, device) for name, make in makes.items()}
    keep_freed_memory()
    steps = {name: make() for name, make in makes.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    modules = {name: step() for name, step in steps.items()}
    for _ in range(rounds):
        for name, step in steps.items():
            start = _clock(device)
            step()
            times[name].append(1000 * (_clock(device) - start))
    print(f"\n{'':44} {'ms / step':>10} {'peak MB':>9}")
    for name, module in modules.items():
        print(f"{name:44} {median(times[name]):10.1f} {peaks[name]:9.0f}  {said(module)}", flush=True)


def _clock(device: str) -> float:
    """On a CPU the seconds of this process: others distort them less than the wall clock's."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compiled() -> Equilibrium:
    """Ours, its cell compiled."""
    equilibrium = ours()
    equilibrium.compile(dynamic=False)
    return equilibrium


def steps(rounds: int, device: str, with_compile: bool) -> None:
    """The second table."""
    depth = in_child(evaluations)
    makes = {
        "ours, ift": (ours, False),
        "ours, ift, channels_last": (ours, True),
        **({"ours, ift, compiled": (compiled, False)} if with_compile else {}),
        "ours, jfb": (partial(ours, gradient="jfb"), False),
        "torchdeq, its defaults (one-step gradient)": (TorchDEQ, False),
        "torchdeq, ift, its default solvers": (
            partial(TorchDEQ, ift=True, b_stop_mode="rel", b_tol=TOL, b_max_iter=200),
            False,
        ),
        "torchdeq, ift, anderson": (
            partial(
                TorchDEQ, f_solver="anderson", b_solver="anderson", ift=True, b_stop_mode="rel", b_tol=TOL,
                b_max_iter=200,
            ),
            False,
        ),
        "explicit, 1 block": (partial(twin, 1), False),
        f"explicit, tied {depth} times: equal FLOPs forward": (partial(twin, depth), False),
    }  # fmt: skip
    table(
        {name: partial(prepared, make, device, last) for name, (make, last) in makes.items()}, rounds, device
    )


def memory(device: str) -> None:
    """The first table: the peak of a step whose solves take so many evaluations in each direction."""
    print(f"{'evaluations, forward and backward each':44} {'peak MB':>9} {'tied blocks':>12}")
    for count in (5, 10, 20, 40, 80):
        make = partial(ours, max_iter=count, tol=1e-30, backward_tol=1e-30)
        peaks = [
            peak_megabytes(partial(prepared, each, device), device) for each in (make, partial(twin, count))
        ]
        print(f"{count:44} {peaks[0]:9.0f} {peaks[1]:12.0f}", flush=True)


class Timed(Diagnostics):
    """Diagnostics that count the time of their own hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = {"training": 0.0, "measuring": 0.0}

    def __getattribute__(self, name: str) -> Any:
        hook = super().__getattribute__(name)
        if name not in Diagnostics.__dict__ or not name.startswith("on_"):
            return hook
        part = "measuring" if name.startswith(("on_validation", "on_test")) else "training"

        def timed(*args: Any, **options: Any) -> None:
            start = time.process_time()
            hook(*args, **options)
            self.spent[part] += time.process_time() - start

        return timed


def watching() -> None:
    """What the diagnostics of a real run take of its training steps and of its measurements."""
    module = CollapseModule(
        encoder=partial(ConvEncoder, width=48),
        refinement=partial(Equilibrium, cell=partial(ConvCell, lipschitz=0.9)),
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        image_shape=(1, 8, 8),
        class_counts=(139,) * 10,
    )
    timed, clocks = Timed(), Clocks()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(action="ignore"):
        options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        Trainer(
            max_epochs=10, accelerator="cpu", devices=1, callbacks=[timed, clocks], num_sanity_val_steps=0,
            default_root_dir=directory, enable_checkpointing=False, **options,
        ).fit(module, CollapseDataModule(Digits(), Balanced(139)))  # fmt: skip
    print("\nDiagnostics of a DEQ on digits, of the time of")
    for part, spent in timed.spent.items():
        print(f"  {part:12} {spent / clocks.spent[part]:6.2%}  ({spent:.2f} of {clocks.spent[part]:.1f} s)")


class Clocks(Callback):
    """CPU seconds in training epochs, without their validation, and in validation."""

    def __init__(self) -> None:
        self.spent = {"training": 0.0, "measuring": 0.0}
        self.mark = 0.0

    def _next(self, part: str | None) -> None:
        now = time.process_time()
        if part:
            self.spent[part] += now - self.mark
        self.mark = now

    def on_train_epoch_start(self, *_: Any) -> None:
        """Training begins."""
        self._next(None)

    def on_validation_start(self, *_: Any) -> None:
        """It pauses."""
        self._next("training")

    def on_validation_end(self, *_: Any) -> None:
        """And goes on."""
        self._next("measuring")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"A training step of a refinement, {SHAPE}, batch {BATCH}, on {arguments.device}")
    memory(arguments.device)
    steps(arguments.rounds, arguments.device, arguments.compile)
    watching()


if __name__ == "__main__":
    main()

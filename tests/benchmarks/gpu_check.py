"""Everything that needs CUDA, checked on one machine in under five minutes; a table of throughput and memory.

python tests/benchmarks/gpu_check.py [CHECK ...] [--device cpu]

Without a GPU it says so and ends well; `--device cpu` runs the same checks on small sizes, with two gloo
ranks in the place of one nccl rank per GPU. It ends with 1 where a check failed. The table goes to the
standard output, everything else to the standard error: make gpu-check > docs/results/gpu.md
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from deq_collapse.callbacks.environment import commit
from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.run import lightning_main
from deq_collapse.metrics import NeuralCollapse

CONF = Path(__file__).parents[2] / "conf"
FAMILIES = sorted(path.name for path in (CONF / "family").iterdir() if path.is_dir())
BOTH = ("once", "equilibrium")
LIMIT = 600
"""Seconds after which a run in a process of its own has failed."""


class Row(NamedTuple):
    """What was checked, what came out, training images a second, and the most memory held, in bytes."""

    what: str
    found: str
    speed: float | None = None
    peak: int | None = None


class Machine(NamedTuple):
    """Where the checks run, how large they are, and a folder for what they leave."""

    device: str
    folder: Path

    @property
    def gpu(self) -> bool:
        """Whether this is no rehearsal."""
        return self.device == "cuda"

    @property
    def ranks(self) -> int:
        """Of the run with several: one per GPU."""
        return torch.cuda.device_count() if self.gpu else 2

    @property
    def batch(self) -> int:
        """Images of a training step."""
        return 128 if self.gpu else 16

    def images(self) -> Path:
        """A file of images, ten blurred patterns with noise: CIFAR-sized on a GPU."""
        path = self.folder / "images.npz"
        if not path.exists():
            rng, side, count = np.random.default_rng(0), *((32, 2560) if self.gpu else (8, 160))
            patterns = rng.uniform(64, 192, (10, side, side, 3))
            arrays = {}
            for split, n in (("train", count), ("test", count // 4)):
                labels = np.arange(n) % 10
                noisy = patterns[labels] + rng.normal(0, 40, (n, side, side, 3))
                arrays[f"{split}_images"] = noisy.clip(0, 255).astype(np.uint8)
                arrays[f"{split}_labels"] = labels
            np.savez(path, **arrays)
        return path

    def arguments(self, name: str, family: str, refinement: str, *more: str) -> list[str]:
        """Of the command line, for a short fit."""
        configs = ["trainer/cpu", "data/npz", "model/common", f"family/{family}/{refinement}"]
        named = [part for each in configs for part in ("--config", str(CONF / f"{each}.yaml"))]
        width = (
            [] if self.gpu or family in ("mdeq", "transformer") else ["--model.encoder.init_args.width", "8"]
        )
        return [
            "fit", *named, *width,
            "--data.source.init_args.path", str(self.images()),
            "--data.batch_size", str(self.batch),
            "--trainer.accelerator", "gpu" if self.gpu else "cpu",
            "--trainer.max_epochs", "2",
            "--trainer.default_root_dir", str(self.folder / name), "--name", name,
            *more,
        ]  # fmt: skip

    def fit(self, name: str, family: str, refinement: str, *more: str) -> tuple[CollapseCLI, Row]:
        """A fit in this process, and its row."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        cli = lightning_main(self.arguments(name, family, refinement, *more))
        history = pd.read_csv(self.folder / name / "history.csv")
        losses = history[(history.split == "fit") & (history.metric == "loss")].value.tolist()
        require(all(map(np.isfinite, losses)), f"the loss is {losses}")
        seconds = pd.read_json(self.folder / name / "result.json", typ="series")["seconds_per_step"]
        peak = torch.cuda.max_memory_allocated() if self.gpu else None
        return cli, Row(name, f"loss {losses[-1]:.3f}", self.batch / seconds, peak)

    def process(self, args: list[str]) -> subprocess.Popen[str]:
        """The same command line as a process of its own."""
        command = [sys.executable, "-m", "deq_collapse.cli", *args]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, start_new_session=True, **quiet)


def require(fact: bool, otherwise: str) -> None:
    """Ends a check whose fact does not hold."""
    if not fact:
        raise AssertionError(otherwise)


def weights(machine: Machine, name: str) -> dict[str, Tensor]:
    """Of a run that has ended."""
    path = machine.folder / name / "last.ckpt"
    found: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return found


def same_bits(machine: Machine, a: str, b: str) -> None:
    """Requires that two runs ended alike."""
    first, second = weights(machine, a), weights(machine, b)
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    require(not differing, f"{len(differing)} tensors differ in their bits, as {differing[:1]}")


def families(machine: Machine) -> Iterator[Row]:
    """A fit of each, its cell once and its equilibrium, deterministic as every run of ours."""
    for family in FAMILIES:
        for refinement in BOTH:
            yield machine.fit(f"{family}, {refinement}", family, refinement)[1]


def deterministic(machine: Machine) -> Iterator[Row]:
    """Two fits end in the same bits."""
    for refinement in BOTH:
        names = [f"{refinement}, again {n}" for n in (1, 2)]
        rows = [machine.fit(name, "residual", refinement)[1] for name in names]
        same_bits(machine, *names)
        yield rows[1]._replace(what=f"residual, {refinement}", found="twice the same bits")


def precision(machine: Machine) -> Iterator[Row]:
    """bf16-mixed."""
    for refinement in BOTH:
        options = ("--trainer.precision", "bf16-mixed")
        yield machine.fit(f"residual, {refinement}, bf16-mixed", "residual", refinement, *options)[1]


def compiled(machine: Machine) -> Iterator[Row]:
    """torch.compile, whose loss is that of the eager network to rounding."""
    for refinement in BOTH:
        name = f"contraction, {refinement}"
        eager = machine.fit(f"{name}, eager", "contraction", refinement)[1]
        row = machine.fit(f"{name}, compiled", "contraction", refinement, "--model.compile", "true")[1]
        losses = [float(each.found.split()[1]) for each in (eager, row)]
        require(
            abs(losses[0] - losses[1]) < 0.05, f"the losses are {losses[0]} eager and {losses[1]} compiled"
        )
        yield row._replace(found=f"{row.found}, eager {losses[0]:.3f}")


def metric(machine: Machine) -> Iterator[Row]:
    """No update makes the host wait for the device, and the values are those of float64 on a CPU."""
    classes, width, rows = (100, 512, 2048) if machine.gpu else (5, 8, 40)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(8 * rows) % classes
    features = torch.randn(classes, width, generator=draw)[labels] + torch.randn(
        8 * rows, width, generator=draw
    )
    weight = torch.randn(classes, width, generator=draw)
    watch = NeuralCollapse(classes, width).to(machine.device)
    batches = [
        (x.to(machine.device), y.to(machine.device))
        for x, y in zip(features.split(rows), labels.split(rows), strict=True)
    ]
    on_device = weight.to(machine.device)
    watch.update(*batches[0], on_device)
    wait(machine)
    start = time.perf_counter()
    if machine.gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            watch.update(*batch, on_device)
    finally:
        if machine.gpu:
            torch.cuda.set_sync_debug_mode("default")
    wait(machine)
    speed = 7 * rows / (time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if machine.gpu else None
    exact = NeuralCollapse(classes, width)
    exact.update(features.double(), labels, weight.double())
    found, expected = watch.compute(), exact.compute()
    apart = max(
        float(abs(found[name].cpu() / expected[name] - 1)) for name in ("nc1", "nc2_etf_means", "nc3")
    )
    require(apart < 1e-5, f"the values are {apart:.0e} from those of a CPU")
    yield Row(
        f"NeuralCollapse, {classes} x {width}", f"no wait; {apart:.0e} from a CPU's float64", speed, peak
    )


def resume(machine: Machine) -> Iterator[Row]:
    """A run that is killed and goes on ends in the bits of one that was not; steps draw random numbers."""
    row = machine.fit("whole", "residual", "equilibrium")[1]
    killed = machine.process(args := machine.arguments("killed", "residual", "equilibrium"))
    history, started = machine.folder / "killed" / "history.csv", time.monotonic()
    while killed.poll() is None and not history.exists():
        require(time.monotonic() - started < LIMIT, "no epoch ended in time")
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    require(killed.wait() == -signal.SIGKILL, f"the run ended by itself: {killed.communicate()[1]}")
    lightning_main([*args, "--ckpt_path", "last"])
    same_bits(machine, "whole", "killed")
    yield row._replace(what="residual, equilibrium, killed", found="the bits of an undisturbed run")


def ranks(machine: Machine) -> Iterator[Row]:
    """DDP on every device; one process measures the same of its weights."""
    count, name = machine.ranks, f"contraction, equilibrium, {machine.ranks} ranks"
    options = ["--trainer.devices", str(count), "--trainer.strategy", "ddp"]
    run = machine.process([*machine.arguments(name, "contraction", "equilibrium"), *options])
    try:
        errors = run.communicate(timeout=LIMIT)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # its ranks too
    require(run.returncode == 0, f"it ended with {run.returncode}: {errors.strip()[-300:]}")
    record = pd.read_json(machine.folder / name / "result.json", typ="series")
    config = str(machine.folder / name / "config.yaml")
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--ckpt_path", "last"]
    measured = lightning_main(["validate", "--config", config, *one]).trainer.callback_metrics
    apart = abs(float(measured["train/nc1"]) / record["train"]["nc1"] - 1)
    require(apart < 1e-3, f"NC1 of the same weights differs by {apart:.0e}")
    speed = count * machine.batch / record["seconds_per_step"]
    yield Row(name, f"NC1 {apart:.0e} from one process's", speed)


def wait(machine: Machine) -> None:
    """For what the device still has to do."""
    if machine.gpu:
        torch.cuda.synchronize()


CHECKS: dict[str, Callable[[Machine], Iterator[Row]]] = {
    check.__name__: check for check in (families, deterministic, precision, metric, resume, ranks, compiled)
}


def run(machine: Machine, names: list[str]) -> tuple[list[Row], list[str]]:
    """The rows of these checks, and a sentence for each that failed."""
    rows, failures = [], []
    for name in names:
        try:
            for row in CHECKS[name](machine):
                print(f"{name}: {row.what}: {row.found}", file=sys.stderr, flush=True)
                rows.append(row)
        except Exception as error:
            traceback.print_exc()
            failures.append(
                f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    return rows, failures


def tell(machine: Machine, rows: list[Row], failures: list[str], seconds: float) -> None:
    """The table, as Markdown."""
    devices = (
        [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if machine.gpu else ["cpu"]
    )
    console = Console(width=120)
    console.print(f"{', '.join(devices)}; torch {torch.__version__}; commit {commit()}; {seconds:.0f} s\n")
    table = Table("check", "found", "images / s", "peak MiB", box=box.MARKDOWN)
    for row in rows:
        speed = "" if row.speed is None else f"{row.speed:,.0f}"
        table.add_row(row.what, row.found, speed, "" if row.peak is None else f"{row.peak / 2**20:,.0f}")
    console.print(table)
    for failure in failures:
        console.print(f"FAILED {failure}", soft_wrap=True)


def main() -> int:
    """Checks what is asked for, by default everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; by default all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    unknown = [name for name in given.checks if name not in CHECKS]
    if unknown:
        parser.error(f"there is no check {unknown[0]}; there are {', '.join(CHECKS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check is skipped: torch finds no GPU on this machine (--device cpu rehearses it).")
        return 0
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product on a GPU
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(given.device, Path(folder))
        with redirect_stdout(sys.stderr):
            rows, failures = run(machine, given.checks or list(CHECKS))
    tell(machine, rows, failures, time.monotonic() - start)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""What wandb takes from a training: CPU time of its thread and its process, and waiting.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_wandb.py

Conditions: offline, online, and online with a server that is gone, hangs, or fails after the login. Each is a
process that logs an epoch of 120 values every second and does nothing else: what it uses is wandb's. CPU time
is hardly distorted by other work on the machine.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import run
from threading import Timer

TESTS = Path(__file__).parents[1]
CONDITIONS = {
    "offline": "offline",
    "well": "online",
    "gone": "online, connection refused",
    "hangs": "online, server hangs",
    "lost": "online, server answers 500 after the login",
}
WARM_UP = 35.0
"""Seconds after which every condition has started or given up to."""


def serve(conduct: str, address: Connection) -> None:
    """A server of a conduct; ``lost`` fails some seconds after a run has been created."""
    sys.path.insert(0, str(TESTS))
    from conftest import WandbServer

    with WandbServer() as server:
        server.conduct = "well" if conduct == "lost" else conduct
        if conduct == "lost":
            Timer(20, lambda: setattr(server, "conduct", "fails")).start()
        address.send(server.url)
        server.serve_forever()


def measure(condition: str, seconds: int) -> None:
    """Prints CPU seconds of the start and per second after it, and how long training waits at most."""
    from deq_collapse.tracking.logger import CollapseWandbLogger

    before, longest = cpu(), 0.0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        logger = CollapseWandbLogger("run", directory, mode="offline" if condition == "offline" else "online")
        waited = time.perf_counter()
        _ = logger.experiment
        started_in = time.perf_counter() - waited
        at_start, steady_from = before, start
        for epoch in range(int(WARM_UP) + seconds):
            if epoch == int(WARM_UP):
                at_start, steady_from = cpu(), time.monotonic()
            waited = time.perf_counter()
            logger.log_metrics({f"train/{i}": 1 / (1 + epoch + i) for i in range(120)} | {"epoch": epoch})
            longest = max(longest, time.perf_counter() - waited)
            time.sleep(max(0.0, start + epoch + 1 - time.monotonic()))
        steady = (cpu() - at_start) / (time.monotonic() - steady_from)
        print(
            json.dumps({"start": at_start - before, "steady": steady, "first": started_in, "call": longest})
        )
        sys.stdout.flush()
        os._exit(0)


def cpu() -> float:
    """CPU seconds of this process and of its children that run."""
    mine = os.times()
    total = mine.user + mine.system
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(values[1]) == os.getpid():
            total += (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return total


def condition(name: str, seconds: int) -> dict[str, float]:
    """Measures a condition in a process of its own."""
    url, server = "http://127.0.0.1:9", None
    if name not in ("offline", "gone"):
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(name, theirs), daemon=True)
        server.start()
        url = ours.recv()
    home = tempfile.mkdtemp()
    environment = {f"WANDB_{key}": home for key in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR")}
    environment |= {"WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false", "WANDB_BASE_URL": url}
    command = [sys.executable, __file__, "--measure", name, "--seconds", str(seconds)]
    done = run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    if server is not None:
        server.terminate()
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measures all conditions at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--measure", choices=CONDITIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.seconds)
    with ThreadPoolExecutor() as pool:
        results = {name: pool.submit(condition, name, options.seconds) for name in CONDITIONS}
    for name, result in results.items():
        values = result.result()
        print(
            f"{CONDITIONS[name]:<42} start {values['start']:4.2f} CPU s, {values['steady']:5.2%} of a core;"
            f" waited {values['first']:6.3f} s for the start, at most {values['call']:6.4f} s for an epoch"
        )


if __name__ == "__main__":
    main()

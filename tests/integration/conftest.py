"""Calling the command line in this process, on small runs of real digits."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from deq_collapse.cli import main

CONF = Path(__file__).parents[2] / "conf"
SMALL = ["--model.encoder.init_args.width", "8", "--schedule.dense", "2"]


def _small_fit(directory: Path, *args: str, refinement: str = "explicit", epochs: int = 2) -> list[str]:
    configs = ["run/digits.yaml", "data/step.yaml", f"model/{refinement}.yaml"]
    named = [part for config in configs for part in ("--config", str(CONF / config))]
    where = ["--trainer.default_root_dir", str(directory), "--trainer.max_epochs", str(epochs)]
    return ["fit", *named, *SMALL, *where, *args]


@pytest.fixture(scope="session")
def small_fit() -> Callable[..., list[str]]:
    """Makes the arguments of a fit that takes a second or two."""
    return _small_fit


def _tiny_study(directory: Path, *configs: str, epochs: int = 2, **content: object) -> Path:
    small = {"trainer.max_epochs": epochs, "model.encoder.init_args.width": 8, "schedule.dense": 2}
    study = {
        "name": "tiny",
        "output": str(directory),
        "config": [str(CONF / config) for config in ("run/digits.yaml", *configs)],
        "axes": {"refinement": {n: str(CONF / "model" / f"{n}.yaml") for n in ("explicit", "equilibrium")}},
        "override": [small],
    }
    directory.mkdir(exist_ok=True)
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(study | content, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def tiny_study() -> Callable[..., Path]:
    """Writes the file of a study of two small runs on digits, which go below the file's directory; its keys
    can be others.
    """
    return _tiny_study


@pytest.fixture(scope="session")
def fashion_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files in Fashion-MNIST's own format: 300 training and 100 test images of noise."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 300), ("t10k", 100)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, n, 28, 28) + images.tobytes()
        )
        labels = np.arange(n, dtype=np.uint8) % 10
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, n) + labels.tobytes())
    return root


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused with exit code 2 and one line; returns that line."""

    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(args) == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1, printed.err
        assert "Traceback" not in printed.err + printed.out
        return printed.err.removeprefix("deq-collapse: ").strip()

    return run

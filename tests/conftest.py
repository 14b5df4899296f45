"""What all tests share: the examples of hypothesis; a stand-in for a wandb server, what the client of wandb
0.31 asks of one, on 127.0.0.1; and study folders of the real layout with made-up but plausible numbers.
"""

import gzip
import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings

from deq_collapse.runs.config import Saved, imbalance_words
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study, read_study

# The same examples every time, and no time limit: the machine may be busy.
settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")

# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class WandbServer(ThreadingHTTPServer):
    """Answers wandb's requests and keeps what they brought.

    Attributes:
        conduct: ``well``; ``fails`` answers 500; ``hangs`` never answers; ``slow`` answers after a second;
            ``refuses`` knows no login.
        asked: the names of all GraphQL operations, in order.
        runs: what each run was created with, by id.
        config: of each run, by id.
        history: the rows of each run, by id.
        artifacts: files by artifact, as ``name`` of type ``type``.
        views: saved dashboards by name.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.conduct = "well"
        self.closing = threading.Event()
        self.asked: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.config: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.artifacts: dict[str, list[str]] = {}
        self.types: dict[str, str] = {}
        self.views: dict[str, dict[str, Any]] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        self.asked.append(operation)
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "UpsertBucket": self._run,
            "CreateRunFiles": lambda given: {
                "createRunFiles": {
                    "runID": "cnVu",
                    "uploadHeaders": [],
                    "files": [{"name": name, "uploadUrl": f"{self.url}/put"} for name in given["files"]],
                }
            },
            "CreateArtifact": self._artifact,
            "CreateArtifactFiles": self._files,
            "CreateArtifactManifest": self._manifest,
            "CommitArtifact": lambda given: {
                "commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}
            },
            "UpsertView2": self._view,
            "View": self._views,
        }
        if operation in answers:
            return answers[operation](given)
        me = {"id": "bWU=", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": me, "model": None, "project": None, "entity": None}

    def _run(self, given: dict[str, Any]) -> dict[str, Any]:
        name, config = given["name"], json.loads(given["config"] or "{}")
        self.runs.setdefault(name, given)
        self.config.setdefault(name, {}).update({key: entry["value"] for key, entry in config.items()})
        project = {"id": "cHJv", "name": given["project"], "entity": {"id": "ZW50", "name": "me"}}
        bucket = {"id": "cnVu", "name": name, "displayName": given["displayName"], "config": "{}"}
        bucket |= {"description": "", "sweepName": None, "historyLineCount": 0, "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["input"]["artifactCollectionName"]
        self.artifacts[name], self.types[name] = [], given["input"]["artifactTypeName"]
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _files(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in given["input"]["artifactFiles"]:
            self.artifacts[file["artifactID"]].append(file["name"])
            node = {"storagePath": "", "uploadUrl": f"{self.url}/put", "uploadHeaders": []}
            node |= {"uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "ZmlsZQ==", "uploadUrl": f"{self.url}/put", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "bWFu", "file": file}}}

    def _view(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.views
        self.views[given["name"]] = given | {"spec": json.loads(given["spec"])}
        view = {"id": f"id of {given['name']}", "name": given["name"]}
        return {"upsertView": {"view": view, "inserted": inserted}}

    def _views(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {"id": f"id of {name}", "displayName": view["displayName"], "spec": json.dumps(view["spec"])}
            for name, view in self.views.items()
            if name == given["viewName"]
        ]
        return {"project": {"allViews": {"edges": [{"node": node} for node in nodes]}}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._reply({})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        stream = re.fullmatch(r"/files/me/[^/]+/([^/]+)/file_stream", self.path)
        if self.path == "/graphql" and self.server.conduct == "well":
            asked = json.loads(content)
            (operation,) = re.findall(r"(?:query|mutation)\s+(\w+)", asked["query"])[:1]
            self._reply({"data": self.server.answer(operation, asked.get("variables") or {})})
            return
        if stream and self.server.conduct == "well":
            lines = json.loads(content).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.history.setdefault(stream[1], []).extend(map(json.loads, lines))
        self._reply({})

    def _reply(self, content: dict[str, Any]) -> None:
        status = {"fails": 500, "refuses": 401}.get(self.server.conduct, 200)
        if self.server.conduct in ("hangs", "slow"):
            self.server.closing.wait(1 if self.server.conduct == "slow" else None)
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def wandb_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A wandb server that knows one login; wandb's client is told of both."""
    import wandb

    with WandbServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {"BASE_URL": server.url, "API_KEY": "0" * 40, "ERROR_REPORTING": "false"}
        settings |= dict.fromkeys(("CONFIG_DIR", "CACHE_DIR", "DATA_DIR", "DIR"), str(tmp_path / "home"))
        for name, value in settings.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        wandb.teardown()  # it reads the environment once
        yield server
        wandb.teardown()
        server.closing.set()
        server.shutdown()


K, D, EPOCHS = 10, 24, 60
SCHEDULE = [*range(1, 11), *range(12, 30, 2), *range(30, EPOCHS + 1, 5)]
NC1_RATE = {"explicit": 0.075, "equilibrium": 0.10}


def _curves(
    rng: np.random.Generator, refinement: str, step: bool
) -> tuple[dict[str, dict[str, list[float]]], int]:
    """Values by split, metric and measured epoch, and the first epoch with training error 0."""
    epochs = np.array(SCHEDULE)
    rate = NC1_RATE[refinement]
    noise = np.exp(0.06 * rng.standard_normal((6, len(epochs))))
    error = np.floor(1000 * 0.35 * np.exp(-2.2 * rate * epochs)) / 1000
    train = {
        "nc1": 1.9 * np.exp(-rate * epochs) * noise[0] + 0.003,
        "nc2_etf_means": 0.75 * np.exp(-0.03 * epochs) * noise[1] + (0.2 if step else 0.03),
        "nc3": 1.3 * np.exp(-rate * 0.8 * epochs) * noise[2] + 0.01,
        "nc4": np.floor(700 * 0.2 * np.exp(-3 * rate * epochs)) / 700,
        "error": error,
        "accuracy": 1 - error,
        "loss": 2.3 * np.exp(-rate * epochs) * noise[4],
    }
    test = {
        "nc1": train["nc1"] + 0.25 * noise[3],
        "nc2_etf_means": train["nc2_etf_means"] * 1.1,
        "nc3": train["nc3"] * 1.15 + 0.02,
        "nc4": 0.03 + 0.2 * np.exp(-rate * epochs),
        "error": 0.05 + 0.4 * np.exp(-rate * epochs),
        "accuracy": 0.95 - 0.4 * np.exp(-rate * epochs),
        "loss": 0.2 + 2.1 * np.exp(-rate * epochs) * noise[5],
    }
    if step:
        for split, top in ((train, 1.0), (test, 0.9)):
            split["accuracy_majority"] = np.minimum(1.0, top + 0.08 - 0.3 * np.exp(-2 * rate * epochs))
            split["accuracy_minority"] = top - 0.85 * np.exp(-rate * epochs)
            split["minority_cos_weights_mean"] = 0.4 * np.exp(-0.04 * epochs)
            split["minority_cos_means_mean"] = 0.3 * np.exp(-0.04 * epochs)
    terminal = int(epochs[np.argmax(error == 0)])
    curves = {s: {m: v.tolist() for m, v in t.items()} for s, t in (("train", train), ("test", test))}
    return curves, terminal


def _step(imbalance: str) -> tuple[int, float] | None:
    """K_A and R of a label such as `step_ka3_r10`."""
    found = re.fullmatch(r"step_ka(\d+)_r(\d+)", imbalance)
    return (int(found[1]), float(found[2])) if found else None


def _imbalance(label: str) -> dict[str, Any]:
    """What the configuration of a run with such a label holds."""
    step = _step(label)
    options = {"num_majority": step[0], "ratio": step[1]} if step else {}
    return {"class_path": f"deq_collapse.data.{'Step' if step else 'Balanced'}", "init_args": options}


def _geometry(rng: np.random.Generator, majority: int, ratio: float, samples: int) -> dict[str, Any]:
    means = np.linalg.qr(rng.standard_normal((D, K)))[0].T * 5
    means = means - means.mean(0) + 0.25 * rng.standard_normal((K, D))
    if majority:
        means[majority:] += 0.6 * np.sqrt(ratio) * means[majority:].mean(0)
    labels = rng.integers(0, K, samples)
    return {
        "class_means_train": means + 1,
        "class_means_test": means + 1.1,
        "weight": means / 3 + 0.05 * rng.standard_normal((K, D)),
        "bias": np.zeros(K),
        "test_features": (means[labels] + 1 + 1.6 * rng.standard_normal((samples, D))).astype(np.float32),
        "test_labels": labels,
        "class_names": np.array([str(c) for c in range(K)]),
        "majority": np.arange(majority),
    }


def _write_run(study: Path, imbalance: str, refinement: str, seed: int, samples: int) -> dict[str, Any]:
    majority, ratio = _step(imbalance) or (0, 1.0)
    counts = [139] * majority + [max(1, round(139 / ratio))] * (K - majority)
    rng = np.random.default_rng([seed, majority, int(ratio), refinement == "explicit"])
    curves, terminal = _curves(rng, refinement, majority > 0)
    name = f"{imbalance}-{refinement}-seed{seed}"
    (study / name).mkdir()
    rows = [
        (epoch, 11 * epoch, split, metric, values[i])
        for i, epoch in enumerate(SCHEDULE)
        for split, metrics in curves.items()
        for metric, values in metrics.items()
    ]
    table = pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])
    table.to_csv(study / name / "history.csv", index=False)
    np.savez(study / name / "geometry.npz", **_geometry(rng, majority, ratio, samples))
    environment = {
        "commit": "0123abc",
        "device": "cpu",
        "versions": {"torch": "2.11.0", "lightning": "2.6.4"},
    }
    (study / name / "environment.json").write_text(json.dumps(environment))
    solver = {
        "gradient": "ift",
        "forward_evaluations": 11.4,
        "backward_evaluations": 9.2,
        "residual": 8.8e-5,
        "unconverged": 0.0,
        "unconverged_worst_epoch": 0.0005,
        "tolerance": 1e-4,
    }
    parts = {"encoder": 9440, "refinement": 18_560 + 16 * (refinement == "explicit"), "classifier": 650}
    nc1 = curves["train"]["nc1"]
    record = {
        "name": name,
        "axes": {"imbalance": imbalance, "refinement": refinement, "seed": str(seed)},
        "study": "demo",
        "class_counts": counts,
        "majority": list(range(majority)) or None,
        "dataset": "digits",
        "epochs": EPOCHS,
        "steps": 11 * EPOCHS,
        "parameters": {**parts, "total": sum(parts.values())},
        "flops_per_image": 1_234_567 * (9 if refinement == "equilibrium" else 1),
        "activation_bytes": 5 * 2**20,
        "seconds_per_step": 0.034 if refinement == "equilibrium" else 0.012,
        "terminal_epoch": terminal,
        "nc1_fall": nc1[0] / nc1[-1],
        **{split: {m: v[-1] for m, v in metrics.items()} for split, metrics in curves.items()},
        "solver": solver if refinement == "equilibrium" else None,
    }
    (study / name / "result.json").write_text(json.dumps(record))
    criterion = {"class_path": "deq_collapse.losses.CrossEntropy"}
    config = {"data": {"imbalance": _imbalance(imbalance)}, "model": {"criterion": criterion}}
    (study / name / "config.yaml").write_text(yaml.safe_dump(config))
    return record


def _write_study(
    study: Path,
    imbalances: tuple[str, ...] = ("balanced", "step_ka3_r10"),
    refinements: tuple[str, ...] = ("explicit", "equilibrium"),
    seeds: int = 1,
    samples: int = 60,
    edit: Callable[[dict[str, Any]], None] = lambda results: None,
) -> Path:
    study.mkdir(parents=True)
    grid = [(i, r, s) for i in imbalances for r in refinements for s in range(seeds)]
    runs = [_write_run(study, *cell, samples) for cell in grid]
    results = {"study": "demo", "command": "deq-collapse study run conf/study/demo.yaml", "runs": runs}
    results["failed"] = []
    edit(results)
    (study / "results.json").write_text(json.dumps(results))
    return study


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """Write a study folder; `edit` may change the results before they are written."""
    return partial(_write_study, tmp_path / "studies" / "demo")


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two K_A, two R and balanced: enough settings for small multiples; two seeds."""
    steps = [f"step_ka{majority}_r{ratio}" for majority in (3, 5) for ratio in (10, 100)]
    return read_study(_write_study(tmp_path_factory.mktemp("grid") / "demo", ("balanced", *steps), seeds=2))


Values = Callable[[str, str, int], dict[str, Any]]


@pytest.fixture
def made_up() -> Callable[..., Study]:
    """A study in memory: `values` gives each run's changes by imbalance, refinement and seed."""

    def make(
        values: Values = lambda imbalance, refinement, seed: {},
        imbalances: tuple[str, ...] = ("step_ka3_r10",),
        refinements: tuple[str, ...] = ("explicit", "equilibrium"),
        seeds: int = 3,
        missing: tuple[str, ...] = (),
        axes: dict[str, str] | None = None,
    ) -> Study:
        grid = [(i, r, s) for i in imbalances for r in refinements for s in range(seeds)]
        planned = [{**(axes or {}), "imbalance": i, "refinement": r, "seed": str(s)} for i, r, s in grid]
        runs = [
            _run(entry, values(*cell))
            for cell, entry in zip(grid, planned, strict=True)
            if "-".join(map(str, cell)) not in missing
        ]
        words = {imbalance: imbalance_words(_imbalance(imbalance)) for imbalance in imbalances}
        return Study("made up", "a command", tuple(runs), (), tuple(planned), imbalances=words)

    return make


@pytest.fixture
def noisy() -> Values:
    """Values that are different for every run; DEQ is a little better."""

    def values(imbalance: str, refinement: str, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng([len(imbalance), refinement == "explicit", seed])
        better = refinement == "equilibrium"
        nc1 = 0.01 * math.exp(0.3 * rng.standard_normal() - better)
        accuracy = 0.9 + 0.01 * rng.standard_normal() + 0.02 * better
        return {"train": {"nc1": nc1}, "test": {"accuracy": accuracy, "balanced_accuracy": 0.5}}

    return values


def _run(axes: dict[str, str], changes: dict[str, Any]) -> Run:
    step = axes["imbalance"].startswith("step")
    accuracies = {"accuracy": 0.9} | ({"accuracy_majority": 0.95, "accuracy_minority": 0.8} if step else {})
    own: dict[str, Any] = {
        "name": "-".join(axes.values()),
        "axes": axes,
        "dataset": "digits",
        "class_counts": (100,) * 3 + (10,) * 7 if step else (100,) * 10,
        "majority": (0, 1, 2) if step else None,
        "epochs": 10,
        "steps": 100,
        "parameters": {"total": 1000},
        "flops_per_image": 1e6,
        "activation_bytes": 2.0**20,
        "seconds_per_step": 0.1,
        "terminal_epoch": 5,
        "nc1_fall": 100.0,
        "train": {"nc1": 0.01, "nc2_etf_means": 0.2, "nc3": 0.1, "nc4": 0.0, "loss": 0.001},
        "validation": {},
        "test": accuracies,
        "solver": None,
        "history": pd.DataFrame(columns=["epoch", "step", "split", "metric", "value"]),
        "geometry": None,
        "environment": {},
        "along": None,
        "theory": None,
        "saved": Saved(imbalance_words(_imbalance(axes["imbalance"])), "cross entropy"),
    }
    for split in ("train", "test"):
        own[split] = own[split] | changes.pop(split, {})
    return Run(**(own | changes))

"""What a run leaves on Weights & Biases, read from real files and from a server's stand-in."""

import contextlib
import io
import json
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf
from wandb.cli.cli import cli
from wandb.proto import wandb_internal_pb2

from deq_collapse.callbacks import History
from deq_collapse.cli import main
from deq_collapse.cli.study import _tell_unsent
from deq_collapse.errors import UserError
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.tracking import logger as module
from deq_collapse.tracking.logger import CollapseWandbLogger
from deq_collapse.tracking.unsent import command, is_whole, note, unsent

CONF = Path(__file__).parents[2] / "conf"
FIT = ["fit", "--config", str(CONF / "run/digits.yaml"), "--config", str(CONF / "model/explicit.yaml")]
SMALL = ["--trainer.max_epochs", "2", "--model.encoder.init_args.width", "8"]
WANDB = ["--config", str(CONF / "logger/wandb.yaml")]
NAMED = ["--name", "balanced-explicit-seed0", "--study", "tiny", "--axes", '{"refinement": "explicit"}']
BLOCK, HEADER = 32768, 7

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # Lightning calls what jsonargparse has deprecated.
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]


def records(directory: Path) -> list[Any]:
    """The records of a ``.wandb`` file: LevelDB's log format, after a header of its own."""
    wandb.teardown()  # its process may still be writing
    (path,) = directory.glob("*.wandb")
    content, at, parts, found = path.read_bytes(), HEADER, b"", []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # a block's last bytes hold no record
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<4xHB", content[at : at + HEADER])
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


@dataclass(frozen=True)
class Logged:
    """What one start of a run wrote."""

    run: Any
    config: dict[str, Any]
    history: list[dict[str, Any]]
    exit_code: int

    @classmethod
    def read(cls, directory: Path) -> "Logged":
        config: dict[str, Any] = {}
        history, by_kind = [], {}
        for record in records(directory):
            kind = record.WhichOneof("record_type")
            by_kind.setdefault(kind, []).append(getattr(record, kind))
            if kind == "config":
                config |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
            if kind == "history":
                row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                history.append({key: json.loads(value) for key, value in row.items()})
        return cls(by_kind["run"][0], config, history, by_kind["exit"][0].exit_code)


def starts(directory: Path) -> list[Path]:
    """One directory per start of the run, the oldest first."""
    return sorted(directory.glob("wandb/offline-run-*"))


@pytest.fixture(scope="module", autouse=True)
def _no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_CONFIG_DIR", str(home))
        patch.setenv("WANDB_CACHE_DIR", str(home))
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a port where nothing answers
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        wandb.teardown()
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of four epochs, interrupted in its third and continued; and all it printed."""
    run = tmp_path_factory.mktemp("run")
    printed = io.StringIO()
    args = [*FIT, *WANDB, *SMALL, *NAMED, "--trainer.default_root_dir", str(run), "--trainer.max_epochs", "4"]

    def interrupt(self: History, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(History, "on_train_epoch_start", interrupt)
            with pytest.raises(SystemExit):
                main(args)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
        assert main([*args, "--ckpt_path", "last"]) == 0
    return run, printed.getvalue()


@pytest.fixture(scope="module")
def first(resumed: tuple[Path, str]) -> Logged:
    return Logged.read(starts(resumed[0])[0])


def test_run_is_named_grouped_by_study_and_tagged(first: Logged) -> None:
    assert (first.run.project, first.run.run_group) == ("deq-collapse", "tiny")
    assert first.run.display_name == "balanced-explicit-seed0"
    assert list(first.run.tags) == ["refinement:explicit"]
    assert first.exit_code == 1  # interrupted


def test_resolved_config_is_attached_whole_and_nested(resumed: tuple[Path, str]) -> None:
    run, _ = resumed
    saved = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=True)  # links are kept in it
    assert isinstance(saved, dict)
    logged = Logged.read(starts(run)[-1]).config
    assert {key: logged[key] for key in saved} == saved
    assert logged["model"]["encoder"]["init_args"]["width"] == 8
    assert logged["model"]["lr_scheduler"]["init_args"]["T_max"] == 4


@pytest.mark.parametrize("curve", ["train/nc1", "test/nc1", "fit/loss", "another"])
def test_wandb_draws_every_curve_by_epoch(tmp_path: Path, curve: str) -> None:
    logger = CollapseWandbLogger("run", str(tmp_path))
    logger.log_metrics({"train/accuracy": 1.0, "epoch": 6}, step=70)
    logger.log_metrics({curve: 1.0})
    logger.finalize("success")
    # Into a row without its axis wandb fills in the last value of the axis it has for the curve.
    row = Logged.read(starts(tmp_path)[0]).history[-1]
    assert {key: value for key, value in row.items() if not key.startswith("_")} == {curve: 1.0, "epoch": 7}


def test_epochs_count_from_one_and_agree_with_the_history_table(resumed: tuple[Path, str]) -> None:
    run, _ = resumed
    table = [line.split(",") for line in (run / "history.csv").read_text().splitlines()[1:]]
    rows = [row for start in starts(run) for row in Logged.read(start).history]
    for curve in ("train/nc1", "test/accuracy", "fit/loss"):
        logged = [(row["epoch"], row[curve]) for row in rows if curve in row]
        assert [epoch for epoch, _ in logged] == [1, 2, 3, 4]
        assert logged == [
            (int(epoch), pytest.approx(float(value)))
            for epoch, _, split, metric, value in table
            if f"{split}/{metric}" == curve
        ]


def test_a_resumed_run_keeps_its_id(resumed: tuple[Path, str]) -> None:
    run, _ = resumed
    remembered = (run / "wandb-id.txt").read_text().strip()
    assert [Logged.read(start).run.run_id for start in starts(run)] == [remembered, remembered]


def test_wandb_says_nothing_offline(resumed: tuple[Path, str]) -> None:
    assert "wandb" not in resumed[1]
    assert "epoch 4/4" in resumed[1]


def test_id_is_written_when_the_run_starts_and_by_rank_zero_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = CollapseWandbLogger("run", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(rank_zero_only, "rank", 1)
        _ = logger.experiment
        logger.log_metrics({"train/nc1": 1.0, "epoch": 0})
    assert list(tmp_path.iterdir()) == []
    assert (run := logger.experiment) is not None
    assert (tmp_path / "wandb-id.txt").read_text().strip() == run.id
    logger.finalize("success")


def test_runs_of_one_process_are_runs_of_their_own(tmp_path: Path) -> None:
    for name, status in (("a", "failed"), ("b", "success")):
        logger = CollapseWandbLogger(name, str(tmp_path / name))
        logger.log_metrics({"train/nc1": 1.0, "epoch": 0})
        logger.finalize(status)
    a, b = (Logged.read(starts(tmp_path / name)[0]) for name in "ab")
    assert a.run.run_id != b.run.run_id
    assert (a.exit_code, b.exit_code) == (1, 0)
    assert [len(logged.history) for logged in (a, b)] == [1, 1]


def test_a_finished_run_logs_its_measures_its_checkpoint_and_its_manifest(resumed: tuple[Path, str]) -> None:
    interrupted, finished = (records(start) for start in starts(resumed[0]))
    assert not [record for record in interrupted if record.WhichOneof("record_type") == "artifact"]
    artifacts = [record.artifact for record in finished if record.WhichOneof("record_type") == "artifact"]
    files = {artifact.type: {entry.path for entry in artifact.manifest.contents} for artifact in artifacts}
    assert files == {
        "run_table": {"final.table.json"},
        "model": {"last.ckpt", "config.yaml", "result.json"},
        "dataset": {"manifest.json"},
    }
    (table,) = starts(resumed[0])[-1].glob("files/media/table/final_*.json")
    rows = {name: (train, test) for name, train, test in json.loads(table.read_text())["data"]}
    result = json.loads((resumed[0] / "result.json").read_text())
    assert rows["nc1"] == (result["train"]["nc1"], result["test"]["nc1"])


def ended() -> None:
    """Waits for wandb's thread."""
    module._thread().submit(int).result()


def test_a_run_online(tmp_path: Path, wandb_server: Any) -> None:
    online = ["--trainer.logger.init_args.mode", "online", "--trainer.default_root_dir", str(tmp_path)]
    assert main([*FIT, *WANDB, *SMALL, *NAMED, *online]) == 0
    (run,) = wandb_server.runs
    assert run == (tmp_path / "wandb-id.txt").read_text().strip()
    created = wandb_server.runs[run]
    assert (created["groupName"], created["tags"]) == ("tiny", ["refinement:explicit"])
    assert wandb_server.config[run]["model"]["encoder"]["init_args"]["width"] == 8
    curve = [(row["epoch"], row["train/nc1"]) for row in wandb_server.history[run] if "train/nc1" in row]
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    values = {int(e): float(value) for e, _, *name, value in rows if name == ["train", "nc1"]}
    assert curve == [(epoch, pytest.approx(value)) for epoch, value in values.items()]
    by_type = {wandb_server.types[name]: set(files) for name, files in wandb_server.artifacts.items()}
    assert by_type["model"] == {"last.ckpt", "config.yaml", "result.json"}
    assert by_type["dataset"] == {"manifest.json"}


def test_an_offline_run_is_synced_later(tmp_path: Path, wandb_server: Any) -> None:
    logger = CollapseWandbLogger("run", str(tmp_path), group="tiny")
    for epoch in range(3):
        logger.log_metrics({"train/nc1": 0.5**epoch, "epoch": epoch})
    logger.finalize("success")
    assert wandb_server.asked == []
    cli.main(["sync", str(starts(tmp_path)[0])], standalone_mode=False)
    ((run, rows),) = wandb_server.history.items()
    assert wandb_server.runs[run]["groupName"] == "tiny"
    assert [(row["epoch"], row["train/nc1"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_online_without_a_login_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wandb login"):
        _ = CollapseWandbLogger("run", str(tmp_path / "run"), mode="online").experiment
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("conduct", ["gone", "refuses", "hangs", "slow"])
def test_a_server_that_does_not_take_the_run_leaves_it_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, wandb_server: Any, conduct: str
) -> None:
    if conduct == "gone":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb_server.conduct = conduct
    monkeypatch.setitem(module.SETTINGS, "init_timeout", 1)
    logger = CollapseWandbLogger("run", str(tmp_path), mode="online")
    logger.log_metrics({"train/nc1": 1.0, "epoch": 0})
    logger.finalize("success")
    ended()
    assert "goes on offline" in capsys.readouterr().err
    logged = Logged.read(starts(tmp_path)[0])
    assert logged.run.run_id == (tmp_path / "wandb-id.txt").read_text().strip()
    assert [(row["epoch"], row["train/nc1"]) for row in logged.history] == [(1, 1.0)]


def test_training_does_not_wait_for_a_server(tmp_path: Path, wandb_server: Any) -> None:
    module._check_login()
    assert wandb_server.asked == []
    wandb_server.conduct = "hangs"
    logger = CollapseWandbLogger("run", str(tmp_path), mode="online")
    run = logger.experiment
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"train/nc1": 1.0, "epoch": 0})
    assert not run._run.done()
    wandb_server.conduct = "well"
    wandb_server.closing.set()  # answers whoever waits
    logger.finalize("success")
    assert [row["train/nc1"] for row in wandb_server.history[logger.version]] == [1.0]


@pytest.mark.parametrize("conduct", ["fails", "hangs"])
def test_a_server_that_is_lost_later_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, wandb_server: Any, conduct: str
) -> None:
    monkeypatch.setitem(module.SETTINGS, "finish_timeout", 1)
    monkeypatch.setattr(module, "AT_LEAST", 0.1)
    logger = CollapseWandbLogger("run", str(tmp_path), mode="online")
    assert logger.experiment.id == logger.version  # online
    wandb_server.conduct = conduct
    for epoch in range(3):
        logger.log_metrics({"train/nc1": 0.5**epoch, "epoch": epoch})
    logger.finalize("success")
    ended()
    (directory,) = tmp_path.glob("wandb/run-*")
    assert f"`{command([directory])}` brings the rest" in capsys.readouterr().err
    assert unsent([tmp_path]) == [directory]
    curve = [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [(row["epoch"], row["train/nc1"]) for row in Logged.read(directory).history] == curve
    wandb_server.conduct = "well"
    cli.main(command([directory]).split()[1:], standalone_mode=False)
    rows = wandb_server.history[logger.version]
    assert [(row["epoch"], row["train/nc1"]) for row in rows] == curve
    assert unsent([tmp_path]) == []


def test_a_process_that_ends_at_once_leaves_its_file_whole(tmp_path: Path, wandb_server: Any) -> None:
    """As a process of a study does, whose end lets wandb's own process do nothing more."""
    script = f"""
import os
from deq_collapse.tracking import logger as module
module.AT_LEAST = 0.5
logger = module.CollapseWandbLogger("run", {str(tmp_path)!r}, mode="online")
logger.experiment.id
for epoch in range(60):
    logger.log_metrics({{f"train/measure{{i}}": 1.0 for i in range(40)}} | {{"epoch": epoch}})
print("logged", flush=True)
input()
logger.finalize("success")
os._exit(0)
"""
    program = [sys.executable, "-c", script]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        wandb_server.conduct = "hangs"
        process.communicate("\n", timeout=100)
    (directory,) = tmp_path.glob("wandb/run-*")
    assert is_whole(directory)
    assert [row["epoch"] for row in Logged.read(directory).history] == list(range(1, 61))
    (file,) = directory.glob("*.wandb")
    file.write_bytes(file.read_bytes()[:32768])
    assert not is_whole(directory)


def test_a_study_says_which_of_its_runs_a_server_has_not_got(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [Cell({"refinement": name}, ()) for name in ("explicit", "equilibrium")]
    places = [tmp_path / "two" / run.name / "wandb" / "run-1" for run in runs]
    for place in places:
        place.mkdir(parents=True)
        note(place.parents[1], place)
    _tell_unsent(StudyFile("two", tmp_path / "two", tuple(runs)))
    assert f"2 of the study's runs; this brings the rest:\n  {command(places)}\n" in capsys.readouterr().out
    for place in places:
        (place / "run-1.wandb.synced").touch()
    _tell_unsent(StudyFile("two", tmp_path / "two", tuple(runs)))
    assert capsys.readouterr().out == ""


def test_files_removed_amid_a_run_are_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def remove(self: History, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            wait([trainer.logger._run])  # type: ignore[union-attr]
            shutil.rmtree(tmp_path / "wandb")

    monkeypatch.setattr(History, "on_validation_start", remove)
    assert main([*FIT, *WANDB, *SMALL, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert f"wandb's files of this run are gone from {tmp_path}/wandb" in capsys.readouterr().err
    assert (tmp_path / "result.json").exists()


def test_wandb_is_not_even_imported_unless_asked_for(tmp_path: Path) -> None:
    args = [*FIT, *SMALL, "--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    script = f"import sys, deq_collapse.cli as cli; cli.main({args!r}); sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
    assert (tmp_path / "result.json").exists()


def test_a_configuration_saved_when_the_logger_was_a_callback_finds_it() -> None:
    from deq_collapse.callbacks import wandb_logger

    assert wandb_logger.CollapseWandbLogger is CollapseWandbLogger

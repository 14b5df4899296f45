"""Runs on Weights & Biases: curves by completed epochs, one wandb run however often a run resumes."""

import os
import secrets
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.tracking import PROJECT
from deq_collapse.tracking.outcome import log_outcome
from deq_collapse.tracking.unsent import command, is_whole, note

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ID_FILE = "wandb-id.txt"
TAG_LENGTH = 64
"""Limit of wandb."""
SETTINGS = {
    "console": "off",  # keeps the run's own progress line intact
    "quiet": True,
    "reinit": "create_new",  # a run whose end failed must not be part of the next
    "init_timeout": 20,
    "finish_timeout": 30,
    "finish_timeout_raises": True,  # else an end that was cut off looks normal
    # Seconds after which values are in the local file. With the default of 15, a process that ends or is
    # killed leaves a file truncated in the middle of a record.
    "x_transaction_log_flush_interval": 1.0,
}
AT_MOST, AT_LEAST = 0.02, 5.0
"""The largest share of a run's time that its end may wait for a server, and seconds that it may wait in any
case.
"""
PATIENCE, LOOK = 60.0, 0.1
"""Seconds that a run's end waits for a complete local file, whatever the server does; and seconds between two
looks at it.
"""


class _Thread:
    """Makes calls in sequence, in a thread that does not keep the process alive."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        threading.Thread(target=self._work, name="wandb", daemon=True).start()

    def submit(self, call: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Returns the future result of the call."""
        future: Future[Any] = Future()
        self._calls.put((future, call, args))
        return future

    def _work(self) -> None:
        while True:
            future, call, args = self._calls.get()
            try:
                future.set_result(call(*args))
            except BaseException as error:
                future.set_exception(error)


@cache
def _thread() -> _Thread:
    """The only thread of a process that talks to wandb, for all its runs: one ends before the next starts."""
    return _Thread()


def job_type(axes: Mapping[str, str]) -> str:
    """The name that runs of all seeds share in wandb's tables and dashboards: the other labels, joined."""
    named = {axis: label for axis, label in axes.items() if axis != "seed"}
    return "-".join(f"{axis}{label}" if label[:1].isdigit() else label for axis, label in named.items())


class RunToCome:
    """A wandb run that is being started: access to any attribute waits until it has started."""

    def __init__(self, run: "Future[Run]") -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run.result(), name)


class CollapseWandbLogger(WandbLogger):
    """Logs a fit to Weights & Biases; ``conf/logger/wandb.yaml`` switches it on.

    Training never waits for wandb: a thread starts the run, logs, and ends it. If the server of an online run
    cannot be reached at the start, or refuses the login, the run continues offline. If the server is lost
    later, or is slow, wandb keeps the values on disk, and the process does not end before its file is
    complete. Either case is reported on standard error with the ``wandb sync`` command that uploads
    afterwards, and is recorded in ``wandb-unsent.txt``.

    The wandb id is written to ``wandb-id.txt`` when the run starts, and a resumed run continues under it. A
    finished run logs its final measures as a table, and its checkpoint and its manifest as artifacts.

    Args:
        name: of the run.
        save_dir: the run's own directory.
        group: the study of the run, or ``None``.
        axes: its place in the study's grid, label by axis; each becomes a tag ``axis:label``, and all except
            the seed form the job type, within which wandb averages.
        project: wandb's project.
        entity: the user or team that owns the project; ``None`` for the login's own.
        mode: ``offline`` only writes files; ``online`` needs an account and uploads during training.
        checkpoint: whether a finished run's checkpoint becomes an artifact.
    """

    def __init__(
        self,
        name: str,
        save_dir: str,
        group: str | None = None,
        axes: dict[str, str] | None = None,
        project: str = PROJECT,
        entity: str | None = None,
        mode: Literal["offline", "online"] = "offline",
        checkpoint: bool = True,
    ) -> None:
        if mode == "offline":
            # Otherwise wandb sends error reports even then.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        super().__init__(
            name=name,
            save_dir=save_dir,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type(axes or {}) or None,
            tags=[f"{axis}:{label}"[:TAG_LENGTH] for axis, label in (axes or {}).items()],
            mode=mode,
            settings=SETTINGS | {"silent": mode == "offline"},
        )
        # Lightning's default is a setting that wandb warns about.
        del self._wandb_init["anonymous"]
        self._checkpoint = checkpoint
        self._run: Future[Run] | None = None
        self._failed = False

    def __getstate__(self) -> dict[str, Any]:
        """For a spawned process, which starts the run itself."""
        return self.__dict__ | {"_run": None}

    @property
    @rank_zero_experiment
    def experiment(self) -> "RunToCome":
        """The wandb run, started on first access; Lightning accesses it on rank zero, after it has launched
        the other ranks.

        Raises:
            UserError: if ``online`` finds no login.
        """
        return RunToCome(self._started())

    def _started(self) -> "Future[Run]":
        if self._run is None:
            if self._wandb_init["mode"] == "online":
                _check_login()
            directory = Path(self._wandb_init["dir"])
            directory.mkdir(parents=True, exist_ok=True)  # wandb searches from there for the commit
            file = directory / ID_FILE
            self._id = file.read_text().strip() if file.exists() else _new_id()
            self._wandb_init["id"] = self._id
            write_atomically(file, f"{self._id}\n")
            self._since = time.monotonic()
            self._run = _thread().submit(_start, dict(self._wandb_init), directory)
        return self._run

    def _later(self, call: "Callable[[Run], object]") -> "Future[None]":
        return _thread().submit(self._call, self._started(), call)

    def _call(self, started: "Future[Run]", call: "Callable[[Run], object]") -> None:
        """Makes a call with the run; reports the first error, and raises none in training."""
        if started.exception() is not None:
            return
        run = started.result()
        try:
            call(run)
        except Exception as error:
            if not self._failed:
                reason = _reason(error).rstrip(".")
                self._tell_unsent(run, f"wandb failed ({reason}), and its server may not have everything")
            self._failed = True

    def _tell_unsent(self, run: "Run", what: str) -> None:
        directory = _directory(run)
        note(Path(self._wandb_init["dir"]), directory)
        _say(f"{what}: `{command([directory])}` brings the rest")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Attaches a configuration to the run."""
        values = vars(params) if isinstance(params, Namespace) else dict(params)
        self._later(lambda run: run.config.update(values, allow_val_change=True))  # type: ignore[no-untyped-call]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs values under the number of completed epochs; Lightning counts the current epoch from 0."""
        values = dict(metrics)
        if "epoch" in values:
            values["epoch"] += 1
        if step is not None:
            values["trainer/global_step"] = step
        self._later(lambda run: run.log(values))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the wandb run; another run of the same process starts its own.

        It waits for the upload within the limits `AT_MOST` and `AT_LEAST`, then until the local file is
        complete, which does not depend on the server.
        """
        if self._run is None:
            return
        directory = Path(self._wandb_init["dir"])
        self._later(partial(log_outcome, directory=directory, checkpoint=self._checkpoint))
        ended = self._later(lambda run: run.finish(exit_code=0 if status == "success" else 1))
        wait([self._run])  # bounded by init_timeout
        limit = max(AT_LEAST, AT_MOST * (time.monotonic() - self._since))
        if not wait([ended], timeout=limit).done:
            run = self._run.result()
            self._tell_unsent(run, "wandb's server has not taken everything yet")
            if not _becomes_whole(_directory(run), ended):
                _say(f"wandb's own file in {_directory(run)} may lack its end, which history.csv has")
        elif _lost(self._run):
            _say(
                f"wandb's files of this run are gone from {directory}/wandb, with what was logged there;"
                " history.csv and result.json have every value."
            )
        self._run = None


def _check_login() -> None:
    """Checks that there is a login.

    It does not use ``wandb.login``, which waits 5 seconds for a server that does not answer.
    """
    import wandb
    from wandb.errors import AuthenticationError, UsageError
    from wandb.sdk.lib.wbauth import authenticate_session

    try:
        host = wandb.setup().settings.base_url
        found = authenticate_session(host=host, source="deq-collapse", prompt=False)
    except (AuthenticationError, UsageError) as error:
        raise UserError(f"wandb cannot go online: {error}") from error
    if found is None:
        raise UserError(
            "wandb cannot go online without a login: run `wandb login`, or keep the logger's mode offline."
        )


def _new_id() -> str:
    """A new id; in a sweep, the one chosen by the agent."""
    chosen = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    return chosen or secrets.token_hex(4)


def _start(settings: dict[str, Any], directory: Path) -> "Run":
    """Starts a run, offline if it cannot be online."""
    import wandb

    try:
        run = wandb.init(**settings)
    except Exception as error:  # from the server, the network, or wandb's process
        if settings["mode"] == "offline":
            _say(f"wandb does not start, nothing is logged to it: {_reason(error)}")
            raise
        _say(f"wandb's server does not take the run, it goes on offline: {_reason(error)}")
        _forget()
        run = wandb.init(**settings | {"mode": "offline", "settings": SETTINGS | {"silent": True}})
        note(directory, _directory(run))
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch", step_sync=True)
    return run


def _directory(run: "Run") -> Path:
    """The directory of one start of a run, as needed by `wandb sync`; wandb's ``dir`` is the folder of
    uploaded files in it.
    """
    return Path(run.dir).parent


def _becomes_whole(directory: Path, ended: "Future[None]") -> bool:
    """Waits until a start's local file is complete; returns whether it is."""
    until = time.monotonic() + PATIENCE
    while not (whole := ended.done() or is_whole(directory)) and time.monotonic() < until:
        time.sleep(LOOK)
    return whole


def _lost(started: "Future[Run]") -> bool:
    """Whether the only files of a run were removed: wandb continues to write without an error."""
    if started.exception() is not None:
        return False
    run = started.result()
    return run.offline and not any(Path(run.dir).parent.glob("*.wandb"))


def _forget() -> None:
    """Ends wandb's own process, which would keep the id of a failed run in use."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

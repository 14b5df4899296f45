"""``deq-collapse study watch``: a page that shows a study while it runs, without wandb."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.report.page import render
from deq_collapse.report.sections import figure_sections
from deq_collapse.report.unfinished import section
from deq_collapse.runs.files import CONFIG, HISTORY, RESULT, RESULTS
from deq_collapse.runs.study import Study, read_study
from deq_collapse.study.located import Located, locate
from deq_collapse.study.results import gather
from deq_collapse.study.state import STATE, state_of

PAGE = "watch.html"
SHARE = 0.05
"""Largest share of a core that watching uses for drawing, because the machine is training."""
SCRIPT = """
const kept = JSON.parse(sessionStorage.getItem("kept") || "null");
const parts = document.querySelectorAll("details");
if (kept) { parts.forEach((part, i) => part.open = kept.open[i]); scrollTo(0, kept.top); }
function again() {
  if (document.hidden) { document.addEventListener("visibilitychange", again, {once: true}); return; }
  sessionStorage.setItem("kept", JSON.stringify({top: scrollY, open: [...parts].map(part => part.open)}));
  location.reload();
}
setTimeout(again, SECONDS * 1000);
"""
"""Reloads the page at the same place when it is visible."""


class Watch:
    """Keeps ``watch.html`` up to date: the study's report, and above it the unfinished runs.

    Args:
        path: a study file, or a directory of runs.
        every: smallest number of seconds between two looks.
    """

    def __init__(self, path: Path, every: float) -> None:
        self._path, self._every = path, every
        self.study = locate(path)
        self._report = ""
        self._of: dict[str, float] | None = None
        self._report_due = self._pause = 0.0
        self._seen: dict[str, float] | None = None

    @property
    def page(self) -> Path:
        """The page's path."""
        return self.study.directory / PAGE

    @property
    def pause(self) -> float:
        """Seconds between two looks, after which a browser also reloads the page."""
        return max(self._every, self._pause)

    @property
    def over(self) -> bool:
        """Whether nothing can change any more, as far as a study file shows."""
        states = [state_of(self.study.directory / name) for name in self.study.runs]
        return self.study.whole and all(state in ("finished", "failed") for state in states)

    def look(self) -> float:
        """Writes the page if a file of a run has changed; returns the seconds until the next look."""
        if not self.study.whole and _begun(self._path) != set(self.study.runs):
            self.study = locate(self._path)
        seen = _changes(self.study, (CONFIG, HISTORY, STATE, RESULT))
        if seen != self._seen:
            self._seen = seen
            self._draw_report()
            start = time.process_time()
            self.write(reload=self.pause)
            self._pause = (time.process_time() - start) / SHARE
        return self.pause

    def finish(self) -> None:
        """Writes the final page, drawn once more because a run also leaves files after its record."""
        self._report_due, self._of = 0.0, None
        self._draw_report()
        self.write(reload=None)

    def write(self, reload: float | None) -> None:
        """Writes the page.

        Args:
            reload: seconds after which a browser reloads it; ``None`` for never.
        """
        reported = {name.rpartition("/")[0] for name in self._of or {}}
        page = self._report.replace("</h1>", f"</h1>\n{section(self.study, time.time(), reported)}", 1)
        write_atomically(self.page, page if reload is None else reloading(page, reload))

    def _draw_report(self) -> None:
        """Redraws the report of the finished runs if another run has finished and drawing is due."""
        of = _changes(self.study, (RESULT,))
        if of == self._of or (self._report and time.monotonic() < self._report_due):
            return
        start = time.process_time()
        directory = self.study.directory
        with suppress(UserError):  # a file is being written; the next look finds it complete
            gather(directory)
            study = read_study(directory) if (directory / RESULTS).exists() else self._empty()
            self._report, self._of = render(study, figure_sections(study)), of
        if not self._report:
            self._report = render(self._empty(), [])
        self._report_due = time.monotonic() + (time.process_time() - start) / SHARE

    def _empty(self) -> Study:
        return Study(self.study.name, f"deq-collapse study watch {self._path}", (), ())


def watch(path: Path, every: float = 10, port: int | None = None) -> None:
    """Watches a study until all its runs have ended, or until Ctrl-C.

    Args:
        path: a study file, or a directory of runs.
        every: smallest number of seconds between two looks.
        port: of a server of the study's directory on 127.0.0.1; 0 for any free one, ``None`` for no server.

    Raises:
        UserError: if there is no study, or the port is taken.
    """
    watched = Watch(path, every)
    server = None if port is None else _serve(watched.study.directory, port)
    address = watched.page if server is None else f"http://127.0.0.1:{server.server_port}/"
    try:
        watched.look()
        print(f"Watching {watched.study.name}: {address}  (Ctrl-C ends watching, not the study)", flush=True)
        while not watched.over:
            time.sleep(watched.look())
        watched.finish()
        print(f"All runs have ended: {watched.page}", flush=True)
        if server is not None:
            time.sleep(watched.pause + 1)  # so that open browsers load the last page
    except KeyboardInterrupt:
        watched.finish()
        print("Stopped watching.", file=sys.stderr)
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def reloading(page: str, seconds: float) -> str:
    """A page that reloads itself; the report's Content-Security-Policy allows the page's scripts."""
    head, end, tail = page.rpartition("</body>")
    return f"{head}<script>{SCRIPT.replace('SECONDS', f'{seconds:.0f}')}</script>\n{end}{tail}"


def _begun(directory: Path) -> set[str]:
    return {path.parent.name for path in directory.glob(f"*/{CONFIG}")}


def _changes(study: Located, names: tuple[str, ...]) -> dict[str, float]:
    """The times when files of runs were last written."""
    found = {}
    for run in study.runs:
        for name in names:
            with suppress(OSError):
                found[f"{run}/{name}"] = (study.directory / run / name).stat().st_mtime
    return found


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a study's files, and its page at ``/``."""

    def send_head(self) -> Any:
        if self.path.partition("?")[0] == "/":
            self.path = f"/{PAGE}"
        return super().send_head()

    def log_message(self, *args: Any) -> None:
        """Does nothing: the terminal is for other messages."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def _serve(directory: Path, port: int) -> ThreadingHTTPServer:
    """Serves a study's directory to this machine only."""
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(directory)))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} of this machine cannot be served: {error}; give another --port."
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server

"""What all tests share: the examples of hypothesis, and a stand-in for a wandb server: what the client of
wandb 0.31 asks of one, on 127.0.0.1.
"""

import gzip
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

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

"""Where a run was made."""

import json
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import deq_collapse
from deq_collapse.callbacks.environment import commit, own_commit


def test_the_file_lies_beside_the_run(finished):
    told = json.loads((finished.directory / "environment.json").read_text())
    assert told["python"] == platform.python_version()
    assert told["torch"] == version("torch")
    assert told["deq-collapse"] and told["device"]  # noqa: PT018
    assert told["processes"] == 1
    assert told["threads"] == torch.get_num_threads()


def test_the_commit_an_image_records_is_told(monkeypatch):
    monkeypatch.setenv("DEQ_COLLAPSE_COMMIT", "0123456789ab" + 28 * "c")  # as `git rev-parse` gives it
    assert commit() == "0123456789ab"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_gits_own(monkeypatch):
    monkeypatch.delenv("DEQ_COLLAPSE_COMMIT", raising=False)
    package = Path(deq_collapse.__file__).parent
    git = ["git", "-C", str(package), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=False)
    if head.returncode:
        assert commit() == "unknown"
    else:
        assert re.fullmatch(rf"{head.stdout[:12]}(-dirty)?", commit())


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.delenv("DEQ_COLLAPSE_COMMIT", raising=False)
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_the_users_own_code_is_told_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert own_commit() == "none"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert own_commit() == head[:12]
    monkeypatch.chdir(Path(deq_collapse.__file__).parent)
    assert own_commit() == "none"  # the package's own, which has its line already

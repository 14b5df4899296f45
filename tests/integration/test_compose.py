"""The services of the compose file are commands that this program takes."""

from pathlib import Path

import pytest
import yaml

from deq_collapse.cli import main
from deq_collapse.study.check import check_study
from deq_collapse.study.grid import read_study_file

ROOT = Path(__file__).parents[2]
IMAGE = ["deq-collapse"]
"""Its entry point, see docker/Dockerfile."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What each service starts, by its name; from the directory whose conf/ the image holds."""
    monkeypatch.chdir(ROOT)
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    return {
        name: [*service.get("entrypoint", IMAGE), *service["command"]] for name, service in services.items()
    }


@pytest.mark.parametrize("name", ["demo", "study"])
def test_a_study_that_can_be_run(name: str, commands: dict[str, list[str]]):
    program, study, run, file = commands[name]
    assert (program, study, run) == ("deq-collapse", "study", "run")
    assert len(check_study(read_study_file(Path(file)))) == 4


def test_a_run_of_two_processes(commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]):
    program, *args = commands["ranks"]
    assert program == "deq-collapse"
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--print_config"])
    assert stopped.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    trainer = config["trainer"]
    assert (trainer["devices"], trainer["strategy"], trainer["sync_batchnorm"]) == (2, "ddp", True)
    assert config["name"] == "two-processes"

"""Every example of the README and of docs/ runs as it stands there, or is checked where it cannot run here.

A block of shell or Python runs, those of a page in their order and in one directory. Below a comment
``<!-- checked, not run: REASON -->`` it is only checked: Python compiles, a configuration resolves, a command
takes its arguments. So are all commands on the pages of results, which take hours.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import torch
import yaml
from torch import nn

from deq_collapse.cli import main
from deq_collapse.cli.along import along_parser
from deq_collapse.cli.study import study_parser
from deq_collapse.cli.theory.command import theory_parser

ROOT = Path(__file__).parents[2]
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts)
PAGES = [ROOT / "README.md", *DOCS]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))
TESTED_ELSEWHERE = {"metrics.md", "python.md", "sweeps.md"}
BLOCK = re.compile(
    r"^(<!-- checked, not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE
)
PARSERS = {"along": along_parser, "study": study_parser, "theory": theory_parser}
MAKE = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def blocks(page: Path) -> list[tuple[bool, str, str]]:
    """Whether each runs, its language, its text."""
    return [(not marked, language, text) for marked, language, text in BLOCK.findall(page.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in TESTED_ELSEWHERE and blocks(page)], ids=name
)
def test_every_example_of_a_page_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_study: Callable[..., Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    torch.manual_seed(0)
    names: dict[str, Any] = given(page, make_study)
    for runs, language, text in blocks(page):
        if language == "yaml":
            assert yaml.safe_load(text)
        elif language == "python" and (module := re.match(r"# (\w+\.py)\n", text)):
            Path(module[1]).write_text(text)
        elif language == "python":
            code = compile(text, name(page), "exec")
            if runs:
                exec(code, names)
        elif language == "bash":
            subprocess.run(["bash", "-n"], input=text.encode(), check=True)
            for words in commands(text):
                (run if runs else check)(words)
                capsys.readouterr()


@pytest.mark.parametrize("page", RESULTS, ids=name)
def test_every_command_of_a_page_of_results_takes_its_arguments(page: Path) -> None:
    for _, language, text in blocks(page):
        assert language == "bash"
        for words in commands(text):
            check(words)


def given(page: Path, make_study: Callable[..., Path]) -> dict[str, Any]:
    """What a page says that the reader has."""
    if page.name == "README.md":
        batches = [(torch.randn(20, 8), torch.arange(20) % 4)]
        return {"model": nn.Linear(8, 4), "train_loader": batches, "test_loader": batches}
    if page.name == "gallery.md":
        steps = ("step_ka3_r10", "step_ka3_r100", "step_ka5_r10")
        keep(make_study(imbalances=("balanced", *steps)), "paper")
        for called in ("families", "gradient"):
            keep(make_study(imbalances=("step_ka5_r100",), seeds=4, edit=into_two_families), called)
    return {}


def keep(study: Path, called: str) -> None:
    """A study of made-up numbers where the page has one of that name, with its runs' computations."""
    for run in filter(Path.is_dir, study.iterdir()):
        rows = [f"train,{n},refinement,{metric},{0.5**n}" for metric in ("nc1", "nc3") for n in range(3)]
        (run / "along.csv").write_text("\n".join(["split,evaluations,module,metric,value", *rows]))
    Path("outputs/studies").mkdir(parents=True, exist_ok=True)
    study.rename(Path("outputs/studies") / called)


def into_two_families(results: dict[str, Any]) -> None:
    """Every second seed becomes one of another family."""
    for record in results["runs"]:
        seed = int(record["axes"]["seed"])
        family = ("free", "contraction")[seed % 2]
        record["axes"] = {"family": family, **record["axes"], "seed": str(seed // 2)}
    results["contrasts"] = [{"name": "bound", "axis": "family", "before": "free", "after": "contraction"}]


def run(words: list[str]) -> None:
    """A command of ours, a fit of one epoch; others are those of the shell, and of make."""
    if words[0] == "make":
        assert words[1] in MAKE
    if words[0] == "deq-collapse":
        short = ["--trainer.max_epochs", "1"] if words[1] == "fit" else []
        assert main([*words[1:], *short]) == 0, words


def check(words: list[str]) -> None:
    """Whether a command of ours takes its arguments, be it behind another one such as srun."""
    ours = [i for i, word in enumerate(words) if word in ("deq-collapse", "deq_collapse.cli")]
    command, *args = words[ours[0] + 1 :] if ours else [""]
    if command in PARSERS:
        PARSERS[command]().parse_args(args)
    elif command == "fit":
        with pytest.raises(SystemExit) as ended:
            main([command, *args, "--print_config"])
        assert ended.value.code in (0, None), words
    elif words[0] == "make":
        assert words[1] in MAKE


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=name)
def test_every_notebook_runs_and_is_stored_without_outputs(notebook: Path, tmp_path: Path) -> None:
    found = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in found.cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(found, timeout=1200, resources=resources).execute()
    drawn = [output for cell in found.cells for output in cell.get("outputs", ())]
    assert not any("error" in output["output_type"] for output in drawn)


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    options = ["--fail-on-warning", "--quiet", "-D", "nb_execution_mode=off", "-d", str(tmp_path / "trees")]
    build = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "site")]
    built = subprocess.run(build, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(script|img|iframe)[^>]*\ssrc=.(https?:)?//", text), page
        assert not re.search(r"<link[^>]*\shref=.(https?:)?//", text), page


def test_every_file_that_a_page_names_exists() -> None:
    for page in [*PAGES, *RESULTS]:
        text = page.read_text()
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), (page, link)
        for path in re.findall(r"(?<![\w/-])((?:conf|tests|docker)/[\w/]+\.(?:yaml|py))\b", text):
            assert (ROOT / path).exists(), (page, path)


def test_the_readme_fits_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90

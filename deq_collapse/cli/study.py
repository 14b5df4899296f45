"""``deq-collapse study``: ``run``, ``submit``, ``status``, ``watch``, ``report``, ``pack``, ``dashboard``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deq_collapse.errors import UserError
from deq_collapse.tracking import PROJECT

if TYPE_CHECKING:
    from deq_collapse.study.grid import StudyFile


def study_main(args: Sequence[str]) -> int:
    """Runs a study command; returns its exit code.

    Raises:
        UserError: for a mistake in the study file, or a directory that holds no study.
    """
    options = study_parser().parse_args(args)
    if options.command == "run":
        return _run(options)
    if options.command == "submit":
        return _submit(options)
    if options.command == "dashboard":
        from deq_collapse.tracking.publish import publish

        print(publish(options.study, options.entity, options.project, options.offline))
        return 0
    if options.command == "watch":
        from deq_collapse.report.watch import watch

        watch(options.study, options.every, options.port)
        return 0
    if options.command == "status":
        return _status(options.study)
    if options.command == "pack":
        return _pack(_directory(options.study), options.archive)
    return _report(_directory(options.study), options.published)


def _run(options: argparse.Namespace) -> int:
    whole = _whole(options)
    study = _read(options.file, options.seeds)
    from deq_collapse.study.part import part
    from deq_collapse.study.runner import Runner, plan_study, sigterm_as_exit
    from deq_collapse.study.state import state_of

    asked = part(study, options.only)
    try:
        with sigterm_as_exit():
            Runner(asked, plan_study(study, whole), options.jobs, options.retry).run()
            _report(study.directory)
            _tell_unsent(asked)
            states = [state_of(study.directory / cell.name) for cell in asked.cells]
            return 1 if "failed" in states else 0
    except (KeyboardInterrupt, SystemExit):
        again = " ".join([whole, *(f"--only {text}" for text in options.only)])
        print(f"Interrupted; the same command goes on where it stopped: {again}", file=sys.stderr)
        return 130


def _whole(options: argparse.Namespace) -> str:
    """The command for the whole of a study."""
    seeds = f" --seeds {options.seeds}" if options.seeds else ""
    return f"deq-collapse study {options.command} {options.file}{seeds}"


def _read(file: Path, seeds: int | None) -> "StudyFile":
    """Reads a study file and checks its configurations before torch is imported."""
    from deq_collapse.config.early import check_early
    from deq_collapse.study.grid import read_study_file

    study = read_study_file(file, seeds)
    for config in dict.fromkeys(config for cell in study.cells for config in cell.configs):
        check_early(["--config", config])
    return study


def _tell_unsent(study: "StudyFile") -> None:
    """Prints which runs a wandb server lacks, as each run reports this only in its own log."""
    from deq_collapse.tracking.unsent import command, unsent

    if left := unsent(study.directory / cell.name for cell in study.cells):
        of = f"{len(left)} of the study's runs" if len(left) > 1 else "a run of the study"
        print(f"wandb's server has not got all of {of}; this brings the rest:\n  {command(left)}")


def _submit(options: argparse.Namespace) -> int:
    from deq_collapse.study.cluster import read_options, submit_study
    from deq_collapse.study.part import part
    from deq_collapse.study.runner import plan_study

    study, set_by = _read(options.file, options.seeds), read_options(options.set)
    asked = part(study, options.only)
    plan = plan_study(study, _whole(options))
    jobs = submit_study(asked, plan, options.cluster, set_by, options.jobs, options.retry)
    for name, job in jobs.items():
        print(f"{name}  job {job}")
    print(f"{len(jobs)} of {len(plan.cells)} runs submitted; deq-collapse study status {options.file}")
    return 0


def _status(path: Path) -> int:
    from deq_collapse.config.files import found
    from deq_collapse.study.estimate import standings
    from deq_collapse.study.grid import read_study_file
    from deq_collapse.study.plan import PLAN, read_plan, sketch
    from deq_collapse.study.status import print_status

    directory = _directory(path)
    plan = read_plan(directory)
    if plan is None and found(path).is_file():
        plan = sketch(read_study_file(path), f"deq-collapse study run {path}")
    if plan is None:
        raise UserError(f"there is no {directory / PLAN}: give the study file, or run the study first.")
    print_status(plan, standings(directory, plan))
    return 0


def _report(directory: Path, published: Path | None = None) -> int:
    from deq_collapse.report.page import FIGURES, write_report
    from deq_collapse.runs.published import keep
    from deq_collapse.study.results import gather

    if published is not None:
        keep(published, directory)
    gather(directory)
    print(f"Report: {write_report(directory, figures=True)}")
    print(f"Figures: {directory / FIGURES}")
    return 0


def _pack(directory: Path, archive: Path | None) -> int:
    from deq_collapse.study.pack import pack

    whole = directory.absolute()
    archive = archive or whole.with_name(f"{whole.name}.tar.xz")
    pack(directory, archive)
    print(f"Packed: {archive}")
    return 0


def _directory(study: Path) -> Path:
    """The directory of a study, given by its directory or its file."""
    from deq_collapse.config.files import found

    if not found(study).is_file():
        return study
    from deq_collapse.study.grid import read_study_file

    return read_study_file(study).directory


def study_parser() -> argparse.ArgumentParser:
    """The command's parser, with its options."""
    parser = argparse.ArgumentParser(prog="deq-collapse study", description="A grid of runs and its report.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run what is missing of a study, then write its report and figures")
    run.add_argument("file", type=Path, help="the study file, e.g. conf/study/demo.yaml")
    run.add_argument("--jobs", type=_at_least_one, default=1, metavar="N", help="runs at the same time")
    run.add_argument("--retry", action="store_true", help="run again what failed before")
    _add_which(run)
    submit = commands.add_parser("submit", help="run what is missing as jobs of a cluster")
    submit.add_argument("file", type=Path, help="the study file")
    submit.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        default="slurm",
        help="a SLURM array, or processes of this machine that all start at once (default: slurm)",
    )
    submit.add_argument(
        "--jobs", type=_at_least_one, metavar="N", help="runs at the same time, at most (SLURM)"
    )
    submit.add_argument("--retry", action="store_true", help="run again what failed before")
    _add_which(submit)
    submit.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of submitit, as timeout_min=600 gpus_per_node=1 slurm_partition=NAME",
    )
    report = commands.add_parser(
        "report", help="write the report and figures of a study, or of any directory of runs"
    )
    report.add_argument("study", type=Path, help="e.g. outputs/studies/demo, its study file, or outputs/runs")
    report.add_argument(
        "--published",
        type=Path,
        metavar="CSV",
        help="curves that others published, to draw behind the study's own; kept in its folder",
    )
    packed = commands.add_parser("pack", help="write what a report reads, without weights, into one file")
    packed.add_argument("study", type=Path, help="e.g. outputs/studies/demo, its study file, or outputs/runs")
    packed.add_argument(
        "archive", type=Path, nargs="?", help="a new file; the study's folder with .tar.xz by default"
    )
    status = commands.add_parser("status", help="show the grid of a study: how far it is, and the time left")
    status.add_argument("study", type=Path, help="e.g. outputs/studies/demo, or its study file")
    _add_watch(commands.add_parser("watch", help="show a study in the browser while it runs"))
    _add_dashboard(commands.add_parser("dashboard", help="lay a study out on wandb, with its report"))
    return parser


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds",
        type=_at_least_one,
        metavar="N",
        help="seeds of every grid, instead of those of the file; more of them extend a finished study",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="AXIS=LABELS",
        help="a part of the study, while the rest waits: refinement=tied,equilibrium; again for another axis",
    )


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, help="a study file, or a directory of runs")
    parser.add_argument("--every", type=_at_least_one, default=10, metavar="S", help="seconds between looks")
    parser.add_argument("--port", type=int, help="serve the page on this port of this machine alone; 0: any")


def _add_dashboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, help="a study file, or a directory of runs")
    parser.add_argument("--entity", help="user or team that owns the project; the login's own by default")
    parser.add_argument("--project", default=PROJECT, help="where the runs are")
    parser.add_argument("--offline", action="store_true", help="write files only, for `wandb sync`")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)

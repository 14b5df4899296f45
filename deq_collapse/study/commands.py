"""``deq-collapse study run FILE`` and ``deq-collapse study report DIRECTORY``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def study_main(args: Sequence[str]) -> int:
    """Runs a study command; returns its exit code.

    Raises:
        UserError: for a mistake in the study file, or a directory that holds no study.
    """
    options = _parser().parse_args(args)
    from deq_collapse.study.grid import read_study_file
    from deq_collapse.study.report import write_report
    from deq_collapse.study.runner import gather, run_study

    if options.command == "report":
        from deq_collapse.study.figure_files import write_figures

        gather(options.directory)
        print(f"Report: {write_report(options.directory)}")
        print(f"Figures: {write_figures(options.directory)}")
        return 0

    command = f"deq-collapse study run {options.file}"
    study = read_study_file(options.file)
    try:
        run_study(study, command)
    except (KeyboardInterrupt, SystemExit):
        print(f"Interrupted; the same command goes on where it stopped: {command}", file=sys.stderr)
        return 130
    print(f"Report: {write_report(study.directory)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deq-collapse study", description="A grid of runs and its report.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run what is missing of a study, then write its report")
    run.add_argument("file", type=Path, help="the study file, e.g. conf/study/demo.yaml")
    report = commands.add_parser(
        "report", help="write the report and figures of a study, or of any directory of runs"
    )
    report.add_argument("directory", type=Path, help="e.g. outputs/studies/demo, or outputs/runs")
    return parser

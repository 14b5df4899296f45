"""Runs the cells of a study as cluster jobs through submitit: a SLURM array, or local processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deq_collapse.errors import UserError
from deq_collapse.study.grid import StudyFile
from deq_collapse.study.plan import Plan, Planned, arguments
from deq_collapse.study.results import write_results
from deq_collapse.study.state import is_missing, state_of
from deq_collapse.study.work import log_to, run_cell

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FOLDER = "jobs"
"""Folder of submitit's own files in the study's directory."""
MINUTES = 12 * 60
"""Time limit of a job unless an option sets it; submitit's own default is at most 5."""


@dataclass(frozen=True)
class CellJob:
    """The work of a job: one cell. If SLURM starts several tasks, each is a rank of the run.

    Attributes:
        directory: of the study.
        plan: the study.
        cell: the cell to run.
        args: the command line of its run.
        retry: whether to run it even if it failed before.
    """

    directory: Path
    plan: Plan
    cell: Planned
    args: tuple[str, ...]
    retry: bool

    def __call__(self) -> str:
        """Runs the cell and returns its state."""
        import submitit

        directory = self.directory / self.cell.name
        log_to(directory)
        if submitit.JobEnvironment().global_rank > 0:
            from deq_collapse.config.run import lightning_main

            lightning_main(self.args)  # the first rank holds the lock and keeps the record
            return state_of(directory)
        try:
            run_cell(directory, self.cell, self.args, self.retry)
        finally:
            write_results(self.directory, self.plan)
        return state_of(directory)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit requeues when the job times out or is preempted: the same cell, which continues from
        its last checkpoint.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_study(
    study: StudyFile,
    plan: Plan,
    cluster: str,
    options: Mapping[str, Any],
    jobs: int | None = None,
    retry: bool = False,
) -> dict[str, str]:
    """Submits the missing cells of a study as one array; returns the job id of each submitted cell.

    Args:
        study: the study to run, or a part of it.
        plan: the checked plan of the whole study.
        cluster: ``slurm``, or ``local`` for processes on this machine, all at once.
        options: of submitit's ``AutoExecutor``, e.g. ``timeout_min``, ``gpus_per_node``, ``slurm_partition``.
        jobs: largest number of cells at a time; for SLURM only.
        retry: whether to rerun failed cells.

    Raises:
        UserError: if submitit is not installed, the cluster does not exist, or an option is refused.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError as error:
        raise UserError("jobs of a cluster need submitit: pip install 'deq-collapse[cluster]'.") from error
    found = {"name": plan.study, "timeout_min": MINUTES} | dict(options)
    if jobs is not None and cluster == "slurm":
        found["slurm_array_parallelism"] = jobs
    missing = [cell for cell in study.cells if is_missing(state_of(study.directory / cell.name), retry)]
    planned = {cell.name: cell for cell in plan.cells}
    tasks = [
        CellJob(study.directory, plan, planned[cell.name], tuple(arguments(study, cell)), retry)
        for cell in missing
    ]
    try:
        executor = submitit.AutoExecutor(study.directory / FOLDER, cluster=cluster)
        executor.update_parameters(**found)
        submitted = executor.map_array(_call, tasks) if tasks else []
    except (AssertionError, TypeError, NameError, ValueError, RuntimeError, FailedJobError) as error:
        raise UserError(f"submitit cannot submit to {cluster}: {' '.join(str(error).split())}") from error
    return {cell.name: str(job.job_id) for cell, job in zip(missing, submitted, strict=True)}


def read_options(texts: list[str]) -> dict[str, Any]:
    """Parses options ``KEY=VALUE`` typed by a user.

    Raises:
        UserError: for an option without ``=``.
    """
    for text in texts:
        if "=" not in text:
            raise UserError(f"--set takes KEY=VALUE, as in timeout_min=600, but was given {text}.")
    return {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in texts)}


def _call(job: CellJob) -> str:
    return job()

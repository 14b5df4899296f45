"""``deq-collapse fit``, ``validate``, ``test`` and ``predict``, beside the studies of other processes."""

from collections.abc import Sequence

from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.run import lightning_main
from deq_collapse.errors import UserError
from deq_collapse.study.state import is_locked


def fit_main(args: Sequence[str]) -> int:
    """Runs a subcommand of Lightning's.

    Raises:
        UserError: for a mistake, and for a fit of a run that a study is training.
    """
    lightning_main(args, _Beside)
    return 0


class _Beside(CollapseCLI):
    def _check_other_run(self) -> None:
        if is_locked(self.directory):
            raise UserError(f"a study is training {self.directory}: wait for it, or choose another --name.")
        super()._check_other_run()

"""Runs a configuration in this process: a fit, a validation, a test or predictions."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import set_dumper, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException

from deq_collapse.allocator import keep_freed_memory
from deq_collapse.config.command_line import CollapseCLI, SaveConfig
from deq_collapse.config.commands import COMMANDS
from deq_collapse.config.files import dump_yaml, expand_parts, links, sentence
from deq_collapse.config.help import Parser
from deq_collapse.config.ranks import losses_told
from deq_collapse.data import CollapseDataModule
from deq_collapse.errors import UserError, exit_code
from deq_collapse.models import CollapseModule

PARSER = {
    "parser_mode": "omegaconf+",
    "exit_on_error": False,
    "allow_abbrev": False,
}
USAGE = "deq-collapse {} --config FILE [--config FILE ...] [--KEY VALUE ...]"
OF_COMMANDS = {
    name: PARSER | {"usage": USAGE.format(name), "description": f"{text[0].upper()}{text[1:]}."}
    for name, text in COMMANDS.items()
}


def lightning_main(
    args: Sequence[str], cli: Callable[..., CollapseCLI] = CollapseCLI, run: bool = True
) -> CollapseCLI:
    """Runs a subcommand in this process.

    Args:
        args: of the command line, starting with the subcommand.
        cli: creates the command line.
        run: false if it has no subcommands and only builds what the configuration describes.

    Raises:
        UserError: for every mistake in the configuration.
    """
    keep_freed_memory()
    # With the default, an override on the command line would not reach values interpolated from it.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    set_dumper("yaml", dump_yaml)  # the parser dumps and reads a configuration to interpolate
    if "" not in sys.path:
        sys.path.insert(0, "")  # for users' classes in files of the working directory
    arguments = list(args)
    expanded = expand_parts(arguments)
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)  # the progress line says the rest
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # what trainer.profiler found
    with _program_arguments(arguments), warnings.catch_warnings(), losses_told():
        _silence()
        try:
            return cli(
                CollapseModule,
                CollapseDataModule,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False, "links": links(expanded)},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=Parser,
                parser_kwargs=PARSER | OF_COMMANDS,
                args=expanded,
                run=run,
            )
        except MisconfigurationException as error:
            raise UserError(sentence(str(error))) from error


@contextmanager
def _program_arguments(args: list[str]) -> Iterator[None]:
    """Lightning starts further ranks with the program's main module and arguments. They must be this module
    and the arguments of this run, whatever program called it.
    """
    argv, program = sys.argv, sys.modules["__main__"]
    sys.argv, sys.modules["__main__"] = [__file__, *args], sys.modules[__name__]
    try:
        yield
    finally:
        sys.argv, sys.modules["__main__"] = argv, program


def _silence() -> None:
    """Filters warnings of Lightning about which a user can do nothing."""
    for message in (
        "LightningCLI's args parameter",  # we pass them on purpose, see _program_arguments
        ".*LeafSpec.*is deprecated",  # Lightning 2.6 on torch 2.14
        "Couldn't infer the batch indices",  # predictions are in the order of the split
        "The number of training batches",  # every curve is by epoch
        "It is recommended to use `self.log",  # the measures are the same on all ranks already
        r"[\s\S]*(JsonargparseDeprecationWarning|removed\s+in\s+v5)",  # what Lightning calls of jsonargparse
        "This DataLoader will create",  # the user sets how many workers decode a tree
        ".*does not have many workers",  # batches are cut in memory
        "The `srun` command is available",  # a cell of a study may run without SLURM
        "The dirpath has changed",  # a checkpoint may be measured from anywhere
        "The .grad attribute of a Tensor that is not a leaf",  # caused by torch.compile itself
        "You're using the WeightAveraging callback, but loading",  # a checkpoint has the average for weights
        r"\s*Unable to serialize instance cpu",  # a callback's default, checked elsewhere
        ".*exists and is not empty",  # the manifest exists before the checkpoint
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":  # a further rank
    sys.exit(exit_code(lambda: lightning_main(sys.argv[1:])))

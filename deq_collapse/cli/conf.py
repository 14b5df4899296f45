"""``deq-collapse conf`` and ``init``: the configurations shipped with the package, and a project template."""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from deq_collapse.config.files import SHIPPED
from deq_collapse.errors import UserError

START = Path(__file__).parent.parent / "start"


def conf_main(args: Sequence[str]) -> int:
    """Lists the shipped configurations; returns the exit code.

    Raises:
        UserError: for a folder that does not exist.
    """
    folder, known = conf_parser().parse_args(args).folder, folders()
    if folder is not None and folder not in known:
        raise UserError(f"there is no folder {folder} of configurations; there are {', '.join(known)}.")
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for path in sorted((SHIPPED / (folder or "")).rglob("*.yaml")):
        table.add_row(f"conf/{path.relative_to(SHIPPED).as_posix()}", first_sentence(path))
    Console(soft_wrap=False).print(table)
    return 0


def conf_parser() -> argparse.ArgumentParser:
    """The parser of ``conf``."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse conf",
        description="Lists the configurations that come with the package. Each works under its name from any"
        " directory; a file of that name in the working directory is used instead.",
    )
    parser.add_argument("folder", nargs="?", help=f"one of {', '.join(folders())}; all of them by default")
    return parser


def folders() -> list[str]:
    """The folders of shipped configurations."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def first_sentence(path: Path) -> str:
    """The first sentence of a configuration file's comment."""
    comment = re.match(r"(?:#.*\n?)*", path.read_text(encoding="utf-8"))
    words = " ".join((comment[0] if comment else "").replace("#", " ").split())
    return re.split(r"(?<=[.?])\s", words, maxsplit=1)[0].rstrip(".")


def init_main(args: Sequence[str]) -> int:
    """Copies the template into a directory; returns the exit code.

    Raises:
        UserError: if one of its files exists, or the directory cannot be written.
    """
    directory: Path = init_parser().parse_args(args).directory
    names = sorted(path.name for path in START.iterdir() if path.is_file())
    for name in names:
        if (directory / name).exists():
            raise UserError(f"{directory / name} exists, and nothing is overwritten: give another directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(START / name, directory / name)
    except OSError as error:
        raise UserError(f"{directory} cannot be written: {error.strerror}.") from error
    print(f"{directory}: {', '.join(names)}. From there:")
    print("  deq-collapse fit --config run.yaml --name first")
    print("  deq-collapse study run study.yaml --jobs 2")
    return 0


def init_parser() -> argparse.ArgumentParser:
    """The parser of ``init``."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse init",
        description="Writes a start of your own: an encoder, a run and a study of it, which build on the"
        " configurations that come with the package.",
    )
    parser.add_argument("directory", type=Path, help="where the files go; made where there is none")
    return parser

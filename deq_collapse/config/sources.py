"""Data sets of several configurations that are looked at in one process."""

from typing import Any

from deq_collapse.data import Source


def made_once(made: dict[str, Source], kind: type[Source], *args: Any, **kwargs: Any) -> Source:
    """The data set of a class and its arguments, added to those made before if it is none of them."""
    key = repr((kind, args, kwargs))
    if key not in made:
        made[key] = kind(*args, **kwargs)
    return made[key]

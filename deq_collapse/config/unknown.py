"""Suggestions for an unknown key."""

from collections.abc import Iterable
from difflib import get_close_matches

from deq_collapse.errors import nearest

OPTIMIZER, ENCODER = "model.optimizer.init_args", "model.encoder.init_args"
MEANT = {
    **dict.fromkeys(("lr", "learning_rate"), f"{OPTIMIZER}.lr"),
    "weight_decay": f"{OPTIMIZER}.weight_decay",
    "momentum": f"{OPTIMIZER}.momentum",
    "width": f"{ENCODER}.width",
    "depth": f"{ENCODER}.depth",
    "ratio": "data.imbalance.init_args.ratio",
    "loss": "model.criterion",
    "cell": "model.refinement.init_args.cell",
    "solver": "model.refinement.init_args.solver",
    "epochs": "trainer.max_epochs",
    "seed": "seed_everything",
    "output": "trainer.default_root_dir",
    "gpus": "trainer.devices",
}
"""Keys with another name, or options of a class, by the name that a user may try."""


def unknown_key(key: str, keys: Iterable[str]) -> str:
    """One sentence for an unknown key.

    >>> unknown_key("model.lr", ["model.encoder", "model.optimizer"])
    'there is no key model.lr; did you mean model.optimizer.init_args.lr?'
    """
    every = sorted(set(keys))
    last, depth = key.rpartition(".")[2], key.count(".") + 1
    elsewhere = [known for known in every if known.rpartition(".")[2] == last]
    meant = [MEANT[last]] if last in MEANT else elsewhere
    if meant:
        return f"there is no key {key}; did you mean {' or '.join(meant[:3])}?"
    names = {".".join(known.split(".")[:depth]) for known in every}
    if "." in key and not get_close_matches(key, names, n=1):
        key, names = key.split(".")[0], {known.split(".")[0] for known in every}
    return f"there is no key {key}; {nearest(key, names)}"

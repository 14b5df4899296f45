"""What two networks differ in besides the equilibrium is said of every verdict on them."""

from collections.abc import Callable

import pytest

from deq_collapse.analysis.unlike import unlike
from deq_collapse.analysis.verdicts import records, verdicts
from deq_collapse.runs.config import Saved, refined
from deq_collapse.runs.record import End, Solver
from deq_collapse.runs.study import Study

SOLVER = Solver("phantom(5, 0.5)", 11.0, None, 1e-4, 0.0, 0.0, 1e-3)
CELL = {"class_path": "deq_collapse.models.ResidualCell", "init_args": {"groups": 8}}
PHANTOM = {"class_path": "deq_collapse.models.Phantom", "init_args": {"steps": 5, "tau": 0.5}}


def terms(class_path: str, **options: object) -> dict[str, str]:
    return refined({"model": {"refinement": {"class_path": class_path, "init_args": options}}})


EXPLICIT = terms("Explicit", block=CELL, depth=12, gradient=None, jacobian_weight=None)


@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        ("ift", "exact"),
        ("unrolled(3)", "exact"),
        ("jfb", "jfb"),
        ("phantom(5, 0.5)", "phantom(5, 0.5)"),
        (PHANTOM, "Phantom(steps=5, tau=0.5)"),
    ],
)
def test_a_gradient_is_exact_or_named(gradient: object, words: str) -> None:
    assert terms("Equilibrium", cell=CELL, gradient=gradient, jacobian_weight=0.0) == EXPLICIT | {
        "gradient": words
    }


def test_a_verdict_says_what_else_differs(made_up: Callable[..., Study]) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        implicit = refinement == "equilibrium"
        given = {"cell": CELL, "gradient": "phantom(5, 0.5)", "jacobian_weight": 0.5}
        recipe = {"optimizer": "SGD(lr=0.1)", "refinement": refinement}
        return {
            "solver": SOLVER if implicit else None,
            "saved": Saved(recipe=recipe, refined=terms("Equilibrium", **given) if implicit else EXPLICIT),
            "end": End("epochs", 10, 10),
        }

    found = verdicts(made_up(values))
    told = ("gradient: exact and phantom(5, 0.5)", "weight of the Jacobian term: 0 and 0.5")
    assert found.unlike == [("equilibrium", "explicit", told)]
    assert {row["unlike"] for row in records(found)} == {"; ".join(told)}


def test_twins_that_share_all_else_are_alike(made_up: Callable[..., Study]) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"saved": Saved(recipe={"refinement": refinement}, refined=EXPLICIT)}

    study = made_up(values)
    assert unlike(study.runs[0], study.runs[-1]) == ()
    assert not verdicts(study).unlike


def test_epochs_and_the_recipe_count_and_what_is_not_known_does_not(made_up: Callable[..., Study]) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        explicit = refinement == "explicit"
        return {
            "saved": Saved(recipe={"optimizer": "SGD(lr=0.1)" if explicit else "Adam(lr=0.01)"}),
            "end": End("epochs", 10, 40 if explicit else 20) if seed else None,
        }

    runs = made_up(values, seeds=2).runs
    optimizer = "optimizer: SGD(lr=0.1) and Adam(lr=0.01)"
    assert unlike(runs[0], runs[2]) == (optimizer,)
    assert unlike(runs[1], runs[3]) == (optimizer, "epochs: 40 and 20")

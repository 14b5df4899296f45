"""What two networks of a comparison differ in besides being explicit or an equilibrium."""

from __future__ import annotations

from deq_collapse.runs.record import Run


def unlike(one: Run, two: Run) -> tuple[str, ...]:
    """Every part of the recipe that two runs do not share, in words with both values; the refinement itself
    counts by its block, the kind of its gradient and the weight of its Jacobian term. What the configuration
    of a run does not say is not compared.

    A difference beside the one that is asked about may be what an effect comes from.
    """
    sides = [_parts(run) for run in (one, two)]
    shared = (part for part in sides[0] if part in sides[1])
    return tuple(
        f"{part}: {sides[0][part]} and {sides[1][part]}"
        for part in shared
        if sides[0][part] != sides[1][part]
    )


def _parts(run: Run) -> dict[str, str]:
    planned = {"epochs": str(run.end.planned_epochs)} if run.end and run.end.planned_epochs else {}
    recipe = {part: words for part, words in run.saved.recipe.items() if part != "refinement"}
    return recipe | run.saved.refined | planned

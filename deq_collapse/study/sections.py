"""The report's sections of figures: to add one, write a function of the study and put it into `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

from deq_collapse.study.along import along_figure, along_scales, courses, lines
from deq_collapse.study.curves import collapse_curves, shared_scales
from deq_collapse.study.gram import gram_maps
from deq_collapse.study.records import Run, Study
from deq_collapse.study.style import svg
from deq_collapse.study.tsne import tsne_map


@dataclass(frozen=True)
class Section:
    """Figures under one title.

    Attributes:
        title: the heading.
        layout: how figures stand beside each other, a class of `report.css`: `one`, `pair` or `four`.
        figures: each a caption, and what is drawn as HTML.
        note: what a reader must know to read them.
    """

    title: str
    layout: str
    figures: tuple[tuple[Markup, Markup], ...]
    note: Markup


def figure_sections(study: Study) -> list[Section]:
    """All sections that have figures, in order; none for a study without runs."""
    if not study.runs:
        return []
    return [section for make in SECTIONS if (section := make(study)).figures]


def setting_markup(words: str) -> Markup:
    """A setting's words with its subscript set as one."""
    return Markup(escape(words).replace("K_A", Markup("K<sub>A</sub>")))


def _curves(study: Study) -> Section:
    scales = shared_scales(study.runs)
    figures = tuple(
        (
            setting_markup(setting),
            Markup(svg(collapse_curves(cell, scales), f"curves{i}", f"Collapse curves, {setting}")),
        )
        for i, (setting, cell) in enumerate(study.cells.items())
    )
    note = Markup(
        "Thick lines with marks: training split; thin dashed lines: test split. Diamonds and vertical"
        " rules: where the terminal phase starts. The vertical axes are logarithmic for NC1 to NC4 and the"
        " error, and the same in all settings; an axis that holds exact zeros turns linear below its lowest"
        " power of ten."
    )
    if _seeds(study) > 1:
        note += " Lines are medians over seeds, bands reach from the lowest to the highest seed."
    return Section("Collapse curves", "pair", figures, note)


def _along(study: Study) -> Section:
    settings = lines(courses(study.runs))
    scales = along_scales(settings) if settings else {}
    figures = tuple(
        (
            setting_markup(setting),
            Markup(
                svg(
                    along_figure({setting: drawn}, scales),
                    f"along{i}",
                    f"Collapse along the computation, {setting}",
                )
            ),
        )
        for i, (setting, drawn) in enumerate(settings.items())
    )
    note = Markup(
        "The trained networks, measured at H<sub>0</sub> and after every evaluation of a block: every layer"
        " of an explicit refinement, every iterate of an equilibrium’s solver, or what a run’s configuration"
        " names instead. Each state is read out as the features are, so that a line ends at the network’s"
        " own features; dotted lines carry that value on. A sample whose solver has stopped keeps its state."
        " Thick lines with marks: training split; thin dashed lines: test split. The vertical axes are"
        " logarithmic and the same in all settings."
    )
    if _seeds(study) > 1:
        note += " Lines are means over seeds, bands reach from the lowest to the highest seed."
    return Section("Along the computation", "pair", figures, note)


def _angles(study: Study) -> Section:
    figures = tuple(
        (
            setting_markup(setting),
            Markup(svg(gram_maps(_first(cell)), f"gram{i}", f"Gram heat maps, {setting}")),
        )
        for i, (setting, cell) in enumerate(study.cells.items())
    )
    note = Markup(
        "Cosines between centred class means (training split) and between classifier rows after the last"
        " epoch, beside the simplex ETF, where every pair has the cosine −1/(K−1). Below each map: mean ±"
        " standard deviation over pairs of classes."
    )
    if any(run.majority for run in study.runs):
        note += " Black lines divide the majority classes, which come first, from the minority."
    return Section("Angles between classes", "pair", figures, note + _first_seed(study))


def _maps(study: Study) -> Section:
    runs = [run for cell in study.cells.values() for run in _first(cell).values()]
    figures = tuple(
        (
            Markup('{}, <span class="{}">{}</span>').format(
                setting_markup(run.setting), run.refinement, run.refinement
            ),
            Markup(svg(tsne_map(run), f"tsne{i}", f"t-SNE, {run.name}")),
        )
        for i, run in enumerate(runs)
    )
    note = Markup(
        "t-SNE of test features after the last epoch; a class’s name stands at the median of its points."
        " Distances between groups and the sizes of groups mean little in such a map."
    )
    if any(run.majority for run in study.runs):
        note += " Triangles are minority classes."
    return Section("Test features in the plane", "four", figures, note + _first_seed(study))


def _first(cell: dict[str, list[Run]]) -> dict[str, Run]:
    """One run per refinement: the first seed."""
    return {refinement: runs[0] for refinement, runs in cell.items()}


def _first_seed(study: Study) -> str:
    return " The first seed is shown." if _seeds(study) > 1 else ""


def _seeds(study: Study) -> int:
    return max(len(runs) for cell in study.cells.values() for runs in cell.values())


SECTIONS: tuple[Callable[[Study], Section], ...] = (_curves, _along, _angles, _maps)

"""The figures of a study, in sections. To add one, write a function of the study and add it to `SECTIONS`.

The report shows them, and `figure_files` writes them as files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from deq_collapse.analysis.arrangement import Cell, exemplary, families, first_run
from deq_collapse.analysis.by_epoch import effect_curves
from deq_collapse.analysis.contrasts import effect_tables, equal_loss_effects
from deq_collapse.analysis.imbalance import imbalance_ratio, is_balanced
from deq_collapse.analysis.minority import minority_table, theory_table
from deq_collapse.figures.along import along_figure, along_multiples, along_scales, courses, lines
from deq_collapse.figures.angles import angle_matrices
from deq_collapse.figures.beside import distance_figure, grams_figure
from deq_collapse.figures.by_epoch import effect_curves_figure
from deq_collapse.figures.curves import collapse_curves, ends, panels, shared_scales
from deq_collapse.figures.effects import effects_figure, families_figure, shown
from deq_collapse.figures.features import feature_maps
from deq_collapse.figures.minority import collapse_curve
from deq_collapse.figures.multiples import metric_multiples
from deq_collapse.figures.published import published_figure
from deq_collapse.figures.style import inline, saved
from deq_collapse.report.markup import setting_markup
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import axes_in_words
from deq_collapse.runs.study import Study

OF_THEORY = ("cross entropy", None)
"""Criteria for which SELI and the layer-peeled optimum hold; old runs do not record theirs."""
MANY = 3
"""A larger number of settings is drawn as small multiples, one metric at a time."""


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: of its files, without suffix; unique in the study.
        title: description of its content.
        caption: text above it in the report, where the section's title says the rest.
        draw: creates it.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """Figures under one title.

    Attributes:
        title: the heading.
        layout: arrangement of the figures, a class of `report.css`: `one`, `pair` or `four`.
        drawings: the figures that the report shows.
        note: what a reader must know to understand them.
        files: figures that are only written as files, because the page would be too long.
    """

    title: str
    layout: str
    drawings: tuple[Drawing, ...]
    note: Markup
    files: tuple[Drawing, ...] = ()

    def figures(self, drawn: Mapping[str, str]) -> Iterator[tuple[Markup, Markup]]:
        """The caption of each figure, and the figure as HTML.

        Args:
            drawn: the svg of those that were drawn before, by name.
        """
        for drawing in self.drawings:
            text = drawn.get(drawing.name) or saved(drawing.draw(), "svg").decode()
            html = inline(text, drawing.name, drawing.title)
            yield setting_markup(drawing.caption), Markup(html)


def figure_sections(study: Study) -> list[Section]:
    """All sections that have figures, in order; none for a study without runs."""
    if not study.runs:
        return []
    return [section for make in SECTIONS if (section := make(study)).drawings]


def _curves(study: Study) -> Section:
    scales, seeds = shared_scales(study.runs), _seeds(study)
    each = [
        Drawing(
            _name(setting, "curves"),
            f"Collapse curves, {setting}",
            setting,
            # Two columns fit a page of paper; a single one fits half of a screen.
            partial(collapse_curves, cell, scales, 1 if len(study.cells) <= MANY else 2),
        )
        for setting, cell in study.cells.items()
    ]
    unseen = "/".join(dict.fromkeys(run.held_out for run in study.runs))
    note = Markup(
        f"Thick lines with marks: training split; thin dashed lines: {unseen} split. Diamonds and vertical"
        " rules: where the terminal phase starts. The vertical axes are logarithmic for NC1 to NC4 and the"
        " loss, and the same in all settings; an axis that holds exact zeros turns linear below its lowest"
        " power of ten."
    )
    if seeds > 1:
        note += " Lines are medians over seeds, bands reach from the lowest to the highest seed."
    if len(study.cells) <= MANY:
        return Section("Collapse curves", "pair", tuple(each), note)
    if seeds > 1:
        note += (
            " Diamonds stand at the median over the seeds that reached the terminal phase, and say how many"
            " did where not all."
        )
    note += " The folder figures beside this page also has every setting’s curves on a page of their own."
    together = (
        Drawing(
            _name(family, panel.metric),
            f"{panel.title}, {family or 'all settings'}",
            family,
            partial(metric_multiples, panel, cells, scales[panel.metric]),
        )
        for panel in panels(study.runs)
        for family, cells in families(study).items()
        if panel.metric in scales and any(list(ends(panel, cell)) for cell in cells.values())
    )
    return Section("Collapse curves", "one", tuple(together), note, tuple(each))


def _published(study: Study) -> Section:
    drawings = []
    for setting, cell in study.cells.items():
        run, curves = first_run(cell), study.published
        if curves is None or not run.majority:
            continue
        here = (curves["K_A"] == len(run.majority)) & np.isclose(curves["R"], imbalance_ratio(run), rtol=0.05)
        if here.any():
            draw = partial(published_figure, cell, curves[here])
            title = f"Beside published curves, {setting}"
            drawings.append(Drawing(_name(setting, "published"), title, setting, draw))
    note = Markup(
        "Thick lines: this study; dotted, pale: what others published, digitised from their figures. Their"
        " accuracy is that of test images; the base of their logarithm of NC1 is taken as e, and their NC3"
        " is squared, as ours is."
    )
    return Section("Beside published curves", "one", tuple(drawings), note)


def _effects(study: Study) -> Section:
    drawings = []
    for table in effect_tables(study):
        runs = [run for run in study.runs if axes_in_words(run.words)[0] == table.imbalance]
        if all("family" in run.axes for run in runs):
            draw = partial(families_figure, runs, shown(table.measures))
            title = f"Families side by side, {table.imbalance}"
            drawings.append(Drawing(_name(table.imbalance, "families"), title, table.imbalance, draw))
        title = f"What adds what, {table.imbalance}"
        draw = partial(effects_figure, table)
        drawings.append(Drawing(_name(table.imbalance, "effects"), title, table.imbalance, draw))
    for table in equal_loss_effects(study):
        heading = f"{table.imbalance}, at equal training loss"
        draw = partial(effects_figure, table)
        name = _name(table.imbalance, "equal-loss")
        drawings.append(Drawing(name, f"What adds what, {heading}", heading, draw))
    note = Markup(
        "Effects of one change, everything else equal, paired by seed: dots at the mean, lines over the 95%"
        " interval, arrows where it goes on; filled where p is below 0.05 after Holm’s correction over the"
        " column; diamonds are means over the rows above them. NC1 to NC3 are of the training split. At equal"
        " training loss each pair stands at the higher of its two final losses, and accuracies are of the"
        " images held out. Where"
        " families stand side by side, small marks are seeds, bars their means; hollow marks missed fixed"
        " points, or ended before their plan."
    )
    return Section("What adds what", "one", tuple(drawings), note)


def _by_epoch(study: Study) -> Section:
    curves = effect_curves(study)
    drawings = [
        Drawing(
            _name(imbalance, "by-epoch"),
            f"What adds what, epoch by epoch, {imbalance}",
            imbalance,
            partial(effect_curves_figure, [curve for curve in curves if curve.imbalance == imbalance]),
        )
        for imbalance in dict.fromkeys(curve.imbalance for curve in curves)
    ]
    note = Markup(
        "The same effects after every epoch at which all pairs were measured: when a lead begins, and whether"
        " it lasts. Bands are Student’s 95% intervals of each epoch on its own, n the number of pairs;"
        " nothing is tested here. Accuracies are of the images held out, all else of the training split."
    )
    return Section("What adds what, epoch by epoch", "one", tuple(drawings), note)


def _minority(study: Study) -> Section:
    drawings = []
    for family, cells in families(study).items():
        table = minority_table(cells)
        if len(table):
            num_classes = len(first_run(next(iter(cells.values()))).class_counts)
            title = "Cosine of minority classes against the imbalance ratio"
            draw = partial(_collapse_curve, table, num_classes)
            drawings.append(Drawing(_name(family, "minority"), title, family, draw))
    note = Markup(
        "After the last epoch, on the training split: the mean cosine over pairs of minority classes, of"
        " classifier rows and of centred class means; 1 is minority collapse (Fang et al. 2021). At R = 1"
        " stand balanced runs, measured on the same classes. Marks are seeds, lines join their medians."
        " Theory is the layer-peeled model without bias; a cross is missing where its minority rows vanish."
    )
    return Section("Minority collapse against the imbalance ratio", "one", tuple(drawings), note)


def _collapse_curve(table: pd.DataFrame, num_classes: int) -> Figure:
    return collapse_curve(table, theory_table(table, num_classes), num_classes)


def _along(study: Study) -> Section:
    settings = lines(courses(study.runs))
    scales = along_scales(settings) if settings else {}
    each = tuple(
        Drawing(
            _name(setting, "along"),
            f"Collapse along the computation, {setting}",
            setting,
            partial(along_figure, {setting: drawn}, scales),
        )
        for setting, drawn in settings.items()
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
    title = "Along the computation"
    if len(settings) <= MANY:
        return Section(title, "pair", each, note)
    together = (
        Drawing(
            _name(family, f"along-{metric}"),
            f"{metric} along the computation, {family or 'all settings'}",
            family,
            partial(along_multiples, metric, cells, settings, scales[metric]),
        )
        for metric in scales
        for family, cells in families(study).items()
        if any(setting in settings for setting in cells)
    )
    return Section(title, "one", tuple(together), note, each)


def _angles(study: Study) -> Section:
    drawings = tuple(
        Drawing(
            _name(setting, "angles"),
            f"Angles between classes, {setting}",
            setting,
            partial(angle_matrices, _first(cell)),
        )
        for setting, cell in study.cells.items()
    )
    note = Markup(
        "Angles between centred class means (training split) and between classifier rows after the last"
        " epoch, beside the simplex ETF, where every pair has the cosine −1/(K−1), and, where classes are"
        " unequally large, the SELI geometry of their counts (Thrampoulidis et al. 2022). Below each matrix:"
        " mean ± standard deviation over pairs of classes."
    )
    if any(run.majority for run in study.runs):
        note += " White lines divide the majority classes, which come first, from the minority."
    return Section("Angles between classes", "pair", drawings, note + _first_seed(study))


def _features(study: Study) -> Section:
    cells = {setting: cell for setting, cell in study.cells.items() if _have_features(cell)}
    shown = list(cells)
    if len(shown) > MANY:
        balanced = (setting for setting, cell in cells.items() if is_balanced(first_run(cell)))
        shown = list(dict.fromkeys([exemplary(cells), *balanced]))[:2]
    drawings = tuple(
        Drawing(
            _name(setting, "features"),
            f"t-SNE and Gram matrix of test features, {setting}",
            setting,
            partial(feature_maps, _first(cells[setting])),
        )
        for setting in shown
    )
    note = Markup(
        "Test features after the last epoch. Above, t-SNE: a class’s name stands at the median of its points;"
        " distances between groups and the sizes of groups mean little in such a map. Below, cosines between"
        " pairs of features, centred by the mean of class means and sorted by class."
    )
    if any(run.majority for run in study.runs):
        note += " Triangles are minority classes; majority classes come first."
    if len(shown) < len(study.cells):
        note += f" {len(shown)} of {len(study.cells)} settings are drawn."
    return Section("Test features", "one", drawings, note + _first_seed(study))


def _have_features(cell: Cell) -> bool:
    """Whether the runs drawn have test features: those of a packed study have none."""
    return all(len(run.geometry.test_labels) for run in _first(cell).values())


def _theory(study: Study) -> Section:
    drawings: list[Drawing] = []
    files: list[Drawing] = []
    for setting, cell in study.cells.items():
        found = [run.theory for runs in cell.values() for run in runs if run.theory]
        if found:
            title = f"Distances to the theory, {setting}"
            draw = partial(distance_figure, found)
            drawings.append(Drawing(_name(setting, "theory"), title, setting, draw))
        for refinement, runs in cell.items():
            beside = runs[0].theory
            if beside:
                caption = f"{setting}, {refinement}: {beside.words}"
                title = f"Gram matrices beside the theory, {runs[0].name}"
                draw = partial(grams_figure, beside)
                shown = drawings if len(study.cells) <= MANY else files
                shown.append(Drawing(_name(f"{setting} {refinement}", "theory"), title, caption, draw))
    note = Markup(
        "Final Gram matrices of classifier rows and class means, and the logits of class means, each divided"
        " by its norm, beside the simplex ETF, SELI and GOF of the run’s own class counts, and the"
        " layer-peeled optimum, with a free bias, of these counts and of the energies the run ended with:"
        " E<sub>W</sub> is the mean square of centred classifier rows, E<sub>H</sub> that of centred class"
        " means on the training split. Rows and means are centred but where GOF is compared."
    )
    others = dict.fromkeys(run.saved.criterion for run in study.runs if run.saved.criterion not in OF_THEORY)
    if others:
        note += (
            " SELI and the layer-peeled optimum are those of cross entropy, GOF is that of squared error;"
            f" these runs, or some, were trained with {' and '.join(map(str, others))}."
        )
    if any(run.majority for run in study.runs):
        note += " Black lines divide the majority classes, which come first, from the minority."
    if files:
        note += " The Gram matrices themselves are in the runs’ folders, as theory.svg."
    return Section("Beside the theory", "one", tuple(drawings), note + _first_seed(study), tuple(files))


def _name(words: str, kind: str) -> str:
    """A name for files and ids, e.g. `step-ka3-r10-curves`."""
    plain = words.lower().replace("k_a=", "ka").replace("r=", "r")
    return "-".join([*re.findall(r"\w+", plain), kind])


def _first(cell: Cell) -> dict[str, Run]:
    """One run per refinement: the first seed."""
    return {refinement: runs[0] for refinement, runs in cell.items()}


def _first_seed(study: Study) -> str:
    return " The first seed is shown." if _seeds(study) > 1 else ""


def _seeds(study: Study) -> int:
    return max(len(runs) for cell in study.cells.values() for runs in cell.values())


def all_drawings(sections: Iterable[Section]) -> Iterator[Drawing]:
    """All figures that are written as files."""
    for section in sections:
        yield from section.drawings + section.files


SECTIONS: tuple[Callable[[Study], Section], ...] = (
    _effects,
    _by_epoch,
    _curves,
    _published,
    _minority,
    _along,
    _angles,
    _theory,
    _features,
)

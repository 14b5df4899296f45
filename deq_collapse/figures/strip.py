"""An effect and its interval as a strip in a table row, with the claimed direction to the right."""

from __future__ import annotations

import math

from markupsafe import Markup

from deq_collapse.analysis.verdicts import Verdict

WIDTH, HEIGHT, REACH = 132, 18, 60  # pixels; REACH from the middle to the end of the longest part


def strip(verdict: Verdict) -> Markup:
    """The strip, scaled by its own longest part: it shows direction and certainty, not size.

    A vertical rule marks no effect, a line the 95% interval, a dot the effect. Without an interval it is
    empty, because there is no scale: the dot of one pair would be at an end, however small its effect.
    """
    comparison = verdict.comparison
    if not (comparison.n and math.isfinite(comparison.low)):
        return Markup("")
    sign = 1.0 if verdict.claim.higher else -1.0
    longest = max(map(abs, (comparison.low, comparison.mean, comparison.high))) or 1.0
    middle, y = WIDTH / 2, HEIGHT / 2
    x = middle + sign * REACH * comparison.mean / longest
    parts = [f'<line class="zero" x1="{middle:g}" x2="{middle:g}" y1="1" y2="{HEIGHT - 1}"/>']
    low, high = (middle + sign * REACH * end / longest for end in (comparison.low, comparison.high))
    parts.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{y:g}" y2="{y:g}"/>')
    parts.append(f'<circle cx="{x:.1f}" cy="{y:g}" r="3.5"/>')
    label = "effect and 95% interval, claimed direction to the right"
    return Markup(
        f'<svg class="strip" role="img" aria-label="{label}" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
    )

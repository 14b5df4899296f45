"""Plain words with their subscripts and superscripts as markup."""

import re

from markupsafe import Markup, escape


def setting_markup(words: str) -> Markup:
    """A setting's words with the subscript as markup."""
    return Markup(escape(words).replace("K_A", Markup("K<sub>A</sub>")))


def marked(words: str) -> Markup:
    """Words with the symbols of formulas as markup.

    >>> marked("K_A classes & Σ_B⁺")
    Markup('K<sub>A</sub> classes &amp; Σ<sub>B</sub><sup>+</sup>')
    """
    subscripts = re.sub(r"(\w)_([A-Z])\b", r"\1<sub>\2</sub>", str(escape(words)))
    return Markup(subscripts.replace("⁺", "<sup>+</sup>"))

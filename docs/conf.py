"""The documentation site, which `make site` builds; its pages load nothing from other hosts."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from deq_collapse import __version__

ROOT = Path(__file__).parents[1]

project = "deq_collapse"
author = "The deq_collapse authors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False
# Notebooks are stored without outputs; a build runs those that have changed since the last one.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 1200

# In docstrings a single backtick marks code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "pydata_sphinx_theme"
html_title = "deq_collapse"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
# Pages that stand alone have no section to navigate.
ALONE = (
    "index",
    "first_steps",
    "gallery",
    "reproductions",
    "theory",
    "compared",
    "glossary",
    "changelog",
)
RESULTS = ("families", "gradient", "collapse", "mondeq", "mid_training", "bounded", "terminal")
html_sidebars: dict[str, list[str]] = {page: [] for page in (*ALONE, "search", "genindex")}
html_theme_options: dict[str, Any] = {
    "logo": {"text": "deq_collapse"},
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "The deq_collapse authors, Apache-2.0 licence"


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _without_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a folder, which a code host follows, is its text alone here."""
    here = Path(app.env.doc2path(page)).parent

    def linked(link: re.Match[str]) -> str:
        return link[1] if (here / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([\w./-]+)\)", linked, source[0])


def _with_pages_of_results(app: Sphinx, page: str, source: list[str]) -> None:
    """The results' pages, which a code host lists as files, are that page's section here."""
    if page == "results/README":
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(RESULTS) + "\n```\n"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Formulas as MathML, which browsers draw by themselves, links to folders, and the results' pages."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("source-read", _without_folders)
    app.connect("source-read", _with_pages_of_results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

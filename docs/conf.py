"""Sphinx settings of the docs site: the Markdown pages as they are, and the API from the docstrings."""

import re

from sphinx.application import Sphinx

from scribbleseg import __version__

project, author, release = "scribbleseg", "scribbleseg maintainers", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme, html_title = "pydata_sphinx_theme", "scribbleseg"
html_theme_options = {"header_links_before_dropdown": 4}
html_sidebars = {"index": []}
myst_heading_anchors = 4
autodoc_member_order = "bysource"
# pages link to files of the repository that are not part of the site; tests/test_docs.py checks that they exist
suppress_warnings = ["myst.xref_missing"]


def as_plain_text(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain English with formulas: only `code` and indented blocks have a meaning."""
    found: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside:
            found += ["", ".. code-block:: text", ""]
        if inside and line.strip() and not indented:
            found.append("")
        inside = indented or (inside and not line.strip())
        parts = re.split(r"(`[^`]+`)", line)
        text = "".join(
            f"`{part}`" if place % 2 else re.sub(r"([\\*|_])", r"\\\1", part) for place, part in enumerate(parts)
        )
        found.append(line if inside else text.lstrip())
    lines[:] = found


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_plain_text)

"""Settings of Sphinx, which docs/build.py runs with warnings as errors."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent

project = "DT-RAM"
author = copyright = "DT-RAM contributors"
extensions = ["myst_nb"]  # Markdown, and the notebook of the tour
nb_execution_mode = "off"  # it holds its results
root_doc = "index"
exclude_patterns = ["_build", "third_party_entry.md"]  # to be pasted into Gymnasium's own page
templates_path = ["_templates"]
html_theme = "furo"
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html"),
        *("try.html", "sidebar/navigation.html", "sidebar/scroll-end.html"),
    ]
}
html_title = "DT-RAM"
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
myst_heading_anchors = 3
nitpicky = True


def rewrite_links(app: object, name: str, source: list[str]) -> None:
    """Adapts links that work on GitHub: Sphinx has no pages for Markdown outside docs, or folders.

    A link to such a page becomes a download; of a link to a folder only the text stays.
    """

    def rewrite(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (DOCS / name).parent.joinpath(target).resolve()
        if path.is_dir():
            return text
        outside = path.suffix == ".md" and not path.is_relative_to(DOCS)
        return f"[{text}](path:{target})" if outside else link[0]

    source[0] = re.sub(r"\[([^\]]*)\]\(([\w./-]+)\)", rewrite, source[0])


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", rewrite_links)  # type: ignore[attr-defined]

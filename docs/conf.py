"""Sphinx's settings; docs/build.py runs it, with every warning an error."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent

project = "DT-RAM"
author = copyright = "DT-RAM contributors"
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "DT-RAM"
html_show_sourcelink = False
html_copy_source = False
myst_heading_anchors = 3
nitpicky = True


def link_as_file(app: object, name: str, source: list[str]) -> None:
    """Markdown files outside this folder, such as the README, are files to Sphinx, not pages."""

    def mark(link: re.Match[str]) -> str:
        path = (DOCS / name).parent.joinpath(link[1]).resolve()
        return link[0] if path.is_relative_to(DOCS) else f"](path:{link[1]})"

    source[0] = re.sub(r"\]\(([\w./-]+\.md)\)", mark, source[0])


def setup(app: object) -> None:
    """Sphinx calls this."""
    app.connect("source-read", link_as_file)  # type: ignore[attr-defined]

"""Links of the written and generated pages: to other pages, their headings, and files."""

from __future__ import annotations

import re
from pathlib import Path

_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OUTSIDE = ("http://", "https://", "mailto:")  # not fetched


def links(path: Path) -> list[str]:
    """The targets of a page's links and images, those in code apart."""
    text = _CODE.sub("x", _FENCE.sub("", path.read_text()))
    return _LINK.findall(text)


def headings(path: Path) -> set[str]:
    """The names that a page's headings are linked by, as GitHub makes them."""
    names: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.M):
        name = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        names.add(name)
    return names


def broken(pages: list[Path], root: Path) -> list[str]:
    """Every link that leads nowhere, as ``page: target``; an address on the web is not fetched.

    Args:
        pages: Markdown files.
        root: the repository, which a link must not leave.
    """
    found = []
    for page in pages:
        for link in links(page):
            if link.startswith(_OUTSIDE):
                continue
            target, _, heading = link.partition("#")
            path = (page.parent / target).resolve() if target else page
            inside = path.is_relative_to(root)
            lost = heading and path.suffix == ".md" and path.exists()
            if not inside or not path.exists() or (lost and heading not in headings(path)):
                found.append(f"{page.relative_to(root)}: {link}")
    return found

"""Finds broken links in Markdown pages: to other pages, to headings and to files."""

import re
from pathlib import Path

_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_WEB = ("http://", "https://", "mailto:")


def links(path: Path) -> list[str]:
    """The targets of a page's links and images, without those in code."""
    return _LINK.findall(_CODE.sub("x", _prose(path)))


def headings(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken(pages: list[Path], root: Path) -> list[str]:
    """Every link without a target, as ``page: target``. Web links are not checked.

    Args:
        pages: Markdown files.
        root: the repository; a link to a file outside of it is broken.
    """
    found = []
    for page in pages:
        for link in links(page):
            if link.startswith(_WEB):
                continue
            target, _, heading = link.partition("#")
            path = (page.parent / target).resolve() if target else page
            missing = not path.is_relative_to(root) or not path.exists()
            if not missing and heading and path.suffix == ".md":
                missing = heading not in headings(path)
            if missing:
                found.append(f"{page.relative_to(root)}: {link}")
    return found


def _prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text(encoding="utf-8"))

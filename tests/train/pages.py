"""What every page of results must be."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "img", "input", "br", "hr", "link"}
LARGEST = 5_000_000  # bytes


class Page(HTMLParser):
    """A page: its elements with their attributes, and its text without scripts and styles.

    Building one checks that all elements are closed, pictures and buttons have names, nothing is
    loaded from elsewhere, ids are unique, and the file is small.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self._open: list[str] = []
        assert path.stat().st_size < LARGEST
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open
        ids = [values["id"] for _, values in self.elements if "id" in values]
        assert len(ids) == len(set(ids))
        for tag, values in self.elements:
            for key in ("src", "href", "xlink:href", "action"):
                link = values.get(key, "#")
                beside = link.endswith(".jsonl") and ":" not in link
                assert link.startswith(("#", "data:image/")) or beside, values
            assert not any(key.startswith("on") for key in values)
            assert values.get("aria-labelledby") in (None, *ids)
            if tag == "img":
                assert values["alt"]
            if tag == "svg":
                assert values["role"] == "img" and values["aria-label"]
            if tag == "button" or "tabindex" in values:
                assert values.get("aria-label") or values.get("aria-labelledby")

    def named(self, tag: str) -> list[dict[str, Any]]:
        """The attributes of all elements of a kind."""
        return [values for name, values in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

"""The documentation is what the code is: generated pages, links and examples."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs import registration
from PIL import Image, ImageSequence

from docs import gifs, links, pages

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = sorted(pages.DOCS.glob("*.md"))
GENERATED = [pages.PAGES / f"{env_id}.md" for env_id in pages.IDS]


def test_generated_pages_are_up_to_date(mnist_folder: Path) -> None:
    """Else: ``python docs/build.py``."""
    assert pages.stale(pages.generate()) == []


def test_a_page_that_is_altered_missing_or_left_over_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGES", tmp_path)
    same, altered, left = (tmp_path / f"{name}.md" for name in ("same", "altered", "left"))
    for path in (same, altered, left):
        path.write_text("as it was")
    missing = tmp_path / "missing.md"
    made = {same: "as it was", altered: "as it should be", missing: "new"}
    assert pages.stale(made) == [altered, missing, left]


@pytest.mark.parametrize("env_id", pages.IDS)
def test_every_id_is_linked_and_has_a_gif_that_says_what_it_shows(env_id: str) -> None:
    assert f"environments/{env_id}.md" in links.links(pages.DOCS / "index.md")
    assert env_id in json.loads(pages.CAPTIONS.read_text())
    path = pages.IMAGES / f"{env_id}.gif"
    assert path.stat().st_size <= gifs.LARGEST
    with Image.open(path) as gif:
        lengths = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert lengths.count(gifs.END_MS) == gifs.EPISODES  # each episode ends with a pause
    assert set(lengths) == {gifs.STEP_MS, gifs.END_MS}


def test_every_link_leads_somewhere() -> None:
    assert links.broken([*WRITTEN, *GENERATED], ROOT) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `word`, two\n")
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#one-word-two) [c](#here) ![d](none.png)\n"
        "[e](other.md#three) [f](#there) [g](../outside.md) [h](https://example.org/none)\n"
        "`[i](none)`\n```\n[j](none)\n```\n"
    )
    assert links.broken([page], tmp_path) == [
        "page.md: none.png",
        "page.md: other.md#three",
        "page.md: #there",
        "page.md: ../outside.md",
    ]


@pytest.mark.parametrize("path", [*WRITTEN, *GENERATED], ids=lambda path: path.stem)
def test_examples(path: Path, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(registration, "registry", dict(gym.registry))  # a page registers its own id
    failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert tried > 0

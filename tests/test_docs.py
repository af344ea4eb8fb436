"""The documentation is what the code is: generated pages, links and examples."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs import registration
from PIL import Image, ImageSequence

from docs import gifs, links, pages, samples, stills
from dtram_env import datasets

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
def test_every_id_is_linked(env_id: str) -> None:
    assert f"environments/{env_id}.md" in links.links(pages.DOCS / "index.md")


@pytest.mark.parametrize("env_id", gifs.played())
def test_a_trained_agent_is_shown_in_a_gif_that_says_what_it_shows(env_id: str) -> None:
    path = pages.IMAGES / f"{env_id}.gif"
    assert path.name in json.loads(pages.CAPTIONS.read_text())
    assert path.stat().st_size <= gifs.LARGEST
    with Image.open(path) as gif:
        lengths = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert lengths.count(gifs.END_MS) == gifs.EPISODES  # each episode ends with a pause
    assert set(lengths) == {gifs.STEP_MS, gifs.END_MS}


@pytest.mark.parametrize("env_id", stills.STILLS)
def test_drawn_and_composed_data_has_a_picture_that_says_what_it_shows(env_id: str) -> None:
    captions = json.loads(pages.CAPTIONS.read_text())
    (name,) = (
        f"{env_id}{suffix}" for suffix in (".jpg", ".png") if f"{env_id}{suffix}" in captions
    )
    path = pages.IMAGES / name
    assert path.stat().st_size <= stills.LARGEST
    with Image.open(path) as picture:
        assert picture.format == {".jpg": "JPEG", ".png": "PNG"}[path.suffix]
        assert min(picture.size) >= 100


def test_captions_are_of_pictures_that_are_there() -> None:
    for name in json.loads(pages.CAPTIONS.read_text()):
        assert (pages.IMAGES / name).exists()


def test_captions_of_pictures_that_are_no_more_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "IMAGES", tmp_path)
    monkeypatch.setattr(pages, "CAPTIONS", tmp_path / "captions.json")
    for name in ("b.gif", "a.png"):
        (tmp_path / name).write_bytes(b"")
    pages.write_captions({"b.gif": "once", "gone.gif": "never"})
    pages.write_captions({"a.png": "A", "b.gif": "B"})
    assert list(json.loads(pages.CAPTIONS.read_text()).items()) == [("a.png", "A"), ("b.gif", "B")]
    (tmp_path / "b.gif").unlink()
    pages.write_captions({})
    assert json.loads(pages.CAPTIONS.read_text()) == {"a.png": "A"}


def test_no_picture_of_an_id_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--stills DTRAM-MNIST-v0: expected some of DTRAM-"):
        stills.make_stills(["DTRAM-MNIST-v0"])
    with pytest.raises(ValueError, match="--gifs DTRAM-CUB-v0: no agent is named for it"):
        gifs.make_gifs(["DTRAM-CUB-v0"], tmp_path)


@pytest.mark.parametrize("env_id", ["DTRAM-MNIST-v0", "DTRAM-CUB-v0", "DTRAM-BirdsSmall-v0"])
def test_counts_of_a_page_are_what_is_loaded(env_id: str, mnist_folder: Path) -> None:
    with samples.opener() as opened:
        found = samples.counts(samples.dataset_of(env_id), opened(env_id))
        assert found == {s: opened(env_id, split=s).num_images for s in datasets.SPLITS}


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

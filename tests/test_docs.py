"""The documentation agrees with the code: generated pages, pictures, links and examples."""

import doctest
import re
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs import registration
from PIL import Image, ImageSequence

from docs import links, pages, pictures, samples, tables
from dtram_env.datasets.sources import cars, cub

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(pages.DOCS.glob("*.md")),
    pages.PAGES / "index.md",
    *(pages.PAGES / f"{env_id}.md" for env_id in pages.IDS),
]
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
CAPTIONS = {file: env_id for env_id in pages.IDS for file in pictures.captions(env_id)}


def test_generated_pages_and_tables_are_up_to_date(mnist_folder: Path) -> None:
    """If this fails, run ``python docs/build.py`` and commit what it writes."""
    assert pages.stale(pages.generate() | tables.generate()) == []


def test_an_altered_a_missing_and_a_superfluous_page_are_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGES", tmp_path)
    same, altered, superfluous = (tmp_path / f"{name}.md" for name in "abc")
    for path in (same, altered, superfluous):
        path.write_text("old", encoding="utf-8")
    missing = tmp_path / "d.md"
    made = {same: "old", altered: "new", missing: "new"}
    assert pages.stale(made) == [altered, missing, superfluous]


def test_every_picture_has_a_caption_and_the_reverse() -> None:
    assert {path.name for path in pictures.IMAGES.glob("DTRAM-*")} == CAPTIONS.keys()


@pytest.mark.parametrize("file", CAPTIONS)
def test_a_picture_is_small_and_of_its_format(file: str) -> None:
    path = pictures.IMAGES / file
    assert path.stat().st_size <= pictures.LARGEST
    with Image.open(path) as picture:
        assert picture.format == {".gif": "GIF", ".jpg": "JPEG", ".png": "PNG"}[path.suffix]
        assert min(picture.size) >= 100
        if path.suffix == ".gif":  # every episode ends with a pause
            times = [frame.info["duration"] for frame in ImageSequence.Iterator(picture)]
            assert times.count(pictures.END_MS) == pictures.EPISODES
            assert set(times) == {pictures.STEP_MS, pictures.END_MS}


def test_agents_in_pictures_are_shipped_or_have_a_command() -> None:
    for env_id, folder in pictures.AGENTS.items():
        assert env_id in pictures.COMMANDS or (ROOT / folder).is_dir()


def test_drawing_a_picture_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="--pictures DTRAM-CUB-v0: expected some of DTRAM-"):
        pictures.make_pictures(["DTRAM-CUB-v0"])
    with pytest.raises(FileNotFoundError, match="make it with: python train"):
        pictures.make_pictures(["DTRAM-Signpost-v0"])


def test_a_stand_in_has_as_many_images_as_the_photographs() -> None:
    with samples.opener() as opened:
        for env_id, source in (("DTRAM-CUB-v0", cub), ("DTRAM-Cars-v0", cars)):
            found = samples.counts(env_id, opened)
            assert (found["train+validation"], found["test"]) == tuple(source.COUNTS.values())


def test_every_link_has_a_target() -> None:
    others = [path for path in OTHERS if path.exists()]
    assert links.broken([*PAGES, *others], ROOT) == []


def test_the_tree_in_contributing_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\n(dtram_env/ .*?)^```$", text, re.M | re.S)
    folders: list[str] = []
    for indent, name in re.findall(r"^( *)(\S+) ", tree, re.M):
        folders[len(indent) // 2 :] = [name]
        assert (ROOT / "/".join(folders)).exists(), name


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `word`, two\n", encoding="utf-8")
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#one-word-two) [c](#here) ![d](none.png)\n"
        "[e](other.md#three) [f](#there) [g](../outside.md) [h](https://example.org/none)\n"
        "`[i](none)`\n```\n[j](none)\n```\n",
        encoding="utf-8",
    )
    assert links.broken([page], tmp_path) == [
        "page.md: none.png",
        "page.md: other.md#three",
        "page.md: #there",
        "page.md: ../outside.md",
    ]


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if path.exists() and ">>> " in path.read_text(encoding="utf-8")],
    ids=lambda path: path.stem,
)
def test_examples(path: Path, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(registration, "registry", dict(gym.registry))  # a page registers an id
    assert doctest.testfile(str(path), module_relative=False, encoding="utf-8").failed == 0

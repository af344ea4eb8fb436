"""The documentation agrees with the code: generated pages, pictures, links and examples."""

import doctest
import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs import registration
from PIL import Image, ImageSequence

from docs import build, leaderboard, pages, pictures, samples
from dtram_env.datasets.sources import cars, cub
from dtram_env.suite import SUITE
from tests import links
from tests.train.baselines.test_facts import LINK, SENT, changed

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
    assert pages.stale(build.generate()) == []


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


# -- the leaderboard


def write_records(results: Path, name: str, *records: dict[str, Any]) -> None:
    path = results / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


def page_of(results: Path) -> str:
    return leaderboard.generate(results)[leaderboard.PAGE]


def test_the_tables_of_the_leaderboard(tmp_path: Path) -> None:
    """Three seeds with returns 0.47, 0.48 and 0.49: Student's half width is 4.3027 * 0.01 / √3."""
    ours = {"source": None, "view": "discrete", "observe": "canvas", "commit": "0123456789"}
    ours |= {
        "command": "python train/x.py",
        "trunk": {"command": "python y.py", "commit": "abcdefgh"},
    }
    three = [
        changed(**ours, seed=seed, mean_return=0.47 + seed / 100, env_steps=steps, algo="a")
        for seed, steps in enumerate((100, 200, 300))
    ]
    failed = {"env_id": SENT["env_id"], "algo": "a", "seed": 3, "problem": "it broke"}
    lost = failed | {"algo": "c"}
    name = f"{SENT['env_id']}.jsonl"
    untrained = {"algo": "d", "env_steps": 0, "learns_from": "nothing"}
    twice = changed(**ours | untrained, mean_return=0.45)  # trained for as long: the same run
    write_records(tmp_path, f"comparison/{name}", *three, failed, lost, twice)
    write_records(tmp_path, f"suite/{name}", changed(**ours, algo="a", mean_return=0.461), twice)
    (tmp_path / "comparison" / f"{SENT['env_id']}-learning_curves.png").touch()
    uncounted = changed(**ours, algo="b", env_steps=None, mean_return=0.47, learns_from="nothing")
    labels = changed(learns_from="labels and reward", mean_return=0.485)
    write_records(tmp_path, f"leaderboard/{name}", uncounted, labels)
    text = page_of(tmp_path)
    assert "\n## DTRAM-Signpost-v0, whole-task\n\nSignpost, 2,000 test images. " in text
    assert "The random policy earns 0.2408; the best possible, 0.9702: one that follows" in text
    where, a = f"[link]({LINK})", "a (discrete, canvas)"
    alone, allowed = text.partition("**Reward alone**")[2].split("**Labels allowed**")
    rows = [part.partition("---:|\n")[2].partition("\n\n")[0] for part in (alone, allowed)]
    assert rows[0].splitlines() == [  # a run of the suite is a row of its own
        f"| {a} | 0.4800 ± 0.0248 | 50.00 ± 0.00 | 2.00 ± 0.00 | 200 | 3, 1 failed "
        "| `abcdefg`, `0123456` |",
        "| b (discrete, canvas) | 0.4700 | 50.00 | 2.00 | not counted | one seed "
        "| `abcdefg`, `0123456` |",
        f"| {a} | 0.4610 | 50.00 | 2.00 | 300,000 | one seed | `abcdefg`, `0123456` |",
        "| d (discrete, canvas) | 0.4500 | 50.00 | 2.00 | 0 | one seed | `abcdefg`, `0123456` |",
    ]
    assert rows[1] == f"| theirs | 0.4850 | 50.00 | 2.00 | 300,000 | one seed | {where} |"
    assert f"- {a}: `python y.py`, then `python train/x.py`\n" in text
    assert f"](../benchmarks/results/comparison/{SENT['env_id']}-learning_curves.png)" in text
    assert "## No record yet\n\n[DTRAM-MNIST-v0](environments/DTRAM-MNIST-v0.md), " in text
    said = leaderboard.best(SENT["env_id"], tmp_path)
    assert said.startswith(
        "Best on [the leaderboard](../leaderboard.md#dtram-signpost-v0-whole-task): theirs, 0.4850 "
    )
    assert "; the best that learns from the reward alone: a (discrete, canvas), 0.4800 ± " in said
    assert leaderboard.best("DTRAM-Pair-v0", tmp_path).endswith("has no row of this id yet.")


def test_the_suite_on_the_leaderboard(tmp_path: Path) -> None:
    """The best policy on every skill scores 1; what learned for longer has no score."""
    assert "No record yet: `python train/compare.py --suite --out " in page_of(tmp_path)
    for challenge in SUITE:
        made = [
            changed(env_id=challenge.env_id, mean_return=challenge.best, **changes)
            for changes in ({}, {"algo": "long", "env_steps": 400_000})
        ]
        write_records(tmp_path, f"leaderboard/{challenge.env_id}.jsonl", *made)
    text = page_of(tmp_path)
    ones = " 1.00 |" * (len(SUITE) + 1)
    assert f"| [theirs]({LINK}) |{ones}\n\n## " in text and "![Scores" not in text
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "comparison-suite_scores.png").touch()
    chart = "![Scores on the suite](../benchmarks/results/suite/comparison-suite_scores.png)"
    assert chart in page_of(tmp_path)


def test_a_bad_record_stops_the_leaderboard(tmp_path: Path) -> None:
    write_records(tmp_path, "leaderboard/x.jsonl", SENT, changed(seed="1"))
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2: seed='1': expected an integer"):
        page_of(tmp_path)


def test_the_entry_for_gymnasiums_list_names_the_oldest_supported_release() -> None:
    entry = (ROOT / "docs" / "third_party_entry.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (badge,) = re.findall(r"badge/Gymnasium-v([\d.]+)-blue", entry)
    assert f'"gymnasium>={badge}"' in project

"""The tables and plots of a comparison, against numbers worked out by hand."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dtram_env.suite import SUITE, random_return
from tests.train.pages import Page
from train.baselines import summary
from train.baselines.summary import (
    COLUMNS,
    WITH_INTERVAL,
    markdown,
    over_environments,
    suite_chart,
    suite_scores,
    summarise,
    write_comparison,
)
from train.common.records import RESULTS, check_origin, read_records

T_975_2 = 4.302652729911275  # Student's t, 97.5 %, 2 degrees of freedom
COMMITTED = sorted((RESULTS / "comparison").glob("*.jsonl"))


def record(env_id: str, algo: str, seed: int, paid: float | None, **changes: Any) -> dict[str, Any]:
    """The record of a run with this return; None: of one that failed."""
    identity = {"env_id": env_id, "algo": algo, "seed": seed}
    if paid is None:
        return identity | {"problem": "error: it broke"} | changes
    return {
        **identity,
        "dataset": "Signpost",
        "track": "whole-task",
        "classifier": None,
        "split": "test",
        "view": "discrete",
        "observe": "glimpse",
        "learns_from": "reward",
        "tries": 10,
        "test_error": 100 * (1 - paid),
        "mean_glimpses": 2.0,
        "mean_return": paid,
        "area": paid / 2,
        "env_steps": 4096,
        "train_seconds": 3.0,
        "flops_per_image": 2_500_000,
        "curve": [curve_point(0, 0.0), curve_point(4096, paid)],
        **changes,
    }


def curve_point(env_steps: int, paid: float) -> dict[str, float]:
    """A point of a learning curve."""
    return {
        "env_steps": env_steps,
        "return": paid,
        "error": 1 - paid,
        "mean_glimpses": 2.0,
        "seconds": env_steps / 1000,
    }


THREE_SEEDS = [record("A", "ppo", seed, paid) for seed, paid in enumerate((0.7, 0.8, 0.9))]


# --- The summary


def test_a_row_has_the_mean_over_seeds_of_every_column() -> None:
    (row,) = summarise(THREE_SEEDS).to_dict("records")
    assert (row["env_id"], row["algo"], row["seeds"], row["problems"]) == ("A", "ppo", 3, "")
    assert row["mean_return"] == pytest.approx(0.8)
    assert row["mean_return_interval"] == pytest.approx(T_975_2 * 0.1 / 3**0.5)
    assert row["test_error"] == pytest.approx(20.0)
    assert row["test_error_interval"] == pytest.approx(T_975_2 * 10 / 3**0.5)
    assert row["area"] == pytest.approx(0.4)
    assert row["iqm_return"] == pytest.approx(0.8)
    # All three draws are the least value in 1 of 27 cases, more than 2.5 %.
    assert (row["iqm_low"], row["iqm_high"]) == (pytest.approx(0.7), pytest.approx(0.9))
    assert {key for key in row if key.endswith("_interval")} == {
        f"{key}_interval" for key in WITH_INTERVAL
    }
    assert COLUMNS.keys() <= row.keys()


FAILED = [
    record("A", "ppo", 0, 0.6),
    record("A", "dqn", 0, None),
    record("A", "ppo", 1, None),
    record("A", "dqn", 1, None, problem="unsupported operand for |: int | str"),
    record("A", "scan", 0, 0.9),
]


def test_a_failed_seed_and_a_failed_algorithm_are_said() -> None:
    ppo, dqn, scan = summarise(FAILED).to_dict("records")
    assert ppo["seeds"] == 1 and ppo["problems"] == "seed 1: error: it broke"
    assert ppo["mean_return"] == 0.6 and pd.isna(ppo["mean_return_interval"])
    assert (ppo["iqm_return"], ppo["iqm_low"], ppo["iqm_high"]) == (0.6, 0.6, 0.6)
    assert dqn["seeds"] == 0 and pd.isna(dqn["mean_return"])
    assert scan["problems"] == ""
    text = markdown(FAILED, "python train/compare.py")
    lines = text.splitlines()
    assert "Signpost, test split, whole-task." in lines
    first, second, third = [k for k, line in enumerate(lines) if line.startswith("| ")][1:4]
    assert lines[first].startswith("| scan | discrete | reward | 10 | 1 | 10.00 | 2.00 | 0.9000 |")
    assert lines[second].startswith("| ppo ") and lines[third].startswith("| dqn | seed 0: error:")
    assert "2.50 | 0.6000 [0.6000, 0.6000] |" in lines[second]
    # A problem's bars do not end the cell.
    assert r"operand for \|: int \| str" in lines[third]
    assert lines[third].replace(r"\|", "").count("|") == lines[first].count("|")
    assert "ppo: seed 1: error: it broke." in lines
    assert lines[-1] == "Made by `python train/compare.py`."


def test_an_interval_stands_beside_its_mean() -> None:
    half = T_975_2 * 0.1 / 3**0.5
    expected = f"| 20.00 ± {100 * half:.2f} | 2.00 ± 0.00 | 0.8000 ± {half:.4f} |"
    assert expected in markdown(THREE_SEEDS, "command")


def test_the_classifier_and_the_canvas_are_named() -> None:
    changes = {"classifier": "c-0123", "track": "policy-only", "observe": "canvas"}
    text = markdown([record("A", "ppo", 0, 0.5, **changes)], "command")
    assert "Signpost, test split, policy-only, classifier c-0123.\n" in text
    assert "| ppo | discrete, canvas | reward | 10 | 1 |" in text


def test_notes_are_of_what_is_in_the_table() -> None:
    many = [record("A", "ppo", seed, 0.5) for seed in range(4)]
    plain = markdown(many, "c")
    assert "fewer than 4 seeds" not in plain and "dtram is first" not in plain
    said = markdown([*many, record("A", "dtram", 0, 0.6)], "c")
    assert "fewer than 4 seeds" in said and "before that counts as 0" in said


def test_the_origin_of_the_runs_is_said() -> None:
    origins = [("b" * 40, "2.14"), ("a" * 40, "2.15")]
    records = [
        record(
            *("A", "ppo", seed, 0.5),
            commit=commit,
            versions={"torch": torch},
            hardware={"processor": "a chip"},
        )
        for seed, (commit, torch) in enumerate(origins)
    ]
    said = "Runs made with torch 2.14, 2.15 on a chip, at commits aaaaaaa, bbbbbbb."
    assert said in markdown(records, "c")


# --- Over environments


def test_algorithms_that_finished_everywhere_are_ranked_over_environments() -> None:
    records = [
        *(record("A", "ppo", seed, paid) for seed, paid in enumerate((0.1, 0.1))),
        *(record("B", "ppo", seed, paid) for seed, paid in enumerate((0.5, 0.5))),
        record("A", "dqn", 0, 0.9),
        record("B", "dqn", 0, None),
        record("A", "scan", 0, 0.2),
        record("B", "scan", 0, 0.8),
    ]
    ppo, scan = over_environments(records).to_dict("records")
    assert ppo == {
        **{"track": "whole-task", "algo": "ppo", "environments": 2},
        **{"iqm_return": 0.3, "iqm_low": 0.3, "iqm_high": 0.3},
    }
    assert scan["algo"] == "scan" and scan["iqm_return"] == pytest.approx(0.5)
    text = markdown(records, "command")
    after = text.partition("## Over the 2 environments, whole-task\n")[2]
    assert after.index("| scan | 0.5000") < after.index("| ppo | 0.3000 [0.3000, 0.3000] |")
    assert "dqn" not in after


def test_tracks_are_not_pooled() -> None:
    """The same algorithm on two environments of one track, and one of another."""
    records = [record("A", "ppo", 0, 0.2), record("B", "ppo", 0, 0.4)]
    other = record("A-Policy", "ppo", 0, 0.9, track="policy-only")
    both = over_environments(records)
    assert both["iqm_return"].tolist() == [pytest.approx(0.3)]
    assert over_environments([*records, other]).equals(both)
    assert over_environments([records[0], other]).empty


# --- Scores on the suite


def test_scores_of_the_suite(tmp_path: Path) -> None:
    """ppo earns the best return on average; on Signpost half of what it is above random."""
    signpost, *others = SUITE
    low, high = random_return(4, 4), 0.98 * 1.98 / 2
    records = [
        record(signpost.env_id, "ppo", 0, low),
        record(signpost.env_id, "ppo", 1, high),
        *(record(other.env_id, "ppo", 0, other.best + 0.01) for other in others),
        *(record(other.env_id, "ppo", 1, other.best - 0.01) for other in others),
        record(signpost.env_id, "scan", 0, low + 0.9 * (high - low)),
        record(others[0].env_id, "scan", 0, None),
        record("DTRAM-Birds-v0", "ppo", 0, 0.5),  # not in the suite
    ]
    scores = suite_scores(records)
    assert list(scores.columns) == [challenge.skill for challenge in SUITE]
    assert scores.loc["ppo"].tolist() == pytest.approx([0.5, *(1.0 for _ in others)])
    assert scores.loc["scan"].iloc[0] == pytest.approx(0.9) and pd.isna(scores.loc["scan"].iloc[1])
    text, mean = markdown(records, "c"), (0.5 + len(others)) / len(SUITE)
    assert f"| ppo | 0.50 |{' 1.00 |' * len(others)} {mean:.2f} |" in text
    assert "| scan | 0.90 |  |" in text
    assert "Scores: 0 is the return of the random policy" in text
    write_comparison(tmp_path, records, "c")
    assert (tmp_path / "comparison-suite_scores.png").read_bytes().startswith(b"\x89PNG")
    few = [one for one in records if one["env_id"] != others[-1].env_id]
    assert suite_scores(few).empty and "suite" not in markdown(few, "c")


def test_bars_of_the_suite() -> None:
    """A bar for each algorithm and skill, as high as the score; none where there is no result."""
    scores = pd.DataFrame({"where": [0.5, 1.0], "when": [0.25, float("nan")]}, ["ppo", "scan"])
    (axes,) = suite_chart(scores).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights[0] == [0.5, 0.25] and heights[1][0] == 1.0 and pd.isna(heights[1][1])
    assert [bars.get_label() for bars in axes.containers] == ["ppo", "scan"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["where", "when"]


# --- The files


@pytest.mark.parametrize("paid", [0.5, 1.0], ids=["some errors", "no error at all"])
def test_all_files_take_what_failed_and_what_is_perfect(tmp_path: Path, paid: float) -> None:
    """An environment where nothing finished has empty axes; an error of 0 has no logarithm."""
    records = [record("A", "ppo", 0, paid), record("A", "dqn", 0, None)]
    for made, name in ((records, "A"), ([*records, record("B", "ppo", 0, None)], "comparison")):
        folder = tmp_path / name
        assert write_comparison(folder, made, "command") == folder / f"{name}.md"
        names = {path.name.removeprefix(name) for path in folder.iterdir()}
        assert names == {".jsonl", ".md", ".html", ".lock", "-learning_curves.png"}
        for figure in folder.glob("*.png"):
            assert figure.read_bytes().startswith(b"\x89PNG")
        assert read_records(folder / f"{name}.jsonl") == made
        page = Page(folder / f"{name}.html")
        assert "A, dqn, seed 0: error: it broke" in page.text
        assert [box["value"] for box in page.named("input")] == ["curve-0", "curve-1"]
        ppo, dqn = summarise(made).to_dict("records")[:2]
        assert ppo["mean_return"] == paid and ppo["problems"] == ""
        assert dqn["problems"] == "seed 0: error: it broke" and pd.isna(dqn["mean_return"])


def test_files_that_are_written_at_the_same_time_are_of_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "_curves", lambda records: Slow(records[0]["algo"]))

    def write(algo: str) -> None:
        barrier.wait()
        write_comparison(tmp_path, [record("A", algo, 0, 0.5)], algo)

    algos, barrier = ("ppo", "scan"), threading.Barrier(2)
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, algos))
        (last,) = (one["algo"] for one in read_records(tmp_path / "A.jsonl"))
        assert f"Made by `{last}`" in (tmp_path / "A.md").read_text()
        assert f"<pre>{last}</pre>" in (tmp_path / "A.html").read_text()
        for picture in tmp_path.glob("*.png"):
            assert picture.read_text() == last


def test_an_algorithm_has_one_colour_and_one_box_in_all_plots(tmp_path: Path) -> None:
    """Also where another one has no result."""
    records = [record("A", "ppo", 0, None), record("A", "dqn", 0, 0.5), record("B", "ppo", 0, 0.5)]
    page = Page(write_comparison(tmp_path, records, "c").with_suffix(".html"))
    ids = [one["id"] for one in page.named("g") if "curve-" in one.get("id", "")]
    drawn = [one[-len("curve-0") :] for one in ids]
    assert [name for name, _ in itertools.groupby(drawn)] == ["curve-1", "curve-0"]


class Slow(str):
    """What stands for a figure that takes a while to draw."""

    def savefig(self, path: Path, **keywords: Any) -> None:
        time.sleep(0.06 if self == "ppo" else 0.0)  # else one may stay just behind the other
        path.write_text(self, encoding="utf-8")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_tables_are_those_of_their_records(path: Path) -> None:
    records = read_records(path)
    for number, found in enumerate(records):
        check_origin(found, f"{path}, line {number + 1}")
    command = f"python train/compare.py --records {path.relative_to(RESULTS.parents[1])}"
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(records, command)

"""What a comparison says of finished runs, against numbers worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.baselines.summary import (
    COLUMNS,
    WITH_INTERVAL,
    Run,
    area_under,
    interquartile_mean,
    markdown,
    mean_interval,
    over_tasks,
    plot_curves,
    plot_errors,
    stratified_bootstrap,
    summarise,
    write_csv,
)

T_975_2 = 4.302652729911275  # Student's t, 97.5 %, 2 degrees of freedom


def points(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"env_steps": x, "return": y} for x, y in pairs]


def run_of(env_id: str, algo: str, seed: int, paid: float | None, **changes: Any) -> Run:
    """A run with this return; None: one that failed."""
    if paid is None:
        return Run(env_id, algo, seed, None, problem="error: it broke")
    row = {
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
        **changes,
    }
    return Run(env_id, algo, seed, row, tuple(points((0, 0.0), (4096, paid))))


# --- Statistics


@pytest.mark.parametrize(
    ("curve", "steps", "area"),
    [
        (points((0, 0.0), (100, 1.0)), 100, 0.5),
        (points((0, 0.2), (40, 0.8), (100, 0.8)), 100, (40 * 0.5 + 60 * 0.8) / 100),
        (points((50, 1.0), (100, 0.0)), 100, (50 * 1.0 + 50 * 0.5) / 100),  # it starts late
        (points((0, 0.0), (50, 1.0)), 100, (50 * 0.5 + 50 * 1.0) / 100),  # and ends early
        (points((0, 0.0), (200, 1.0)), 100, 0.25),  # or goes on
        (points((30, 0.7)), 100, 0.7),
        # Of points after as many steps (a stage that takes none) the first ends the line.
        (points((0, 1.0), (100, 0.0), (100, 0.5)), 100, 0.5),
        (points((0, 1.0), (50, 0.0), (50, 0.4), (100, 0.4)), 100, (50 * 0.5 + 50 * 0.4) / 100),
        (points((0, 0.3)), 0, 0.3),  # nothing is learned
    ],
)
def test_area_under_the_learning_curve(curve: Any, steps: int, area: float) -> None:
    assert area_under(curve, steps) == pytest.approx(area, rel=1e-12)


def test_students_interval() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(T_975_2 * 1.0 / 3**0.5, rel=1e-9)
    assert mean_interval([1.0, 2.0, 3.0], level=0.9)[1] == pytest.approx(
        2.919985580353726 / 3**0.5, rel=1e-9
    )
    assert mean_interval([4.0, 4.0]) == (4.0, 0.0)
    assert mean_interval([7.0]) == (7.0, None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([8, 1, 7, 2, 6, 3, 5, 4], 4.5),  # of 3, 4, 5, 6
        ([1, 2, 3, 1000], 2.5),
        ([1, 2, 6], 3.0),  # a quarter of three is less than one: none is left out
        ([[0, 0, 10, 20], [30, 40, 90, 90]], 25.0),  # all values are one sample
        ([5], 5.0),
    ],
)
def test_interquartile_mean(values: Any, expected: float) -> None:
    assert interquartile_mean(np.array(values, dtype=float)) == pytest.approx(expected)


def test_the_bootstrap_of_two_values_by_enumeration() -> None:
    """Draws of (0, 1) have the means 0, 1/2, 1 with 1/4, 1/2, 1/4."""
    assert stratified_bootstrap([np.array([0.0, 1.0])]) == (0.0, 1.0)
    assert stratified_bootstrap([np.array([0.0, 1.0])], level=0.4) == (0.5, 0.5)


def test_seeds_are_drawn_within_their_task() -> None:
    """Two tasks that never vary leave nothing to chance, however far apart they are."""
    constant = [np.full(3, 1.0), np.full(3, 5.0)]
    assert stratified_bootstrap(constant) == (3.0, 3.0)
    # 0 or 1 twice beside 10 and 10: the middle two of four are (0, 10), (1, 10) or (1, 10).
    assert stratified_bootstrap([np.array([0.0, 1.0]), np.full(2, 10.0)]) == (5.0, 5.5)


@pytest.mark.parametrize("strata", [[np.array([0.7])], [np.array([0.2]), np.array([0.8])]])
def test_one_seed_gives_the_point(strata: list[np.ndarray]) -> None:
    point = interquartile_mean(np.concatenate(strata))
    assert stratified_bootstrap(strata) == (pytest.approx(point), pytest.approx(point))


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_contains_the_interquartile_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = [rng.normal(size=n) for n in (3, 5, 8)]
    low, high = stratified_bootstrap(strata)
    assert low < interquartile_mean(np.concatenate(strata)) < high
    assert stratified_bootstrap(strata) == (low, high)
    narrow = stratified_bootstrap(strata, level=0.5)
    assert low < narrow[0] < narrow[1] < high


# --- Rows


def test_a_row_has_the_mean_over_seeds_of_every_column() -> None:
    runs = [run_of("A", "ppo", seed, paid) for seed, paid in enumerate((0.7, 0.8, 0.9))]
    (row,) = summarise(runs)
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


def test_a_failed_seed_and_a_failed_algorithm_are_said() -> None:
    runs = [
        run_of("A", "ppo", 0, 0.6),
        run_of("A", "dqn", 0, None),
        run_of("A", "ppo", 1, None),
        run_of("A", "dqn", 1, None),
        run_of("A", "scan", 0, 0.9),
    ]
    ppo, dqn, scan = summarise(runs)
    assert ppo["seeds"] == 1 and ppo["problems"] == "seed 1: error: it broke"
    assert ppo["mean_return"] == 0.6 and ppo["mean_return_interval"] is None
    assert (ppo["iqm_low"], ppo["iqm_high"]) == (0.6, 0.6)
    assert dqn == {
        "env_id": "A",
        "algo": "dqn",
        "seeds": 0,
        "problems": "seed 0: error: it broke; seed 1: error: it broke",
    }
    text = markdown([ppo, dqn, scan], runs, "python train/compare.py")
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table] == ["| algorithm", "| scan", "| ppo", "| dqn"]
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith(
        "| ppo | discrete | reward | 10 | 1 | 40.00 | 2.00 | 0.6000 | 0.3000 | "
    )
    assert table[2].endswith(" | 4,096 | 3 | 2.50 | 0.6000 [0.6000, 0.6000] |")
    assert table[3].startswith("| dqn | seed 0: error: it broke; seed 1: error: it broke |")
    assert "ppo: seed 1: error: it broke." in lines
    assert "## Over" not in text
    assert "Of fewer than 4 seeds the interquartile mean leaves none out" in text
    assert lines[-1] == "Made by `python train/compare.py`."


def test_an_interval_stands_beside_its_mean() -> None:
    runs = [run_of("A", "ppo", seed, paid) for seed, paid in enumerate((0.7, 0.8, 0.9))]
    text = markdown(summarise(runs), runs, "command")
    half = T_975_2 * 0.1 / 3**0.5
    assert f"| 20.00 ± {100 * half:.2f} | 2.00 ± 0.00 | 0.8000 ± {half:.4f} |" in text


def test_a_problem_cannot_break_the_table() -> None:
    runs = [Run("A", "ppo", 0, None, problem="unsupported operand for |: int | str")]
    (line,) = (
        line for line in markdown(summarise(runs), runs, "c").splitlines() if "| ppo" in line
    )
    assert r"operand for \|: int \| str" in line
    heads = 5 + len(COLUMNS) + 1
    assert line.replace(r"\|", "").count("|") == heads + 1


def test_the_classifier_and_the_canvas_are_named() -> None:
    runs = [run_of("A", "ppo", 0, 0.5, classifier="c-0123", track="policy-only", observe="canvas")]
    text = markdown(summarise(runs), runs, "command")
    assert "Signpost, test split, policy-only, classifier c-0123.\n" in text
    assert "| ppo | discrete, canvas | reward | 10 | 1 |" in text


def test_over_tasks_takes_those_who_finished_everywhere() -> None:
    runs = [
        *(run_of("A", "ppo", seed, paid) for seed, paid in enumerate((0.1, 0.1))),
        *(run_of("B", "ppo", seed, paid) for seed, paid in enumerate((0.5, 0.5))),
        run_of("A", "dqn", 0, 0.9),
        run_of("B", "dqn", 0, None),
        run_of("A", "scan", 0, 0.2),
        run_of("B", "scan", 0, 0.8),
    ]
    ppo, scan = over_tasks(runs)
    assert ppo == {
        **{"track": "whole-task", "algo": "ppo", "environments": 2},
        **{"iqm_return": 0.3, "iqm_low": 0.3, "iqm_high": 0.3},
    }
    assert scan["algo"] == "scan" and scan["iqm_return"] == pytest.approx(0.5)
    text = markdown(summarise(runs), runs, "command")
    after = text.partition("## Over the 2 environments, whole-task\n")[2]
    assert after.index("| scan | 0.5000") < after.index("| ppo | 0.3000 [0.3000, 0.3000] |")
    assert "dqn" not in after


def test_tracks_are_not_pooled() -> None:
    """The same algorithm on two environments of one track, and one of another."""
    runs = [run_of("A", "ppo", 0, 0.2), run_of("B", "ppo", 0, 0.4)]
    assert [row["iqm_return"] for row in over_tasks(runs)] == [pytest.approx(0.3)]
    other = run_of("A-Policy", "ppo", 0, 0.9, track="policy-only")
    assert over_tasks([*runs, other]) == over_tasks(runs)
    assert over_tasks([runs[0], other]) == []


def test_notes_are_of_what_is_in_the_table() -> None:
    many = [run_of("A", "ppo", seed, 0.5) for seed in range(4)]
    plain = markdown(summarise(many), many, "c")
    assert "fewer than 4 seeds" not in plain and "dtram is first" not in plain
    ours = [*many, run_of("A", "dtram", 0, 0.6)]
    said = markdown(summarise(ours), ours, "c")
    assert "fewer than 4 seeds" in said and "what it earned before counts as 0" in said


def test_the_origin_of_the_runs_is_said() -> None:
    runs = [
        run_of(
            *("A", "ppo", seed, 0.5),
            commit=commit,
            versions={"torch": torch},
            hardware={"processor": "a chip"},
        )
        for seed, (commit, torch) in enumerate([("b" * 40, "2.14"), ("a" * 40, "2.15")])
    ]
    said = "Runs made with torch 2.14, 2.15 on a chip, at commits aaaaaaa, bbbbbbb."
    assert said in markdown(summarise(runs), runs, "c")


def test_csv_reads_back_with_blanks_where_a_row_has_nothing(tmp_path: Path) -> None:
    rows = summarise([run_of("A", "ppo", 0, 0.6), run_of("A", "dqn", 0, None)])
    path = tmp_path / "rows.csv"
    write_csv(path, rows)
    with path.open(newline="") as file:
        ppo, dqn = csv.DictReader(file)
    assert float(ppo["mean_return"]) == 0.6 and ppo["problems"] == ""
    assert dqn["problems"] == "seed 0: error: it broke" and dqn["mean_return"] == ""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("paid", [0.5, 1.0], ids=["some errors", "no error at all"])
def test_plots_take_what_failed_and_what_is_perfect(tmp_path: Path, paid: float) -> None:
    """An environment where nothing finished has empty axes; an error of 0 has no logarithm."""
    runs = [run_of("A", "ppo", 0, paid), run_of("A", "dqn", 0, None), run_of("B", "ppo", 0, None)]
    plot_curves(runs, tmp_path / "curves.png")
    plot_errors(runs, tmp_path / "errors.png")
    for name in ("curves.png", "errors.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

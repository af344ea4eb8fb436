"""What a comparison says of finished runs: statistics over seeds, tables, plots."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

matplotlib.use("Agg")

# Column of a table -> (heading, digits, factor). Those with an interval come first.
COLUMNS: dict[str, tuple[str, int, float]] = {
    "test_error": ("test error %", 2, 1),
    "mean_glimpses": ("mean glimpses", 2, 1),
    "mean_return": ("discounted return", 4, 1),
    "area": ("area under the curve", 4, 1),
    "env_steps": ("env steps", 0, 1),
    "train_seconds": ("wall time, s", 0, 1),
    "flops_per_image": ("MFLOP an image", 2, 1e-6),
}
WITH_INTERVAL = ("test_error", "mean_glimpses", "mean_return", "area")
RESAMPLES = 2000


@dataclass(frozen=True)
class Run:
    """One algorithm with one seed on one environment.

    Attributes:
        env_id: the environment, without its package.
        algo: the algorithm.
        seed: its seed.
        row: of the results, by the names of `COLUMNS` and more; None if it has none.
        curve: of validation while it learned.
        problem: why there is no row; "" if there is one.
    """

    env_id: str
    algo: str
    seed: int
    row: dict[str, Any] | None
    curve: tuple[dict[str, float], ...] = ()
    problem: str = ""


def area_under(curve: Sequence[dict[str, float]], steps: int) -> float:
    """Mean validation return over the env steps 0 ... `steps`: the area under the learning curve.

    Straight lines between the points; before the first and after the last it stays as it is. Of
    several points after as many steps (a stage that takes none) the first ends the line before.

    Args:
        curve: points with ``env_steps``, not falling, and ``return``.
        steps: of the whole run; with 0, of a policy that learns nothing, the only point counts.
    """
    x = np.array([row["env_steps"] for row in curve], dtype=np.float64)
    y = np.array([row["return"] for row in curve], dtype=np.float64)
    if steps == 0:
        return float(y[-1])
    inside = x <= steps
    xs = np.concatenate([[0.0], x[inside], [float(steps)]])
    ys = np.concatenate([y[:1], y[inside], [np.interp(steps, x, y)]])
    return float(np.trapezoid(ys, xs) / steps)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """Mean, and half the width of Student's interval of it; None for fewer than two values."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, error * float(stats.t.ppf(0.5 + level / 2, len(values) - 1))


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of all values (Agarwal et al. 2021, section 4.3)."""
    return float(stats.trim_mean(values, 0.25, axis=None))


def stratified_bootstrap(
    strata: Sequence[np.ndarray], level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean; seeds are drawn anew within each task.

    Args:
        strata: for each task, its values over seeds.
        level: of the interval.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(values, (RESAMPLES, len(values))) for values in strata]
    means = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each environment and algorithm: means, intervals, how many seeds failed."""
    rows = []
    for env_id, algo in dict.fromkeys((run.env_id, run.algo) for run in runs):
        mine = [run for run in runs if (run.env_id, run.algo) == (env_id, algo)]
        done = [run.row for run in mine if run.row is not None]
        problems = [f"seed {run.seed}: {run.problem}" for run in mine if run.row is None]
        row: dict[str, Any] = {"env_id": env_id, "algo": algo, "seeds": len(done)}
        row["problems"] = "; ".join(problems)
        if done:
            first = done[0]
            row |= {key: first.get(key) for key in FACTS}
            for key in COLUMNS:
                mean, half = mean_interval([float(found[key]) for found in done])
                row[key] = mean
                if key in WITH_INTERVAL:
                    row[f"{key}_interval"] = half
            returns = np.array([found["mean_return"] for found in done])
            row["iqm_return"] = interquartile_mean(returns)
            row["iqm_low"], row["iqm_high"] = stratified_bootstrap([returns])
        rows.append(row)
    return rows


FACTS = ("dataset", "track", "classifier", "split", "view", "observe", "learns_from", "tries")


def over_tasks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each track and algorithm: interquartile mean of its returns over the environments.

    Only tracks with several environments, and algorithms that finished on all of them.
    """
    tracks = {run.env_id: run.row["track"] for run in runs if run.row}
    rows = []
    for track in dict.fromkeys(tracks.values()):
        env_ids = [env_id for env_id, its in tracks.items() if its == track]
        if len(env_ids) < 2:
            continue
        for algo in dict.fromkeys(run.algo for run in runs):
            strata = [
                np.array(
                    [
                        r.row["mean_return"]
                        for r in runs
                        if r.row and (r.env_id, r.algo) == (e, algo)
                    ]
                )
                for e in env_ids
            ]
            if all(len(values) for values in strata):
                low, high = stratified_bootstrap(strata)
                iqm = interquartile_mean(np.concatenate(strata))
                found = {"iqm_return": iqm, "iqm_low": low, "iqm_high": high}
                rows.append({"track": track, "algo": algo, "environments": len(env_ids), **found})
    return rows


NOTES = (
    "Means over seeds ± half of Student's 95 % interval; IQM: interquartile mean with its 95 % "
    "interval by stratified bootstrap (seeds within environments). Every row by one exact pass of "
    "`dtram_env.evaluate` over the test split. Area under the curve: mean validation return over "
    "the env steps. Tries: of the search on this environment that chose the hyper-parameters, on "
    "validation; 0 where there was none."
)
FEW_SEEDS = (
    "Of fewer than 4 seeds the interquartile mean leaves none out: it is their mean, and its "
    "interval, which is their range, is narrower than it should be."
)
DTRAM_NOTES = (
    "dtram is first looked at after an epoch of its training; for the area, what it earned before "
    "counts as 0. Its stopper is trained last, on a quarter of the env steps; until then all "
    "glimpses are taken, hence the step at the end of its curve. It is helped by the training "
    "labels, and by a stop threshold that validation chooses; docs/protocol.md says how."
)


def markdown(rows: Sequence[dict[str, Any]], runs: Sequence[Run], command: str) -> str:
    """The tables, one an environment, best return first."""
    out = io.StringIO()
    for env_id in dict.fromkeys(row["env_id"] for row in rows):
        mine = [row for row in rows if row["env_id"] == env_id]
        done = sorted((r for r in mine if r["seeds"]), key=lambda r: -r["mean_return"])
        failed = [r for r in mine if not r["seeds"]]
        print(f"## {env_id}\n", file=out)
        if done:
            facts = done[0]
            classifier = f", classifier {facts['classifier']}" if facts["classifier"] else ""
            print(
                f"{facts['dataset']}, {facts['split']} split, {facts['track']}{classifier}.\n",
                file=out,
            )
        heads = ["algorithm", "view", "learns from", "tries", "seeds"]
        heads += [heading for heading, _, _ in COLUMNS.values()] + ["IQM of the return"]
        print("| " + " | ".join(heads) + " |", file=out)
        print("|---|---|---|" + "---:|" * (len(heads) - 3), file=out)
        for row in done:
            view = row["view"] + (", canvas" if row["observe"] == "canvas" else "")
            cells = [row["algo"], view, row["learns_from"], str(row["tries"]), str(row["seeds"])]
            cells += [_cell(row, key) for key in COLUMNS]
            cells.append(f"{row['iqm_return']:.4f} [{row['iqm_low']:.4f}, {row['iqm_high']:.4f}]")
            print("| " + " | ".join(cells) + " |", file=out)
        for row in failed:
            blanks = " | ".join("" for _ in range(len(heads) - 2))
            problems = row["problems"].replace("|", "\\|")  # else it ends the cell
            print(f"| {row['algo']} | {problems} | {blanks} |", file=out)
        for row in done:
            if row["problems"]:
                print(f"\n{row['algo']}: {row['problems']}.", file=out)
        print(file=out)
    tasks = over_tasks(runs)
    for track in dict.fromkeys(row["track"] for row in tasks):
        mine = sorted((r for r in tasks if r["track"] == track), key=lambda r: -r["iqm_return"])
        print(f"## Over the {mine[0]['environments']} environments, {track}\n", file=out)
        print("| algorithm | IQM of the return |\n|---|---:|", file=out)
        for row in mine:
            interval = f"[{row['iqm_low']:.4f}, {row['iqm_high']:.4f}]"
            print(f"| {row['algo']} | {row['iqm_return']:.4f} {interval} |", file=out)
        print(file=out)
    print(NOTES, file=out)
    if any(0 < row["seeds"] < 4 for row in rows):
        print(FEW_SEEDS, file=out)
    if any(row["algo"] == "dtram" and row["seeds"] for row in rows):
        print(DTRAM_NOTES, file=out)
    made = _origins(runs)
    if made:
        print(f"Runs made {made}.", file=out)
    print(f"\nMade by `{command}`.", file=out)
    return out.getvalue()


def _origins(runs: Sequence[Run]) -> str:
    """Versions of torch, processors and commits of all runs that have a result and say them."""
    rows = [run.row for run in runs if run.row and "commit" in run.row]
    if not rows:
        return ""

    def every(values: Iterable[str]) -> str:
        return ", ".join(sorted(set(values)))

    return (
        f"with torch {every(row['versions']['torch'] for row in rows)} on "
        f"{every(row['hardware']['processor'] for row in rows)}, at commits "
        f"{every(row['commit'][:7] for row in rows)}"
    )


def _cell(row: dict[str, Any], key: str) -> str:
    _, digits, factor = COLUMNS[key]
    text = f"{row[key] * factor:,.{digits}f}"
    half = row.get(f"{key}_interval")
    return text if half is None else f"{text} ± {half * factor:.{digits}f}"


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows, which may differ in their keys, aside and then renames."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(aside, path)


def plot_curves(runs: Sequence[Run], path: Path) -> None:
    """Validation return against env steps, from the first look on: mean over seeds, and range."""
    env_ids = list(dict.fromkeys(run.env_id for run in runs))
    figure = Figure(figsize=(6.5 * len(env_ids), 4.2), layout="constrained")
    grid = figure.subplots(1, len(env_ids), squeeze=False)[0]
    for axes, env_id in zip(grid, env_ids, strict=True):
        mine = [run for run in runs if run.env_id == env_id and run.row is not None]
        steps = max((run.row["env_steps"] for run in mine if run.row), default=0) or 1
        x = np.linspace(0, steps, 201)
        for k, algo in enumerate(dict.fromkeys(run.algo for run in mine)):
            curves = np.array(
                [
                    np.interp(
                        x,
                        [p["env_steps"] for p in r.curve],
                        [p["return"] for p in r.curve],
                        left=np.nan,
                    )
                    for r in mine
                    if r.algo == algo
                ]
            )
            color = f"C{k % 10}"
            learns = any(r.row and r.row["env_steps"] for r in mine if r.algo == algo)
            style = "-" if learns else "--"
            axes.plot(x, curves.mean(0), style, color=color, label=algo, linewidth=1.3)
            axes.fill_between(x, curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0)
        axes.set(xlabel="env steps", ylabel="validation return", title=env_id)
        axes.grid(alpha=0.3)
        if mine:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def plot_errors(runs: Sequence[Run], path: Path) -> None:
    """Test error against mean glimpses: a dot for every seed."""
    env_ids = list(dict.fromkeys(run.env_id for run in runs))
    figure = Figure(figsize=(6.5 * len(env_ids), 4.2), layout="constrained")
    grid = figure.subplots(1, len(env_ids), squeeze=False)[0]
    for axes, env_id in zip(grid, env_ids, strict=True):
        mine = [run for run in runs if run.env_id == env_id and run.row is not None]
        for k, algo in enumerate(dict.fromkeys(run.algo for run in mine)):
            rows = [r.row for r in mine if r.algo == algo and r.row]
            x, y = [r["mean_glimpses"] for r in rows], [r["test_error"] for r in rows]
            axes.plot(x, y, "osv^<>DPX*"[k % 10], color=f"C{k % 10}", label=algo, markersize=5)
        axes.set(xlabel="mean number of glimpses", ylabel="test error %", title=env_id)
        if mine and all(run.row["test_error"] > 0 for run in mine if run.row):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
        if mine:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)

"""The tables and plots of a comparison, made of its records."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtram_env.files import write_text
from dtram_env.suite import SUITE
from train.common.files import markdown_table, save_figure
from train.common.lock import in_turn
from train.common.page import from_markdown, inline, write_page
from train.common.records import write_records
from train.common.run_page import log_scale
from train.common.statistics import interquartile_mean, mean_interval, stratified_bootstrap

matplotlib.use("Agg")

Records = Sequence[Mapping[str, Any]]
"""One for each run, see `ComparisonRun.record`."""

# Column -> (heading, digits, factor).
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
IQM = ("iqm_return", "iqm_low", "iqm_high")
SAME_FOR_ALL_SEEDS = ["dataset", "split", "track", "classifier", "view", "observe"]
SAME_FOR_ALL_SEEDS += ["learns_from", "tries"]

NOTES = (
    "Means over seeds ± half of Student's 95 % interval; IQM: interquartile mean with its 95 % "
    "interval by stratified bootstrap (seeds within environments). Every row by one exact pass of "
    "`dtram_env.evaluate` over the test split. Area under the curve: mean validation return over "
    "the env steps. Tries: trials of the search on this environment that found the "
    "hyper-parameters, on validation; 0 without a search."
)
FEW_SEEDS = (
    "With fewer than 4 seeds the interquartile mean is the mean of all, and its interval is their "
    "range, which is too narrow."
)
SUITE_CHART = "suite_scores"
"""How the name of the suite's bar chart ends."""
SUITE_NOTES = (
    "Scores: 0 is the return of the random policy, 1 that of the best policy known "
    "(`dtram_env.SUITE`). A score is of the mean return over seeds; without a result on every "
    "skill there is no mean over skills."
)
DTRAM_NOTES = (
    "dtram is first validated after an epoch of its training; for the area, its return before that "
    "counts as 0. Its stopper is trained last, on a quarter of the env steps; until then it takes "
    "all glimpses, hence the step at the end of its curve. It also learns from the training "
    "labels, and validation chooses its stop threshold; see docs/protocol.md."
)


def write_comparison(folder: Path, records: Records, command: str) -> Path:
    """Writes records (.jsonl), summary (.md), plots and a page of all (.html).

    Returns the Markdown's path.

    Processes that write into one folder wait for each other, so all files come from one process.
    """
    names = list(dict.fromkeys(record["env_id"] for record in records))
    name = names[0] if len(names) == 1 else "comparison"
    with in_turn(folder / ".lock"):
        write_records(folder / f"{name}.jsonl", records)
        save_figure(_curves(records), folder / f"{name}-learning_curves.png")
        if len(scores := suite_scores(records)):
            save_figure(suite_chart(scores), folder / f"{name}-{SUITE_CHART}.png")
        write_comparison_page(folder / f"{name}.html", records, command)
        return write_text(folder / f"{name}.md", markdown(records, command))


def write_comparison_page(path: Path, records: Records, command: str) -> Path:
    """Writes the plots and tables of a comparison as a page; returns its path."""
    finished, figures = _finished(records), []
    for env_id, runs in finished.items():
        for draw in (learning_curves, error_by_glimpses):
            figure = Figure(figsize=(4.8, 3.2), layout="constrained")
            axes = figure.add_subplot()
            draw(axes, runs)
            label = f"{env_id}, {axes.get_ylabel()} against {axes.get_xlabel()}"
            figures.append((label, inline(figure, label)))
    failed = [one for one in records if not has_result(one)]
    return write_page(
        path,
        "comparison.html",
        title=f"Comparison on {', '.join(finished)}",
        warnings=["{env_id}, {algo}, seed {seed}: {problem}".format_map(one) for one in failed],
        command=command,
        finished=len(records) - len(failed),
        algorithms=_algorithms(records),
        figures=figures,
        tables=from_markdown(markdown(records, command)),
    )


# -- tables ----------------------------------------------------------------------------------------


def has_result(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a finished run."""
    return "problem" not in record


def summarise(records: Records) -> pd.DataFrame:
    """One row for each environment and algorithm: means, intervals, and failed seeds."""
    columns = ["env_id", "algo", "seed", "problem", *SAME_FOR_ALL_SEEDS, *COLUMNS]
    frame = pd.DataFrame(list(records)).reindex(columns=columns)
    rows = []
    for (env_id, algo), runs in frame.groupby(["env_id", "algo"], sort=False):
        done, failed = runs[runs["problem"].isna()], runs[runs["problem"].notna()]
        problems = [f"seed {run.seed}: {run.problem}" for run in failed.itertuples()]
        row = {"env_id": env_id, "algo": algo, "seeds": len(done), "problems": "; ".join(problems)}
        if len(done):
            row |= done.iloc[0][SAME_FOR_ALL_SEEDS].to_dict()
            for column in COLUMNS:
                row[column], half = mean_interval(done[column].to_list())
                if column in WITH_INTERVAL:
                    row[f"{column}_interval"] = half
            row |= _interquartile([done["mean_return"].to_numpy(float)])
        rows.append(row)
    return pd.DataFrame(rows)


def over_environments(records: Records) -> pd.DataFrame:
    """Interquartile mean of the returns over the environments, for each track and algorithm.

    Tracks with one environment are left out, and algorithms without a result on some environment.
    """
    done = pd.DataFrame([record for record in records if has_result(record)])
    done = done.reindex(columns=["track", "env_id", "algo", "mean_return"])
    rows = []
    for track, runs in done.groupby("track", sort=False):
        environments = runs["env_id"].nunique()
        for algo, mine in runs.groupby("algo", sort=False):
            groups = mine.groupby("env_id", sort=False)["mean_return"]
            strata = [returns.to_numpy(float) for _, returns in groups]
            if len(strata) == environments > 1:
                row = {"track": track, "algo": algo, "environments": environments}
                rows.append(row | _interquartile(strata))
    return pd.DataFrame(rows, columns=["track", "algo", "environments", *IQM])


def suite_scores(records: Records) -> pd.DataFrame:
    """Scores of each algorithm's (rows) mean return on each skill of the suite (columns).

    NaN where it has no result; empty unless the records have results on all environments.
    """
    done = pd.DataFrame([record for record in records if has_result(record)])
    done = done.reindex(columns=["algo", "env_id", "mean_return"])
    means = done.pivot_table("mean_return", "algo", "env_id", sort=False)
    if not {challenge.env_id for challenge in SUITE} <= set(means.columns):
        return pd.DataFrame()
    columns = {one.skill: means[one.env_id].map(one.score) for one in SUITE}
    return pd.DataFrame(columns).dropna(how="all")


def _interquartile(strata: Sequence[np.ndarray]) -> dict[str, Any]:
    mean, interval = interquartile_mean(np.concatenate(strata)), stratified_bootstrap(strata)
    return dict(zip(IQM, (mean, *interval), strict=True))


def markdown(records: Records, command: str) -> str:
    """The summary as text, made by `command`: a table for each environment, best return first."""
    summary = summarise(records)
    sections = [_environment(str(name), rows) for name, rows in summary.groupby("env_id")]
    for track, rows in over_environments(records).groupby("track", sort=False):
        ranked = rows.sort_values("iqm_return", ascending=False, kind="stable")
        lines = [[row["algo"], _iqm(row)] for row in ranked.to_dict("records")]
        table = markdown_table(["algorithm", "IQM of the return"], lines)
        sections.append(
            f"## Over the {rows['environments'].iloc[0]} environments, {track}\n\n{table}"
        )
    scores = suite_scores(records)
    if len(scores):
        sections.append(f"## Scores on the suite\n\n{suite_table(scores)}")
    notes = [NOTES, *([SUITE_NOTES] if len(scores) else [])]
    if summary["seeds"].between(1, 3).any():
        notes.append(FEW_SEEDS)
    if ((summary["algo"] == "dtram") & (summary["seeds"] > 0)).any():
        notes.append(DTRAM_NOTES)
    notes += _origins(records)
    return "\n".join([*sections, "\n".join(notes), "", f"Made by `{command}`.\n"])


def suite_table(scores: pd.DataFrame) -> str:
    """What `suite_scores` returned as a table, best mean first."""
    means = scores.mean(axis=1, skipna=False)
    lines = [
        [str(algo), *("" if np.isnan(v) else f"{v:.2f}" for v in [*scores.loc[algo], means[algo]])]
        for algo in means.sort_values(ascending=False, kind="stable").index
    ]
    return markdown_table(["algorithm", *map(str, scores.columns), "mean"], lines)


def _environment(name: str, rows: pd.DataFrame) -> str:
    done = rows[rows["seeds"] > 0]
    heads = ["algorithm", "view", "learns from", "tries", "seeds"]
    heads += [heading for heading, _, _ in COLUMNS.values()] + ["IQM of the return"]
    about, lines = "", []
    if len(done):
        done = done.sort_values("mean_return", ascending=False, kind="stable")
        first = done.iloc[0]
        named = f", classifier {first['classifier']}" if pd.notna(first["classifier"]) else ""
        about = f"{first['dataset']}, {first['split']} split, {first['track']}{named}.\n\n"
    for row in done.to_dict("records"):
        view = row["view"] + ", canvas" * (row["observe"] == "canvas")
        cells = [row["algo"], view, row["learns_from"], f"{row['tries']:.0f}", str(row["seeds"])]
        lines.append([*cells, *(_mean(row, column) for column in COLUMNS), _iqm(row)])
    for row in rows[rows["seeds"] == 0].to_dict("records"):
        problems = row["problems"].replace("|", "\\|")  # else it ends the cell
        lines.append([row["algo"], problems, *[""] * (len(heads) - 2)])
    text = f"## {name}\n\n{about}{markdown_table(heads, lines, text_columns=(0, 1, 2))}"
    for row in done[done["problems"] != ""].to_dict("records"):
        text += f"\n{row['algo']}: {row['problems']}.\n"
    return text


def _mean(row: Mapping[str, Any], column: str) -> str:
    _, digits, factor = COLUMNS[column]
    text = f"{row[column] * factor:,.{digits}f}"
    half: Any = row.get(f"{column}_interval")
    return text if pd.isna(half) else f"{text} ± {half * factor:.{digits}f}"  # none for one seed


def _iqm(row: Mapping[str, Any]) -> str:
    return f"{row['iqm_return']:.4f} [{row['iqm_low']:.4f}, {row['iqm_high']:.4f}]"


def _origins(records: Records) -> list[str]:
    """Versions of torch, processors and commits of the runs."""
    made = [
        (
            record["versions"].get("torch", "?"),
            record["hardware"].get("processor", "?"),
            record["commit"][:7],
        )
        for record in records
        if has_result(record) and "commit" in record
    ]
    columns = [", ".join(sorted(set(column))) for column in zip(*made, strict=True)]
    return ["Runs made with torch {} on {}, at commits {}.".format(*columns)] if made else []


# -- plots -----------------------------------------------------------------------------------------


def learning_curves(axes: Axes, by_algorithm: Mapping[str, Records]) -> None:
    """Validation return against env steps: mean over seeds, and range; dashed if nothing learns."""
    every = [run for runs in by_algorithm.values() for run in runs]
    x = np.linspace(0, max((run["env_steps"] for run in every), default=0) or 1, 201)
    for k, (algo, runs) in enumerate(by_algorithm.items()):
        if not runs:
            continue
        curves = []
        for run in runs:
            steps, returns = ([p[key] for p in run["curve"]] for key in ("env_steps", "return"))
            curves.append(np.interp(x, steps, returns, left=np.nan))
        line = "-" if any(run["env_steps"] for run in runs) else "--"
        colour, mean = f"C{k % 10}", np.mean(curves, axis=0)
        axes.plot(x, mean, line, color=colour, label=algo, linewidth=1.3, gid=f"curve-{k}")
        ends = np.min(curves, axis=0), np.max(curves, axis=0)
        axes.fill_between(x, *ends, color=colour, alpha=0.15, lw=0, gid=f"range-curve-{k}")
    axes.set(xlabel="env steps", ylabel="validation return")
    axes.grid(alpha=0.3)


def error_by_glimpses(axes: Axes, by_algorithm: Mapping[str, Records]) -> None:
    """Test error against mean glimpses: one dot for each seed."""
    for k, (algo, runs) in enumerate(by_algorithm.items()):
        if not runs:
            continue
        x, y = [run["mean_glimpses"] for run in runs], [run["test_error"] for run in runs]
        marker, colour = "osv^<>DPX*"[k % 10], f"C{k % 10}"
        axes.plot(x, y, marker, color=colour, label=algo, markersize=5, gid=f"curve-{k}")
    axes.set(xlabel="mean number of glimpses", ylabel="test error %")
    log_scale(axes, [run["test_error"] for runs in by_algorithm.values() for run in runs])
    axes.grid(alpha=0.3)


def _algorithms(records: Records) -> list[str]:
    """The names of the algorithms; the place of one gives its colour in all plots."""
    return list(dict.fromkeys(record["algo"] for record in records))


def _finished(records: Records) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """The finished runs of every algorithm on every environment; there may be none."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {
        record["env_id"]: {algo: [] for algo in _algorithms(records)} for record in records
    }
    for record in filter(has_result, records):
        found[record["env_id"]][record["algo"]].append(record)
    return found


def suite_chart(scores: pd.DataFrame) -> Figure:
    """Bars of what `suite_scores` returned: a group for each skill, a colour for each algorithm."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(scores)
    for k, (algo, row) in enumerate(scores.iterrows()):
        axes.bar(np.arange(len(row)) + k * width, row, width, color=f"C{k % 10}", label=str(algo))
    middle = np.arange(scores.shape[1]) + 0.4 - width / 2
    axes.set_xticks(middle, [textwrap.fill(skill, 16) for skill in scores.columns])
    axes.set(ylabel="score", ylim=(0, 1))
    axes.grid(axis="y", alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def _curves(records: Records) -> Figure:
    """The learning curves of the finished runs, with axes for each environment."""
    finished = _finished(records)
    columns = min(len(finished), 3)
    lines = -(-len(finished) // columns)
    figure = Figure(figsize=(6.5 * columns, 4.2 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[len(finished) :]:
        axes.set_axis_off()
    for axes, (env_id, runs) in zip(grid, finished.items(), strict=False):
        learning_curves(axes, runs)
        axes.set_title(env_id)
        if any(runs.values()):
            axes.legend(fontsize=8)
    return figure

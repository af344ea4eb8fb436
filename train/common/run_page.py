"""The page of a run: its options, learning curves, confusion, costs and origin, and what else a
program shows of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.common.files import Step, read_json_lines
from train.common.page import inline, write_page

MATRIX_CLASSES = 20  # at most, for a whole confusion matrix
PAIRS = 30  # confusions in the list of more classes
CURVES = {
    "error %": ("rollout/success_rate", "eval/accuracy"),
    "mean glimpses": ("rollout/ep_len_mean", "eval/mean_glimpses"),
    "training loss": ("train/loss", ""),
}
"""By label, names in ``metrics.jsonl`` of the values on training and on validation images."""
VALIDATIONS = {"return": ("return",), "error %": ("accuracy",), "mean glimpses": ("mean_glimpses",)}
"""By label, names of the values in the points of a curve of validations."""
AMOUNTS = {
    "train_seconds": ("training", "{:,.0f} s"),
    "validation_seconds": ("of which validation", "{:,.0f} s"),
    "images_seen": ("training images seen", "{:,}"),
    "env_steps": ("env steps", "{:,}"),
    "images_per_second": ("images a second, in batches", "{:,}"),
    "parameters": ("parameters", "{:,}"),
    "flops_per_glimpse": ("FLOPs of a glimpse", "{:,}"),
    "flops_of_first_glimpse": ("FLOPs of the first glimpse", "{:,}"),
    "mean_flops": ("mean FLOPs of an image", "{:,}"),
    "flops": ("FLOPs of an image", "{:,}"),
    "flops_per_image": ("mean FLOPs of an image", "{:,}"),
}
"""Names and formats of results."""
ORIGIN = ("commit", "date", "hardware", "versions")


def write_run_page(
    folder: Path,
    results: Mapping[str, Any],
    labels: np.ndarray,
    prediction: np.ndarray,
    names: Sequence[str],
    *,
    summary: str,
    warnings: Sequence[str] = (),
    **shown: Any,
) -> Path:
    """Writes ``report.html`` into a run's folder; returns its path.

    Args:
        folder: of the run, with its ``metrics.jsonl`` if it has one.
        results: what ``results.json`` will hold.
        labels, prediction: classes ``(N,)`` of the test images.
        names: of the classes.
        summary: the result in a sentence.
        warnings: each a sentence.
        shown: the other sections of ``run.html``: `costs` and `rules`, `maps`, `groups`.
    """
    path = folder / "metrics.jsonl"  # none if nothing was trained
    if "curve" in results:
        points = [{"accuracy": 1 - point["error"], **point} for point in results["curve"]]
        curves = learning_curves(points, VALIDATIONS, "env_steps", "env steps")
    else:
        curves = learning_curves(read_json_lines(path, Step) if path.exists() else [])
    content = {"costs": (), "rules": (), "maps": None, "groups": (), **shown}
    return write_page(
        folder / "report.html",
        "run.html",
        title=f"{results['env_id']}: {results['dataset']}",
        summary=summary,
        warnings=warnings,
        results=results,
        options=list(flat(results["options"])),
        curves=list(curves),
        curve_names=("validation",) if "curve" in results else ("training", "validation"),
        names=names,
        confusion=confusion(labels, prediction, len(names)),
        amounts=[(n, f.format(results[key])) for key, (n, f) in AMOUNTS.items() if key in results],
        origin=list(flat({key: results[key] for key in ORIGIN if key in results})),
        **content,
    )


def flat(options: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of options; those of a group begin with its name and a dot."""
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{inside}{name}.")
        else:
            yield inside + name, value if isinstance(value, str) else json.dumps(value)


def learning_curves(
    metrics: Sequence[Mapping[str, float]],
    columns: Mapping[str, Sequence[str]] = CURVES,
    step: str = "step",
    steps: str = "training images",
) -> Iterator[Markup]:
    """Figures of values in `metrics` by their `step`, called `steps`.

    `columns` has the names of each figure's curves by its label, as `CURVES`; "error %" is drawn
    from accuracies in [0, 1].
    """
    x = [row[step] for row in metrics]
    for label, names in columns.items():
        y = [[row.get(name, np.nan) for row in metrics] for name in names]
        if not np.isfinite(y).any() or (label == "mean glimpses" and np.nanmax(y) <= 1):
            continue
        if label == "error %":
            y = [[100 * (1 - right) for right in curve] for curve in y]
        figure, axes = new_plot(steps, label)
        for k, curve in enumerate(y):
            axes.plot(x, curve, ".-", linewidth=1.3, color=f"C{k}", gid=f"curve-{k}")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if label == "error %":
            log_scale(axes, [error for curve in y for error in curve])
        yield inline(figure, f"{label} by number of {steps}")


def histogram(counts: Sequence[int]) -> Figure:
    """Share of the images that took 1, 2, ... glimpses, from their numbers."""
    figure, axes = new_plot("glimpses", "% of test images")
    numbers = range(1, len(counts) + 1)
    bars = axes.bar(numbers, [100 * count / sum(counts) for count in counts])
    if len(counts) <= 12:
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
        axes.set_xticks(numbers)
    return figure


def new_plot(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure for a page, and its axes."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def log_scale(axes: Axes, values: Sequence[float], axis: Literal["x", "y"] = "y") -> None:
    """Makes an axis of values of at least 0 logarithmic, with plain numbers, if any is positive.

    It is linear below the smallest positive value if another is 0.
    """
    positive = [value for value in values if value > 0]
    if positive:
        zero = [0.0] if 0 in values else []
        kind: dict[str, Any] = {"value": "log"}
        if zero:
            kind = {"value": "symlog", "linthresh": min(positive)}
        (axes.set_xscale if axis == "x" else axes.set_yscale)(**kind)
        steps = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
        ticks = zero + [t for t in steps if min(positive) / 2 < t < 2 * max(positive)]
        one = axes.xaxis if axis == "x" else axes.yaxis
        one.set_ticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        one.set_ticks([], minor=True)


def confusion(labels: np.ndarray, prediction: np.ndarray, classes: int) -> dict[str, Any]:
    """Counts of answers by true class, for ``run.html``.

    Rows of the `matrix`, for `MATRIX_CLASSES` at most, hold counts and opacities of colours.
    `pairs` are the most frequent wrong answers: label, answer, count, and images of the label.
    """
    of_class = np.bincount(labels, minlength=classes)
    wrong = labels != prediction
    code, count = np.unique(labels[wrong] * classes + prediction[wrong], return_counts=True)
    first = np.argsort(-count, kind="stable")[:PAIRS]
    pairs = [(*divmod(int(code[i]), classes), int(count[i])) for i in first]
    found: dict[str, Any] = {"matrix": None, "wrong": int(wrong.sum())}
    found["pairs"] = [(*pair, int(of_class[pair[0]])) for pair in pairs]
    if classes <= MATRIX_CLASSES:
        counts = np.bincount(labels * classes + prediction, minlength=classes**2)
        counts = counts.reshape(classes, classes)
        most = max((n for _, _, n in pairs), default=1)
        share = np.where(np.eye(classes), counts / np.maximum(of_class, 1)[:, None], counts / most)
        found["matrix"] = [
            list(zip(*rows, strict=True))
            for rows in zip(counts.tolist(), (0.7 * share).tolist(), strict=True)
        ]
    return found

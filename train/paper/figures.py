"""The talk's figures 7 and 8, and two curves that it does not have, from finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.loading import load_agent, load_one_look
from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from train.common.evaluate_one_look import answers_and_rate
from train.common.provenance import provenance
from train.common.run import read_json, write_json
from train.common.statistics import confidences
from train.dtram.report import answering_rate, glimpse_figure
from train.paper.published import Published
from train.paper.read_runs import Reader, Reading, network_of
from train.paper.systems import TRUNKS, Protocol
from train.paper.tables import CURVES, Line
from train.paper.write_tables import origin_of, run_name

matplotlib.use("Agg")

Found = Mapping[str, Path]  # the finished run of each system, of one seed
CONFIDENCES = (0.5, 0.7, 0.9, 0.97, 0.99)
"""Thresholds on confidence whose cost is shown."""


def histogram_figure(reader: Reader, folder: Path, path: Path) -> None:
    """Test images by number of glimpses, boxes in visiting order, and beside it how many took each.

    Writes `path`, and the histogram as ``…-histogram.png``.

    Args:
        reader: of finished runs.
        folder: a DT-RAM's run.
        path: of the picture.
    """
    task, agent = reader.task(folder), load_agent(folder)
    scores = reader.scores(folder, folder)
    taken, prediction = scores.apply(agent.stopping)
    figure = glimpse_figure(task, task.images("test"), scores, taken, prediction)
    figure.savefig(path, dpi=110)
    counts = np.bincount(taken.cpu().numpy(), minlength=task.max_glimpses + 1)[1:]
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(np.arange(1, len(counts) + 1), 100 * counts / counts.sum())
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(np.arange(1, len(counts) + 1))
    axes.set(xlabel="glimpses", ylabel="% of test images", title=task.dataset)
    figure.savefig(path.with_name(f"{path.stem}-histogram.png"), dpi=110)


def discount_plot(reader: Reader, protocol: Protocol, found: Found, stem: Path) -> bool:
    """Test error against mean glimpses as the discount varies, beside other stopping rules.

    Writes ``STEM.png`` and ``STEM.json``; nothing without the runs of any discount.

    Args:
        reader: of finished runs.
        protocol: the setting.
        found: its finished runs.
        stem: path without its ending.

    Returns:
        Whether there was anything to write.
    """
    learned = [name for name in found if name == "dtram" or name.startswith("discount-")]
    if not learned or "ram" not in found:
        return False
    points: dict[str, list[dict[str, Any]]] = {"DT-RAM, by discount": []}
    for name in learned:
        reading = reader.read(Line(Published("", None), protocol, name), found[name])
        points["DT-RAM, by discount"].append(
            {
                "name": f"{read_json(found[name] / 'results.json')['discount']:g}",
                "mean_glimpses": float(reading.answered.glimpses.mean()),
                "test_error": _error(reading),
            }
        )
    ram = found["ram"]
    scores = reader.scores(ram, ram)
    points["fixed number (RAM)"] = [
        {"name": str(t), "mean_glimpses": t, "test_error": _error(reading)}
        for t, reading in _fixed(reader, protocol, "ram", ram).items()
    ]
    points["confidence threshold"] = []
    for threshold in confidences(scores, 40):
        error, glimpses = scores.error_and_glimpses(ConfidenceStop(threshold))
        points["confidence threshold"].append(
            {"name": f"{threshold:.4g}", "mean_glimpses": glimpses, "test_error": 100 * error}
        )
    task = reader.task(ram)
    runs = [ram, *(found[name] for name in learned)]
    _write_points(reader, protocol, runs, points, stem)
    _plot(
        points,
        "mean_glimpses",
        "mean number of glimpses",
        f"{task.dataset}, {protocol.name}, {ram.name}",
        stem,
        labelled=("DT-RAM, by discount",),
        joined=True,
    )
    return True


def cost_plot(reader: Reader, protocol: Protocol, found: Found, stem: Path) -> bool:
    """Test error of every system against its floating-point operations and its measured time.

    Writes ``STEM-flops.png``, ``STEM-time.png`` and ``STEM.json``. Time is measured here, of one
    system after another, in batches.

    Args:
        reader: of finished runs.
        protocol: the setting.
        found: its finished runs; those of `tables.CURVES` are shown.
        stem: path without its ending.

    Returns:
        Whether there was anything to write.
    """
    points: dict[str, list[dict[str, Any]]] = {}

    def add(kind: str, name: str, reading: Reading, rate: float) -> None:
        points.setdefault(kind, []).append(
            {
                "name": name,
                "mflop": reading.flops / 1e6,
                "milliseconds": 1000 / rate,
                "test_error": _error(reading),
            }
        )

    found = {name: folder for name, folder in found.items() if name in CURVES}
    for name, folder in found.items():
        if name not in TRUNKS:
            reading = reader.read(Line(Published("", None), protocol, name), folder)
            one_look = protocol.systems[name].program == "one_look.py"
            kind = "one look" if one_look else "DT-RAM, and RAM with ACT"
            add(kind, name, reading, measured_rate(reader, folder))
            continue
        for steps, reading in _fixed(reader, protocol, name, folder).items():
            rate = measured_rate(reader, folder, FixedStop(steps), steps)
            add("RAM, fixed number", f"{name} {steps}", reading, rate)
        for confidence in CONFIDENCES:
            line = Line(Published("", None, threshold=confidence), protocol, name)
            rate = measured_rate(reader, folder, ConfidenceStop(confidence))
            reading = reader.read(line, folder)
            add("RAM, stop by confidence", f"{name} > {confidence:g}", reading, rate)
    if not points:
        return False
    runs = list(found.values())
    _write_points(reader, protocol, runs, points, stem)
    title = f"{reader.task(runs[0]).dataset}, {protocol.name}, {runs[0].name}"
    shown = ("one look", "DT-RAM, and RAM with ACT")
    for key, label, ending in (
        ("mflop", "MFLOP an image", "-flops"),
        ("milliseconds", "measured ms an image, in batches", "-time"),
    ):
        path = stem.with_name(stem.name + ending)
        _plot(points, key, label, title, path, labelled=shown, joined=False)
    return True


def measured_rate(
    reader: Reader,
    folder: Path,
    rule: StoppingRule | None = None,
    steps: int | None = None,
    repeats: int = 3,
) -> float:
    """Test images that a finished run's network answers a second, the fastest of some passes.

    Args:
        reader: of finished runs.
        folder: the run.
        rule: to stop by, if not its own.
        steps: of which stage of the curriculum the network is, if not the last one's.
        repeats: passes.
    """
    task = reader.task(folder)
    test = task.images("test")
    if "side" in read_json(folder / "results.json"):
        network = load_one_look(folder, task.device)
        return max(answers_and_rate(network, test)[1] for _ in range(repeats))
    agent = load_agent(network_of(folder, steps), task.device)
    if rule is not None:
        agent.stopping = rule
    return max(answering_rate(task, agent, test) for _ in range(repeats))


def _write_points(
    reader: Reader,
    protocol: Protocol,
    runs: Sequence[Path],
    points: Mapping[str, Sequence[Mapping[str, Any]]],
    stem: Path,
) -> None:
    """What a curve shows, and of which runs, as ``STEM.json``."""
    task = reader.task(runs[0])
    origins = {run_name(folder): origin_of(folder) for folder in runs}
    said = {"data": task.dataset, "protocol": protocol.name, "points": points, "runs": origins}
    write_json(stem.with_suffix(".json"), {**said, **provenance(task.device)})


def _fixed(reader: Reader, protocol: Protocol, trunk: str, folder: Path) -> dict[int, Reading]:
    """RAM with each fixed number of glimpses, as the tables read it."""
    return {
        t: reader.read(Line(Published("", None, steps=t), protocol, trunk), folder)
        for t in range(1, protocol.max_glimpses + 1)
    }


def _error(reading: Reading) -> float:
    return 100 * (1 - float(reading.answered.right.mean()))


def _plot(
    points: Mapping[str, Sequence[Mapping[str, Any]]],
    key: str,
    label: str,
    title: str,
    stem: Path,
    *,
    labelled: Sequence[str],
    joined: bool,
) -> None:
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for (family, rows), marker in zip(points.items(), "os^D", strict=False):
        rows = sorted((row for row in rows if row[key] is not None), key=lambda row: row[key])
        if not rows:
            continue
        x, y = [row[key] for row in rows], [row["test_error"] for row in rows]
        style = "-" if joined else ""
        axes.plot(x, y, marker=marker, markersize=4, linewidth=1, linestyle=style, label=family)
        for row in rows if family in labelled else ():
            if not joined and row["name"].startswith("discount-"):
                continue  # which have a curve of their own
            place = (row[key], row["test_error"])
            axes.annotate(row["name"], place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=label, ylabel="test error %", title=title)
    if not joined:
        axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", labelsize=6)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(stem.with_suffix(".png"), dpi=110)

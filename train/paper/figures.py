"""The talk's figures 7 and 8, and curves of error against cost, drawn from finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.loading import load_agent, load_one_look
from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from train.common.evaluate_one_look import predictions_and_rate
from train.common.files import read_json
from train.common.provenance import provenance
from train.common.records import RESULTS, check_origin, origin, write_result
from train.common.statistics import confidences
from train.dtram.report import glimpse_figure, images_per_second
from train.paper.read_runs import Reader, Reading, network_of
from train.paper.systems import ONE_LOOK, TRUNKS, Protocol
from train.paper.tables import IN_NO_CURVE, line_of

matplotlib.use("Agg")

Found = Mapping[str, Path]  # folder of the finished run of each system, all of one seed
Points = dict[str, list[dict[str, Any]]]  # points of each curve
CONFIDENCES = (0.5, 0.7, 0.9, 0.97, 0.99)
"""Confidence thresholds whose cost is shown."""
BY_DISCOUNT, FIXED, CONFIDENCE = "DT-RAM, by discount", "fixed number (RAM)", "confidence threshold"
LOOK, LEARNED = "one look", "DT-RAM, and RAM with ACT"


def histogram_figure(reader: Reader, protocol: Protocol, found: Found, stem: Path) -> list[Path]:
    """Test images by number of glimpses with boxes in visiting order, and how many took each.

    Writes ``STEM.png``, ``STEM-histogram.png`` and ``STEM.json``; nothing without a DT-RAM in
    `found`, the finished runs of the protocol. Returns the pictures.
    """
    if "dtram" not in found:
        return []
    folder = found["dtram"]
    task, agent, scores = reader.task(folder), load_agent(folder), reader.scores(folder, folder)
    taken, prediction = scores.apply(agent.stopping)
    counts = np.bincount(taken.cpu().numpy(), minlength=task.max_glimpses + 1)[1:]
    _write_json(reader, protocol, [folder], {"histogram": counts.tolist()}, stem)
    pictures = [stem.with_name(f"{stem.name}{ending}.png") for ending in ("", "-histogram")]
    figure = glimpse_figure(task, task.images("test"), scores, taken, prediction)
    figure.savefig(pictures[0], dpi=110)
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(np.arange(1, len(counts) + 1), 100 * counts / counts.sum())
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(np.arange(1, len(counts) + 1))
    axes.set(xlabel="glimpses", ylabel="% of test images", title=task.dataset)
    figure.savefig(pictures[1], dpi=110)
    return pictures


def discount_plot(reader: Reader, protocol: Protocol, found: Found, stem: Path) -> list[Path]:
    """Test error against mean glimpses as the discount varies, beside other stopping rules.

    Writes ``STEM.png`` and ``STEM.json``; nothing without a run of some discount.
    """
    learned = [name for name in found if name == "dtram" or name.startswith("discount-")]
    if not learned or "ram" not in found:
        return []
    ram, points = found["ram"], Points()
    for name in learned:
        reading = reader.read(line_of(protocol, name), found[name])
        label = f"{reading.results['discount']:g}"
        _add(points, BY_DISCOUNT, label, reading.error, mean_glimpses=reading.mean_glimpses)
    for steps in range(1, protocol.max_glimpses + 1):
        reading = reader.read(line_of(protocol, "ram", steps=steps), ram)
        _add(points, FIXED, str(steps), reading.error, mean_glimpses=steps)
    scores = reader.scores(ram, ram)
    for threshold in confidences(scores, 40):
        error, glimpses = scores.error_and_glimpses(ConfidenceStop(threshold))
        _add(points, CONFIDENCE, f"{threshold:.4g}", 100 * error, mean_glimpses=glimpses)
    runs = [ram, *(found[name] for name in learned)]
    _write_json(reader, protocol, runs, {"points": points}, stem)
    axis = "mean_glimpses", "mean number of glimpses"
    title = _title(reader, protocol, ram)
    return [_plot(points, axis, title, stem, [BY_DISCOUNT], joined=True)]


def cost_plot(reader: Reader, protocol: Protocol, found: Found, stem: Path) -> list[Path]:
    """Test error of every system, but `tables.IN_NO_CURVE`, against FLOPs and measured time.

    Writes ``STEM-flops.png``, ``STEM-time.png`` and ``STEM.json``. Time is measured here, one
    system after another, in batches.
    """
    points = Points()

    def add(kind: str, name: str, reading: Reading, rate: float) -> None:
        cost = {"mflop": reading.flops / 1e6, "milliseconds": 1000 / rate}
        _add(points, kind, name, reading.error, **cost)

    found = {name: folder for name, folder in found.items() if name not in IN_NO_CURVE}
    for name, folder in found.items():
        if name not in TRUNKS:
            reading = reader.read(line_of(protocol, name), folder)
            kind = LOOK if protocol.systems[name].program == ONE_LOOK else LEARNED
            add(kind, name, reading, measured_rate(reader, folder))
            continue
        for steps in range(1, protocol.max_glimpses + 1):
            reading = reader.read(line_of(protocol, name, steps=steps), folder)
            rate = measured_rate(reader, folder, FixedStop(steps), steps)
            add("RAM, fixed number", f"{name} {steps}", reading, rate)
        for confidence in CONFIDENCES:
            reading = reader.read(line_of(protocol, name, threshold=confidence), folder)
            rate = measured_rate(reader, folder, ConfidenceStop(confidence))
            add("RAM, stop by confidence", f"{name} > {confidence:g}", reading, rate)
    if not points:
        return []
    runs = list(found.values())
    _write_json(reader, protocol, runs, {"points": points}, stem)
    title = _title(reader, protocol, runs[0])
    axes = {
        "flops": ("mflop", "MFLOP an image"),
        "time": ("milliseconds", "measured ms an image, in batches"),
    }
    named = [LOOK, LEARNED]
    return [
        _plot(points, axis, title, stem.with_name(f"{stem.name}-{ending}"), named, joined=False)
        for ending, axis in axes.items()
    ]


def measured_rate(
    reader: Reader, folder: Path, rule: StoppingRule | None = None, steps: int | None = None
) -> float:
    """Test images that a finished run's network classifies in a second, the fastest of 3 passes.

    The network stops by `rule`, or by its own if None; `steps` picks the stage of the curriculum.
    """
    task = reader.task(folder)
    test = task.images("test")
    if "side" in read_json(folder / "results.json"):
        network = load_one_look(folder, task.device)
        return max(predictions_and_rate(network, test)[1] for _ in range(3))
    agent = load_agent(network_of(folder, steps), task.device)
    agent.stopping = rule or agent.stopping
    return max(images_per_second(task, agent, test) for _ in range(3))


def _add(points: Points, curve: str, name: str, error: float, **place: float) -> None:
    points.setdefault(curve, []).append({"name": name, **place, "test_error": error})


def _title(reader: Reader, protocol: Protocol, folder: Path) -> str:
    return f"{reader.task(folder).dataset}, {protocol.name}, {folder.name}"


def _write_json(
    reader: Reader, protocol: Protocol, runs: Sequence[Path], content: Mapping[str, Any], stem: Path
) -> None:
    """Writes the values of a picture and the origin of its runs as ``STEM.json``."""
    path, task = stem.with_name(f"{stem.name}.json"), reader.task(runs[0])
    origins = {"/".join(run.parts[-3:]): origin(read_json(run / "results.json")) for run in runs}
    for name, one in origins.items() if RESULTS in path.resolve().parents else ():
        check_origin(one, name)
    about = {"data": task.dataset, "protocol": protocol.name, **content, "runs": origins}
    write_result(path, {**about, **provenance(task.device)})


def _plot(
    points: Points,
    axis: tuple[str, str],
    title: str,
    stem: Path,
    labelled: Sequence[str],
    *,
    joined: bool,
) -> Path:
    """Draws curves against the value and label of an axis; points of some curves have names."""
    key, label = axis
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for (curve, rows), marker in zip(points.items(), "os^D", strict=False):
        rows = sorted(rows, key=lambda row: row[key])
        x, y = [row[key] for row in rows], [row["test_error"] for row in rows]
        style = "-" if joined else ""
        axes.plot(x, y, marker=marker, markersize=4, linewidth=1, linestyle=style, label=curve)
        for row in rows if curve in labelled else ():
            if joined or not row["name"].startswith("discount-"):  # they have their own curve
                place = (row[key], row["test_error"])
                axes.annotate(row["name"], place, (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=label, ylabel="test error %", title=title)
    axes.set_xscale("linear" if joined else "log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", labelsize=6)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    path = stem.with_name(f"{stem.name}.png")
    figure.savefig(path, dpi=110)
    return path

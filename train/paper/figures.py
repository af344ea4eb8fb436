"""The talk's figures 7 and 8, and curves of error against cost, drawn from finished runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.loading import load_agent, load_one_look
from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from train.common.evaluate_one_look import logits_and_rate
from train.common.files import read_json, save_figure
from train.common.provenance import provenance
from train.common.records import RESULTS, check_origin, origin, write_result
from train.common.run_page import scale_errors
from train.common.statistics import confidences
from train.dtram.report import glimpse_figure, histogram, images_per_second, set_title
from train.paper.read_runs import Reader, Reading, network_of
from train.paper.systems import ONE_LOOK, TRUNKS, Protocol
from train.paper.tables import IN_NO_CURVE, line_of

matplotlib.use("Agg")

Points = defaultdict[str, list[dict[str, Any]]]
"""Points of each curve."""
TIMED = 2000  # images
CURVE_CONFIDENCES = (0.5, 0.7, 0.9, 0.97, 0.99)
"""Confidence thresholds whose cost is shown."""
BY_DISCOUNT, FIXED, CONFIDENCE = "DT-RAM, by discount", "fixed number (RAM)", "confidence threshold"
LOOK, LEARNED = "one look", "DT-RAM, and RAM with ACT"
COSTS = {
    "flops": ("mflop", "MFLOP an image"),
    "time": ("milliseconds", "measured ms an image, in batches"),
}


@dataclass(frozen=True)
class FinishedRuns:
    """Finished runs of one protocol and seed, and where their figures go."""

    reader: Reader
    protocol: Protocol
    folders: Mapping[str, Path]  # of the run of each system
    stem: Path  # path of the files up to their endings

    def read(self, system: str, **stop: Any) -> Reading:
        """Reads a system's run; see `line_of`."""
        return self.reader.read(line_of(self.protocol, system, **stop), self.folders[system])

    def path(self, ending: str) -> Path:
        """The file with some ending."""
        return self.stem.with_name(self.stem.name + ending)

    def write_json(self, ending: str, systems: Sequence[str], **content: Any) -> None:
        """Writes the values of a picture, and the origin of the runs of its systems."""
        path, folders = self.path(ending), [self.folders[system] for system in systems]
        origins = {"/".join(f.parts[-3:]): origin(read_json(f / "results.json")) for f in folders}
        for name, one in origins.items() if RESULTS in path.resolve().parents else ():
            check_origin(one, name)
        task = self.reader.task(folders[0])
        about = {"data": task.dataset, "protocol": self.protocol.name, **content, "runs": origins}
        write_result(path, {**about, **provenance(task.device)})

    def images_per_second(
        self, system: str, rule: StoppingRule | None = None, steps: int | None = None
    ) -> float:
        """Images a second, the fastest of 3 passes over `TIMED` test images at most; `steps` picks
        the curriculum's stage."""
        folder = self.folders[system]
        task = self.reader.task(folder)
        test = task.images("test")
        test = replace(test, labels=test.labels[:TIMED])
        if self.protocol.systems[system].program == ONE_LOOK:
            network = load_one_look(folder, task.device)
            return max(logits_and_rate(network, test)[1] for _ in range(3))
        agent = load_agent(network_of(folder, steps), task.device)
        agent.stopping = rule or agent.stopping
        return max(images_per_second(task, agent, test) for _ in range(3))


def histogram_figure(runs: FinishedRuns) -> list[Path]:
    """Test images by number of glimpses with boxes in visiting order, and how many took each.

    Writes ``STEM.png``, ``STEM-histogram.png`` and ``STEM.json``; nothing without a DT-RAM.
    """
    if "dtram" not in runs.folders:
        return []
    folder, reader = runs.folders["dtram"], runs.reader
    task, agent, scores = reader.task(folder), load_agent(folder), reader.scores(folder, folder)
    taken, prediction = scores.apply(agent.stopping)
    counts = np.bincount(taken.cpu().numpy(), minlength=task.max_glimpses + 1)[1:]
    runs.write_json(".json", ["dtram"], histogram=counts.tolist())
    pictures = [runs.path(".png"), runs.path("-histogram.png")]
    figure = glimpse_figure(task, task.images("test"), scores, taken, prediction)
    save_figure(figure, pictures[0])
    figure = histogram(counts.tolist())
    set_title(figure.axes[0], task.dataset)
    save_figure(figure, pictures[1])
    return pictures


def discount_plot(runs: FinishedRuns) -> list[Path]:
    """Test error against mean glimpses by discount, beside other stops: ``STEM-discount.png``."""
    learned = [name for name in runs.folders if name.startswith("discount-")]
    if "dtram" in runs.folders and "discount-0.98" not in runs.protocol.systems:
        learned = ["dtram", *learned]
    if not learned or "ram" not in runs.folders:
        return []
    points: Points = defaultdict(list)

    def add(curve: str, name: str, glimpses: float, error: float) -> None:
        points[curve].append({"name": name, "mean_glimpses": glimpses, "test_error": error})

    for name in learned:
        reading = runs.read(name)
        label = f"{reading.results['discount']:g}"
        add(BY_DISCOUNT, label, reading.mean_glimpses, reading.error)
    for steps in range(1, runs.protocol.max_glimpses + 1):
        add(FIXED, str(steps), steps, runs.read("ram", steps=steps).error)
    scores = runs.reader.scores(runs.folders["ram"], runs.folders["ram"])
    for threshold in confidences(scores, 40):
        error, glimpses = scores.error_and_glimpses(ConfidenceStop(threshold))
        add(CONFIDENCE, f"{threshold:.4g}", glimpses, 100 * error)
    runs.write_json("-discount.json", ["ram", *learned], points=points)
    axis = "mean_glimpses", "mean number of glimpses"
    return [_plot(runs, points, axis, "-discount.png", [BY_DISCOUNT], joined=True)]


def cost_plot(runs: FinishedRuns) -> list[Path]:
    """Test error of every system, but `tables.IN_NO_CURVE`, against FLOPs and measured time.

    Writes ``STEM-cost-flops.png``, ``STEM-cost-time.png`` and ``STEM-cost.json``.
    """
    points: Points = defaultdict(list)

    def add(curve: str, name: str, reading: Reading, rate: float) -> None:
        cost = {"mflop": reading.flops / 1e6, "milliseconds": 1000 / rate}
        points[curve].append({"name": name, **cost, "test_error": reading.error})

    shown = [name for name in runs.folders if name not in IN_NO_CURVE]
    for name in shown:
        if name not in TRUNKS:
            looks = name in runs.protocol.looks or runs.protocol.systems[name].program == ONE_LOOK
            kind = LOOK if looks else LEARNED
            add(kind, name, runs.read(name), runs.images_per_second(name))
            continue
        for steps in range(1, runs.protocol.max_glimpses + 1):
            rate = runs.images_per_second(name, FixedStop(steps), steps)
            add("RAM, fixed number", f"{name} {steps}", runs.read(name, steps=steps), rate)
        for p in CURVE_CONFIDENCES:
            rate = runs.images_per_second(name, ConfidenceStop(p))
            add("RAM, stop by confidence", f"{name} > {p:g}", runs.read(name, threshold=p), rate)
    if not points:
        return []
    runs.write_json("-cost.json", shown, points=points)
    return [
        _plot(runs, points, axis, f"-cost-{cost}.png", [LOOK, LEARNED], joined=False)
        for cost, axis in COSTS.items()
    ]


def _plot(
    runs: FinishedRuns,
    points: Points,
    axis: tuple[str, str],
    ending: str,
    labelled: Sequence[str],
    joined: bool,
) -> Path:
    """Draws curves against the value and label of an axis; points of some curves have names."""
    folder = next(iter(runs.folders.values()))
    title = f"{runs.reader.task(folder).dataset}, {runs.protocol.name}, {folder.name}"
    key, label = axis
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    style: dict[str, Any] = {"markersize": 4, "linewidth": 1, "linestyle": "-" if joined else ""}
    for (curve, rows), marker in zip(points.items(), "os^D", strict=False):
        rows = sorted(rows, key=lambda row: row[key])
        x, y = [row[key] for row in rows], [row["test_error"] for row in rows]
        axes.plot(x, y, marker=marker, label=curve, **style)
        for row in rows if curve in labelled else ():
            if joined or not row["name"].startswith("discount-"):  # they have their own curve
                place = (row[key], row["test_error"])
                axes.annotate(row["name"], place, (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel=label, ylabel="test error %")
    scale_errors(axes, [row["test_error"] for rows in points.values() for row in rows])
    set_title(axes, title)
    axes.set_xscale("linear" if joined else "log")
    axes.tick_params(which="minor", labelsize=6)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    save_figure(figure, runs.path(ending))
    return runs.path(ending)

"""Error against cost, drawn from the records of the tables: `train/reproduce.py curves`."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from train.common.files import save_figure
from train.common.run_page import log_scale
from train.paper.read_runs import Record, records_of
from train.paper.systems import TRUNKS, Protocol
from train.paper.tables import Line

matplotlib.use("Agg")

FILE = "curves.png"
TABLES = ("table2", "clutter", "scenes", "table3", "table4", "table6")
"""Tables whose systems are shown; a table of photographs only where they are."""


class Point(NamedTuple):
    """A system, or a trunk after a number of glimpses, with all its seeds."""

    curve: str
    mflop: float  # mean of an image
    error: float  # test error, %, mean of seeds
    spread: float  # standard deviation over seeds; 0 of one


def points_of(protocol: Protocol, lines: Iterable[Line], records: list[Record]) -> list[Point]:
    """A protocol's points; lines without records have none."""
    found = []
    for line in lines:
        if line.protocol == protocol and line.system and (mine := records_of(line, records)):
            errors = [record["error"] for record in mine]
            mflop = float(np.mean([record["flops"] for record in mine])) / 1e6
            spread = float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0
            found.append(Point(curve_of(line), mflop, float(np.mean(errors)), spread))
    return sorted(dict.fromkeys(found))


def curve_of(line: Line) -> str:
    """The curve on which a line of a table lies."""
    system = line.protocol.systems[line.system]
    network = TRUNKS.get(system.trunk or line.system, "").replace(" (ours)", "")
    if line.published.steps is not None:
        return f"RAM{network}"
    if line.published.threshold is not None:
        return "RAM, stopped by confidence"
    if line.system.startswith(("act", "sact")):
        return "ACT, SACT"
    if line.system in line.protocol.looks:
        return "one look" + ", by side of the image" * line.system[-1].isdecimal()
    named = {"talk": "DT-RAM, the talk's algorithm", "original": "DT-RAM, the talk's code"}
    return named.get(line.system.partition("-")[0], f"DT-RAM{network}")


def draw(lines: Sequence[Line], records: list[Record], folder: Path) -> list[Path]:
    """Writes `FILE`, a panel for each protocol that has records; nothing without any."""
    protocols = {line.protocol.name: line.protocol for line in lines}.values()
    panels = {p.name: found for p in protocols if (found := points_of(p, lines, records))}
    if not panels:
        return []
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.3 * rows + 0.6), layout="constrained")
    curves = sorted({point.curve for points in panels.values() for point in points})
    styles = {curve: (f"C{k % 10}", "os^DvPX<>*h"[k % 11]) for k, curve in enumerate(curves)}
    shown: dict[str, Any] = {}
    for place, (name, points) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for curve, group in groupby(points, lambda point: point.curve):
            _, x, y, spread = zip(*group, strict=True)
            colour, marker = styles[curve]
            line = "-" if curve.startswith("RAM") or "by side" in curve else ""
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line}
            shown[curve] = axes.errorbar(x, y, spread, markersize=5, linewidth=0.8, **style)
        axes.set(title=name, xlabel="MFLOP an image", ylabel="test error %")
        log_scale(axes, [point.mflop for point in points], "x")
        log_scale(axes, [point.error for point in points])
        axes.grid(alpha=0.3)
    figure.legend([shown[curve] for curve in curves], curves, loc="outside lower center", ncols=4)
    save_figure(figure, folder / FILE)
    return [folder / FILE]

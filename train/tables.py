"""The talk's tables with our figures: what each line is, how it is read, how it is written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.cost import mean_flops
from agents.loading import load_agent
from agents.rollout import Scores, score
from agents.stopping import ConfidenceStop, FixedStop
from dtram_env import datasets
from dtram_env.datasets import cars, cub

from . import systems, talk
from .readings import Answered, answers
from .run import read_json, read_tensors
from .systems import Protocol
from .talk import Published
from .task import Task

CLAIM_SEEDS = 3
"""Runs of each system in a row of a claim; other rows have one."""
CLAIMED = ("dtram", *systems.TRUNKS, *(name for each in systems.BUDGETS.values() for name in each))


class Line(NamedTuple):
    """A line of a table, before anything is run."""

    published: Published
    protocol: Protocol
    system: str = ""  # of the protocol; "" if it is cited only
    label: str = ""  # if not the published one

    @property
    def name(self) -> str:
        return self.label or self.published.label


class Table(NamedTuple):
    """A table to be made: its lines, and whether the talk's figures may stand beside ours."""

    key: str
    title: str
    measure: str  # "error" or "accuracy"
    lines: tuple[Line, ...]
    comparable: bool


def table(key: str, drawn: Protocol | None = None) -> Table:
    """A table of the talk.

    Args:
        key: "table2" to "table9".
        drawn: of this setting on drawn images, rather than of photographs; MNIST is always real.
    """
    if key == "table2":
        lines = [Line(p, systems.MNIST, p.system) for p in talk.TABLE_2]
        extra = Published(f"DT-RAM at <= {systems.BOUNDS[0]}", None)
        lines.append(Line(extra, systems.MNIST, "dtram-0"))
        lines.append(Line(Published("RAM with ACT", None), systems.MNIST, "act"))
        for trunk, ours in systems.TRUNKS.items():
            if not ours:
                continue
            rows = [p for p in talk.TABLE_2 if p.system == "ram"]
            lines += [
                Line(row._replace(value=None, system=trunk), systems.MNIST, trunk, row.label + ours)
                for row in rows
            ]
            lines += [
                Line(Published(f"DT-RAM at <= {bound}{ours}", None), systems.MNIST, name)
                for name, bound in systems.BUDGETS[trunk].items()
            ]
        return Table(key, talk.TITLES[key], "error", tuple(lines), comparable=True)
    protocol = drawn or _protocol(key)
    lines = {
        "table3": lambda: _comparison(talk.TABLE_3, protocol),
        "table4": lambda: _comparison(talk.TABLE_4, protocol),
        "table5": lambda: _resolution(drawn),
        "table6": lambda: _comparison(talk.TABLE_6, protocol),
        "table7": lambda: _comparison(talk.TABLE_7, protocol),
        "table8": lambda: _by_steps(talk.TABLE_8, ("ram-no-curriculum", "ram"), protocol),
        "table9": lambda: _by_steps(talk.TABLE_9, ("ram-last", "ram"), protocol),
    }[key]()
    title = talk.TITLES[key]
    if drawn is not None:  # no drawn image's figure stands under a photograph's name
        number = key.removeprefix("table")
        title = f"The systems of the talk's Table {number}, accuracy on drawn birds."
    return Table(key, title, "accuracy", tuple(lines), comparable=drawn is None)


CURVES = (
    "fc",
    "conv",
    "one-look",
    "one-look-full",
    *CLAIMED,
    *(f"discount-{g:g}" for g in systems.DISCOUNTS),
    "act",
    "one-look-like",
    "one-look-resnet",
    "act-resnet",
    "sact-resnet",
)
"""Systems that the curves show, where a protocol has them."""


def named(protocol: Protocol, system: str) -> Line:
    """A system as a line by itself."""
    return Line(Published(system, None), protocol, system)


def statistics(data_dir: Path | None) -> list[dict[str, Any]]:
    """Table 1 from the datasets as they are read here, for those that are on the machine."""
    rows = []
    for name, key in (("MNIST", "mnist"), ("CUB-200-2011", "cub"), ("Stanford Cars", "cars")):
        classes, train, test, boxes = talk.TABLE_1[name]
        counts = {"classes": classes, "train": train, "test": test, "boxes": boxes}
        row: dict[str, Any] = {"system": name, **{f"published_{k}": v for k, v in counts.items()}}
        if datasets.is_ready(key, data_dir):
            row |= _counted(key, data_dir)
        rows.append(row)
    return rows


def _counted(key: str, data_dir: Path | None) -> dict[str, Any]:
    """Counts of a dataset that is on the machine, from its lists; no photograph is decoded."""
    if key == "mnist":
        train, test = (
            datasets.load(key, s, data_dir=data_dir) for s in ("train+validation", "test")
        )
        found = {"classes": test.num_classes, "train": len(train), "test": len(test)}
        return {**found, "boxes": False}
    listing = {"cub": cub, "cars": cars}[key].listing
    folder = datasets.data_root(data_dir) / key
    of_train, of_test = (listing(folder, part) for part in ("train", "test"))
    return {
        "classes": len(of_test.class_names),
        "train": len(of_train.paths),
        "test": len(of_test.paths),
        "boxes": of_test.boxes is not None,
    }


def _protocol(key: str) -> Protocol:
    """The talk's setting of a table of photographs."""
    return {"table3": systems.CUB_LARGE, "table4": systems.CARS_LARGE}.get(key, systems.CUB_MEDIUM)


def _comparison(rows: Sequence[Published], protocol: Protocol) -> list[Line]:
    """Rows of systems; fixed numbers beyond the budget are left out, as are other people's."""
    real = protocol not in systems.DRAWN
    lines = []
    for row in rows:
        if row.steps is not None and row.steps > protocol.max_glimpses:
            continue
        if not row.system and not real:
            continue
        label = "One look" if row.system == "one-look" and not real else ""
        lines.append(Line(row, protocol, row.system, label))
    halting = (
        ("act", "RAM with ACT"),
        ("one-look-resnet", "One look, ResNet"),  # of photographs the one look is a ResNet's
        ("act-resnet", "ResNet with ACT"),
        ("sact-resnet", "ResNet with SACT"),
    )
    found = [(key, name) for key, name in halting if key in protocol.systems]
    return [*lines, *(Line(Published(name, None), protocol, key) for key, name in found)]


def _by_steps(
    rows: Mapping[str, Sequence[float]], names: tuple[str, str], protocol: Protocol
) -> list[Line]:
    """Two runs of RAM, by number of glimpses, from the first stage of the curriculum's on.

    Without a curriculum there is one network, read early; with one, that of each stage.
    """
    lines = []
    first = protocol.systems["ram"].options["curriculum"][0]
    for (how, values), system in zip(rows.items(), names, strict=True):
        for steps in range(first, protocol.max_glimpses + 1):
            value = values[steps - 1] if steps <= len(values) else None
            label = f"{how}, {steps} glimpse{'s' * (steps > 1)}"
            lines.append(Line(Published(label, value, steps, steps=steps), protocol, system))
    return lines


def _resolution(drawn: Protocol | None) -> list[Line]:
    """Resolution of the first look by depth; on drawn birds the sides of one look."""
    if drawn is not None:
        sides = {"one-look": "first look alone", "one-look-full": "one look, full resolution"}
        lines = [
            Line(Published(label, None), drawn, system)
            for system, label in sides.items()
            if system in drawn.systems
        ]
        return [*lines, Line(Published("RAM, 3 glimpses", None, 3, steps=3), drawn, "ram")]
    lines = []
    names = ("ResNet-34", "RAM-34", "ResNet-50", "RAM-50")
    for first, values in talk.TABLE_5.items():
        for name, value in zip(names, values, strict=True):
            if value is None:
                continue
            large, deep = first == 448, name.endswith("50")
            protocol = systems.CUB_LARGE if large else systems.CUB_MEDIUM
            if deep and not large:
                protocol = systems.CUB_MEDIUM_DEEP
            ram = name.startswith("RAM")
            steps = protocol.max_glimpses if ram else None
            published = Published(f"{name}, {first}x{first}", value, steps=steps)
            lines.append(Line(published, protocol, "ram" if ram else "one-look"))
    return lines


# -- reading ---------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What a run says for a line, on the test split."""

    answered: Answered
    flops: float  # an image, on average
    folder: Path


class Reader:
    """Reads finished runs; a network is run over the test split once.

    Args:
        device: where.
        data_dir: where data lies, if not at its usual place.
    """

    def __init__(self, device: torch.device, data_dir: Path | None = None) -> None:
        self._device, self._data_dir = device, data_dir
        self._scores = cache(self._score)
        self._task = cache(self._make_task)

    def read(self, line: Line, folder: Path) -> Reading:
        """What a line's run says.

        Raises:
            ValueError: the run's files are damaged.
        """
        results = read_json(folder / "results.json")
        task = self.task(folder)
        if "side" in results:  # a one-look network's
            prediction = read_tensors(folder / "test_images.safetensors")["prediction"]
            right = (prediction == task.images("test").labels.cpu()).numpy()
            one = np.ones(len(right), dtype=np.int64)
            return Reading(Answered(right, one), float(results["flops"]), folder)
        steps, threshold = line.published.steps, line.published.threshold
        stage = folder / "stages" / f"trunk-{steps}"
        trained = stage if steps is not None and stage.exists() else folder
        agent = load_agent(trained, self._device)
        rule: Any = agent.stopping
        if steps is not None:
            rule = FixedStop(steps)
        elif threshold is not None:
            rule = ConfidenceStop(threshold)
        answered = answers(self.scores(trained, folder), rule)
        return Reading(answered, mean_flops(agent, float(answered.glimpses.mean())), folder)

    def scores(self, trained: Path, folder: Path) -> Scores:
        """A network's pass over the test split; `folder` is its run's."""
        return self._scores(trained, folder)

    def task(self, folder: Path) -> Task:
        """The task of a finished run."""
        results = read_json(folder / "results.json")
        options = tuple(sorted(results["env_options"].items()))
        return self._task(results["env_id"], options)

    def _make_task(self, env_id: str, options: tuple[tuple[str, Any], ...]) -> Task:
        places = {} if self._data_dir is None else {"data_dir": str(self._data_dir)}
        return Task(env_id, self._device, **dict(options), **places)

    def _score(self, trained: Path, folder: Path) -> Scores:
        task, agent = self.task(folder), load_agent(trained, self._device)
        test = task.images("test")
        size = min(1000, task.scored_at_once)
        return score(agent, task.look, test.store, test.labels, size)


# -- writing ---------------------------------------------------------------------------------------


def row(made: Table, line: Line, readings: Sequence[Reading]) -> dict[str, Any]:
    """A line of the written table, as values; of a system that is cited only, its citation."""
    out: dict[str, Any] = {"system": line.name}
    published = line.published
    if made.comparable:
        out["published"] = published.value
        if published.with_box is not None:
            out["published_with_box"] = published.with_box
        out["published_glimpses"] = published.glimpses
    if not readings:
        return out
    right = [float(r.answered.right.mean()) for r in readings]
    values = [100 * (1 - share if made.measure == "error" else share) for share in right]
    glimpses = [float(r.answered.glimpses.mean()) for r in readings]
    out |= {
        "ours": round(float(np.mean(values)), 4),
        "spread": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
        "glimpses": round(float(np.mean(glimpses)), 4),
        "flops": round(float(np.mean([r.flops for r in readings]))),
        "seeds": len(values),
        "values": [round(value, 4) for value in values],
        "runs": [str(r.folder) for r in readings],
    }
    if made.comparable and published.value is not None:
        out["difference"] = round(out["ours"] - published.value, 4)
    return out


COLUMNS = {
    "system": "system",
    "published_classes": "published: classes",
    "published_train": "training images",
    "published_test": "test images",
    "published_boxes": "boxes",
    "classes": "here: classes",
    "train": "training images",
    "test": "test images",
    "boxes": "boxes",
    "published": "published %",
    "published_with_box": "published, with box %",
    "published_glimpses": "at glimpses",
    "ours": "ours %",
    "difference": "difference",
    "glimpses": "mean glimpses",
    "flops": "MFLOP",
    "seeds": "seeds",
}


def markdown(title: str, data: str, rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """A table as Markdown; `data` names what it was measured on."""
    shown = [key for key in COLUMNS if any(one.get(key) is not None for one in rows)]
    out = io.StringIO()
    print(f"# {title}\n\nMeasured on {data}.\n", file=out)
    print("| " + " | ".join(COLUMNS[key] for key in shown) + " |", file=out)
    print("|---|" + "---:|" * (len(shown) - 1), file=out)
    for one in rows:
        print("| " + " | ".join(_cell(one, key) for key in shown) + " |", file=out)
    print(f"\n{NOTES}\n\nMade by `{command}`.", file=out)
    return out.getvalue()


NOTES = (
    "Ours: one deterministic pass over the whole test split; weights and stop thresholds are "
    "chosen on validation images. ± is the standard deviation over seeds, where there are several. "
    "FLOPs count a multiply-add as two. Rows without figures of ours are cited."
)


def _cell(one: Mapping[str, Any], key: str) -> str:
    value = one.get(key)
    if value is None:
        return ""
    if key == "ours":
        spread = one.get("spread")
        return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
    if key == "difference":
        return f"{value:+.2f}"
    if key == "glimpses":
        return f"{value:.2f}"
    if key == "flops":
        return f"{value / 1e6:.2f}"
    return str(value)


def needed(lines: Iterable[Line]) -> list[tuple[Protocol, str]]:
    """The systems to be trained for some lines, each once, in an order that can be followed."""
    pairs = [
        (line.protocol, name)
        for line in lines
        if line.system
        for name in line.protocol.needed(line.system)
    ]
    return list({(protocol.name, name): (protocol, name) for protocol, name in pairs}.values())

"""The talk's tables: the system of each line, and the published figure beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dtram_env import datasets
from dtram_env.datasets.sources import cars, cub
from train.paper import published, systems
from train.paper.published import Published
from train.paper.systems import Protocol

CLAIM_SEEDS = 3
"""Runs of each system of `SEVERAL_SEEDS`; others have one."""
CLAIMED = (
    "dtram",
    "dtram-2",
    "dtram-conv-2",
    *systems.TRUNKS,
    *(name for each in systems.BUDGETS.values() for name in each),
)
"""Systems about which something is claimed."""
SEVERAL_SEEDS = (*CLAIMED, "act")
IN_NO_CURVE = (
    "ram-no-curriculum",
    "ram-last",
    "one-look-resnet-32",
    "one-look-resnet18",
    "one-look-resnet18-32",
)
"""Systems that the curves do not show."""


class Line(NamedTuple):
    """A line of a table."""

    published: Published  # its figure, and how the system stops for it
    protocol: Protocol
    system: str = ""  # one of the protocol's; empty for a line that is only cited
    label: str = ""  # in place of the published one
    beside: str = ""  # system that it is compared with, both on seed 0

    @property
    def name(self) -> str:
        return self.label or self.published.label


class Table(NamedTuple):
    """A table of the talk."""

    key: str  # as in "table2"
    title: str
    measure: str  # "error" or "accuracy"
    lines: tuple[Line, ...]
    comparable: bool  # whether it is measured on the published figures' dataset
    note: str = ""  # what a reader must know about the lines


NOTES = {
    "table2": "RAM and DT-RAM without a further word are the paper's network (8x8 glimpses of one "
    "scale, MLP encoder, recurrent network of 256 units, Gaussian locations), trained by our "
    "recipe. Our RAM is one network, trained to answer after each of 7 glimpses and stopped after "
    "fewer. RAM's published figures are from the RAM paper, with one network for each number of "
    "glimpses; the talk cites those of 2, 4, 5 and 7. DT-RAM-1 and DT-RAM-2 differ in discount, "
    "0.98 and 0.999; their bounds on validation's mean glimpses are 3.6 and 4.5. The other DT-RAMs "
    "have a discount of 0.98 unless their label names another. RAM with ACT learns its halting "
    "alone, on RAM's trunk; its ponder cost was not searched.",
    "table8": "Both on seed 0. Without a curriculum one network learns with the whole budget, for "
    "as many glimpses in all as the stages take together, and is stopped after fewer. With one, "
    "each number of glimpses has the network of its own stage.",
    "table9": "Both on seed 0.",
    "clutter": "The RAM paper's tasks: 12x12 glimpses in 3 scales (in 4 on 100 pixels), a budget "
    "of 8. Training images are composed anew in each epoch, as the paper does. DT-RAM has a map; "
    "RAM is the same network, stopped after a fixed number of glimpses. The whole image is read by "
    "the network of 6 layers that reads DT-RAM's map. Published, other version: another "
    "implementation of RAM, and its convolutional network. The figures of DRAW and of 3 and 6 "
    "layers are from their own papers.",
    "scenes": "The birds have the same size in pixels in every scene, and lie anywhere. All "
    "networks are one ResNet-18 of an eighth of the width. At 128 pixels they start from one that "
    "learned to look once at these images in 16 epochs, the line of 128x128. In scenes they start "
    "from that network after 12 more epochs of one look at scenes of 256 pixels. One look then "
    "learns at each side for 12 epochs, after which its training error is under 1 % at full size; "
    "DT-RAM learns for 40 epochs, at 128 pixels for 24. It sees a thumbnail of 64 pixels, then "
    "crops of 64 pixels, within a budget of 6; in images of 128 pixels a thumbnail of 32 pixels, "
    "the same crops and a budget of 3. RAM is the same network, stopped after a fixed number of "
    "glimpses. There are 10,000 test images of 256 and 512 pixels each, and 2,000 of the other "
    "sides.",
}
GLIMPSE_ONLY_NOTE = (
    "Without intermediate supervision only the last answer is learned. The classification of each "
    "later glimpse by itself is learned in both, because no part is found otherwise."
)


def table(key: str, drawn: Protocol | None = None) -> Table:
    """Tables 2 (always MNIST) to 9; `drawn`: protocol on drawn images in place of photographs."""
    title, note = published.TITLES[key], NOTES.get(key, "")
    one_dataset = {"table2": _mnist, "clutter": _anywhere, "scenes": _large_scenes}
    if key in one_dataset:
        return Table(key, title, "error", tuple(one_dataset[key]()), True, note)
    photographs = {"table3": systems.CUB_LARGE, "table4": systems.CARS_LARGE}
    protocol = drawn or photographs.get(key, systems.CUB_MEDIUM)
    if key == "table5":
        lines = _resolution_of_photographs() if drawn is None else _resolution_of_drawn(drawn)
    elif key == "table8":
        lines = _by_steps(published.TABLE_8, ("ram-no-curriculum", "ram"), protocol)
    elif key == "table9":
        lines = _by_steps(published.TABLE_9, ("ram-last", "ram"), protocol)
    else:
        lines = _comparison(published.COMPARISONS[key], protocol)
    if drawn is not None:  # no figure of drawn images stands under a photograph's name
        if key == "table6" and drawn is systems.BIRDS:
            lines = [*lines, *_budget_of_four()]
        if key == "table9" and drawn.systems["ram"].option("glimpse_only"):
            note = f"{note} {GLIMPSE_ONLY_NOTE}"
        kind = "autos" if drawn is systems.AUTOS_LARGE else "birds"
        small = "small " * (drawn is systems.BIRDS)
        number = key.removeprefix("table")
        title = f"The systems of the talk's Table {number}, accuracy on {small}drawn {kind}."
    return Table(key, title, "accuracy", tuple(lines), drawn is None, note)


def line_of(protocol: Protocol, system: str, label: str = "", **stop: Any) -> Line:
    """A line of ours, stopped by its own rule, or after `steps`, or at a confidence `threshold`."""
    return Line(Published(label or system, None, **stop), protocol, system)


def label_of(protocol: Protocol, system: str) -> str:
    """The name of a DT-RAM in a list of several."""
    if protocol in systems.SCENES:
        return f"DT-RAM, {_pixels(protocol)}"
    if protocol is not systems.MNIST:
        return f"DT-RAM, budget of {protocol.max_glimpses}"
    made = protocol.systems[system]
    trunk = made.trunk or ""
    network = systems.TRUNKS.get(trunk) or ", the paper's network"
    bound = systems.BUDGETS.get(trunk, {}).get(system)
    if bound is not None:
        return f"DT-RAM at <= {bound}{network}"
    return f"DT-RAM, discount {made.options['discount']:g}{network}"


# -- lines -----------------------------------------------------------------------------------------


def _mnist() -> list[Line]:
    """Table 2: the published systems, then our networks."""
    protocol, ram = systems.MNIST, [p for p in published.TABLE_2 if p.system == "ram"]
    lines = [Line(p, protocol, p.system) for p in published.TABLE_2]
    lines.append(line_of(protocol, "dtram-0", f"DT-RAM at <= {systems.BOUNDS[0]}"))
    lines.append(line_of(protocol, "act", "RAM with ACT"))
    for trunk, network in systems.TRUNKS.items():
        if network:
            lines += [line_of(protocol, trunk, p.label + network, steps=p.steps) for p in ram]
            for name, bound in systems.BUDGETS[trunk].items():
                lines.append(line_of(protocol, name, f"DT-RAM at <= {bound}{network}"))
    second = f"DT-RAM, discount 0.999{systems.TRUNKS['ram-conv']}"
    return [*lines, line_of(protocol, "dtram-conv-2", second)]


def _anywhere() -> list[Line]:
    """The RAM paper's tasks: the published systems, and one look by the network of DT-RAM's map."""
    rows = (published.TRANSLATED, published.CLUTTERED, published.CLUTTERED_100)
    lines = []
    for of_task, protocol in zip(rows, systems.ANYWHERE, strict=True):
        task = of_task[0].label.partition(":")[0]
        lines += [Line(row, protocol, row.system) for row in of_task]
        lines.append(
            line_of(protocol, "one-look", f"{task}: the whole image, read as DT-RAM's map")
        )
    return lines


def _pixels(scenes: Protocol) -> str:
    """The side of a protocol's scenes."""
    return f"{scenes.name.removeprefix('scenes-')} pixels"


def _large_scenes() -> list[Line]:
    """Birds in large scenes: one look at each side, RAM and DT-RAM."""
    lines = []
    for protocol in systems.SCENES:
        scene = _pixels(protocol)
        for system in protocol.systems:
            if system.startswith("one-look-"):
                side = system.removeprefix("one-look-")
                lines.append(line_of(protocol, system, f"{scene}: one look at {side}x{side}"))
        for steps in range(2, protocol.max_glimpses + 1):
            lines.append(line_of(protocol, "ram", f"{scene}: RAM, {steps} glimpses", steps=steps))
        lines.append(line_of(protocol, "dtram", f"{scene}: DT-RAM"))
    return lines


def _comparison(rows: Sequence[Published], protocol: Protocol) -> list[Line]:
    """Systems side by side. Drawn images have no lines that are only cited."""
    drawn = protocol in systems.DRAWN
    lines = [
        Line(row, protocol, row.system, "One look" * (drawn and row.system == "one-look"))
        for row in rows
        if (row.steps or 0) <= protocol.max_glimpses and (row.system or not drawn)
    ]
    halting = {
        "act": "RAM with ACT",
        "one-look-resnet": "One look, ResNet",  # the one look of photographs is a ResNet's already
        "act-resnet": "ResNet with ACT",
        "sact-resnet": "ResNet with SACT",
    }
    more = [line_of(protocol, s, label) for s, label in halting.items() if s in protocol.systems]
    return lines + more


def _budget_of_four() -> list[Line]:
    """Small drawn birds with one glimpse more in the budget."""
    ram, protocol = "RAM, {} glimpses, budget of 4", systems.BIRDS_4
    fixed = [line_of(protocol, "ram", ram.format(t), steps=t) for t in (2, 3, 4)]
    return [*fixed, line_of(protocol, "dtram", "DT-RAM, budget of 4")]


def _by_steps(
    rows: Mapping[str, Sequence[float]], names: tuple[str, str], protocol: Protocol
) -> list[Line]:
    """Two ways to train RAM, by number of glimpses, from the curriculum's first stage on."""
    lines = []
    first = protocol.systems["ram"].option("curriculum")[0]
    for (how, values), system, other in zip(rows.items(), names, names[::-1], strict=True):
        for steps in range(first, protocol.max_glimpses + 1):
            label = f"{how}, {steps} glimpse{'s' * (steps > 1)}"
            row = Published(label, values[steps - 1], steps, steps=steps)
            lines.append(Line(row, protocol, system, beside=other))
    return lines


def _resolution_of_drawn(protocol: Protocol) -> list[Line]:
    """Table 5 on drawn images: one look at several resolutions and depths, and RAM."""
    looks = {
        "one-look": "first look alone",
        "one-look-full": "one look, full resolution",
        "one-look-resnet18-32": "ResNet-18, 32x32",
        "one-look-resnet-32": "ResNet-34, 32x32",
        "one-look-resnet18": "ResNet-18, 128x128",
        "one-look-resnet": "ResNet-34, 128x128",
    }
    lines = [line_of(protocol, s, label) for s, label in looks.items() if s in protocol.systems]
    budget = protocol.max_glimpses
    return [*lines, line_of(protocol, "ram", f"RAM, {budget} glimpses", steps=budget)]


def _resolution_of_photographs() -> list[Line]:
    """Table 5: resolution of the first look by depth of the network."""
    lines = []
    protocols = (systems.CUB_MEDIUM, systems.CUB_MEDIUM_DEEP, systems.CUB_LARGE)
    for (setting, (look, ram)), protocol in zip(published.TABLE_5.items(), protocols, strict=True):
        lines.append(Line(Published(f"ResNet-{setting}", look), protocol, "one-look"))
        row = Published(f"RAM-{setting}", ram, steps=protocol.max_glimpses)
        lines.append(Line(row, protocol, "ram"))
    return lines


# -- table 1 ---------------------------------------------------------------------------------------


def statistics(data_dir: Path | None) -> list[dict[str, Any]]:
    """Table 1: published counts, and ours for the datasets that are on this machine."""
    rows = []
    keys, names = ("mnist", "cub", "cars"), ("classes", "train", "test", "boxes")
    for key, (system, counts) in zip(keys, published.TABLE_1.items(), strict=True):
        row: dict[str, Any] = {"system": system}
        row |= {f"published_{name}": count for name, count in zip(names, counts, strict=True)}
        if datasets.is_ready(key, data_dir):
            row |= dict(zip(names, _counts(key, data_dir), strict=True))
        rows.append(row)
    return rows


def _counts(key: str, data_dir: Path | None) -> tuple[int, int, int, bool]:
    """Classes, training and test images, and whether boxes are known; decodes no photograph."""
    if key == "mnist":
        splits = ("train+validation", "test")
        train, test = (datasets.load(key, split, data_dir=data_dir) for split in splits)
        return test.num_classes, len(train), len(test), False
    listing, folder = {"cub": cub, "cars": cars}[key].listing, datasets.data_root(data_dir) / key
    of_train, of_test = (listing(folder, part) for part in ("train", "test"))
    boxes = of_test.boxes is not None
    return len(of_test.class_names), len(of_train.paths), len(of_test.paths), boxes

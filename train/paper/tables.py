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
    *systems.TRUNKS,
    *(name for each in systems.STOP_BOUNDS.values() for name in each),
)
"""Systems about which something is claimed."""
SEVERAL_SEEDS = (*CLAIMED, "act", "act-0.01", "talk-1", "talk-2", "original-1", "original-2")
HALTING = {
    "act": "RAM with ACT",
    "act-resnet": "ResNet with ACT",
    "sact-resnet": "ResNet with SACT",
}
"""Systems with adaptive computation time."""


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
    "glimpses; the talk cites those of 2, 4, 5 and 7. DT-RAM-1 and DT-RAM-2 have the discounts "
    "0.98 and 0.99; the talk does not give its own. The talk's algorithm and its code (recipes "
    "talk and original) learn without augmentation. The first is bound to 3.6 and 5.2 mean "
    "glimpses on validation, the second stops at p > 0.9. The other DT-RAMs are ours, with a "
    "discount of 0.98 and affine augmentation; for the map digits are bent, too, and unchanged in "
    "the last tenth of the epochs. RAM with ACT learns its halting alone, on RAM's "
    "trunk; its ponder cost was not searched.",
    "table8": "Both on seed 0. Without a curriculum one network learns with the whole budget, for "
    "about as many glimpses in all as the stages take together, and is stopped after fewer. With "
    "one, each number of glimpses has the network of its own stage.",
    "table9": "Both on seed 0.",
    "clutter": "The RAM paper's tasks: 12x12 glimpses in 3 scales (in 4 on 100 pixels), a budget "
    "of 8. Training images are composed anew in each epoch, as the paper does. DT-RAM has a map; "
    "RAM is the same network, stopped after a fixed number of glimpses. The whole image is read by "
    "the network of 6 layers that reads DT-RAM's map. All learn for 16 epochs, the "
    "last 4 of them on digits that are not changed. Published, other version: another "
    "implementation of RAM, and its convolutional network. The figures of DRAW and of 3 and 6 "
    "layers are from their own papers.",
    "scenes": "The birds have the same size in pixels in every scene, and lie anywhere. All "
    "networks are one ResNet-18 of an eighth of the width. At 128 pixels they start from the "
    "shipped network that learned to look once at these images in 16 epochs, by the command of the "
    "line of 128x128. In scenes they start from that network after 12 more epochs of one look at "
    "scenes of 256 pixels. One look then "
    "learns at each side for 12 epochs, after which its training error is under 1 % at full size; "
    "DT-RAM learns for 24 epochs at 128 pixels, for 40 at 256 (a run from before its recipe had "
    "80), for 80 at 512. It sees a thumbnail of 64 pixels, then "
    "crops of 64 pixels, within a budget of 6; in images of 128 pixels a thumbnail of 32 pixels, "
    "the same crops and a budget of 3. RAM is the same network, stopped after a fixed number of "
    "glimpses. There are 10,000 test images of 256 and 512 pixels each, and 2,000 of the other "
    "sides.",
}


SMALL_BIRDS_NOTES = {
    "table6": "A thumbnail of 32 pixels, then crops of 64. RAM and the looks at 32x32 and 64x64 "
    "start from a network that looked once at 128x128. That one and the ResNets with ACT and SACT "
    "learned from random weights.",
    "table9": "Both on seed 0. Without intermediate supervision locations are still rewarded by "
    "the drop in cross-entropy after each glimpse.",
}
"""Notes of the tables of small drawn birds."""


def table(key: str, drawn: bool = False) -> Table:
    """Tables 2 (always MNIST) to 9; `drawn`: of small drawn birds in place of photographs."""
    title, note = published.TITLES[key], NOTES.get(key, "")
    one_dataset = {"table2": _mnist, "clutter": _anywhere, "scenes": _large_scenes}
    if key in one_dataset:
        return Table(key, title, "error", tuple(one_dataset[key]()), True, note)
    photographs = {"table3": systems.CUB_LARGE, "table4": systems.CARS_LARGE}
    protocol = systems.BIRDS if drawn else photographs.get(key, systems.CUB_MEDIUM)
    if key == "table5":
        lines = _resolution()
    elif key == "table6" and drawn:
        lines = _small_birds()
    elif key == "table8":
        names = ("ram", "ram-curriculum") if drawn else ("ram-no-curriculum", "ram")
        lines = _by_steps(published.TABLE_8, names, protocol)
    elif key == "table9":
        lines = _by_steps(published.TABLE_9, ("ram-last", "ram"), protocol)
    else:
        lines = _comparison(published.COMPARISONS[key], protocol)
    if drawn:  # no figure of drawn images stands under a photograph's name
        number, note = key.removeprefix("table"), SMALL_BIRDS_NOTES.get(key, note)
        title = f"The systems of the talk's Table {number}, accuracy on small drawn birds."
    return Table(key, title, "accuracy", tuple(lines), not drawn, note)


def line_of(protocol: Protocol, system: str, label: str = "", **stop: Any) -> Line:
    """A line of ours, stopped by its own rule, or after `steps`, or at a confidence `threshold`."""
    return Line(Published(label or system, None, **stop), protocol, system)


def label_of(protocol: Protocol, system: str) -> str:
    """The name of a DT-RAM in a list of several."""
    if protocol in (systems.BIRDS, *systems.SCENES):
        return f"DT-RAM, {_pixels(protocol)}"
    if protocol is not systems.MNIST:
        return f"DT-RAM, budget of {protocol.max_glimpses}"
    trunk = protocol.systems[system].trunk or ""
    network = systems.TRUNKS.get(trunk) or ", the paper's network"
    return f"DT-RAM at <= {systems.STOP_BOUNDS[trunk][system]}{network}"


# -- lines -----------------------------------------------------------------------------------------


def _mnist() -> list[Line]:
    """Table 2: the published systems, then our networks."""
    protocol, ram = systems.MNIST, [p for p in published.TABLE_2 if p.system == "ram"]
    lines = [Line(p, protocol, p.system) for p in published.TABLE_2]
    for name, bound in systems.STOP_BOUNDS["ram"].items():
        lines.append(line_of(protocol, name, f"DT-RAM at <= {bound}, our recipe"))
    lines.append(line_of(protocol, "act-0.01", "RAM with ACT"))
    for trunk, network in systems.TRUNKS.items():
        if network:
            lines += [line_of(protocol, trunk, p.label + network, steps=p.steps) for p in ram]
            for name, bound in systems.STOP_BOUNDS[trunk].items():
                lines.append(line_of(protocol, name, f"DT-RAM at <= {bound}{network}"))
    return lines


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
    """The side of the images of small birds or of scenes."""
    return "128 pixels" if scenes is systems.BIRDS else f"{scenes.name.rpartition('-')[2]} pixels"


def _large_scenes() -> list[Line]:
    """Birds in large scenes: one look at each side, RAM and DT-RAM."""
    lines = []
    for protocol in (systems.BIRDS, *systems.SCENES):
        scene = f"{_pixels(protocol)}: "
        lines += [
            *_look_lines(protocol, f"{scene}one look"),
            *_glimpse_lines(protocol, f"{scene}RAM"),
        ]
        lines.append(line_of(protocol, "dtram", f"{scene}DT-RAM"))
    return lines


def _look_lines(protocol: Protocol, label: str) -> list[Line]:
    """One look at each side."""
    sides = [n.removeprefix("one-look-") for n in protocol.systems if n.startswith("one-look-")]
    return [line_of(protocol, f"one-look-{s}", f"{label} at {s}x{s}") for s in sides]


def _glimpse_lines(protocol: Protocol, label: str) -> list[Line]:
    """RAM by number of glimpses, from 2 on."""
    numbers = range(2, protocol.max_glimpses + 1)
    return [line_of(protocol, "ram", f"{label}, {t} glimpses", steps=t) for t in numbers]


def _small_birds() -> list[Line]:
    """Table 6 on small drawn birds."""
    protocol = systems.BIRDS
    lines = [*_look_lines(protocol, "One look"), *_glimpse_lines(protocol, "RAM")]
    return [*lines, line_of(protocol, "dtram", "DT-RAM"), *_halting_lines(protocol)]


def _halting_lines(protocol: Protocol) -> list[Line]:
    """The systems with adaptive computation time."""
    return [line_of(protocol, s, label) for s, label in HALTING.items() if s in protocol.systems]


def _comparison(rows: Sequence[Published], protocol: Protocol) -> list[Line]:
    """Systems side by side."""
    return [*(Line(row, protocol, row.system) for row in rows), *_halting_lines(protocol)]


def _by_steps(
    rows: Mapping[str, Sequence[float]], names: tuple[str, str], protocol: Protocol
) -> list[Line]:
    """Two ways to train RAM, by number of glimpses, from 1 or a curriculum's first stage on."""
    lines = []
    curricula = [protocol.systems[name].option("curriculum") for name in names]
    first = next((stages[0] for stages in curricula if stages), 1)
    for (how, values), system, other in zip(rows.items(), names, names[::-1], strict=True):
        for steps in range(first, protocol.max_glimpses + 1):
            label = f"{how}, {steps} glimpse{'s' * (steps > 1)}"
            row = Published(label, values[steps - 1], steps, steps=steps)
            lines.append(Line(row, protocol, system, beside=other))
    return lines


def _resolution() -> list[Line]:
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

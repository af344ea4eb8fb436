"""Lines of the tables: each names a system that can be trained, and the talk's own figure."""

import shlex
from pathlib import Path

import pytest

from dtram_env.files import write_json
from train import one_look, reinforce
from train.common.options import command_line, to_json
from train.paper import published as talk
from train.paper import systems, tables
from train.paper.systems import BIRDS, PROTOCOLS, RECIPES, Protocol
from train.reproduce import OF_PHOTOGRAPHS

KEYS = (*(f"table{n}" for n in range(2, 10)), "clutter", "scenes")
TABLES = [
    pytest.param(key, drawn, id=f"{key}-{'drawn' if drawn else 'real'}")
    for key in KEYS
    for drawn in (False, True)
    if not (drawn and key in OF_PHOTOGRAPHS)
]


@pytest.mark.parametrize(("key", "drawn"), TABLES)
def test_every_line_names_a_known_system(key: str, drawn: bool) -> None:
    made = tables.table(key, drawn)
    assert len({line.name for line in made.lines}) == len(made.lines)
    assert any(line.system for line in made.lines)
    for line in made.lines:
        assert not line.system or line.system in line.protocol.systems
        assert not line.beside or line.beside in line.protocol.systems
        steps = line.published.steps
        assert steps is None or 1 <= steps <= line.protocol.max_glimpses
    assert made.comparable == (not drawn or key in ("table2", "clutter", "scenes"))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_every_system_is_options_of_its_program(protocol: Protocol, tmp_path: Path) -> None:
    """And a run that its command has made is recognised."""
    for name, system in protocol.systems.items():
        run = protocol.run(tmp_path, name, 3)
        words = run.words()
        kind = {"reinforce.py": reinforce, "one_look.py": one_look}[system.program]
        options = command_line(kind.Options, None, RECIPES[system.program], words[2:])
        write_json(
            run.folder / "results.json",
            {"command": shlex.join(["python", run.program, *words[2:]])}
            | {"options": to_json(options)},
        )
        run.check_options()
        assert (options.env_id, options.seed, options.resume) == (protocol.env_id, 3, True)
        assert options.run_dir == run.folder == tmp_path / protocol.name / name / "seed-3"
        of_recipe = system.values.get("env", ())
        assert options.env == system.options.get("env", protocol.env or of_recipe)
        assert system.option("stop") in (None, getattr(options, "stop", None))
        if system.trunk is not None:
            assert options.trunk == protocol.folder(tmp_path, system.trunk, 3)


def test_drawn_images_stand_under_their_own_name() -> None:
    for key in {*KEYS[1:-2]} - {*OF_PHOTOGRAPHS}:
        made = tables.table(key, drawn=True)
        assert "drawn" in made.title and "CUB" not in made.title


def published(key: str) -> list[float]:
    return [line.published.value for line in tables.table(key).lines if line.published.value]


def test_published_figures_are_the_talks() -> None:
    """As its tables have them, from top to bottom, and RAM's on digits as its own paper does."""
    ram = [3.79, 1.51, 1.54, 1.34, 1.12, 1.07]
    assert published("table2") == [1.69, 1.21, *ram, 1.46, 1.46, 1.12, 1.12]
    clutter = [1.84, 7.83, 5.23, 16.51, 10.83, 3.36, 1.69, 0.92]
    assert published("clutter") == clutter
    cub = [73.9, 75.7, 81.0, 82.0, 84.1, 84.1, 84.2, 84.3, 85.4]
    assert published("table3") == [*cub, 84.5, 86.0, 86.0]
    cars = [78.0, 82.7, 88.4, 91.3, 91.5, 92.6]
    assert published("table4") == [*cars, 92.3, 93.1, 93.1]
    assert published("table5") == [79.9, 81.8, 81.5, 82.8, 84.5, 86.0]
    curriculum = [79.9, 80.7, 81.1, 81.5, 81.8, 81.8]
    assert published("table6") == [*curriculum, 81.8]
    assert published("table7") == [79.9, 80.7, 81.0, 81.2, 81.3, 81.8, 81.8]
    assert published("table8") == [79.9, 80.7, 80.5, 80.9, 80.3, 80.0, *curriculum]
    assert published("table9") == [79.9, 78.8, 76.1, 74.8, 74.9, 74.7, *curriculum]
    glimpses = {
        (key, line.name): line.published.glimpses
        for key in ("table3", "table4", "table6", "table7")
        for line in tables.table(key).lines
        if line.name.startswith("DT-RAM") and line.published.value
    }
    assert glimpses == {
        ("table3", "DT-RAM"): 1.9,
        ("table4", "DT-RAM"): 1.9,
        ("table6", "DT-RAM"): 3.6,
        ("table7", "DT-RAM"): 3.6,
    }
    by_confidence = [(row.threshold, row.glimpses) for row in talk.TABLE_7 if row.system == "ram"]
    assert by_confidence == [(0.0, 1), (0.4, 1.4), (0.5, 1.6), (0.6, 1.9), (0.9, 3.6), (1.0, 6)]
    with_box = [
        {row.label.split("]")[0] + "]": row.with_box for row in each if row.with_box}
        for each in (talk.TABLE_3, talk.TABLE_4)
    ]
    assert with_box == [
        {
            "Zhang et al. [63]": 76.4,
            "Branson et al. [56]": 85.4,
            "Krause et al. [48]": 82.8,
            "Lin et al. [54]": 85.1,
            "Liu et al. [62]": 84.7,
            "Liu et al. [9]": 85.5,
        },
        {
            "Gosselin et al. [66]": 87.9,
            "Wang et al. [68]": 92.5,
            "Liu et al. [62]": 93.1,
            "Krause et al. [48]": 92.8,
        },
    ]


def test_recipes_and_options_of_a_system() -> None:
    """As the commands of a reader: a recipe, then what a system changes."""
    words = BIRDS.run(Path("r"), "ram-curriculum", 0).words()[2:-3]
    env = "--env-id DTRAM-BirdsSmall-v0 --env glimpse_size=64 thumbnail_size=32"
    changes = "--seed 0 --stop off --curriculum 2 3 --epochs 14"
    assert words == f"--recipe birds-small {env} {changes}".split()
    stop = systems.MNIST.run(Path("r"), "dtram-0", 0).words()
    assert "--stop after max_mean_glimpses=2.4 --discount 0.98 --trunk r/mnist" in " ".join(stop)
    assert systems.MNIST.systems["ram"].option("scan_epochs") == 12  # the recipe's
    ram = systems.CUB_LARGE.systems["ram-no-curriculum"]
    assert ram.option("curriculum") == ()  # not the recipe's


def test_a_depth_and_a_resolution_have_their_protocols() -> None:
    lines = {line.name: line.protocol for line in tables.table("table5").lines}
    assert lines["RAM-34, 224x224"] is systems.CUB_MEDIUM
    assert lines["RAM-50, 224x224"] is systems.CUB_MEDIUM_DEEP
    assert lines["ResNet-50, 448x448"] is systems.CUB_LARGE


def test_two_ways_to_train_are_compared_on_one_seed() -> None:
    for key, other in (("table8", "ram-curriculum"), ("table9", "ram-last")):
        pairs = {(line.system, line.beside) for line in tables.table(key, drawn=True).lines}
        assert pairs == {("ram", other), (other, "ram")}


def test_a_stop_is_named_by_its_bound_and_its_network() -> None:
    assert tables.label_of(systems.MNIST, "dtram-0") == "DT-RAM at <= 2.4, the paper's network"
    assert tables.label_of(systems.MNIST, "dtram-conv-1").startswith("DT-RAM at <= 3.6, cells and")
    assert tables.label_of(BIRDS, "dtram") == "DT-RAM, 128 pixels"
    assert tables.label_of(systems.CUB_LARGE, "dtram") == "DT-RAM, budget of 3"


def test_small_birds_are_those_of_the_scenes_table() -> None:
    """Both tables read the same runs: one look at each side, RAM, DT-RAM."""
    small = {
        (line.system, line.published.steps) for line in tables.table("table6", drawn=True).lines
    }
    lines = tables.table("scenes").lines
    scenes = {(line.system, line.published.steps) for line in lines if line.protocol is BIRDS}
    assert scenes < small
    assert {name for name, _ in small - scenes} == {"act-resnet", "sact-resnet"}


def test_statistics_of_a_missing_dataset(tmp_path: Path) -> None:
    rows = {row["system"]: row for row in tables.statistics(tmp_path)}
    assert rows["CUB-200-2011"]["published_train"] == 5994
    assert "train" not in rows["CUB-200-2011"]

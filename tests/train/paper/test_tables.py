"""Lines of the tables: each names a system that can be trained, and the talk's own figure."""

import shlex
from pathlib import Path

import pytest

from dtram_env.files import write_json
from train import one_look, reinforce
from train.common.options import command_line, to_json
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

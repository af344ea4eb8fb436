"""Tables of photographs by one command, on a small tree in the official layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.first_look import FirstLookDTRAM
from agents.loading import load_agent
from dtram_env.datasets.sources import cub
from tests.dtram_env.datasets.trees import make_cub
from train import reinforce, reproduce
from train.common.files import read_json
from train.common.options import ResNetEncoder, command_line
from train.paper import systems
from train.paper.systems import CUB_MEDIUM, PROTOCOLS, RECIPES, REINFORCE
from train.reproduce import Options

MOMENT: dict[str, Any] = {"epochs": 1, "batch_size": 4, "device": "cpu"}


@pytest.fixture
def small_cub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> Path:
    """The talk's protocol on CUB with small images and networks, on a tree of 3 classes.

    Only the sizes, durations, encoder and first weights are changed.
    """
    tree = make_cub(tmp_path / "cub", train=6, test=2)
    tree.publish(monkeypatch, cub)
    made = {}
    for name, system in CUB_MEDIUM.systems.items():
        how = dict(system.options)
        if system.trunk is not None:
            how |= {"stop": replace(how["stop"], epochs=1, batch_size=4), "device": "cpu"}
        else:
            per_step = how["encoder"].per_step
            how |= {"encoder": ResNetEncoder("resnet18", width=8, per_step=per_step), **MOMENT}
            how |= {"side": 32} if "side" in how else {}
            how |= {"curriculum": (1, 2, 3)} if how.get("curriculum") else {}
        made[name] = replace(system, options=how)
    sizes = ("image_size=64", "thumbnail_size=32", "glimpse_size=32", "max_glimpses=3")
    small = replace(CUB_MEDIUM, max_glimpses=3, systems=made, env=sizes)
    monkeypatch.setattr(systems, "CUB_MEDIUM", small)
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "cub-256": small})
    return tmp_path


@pytest.mark.parametrize("recipe", ["original-cub", "ours"])
def test_recipes_of_photographs(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a tree in the official layout to the results, with a small network and images."""
    tree = make_cub(tmp_path / "cub", train=6, test=2)
    tree.publish(monkeypatch, cub)
    encoder = f"resnet18 width=8 per_step={recipe == 'original-cub'}".lower().split()
    words = ["--recipe", recipe, "--encoder", *encoder, "--epochs", "1", "--batch-size", "4"]
    words += ["--env", "image_size=96", "thumbnail_size=64", "glimpse_size=32"]
    words += ["--stop", "after", "epochs=1", "batch_size=4", "--device", "cpu"]
    words += ["--data-dir", str(tmp_path), "--run-dir", str(tmp_path / "run")]
    reinforce.train(command_line(reinforce.Options, None, RECIPES[REINFORCE], words))
    results = read_json(tmp_path / "run" / "results.json")
    assert results["dataset"] == "CUB-200-2011" and results["images"] == 6
    assert 0 <= results["test_error"] <= 100 and 1 <= results["mean_glimpses"] <= 3
    assert results["recipe"] == recipe
    agent = load_agent(tmp_path / "run")
    assert isinstance(agent, FirstLookDTRAM) == (recipe == "ours")


@pytest.mark.slow
def test_tables_of_photographs(small_cub: Path) -> None:
    """Every system of tables 6 to 9, beside its published figure."""
    options = Options(
        what=("table6", "table7", "table8", "table9"),
        data="real",
        data_dir=small_cub,
        runs=small_cub / "runs",
        seeds=1,
        device="cpu",
    )
    written = reproduce.reproduce(options)
    assert [path.name for path in written] == [f"table{k}.md" for k in (6, 7, 8, 9)]
    tables = {path.stem: read_json(path.with_suffix(".json")) for path in written}
    for found in tables.values():
        assert found["data"] == "CUB-200-2011"
        for row in found["rows"]:
            assert 0 <= row["ours"] <= 100 and row["seeds"] == 1
            if row["published"] is not None:
                assert row["difference"] == pytest.approx(row["ours"] - row["published"])
            assert row["runs"][0].startswith("cub-256/")
    by_name = {row["system"]: row for row in tables["table6"]["rows"]}
    assert by_name["ResNet-34"]["published"] == 79.9
    assert by_name["DT-RAM"]["published_glimpses"] == 3.6
    assert {"RAM, 2 glimpses", "RAM, 3 glimpses", "ResNet with SACT"} <= by_name.keys()
    # With a curriculum a number of glimpses is its own stage's; without, the whole network's.
    steps = [row["glimpses"] for row in tables["table8"]["rows"]]
    assert steps == [1, 2, 3, 1, 2, 3]
    text = written[0].read_text(encoding="utf-8")
    assert "Table 6. Comparison to RAM" in text and "Measured on CUB-200-2011." in text

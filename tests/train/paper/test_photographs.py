"""Tables of photographs: one command, on a small tree in the official layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtram_env.datasets.sources import cub
from tests.dtram_env.datasets.trees import make_cub
from train import reproduce
from train.paper import systems
from train.paper.systems import CUB_MEDIUM, PROTOCOLS
from train.reproduce import Options

NETWORK: dict[str, Any] = {"encoder": "resnet18", "resnet_width": 4, "backbone_weights": "none"}
MOMENT: dict[str, Any] = {"epochs": 1, "batch_size": 4, "device": "cpu"}
STOP: dict[str, Any] = {"stop_epochs": 1, "stop_batch_size": 4, "device": "cpu"}


@pytest.fixture
def small_cub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> Path:
    """The talk's setting of CUB with small images and networks, of a tree of 3 classes.

    Options of size, duration, encoder and first weights are changed, and no others.
    """
    tree = make_cub(tmp_path / "cub", train=6, test=2)
    tree.publish(monkeypatch, cub)
    made = {}
    for name, system in CUB_MEDIUM.systems.items():
        how = dict(system.options)
        if system.trunk is not None:
            how |= STOP
        else:
            how |= {**NETWORK, **MOMENT}
            how |= {"side": 32} if "side" in how else {}
            how |= {"curriculum": (1, 2, 3)} if "curriculum" in how else {}
        made[name] = replace(system, options=how)
    sizes = {"image_size": 64, "thumbnail_size": 32, "glimpse_size": 32, "max_glimpses": 3}
    shrunk = replace(CUB_MEDIUM, max_glimpses=3, systems=made, env_options=sizes)
    monkeypatch.setattr(systems, "CUB_MEDIUM", shrunk)
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "cub-256": shrunk})
    return tmp_path


def test_tables_of_photographs(small_cub: Path) -> None:
    """Every system of tables 6 to 9, beside what the talk publishes of it."""
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
    tables = {path.stem: json.loads(path.with_suffix(".json").read_text()) for path in written}
    for found in tables.values():
        assert found["data"] == "CUB-200-2011"
        for row in found["rows"]:
            assert 0 <= row["ours"] <= 100 and row["seeds"] == 1
            if row["published"] is not None:
                assert row["difference"] == pytest.approx(row["ours"] - row["published"])
            assert row["runs"][0]["run"].startswith("cub-256/")
    by_name = {row["system"]: row for row in tables["table6"]["rows"]}
    assert by_name["ResNet-34"]["published"] == 79.9
    assert by_name["DT-RAM"]["published_glimpses"] == 3.6
    assert {"RAM, 2 glimpses", "RAM, 3 glimpses", "ResNet with SACT"} <= by_name.keys()
    # With one glimpse, its own stage of the curriculum; without, the whole network read early.
    steps = [row["glimpses"] for row in tables["table8"]["rows"]]
    assert steps == [1, 2, 3, 1, 2, 3]
    text = written[0].read_text()
    assert "Table 6. Comparison to RAM" in text and "Measured on CUB-200-2011." in text

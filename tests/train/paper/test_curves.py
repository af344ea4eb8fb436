"""Curves of error against cost: points by hand, and the curve of every line."""

from pathlib import Path
from typing import Any

import pytest

from train.paper import curves, tables
from train.paper.curves import Point
from train.paper.systems import BIRDS, CUB_MEDIUM, MNIST
from train.paper.tables import line_of


def record(system: str, seed: int, error: float, flops: float, **stop: Any) -> dict[str, Any]:
    key = {"protocol": "mnist", "system": system, "seed": seed, "steps": None, "confidence": None}
    return {**key, **stop, "error": error, "flops": flops}


LINES = [
    line_of(MNIST, "ram", "RAM, 2 glimpses", steps=2),
    line_of(MNIST, "dtram-0", "DT-RAM"),
    line_of(MNIST, "fc", "one look"),
    line_of(MNIST, "conv", "without a record"),
]
RECORDS = [
    record("ram", 0, 2.0, 1e6, steps=2),
    record("ram", 1, 4.0, 3e6, steps=2),
    record("dtram-0", 0, 1.0, 4e6),
    record("fc", 0, 1.5, 0.5e6),
]


def test_points_by_hand() -> None:
    """Mean and standard deviation over seeds; other protocols and unknown runs have none."""
    assert curves.points_of(MNIST, LINES, RECORDS) == [
        Point("DT-RAM", 4.0, 1.0, 0.0),
        Point("RAM", 2.0, 3.0, pytest.approx(2**0.5)),
        Point("one look", 0.5, 1.5, 0.0),
    ]
    assert curves.points_of(BIRDS, LINES, RECORDS) == []


def test_the_picture_is_made_of_records_alone(tmp_path: Path) -> None:
    assert curves.draw(LINES, RECORDS, tmp_path) == [tmp_path / "curves.png"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert curves.draw(LINES, [], tmp_path) == []


def test_names_of_curves() -> None:
    shown = [line for key in curves.TABLES for line in tables.table(key).lines if line.system]
    names = {(line.protocol.name, line.system): curves.curve_of(line) for line in shown}
    assert names["mnist", "ram-map"] == "RAM, a map along a fixed scan"
    assert names["mnist", "dtram-map-0"] == "DT-RAM, a map along a fixed scan"
    assert names["mnist", "talk-1"] == "DT-RAM, the talk's algorithm"
    assert names["mnist", "original-2"] == "DT-RAM, the talk's code"
    assert names["mnist", "act-0.01"] == names["cub-512", "sact-resnet"] == "ACT, SACT"
    assert names["scenes-256", "one-look-64"] == "one look, by side of the image"
    assert names["translated", "one-look-conv"] == names["cub-512", "one-look"] == "one look"
    stopped = line_of(CUB_MEDIUM, "ram", threshold=0.9)
    assert curves.curve_of(stopped) == "RAM, stopped by confidence"

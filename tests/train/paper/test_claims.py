"""What is claimed of the learned stop: by hand, and what is kept of an earlier writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from train.baselines.summary import mean_interval
from train.common.statistics import Mixture
from train.paper import claims
from train.paper.claims import Evidence
from train.paper.systems import BIRDS


def evidence(wrong: list[int], other: list[list[int]], share: float, at: float) -> Evidence:
    mixture = Mixture(np.array(other, dtype=bool), share, mean_glimpses=4.0)
    return Evidence(np.array(wrong, dtype=bool), mixture, at)


FOUND = [
    evidence([1, 0, 0, 0], [[0, 0, 0, 0], [1, 1, 1, 1]], 0.0, 2.0),
    evidence([1, 1, 0, 0], [[1, 0, 0, 0], [1, 1, 1, 0]], 0.5, 3.0),
]


def test_a_comparison_by_hand() -> None:
    found = claims.row(claims.WHOLE, FOUND)
    # Errors of 1 and 2 of 4, against none and 1 + 0.5 + 0.5.
    assert (found["error"], found["other_error"], found["difference"]) == (37.5, 25.0, 12.5)
    assert (found["glimpses"], found["other_glimpses"], found["seeds"]) == (2.5, 4.0, 2)
    assert found["fewer_glimpses"] == 0.375
    assert found["of_each_seed"] == [25.0, 0.0]
    # Student's t with 1 degree of freedom, 12.71 standard errors of 12.5.
    assert found["half_of_students"] == pytest.approx(12.706 * 12.5, rel=1e-3)
    assert found["half_of_students"] == pytest.approx(mean_interval([25.0, 0.0])[1], abs=1e-3)
    alone = claims.row(claims.THRESHOLD, FOUND[:1])
    assert alone["half_of_students"] is None and "fewer_glimpses" not in alone


def test_evidence_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = Evidence(rng.random(43) < 0.2, Mixture(rng.random((2, 43)) < 0.3, 0.123, 3.0), 2.25)
    runs = [f"birds-small/dtram/seed-{seed}" for seed in range(2)]
    found = {run: {claims.WHOLE: one, claims.THRESHOLD: FOUND[0]} for run in runs}
    recipes = {runs[0]: BIRDS.recipe("dtram", 0), runs[1]: "of before"}
    origins = {run: {"run": run, "recipe": recipe, "data": "d"} for run, recipe in recipes.items()}
    path = tmp_path / "claims.safetensors"
    claims.save_evidence(path, found, origins)
    back, known = claims.load_evidence(path)
    assert known == {runs[0]: origins[runs[0]]} and back.keys() == known.keys()
    again = back[runs[0]][claims.WHOLE]
    assert np.array_equal(again.wrong, one.wrong)
    assert np.array_equal(again.other.wrong, one.other.wrong)
    assert again.glimpses == one.glimpses and again.other[1:] == one.other[1:]
    assert np.array_equal(back[runs[0]][claims.THRESHOLD].difference, FOUND[0].difference)
    assert claims.load_evidence(tmp_path / "none") == ({}, {})
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"claims.safetensors: expected evidence .* delete it"):
        claims.load_evidence(path)


def row(**changes: Any) -> dict[str, Any]:
    runs = [
        {"run": f"birds-small/dtram/seed-{seed}", "recipe": BIRDS.recipe("dtram", seed)}
        for seed in range(3)
    ]
    values: dict[str, Any] = {"data": "Birds (drawn)", "protocol": "birds-small"}
    values |= {"system": "dtram", "label": "DT-RAM", "against": "whole budget", "runs": runs}
    values |= {"error": 7.75, "glimpses": 2.14, "other_error": 7.87, "other_glimpses": 3.0}
    values |= {"difference": -0.12, "low": -0.5, "high": 0.25, "seeds": 3}
    return values | changes


def test_a_row_stands_while_its_recipes_do() -> None:
    assert claims.stands(row())
    others = [{**one, "recipe": "x"} for one in row()["runs"]]
    assert not claims.stands(row(runs=[*row()["runs"][:2], others[2]]))
    assert not claims.stands(row(runs=row()["runs"][:2]))  # of one of them nothing is known
    assert not claims.stands(row(system="gone")) and not claims.stands(row(protocol="gone"))
    assert not claims.stands(row(system="ram"))
    older = {k: v for k, v in row().items() if k not in ("protocol", "runs")}
    assert not claims.stands(older)


def test_what_is_written() -> None:
    anew = row(fewer_glimpses=0.2882, half_of_students=0.61)
    text = claims.markdown([row(kept=True), anew], "python it")
    first, second = (line for line in text.splitlines() if line.startswith("| Birds"))
    assert first.startswith("| Birds (drawn) | DT-RAM ‡ |") and "|  | 3 |" in first
    assert "| 28.8 |" in second and "| -0.12 ± 0.61 | 3 |" in second
    assert "| -0.12 | -0.50 to +0.25 |" in second
    assert "‡ From an earlier writing" in text
    assert "‡" not in claims.markdown([anew], "python it")

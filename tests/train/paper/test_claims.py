"""Claims about the learned stop, by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agents.unroll import Scores
from train.common import statistics
from train.common.records import ORIGIN
from train.common.statistics import Mixture, Outcome
from train.paper import claims
from train.paper.claims import LOOK, THRESHOLD, WHOLE
from train.paper.read_runs import Reading, Record
from train.paper.systems import SCENES
from train.paper.tables import line_of


def evidence(wrong: list[int], other: list[list[int]], share: float, glimpses: float) -> Record:
    mixture = Mixture(np.array(other, dtype=bool), share, mean_glimpses=4.0)
    return claims.pack(np.array(wrong, dtype=bool), glimpses, mixture)


FOUND = [
    evidence([1, 0, 0, 0], [[0, 0, 0, 0], [1, 1, 1, 1]], 0.0, 2.0),
    evidence([1, 1, 0, 0], [[1, 0, 0, 0], [1, 1, 1, 0]], 0.5, 3.0),
]


def claim(against: str, found: list[Record]) -> dict[str, Any]:
    about = {"protocol": "birds-small", "system": "dtram", "against": against}
    about["data"] = "Birds (drawn)"
    return claims.claim([{**about, "seed": seed, **one} for seed, one in enumerate(found)])


def test_a_claim_by_hand() -> None:
    found = claim(WHOLE, FOUND)
    # Errors of 1 and 2 of 4, against none and 1 + 0.5 + 0.5.
    assert (found["error"], found["other_error"], found["difference"]) == (37.5, 25.0, 12.5)
    assert (found["glimpses"], found["other_glimpses"], found["seeds"]) == (2.5, 4.0, 2)
    assert found["fewer_glimpses"] == 0.375
    assert found["seed_differences"] == [25.0, 0.0]
    # Student's t with 1 degree of freedom is 12.71; the standard error is 12.5.
    assert found["student_half_width"] == pytest.approx(12.706 * 12.5, rel=1e-3)
    assert found["low"] <= found["difference"] <= found["high"]
    alone = claim(THRESHOLD, FOUND[:1])
    assert alone["student_half_width"] is None and alone["fewer_glimpses"] is None


def test_evidence_is_the_same_after_json() -> None:
    rng = np.random.default_rng(0)
    wrong, mixture = rng.random(43) < 0.2, Mixture(rng.random((2, 43)) < 0.3, 0.123, 3.0)
    record = json.loads(json.dumps(claims.pack(wrong, 2.25, mixture)))
    assert (record["mean_glimpses"], record["other_mean_glimpses"]) == (2.25, 3.0)
    again, other = claims.unpack(record)
    assert np.array_equal(again, wrong) and np.array_equal(other, mixture.error)


def test_the_whole_budget_is_a_point_of_the_confidence_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DT-RAM takes 2 of 3 glimpses; the only threshold stops at 1, so half get the whole budget."""
    logits = torch.zeros(3, 4, 2)
    logits[:2, :, 1] = logits[2, :, 0] = 9.0  # wrong until the last glimpse
    scores = Scores(torch.zeros(4).long(), logits, torch.zeros(3, 4), torch.zeros(3, 4, 2))
    results = {"dataset": "Birds (drawn)", **dict.fromkeys(ORIGIN)}
    right = np.array([True, True, False, False])
    reading = Reading(Outcome(right, np.array([1, 2, 2, 3])), 1.0, results)
    reader: Any = SimpleNamespace(read=lambda *_: reading, scores=lambda *_: scores)
    monkeypatch.setattr(statistics, "confidences", lambda scores: [0.0])
    line = line_of(SCENES[0], "dtram")
    about = {"protocol": line.protocol.name, "against": LOOK, "look": "one-look-256"}
    before = [{**about, **evidence([1, 0, 0, 0], [[0, 1, 1, 0]] * 2, 0.0, 2.0)}]
    for other in ({"protocol": "elsewhere"}, {"against": WHOLE}):  # the others are not its own
        found = claims.compare(reader, line, 0, tmp_path, tmp_path, {}, [{**before[0], **other}])
        assert [one["against"] for one in found] == [THRESHOLD, WHOLE]
    threshold, whole, look = claims.compare(reader, line, 0, tmp_path, tmp_path, {}, before)
    assert (look["against"], look["look"]) == (LOOK, "one-look-256")
    assert claims.unpack(look)[1].tolist() == [0, 1, 1, 0]
    assert threshold["against"] == THRESHOLD and whole["against"] == WHOLE
    assert (threshold["other_mean_glimpses"], threshold["other_share"]) == (2.0, 0.5)
    assert claims.unpack(threshold)[1].tolist() == [0.5] * 4
    assert whole["other_mean_glimpses"] == 3.0 and claims.unpack(whole)[1].tolist() == [0.0] * 4


def test_seeds_with_different_test_images_make_no_claim() -> None:
    two = evidence([1, 0], [[0, 1]] * 2, 0.0, 2.0)
    three = evidence([1, 0, 0], [[0, 1, 0]] * 2, 0.0, 2.0)
    with pytest.raises(ValueError, match=r"have \[2, 3\] test images, expected one number; delete"):
        claim(WHOLE, [two, three])


def test_seeds_that_were_compared_with_different_looks_make_no_claim() -> None:
    first, second = (
        evidence([1, 0], [[0, 1]] * 2, 0.0, 2.0),
        evidence([1, 0], [[1, 1]] * 2, 0.0, 2.0),
    )
    looks = [{**one, "look": "one-look"} for one in (first, first, second)]
    assert claim(LOOK, looks[:2])["against"] == "best one look (one-look)"
    with pytest.raises(ValueError, match="with 2 networks that look once, expected one; delete"):
        claim(LOOK, looks)


def test_the_text_of_claims() -> None:
    text = claims.markdown([claim(WHOLE, FOUND), claim(THRESHOLD, FOUND[:1])], "python it")
    first, second = (line for line in text.splitlines() if line.startswith("| Birds"))
    assert "| DT-RAM, 128 pixels | 37.50 | 2.50 | whole budget | 25.00 | 4.00 | 37.5 |" in first
    assert first.endswith("| +12.50 ± 158.83 | 2 |") and second.endswith("|  | 1 |")
    assert "Made by `python it`." in text

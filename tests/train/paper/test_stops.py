"""Ways to stop at equal mean glimpses, by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train import reproduce
from train.common.files import read_json
from train.common.records import pack_floats, read_records, unpack_floats
from train.common.statistics import Outcome
from train.dtram.options import ACT
from train.paper import stops, systems
from train.paper.stops import FIXED, LEARNED, RANDOM
from train.paper.systems import MNIST, PROTOCOLS, Protocol, System


def outcome(right: list[int], glimpses: list[int]) -> Outcome:
    return Outcome(np.array(right, dtype=bool), np.array(glimpses))


AFTER = [outcome([0, 0, 1, 1], [1] * 4), outcome([1, 0, 1, 1], [2] * 4), outcome([1] * 4, [3] * 4)]
"""Four images after 1, 2 and 3 glimpses: the first is right from 2 on, the second from 3 on."""


def test_error_between_two_numbers_of_glimpses_by_hand() -> None:
    error, met = stops.error_at(AFTER, 1.25)
    assert met == 1.25 and error.tolist() == [0.75, 1.0, 0.0, 0.0]
    error, met = stops.error_at(AFTER, 3.5)
    assert met == 3.0 and error.tolist() == [0.0] * 4  # the most that there are


def test_numbers_of_glimpses_dealt_at_random_by_hand() -> None:
    """A rule that knows: 2 and 3 glimpses where they are needed, a mean of 7 / 4."""
    knows = [outcome([1] * 4, [2, 3, 1, 1])]
    assert stops.error_at(knows, 1.75)[0].tolist() == [0.0] * 4
    error, met = stops.error_at(knows, 1.75, AFTER)
    assert met == 1.75 and error.tolist() == [0.5, 0.75, 0.0, 0.0]  # 1 glimpse for half of them


def record(way: str, seed: int, error: list[float], mean: str = "1.5") -> dict[str, Any]:
    errors = {mean: pack_floats(np.array(error))}
    return {"protocol": "mnist", "way": way, "seed": seed, "data": "MNIST", "errors": errors}


def test_rows_by_hand() -> None:
    records = [
        record(FIXED, 0, [1, 1, 0, 0]),
        record(LEARNED, 0, [0.5, 0, 0, 0]),
        record(LEARNED, 1, [0.5, 0.5, 0.5, 0]),
        record(RANDOM, 0, [1, 0, 0, 0], mean="2"),
    ]
    ours, at_random, fixed = stops.rows(records)
    assert ours["way"] == LEARNED and ours["seeds"] == 2
    # Errors of 12.5 and 37.5 %.
    assert ours["at"] == {"1.5": {"error": 25.0, "spread": pytest.approx(17.6777)}}
    assert fixed["at"]["1.5"]["difference"] == 37.5  # on the seed that both have
    assert fixed["at"]["1.5"]["low"] < 37.5 < fixed["at"]["1.5"]["high"]
    assert at_random["at"] == {"2": {"error": 25.0}}  # ours has no error there
    text = stops.markdown([ours, at_random, fixed], "python it")
    assert "## MNIST" in text and "Made by `python it`." in text
    assert "| learned, exact gradient | 25.00 ± 17.68 |  |" in text
    assert "50.00 (+" in text and f"| {RANDOM} |  | 25.00 |" in text


@pytest.mark.parametrize("protocol", stops.PROTOCOLS, ids=lambda protocol: protocol.name)
def test_all_ways_learn_as_long_and_choose_their_weights_alike(protocol: Protocol) -> None:
    learned = [protocol.systems[name].options["stop"] for name in stops.systems_of(protocol)[1:]]
    assert len({(stop.epochs, stop.batch_size) for stop in learned}) == 1
    bounds = {stop.max_mean_glimpses for stop in learned if not isinstance(stop, ACT)}
    assert len(bounds) == 1


def test_floats_are_the_same_after_json() -> None:
    values = np.array([0.0, 1.0, 0.25, 0.0])
    assert unpack_floats(pack_floats(values)).tolist() == values.tolist()
    assert len(pack_floats(np.zeros(10_000))) < 100


def test_the_ways_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    """On drawn glyphs: every way is compared, and records alone make the same table."""
    few = {"env_steps": 6_000, "batch_size": 60, "device": "cpu", "epochs": 1}

    def quick(system: System) -> System:
        made = dict(system.options)
        stop = replace(made["stop"], epochs=1, batch_size=900)
        return replace(system, options={**made, "stop": stop, "device": "cpu"})

    names = stops.systems_of(MNIST)[1:]
    others = {name: quick(MNIST.systems[name]) for name in names}
    ram = System("reinforce.py", "", {**few, "stop": MNIST.systems["ram"].options["stop"]})
    small = Protocol("mnist", "DTRAM-Signpost-v0", 4, {"ram": ram, **others})
    monkeypatch.setattr(stops, "PROTOCOLS", (small,))
    monkeypatch.setattr(systems, "PROTOCOLS", {**PROTOCOLS, "mnist": small})
    options = reproduce.Options(what=("stops",), runs=tmp_path / "runs", seeds=1, device="cpu")
    (path,) = reproduce.reproduce(options)
    rows = read_json(path.with_suffix(".json"))["rows"]
    assert [row["way"] for row in rows] == list(stops.WAYS)
    by_way = {row["way"]: row["at"] for row in rows}
    assert by_way[LEARNED].keys() and all("difference" not in at for at in by_way[LEARNED].values())
    assert by_way[FIXED].keys() == {"1.5", "2", "2.4", "3", "3.6"}
    results = read_json(small.folder(options.runs, "ram", 0) / "results.json")
    after = {count: results["fixed"][count]["test_error"] for count in "12"}
    assert by_way[FIXED]["2"]["error"] == pytest.approx(after["2"], abs=1e-3)
    assert by_way[FIXED]["1.5"]["error"] == pytest.approx((after["1"] + after["2"]) / 2, abs=1e-3)
    again = reproduce.reproduce(
        replace(options, read_only=True, runs=tmp_path / "none", out=path.parent)
    )
    assert read_json(again[0].with_suffix(".json"))["rows"] == rows
    assert len(read_records(path.with_suffix(".jsonl"))) == len(rows)

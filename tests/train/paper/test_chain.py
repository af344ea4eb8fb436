"""From no runs to tables, claims and curves, on runs of a second."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtram_env
from agents.dtram import DTRAM
from agents.halting.act import HaltingRAM
from agents.stopping import FixedStop
from train import reproduce
from train.common.files import read_json
from train.common.records import read_records
from train.paper import systems
from train.paper.figures import histogram_figure
from train.paper.read_runs import Reader
from train.reproduce import Options


def test_tables_claims_and_curves_from_nothing(
    tmp_path: Path, small_mnist: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "protocols_of", lambda options, key: [systems.MNIST])
    options = Options(
        what=("table2", "claims", "curves"),
        data="drawn",
        runs=tmp_path,
        seeds=2,
        device="cpu",
    )
    check_order_of_runs(options)
    written = reproduce.reproduce(options)
    assert [path.name for path in written] == ["table2.md", "claims.md", "curves.png"]
    assert all(path.exists() for path in written)
    check_table(options)
    check_claims(options)
    check_figure(options)
    check_second_call(options)
    check_lost_and_damaged_runs(replace(options, what=("table2", "claims"), read_only=True))


def check_order_of_runs(options: Options) -> None:
    """DT-RAM needs its trunk; the order of the jobs does not matter."""
    jobs = [systems.MNIST.run(options.runs, name, 0) for name in ("dtram-1", "ram")]
    assert not reproduce.run_in_order(jobs, options) and all(job.finished for job in jobs)
    other = replace(jobs[0], options={**jobs[0].options, "discount": 0.9})
    with pytest.raises(ValueError, match=r"dtram-1/seed-0: made with .*delete it to run anew"):
        other.check_options()


def rows_of(options: Options, name: str) -> list[dict[str, Any]]:
    return read_json(options.folder / f"{name}.json")["rows"]


def check_table(options: Options) -> None:
    """Figures are those of the runs, and of the environment's own evaluation."""
    rows = {row["system"]: row for row in rows_of(options, "table2")}
    folders = [options.runs / f"mnist/ram/seed-{seed}" for seed in (0, 1)]
    errors = [read_json(folder / "results.json")["test_error"] for folder in folders]
    ours = rows["RAM, 4 glimpses"]
    assert ours["values"] == pytest.approx(errors, abs=1e-3)
    assert ours["ours"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert ours["spread"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)
    assert ours["difference"] == pytest.approx(ours["ours"] - 1.54, abs=1e-3)
    # Two glimpses are read from the stage that learned two, not from the whole network.
    early = rows["RAM, 2 glimpses"]
    assert early["glimpses"] == 2.0
    assert early["values"] == pytest.approx([error_of_two(f / "stages/trunk-2") for f in folders])
    assert early["values"] != pytest.approx([error_of_two(folder) for folder in folders])
    assert isinstance(HaltingRAM.load(options.runs / "mnist/act-0.01/seed-0"), HaltingRAM)
    text = (options.folder / "table2.md").read_text(encoding="utf-8")
    assert "| FC, 2 layers (256 hidden units each) | 1.69 |" in text
    assert "Measured on Signpost." in text and "Made by `" in text
    records = read_records(options.folder / "runs.jsonl")
    assert {record["data"] for record in records} == {"Signpost"}
    assert all(record["command"] and record["commit"] for record in records)


def error_of_two(folder: Path) -> float:
    """Test error, %, of a network after two glimpses."""
    agent = DTRAM.load(folder)
    agent.stopping = FixedStop(2)
    return dtram_env.evaluate(agent, "DTRAM-Signpost-v0", split="test").to_dict()["test_error"]


def check_claims(options: Options) -> None:
    claims = rows_of(options, "claims")
    assert [(row["system"], row["against"], row["seeds"]) for row in claims] == [
        ("dtram-1", "best one look (fc)", 2),
        ("dtram-1", "confidence threshold", 2),
        ("dtram-1", "whole budget", 2),
    ]
    for row in claims:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["error"] - row["other_error"], abs=1e-3)
    look, _, whole = claims
    folders = [options.runs / "mnist" / name / "seed-0" for name in systems.MNIST.looks]
    looks = [read_json(folder / "results.json") for folder in folders]
    best = min(looks, key=lambda results: results["validation"]["error"])
    assert look["other_error"] == pytest.approx(best["test_error"], abs=1e-3)
    assert (look["other_glimpses"], look["fewer_glimpses"]) == (1, None)
    ours = {row["system"]: row for row in rows_of(options, "table2")}["RAM, 4 glimpses"]
    assert whole["other_error"] == pytest.approx(ours["ours"], abs=1e-3)
    assert whole["fewer_glimpses"] == pytest.approx(1 - whole["glimpses"] / 4, abs=1e-3)


def check_figure(options: Options) -> None:
    reader, folder = Reader(torch.device("cpu")), options.runs / "mnist/dtram-1/seed-0"
    pictures = histogram_figure(reader, folder, options.runs / "figure")
    assert [path.name for path in pictures] == ["figure.png", "figure-histogram.png"]
    assert all(path.exists() for path in pictures)
    taken, found = read_json(folder / "results.json"), read_json(options.runs / "figure.json")
    assert found["histogram"] == taken["histogram"]
    assert found["runs"].keys() == {"mnist/dtram-1/seed-0"}
    assert {"commit", "hardware", "versions"} <= found.keys()


def check_second_call(options: Options) -> None:
    """Nothing is trained again."""
    before = {path: path.stat().st_mtime_ns for path in options.runs.rglob("results.json")}
    reproduce.reproduce(replace(options, what=("table2",)))
    assert before == {path: path.stat().st_mtime_ns for path in options.runs.rglob("results.json")}


def check_lost_and_damaged_runs(options: Options) -> None:
    """Records and evidence outlive their runs; a changed trunk or a damaged file is an error."""
    tables = rows_of(options, "table2"), rows_of(options, "claims")
    lost, elsewhere = options.runs / "mnist/ram/seed-1", options.runs / "elsewhere"
    lost.rename(elsewhere)
    reproduce.reproduce(options)
    assert (rows_of(options, "table2"), rows_of(options, "claims")) == tables
    elsewhere.rename(lost)
    # The stopper was trained on another trunk than the run of its trunk has now.
    header = options.runs / "mnist/ram/seed-0/model.json"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace(read_json(header)["weights_sha256"], "0" * 64), encoding="utf-8")
    with pytest.raises(ValueError, match=r"dtram-1/seed-0: trained on another trunk .*delete it"):
        reproduce.reproduce(replace(options, what=("claims",)))
    header.write_text(text, encoding="utf-8")
    (options.runs / "mnist/fc/seed-0/test_images.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"not everything .*\n.*fc/seed-0: cannot be read"):
        reproduce.reproduce(options)
    assert rows_of(options, "table2") == tables[0]

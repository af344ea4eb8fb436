"""Adds results to the leaderboard, docs/leaderboard.md.

    python train/leaderboard.py runs/a/seed-0 runs/a/seed-1 runs/a/seed-2 --algo mine
    python train/leaderboard.py sent.jsonl --source https://example.org/their/code

A result is the folder of a finished run of train/reinforce.py or train/sb3_baselines.py, or a file
of records that somebody sent: a JSON object, or one on each line (.jsonl), with the keys that
docs/protocol.md lists. A DT-RAM is evaluated by one pass through its environment first.

It checks every record, adds all or none to benchmarks/results/leaderboard/ENV_ID.jsonl, and writes
the generated pages again. Commit both.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import has_results, run_program  # isort: skip  # says what to install

import tyro

from dtram_env.files import Record, parse_json
from train.baselines import facts
from train.baselines.comparison_run import baseline_record, dtram_record
from train.baselines.facts import FACTS, Entry, contradiction, other_task, problem
from train.common.evaluate_agent import evaluate_agent
from train.common.files import read_json
from train.common.lock import in_turn
from train.common.provenance import REPOSITORY
from train.common.records import HERE, check_destination, read_records, write_records
from train.common.training_task import read_task

SAME_FOR_ALL_SEEDS = ("view", "observe", "learns_from", "hyperparameters")


@dataclass(frozen=True)
class Options:
    """Adds results to the leaderboard."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs, and files of records"""
    source: str | None = None
    """who made the records of a file, if they do not say: a link, or "this repository" """
    algo: str | None = None
    """name of the algorithm, if not the run's own; its seeds are one row"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError("expected at least one folder of a run, or file of records")


def record_of_run(folder: Path, data_dir: Path | None) -> dict[str, Any]:
    """The record of a finished run, with the hyper-parameters that all its seeds have."""
    if not has_results(folder):
        raise ValueError(f"{folder}: expected a finished run; results.json is missing")
    results = read_json(folder / "results.json")
    if "algo" in results:
        return baseline_record(results) | {"source": HERE}
    if "flops_per_glimpse" not in results:
        expected = "a run of train/reinforce.py or train/sb3_baselines.py"
        raise ValueError(f"{folder}: expected {expected}; this network takes no glimpses")
    env_id, changed = read_task(results, folder / "results.json")
    changed = {key: value for key, value in changed.items() if key != "data"}
    if another := other_task(env_id.rpartition(":")[2], changed):  # evaluating takes minutes
        raise ValueError(f"{folder}: env_options={changed}: expected {another}")
    found = dtram_record(folder, results, evaluate_agent(folder, data_dir=data_dir))
    chosen = _settings(results["options"])
    if trunk := results.get("trunk"):
        found["trunk"] = {key: trunk[key] for key in ("command", "commit")}
        chosen["trunk"] = _settings(trunk["options"])
    seed = results["options"]["seed"]
    return found | {"algo": "dtram", "seed": seed, "hyperparameters": chosen, "source": HERE}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """A run's options without those of its environment, and those that differ between seeds."""
    others = ("env_id", "env", "root", "data", "classifier", "seed", "trunk")
    return {key: value for key, value in options.items() if key not in others}


def read(options: Options) -> list[Entry]:
    """The given results, checked, each with its place; ValueError names what is wrong."""
    given: list[tuple[str, dict[str, Any]]] = []
    for path in options.results:
        if path.is_dir():
            given.append((str(path), record_of_run(path, options.data_dir)))
            continue
        content, places = [path.read_bytes()], [str(path)]
        if path.suffix == ".jsonl":
            content = content[0].splitlines()
            places = [f"{path}, line {number}" for number, _ in enumerate(content, start=1)]
        for text, place in zip(content, places, strict=True):
            way_out = "expected a record with the keys of docs/protocol.md"
            given.append((place, parse_json(text, place, dict[str, Any], way_out)))
    found = []
    for place, record in given:
        sent = Record((key, value) for key, value in record.items() if value is not None)
        changes = {"algo": options.algo, "source": options.source}
        sent |= {key: value for key, value in changes.items() if value is not None}
        if isinstance(sent.get("env_id"), str):
            sent["env_id"] = sent["env_id"].rpartition(":")[2]
        if wrong := problem(sent) or contradiction(sent):
            raise ValueError(f"{place}: {wrong}")
        found.append(Entry(place, Record((key, sent[key]) for key in FACTS if key in sent)))
    return found


def check_row(entry: Entry, standing: list[Entry]) -> None:
    """Raises ValueError if a record is there already, or differs from its row's other seeds."""
    for other in standing:
        if other.row != entry.row or "problem" in other.record:
            continue
        seed, record = other.record["seed"], other.record
        if seed == entry.record["seed"]:
            _, algo, source, _ = entry.row
            what = f"algo={algo!r}, seed={seed}, source={source!r}"
            raise ValueError(f"{entry.place}: {what}: already in {other.place}")
        for key in SAME_FOR_ALL_SEEDS:
            theirs, ours = (found.get(key) for found in (record, entry.record))
            if theirs != ours:
                expected = f"as seed {seed} has in {other.place}; name another row with --algo"
                raise ValueError(f"{entry.place}: {key}={str(ours)[:60]!r}: not {expected}")


def add(options: Options) -> list[Path]:
    """Adds the given results, and writes the pages again; returns the files of records."""
    board = facts.RESULTS / "leaderboard"
    if any(path.is_dir() for path in options.results):
        check_destination(board)
    new, written = read(options), []
    with in_turn(board / ".lock"):
        standing = facts.read_leaderboard(facts.RESULTS)
        for entry in new:
            check_row(entry, standing)
            standing.append(entry)
        for env_id in dict.fromkeys(entry.record["env_id"] for entry in new):
            path = board / f"{env_id}.jsonl"
            mine = [entry.record for entry in new if entry.record["env_id"] == env_id]
            written.append(write_records(path, [*read_records(path), *mine]))
    for entry in new:
        env_id, algo, *_ = entry.row
        print(f"{env_id}: {algo}, seed {entry.record['seed']}, added")
    write_pages()
    return written


def write_pages() -> None:
    """Writes the generated pages, in a process of its own: no program imports docs."""
    subprocess.run([sys.executable, str(REPOSITORY / "docs" / "build.py"), "--write"], check=True)


if __name__ == "__main__":
    run_program(lambda: add(tyro.cli(Options, description=__doc__)))

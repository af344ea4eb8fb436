"""The program that adds records to the leaderboard: from runs, and from files that are sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train.baselines.test_facts import LINK, SENT, changed
from train import leaderboard
from train.baselines import facts
from train.common import records
from train.common.records import HERE, read_records
from train.leaderboard import Options, add, record_of_run
from train.sb3_baselines import Options as BaselineOptions
from train.sb3_baselines import train as train_baseline

ROOT = Path(__file__).resolve().parents[2]
ENV_ID = SENT["env_id"]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the id's records, in a folder in the place of benchmarks/results."""
    results = tmp_path / "results"
    for module in (facts, records):
        monkeypatch.setattr(module, "RESULTS", results)
    monkeypatch.setattr(records, "commit", lambda: "0123abcd")
    monkeypatch.setattr(leaderboard, "write_pages", lambda: print("pages written"))
    return results / "leaderboard" / f"{ENV_ID}.jsonl"


def sent(folder: Path, *made: dict[str, Any]) -> Path:
    """A file that somebody sends."""
    path = folder / "sent.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made), encoding="utf-8")
    return path


def test_sent_records_are_added(board: Path, tmp_path: Path, capsys) -> None:
    first = sent(tmp_path, *(changed(seed=seed, versions=None) for seed in (0, 1)))
    assert add(Options((first,))) == [board]
    assert read_records(board) == [SENT, SENT | {"seed": 1}]
    said = capsys.readouterr().out
    assert (
        said == f"{ENV_ID}: theirs, seed 0, added\n{ENV_ID}: theirs, seed 1, added\npages written\n"
    )
    # An object in a file of its own, as `Evaluation.to_dict` names the id.
    path = tmp_path / "sent.json"
    whole = changed(env_id=f"dtram_env:{ENV_ID}", source=...)
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    add(Options((path,), source="https://example.org/others", algo="another"))
    added = read_records(board)[2]
    assert added == SENT | {"algo": "another", "source": "https://example.org/others"}
    assert list(added) == [key for key in facts.FACTS if key in added]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([changed(seed=1), changed(seed=2, mean_return=0.5)], "line 2: mean_return='0.5': expec"),
        ([changed(seed=1), changed(seed=1)], "line 2: algo='theirs', seed=1, source='https://exa"),
        ([SENT], rf"seed=0, source='{LINK}': already in .*{ENV_ID}\.jsonl, line 1"),
        ([changed(seed=1, source=...)], "line 1: source='None': expected a link"),
        ([changed(seed=1, seeds=3)], "line 1: seeds: unknown key"),
        ([changed(seed=1, learns_from="nothing")], "learns_from='nothing': not as seed 0 has in"),
        ([changed(seed=1, hyperparameters={"a": 1})], r"hyperparameters=.*name another row with"),
        ([changed(seed=1, source=HERE)], "expected command, commit, date, versions, hardware in"),
        ([[1]], r"line 1: the whole=\[1\]: expected an object; expected a record with the keys"),
    ],
)
def test_all_or_none_are_added(board: Path, tmp_path: Path, made, message: str) -> None:
    add(Options((sent(tmp_path, SENT),)))
    before = board.read_bytes()
    with pytest.raises(ValueError, match=message):
        add(Options((sent(tmp_path, *made),)))
    assert board.read_bytes() == before
    assert {path.name for path in board.parent.iterdir()} == {".lock", board.name}


def test_a_record_of_a_comparison_is_not_added_again(board: Path, tmp_path: Path) -> None:
    there = board.parents[1] / "comparison" / board.name
    there.parent.mkdir(parents=True)
    there.write_text(json.dumps(changed(source=...)) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"already in .*comparison/DTRAM-Signpost-v0\.jsonl, line"):
        add(Options((sent(tmp_path, changed(source=HERE)),)))
    add(Options((sent(tmp_path, SENT),)))  # theirs is another


def test_a_run_of_a_baseline(board: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    train_baseline(BaselineOptions(algo="scan", env_id=ENV_ID, run_dir=folder, seed=3))
    made = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (folder / "results.json").write_text(json.dumps(made | {"commit": "0123abcd"}))
    add(Options((folder,)))
    (record,) = read_records(board)
    assert (record["algo"], record["seed"], record["learns_from"]) == ("scan", 3, "nothing")
    assert (record["source"], record["command"]) == (HERE, made["command"])
    for key in ("test_error", "mean_return", "hyperparameters", "curve"):
        assert record[key] == made[key]
    add(Options((folder,), algo="scan again"))
    assert [found["algo"] for found in read_records(board)] == ["scan", "scan again"]


def test_a_dtram_is_evaluated_first(mnist_folder: Path) -> None:
    """A shipped model: figures of its run, settings of its trunk and of its stopper."""
    folder = ROOT / "pretrained" / "mnist"
    made = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    record = record_of_run(folder, None)
    assert record["test_error"] == pytest.approx(made["test_error"], abs=0.02)
    assert record["mean_glimpses"] == pytest.approx(made["mean_glimpses"], abs=0.002)
    assert record["env_steps"] is None is record["train_seconds"]  # its trunk's are not recorded
    assert record["trunk"] == {key: made["trunk"][key] for key in ("command", "commit")}
    chosen = record["hyperparameters"]
    assert (chosen["epochs"], chosen["trunk"]["epochs"]) == (30, 48)
    assert not {"seed", "env_id"} & {*chosen, *chosen["trunk"]}
    assert facts.problem({key: value for key, value in record.items() if value is not None}) is None
    assert facts.contradiction(record) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pretrained/birds-small", "env_options=.*expected glimpse_size=32, of DTRAM-BirdsSmall"),
        ("pretrained/scenes", "env_options=.*expected num_test=None, of DTRAM-Scenes-v0"),
        ("pretrained/birds-small-look", "this network takes no glimpses"),
        ("docs", "docs: expected a finished run; results.json is missing"),
    ],
)
def test_what_has_no_row_is_refused_at_once(board: Path, monkeypatch, name, message) -> None:
    monkeypatch.setattr(leaderboard, "evaluate_agent", lambda *_, **__: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match=message):
        add(Options((ROOT / name,)))
    assert not board.parent.exists()


def test_without_a_clean_commit_a_run_is_refused_at_once(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "commit", lambda: "0123abcd+changes")
    with pytest.raises(ValueError, match=r"0123abcd\+changes; commit all changes"):
        add(Options((tmp_path,)))
    add(Options((sent(tmp_path, SENT),)))  # is not made by the code here
    with pytest.raises(ValueError, match="expected at least one folder of a run"):
        Options(())

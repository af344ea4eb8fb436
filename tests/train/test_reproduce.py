"""The talk's tables: runs to plan, and files that are made from records alone."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtram_env.files import write_json
from train import reproduce
from train.common.files import read_json
from train.common.records import read_records, write_records
from train.paper import claims, tables
from train.paper.published import TITLES
from train.paper.systems import ANYWHERE, BIRDS, MNIST, SCENES
from train.reproduce import Options, plan, protocols_of

COMMITTED = Path(__file__).resolve().parents[2] / "benchmarks/results/tables"
NO_RUNS: dict[str, Any] = {"data": "drawn", "read_only": True, "device": "cpu"}


# -- plans -----------------------------------------------------------------------------------------


def test_a_run_comes_after_the_runs_that_it_reads(tmp_path: Path) -> None:
    runs = plan(Options(what=("table2",), runs=tmp_path, seeds=2))
    folders = [run.folder.relative_to(tmp_path).as_posix() for run in runs]
    assert len(set(folders)) == len(folders)
    for seed in (0, 1):
        assert folders.index(f"mnist/ram/seed-{seed}") < folders.index(f"mnist/dtram-1/seed-{seed}")
    assert "mnist/fc/seed-0" in folders and "mnist/fc/seed-1" not in folders
    assert BIRDS.needed("dtram") == ["ram", "dtram"]


def test_drawn_images_take_the_place_of_photographs(tmp_path: Path) -> None:
    options = Options(what=("table6",), runs=tmp_path, data_dir=tmp_path)
    assert {run.folder.parts[-3] for run in plan(options)} == {"birds-small"}
    with pytest.raises(ValueError, match=r"datasets download cub"):
        plan(replace(options, data="real"))
    # Table 2 shows MNIST and needs no photographs, whatever --data is.
    real = Options(what=("table2",), data="real", runs=tmp_path, data_dir=tmp_path)
    assert all(run.folder.parts[-3] == "mnist" for run in plan(real))
    with pytest.raises(ValueError, match="DTRAM-Cars-v0's images are not there"):
        plan(replace(real, what=("table4",)))


def test_small_birds_stand_once_for_cub_and_cars(tmp_path: Path, capsys: Any) -> None:
    options = Options(what=("table3", "table4", "table5", "figure8"), runs=tmp_path, **NO_RUNS)
    assert options.keys == ()
    with pytest.raises(
        ValueError, match="nothing to make; without photographs there are table1, table2, "
    ):
        reproduce.reproduce(options)
    printed = capsys.readouterr().out
    for key in options.what:
        assert f"{key}: not made; it needs the photographs of c" in printed


def test_number_of_seeds_of_a_line() -> None:
    options = Options(seeds=3)
    lines = {line.name: line for line in tables.table("table2").lines}
    for name, count in (("RAM, 4 glimpses", 3), ("DT-RAM-1, its code", 3), ("RAM with ACT", 3)):
        assert list(reproduce.seeds_of(options, "table2", lines[name])) == list(range(count))
    assert list(reproduce.seeds_of(options, "table2", lines["Convolutional, 2 layers"])) == [0]
    for line in tables.table("table9", drawn=True).lines:
        assert list(reproduce.seeds_of(options, "table8", line)) == [0]
    assert not list(
        reproduce.seeds_of(options, "table3", tables.table("table3").lines[0])
    )  # only cited
    runs = plan(Options(what=("figure7",), data="drawn"))
    assert {run.folder.name for run in runs} == {"seed-0"}


def test_claims_are_of_these_protocols() -> None:
    found = protocols_of(Options(what=("claims",), data="drawn"), "claims")
    assert found == [MNIST, *ANYWHERE, BIRDS, *SCENES]


# -- records alone ---------------------------------------------------------------------------------


def test_a_fresh_clone_makes_the_committed_tables(tmp_path: Path) -> None:
    """Without runs or data, the committed records give every committed figure."""
    for path in COMMITTED.iterdir():
        shutil.copy(path, tmp_path)
    none = tmp_path / "none"
    what = tuple(path.stem for path in COMMITTED.glob("*.json") if path.stem in TITLES)
    options = Options(what=(*what, "curves"), runs=none, out=tmp_path, data_dir=none, **NO_RUNS)
    assert reproduce.reproduce(options)[-1].name == "curves.png"
    for path in COMMITTED.iterdir():
        if path.suffix == ".png":  # versions of matplotlib draw a little differently
            continue
        before, after = path.read_bytes(), (tmp_path / path.name).read_bytes()
        if path.stem in TITLES and path.suffix == ".json":
            before, after = read_json(path)["rows"], read_json(tmp_path / path.name)["rows"]
        elif path.suffix == ".md":
            before, after = before.rpartition(b"Made by")[0], after.rpartition(b"Made by")[0]
        assert before == after, path.name


def test_how_long_runs_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    record = {"protocol": "mnist", "system": "ram", "train_seconds": 5400.0}
    write_records(tmp_path / "tables" / "runs.jsonl", [record])
    runs = [MNIST.run(tmp_path, name, seed) for name in ("ram", "fc") for seed in (0, 1)]
    assert reproduce.estimate(runs[:2]) == "about 3.0 hours of one thread"
    expected = "about 3.0 hours of one thread, and 2 runs of which no time is on record"
    assert reproduce.estimate(runs) == expected


def test_a_table_without_our_figures_says_so(tmp_path: Path, capsys: Any) -> None:
    options = Options(what=("table2",), runs=tmp_path / "none", out=tmp_path, **NO_RUNS)
    reproduce.reproduce(options)
    assert "table2: published figures only; no run is in" in capsys.readouterr().out
    assert not any("ours" in row for row in read_json(tmp_path / "table2.json")["rows"])


def test_claims_are_made_of_the_evidence_on_record(tmp_path: Path) -> None:
    """The committed rows of one system again; then those of two seeds, which are the same run."""

    def of_birds(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            one for one in found if (one["protocol"], one["system"]) == ("birds-small", "dtram")
        ]

    records = of_birds(read_records(COMMITTED / claims.RECORDS))
    committed = of_birds(read_json(COMMITTED / "claims.json")["rows"])
    options = Options(what=("claims",), runs=tmp_path / "none", out=tmp_path, **NO_RUNS)

    def rows_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        write_records(tmp_path / claims.RECORDS, records)
        reproduce.reproduce(options)
        return read_json(tmp_path / "claims.json")["rows"]

    assert rows_of(records) == committed
    first = [record for record in records if record["seed"] == 0]
    one, two = rows_of(first), rows_of([*first, *({**record, "seed": 1} for record in first)])
    assert len(one) == len(two) == 3
    assert [row["error"] for row in two] == [row["error"] for row in one]
    assert [(row["seeds"], row["student_half_width"]) for row in two] == [(2, 0.0)] * 3


@pytest.mark.parametrize("what", ["claims", "curves", "figure7"])
def test_nothing_to_make_it_from_is_an_error(what: Any, tmp_path: Path) -> None:
    options = Options(what=(what,), runs=tmp_path, **NO_RUNS)
    with pytest.raises(ValueError, match=rf"{what}: no finished runs to make it from"):
        reproduce.reproduce(options)


def test_a_finished_run_of_another_command_is_an_error(tmp_path: Path) -> None:
    """It is found before anything is trained or written, with and without --read-only."""
    run = MNIST.run(tmp_path, "fc", 0)
    command = "python train/one_look.py --env-id DTRAM-MNIST-v0 --seed 0 --encoder conv"
    write_json(run.folder / "results.json", {"command": command})
    for read_only in (True, False):
        options = Options(what=("table2",), runs=tmp_path, read_only=read_only, device="cpu")
        with pytest.raises(ValueError, match=r"fc/seed-0: made with .*conv, expected .*mlp"):
            reproduce.reproduce(options)
    assert not options.folder.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": ("table10",)}, "table10: expected some of table1"),
        ({"seeds": 0}, "--seeds 0: expected at least 1"),
        ({"jobs": 0}, "--jobs 0: expected at least 1"),
        ({"out": Path(__file__)}, "--out .*expected a folder"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**changes)

"""What the README says is true: its numbers are in committed results, and its programs run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.paper.systems import TRUNKS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def results(path: str) -> Any:
    return json.loads((ROOT / path).read_text())


def test_every_row_of_results_is_in_its_json() -> None:
    """A row names its JSON file; error and glimpses in the row are that file's."""
    rows = re.findall(r"^\|.*\| ([\d.]+) \| ([\d.]+) \|.*\]\(([\w/.-]+\.json)\) \|$", README, re.M)
    assert len(rows) >= 2
    for glimpses, error, path in rows:
        found = results(path)
        candidates = [found, *found["fixed"].values(), *found["confidence"].values()]
        said = (float(glimpses), float(error))
        shown = [(round(c["mean_glimpses"], 2), round(c["test_error"], 2)) for c in candidates]
        assert said in shown, (path, said)


def test_the_means_are_table_2s() -> None:
    """Of each trunk a column, each cell as Table 2 has it."""
    rows = {row["system"]: row for row in results("benchmarks/results/tables/table2.json")["rows"]}
    block = README.split("| test error %, means of 3 seeds |")[1].split("\n\n")[0]
    talk = {"3.6": "DT-RAM-1"}
    *lines, second = block.splitlines()[2:]
    assert len(lines) == 4
    found = rows["DT-RAM-2"]
    cells = [cell.strip() for cell in second.split("|")[2:6]]
    conv = rows[f"DT-RAM, discount 0.999{TRUNKS['ram-conv']}"]
    ours = [f"{one['ours']:.2f} at {one['glimpses']:.2f}" for one in (found, conv)]
    assert cells == [
        f"{found['published']:.2f} at {found['published_glimpses']:g}",
        ours[0],
        "",
        ours[1],
    ]
    assert ("one seed" in second) == (found["seeds"] == conv["seeds"] == 1)
    for line in lines:
        label, published, *ours = (cell.strip() for cell in line.split("|")[1:-1])
        bound = re.search(r"at most ([\d.]+)", label)
        name = label if bound is None else f"DT-RAM at <= {bound[1]}"
        first = name if bound is None else talk.get(bound[1], name)
        for said, row in zip(
            ours, [first, *(name + of for of in list(TRUNKS.values())[1:])], strict=True
        ):
            found = rows[row]
            at = "" if bound is None else f" at {found['glimpses']:.2f}"
            assert said == f"{found['ours']:.2f} ± {found['spread']:.2f}{at}", row
            assert found["seeds"] == 3 and (not bound or found["glimpses"] <= float(bound[1]))
        value = rows[first].get("published")
        assert published.split(" ")[0] == ("" if value is None else f"{value:.2f}")


def test_what_is_said_of_the_claims() -> None:
    rows = results("benchmarks/results/tables/claims.json")["rows"]
    stops = [row for row in rows if row["against"] == "confidence threshold"]
    digits = [row for row in stops if row["data"] == "MNIST" and row["seeds"] > 1]
    three, four = (
        next(row for row in stops if row["protocol"] == name)
        for name in ("birds-small", "birds-small-4")
    )
    assert {row["seeds"] for row in (*digits, three, four)} == {3}
    said = " ".join(README.split())
    ends = [f(row["difference"] for row in digits) for f in (min, max)]
    assert f"errors differ by {ends[0]:.2f} to {ends[1]:+.2f} points, and no" in said
    assert f"reaches above {max(row['high'] for row in digits):+.2f}" in said
    for row, words in ((three, "points fewer with a budget of 3"), (four, "fewer with one of 4")):
        fewer = f"{-row['difference']:.2f} {words}"
        assert f"{fewer} ({-row['high']:.2f} to {-row['low']:.2f}" in said
    assert f"by the seeds alone, ± {four['half_of_students']:.2f})" in said


BENCHMARKS = (ROOT / "benchmarks/README.md").read_text()


def test_every_row_of_the_environment_benchmark_is_in_its_json() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d.]*) ?\|$", BENCHMARKS, re.M)
    figures = results("benchmarks/results/env_throughput.json")["figures"]
    shown = []
    for figure in figures:
        fraction = figure.get("fraction_of_gather")
        fraction = "" if fraction is None else f"{fraction:.2f}"
        shown.append((figure["name"], f"{figure['per_s']:,.0f}", fraction))
    assert rows == shown
    ratio = next(f["ratio_of_ours"] for f in figures if "ratio_of_ours" in f)
    assert f"is {ratio:.0f} times as fast" in BENCHMARKS


def test_every_row_of_the_training_benchmark_is_in_its_json() -> None:
    for row in results("benchmarks/results/train_throughput.json")["rows"]:
        line = (
            f"| {row['device']} | {row['images_per_second']:,} | "
            f"{row['flops_per_image'] / 1e6:.2f} | {row['achieved_gflops']} | "
            f"{row['fraction_of_matmul_rate'] * 100:.0f} % |"
        )
        assert line in BENCHMARKS.splitlines()


def test_every_row_of_the_sb3_benchmark_is_in_its_json() -> None:
    found = results("benchmarks/results/sb3_throughput.json")
    assert found["options"]["num_envs"] == 256
    names = {"steps_per_s": "stepping", "ppo_steps_per_s": "PPO, collection and update"}
    for key, name in names.items():
        ours, theirs = (found["figures"][env][key] for env in ("Sb3VecEnv", "DummyVecEnv"))
        line = f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} |"
        assert line in BENCHMARKS.splitlines()
    stepping, whole = (f"{found['ratio'][key]:.1f}" for key in names)
    said = " ".join(README.split())
    assert f"it steps {stepping} times as fast as SB3's `DummyVecEnv`" in said
    assert f"collection and update, is {whole} times as fast" in said


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "examples/README.md",
        "benchmarks/README.md",
        "benchmarks/results/search/README.md",
    ],
)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_run(number: int, mnist_folder: Path, run_python: Callable[..., str]) -> None:
    """Each program of the README runs as it stands, by itself; one that trains is shortened."""
    run_python("-c", PROGRAMS[number].replace("10_000", "300"))


SHIPPED = {
    "pretrained/mnist": ("MNIST", 10_000),
    "pretrained/mnist-dtram-conv-0": ("MNIST", 10_000),
    "pretrained/mnist-dtram-conv-1": ("MNIST", 10_000),
    "pretrained/mnist-dtram-conv-2": ("MNIST", 10_000),
    "pretrained/mnist-dtram-0": ("MNIST", 10_000),
    "pretrained/mnist-dtram-1": ("MNIST", 10_000),
    "pretrained/mnist-dtram-2": ("MNIST", 10_000),
    "pretrained/mnist-policy-only": ("MNIST", 10_000),
    "pretrained/birds-small": ("Birds (drawn)", 2_000),
}


@pytest.mark.parametrize(("folder", "data"), SHIPPED.items(), ids=SHIPPED)
def test_a_shipped_model_gives_its_number(
    folder: str, data: tuple[str, int], run_python: Callable[..., str]
) -> None:
    """``python train/evaluate.py pretrained/NAME --json``, as the README says."""
    said = run_python("train/evaluate.py", folder, "--json", "--device", "cpu")
    found, written = json.loads(said), results(f"{folder}/results.json")
    name, images = data
    assert (found["dataset"], found["split"], found["images"]) == (name, "test", images)
    # Another processor may round a sum otherwise and so change an image or two.
    assert found["test_error"] == pytest.approx(written["test_error"], abs=200 / images)
    assert found["mean_glimpses"] == pytest.approx(written["mean_glimpses"], abs=20 / images)
    assert found["differs_from_training"] <= 5


@pytest.mark.parametrize("folder", [*SHIPPED, "pretrained/mnist-classifier"])
def test_a_shipped_model_is_small(folder: str) -> None:
    assert (ROOT / folder / "model.safetensors").stat().st_size < 2_000_000


def test_every_row_of_the_birds_is_in_their_json() -> None:
    """The rows that the README shows, and the sentences' figures."""
    found = results("benchmarks/results/birds_small.json")
    block = README.split("<!-- birds -->")[1].split("<!-- /birds -->")[0]
    lines = [line for line in block.splitlines() if line.startswith("| ")][1:]
    assert len(lines) >= 5
    for line in lines:
        name, glimpses, flops, accuracy, seconds = (c.strip() for c in line.split("|")[1:-1])
        row = found["rows"][name.strip("*")]
        assert glimpses == f"{row['mean_glimpses']:.2f}"
        assert flops == f"{row['flops'] / 1e6:.1f}"
        assert accuracy.strip("*") == f"{row['test_accuracy']:.2f}"
        assert seconds == f"{row['train_seconds']:,.0f}"
    touched = found["touches"]
    for share in (touched["of_dtram"], touched["of_random"]):
        assert f"{100 * share:.0f} %" in block
    assert f"{found['over_one_look_of_the_same_compute']['points']:.1f} points" in block


def test_what_is_said_of_the_budget_of_four_and_of_deeper_networks() -> None:
    said = " ".join(README.split("<!-- birds -->")[1].split("<!-- /birds -->")[0].split())
    rows = {row["system"]: row for row in results("benchmarks/results/tables/table6.json")["rows"]}
    sact, three = rows["ResNet with SACT"], rows["DT-RAM"]
    fifth = {row["system"]: row for row in results("benchmarks/results/tables/table5.json")["rows"]}
    deep = fifth["ResNet-18, 128x128"]
    assert (
        f"eighth of the width has {deep['ours']:.2f} % at {deep['flops'] / 1e6:.1f} MFLOP" in said
    )
    assert f"(SACT) has {sact['ours']:.2f} % at {sact['flops'] / 1e6:.1f} MFLOP" in said
    assert f"budget 3 {three['ours']:.2f} % at {three['flops'] / 1e6:.1f}" in said
    budgets = {
        row["protocol"]: row
        for row in results("benchmarks/results/tables/claims.json")["rows"]
        if row["against"] == "whole budget"
    }
    three, claim = budgets["birds-small"], budgets["birds-small-4"]
    assert three["seeds"] == claim["seeds"] == 3 and "Means of 3 seeds" in said
    assert f"errs on {three['error']:.2f} % at {three['glimpses']:.2f} glimpses" in said
    assert f"on {three['other_error']:.2f} % with all three" in said
    assert f"{100 * three['fewer_glimpses']:.1f} % fewer glimpses" in said
    assert f"DT-RAM errs on {claim['error']:.2f} % at {claim['glimpses']:.2f} glimpses" in said
    assert f"on {claim['other_error']:.2f} % with all four" in said
    alone, whole = (
        next(run for run in rows[name]["runs"] if run["run"].endswith("seed-0"))
        for name in ("DT-RAM, budget of 4", "RAM, 4 glimpses, budget of 4")
    )
    errors = [f"{100 - run['value']:.2f} %" for run in (alone, whole)]
    assert f"seed 0 has {errors[0]} at {alone['glimpses']:.2f} against {errors[1]} with" in said
    assert f"{100 * claim['fewer_glimpses']:.1f} % fewer glimpses" in said
    assert f"{-claim['difference']:.2f} points fewer errors" in said
    assert f"({-claim['low']:.2f} fewer to {claim['high']:.2f} more at 95 % confidence)" in said


COMPARISONS = sorted((ROOT / "benchmarks/results/comparison").glob("*/results.json"))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.parent.name)
def test_every_row_of_a_comparison_is_in_its_json(path: Path) -> None:
    """Under the environment's name, in the order of their return, nobody left out."""
    rows = json.loads(path.read_text())["summary"]
    block = README.split("<!-- comparison -->")[1].split("<!-- /comparison -->")[0]
    table = block.split(f"| {path.parent.name} |")[1].split("\n\n")[0].splitlines()[2:]
    done = sorted((row for row in rows if row["seeds"]), key=lambda row: -row["mean_return"])
    assert len(done) == len(rows)
    for row, line in zip(done, table, strict=True):
        name, steps, error, glimpses, paid = (cell.strip() for cell in line.split("|")[1:-1])
        assert name.strip("*").split(" ")[0] == row["algo"]
        assert steps == f"{row['env_steps']:,.0f}"
        assert error == f"{row['test_error']:.2f} ± {row['test_error_interval']:.2f}"
        assert glimpses == f"{row['mean_glimpses']:.2f} ± {row['mean_glimpses_interval']:.2f}"
        assert paid == f"{row['mean_return']:.3f} ± {row['mean_return_interval']:.3f}"

"""The README is true: its programs run, its models give their numbers; results have origins."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.common.records import check_origin, read_records

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.S)
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED = {
    "mnist-conv": ("MNIST", 10_000),
    "mnist-map": ("MNIST", 10_000),
    "mnist": ("MNIST", 10_000),
    "mnist-policy-only": ("MNIST", 10_000),
    "birds-small": ("Birds (drawn)", 2_000),
    "scenes": ("Scenes (drawn)", 10_000),
    "translated": ("TranslatedMNIST", 10_000),
    "cluttered": ("ClutteredMNIST", 10_000),
    "cluttered-100": ("ClutteredMNIST100", 10_000),
}
STOPS = [
    (name, stop)
    for name in SHIPPED
    for stop in json.loads((ROOT / f"pretrained/{name}/model.json").read_text()).get("stops", [""])
]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_run(number: int, mnist_folder: Path, run_python: Callable[..., str]) -> None:
    """Each program of the README runs as it stands, by itself; one that trains is shortened."""
    run_python("-c", PROGRAMS[number].replace("10_000", "300"))


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (number > 0))
        for number, case in enumerate(STOPS)
    ],
)
def test_a_shipped_model_gives_its_number(
    name: str, stop: str, mnist_folder: Path, run_python: Callable[..., str]
) -> None:
    """``python train/evaluate.py pretrained/NAME --stop STOP --json``, as its results say."""
    folder = f"pretrained/{name}"
    words = ["--stop", stop] if stop else []
    said = run_python("train/evaluate.py", folder, *words, "--json", "--device", "cpu")
    default = json.loads((ROOT / folder / "model.json").read_text()).get("default_stop", "")
    file = "results.json" if stop == default else f"results-{stop}.json"
    found, written = json.loads(said), json.loads((ROOT / folder / file).read_text())
    data, images = SHIPPED[name]
    assert (found["dataset"], found["split"], found["images"]) == (data, "test", images)
    # Another processor may round a sum otherwise and so change an image or two.
    assert found["test_error"] == pytest.approx(written["test_error"], abs=200 / images)
    assert found["mean_glimpses"] == pytest.approx(written["mean_glimpses"], abs=20 / images)
    assert found["differs_from_training"] <= 5


def test_shipped_models_are_small_and_each_is_one_network() -> None:
    folders = {path.name for path in (ROOT / "pretrained").iterdir()}
    classifiers = {"mnist-classifier", "cluttered-classifier", "birds-small-classifier"}
    assert folders == {*SHIPPED, *classifiers, "birds-small-look", "scenes-look"}
    for path in (ROOT / "pretrained").glob("*/*.safetensors"):
        assert path.stat().st_size < 2_000_000


def test_the_readme_and_the_training_program_are_short() -> None:
    assert len(README.splitlines()) <= 160
    program = (ROOT / "train" / "reinforce.py").read_text(encoding="utf-8")
    assert len(program.splitlines()) <= 400


def _records() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(RESULTS.rglob("*.json*")):
        name = str(path.relative_to(RESULTS))
        if path.suffix == ".jsonl":
            lines = enumerate(read_records(path), start=1)
            found |= {f"{name}, line {number}": record for number, record in lines}
        else:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_result_says_how_it_was_made() -> None:
    """Command, commit without changes, date, versions and hardware; few files."""
    records = _records()
    assert len(records) > 50
    for name, record in records.items():
        check_origin(record, name)
    files = [path for path in RESULTS.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(files) <= 90

"""The facts of a result: every committed record has them, and a bad one is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.baselines import facts
from train.baselines.facts import FACTS, REQUIRED, contradiction, problem, read_results
from train.common.records import HERE, RESULTS

COMMITTED = [
    path
    for folder in ("comparison", "suite", "leaderboard")
    for path in sorted((RESULTS / folder).glob("*.jsonl"))
]
LINK = "https://example.org/their/code"
SENT: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "algo": "theirs",
    "seed": 0,
    "source": LINK,
    "track": "whole-task",
    "learns_from": "reward",
    "dataset": "Signpost",
    "split": "test",
    "images": 2000,
    "test_error": 50.0,  # half of 2,000 images pay 0.98 ** 2
    "mean_glimpses": 2.0,
    "mean_return": 0.4802,
    "env_steps": 300_000,
}
"""A record of the required facts only."""


def changed(**changes: Any) -> dict[str, Any]:
    """`SENT` with other values; a key with the value ... is missing."""
    return {key: value for key, value in {**SENT, **changes}.items() if value is not ...}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_committed_record_fits(path: Path, mnist_folder: Path) -> None:
    for number, record in enumerate(read_results(path), start=1):
        if "problem" not in record:
            found = contradiction({"source": HERE, **record})
            assert found is None, f"line {number}: {found}"


def test_a_record_of_the_required_facts_fits() -> None:
    assert problem(SENT) is None and contradiction(SENT) is None
    assert SENT.keys() == REQUIRED | {"source", "env_steps"}
    nothing = {key: None for key in FACTS.keys() - SENT.keys()}
    assert problem(SENT | nothing) is None and contradiction(SENT | nothing) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_eror": 1.0}, "test_eror: unknown key; expected some of env_id, algo, seed"),
        *[({key: ...}, f"{key}: missing; expected ") for key in sorted(REQUIRED)],
        ({"algo": None}, "algo: missing; expected name of the algorithm"),
        ({"seed": "0"}, "seed='0': expected an integer (seed of the run)"),
        ({"seed": -1}, "seed=-1: expected from 0 to 2,147,483,647"),
        ({"split": "validation"}, "split='validation': expected one of 'test'"),
        ({"track": "both"}, "track='both': expected one of 'policy-only', 'whole-task'"),
        ({"learns_from": "label"}, "learns_from='label': expected one of 'nothing', 'reward'"),
        ({"test_error": 101}, "test_error=101: expected from 0 to 100 (test error in percent)"),
        ({"mean_return": True}, "mean_return=True: expected a number"),
        ({"curve": [{"env_steps": 0}]}, "curve[0].error: missing or unknown"),
        ({"histogram": [1, 0.5]}, "histogram[1]=0.5: expected an integer"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "sent.jsonl"
    lines = [json.dumps(record) for record in (SENT, changed(**changes))]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}, line 2: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "DTRAM-Signpost"}, "env_id='DTRAM-Signpost': expected one of DTRAM-MNIST-v0"),
        ({"env_id": "DTRAM-ImageFolder-v0"}, "env_id='DTRAM-ImageFolder-v0': expected one of"),
        ({"track": "policy-only"}, "track='policy-only': expected 'whole-task', that of DTRAM-S"),
        ({"dataset": "MNIST"}, "dataset='MNIST': expected 'Signpost'"),
        (
            {"env_id": "DTRAM-CUB-v0", "dataset": "Birds (drawn)"},
            "dataset='Birds (drawn)': expected 'CUB-200-2011'; no stand-in has a row",
        ),
        ({"images": 1999}, "images='1999': expected 2000, the test split of DTRAM-Signpost-v0"),
        ({"mean_glimpses": 4.1}, "mean_glimpses='4.1': expected at most the budget of DTRAM-S"),
        # Half of the images are right, so the return is from 0.5 * 0.98 ** 4 to 0.5 * 0.98.
        ({"mean_return": 0.491}, "mean_return='0.491': expected from 0.4612 to 0.4900: 50 % are"),
        ({"mean_return": 0.46}, "mean_return='0.46': expected from 0.4612 to 0.4900"),
        ({"histogram": [0, 2000]}, "histogram='[0, 2000]': expected 4 numbers"),
        ({"histogram": [0, 1999, 0, 0]}, "histogram='[0, 1999, 0, 0]': expected 2000 images"),
        ({"histogram": [2000, 0, 0, 0]}, "histogram='[2000, 0, 0, 0]': expected 2000 images with"),
        ({"env_options": {"discount": 0.9}}, "env_options=\"{'discount': 0.9}\": expected disc"),
        ({"hyperparameters": {"env": {"num_scales": 2}}}, "env_options='None': expected num_sc"),
        ({"classifier": "mine-0123"}, "classifier='mine-0123': expected None"),
        ({"env_steps": None}, "env_steps='None': expected the number of glimpses learned from"),
        ({"source": None}, "source='None': expected a link, or 'this repository'"),
        ({"source": "their code"}, "source='their code': expected a link"),
        ({"source": f"{LINK}) | x"}, "source='https://example.org/their/code) | x': expected"),
        ({"source": "https://example.org\\"}, "source='https://example.org"),
        ({"accuracy": 0.99}, "accuracy='0.99': expected 0.5, as test_error has it"),
        ({"error": 0.01}, "error='0.01': expected 0.5, as test_error has it"),
        ({"command": "x`\n\n<img>"}, "command="),
        ({"trunk": {"command": "`"}}, "trunk="),
        ({"algo": "a "}, "algo='a ': expected letters"),
        ({"algo": "a | b"}, "algo='a | b': expected letters, digits, spaces"),
    ],
)
def test_a_record_that_contradicts_its_id_is_named(changes: dict[str, Any], message: str) -> None:
    found = contradiction(changed(**changes))
    assert found is not None and found.startswith(message)


def test_another_view_and_runs_of_this_repository_that_did_not_count() -> None:
    shown = {"hyperparameters": {"env": {"view": "discrete", "grid": 4}, "lr": 1}}
    assert contradiction(changed(**shown, histogram=[0, 2000, 0, 0])) is None
    assert contradiction(changed(hyperparameters={"env": "CartPole"})) is None
    assert contradiction(changed(env_steps=None, source=HERE)) is None
    rounded = 0.5 * 0.98**4 - 0.5e-4
    assert contradiction(changed(mean_return=rounded, mean_glimpses=4)) is None


def test_the_images_of_the_policy_only_id_and_of_a_stand_in(mnist_folder: Path) -> None:
    counts = {"DTRAM-MNIST-Policy-v0": 10_000, "DTRAM-CUB-v0": 5_794, "DTRAM-Patience-v0": 2_240}
    assert {env_id: facts.count_test_images(env_id) for env_id in counts} == counts

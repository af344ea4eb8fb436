"""The program that trains the classifier of a policy-only environment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents.dtram import DTRAM
from agents.policy_only import FrozenClassifier
from dtram_env import GlimpseEnv, RandomPolicy, evaluate
from train import classifier
from train.classifier import RandomLooks, random_errors
from train.common.training_task import Task
from train.dtram.stages import NEVER


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("DTRAM-Signpost-v0", torch.device("cpu"))


def test_the_folder_is_a_classifier_that_an_environment_takes(small_classifier: Path) -> None:
    frozen = FrozenClassifier.load(small_classifier)
    env = GlimpseEnv("Signpost", classifier=frozen, split="test", max_glimpses=4)
    observation, _ = env.reset(options={"image_index": 5})
    assert set(env.action_space.spaces) == {"location", "stop"}  # type: ignore[attr-defined]
    network = DTRAM.load(small_classifier)
    with torch.no_grad():
        state = network.look(
            torch.tensor(observation["glimpse"])[None], torch.zeros(1, 2), network.initial(1)
        )
        expected = torch.softmax(network.classifier(state.h), -1)[0]
    np.testing.assert_allclose(observation["probs"], expected, rtol=1e-5)


def test_results_are_the_errors_of_the_saved_weights(small_classifier: Path, task: Task) -> None:
    results = json.loads((small_classifier / "results.json").read_text())
    errors = random_errors(task, DTRAM.load(small_classifier), task.images("test"))
    assert results["error_after_random_glimpses"] == {
        str(t): pytest.approx(100 * error, abs=1e-4) for t, error in enumerate(errors, start=1)
    }
    assert results["dataset"] == "Signpost" and results["split"] == "test"
    assert results["images"] == 2000 and results["options"]["seed"] == 0
    assert {"command", "commit", "versions", "hardware", "train_seconds"} <= set(results)
    assert DTRAM.load(small_classifier).stopping.threshold == NEVER  # type: ignore[attr-defined]


def test_random_errors_are_the_environments_and_repeat(
    small_classifier: Path, task: Task, policy_id: str
) -> None:
    network, images = DTRAM.load(small_classifier), task.images("validation")
    errors = random_errors(task, network, images)
    torch.rand(7)  # whatever else was drawn in between
    assert random_errors(task, network, images) == errors
    assert random_errors(task, network, images, seed=1) != errors
    # The same classifier played at random places: 600 images, so within four standard errors.
    found = evaluate(
        RandomPolicy(None, stop_after=4), policy_id, "validation", first_glimpse="random"
    )
    assert found.error == pytest.approx(errors[3], abs=4 * (2 * 0.25 / 600) ** 0.5)


def test_the_loss_is_the_cross_entropy_after_every_glimpse(task: Task, classifier_options) -> None:
    torch.manual_seed(0)
    network = task.new_agent(hidden_size=8)
    stage = RandomLooks(task, network, classifier_options(augment=0.0, m=3))
    rows = torch.tensor([4, 9])
    torch.manual_seed(5)
    found = stage.loss(rows)
    torch.manual_seed(5)
    locations = torch.rand(4, 6, 2) * 2 - 1
    train = task.images("train")
    index = rows.repeat_interleave(3)
    state, picked = network.initial(6), []
    for location in locations:
        state = network.look(task.sensor(train.store, index, location), location, state)
        log_p = torch.log_softmax(network.classifier(state.h), -1)
        picked += [log_p[b, train.labels[index[b]]] for b in range(6)]
    torch.testing.assert_close(found.total, -torch.stack(picked).mean())
    assert stage.env_steps_per_batch == 180 * 3 * 4
    learned = {id(p) for p in stage.parameters()}
    names = {name.split(".")[0] for name, p in network.named_parameters() if id(p) in learned}
    assert names == {"encoder", "core", "classifier"}


@pytest.mark.parametrize("batches", [10, 29, 45])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, interrupted, classifier_options, small_classifier: Path, batches: int, capsys
) -> None:
    """Cut within an epoch, and at an epoch's end."""
    cut = tmp_path / "cut"
    interrupted(classifier, lambda: classifier.train(classifier_options(run_dir=cut)), batches)
    assert "To go on: " in (said := capsys.readouterr().err)
    assert re.search(rf"train/classifier\.py .*--run-dir {cut} --resume", said)
    classifier.train(classifier_options(run_dir=cut, resume=True))
    before, after = (load_file(f / "model.safetensors") for f in (small_classifier, cut))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_finished_run_is_not_trained_again(
    small_classifier: Path, classifier_options, capsys
) -> None:
    before = (small_classifier / "model.safetensors").stat().st_mtime_ns
    classifier.train(classifier_options(run_dir=small_classifier, resume=True))
    assert (small_classifier / "model.safetensors").stat().st_mtime_ns == before
    assert f"{small_classifier}: finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 6000}, "--batch-size 6000: expected at most 5400, the split"),
        ({"env_id": "CartPole-v1"}, "environment 'CartPole-v1': expected one of this package's"),
        ({"env_id": "DTRAM-Signpost-Policy-v0"}, "it has a classifier in the loop already"),
    ],
)
def test_options_that_do_not_fit_the_task_are_errors(
    tmp_path: Path, policy_id: str, classifier_options, changes, message
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        classifier.train(classifier_options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"epochs": 0}, "--epochs 0: expected at least 1"), ({"resume": True}, "--resume: expected")],
)
def test_impossible_options_are_errors(classifier_options, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        classifier_options(**changes)

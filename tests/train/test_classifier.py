"""The program that trains the classifier of a policy-only environment."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from agents.dtram import DTRAM
from agents.stopping import FixedStop
from dtram_env import RandomPolicy, evaluate
from tests.train.conftest import SMALL
from tests.train.runs import assert_same_run, metrics, read
from train.classifier import Options, errors_of_random_glimpses, train
from train.common.augment import Augmentation
from train.common.options import PlainEncoder, ResNetEncoder
from train.common.training import epoch_order
from train.common.training_task import TrainingTask


def options(**changes: Any) -> Options:
    return Options(**{**SMALL, **changes})


def test_results_are_the_errors_of_the_saved_weights(
    small_classifier: Path, signpost: TrainingTask
) -> None:
    results, network = read(small_classifier), DTRAM.load(small_classifier)
    errors = errors_of_random_glimpses(signpost, network, signpost.images("test"))
    assert results["error_after_random_glimpses"] == {
        str(t): pytest.approx(100 * error, abs=1e-4) for t, error in enumerate(errors, start=1)
    }
    assert results["dataset"] == "Signpost" and results["split"] == "test"
    assert results["images"] == 2000 and results["options"]["seed"] == 0
    assert {"command", "commit", "versions", "hardware", "train_seconds"} <= set(results)
    assert network.stopping.threshold == 1.0  # type: ignore[attr-defined]  # never


def test_errors_of_random_glimpses_are_the_environments_and_repeat(
    small_classifier: Path, signpost: TrainingTask, policy_id: str
) -> None:
    network, images = DTRAM.load(small_classifier), signpost.images("validation")
    errors = errors_of_random_glimpses(signpost, network, images)
    torch.rand(7)  # the global generator does not matter
    assert errors_of_random_glimpses(signpost, network, images) == errors
    assert errors_of_random_glimpses(signpost, network, images, seed=1) != errors
    # Random locations in the environment; within four standard errors of 600 images.
    policy = RandomPolicy(None, stop_after=4)
    found = evaluate(policy, policy_id, "validation", first_glimpse="random")
    assert found.error == pytest.approx(errors[3], abs=4 * (2 * 0.25 / 600) ** 0.5)


def test_a_thumbnail_is_read_where_the_environment_shows_it() -> None:
    """Whatever location is drawn for the first glimpse."""
    sensor = {"first_glimpse": "thumbnail", "data": "real"}
    task = TrainingTask("DTRAM-Signpost-v0", torch.device("cpu"), **sensor)
    torch.manual_seed(0)
    network = task.new_agent(encoder="mlp")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)  # the answer depends on the location
    network.stopping = FixedStop(1)
    first, *_ = errors_of_random_glimpses(task, network, task.images("validation"))
    found = evaluate(network, "DTRAM-Signpost-v0", "validation", **sensor)
    assert first == pytest.approx(found.error, abs=1e-6)


def test_the_loss_is_the_cross_entropy_after_every_glimpse(
    tmp_path: Path, signpost: TrainingTask
) -> None:
    """A run of one batch logs the loss of its first weights, on random trajectories."""
    plain = Augmentation(affine=0.0)
    run = train(options(run_dir=tmp_path / "run", epochs=1, batch_size=2701, augment=plain, m=3))
    torch.manual_seed(0)
    mean, std = signpost.pixel_scale()
    network = signpost.new_agent(encoder="mlp", pixel_mean=mean, pixel_std=std)
    locations = torch.rand(4, 3 * 2701, 2) * 2 - 1
    images = signpost.images("train")
    index = epoch_order(0, 0, 0, 5400)[:2701].repeat_interleave(3)
    state, labels, losses = network.initial(len(index)), images.labels[index], []
    with torch.no_grad():
        for location in locations:
            glimpse = signpost.sensor(images.store, index, location)
            state = network.observe(glimpse, location, state)
            logits = network.classifier(state.h)
            losses.append(cross_entropy(logits, labels))
    (row,) = metrics(run)
    assert row["train/loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    right = float((logits.argmax(-1) == labels).double().mean())
    assert row["rollout/success_rate"] == pytest.approx(right, abs=1e-3)
    assert row["time/total_timesteps"] == 2701 * 3 * 4
    before, after = network.state_dict(), DTRAM.load(run).state_dict()
    learned = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert learned == {"encoder", "core", "classifier"}


@pytest.mark.parametrize(
    "batches", [45, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 29))]
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, interrupted, small_classifier: Path, batches: int, capsys
) -> None:
    """Interrupted within the second epoch, within the first, and at its end."""
    cut = tmp_path / "cut"
    interrupted(lambda: train(options(run_dir=cut)), batches)
    said = capsys.readouterr().err
    assert re.search(rf"To go on: .*train/classifier\.py .*--run-dir {cut} --resume", said)
    train(options(run_dir=cut, resume=True))
    assert_same_run(small_classifier, cut)


def test_a_finished_run_is_not_trained_again(small_classifier: Path, capsys) -> None:
    before = (small_classifier / "model.safetensors").stat().st_mtime_ns
    train(options(run_dir=small_classifier, resume=True))
    assert (small_classifier / "model.safetensors").stat().st_mtime_ns == before
    assert f"{small_classifier}: finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 6000}, "--batch-size 6000: expected at most 5400"),
        ({"env_id": "DTRAM-Signpost-Policy-v0"}, "expected the id of the whole task, without 'Pol"),
    ],
)
def test_options_that_do_not_fit_the_task_are_errors(
    tmp_path: Path, policy_id: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train(options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"m": 0}, "--m 0: expected at least 1"),
        (lambda: {"bf16": True}, "--encoder mlp: expected mlp, conv, cnn or a residual one"),
        (lambda: {"encoder": PlainEncoder("pixels")}, "--encoder pixels: expected mlp"),
        (lambda: {"encoder": ResNetEncoder(per_step=True)}, "a residual one without per_step"),
    ],
)
def test_impossible_options_are_errors(make: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        options(**make())

"""The program that trains one-look networks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agents.one_look import OneLook, one_look_flops, side_of_flops
from dtram_env.datasets.storage.thumbnails import box_resize
from train import one_look
from train.common.evaluate_one_look import look_at_all
from train.common.optimizers import make_optimizer
from train.common.options import AugmentOptions, NetworkOptions, OptimizerOptions, TaskOptions
from train.common.training_task import Task
from train.dtram.stages import NEVER
from train.one_look import OneLookStage, Options, network_config, new_network, train

SMALL: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "hidden_size": 24,
    "side": 14,
    "epochs": 2,
    "batch_size": 180,
    "learning_rate": 5e-3,
    "device": "cpu",
}


def options(**changes: Any) -> Options:
    return Options(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("DTRAM-Signpost-v0", torch.device("cpu"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(options(run_dir=tmp_path_factory.mktemp("runs") / "one-look"))


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


# -- the run --------------------------------------------------------------------------------------


def test_results_are_those_of_the_saved_weights(finished: Path, task: Task) -> None:
    network, results = OneLook.load(finished), results_of(finished)
    test = task.images("test")
    shrunk = torch.from_numpy(box_resize(np.asarray(test.data.images), 14))
    with torch.no_grad():
        prediction = network(shrunk).argmax(-1)
    wrong = (prediction != test.labels).double().mean().item()
    assert results["test_error"] == pytest.approx(100 * wrong, abs=1e-4)
    kept = load_file(finished / "test_images.safetensors")["prediction"]
    assert torch.equal(kept.long(), prediction)
    assert (results["images"], results["split"], results["dataset"]) == (2000, "test", "Signpost")
    assert (results["side"], results["encoder"]) == (14, "mlp")
    assert results["flops"] == one_look_flops(network)
    assert results["parameters"] == sum(p.numel() for p in network.parameters())
    assert {"command", "commit", "versions", "hardware", "images_per_second"} <= set(results)
    assert results["options"]["decay_norms"] is False
    assert json.loads((finished / "model.json").read_text())["env_id"] == "DTRAM-Signpost-v0"
    text = (finished / "results.txt").read_text()
    assert f"test error {results['test_error']:.2f} %" in text and "14x14" in text


def test_the_weights_are_those_with_the_lowest_validation_error(finished: Path) -> None:
    rows = [json.loads(r) for r in (finished / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    best = min(100 * (1 - row["eval/accuracy"]) for row in rows)
    assert results_of(finished)["validation"]["error"] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("looks", [5, 31])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, interrupted: Callable[..., None], finished: Path, looks: int
) -> None:
    """Cut within the first epoch, and within the second."""
    cut = tmp_path / "cut"
    interrupted(one_look, lambda: train(options(run_dir=cut)), looks)
    assert not (cut / "results.json").exists()
    train(options(run_dir=cut, resume=True))
    before, after = load_file(finished / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert results_of(cut)["test_error"] == results_of(finished)["test_error"]
    assert not list(cut.glob("checkpoint-*"))


def test_the_interrupted_program_names_itself(
    tmp_path: Path, interrupted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(one_look, lambda: train(options(run_dir=tmp_path / "cut")), 5)
    assert re.search(r"To go on: \S+ train/one_look\.py .*--resume", capsys.readouterr().err)


def test_a_finished_run_is_read_and_another_side_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(options(run_dir=finished, resume=True)) == finished
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--side \(14 then, 15 now\)"):
        train(options(run_dir=finished, resume=True, side=15))


# -- what it learns from --------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_shrunk_images(task: Task) -> None:
    network, _ = new_network(options(augment=0), task)
    stage = OneLookStage(task, network, options(augment=0))
    rows = torch.tensor([5, 0, 77])
    losses = stage.loss(rows)
    train_images = task.images("train")
    pixels = np.asarray(train_images.data.images)[rows.numpy()]
    log_p = torch.log_softmax(network(torch.from_numpy(box_resize(pixels, 14))), dim=-1)
    right = log_p[torch.arange(3), train_images.labels[rows]]
    torch.testing.assert_close(losses.total, -right.mean())
    assert float(losses.mean_glimpses) == 1


def test_whole_images_change_and_then_are_shrunk(task: Task) -> None:
    changed = options(augment=1.0, flip=True)
    network, _ = new_network(changed, task)
    stage, rows = OneLookStage(task, network, changed), torch.arange(8)
    torch.manual_seed(3)
    seen = stage._seen(rows)
    torch.manual_seed(3)
    pixels, _ = task.images("train").pixels(rows)
    whole = changed.augmentation()(pixels, None)
    assert not torch.equal(whole, pixels)
    assert np.array_equal(seen.numpy(), box_resize(whole.numpy(), 14))


def test_nothing_is_drawn_at_random_without_augmentation(task: Task) -> None:
    network, _ = new_network(options(augment=0), task)
    stage = OneLookStage(task, network, options(augment=0))
    before = torch.get_rng_state()
    stage._seen(torch.arange(8))
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_judges_by_error_then_by_loss(task: Task) -> None:
    network, _ = new_network(options(), task)
    verdict = OneLookStage(task, network, options()).judge()
    images = task.images("validation")
    logits = look_at_all(network, images)
    error = (logits.argmax(-1) != images.labels).double().mean().item()
    loss = torch.nn.functional.cross_entropy(logits, images.labels).item()
    assert verdict.criterion == pytest.approx((error, loss))
    assert verdict.threshold == NEVER


def test_weight_decay_spares_norms_and_biases(task: Task) -> None:
    given = options(encoder="resnet10", resnet_width=8, small_stem=True, weight_decay=0.3)
    network, _ = new_network(given, task)
    groups = make_optimizer(network, 1.0, given).param_groups
    decayed = {p.dim() > 1: g["weight_decay"] for g in groups for p in g["params"]}
    assert decayed == {True: 0.3, False: 0.0}


# -- the side -------------------------------------------------------------------------------------


def side(task: Task, **changes: Any) -> int:
    return new_network(options(**changes), task)[0].config.image_shape[0]


def test_side_by_option_by_default_and_by_operations(task: Task) -> None:
    own = task.images("train").data.typical_size[0]
    assert side(task, side=9) == 9
    assert side(task, side=0) == side(task, side=None) == own
    thumbnail = Task("DTRAM-Signpost-v0", torch.device("cpu"), first_glimpse="thumbnail")
    assert side(thumbnail, side=None) == thumbnail.look.glimpse_size
    flops = 2 * (12 * 12 * 24 + 24 * 24 + 24 * len(task.class_names))
    assert side(task, side=None, flops=flops) == 12
    assert side(task, side=None, flops=flops + 1) == 13


def test_like_takes_a_dtrams_operations_and_width(task: Task, finished_run: Path) -> None:
    mean_flops = results_of(finished_run)["mean_flops"]
    given = options(side=None, hidden_size=None, like=finished_run)
    network, _ = new_network(given, task)
    config, flops = network_config(given, task)
    assert (network.config.encoder, network.config.hidden_size) == ("mlp", 24)
    assert flops == mean_flops
    found = network.config.image_shape[0]
    assert found == side_of_flops(config, mean_flops)
    assert one_look_flops(network) >= mean_flops > one_look_flops(OneLook(config.at(found - 1)))
    assert side(task, side=0, like=finished_run) == task.images("train").data.typical_size[0]


def test_like_takes_the_layers_of_a_cnn(tmp_path: Path, task: Task) -> None:
    agent = task.new_agent(encoder="cnn", hidden_size=16)
    agent.save(tmp_path, **task.metadata)
    (tmp_path / "results.json").write_text(json.dumps({"mean_flops": 1e6}))
    given = options(side=20, hidden_size=None, encoder="cnn", like=tmp_path)
    network, _ = new_network(given, task)
    assert network.config.made_for == task.sensor.glimpse_size
    ours = {k: v.shape for k, v in network.encoder.state_dict().items() if not k.startswith("join")}
    theirs = {k: v.shape for k, v in agent.encoders()[0].state_dict().items()}
    assert ours.items() <= theirs.items()


def test_like_another_task_or_an_unfinished_run_is_an_error(
    tmp_path: Path, task: Task, finished_run: Path
) -> None:
    other = Task("DTRAM-Signpost-v0", torch.device("cpu"))
    other.env_id = "DTRAM-MNIST-v0"
    with pytest.raises(ValueError, match="--env-id DTRAM-MNIST-v0: expected DTRAM-Signpost-v0"):
        network_config(options(like=finished_run), other)
    other = Task("DTRAM-Signpost-v0", torch.device("cpu"))
    other.env_options["num_classes"] = 5
    with pytest.raises(ValueError, match="--num-classes 5: expected not given, as --like"):
        network_config(options(like=finished_run), other)
    task.new_agent().save(tmp_path, **task.metadata)
    with pytest.raises(ValueError, match=r"results\.json is missing"):
        network_config(options(like=tmp_path), task)
    with pytest.raises(ValueError, match="--encoder conv: expected mlp with the options of"):
        network_config(options(like=finished_run, encoder="conv"), task)


def test_too_large_a_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--batch-size 10000: expected at most 5400, the split"):
        train(options(batch_size=10_000, run_dir=tmp_path / "run"))


def test_policy_only_ids_are_refused(tmp_path: Path, policy_id: str) -> None:
    with pytest.raises(ValueError, match="without 'Policy'"):
        train(options(env_id=policy_id, run_dir=tmp_path / "run"))


# -- options --------------------------------------------------------------------------------------


def test_options_of_all_programs_are_taken() -> None:
    names = {field.name for field in fields(Options)}
    for kind in (TaskOptions, NetworkOptions, AugmentOptions, OptimizerOptions):
        assert names >= {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "--epochs 0: expected at least 1"),
        ({"side": -1}, "--side -1: expected 0 or more"),
        ({"flops": 1e6}, "--flops 1000000.0: expected none beside --side"),
        ({"side": None, "flops": 0.0}, "--flops 0.0: expected a positive number"),
        ({"hidden_size": 0}, "--hidden-size 0: expected at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"resnet_order": "pre"}, "--resnet-order pre: expected post, unless"),
        ({"resume": True}, "--resume: expected with --run-dir"),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        options(**changes)

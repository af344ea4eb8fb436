"""The program that trains one-look networks: what it learns from, its side, resuming, halting."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from agents.halting.act_resnet import ACTResNet
from agents.halting.sact import SACTResNet
from agents.loading import load_one_look
from agents.one_look import OneLook, one_look_flops
from dtram_env.datasets.storage.thumbnails import box_resize
from tests.train.pages import Page
from tests.train.runs import assert_same_run, metrics, read
from train.common.augment import Augmentation
from train.common.evaluate_one_look import halting_cost, logits_and_rate
from train.common.one_look_networks import RECIPES, HaltingBlocks, NoHalting, new_network
from train.common.optimizers import one_cycle
from train.common.options import AdamW, PlainEncoder, ResNetEncoder, command_line
from train.common.training import epoch_order
from train.common.training_task import TrainingTask
from train.one_look import Options, shrunk_images, train

CPU = torch.device("cpu")
PLAIN = Augmentation(affine=0.0)
NARROW = ResNetEncoder("resnet10", width=8, stem_stride=1)
SMALL: dict[str, Any] = {
    "env_id": "DTRAM-Signpost-v0",
    "side": 14,
    "epochs": 2,
    "batch_size": 600,
    "learning_rate": 5e-3,
    "device": "cpu",
}
ONE_BATCH: dict[str, Any] = {"epochs": 1, "batch_size": 2800, "augment": PLAIN}
"""A run whose only batch has more than half of the images."""
HALTING: dict[str, Any] = {
    "encoder": ResNetEncoder("resnet34", width=8, stem_stride=1),
    "side": 8,
    "epochs": 1,
    "batch_size": 900,
    "augment": PLAIN,
}


def options(**changes: Any) -> Options:
    return Options(**{**SMALL, **changes})


def network_of(task: TrainingTask, **changes: Any) -> OneLook | ACTResNet:
    """An untrained network; see `new_network`."""
    settings = {"side": 14, "bf16": False, "seed": 0, **changes}
    encoder = settings.pop("encoder", PlainEncoder())
    return new_network(task, encoder, settings.pop("halting", NoHalting()), **settings)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(options(run_dir=tmp_path_factory.mktemp("runs") / "one-look"))


# -- the run ----------


def test_results_are_those_of_the_saved_weights(finished: Path, signpost: TrainingTask) -> None:
    network, results = load_one_look(finished), read(finished)
    assert type(network) is OneLook
    test = signpost.images("test")
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
    assert json.loads((finished / "model.json").read_text())["env_id"] == "DTRAM-Signpost-v0"
    text = (finished / "results.txt").read_text()
    assert f"test error {results['test_error']:.2f} %" in text and "14x14" in text
    page = Page(finished / "report.html")
    assert f"Test error {results['test_error']:.2f} %" in page.text and "Confusion" in page.text
    assert [one["aria-label"].split(" by")[0] for one in page.named("svg")] == [
        "error %",
        "training loss",
    ]
    assert sum(one.get("aria-label", "").startswith("Test") for one in page.named("article")) > 24
    assert "Where it looked" not in page.text and f"{results['flops']:,}" in page.text


def test_the_weights_are_those_with_the_lowest_validation_error(finished: Path) -> None:
    rows = metrics(finished)
    assert [row["time/total_timesteps"] for row in rows] == [5400, 10800]  # one look an image
    best = min(100 * (1 - row["eval/accuracy"]) for row in rows)
    assert read(finished)["validation"]["error"] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("batches", [12, pytest.param(4, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, interrupted: Callable[..., None], finished: Path, batches: int, capsys
) -> None:
    """Interrupted within the second epoch, and within the first."""
    cut = tmp_path / "cut"
    interrupted(lambda: train(options(run_dir=cut)), batches)
    assert not (cut / "results.json").exists()
    assert re.search(r"To go on: \S+ train/one_look\.py .*--resume", capsys.readouterr().err)
    train(options(run_dir=cut, resume=True))
    assert_same_run(finished, cut)
    assert read(cut)["test_error"] == read(finished)["test_error"]
    assert not list(cut.glob("checkpoint-*"))


def test_a_finished_run_is_read_and_another_side_refused(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(options(run_dir=finished, resume=True)) == finished
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--side \(14 then, 15 now\)"):
        train(options(run_dir=finished, resume=True, side=15))


# -- what it learns from ----------


@pytest.mark.parametrize("halting", [NoHalting(), HaltingBlocks("act", ponder_cost=0.25)])
def test_the_loss_is_the_cross_entropy_of_shrunk_images(
    tmp_path: Path, signpost: TrainingTask, halting: NoHalting | HaltingBlocks
) -> None:
    """A run of one batch logs the loss of its first weights; halting adds the ponder cost."""
    halts = isinstance(halting, HaltingBlocks)
    made = {"side": 8, "halting": halting, "encoder": NARROW if halts else PlainEncoder()}
    run = train(options(run_dir=tmp_path / "run", **ONE_BATCH, **made))
    network, images = network_of(signpost, **made), signpost.images("train")
    indices = epoch_order(0, 0, 0, 5400)[: ONE_BATCH["batch_size"]]
    shrunk = box_resize(np.asarray(images.data.images)[indices.numpy()], 8)
    with torch.no_grad():
        output, labels = network(torch.from_numpy(shrunk)), images.labels[indices]
    logits = output if isinstance(network, OneLook) else output.logits
    expected = cross_entropy(logits, labels)
    if halts:
        expected = expected + 0.25 * output.ponder.mean()
    (row,) = metrics(run)
    assert row["train/loss"] == pytest.approx(float(expected), rel=1e-4)
    right = float((logits.argmax(-1) == labels).double().mean())
    assert row["rollout/success_rate"] == pytest.approx(right, abs=1e-3)
    assert row["rollout/ep_len_mean"] == 1


def test_weight_decay_spares_norms_and_biases(tmp_path: Path, signpost: TrainingTask) -> None:
    """AdamW's first step moves each weight by at most its rate, and decay comes on top."""
    changes = {"optimizer": AdamW(weight_decay=100.0), "encoder": NARROW, "side": 8}
    run = train(options(run_dir=tmp_path / "run", **ONE_BATCH | changes))
    network = network_of(signpost, side=8, encoder=NARROW)
    schedule = one_cycle(torch.optim.SGD(network.parameters(), SMALL["learning_rate"]), 1)
    (rate,) = schedule.get_last_lr()
    before = network.state_dict()
    for name, learned in load_one_look(run).named_parameters():
        kept = 1 - 100 * rate if learned.dim() > 1 else 1.0
        torch.testing.assert_close(learned.detach(), kept * before[name], rtol=0, atol=1.001 * rate)


def test_whole_images_are_augmented_and_then_shrunk(signpost: TrainingTask) -> None:
    augment, indices = Augmentation(affine=1.0), torch.arange(8)
    torch.manual_seed(3)
    seen = shrunk_images(signpost, indices, augment, 14)
    torch.manual_seed(3)
    pixels, _ = signpost.images("train").pixels(indices)
    whole = augment(pixels)
    assert not torch.equal(whole, pixels)
    assert np.array_equal(seen.numpy(), box_resize(whole.numpy(), 14))


# -- the side ----------


def side_of(task: TrainingTask, **changes: Any) -> int:
    return network_of(task, **changes).config.image_shape[0]


def test_side_by_option_and_by_default(signpost: TrainingTask) -> None:
    own = signpost.images("train").data.typical_size[0]
    assert side_of(signpost, side=9) == 9
    assert side_of(signpost, side=0) == side_of(signpost, side=None) == own
    thumbnail = TrainingTask("DTRAM-Signpost-v0", CPU, first_glimpse="thumbnail")
    assert side_of(thumbnail, side=None) == thumbnail.sensor.glimpse_size


# -- networks that halt ----------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sact", SACTResNet), pytest.param("act", ACTResNet, marks=pytest.mark.slow)],
)
def test_results_are_those_of_the_saved_halting_network(
    tmp_path: Path, signpost: TrainingTask, name: Any, kind: type[ACTResNet]
) -> None:
    run = train(options(**HALTING, halting=HaltingBlocks(name), run_dir=tmp_path / name))
    results, network = read(run), load_one_look(run)
    assert type(network) is kind
    test = signpost.images("test")
    prediction = logits_and_rate(network, test)[0].argmax(-1)
    assert torch.equal(load_file(run / "test_images.safetensors")["prediction"].long(), prediction)
    wrong = (prediction != test.labels).double().mean().item()
    assert results["test_error"] == pytest.approx(100 * wrong, abs=1e-4)
    assert results["encoder"] == "resnet34"
    found = halting_cost(network, test)
    assert results["units_of_each_block"] == [3, 4, 6, 3]
    assert {name: results[name] for name in found} == found
    assert f"{found['units'][2]:.2f} of 6" in (run / "results.txt").read_text()
    assert (run / "ponder-0.png").exists() == (name == "sact")


# -- options ----------


def test_the_recipes_are_valid() -> None:
    for name in RECIPES:
        chosen = command_line(Options, None, RECIPES, ["--recipe", name, "--seed", "3"])
        assert (chosen.recipe, chosen.seed) == (name, 3)
        assert {key: getattr(chosen, key) for key in RECIPES[name]} == RECIPES[name]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"side": -1}, "--side -1: expected 0 or more"),
        (lambda: {"bf16": True}, "--bf16 True: expected not given, unless --encoder is a resnet"),
        (lambda: {"halting": HaltingBlocks()}, "--halting act: expected none, unless --encoder is"),
        (
            lambda: {"encoder": ResNetEncoder(per_step=True)},
            "--encoder per_step True: expected false",
        ),
        (lambda: HALTING | {"halting": HaltingBlocks(ponder_cost=-0.1)}, "ponder_cost -0.1"),
        (
            lambda: {"halting": HaltingBlocks(), "encoder": ResNetEncoder(frozen_norms=True)},
            "--halting act: expected none with --bf16 or frozen_norms=true",
        ),
        (
            lambda: HALTING | {"halting": HaltingBlocks(), "bf16": True},
            "--halting act: expected none with --bf16 or frozen_norms=true",
        ),
    ],
)
def test_impossible_options_are_errors(make: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        options(**make())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10_000}, "--batch-size 10000: expected at most 5400"),
        ({"env_id": "DTRAM-Signpost-Policy-v0"}, "without 'Policy'"),
    ],
)
def test_options_that_do_not_fit_the_task_are_errors(
    tmp_path: Path, policy_id: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()

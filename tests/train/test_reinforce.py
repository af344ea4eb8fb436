"""The training program: options, resuming, what it leaves behind, stoppers on a given trunk."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dtram_env
from agents.dtram import DTRAM
from agents.first_look import FirstLookDTRAM
from agents.halting.act import ACTStop, HaltingRAM
from agents.loading import load_agent
from agents.objective import Objective
from agents.policy_only import FrozenClassifier, LookAndStop
from agents.unroll import Unroll
from tests.train.pages import Page
from tests.train.runs import assert_same_run, metrics, read
from train.common.augment import Augmentation
from train.common.options import Muon, PlainEncoder, ResNetEncoder, command_line, to_json
from train.common.run import RunFolder
from train.common.training import epoch_order
from train.common.training_task import TrainingTask
from train.dtram import frozen_states, validation
from train.dtram.networks import agent_on_trunk, new_agent
from train.dtram.options import (
    ACT,
    RNN,
    Cells,
    Gaussian,
    Map,
    Scan,
    StopAfter,
    StopByValue,
    StopJoint,
    StopOff,
    Values,
)
from train.dtram.recipes import RECIPES
from train.reinforce import Options, train

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
BUDGET = {"env_steps": 12_000, "batch_size": 60, "stop": StopAfter(epochs=4, batch_size=100)}
"""A run of a second: 6 epochs of 3 batches of the trunk, then 4 of 7 of the stopper."""
CHANGES = {
    "after": {},
    "joint": {"stop": StopJoint(max_mean_glimpses=None)},
    "warm-up": {
        "env_steps": None,
        "batch_size": 1800,
        "epochs": 2,
        "scan_epochs": 1,
        "optimizer": Muon(),
        "bf16": True,
        "locator": Cells(grid=4, entropy=0.02, entropy_last=0.0, learning_rate=1e-4),
    },
    "curriculum": {"curriculum": (2, 4), "baseline": "value", "supervision": "last"},
    "values": {
        **(
            MAPPED := {
                "core": Map(width=4, answer="product"),
                "encoder": PlainEncoder("pixels"),
                "m": 1,
            }
        ),
        "env_steps": 2_400,
        "locator": Values(grid=7, hidden=8),
        "location_reward": "drop",
        "baseline": "none",
        "augment": Augmentation(affine=1.0, elastic=0.5, plain=0.5),
    },
    "scan": {
        **MAPPED,
        "locator": Scan(),
        "baseline": "none",
        "env_steps": 2_400,
        "stop": StopOff(),
    },
    "per-step": {
        "env": ("max_glimpses=2", "glimpse_size=8"),
        "env_steps": 960,
        "batch_size": 24,
        "curriculum": (1, 2),
        "encoder": ResNetEncoder("resnet10", width=8, stem_stride=1, per_step=True),
        "stop": StopOff(),
    },
    "talk": RECIPES["talk"],
    "original": {
        **RECIPES["original"],
        "batch_size": 60,
        "stop": replace(RECIPES["original"]["stop"], epochs=4, batch_size=100),
    },
}


# -- interruptions ----------


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_options) -> Callable[[str], Path]:
    """Folder of the uninterrupted run with some of the `CHANGES`; each is made once."""

    @functools.cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / name
        return train(small_options(run_dir=folder, **BUDGET | CHANGES[name]))

    return run


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("warm-up", 4),  # within an epoch of the trunk
        ("per-step", 13),  # within the second stage, which copied networks of the first
        ("values", 10),
        ("scan", 10),
        pytest.param("after", 20, marks=pytest.mark.slow),
        pytest.param("after", 24, marks=pytest.mark.slow),  # at the end of the trunk
        pytest.param("after", 33, marks=pytest.mark.slow),  # within the stopper's stage
        pytest.param("joint", 4, marks=pytest.mark.slow),
        pytest.param("warm-up", 2, marks=pytest.mark.slow),
        pytest.param("curriculum", 20, marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, small_options, interrupted, whole, name: str, batches: int
) -> None:
    changes, cut = BUDGET | CHANGES[name], tmp_path / "cut"
    interrupted(lambda: train(small_options(run_dir=cut, **changes)), batches)
    assert not (cut / "results.json").exists()
    train(small_options(run_dir=cut, resume=True, **changes))
    assert_same_run(whole(name), cut)


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("warm-up", 2),  # the last epoch of the trunk
        *(pytest.param("after", n, marks=pytest.mark.slow) for n in (1, 5, 6, 7, 10)),
    ],
)
def test_a_hard_kill_loses_nothing_but_time(
    tmp_path: Path, monkeypatch, small_options, whole, name: str, epochs: int
) -> None:
    """Killed after a new best model was written and before the checkpoint of that epoch."""
    changes, cut, log = BUDGET | CHANGES[name], tmp_path / "cut", RunFolder.log

    def die_after(self, step, scalars) -> None:
        nonlocal epochs
        epochs -= 1
        log(self, step, scalars)
        if epochs == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", die_after)
        with pytest.raises(Killed):
            train(small_options(run_dir=cut, **changes))
    train(small_options(run_dir=cut, resume=True, **changes))
    assert_same_run(whole(name), cut)


def program(*words: str, **settings) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train" / "reinforce.py"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


@pytest.mark.parametrize(
    "name", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, name) -> None:
    run = tmp_path / "run"
    words = ["--env-id", "DTRAM-Signpost-v0", "--epochs", "500", "--batch-size", "1000"]
    process = program(*words, "--run-dir", str(run), env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(name)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + name
    said = re.search(rf"{name.name}: saved. To go on: (\S+) train/reinforce.py (.*)", errors)
    assert said is not None, errors
    python = shutil.which(said[1])  # the one that runs these tests, by whatever name
    assert python is not None and Path(python).resolve() == Path(sys.executable).resolve()
    assert said[2].endswith(f"--run-dir {run} --resume")
    assert len(list(run.glob("checkpoint-*"))) == 1


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    first, second = epoch_order(0, 0, 0, 100), epoch_order(0, 0, 1, 100)
    assert sorted(first.tolist()) == list(range(100)) == sorted(second.tolist())
    assert first.tolist() != second.tolist()
    assert first.tolist() == epoch_order(0, 0, 0, 100).tolist()
    assert first.tolist() != epoch_order(1, 0, 0, 100).tolist()
    assert first.tolist() != epoch_order(0, 1, 0, 100).tolist()


# -- what a run leaves behind ----------


def test_a_finished_run_leaves_everything_a_reader_asks_for(
    finished_run: Path, signpost: TrainingTask
) -> None:
    names = {p.name for p in finished_run.iterdir() if not p.name.startswith("events.")}
    assert names == {
        "options.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "results.json",
        "results.txt",
        "test_images.safetensors",
        "report.html",
        "stages",
    }
    results = read(finished_run)
    assert results["dataset"] == "Signpost" and results["images"] == 2000
    assert sum(results["histogram"]) == 2000
    mean = sum(t * n for t, n in enumerate(results["histogram"], start=1)) / 2000
    assert results["mean_glimpses"] == pytest.approx(mean, abs=1e-4)
    assert set(results["fixed"]) == {"1", "2", "3", "4"}
    assert results["fixed"]["3"]["mean_glimpses"] == 3
    assert results["stop_threshold"] == DTRAM.load(finished_run).stopping.threshold
    chosen = results["learned"][str(results["stop_threshold"])]
    assert chosen == {name: results[name] for name in ("test_error", "mean_glimpses")}
    assert {"command", "commit", "date", "versions", "hardware", "train_seconds"} <= set(results)
    assert results["options"]["seed"] == 0 and results["collapsed"] == []
    assert results["env_steps"] == 2 * 30 * 180 * 2 * 4 + 5400 * 4
    page = Page(finished_run / "report.html")
    assert f"Test error {results['test_error']:.2f} %" in page.text
    curves = [one["aria-label"] for one in page.named("svg")]
    quantities = ("error %", "mean glimpses", "training loss")
    assert curves[:3] == [f"{name} by number of training images" for name in quantities]
    assert f"{sum(p.numel() for p in DTRAM.load(finished_run).parameters()):,}" in page.text
    wrong = load_file(finished_run / "test_images.safetensors")["prediction"]
    labels = signpost.images("test").labels
    assert results["test_error"] == pytest.approx(100 * (wrong != labels).double().mean().item())


def test_metrics_and_tensorboard_have_sb3_names_and_hyperparameters(
    finished_run: Path,
) -> None:
    rows = metrics(finished_run)
    assert [row["step"] for row in rows] == [5400, 10800, 16200, 21600]
    assert all(0 <= row["eval/accuracy"] <= 1 for row in rows)
    assert all(1 <= row["eval/mean_glimpses"] <= 4 for row in rows)
    trunk, stopper = rows[:2], rows[2:]
    of_locations = {"train/locator_gradient_norm", "eval/location_std"}
    assert all(row[name] > 0 for row in trunk for name in of_locations)
    shares = {"train/locations_outside", "eval/locations_in_corner"}
    assert all(0 <= row[name] < 1 for row in trunk for name in shares)
    of_locations |= shares
    assert all("eval/stop_probability" not in row for row in trunk)
    assert not any(of_locations & row.keys() for row in stopper)
    assert all(0 < row["eval/stop_probability"] < 1 for row in stopper)
    rates = [row["train/learning_rate"] for row in rows]
    assert rates[1] < rates[0] < 2e-3 and rates[3] < rates[2] < 2e-3
    events = EventAccumulator(str(finished_run))
    events.Reload()
    tags = events.Tags()
    assert {
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "rollout/success_rate",
        "time/fps",
        "train/loss",
        "train/learning_rate",
        "eval/accuracy",
        "eval/mean_glimpses",
        "hparam/test_error",
        "eval/stop_probability",
        *of_locations,
    } <= set(tags["scalars"])
    assert any("hparams" in name for name in events.summary_metadata)


def test_an_epoch_warns_of_locations_that_do_not_depend_on_the_image(
    tmp_path: Path, small_options, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Not during the warm-up, in which locations follow one scan, nor in the stopper's epochs."""
    monkeypatch.setattr(validation, "ONE_PLACE", 3.0)  # locations are in [-1, 1]
    train(small_options(run_dir=tmp_path / "run", **BUDGET | CHANGES["warm-up"]))
    lines = capsys.readouterr().out.splitlines()
    warned = [line.split(":")[0] for line in lines if "s; warning: it looks at the same" in line]
    assert warned == ["trunk-4 2/2"]


def test_a_finished_run_is_not_trained_again(finished_run: Path, small_options, capsys) -> None:
    before = (finished_run / "model.safetensors").stat().st_mtime_ns
    train(small_options(run_dir=finished_run, resume=True))
    assert (finished_run / "model.safetensors").stat().st_mtime_ns == before
    shown = capsys.readouterr().out
    assert "finished already" in shown and "DT-RAM, learned stop" in shown


def test_each_stage_learns_from_the_last_and_leaves_its_model(finished_ram: Path) -> None:
    stages = [row["eval/mean_glimpses"] for row in metrics(finished_ram)]
    assert sorted(stages) == stages and set(stages) == {2.0, 4.0}
    names = sorted(path.name for path in (finished_ram / "stages").iterdir())
    assert names == ["trunk-2", "trunk-4"]
    early, late = (DTRAM.load(finished_ram / "stages" / name).state_dict() for name in names)
    final = DTRAM.load(finished_ram).state_dict()
    assert any(not torch.equal(early[name], late[name]) for name in late)
    assert all(torch.equal(final[name], late[name]) for name in late)
    assert read(finished_ram)["mean_glimpses"] == 4.0
    assert "RAM, no stop learned" in (finished_ram / "results.txt").read_text()


@pytest.mark.parametrize("stop", [StopAfter(), StopJoint()])
def test_a_diverged_run_says_so(tmp_path: Path, small_options, stop) -> None:
    muon = Muon(max_grad_norm=1e30)
    with pytest.raises(ValueError, match="no longer finite after 5,400 images"):
        train(
            small_options(run_dir=tmp_path / "run", learning_rate=1e30, optimizer=muon, stop=stop)
        )
    assert not (tmp_path / "run" / "model.json").exists()  # such weights are not the best so far


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("locator", {"locator": Gaussian(gradient="state", learning_rate=1e-12)}),
        ("stopper", {"stop": StopJoint(learning_rate=1e-12)}),
    ],
)
def test_a_head_with_a_rate_of_nearly_nothing_stays_where_it_began(
    tmp_path: Path, small_options, signpost: TrainingTask, head: str, settings: dict[str, Any]
) -> None:
    options = small_options(
        run_dir=tmp_path / "a", **BUDGET | {"stop": StopOff(), "m": 2} | settings
    )
    agent = DTRAM.load(train(options))
    how = options.encoder, options.core, options.locator, options.stop
    began, _ = new_agent(signpost, *how, False, options.seed)
    weights = dict(agent.get_submodule(head).named_parameters())
    for name, first in began.get_submodule(head).named_parameters():
        assert torch.allclose(weights[name], first, atol=1e-6)
    assert not torch.allclose(agent.classifier.weight, began.classifier.weight, atol=1e-3)


def test_at_least_one_epoch_has_stops() -> None:
    stop = StopJoint(ram_share=0.66)
    assert [stop.ram_epochs(epochs) for epochs in (1, 2, 3, 36)] == [0, 1, 2, 24]


def test_before_a_joint_stop_every_trajectory_takes_the_whole_budget(
    tmp_path: Path, small_options
) -> None:
    stop = StopJoint(gradient="reinforce", ram_share=0.5)
    options = small_options(run_dir=tmp_path / "a", epochs=2, stop=stop)
    agent = DTRAM.load(train(options))
    lengths = [row["rollout/ep_len_mean"] for row in metrics(tmp_path / "a")]
    assert lengths[0] == agent.config.max_glimpses and lengths[1] < lengths[0]


# -- options ----------

TRUNK = {"trunk": Path("x"), "run_dir": Path("y")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"m": 1}, "--m 1: expected at least 2"),
        *(
            (lambda how=how: {"m": 1, "stop": StopAfter(gradient="reinforce"), **how}, "--m 1: exp")
            for how in ({"trunk": Path("x")}, {"core": Map(), "locator": Scan()})
        ),
        (lambda: {"stop": StopAfter(max_mean_glimpses=0.5)}, "--stop max_mean_glimpses 0.5"),
        (lambda: {"stop": StopAfter(epochs=0)}, "--stop epochs 0"),
        (lambda: {"stop": StopJoint(entropy=-1.0)}, "--stop entropy -1.0"),
        (lambda: {"stop": StopJoint(ram_share=1.0)}, "--stop ram_share 1.0: expected 0 or more"),
        (lambda: {"stop": StopAfter(threshold=0.9)}, "--stop threshold 0.9: expected none, unless"),
        (lambda: {"stop": ACT(ponder_cost=-1.0), **TRUNK}, "--stop ponder_cost -1.0"),
        (
            lambda: {"stop": ACT()},
            "--stop act: expected after, value, joint or off; act needs --trunk",
        ),
        (lambda: {"stop": StopJoint(), **TRUNK}, "--stop joint: expected after, value or act"),
        (lambda: {"curriculum": (2, 4), **TRUNK}, "--curriculum .*: expected no value"),
        (lambda: {"locator": Cells(grid=3), **TRUNK}, "--locator cells grid=3: expected no value"),
        (
            lambda: {"epochs": 5, **TRUNK},
            "--epochs 5: expected no value: with --trunk",
        ),
        (
            lambda: {**RECIPES["mnist"], "recipe": "mnist", **TRUNK},
            r"expected no value \(of --recipe mnist\)",
        ),
        (lambda: {"locator": Cells(entropy=-1.0)}, "--locator entropy -1.0"),
        (lambda: {"locator": Gaussian(std=0.0)}, "--locator std 0.0"),
        (lambda: {"locator": Gaussian(hidden=-1)}, "--locator hidden -1"),
        (lambda: {"locator": Gaussian(learning_rate=0.0)}, "--locator learning_rate 0.0"),
        (
            lambda: {"stop": StopJoint(), "location_reward": "mean_prob"},
            "--location-reward mean_prob: expected return",
        ),
        (
            lambda: {"core": Map(), "locator": Scan(), "supervision": "last"},
            "--supervision last: expected all with a map",
        ),
        (
            lambda: {
                "core": Map(answer="product"),
                "locator": Scan(),
                "stop": StopAfter(classifier="learns"),
            },
            "--stop classifier learns: expected frozen with --core map answer=product",
        ),
        (
            lambda: {"locator": Values(), "stop": StopJoint()},
            "--stop joint: expected after or off with a map or values",
        ),
        (
            lambda: {"locator": Values(), "epochs": 4, "scan_epochs": 1},
            "--scan-epochs 1: expected 0 with a map or values",
        ),
        (lambda: {"scan_epochs": 9999}, "--scan-epochs 9999"),
        (lambda: {"scan_epochs": 1, "stop": StopJoint()}, "0 with --stop joint"),
        (lambda: {"scan_epochs": 1, "env_steps": 9000}, "--scan-epochs 1: expected 0 with --env"),
        (lambda: {"env_steps": 0}, "--env-steps 0: expected at least 1"),
    ],
)
def test_impossible_options_are_errors(small_options, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_options(**make())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curriculum": (3, 2)}, "--curriculum 3 2: expected rising"),
        ({"curriculum": (2, 9)}, "--curriculum 2 9: expected rising"),
        ({"curriculum": (1, 2)}, "with the budget, 4"),
        ({"batch_size": 6000}, "--batch-size 6000: expected at most 5400"),
        ({"discount": 2.0}, "discount=2.0"),
        ({"env": ("max_glimpse=2",)}, "--env max_glimpse=2: "),
        ({"env": ("discount=0.9",)}, "--env discount=0.9: use --discount 0.9"),
        ({"trunk": Path("nowhere")}, "no saved model"),
        (
            {"env_steps": 300, "batch_size": 32},
            "--env-steps 300: expected enough that trunk-4 gets 256; it would get 225",
        ),
        ({"env_steps": 14, "batch_size": 1}, "stopper gets 4; it would get 3"),
    ],
)
def test_options_that_do_not_fit_the_task_are_errors(
    tmp_path: Path, small_options, changes, message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        train(small_options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()  # nothing is in the way of the mended command


def test_the_program_ends_in_one_line_on_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    process = program("--env-id", "DTRAM-Signpost-v0", "--run-dir", str(file))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert f"--run-dir {file}: expected a folder that can be made" in errors


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_start_that_other_flags_change(name: str) -> None:
    plain = command_line(Options, None, RECIPES, ["--recipe", name])
    assert to_json(plain) == to_json(Options(**RECIPES[name]))
    changed = command_line(Options, None, RECIPES, ["--recipe", name, "--m", "3", "--seed", "7"])
    different = {k for k, v in to_json(changed).items() if v != to_json(plain)[k]}
    assert different <= {"m", "seed"} and "seed" in different


def test_the_objectives_defaults_are_the_programs() -> None:
    assert Options().objective(discount=0.98) == Objective()


@pytest.mark.parametrize("baseline", ["leave_one_out", "value", "scalar", "none"])
@pytest.mark.parametrize(
    ("locator", "core"), [(Values(), RNN()), (Values(), Map()), (Scan(), Map())]
)
def test_a_locator_without_a_policy_gradient_has_no_baseline(
    locator: Any, core: Any, baseline: Any
) -> None:
    """So its trunk learns from one trajectory an image."""
    options = Options(locator=locator, core=core, baseline=baseline, m=1)
    assert options.objective(0.98).baseline == "none"


def test_there_are_at_most_35_flags(capsys) -> None:
    with pytest.raises(SystemExit):
        command_line(Options, None, RECIPES, ["--help"])
    text = capsys.readouterr().out
    flags = set(re.findall(r"^[│|+ ]*(--[a-z0-9-]+)", text, re.M))
    assert 20 < len(flags) <= 35
    assert all(name in text for name in RECIPES)


def test_the_talk_learns_jointly_and_the_original_in_two_stages(
    whole: Callable[[str], Path],
) -> None:
    talk, original = whole("talk"), whole("original")
    assert not (talk / "stages").exists()
    agent = DTRAM.load(talk)
    assert (agent.config.stopper_input, agent.config.stopper_prior) == ("state", "none")
    assert not agent.config.stopper_evidence
    assert (agent.stopper[-1].weight != 0).any() and (agent.baseline.weight != 0).any()
    assert all(0 < row["eval/stop_probability"] < 1 for row in metrics(talk))
    assert all(row["eval/location_std"] > 0 for row in metrics(talk))
    agent = DTRAM.load(original)
    assert {path.name for path in (original / "stages").iterdir()} == {"trunk-4", "stopper"}
    assert agent.stopping.threshold == 0.9 and agent.scalar_baseline != 0
    assert "p > 0.9 (given)" in (original / "results.txt").read_text(encoding="utf-8")
    assert "(chosen on validation)" in (talk / "results.txt").read_text(encoding="utf-8")
    assert agent.stopper[0].out_features == 256
    trunk = DTRAM.load(original / "stages" / "trunk-4")
    assert torch.equal(trunk.locator.weight, agent.locator.weight)
    assert torch.equal(trunk.core.recurrent.weight, agent.core.recurrent.weight)
    assert not torch.equal(trunk.classifier.weight, agent.classifier.weight)


# -- a budget of env steps ----------


@pytest.mark.parametrize(
    ("changes", "trunk", "stopper"),
    [
        # A quarter of 4,096 for the stopper: 256 images of 4 glimpses. 12 batches of 32 * 2 * 4 fit
        # into the rest, as 6 epochs of 2.
        ({"env_steps": 4096}, 12 * 32 * 2 * 4, 256 * 4),
        ({"env_steps": 4099, "stop": StopOff()}, 16 * 32 * 2 * 4, 0),  # 8 epochs of 2
        ({"env_steps": 5120, "stop": StopJoint()}, 20 * 32 * 2 * 4, 0),
        # Two stages share 3,072: 12 batches of 2 glimpses, 6 of 4.
        ({"env_steps": 4096, "curriculum": (2, 4)}, 12 * 32 * 2 * 2 + 6 * 32 * 2 * 4, 256 * 4),
    ],
)
def test_the_glimpses_learned_from_are_counted(
    tmp_path: Path, small_options, monkeypatch, changes, trunk: int, stopper: int
) -> None:
    seen = {"trunk": 0, "stopper": 0}
    forward, path = Unroll.forward, frozen_states.deterministic_path

    def counted(self, *arguments):
        trajectory = forward(self, *arguments)
        seen["trunk"] += trajectory.locations.shape[:2].numel()
        return trajectory

    def counted_path(*arguments):
        for step in path(*arguments):
            seen["stopper"] += len(step.location)
            yield step

    monkeypatch.setattr(Unroll, "forward", counted)
    monkeypatch.setattr(frozen_states, "deterministic_path", counted_path)
    stop = {"stop": StopAfter(epochs=2, batch_size=64), "batch_size": 32}
    run = train(small_options(run_dir=tmp_path / "run", **stop | changes))
    held_out = 600 * 4 if stopper else 0  # the validation split, from which nothing is learned
    assert seen == {"trunk": trunk, "stopper": stopper + held_out}
    assert read(run)["env_steps"] == trunk + stopper <= changes["env_steps"]
    steps = [row["time/total_timesteps"] for row in metrics(run)]
    assert steps == sorted(steps) and steps[-1] == trunk + stopper
    if stopper:
        assert steps[-3] == trunk and steps[-2] == steps[-1]  # it takes its glimpses when it begins


# -- a stopper, or ACT's halting, on the trunk of another run ----------

HEADS = ("stopper", "baseline")


def trunk_of(agent: DTRAM) -> dict[str, torch.Tensor]:
    return {k: v for k, v in agent.state_dict().items() if k.split(".")[0] not in HEADS}


def on_trunk(trunk: Path, run_dir: Path, **changes) -> Options:
    given = {"env_id": "DTRAM-Signpost-v0", "device": "cpu", "env_steps": 12_000}
    stop = StopAfter(epochs=2, batch_size=300)
    return Options(**{**given, "stop": stop, "trunk": trunk, "run_dir": run_dir, **changes})


@pytest.mark.parametrize("stop", ["after", "value", "act"])
def test_the_trunk_stays_and_the_stop_learns(tmp_path: Path, finished_ram: Path, stop: str) -> None:
    kinds = {"act": ACT(ponder_cost=0.2, epochs=2, batch_size=300)}
    kinds["value"] = StopByValue(epochs=2, batch_size=300)
    changes = {"stop": kinds[stop]} if stop in kinds else {}
    run = train(on_trunk(finished_ram, tmp_path / stop, **changes))
    agent, given = load_agent(run), DTRAM.load(finished_ram)
    assert isinstance(agent, HaltingRAM) == (stop == "act")
    assert agent.config.stopper_prior == ("confidence" if stop == "after" else "none")
    before, after = trunk_of(given), trunk_of(agent)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (agent.stopper[-1].weight != 0).any()  # it is 0 before anything is learned
    results, made = read(run), read(finished_ram)
    assert results["backbone"] == "trunk"
    assert results["trunk"]["command"] == made["command"]
    assert results["trunk"]["train_seconds"] == made["train_seconds"]
    answers = load_file(run / "test_images.safetensors")
    found = dtram_env.evaluate(agent, "DTRAM-Signpost-v0", "test")
    assert found.prediction.tolist() == answers["prediction"].tolist()
    assert found.mean_glimpses == pytest.approx(results["mean_glimpses"], abs=1e-4)
    if stop == "act":
        assert agent.stopping == ACTStop()
        assert "ACT, sum of halting scores > 0.99" in (run / "results.txt").read_text()
    # A stop on the trunk of a stop says where the trunk is from.
    second = read(train(on_trunk(run, tmp_path / "second", discount=0.9)))
    assert second["trunk"] == results["trunk"]
    digest = json.loads((finished_ram / "model.json").read_text())["weights_sha256"]
    assert second["trunk"]["weights_sha256"] == digest
    assert second["trunk"]["options"]["stop"] == {"name": "off"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_talks_algorithm_finds_the_best_policy_of_signpost(tmp_path: Path, seed: int) -> None:
    """Joint, sampled and from the first epoch on. Half of the images need a second glimpse; the
    first one is at the centre."""
    stop = RECIPES["talk"]["stop"]
    stop = replace(stop, ram_share=0.0, learning_rate=None, max_mean_glimpses=None)
    changes = {"locator": Gaussian(std=0.35, gradient="state"), "stop": stop, "epochs": 15}
    changes |= {"env_id": "DTRAM-Signpost-v0", "env": (), "bf16": False}
    options = {**RECIPES["talk"], **changes, "seed": seed}
    results = read(train(Options(recipe="talk", run_dir=tmp_path / "run", **options)))
    assert results["test_error"] == 0.0 and results["collapsed"] == []
    assert results["mean_glimpses"] == pytest.approx(1.5, abs=0.05)


@pytest.mark.slow
def test_dearer_glimpses_are_fewer(tmp_path: Path, finished_ram: Path) -> None:
    means = []
    for cost in (0.0, 5.0):
        stop = ACT(ponder_cost=cost, epochs=30, batch_size=300)
        run = train(on_trunk(finished_ram, tmp_path / f"{cost}", stop=stop))
        means.append(read(run)["mean_glimpses"])
    assert means[1] < means[0]


def test_a_trunk_that_does_not_fit_is_refused(tmp_path: Path, finished_ram: Path) -> None:
    with pytest.raises(ValueError, match="--bf16 True: expected no value: the trunk's encoder"):
        train(on_trunk(finished_ram, tmp_path / "c", bf16=True))
    with pytest.raises(ValueError, match="was made for"):
        train(on_trunk(finished_ram, tmp_path / "b", env=("glimpse_size=6",)))
    copy = tmp_path / "copy"
    shutil.copytree(finished_ram, copy)
    (copy / "results.json").unlink()
    with pytest.raises(ValueError, match="expected a finished run"):
        train(on_trunk(copy, tmp_path / "a"))
    header = json.loads((copy / "model.json").read_text())
    (copy / "options.json").unlink()
    (copy / "model.json").write_text(json.dumps(header | {"env_id": "DTRAM-MNIST-v0"}))
    with pytest.raises(ValueError, match="was made for DTRAM-MNIST-v0"):
        train(on_trunk(copy, tmp_path / "d"))


def test_a_trunks_batch_norms_stay_as_they_are(
    tmp_path: Path, small_options, signpost: TrainingTask
) -> None:
    """The stopper learns from what the network gives when it is used."""
    encoder = ResNetEncoder("resnet10", width=8, stem_stride=1)
    changes = {"encoder": encoder, "stop": StopOff(), "env_steps": 1500, "batch_size": 60}
    ram = train(small_options(run_dir=tmp_path / "ram", **changes))
    assert not agent_on_trunk(ram, signpost, StopAfter(), False, 0).training
    run = train(on_trunk(ram, tmp_path / "run", env_steps=2000))
    before, after = trunk_of(DTRAM.load(ram)), trunk_of(DTRAM.load(run))
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


# -- policy-only tasks ----------


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory, policy_id: str, small_options) -> Path:
    """A finished run on the policy-only id, on a budget; its locator has cells and a layer."""
    return train(policy_options(small_options, policy_id, tmp_path_factory.mktemp("p") / "run"))


def policy_options(small_options, policy_id: str, run: Path, **changes) -> Options:
    settings = {
        **BUDGET,
        "env_id": policy_id,
        "locator": Cells(grid=3, hidden=8),
        "stop": StopAfter(max_mean_glimpses=None, epochs=2, batch_size=60),
    }
    return small_options(**settings, run_dir=run, **changes)


def test_a_policy_only_agent_learns_where_and_when_alone(
    policy_run: Path, small_classifier: Path, policy_id: str, small_options
) -> None:
    ours, theirs = (load_file(f / "model.safetensors") for f in (policy_run, small_classifier))
    options = policy_options(small_options, policy_id, policy_run)
    task = TrainingTask(policy_id, CPU)
    agent, _ = new_agent(
        task, options.encoder, options.core, options.locator, options.stop, False, options.seed
    )
    before = agent.state_dict()
    assert before.keys() == ours.keys()
    for name, learned in ours.items():
        if name.split(".")[0] in ("encoder", "core", "classifier"):
            assert torch.equal(learned, theirs[name]), name
        elif name.split(".")[0] in ("locator", "stopper"):
            assert not torch.equal(learned, before[name]), name
    results = read(policy_run)
    assert results["classifier"] == FrozenClassifier.load(small_classifier).name
    assert results["env_steps"] <= BUDGET["env_steps"]


def test_a_policy_only_agent_scores_through_the_environment_as_its_run_says(
    policy_run: Path, policy_id: str
) -> None:
    results = read(policy_run)
    answers = load_file(policy_run / "test_images.safetensors")
    found = dtram_env.evaluate(LookAndStop(DTRAM.load(policy_run)), policy_id, "test")
    assert found.prediction.tolist() == answers["prediction"].tolist()
    assert found.num_glimpses.tolist() == answers["num_glimpses"].tolist()
    assert found.histogram.tolist() == results["histogram"]
    assert 100 * found.error == pytest.approx(results["test_error"], abs=1e-4)


def test_a_policy_only_agent_may_choose_on_its_first_look(
    tmp_path: Path, policy_id: str, small_classifier: Path, small_options
) -> None:
    changes = {"env": ("first_glimpse=thumbnail",), "location_reward": "drop"}
    options = policy_options(small_options, policy_id, tmp_path / "run", **changes)
    run = train(replace(options, locator=Values(grid=4)))
    agent = load_agent(run)
    assert isinstance(agent, FirstLookDTRAM)
    theirs = load_file(small_classifier / "model.safetensors")
    assert torch.equal(agent.core.recurrent.weight, theirs["core.recurrent.weight"])
    found = dtram_env.evaluate(LookAndStop(agent), policy_id, "test", first_glimpse="thumbnail")
    assert found.histogram.tolist() == read(run)["histogram"]
    assert 100 * found.error == pytest.approx(read(run)["test_error"], abs=1e-4)


def test_an_encoder_beside_the_classifiers_network_is_an_error(
    tmp_path: Path, policy_id: str, small_options
) -> None:
    encoder = ResNetEncoder("resnet10", width=8, stem_stride=1)
    options = policy_options(small_options, policy_id, tmp_path / "run", encoder=encoder)
    with pytest.raises(ValueError, match=r"--encoder resnet10 .*: expected no value on a poli"):
        train(options)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_program_solves_signpost(tmp_path: Path, seed: int) -> None:
    """The best policy is known: follow the arrow where there is one, and stop as soon as you can.

    Half of the images need one glimpse and half need two, and none needs to be answered wrongly.
    """
    options = Options(
        env_id="DTRAM-Signpost-v0",
        locator=Cells(grid=6, entropy=0.02),
        stop=StopAfter(max_mean_glimpses=None),
        m=8,
        seed=seed,
        device="cpu",
        run_dir=tmp_path / "run",
    )
    results = read(train(options))
    assert results["test_error"] < 1.0
    assert results["mean_glimpses"] == pytest.approx(1.5, abs=0.05)


# -- a map ----------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "DTRAM-BirdsSmall-v0"}, "map on DTRAM-BirdsSmall-v0: expected grey images"),
        ({"env": ("first_glimpse=thumbnail",)}, "map on DTRAM-Signpost-v0: expected grey images"),
        (
            {"env": ("max_glimpses=8",), "locator": Scan()},
            "scan with 8 glimpses: expected at most 7",
        ),
        ({"core": Map(width=4, cell=3)}, "map cell=3: expected a divisor of the glimpse's 8"),
    ],
)
def test_a_map_refuses_what_it_would_misread(
    tmp_path: Path, small_options, changes, message: str
) -> None:
    given = {**MAPPED, "locator": Values(grid=7), "location_reward": "drop", "baseline": "none"}
    with pytest.raises(ValueError, match=message):
        train(small_options(run_dir=tmp_path / "run", **{**given, **changes}))


def test_act_is_refused_on_a_map(tmp_path: Path, signpost: TrainingTask) -> None:
    how = PlainEncoder("pixels"), Map(width=4), Scan(), StopAfter(), False, 0
    new_agent(signpost, *how)[0].save(tmp_path, **signpost.metadata)
    with pytest.raises(ValueError, match="--stop act: expected after with a DT-RAM with a map"):
        agent_on_trunk(tmp_path, signpost, ACT(), False, 0)


def test_values_need_a_map_or_a_thumbnail(signpost: TrainingTask) -> None:
    how = PlainEncoder("mlp"), RNN(), Values(), StopAfter(), False, 0
    with pytest.raises(ValueError, match="values on DTRAM-Signpost-v0: expected a map, or a thumb"):
        new_agent(signpost, *how)


def test_exploration_falls_in_the_first_quarter() -> None:
    falls = [Values(exploration=0.2).exploration_at(part / 8) for part in range(9)]
    assert falls == pytest.approx([1, 0.5, *[0.2] * 7])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler reads it
def test_a_compiled_step_is_the_same_step(
    small_options, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile, parts = torch.compile, []

    def traced(part: Any, mode: str | None, dynamic: bool) -> Any:
        parts.append(part)
        return compile(part, backend="eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    folder = train(small_options(run_dir=tmp_path / "compiled", compile=True))
    assert len(parts) == 2
    for name in ("options.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (finished_run / name).read_bytes()

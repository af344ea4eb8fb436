"""The training program: options, resuming, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dtram_env
from agents.dtram import DTRAM
from agents.policy_only import FrozenClassifier, LookAndStop
from agents.unroll import Unroll
from train import reinforce
from train.common.run import Interrupt, RunFolder
from train.common.training_task import Task
from train.dtram import stages
from train.dtram.loop import epoch_order, one_cycle
from train.dtram.report import table
from train.evaluate import Options as EvaluateOptions
from train.evaluate import evaluate
from train.reinforce import Options, train

ROOT = Path(__file__).resolve().parents[2]


class InterruptAfter(Interrupt):
    """A signal that comes by itself after some batches."""

    remaining = 0

    @property  # type: ignore[override]
    def signal(self):
        type(self).remaining -= 1
        return signal.SIGTERM if type(self).remaining < 0 else None

    @signal.setter
    def signal(self, value) -> None:
        pass


JOINT = {"stop": "joint"}
SCAN = {"optimizer": "muon", "bf16": True, "locator_grid": 4, "scan_epochs": 1, "epochs": 2}
OWN = {"optimizer": "muon", "locator_learning_rate": 1e-4, "elastic": 0.5}


@pytest.mark.parametrize(
    ("batches", "changes"),
    [
        (5, {}),
        (29, {}),
        (47, {}),
        (59, {}),
        (63, {}),
        (5, JOINT),
        (29, JOINT),
        (47, JOINT),
        (29, SCAN),
        (29, OWN),
    ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, monkeypatch, small_options, finished_run: Path, batches: int, changes
) -> None:
    """Cut within an epoch, at an epoch's end, at a stage's end, and in the stopper's stage."""
    whole = finished_run
    if changes:
        whole = train(small_options(run_dir=tmp_path / "whole", **changes))
    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(reinforce, "Interrupt", InterruptAfter)
        InterruptAfter.remaining = batches
        with pytest.raises(SystemExit) as stopped:
            train(small_options(run_dir=cut, **changes))
    assert stopped.value.code == 128 + signal.SIGTERM
    train(small_options(run_dir=cut, resume=True, **changes))
    assert_same_run(whole, cut)


class Killed(BaseException):
    """The process is gone: nothing after this runs."""


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
def test_a_hard_kill_loses_nothing_but_time(
    tmp_path: Path, monkeypatch, small_options, finished_run: Path, epochs: int
) -> None:
    """Killed after a new best model was written and before the checkpoint of that epoch."""
    cut, log = tmp_path / "cut", RunFolder.log

    def die_after(self, step, scalars) -> None:
        nonlocal epochs
        epochs -= 1
        log(self, step, scalars)
        if epochs == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", die_after)
        with pytest.raises(Killed):
            train(small_options(run_dir=cut))
    train(small_options(run_dir=cut, resume=True))
    assert_same_run(finished_run, cut)


def assert_same_run(whole: Path, cut: Path) -> None:
    """Same weights and same metrics, times apart, bit for bit."""
    before, after = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name

    def rows(run: Path) -> list[dict]:
        found = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]

    assert rows(cut) == rows(whole)


def test_a_finished_run_leaves_everything_a_reader_asks_for(finished_run: Path) -> None:
    names = {p.name for p in finished_run.iterdir() if not p.name.startswith("events.")}
    assert names == {
        "options.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "results.json",
        "results.txt",
        "test_images.safetensors",
        "error_by_glimpses.png",
        "glimpses.png",
        "stages",
    }
    results = json.loads((finished_run / "results.json").read_text())
    assert results["dataset"] == "Signpost" and results["images"] == 2000
    assert sum(results["histogram"]) == 2000
    mean = sum(t * n for t, n in enumerate(results["histogram"], start=1)) / 2000
    assert results["mean_glimpses"] == pytest.approx(mean, abs=1e-4)
    assert set(results["fixed"]) == {"1", "2", "3", "4"}
    assert results["fixed"]["3"]["mean_glimpses"] == 3
    assert results["stop_threshold"] == DTRAM.load(finished_run).stopping.threshold
    chosen = results["learned"][str(results["stop_threshold"])]
    assert chosen == {name: results[name] for name in ("test_error", "mean_glimpses")}
    assert {"command", "commit", "versions", "hardware", "options", "train_seconds"} <= set(results)
    assert results["options"]["seed"] == 0
    wrong = load_file(finished_run / "test_images.safetensors")["prediction"]
    labels = Task("DTRAM-Signpost-v0", torch.device("cpu")).images("test").labels
    assert results["test_error"] == pytest.approx(100 * (wrong != labels).double().mean().item())


def test_tensorboard_has_sb3_names_pictures_and_hyperparameters(finished_run: Path) -> None:
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
    } <= set(tags["scalars"])
    assert set(tags["images"]) == {"glimpses/trunk-4", "glimpses/stopper"}
    assert any("hparams" in name for name in events.summary_metadata)


def test_metrics_rows_agree_with_the_log(finished_run: Path) -> None:
    rows = [json.loads(r) for r in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5400, 10800, 16200, 21600]
    assert all(0 <= row["eval/accuracy"] <= 1 for row in rows)
    assert all(1 <= row["eval/mean_glimpses"] <= 4 for row in rows)


def test_a_finished_run_is_not_trained_again(finished_run: Path, small_options, capsys) -> None:
    before = (finished_run / "model.safetensors").stat().st_mtime_ns
    train(small_options(run_dir=finished_run, resume=True))
    assert (finished_run / "model.safetensors").stat().st_mtime_ns == before
    shown = capsys.readouterr().out
    assert "finished already" in shown and "DT-RAM, learned stop" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"augment": -1.0}, "--augment -1.0"),
        ({"m": 1}, "--m 1: expected at least 2"),
        ({"curriculum": (3, 2)}, r"--curriculum \(3, 2\)"),
        ({"seed": -1}, "--seed -1"),
        ({"max_mean_glimpses": 0.5}, "--max-mean-glimpses 0.5"),
        (
            {"stop": "joint", "location_reward": "mean_prob"},
            "--location-reward anytime: expected return with --stop joint",
        ),
        ({"resume": True}, "--resume: expected with --run-dir"),
        ({"scan_epochs": 9999}, "--scan-epochs 9999: expected 0 to"),
        ({"scan_epochs": 1, "stop": "joint"}, "--scan-epochs 1: expected 0 with --stop joint"),
        ({"location_entropy_last": 0.0}, "--location-entropy-last 0.0: expected with a --location"),
        (
            {"location_reward": "mean_log_prob", "glimpse_only_reward": 0.5},
            "--lone-reward 0.5: expected 0 to 1; 0 unless a location is paid anytime",
        ),
    ],
)
def test_impossible_options_are_errors(small_options, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        small_options(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curriculum": (2, 9)}, "--curriculum 2 9: expected to end with the budget, 4"),
        ({"curriculum": (1, 2)}, "--curriculum 1 2: expected to end with the budget, 4"),
        ({"batch_size": 6000}, "--batch-size 6000: expected at most 5400"),
        ({"discount": 2.0}, "discount=2.0"),
        ({"env_id": "CartPole-v1"}, "environment 'CartPole-v1': expected one of this package's"),
    ],
)
def test_options_that_do_not_fit_the_task_are_errors(
    tmp_path: Path, small_options, changes, message
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train(small_options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()  # nothing is in the way of the mended command


def test_a_diverged_run_says_so(tmp_path: Path, small_options) -> None:
    with pytest.raises(ValueError, match="no longer finite after 5,400 images"):
        train(small_options(run_dir=tmp_path / "run", learning_rate=1e30, max_grad_norm=1e30))


def program(*words: str, **settings) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train" / "reinforce.py"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def test_unknown_options_are_errors() -> None:
    process = program("--learning-rat", "0.1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--learning-rat" in errors


def test_a_run_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ["--env-id", "DTRAM-Signpost-v0", "--run-dir", str(tmp_path / "file")]
    process = program(*words)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    assert f"--run-dir {tmp_path / 'file'}: expected a folder that can be made" in errors


def test_impossible_options_name_the_option() -> None:
    process = program("--epochs", "0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--epochs 0: expected at least 1" in errors


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, name) -> None:
    run = tmp_path / "run"
    words = ["--env-id", "DTRAM-Signpost-v0", "--hidden-size", "16", "--epochs", "500"]
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


def test_learning_rate_rises_then_falls_to_almost_nothing() -> None:
    assert one_cycle(0.0) == pytest.approx(0.04)
    assert one_cycle(0.15) == pytest.approx(1.0)
    assert one_cycle(0.575) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(1e-3)


def test_a_locator_with_a_rate_of_nearly_nothing_stays_where_it_began(
    tmp_path: Path, small_options
) -> None:
    options = small_options(
        run_dir=tmp_path, stop="off", locator_input="state", locator_learning_rate=1e-12
    )
    agent = DTRAM.load(train(options))
    torch.manual_seed(options.seed)
    began = DTRAM(agent.config)
    assert torch.allclose(agent.locator.weight, began.locator.weight, atol=1e-6)
    assert not torch.allclose(agent.classifier.weight, began.classifier.weight, atol=1e-3)


@pytest.mark.parametrize("curriculum", [(1, 2, 4)])
def test_a_curriculum_trains_each_stage_from_the_last(tmp_path, small_options, curriculum) -> None:
    run = train(small_options(run_dir=tmp_path / "run", curriculum=curriculum, epochs=1))
    rows = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["eval/mean_glimpses"] for row in rows[:3]] == [1.0, 2.0, 4.0]
    assert len(rows) == 5


def test_ram_without_a_stop_uses_the_whole_budget(tmp_path: Path, small_options) -> None:
    run = train(small_options(run_dir=tmp_path / "run", stop="off", epochs=1))
    results = json.loads((run / "results.json").read_text())
    assert results["mean_glimpses"] == 4.0
    assert "RAM, no stop learned" in (run / "results.txt").read_text()


# --- A budget of env steps


@pytest.mark.parametrize(
    ("changes", "trunk", "stopper"),
    [
        # A quarter of 4,096 for the stopper: 256 images of 4 glimpses. 12 batches of 32 * 2 * 4 fit
        # into the rest, as 6 epochs of 2.
        ({"env_steps": 4096}, 12 * 32 * 2 * 4, 256 * 4),
        ({"env_steps": 4099, "stop": "off"}, 16 * 32 * 2 * 4, 0),  # 8 epochs of 2
        ({"env_steps": 5120, "stop": "joint"}, 20 * 32 * 2 * 4, 0),
        # Two stages share 3,072: 12 batches of 2 glimpses, 6 of 4.
        ({"env_steps": 4096, "curriculum": (2, 4)}, 12 * 32 * 2 * 2 + 6 * 32 * 2 * 4, 256 * 4),
    ],
)
def test_the_glimpses_learned_from_are_counted(
    tmp_path: Path, small_options, monkeypatch, changes, trunk: int, stopper: int
) -> None:
    seen = {"trunk": 0, "stopper": 0}
    forward, path = Unroll.forward, stages.deterministic_path

    def counted(self, *arguments):
        trajectory = forward(self, *arguments)
        seen["trunk"] += trajectory.locations.shape[:2].numel()
        return trajectory

    def counted_path(*arguments):
        for step in path(*arguments):
            seen["stopper"] += len(step.locations)
            yield step

    monkeypatch.setattr(Unroll, "forward", counted)
    monkeypatch.setattr(stages, "deterministic_path", counted_path)
    run = train(
        small_options(run_dir=tmp_path / "run", batch_size=32, stop_batch_size=64, **changes)
    )
    assert seen == {"trunk": trunk, "stopper": stopper}
    results = json.loads((run / "results.json").read_text())
    assert results["env_steps"] == trunk + stopper <= changes["env_steps"]
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["time/total_timesteps"] for row in rows]
    assert steps == sorted(steps) and steps[-1] == trunk + stopper
    if stopper:
        assert steps[-3] == trunk and steps[-2] == steps[-1]  # it takes its glimpses when it begins


def test_whole_epochs_are_counted_too(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    assert results["env_steps"] == 2 * 30 * 180 * 2 * 4 + 5400 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_steps": 0}, "--env-steps 0: expected at least 1"),
        ({"env_steps": 300, "batch_size": 32}, "--env-steps 300: expected at least 256 for each"),
        ({"env_steps": 14, "batch_size": 1}, "--env-steps 14: expected at least 16"),
    ],
)
def test_too_few_env_steps_are_an_error(tmp_path: Path, small_options, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        train(small_options(run_dir=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


# --- Policy-only tasks


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory, policy_id: str, small_options) -> Path:
    """A finished run on the policy-only id, on a budget; its locator has cells and a layer."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "policy"
    return train(policy_options(small_options, policy_id, folder))


def policy_options(small_options, policy_id: str, run: Path, **changes) -> Options:
    settings = {"batch_size": 60, "stop_batch_size": 60, "locator_grid": 3, "locator_hidden": 8}
    more = {"env_id": policy_id, "env_steps": 16_000, "choose": "return", "run_dir": run}
    return small_options(**settings, **more, **changes)


def test_a_policy_only_agent_learns_where_and_when_alone(
    policy_run: Path, small_classifier: Path, policy_id: str, small_options
) -> None:
    ours, theirs = (load_file(f / "model.safetensors") for f in (policy_run, small_classifier))
    options = policy_options(small_options, policy_id, policy_run)
    task = Task(policy_id, torch.device("cpu"))
    before = reinforce.new_agent(options, task)[0].state_dict()
    assert before.keys() == ours.keys()
    for name, learned in ours.items():
        if name.split(".")[0] in ("encoder", "core", "classifier"):
            assert torch.equal(learned, theirs[name]), name
        elif name.split(".")[0] in ("locator", "stopper"):
            assert not torch.equal(learned, before[name]), name
    results = json.loads((policy_run / "results.json").read_text())
    assert results["classifier"] == FrozenClassifier.load(small_classifier).name
    assert results["env_steps"] <= 16_000


def test_a_policy_only_agent_scores_through_the_environment_as_its_run_says(
    policy_run: Path, policy_id: str
) -> None:
    results = json.loads((policy_run / "results.json").read_text())
    answers = load_file(policy_run / "test_images.safetensors")
    found = dtram_env.evaluate(LookAndStop(DTRAM.load(policy_run)), policy_id, "test")
    assert found.prediction.tolist() == answers["prediction"].tolist()
    assert found.num_glimpses.tolist() == answers["num_glimpses"].tolist()
    assert found.histogram.tolist() == results["histogram"]
    assert 100 * found.error == pytest.approx(results["test_error"], abs=1e-4)
    assert found.mean_glimpses == pytest.approx(results["mean_glimpses"], abs=1e-4)
    assert 1 < found.mean_glimpses < 4  # there was something to agree about
    again = evaluate(EvaluateOptions(policy_run, device="cpu"))
    assert again["differs_from_training"] == 0
    assert (again["test_error"], again["mean_return"]) == (
        pytest.approx(results["test_error"]),
        found.mean_return,
    )


def test_a_policy_only_run_on_a_budget_resumes_bit_for_bit(
    tmp_path: Path, policy_run: Path, policy_id: str, small_options, monkeypatch
) -> None:
    for batches in (7, 25):  # in the trunk's stage and in the stopper's
        cut = tmp_path / str(batches)
        with monkeypatch.context() as patch:
            patch.setattr(reinforce, "Interrupt", InterruptAfter)
            InterruptAfter.remaining = batches
            with pytest.raises(SystemExit):
                train(policy_options(small_options, policy_id, cut))
        train(policy_options(small_options, policy_id, cut, resume=True))
        assert_same_run(policy_run, cut)


def test_another_network_than_the_classifiers_is_an_error(
    tmp_path: Path, policy_id: str, small_options
) -> None:
    options = policy_options(small_options, policy_id, tmp_path / "run", core="gru")
    with pytest.raises(ValueError, match=r"core='gru': the classifier in the loop, .* has 'rnn'"):
        train(options)
    assert not (tmp_path / "run").exists()


def test_a_bound_that_was_not_asked_for_is_not_missed(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    results["confidence"] = {}  # its keys were numbers
    results["bound_kept"] = {"validation": False, "test": False}
    missed = "mean glimpses on test: over the bound 3.5"
    assert missed in table(results)
    assert missed not in table(results | {"options": results["options"] | {"choose": "return"}})


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_program_solves_signpost(tmp_path: Path, seed: int) -> None:
    """The best policy is known: follow the arrow where there is one, and stop as soon as you can.

    Half of the images need one glimpse and half need two, and none needs to be answered wrongly.
    """
    options = Options(
        env_id="DTRAM-Signpost-v0",
        locator_grid=6,
        location_entropy=0.02,
        m=8,
        seed=seed,
        device="cpu",
        run_dir=tmp_path / "run",
    )
    results = json.loads((train(options) / "results.json").read_text())
    assert results["test_error"] < 1.0
    assert results["mean_glimpses"] == pytest.approx(1.5, abs=0.05)

"""The baselines' program: the results of a run, resuming, and errors in one line."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from stable_baselines3.common.base_class import BaseAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dtram_env
from agents.cost import classifier_flops_per_glimpse
from agents.policy_only import FrozenClassifier
from agents.sb3 import Sb3Policy, flops_per_glimpse
from tests.dtram_env.datasets.trees import make_folder
from tests.train.pages import Page
from train import sb3_baselines
from train.baselines.algorithms import ALGORITHMS, settings
from train.baselines.callback import ValidationCallback
from train.baselines.comparison_run import baseline_record
from train.common.run import RunFolder, run_program
from train.sb3_baselines import Options, prepare, train

ROOT = Path(__file__).resolve().parents[2]
WHOLE = "DTRAM-Signpost-v0"
STATED = {
    *("env_id", "dataset", "track", "view", "observe", "classifier", "split", "images", "algo"),
    *("hyperparameters", "env_steps", "seed", "test_error", "mean_glimpses", "mean_return"),
    *("flops_per_image", "curve", "train_seconds", "hardware", "versions", "command", "commit"),
    "date",
}
NARROW = ("network.width=16", "network.what_features=8")
ROLLOUT = (*NARROW, "n_steps=4")
REPLAY = (*NARROW, "buffer_size=512", "learning_starts=32", "batch_size=16", "gradient_steps=1")
SMALL: dict[str, tuple[str, ...]] = {
    "ppo": (*ROLLOUT, "batch_size=64"),
    "a2c": ROLLOUT,
    "dqn": REPLAY,
    "qr_dqn": REPLAY,
    "sac": REPLAY,
    "tqc": REPLAY,
    "recurrent_ppo": (*ROLLOUT, "batch_size=64", "network.lstm_hidden_size=8"),
    "maskable_ppo": (*ROLLOUT, "batch_size=64"),
}


def small(algo: str, env_id: str, **changes: Any) -> Options:
    """A run of 256 env steps, 16 environments side by side: 4 rollouts of those who have some."""
    settings: dict[str, Any] = {"total_timesteps": 256, "num_envs": 16, "eval_points": 4}
    if algo in SMALL:
        settings["set"] = SMALL[algo]
    return Options(algo=algo, env_id=env_id, **(settings | changes))  # type: ignore[arg-type]


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def score_of(policy: Any, env_id: str, split: str = "test", **env: Any) -> dict[str, Any]:
    return dtram_env.evaluate(policy, env_id, split, **env).to_dict()


# --- What a run leaves


@pytest.mark.parametrize("algo", SMALL)
def test_a_policy_only_run(tmp_path: Path, policy_id: str, small_classifier: Path, algo) -> None:
    run = train(small(algo, policy_id, run_dir=tmp_path / "run", seed=3))
    found = results_of(run)
    assert found.keys() >= STATED
    frozen = FrozenClassifier.load(small_classifier)
    assert (found["track"], found["classifier"]) == ("policy-only", frozen.name)
    assert frozen.sha256[:12] in frozen.name
    assert (found["algo"], found["seed"], found["env_steps"]) == (algo, 3, 256)
    assert (found["dataset"], found["split"], found["images"]) == ("Signpost", "test", 2000)
    env = found["hyperparameters"]["env"]
    assert found["view"] == env["view"] in ALGORITHMS[algo].views
    assert found["hyperparameters"]["num_envs"] == 16
    # The test figures are those of the saved best weights, through the environment.
    model: Any = ALGORITHMS[algo].load().load(run / "best_model.zip")  # type: ignore[attr-defined]
    scored = score_of(Sb3Policy(model), policy_id, **env)
    assert {key: found[key] for key in scored} == scored
    glimpse = flops_per_glimpse(model, model.observation_space.sample())
    glimpse += classifier_flops_per_glimpse(frozen.network)
    assert found["flops_per_image"] == round(glimpse * found["mean_glimpses"])
    # And the best weights are those that validation liked best on the way.
    validated = score_of(Sb3Policy(model), policy_id, "validation", **env)
    assert found["validation"]["return"] == validated["mean_return"]
    assert found["validation"]["return"] == max(point["return"] for point in found["curve"])
    assert found["validation"] in found["curve"]
    assert [point["env_steps"] for point in found["curve"]] == [0, 64, 128, 192, 256]
    assert not list(run.glob("checkpoint*"))
    page = Page(run / "report.html")
    assert f"test error {found['test_error']:.2f} %" in page.text
    looked_twice = any(point["mean_glimpses"] > 1 for point in found["curve"])
    quantities = ["return", "error %", "mean glimpses"][: 2 + looked_twice]
    curves = [one["aria-label"] for one in page.named("svg")]
    assert curves[:-1] == [f"{name} by number of env steps" for name in quantities]
    assert "Where it looked" in page.text and "Test image" in page.text


def test_a_whole_task_run_and_its_logs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = train(small("ppo", WHOLE, run_dir=tmp_path / "run", eval_points=2))
    found = results_of(run)
    assert found.keys() >= STATED
    assert (found["track"], found["classifier"]) == ("whole-task", None)
    assert (found["view"], found["observe"]) == ("discrete", "canvas")
    assert found["options"]["total_timesteps"] == 256
    assert found["options"]["hyperparameters"] == found["hyperparameters"]
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 128, 256]
    for row, point in zip(rows, found["curve"], strict=True):
        assert row["eval/mean_reward"] == point["return"]
        assert row["eval/success_rate"] == pytest.approx(1 - point["error"])
        assert row["eval/mean_ep_length"] == point["mean_glimpses"]
    said = (run / "results.txt").read_text()
    assert said.startswith(f"{WHOLE}, ppo, seed 0: test error {found['test_error']:.2f} % at ")
    assert capsys.readouterr().out.endswith(said)
    header, *progress = (run / "progress-0.csv").read_text().splitlines()
    assert {"rollout/ep_rew_mean", "time/total_timesteps"} <= set(header.split(","))
    assert len(progress) >= 3
    events = EventAccumulator(str(run))
    events.Reload()
    assert {"eval/mean_reward", "rollout/ep_rew_mean"} <= set(events.Tags()["scalars"])


def test_a_run_that_learns_from_labels_too(tmp_path: Path) -> None:
    few = {"eval_points": 1, "set": SMALL["ppo"]}
    run = train(small("ppo_labels", WHOLE, run_dir=tmp_path / "run", **few))
    header, *rows = (run / "progress-0.csv").read_text().splitlines()
    column = header.split(",").index("train/label_loss")
    losses = [float(cells[column]) for row in rows if (cells := row.split(","))[column]]
    assert losses and losses[0] == pytest.approx(math.log(4), rel=0.2)  # of an untrained guess
    record = baseline_record(results_of(run))
    assert record["learns_from"] == "labels and reward"


@pytest.mark.parametrize(
    ("algo", "words", "policy"),
    [
        ("random", (), lambda k: dtram_env.RandomPolicy(k, seed=5)),
        ("random", ("stop_after=2",), lambda k: dtram_env.RandomPolicy(k, seed=5, stop_after=2)),
        ("center", (), lambda k: dtram_env.CenterPolicy(k, seed=5, stop_after=1)),
        (
            "scan",
            ("grid=3", "stop_after=4"),
            lambda k: dtram_env.ScanPolicy(k, seed=5, grid=3, stop_after=4),
        ),
    ],
)
@pytest.mark.parametrize("track", ["whole-task", "policy-only"])
def test_rules_need_no_training(
    tmp_path: Path, policy_id: str, small_classifier: Path, track: str, algo, words, policy
) -> None:
    whole = track == "whole-task"
    env_id, classes = (WHOLE, 4) if whole else (policy_id, None)
    run = train(Options(algo=algo, env_id=env_id, set=words, seed=5, run_dir=tmp_path / "run"))
    found = results_of(run)
    assert found.keys() >= STATED
    fresh = policy(classes)
    validated = score_of(fresh, env_id, "validation")  # it draws on, so in the program's order
    scored = score_of(fresh, env_id)
    assert {key: found[key] for key in scored} == scored
    assert (found["track"], found["view"]) == (track, "native")
    assert (found["env_steps"], found["train_seconds"]) == (0, 0.0)
    (point,) = found["curve"]
    assert (point["env_steps"], point["return"]) == (0, validated["mean_return"])
    glimpse = 0
    if not whole:
        frozen = FrozenClassifier.load(small_classifier)
        glimpse = classifier_flops_per_glimpse(frozen.network)
    assert found["flops_per_image"] == round(glimpse * found["mean_glimpses"])


@pytest.mark.parametrize("algo", ["dqn", "scan"])
def test_the_shipped_policy_only_id(tmp_path: Path, mnist_folder: Path, algo: str) -> None:
    env_id = "agents:DTRAM-MNIST-Policy-v0"
    run = train(small(algo, env_id, run_dir=tmp_path / "run", eval_points=1))
    found = results_of(run)
    assert found["classifier"] == "mnist-classifier-682070ae2da4"
    assert (found["dataset"], found["images"]) == ("MNIST", 10_000)
    assert found["view"] == {"dqn": "single", "scan": "native"}[algo]
    assert sum(found["histogram"]) == 10_000
    assert found["mean_return"] <= 0.98 * found["accuracy"]


@pytest.mark.parametrize("algo", ["ppo", "scan"])
def test_own_images_and_keywords_of_the_environment(tmp_path: Path, algo: str) -> None:
    make_folder(tmp_path / "photos", train=12, test=2)
    made = small(
        algo,
        "DTRAM-ImageFolder-v0",
        root=tmp_path / "photos",
        data_dir=tmp_path / "data",
        env=("max_glimpses=2", "image_size=32", "glimpse_size=8"),
        observe="glimpse" if algo == "ppo" else None,  # images of several sizes have no canvas
        eval_points=1,
        run_dir=tmp_path / "run",
    )
    found = results_of(train(made))
    assert (found["dataset"], found["images"], len(found["histogram"])) == ("photos", 6, 2)
    env = found["hyperparameters"]["env"]
    assert {key: env[key] for key in ("max_glimpses", "image_size", "glimpse_size")} == {
        "max_glimpses": 2,
        "image_size": 32,
        "glimpse_size": 8,
    }
    assert found["options"]["root"] == str(tmp_path / "photos")
    shown = Page(tmp_path / "run" / "report.html").text
    assert all(f", test/{path}" in shown for path in ("kind_a/000.jpg", "kind_c/001.jpg"))


def test_the_classifier_is_a_keyword_of_the_environment_too(
    policy_id: str, small_classifier: Path, tmp_path: Path
) -> None:
    """So that train/compare.py can hand it to every program."""
    other = tmp_path / "other"
    shutil.copytree(small_classifier, other)
    for changes in ({"env": (f"classifier={other}",)}, {"classifier": other}):
        experiment = prepare(small("ppo", policy_id, **changes))
        assert experiment.about["classifier"].startswith("other-")
        assert experiment.env["classifier"] == str(other)


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_a_run_gives_up_below_a_return(
    tmp_path: Path, policy_id: str, capsys: pytest.CaptureFixture, algo: str
) -> None:
    """After the second validation, with a result; the returns are never 1."""
    train(small(algo, policy_id, run_dir=tmp_path / "a", give_up_below=(0.0, 1.0)))
    found = results_of(tmp_path / "a")
    assert found["env_steps"] == 128 and [p["env_steps"] for p in found["curve"]] == [0, 64, 128]
    best = max(point["return"] for point in found["curve"][1:])
    said = f"128 env steps: ended early: best validation return {best:.4f}, below 1.0000"
    assert said in capsys.readouterr().out
    for numbers in ((90.0,), (0.5,) * 5):
        with pytest.raises(ValueError, match=r"--give-up-below .*at most --eval-points numbers"):
            small(algo, policy_id, give_up_below=numbers)


# --- Resuming


@pytest.mark.parametrize(("algo", "reads"), [("ppo", 0), ("ppo", 2), ("recurrent_ppo", 1)])
def test_an_interrupted_run_is_resumed(
    tmp_path: Path, policy_id: str, interrupted, capsys, algo: str, reads: int
) -> None:
    """The flag is read before every rollout of 64 env steps."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    interrupted(lambda: train(small(algo, policy_id, run_dir=cut)), reads, sb3_baselines)
    said = capsys.readouterr().err
    assert re.search(rf"SIGTERM: saved\. To go on: .*sb3_baselines\.py .*{cut} --resume", said)
    assert not (cut / "results.json").exists() and len(list(cut.glob("checkpoint-*"))) == 1
    train(small(algo, policy_id, run_dir=cut, resume=True))
    assert f"continuing after {64 * reads:,} env steps" in capsys.readouterr().out
    train(small(algo, policy_id, run_dir=whole))
    ours, theirs = results_of(cut), results_of(whole)
    assert ours["env_steps"] == theirs["env_steps"] == 256
    assert [p["env_steps"] for p in ours["curve"]] == [0, 64, 128, 192, 256]
    assert ours["curve"][: reads + 1] == [
        {**p, "seconds": q["seconds"]}
        for p, q in zip(theirs["curve"][: reads + 1], ours["curve"], strict=False)
    ]
    seconds = [point["seconds"] for point in ours["curve"]]
    assert seconds == sorted(seconds)
    rows = [json.loads(row) for row in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 64, 128, 192, 256]


@pytest.mark.parametrize("algo", ["ppo", "dqn", "sac"])
def test_a_checkpoint_has_all_that_was_learned(
    tmp_path: Path, policy_id: str, interrupted, algo: str
) -> None:
    """SAC's entropy coefficient and the replay buffer too."""
    cut = tmp_path / "cut"
    reads = 2 if algo == "ppo" else 10  # off-policy algorithms read the flag every 16 env steps
    interrupted(lambda: train(small(algo, policy_id, run_dir=cut)), reads, sb3_baselines)
    folder = next(cut.glob("checkpoint-*"))
    saved: Any = ALGORITHMS[algo].load().load(folder / "model.zip")  # type: ignore[attr-defined]
    model, callback = restored(small(algo, policy_id), cut)
    assert model.num_timesteps == saved.num_timesteps == {"ppo": 128}.get(algo, 160)
    assert model._n_updates == saved._n_updates > 0
    assert_same_tree(model.get_parameters(), saved.get_parameters())
    assert callback.curve[-1]["env_steps"] == 128
    if algo == "sac":
        assert model.log_ent_coef.item() == saved.log_ent_coef.item()
        assert saved.log_ent_coef.item() != pytest.approx(np.log(0.01), abs=1e-6)  # it did move
    if algo != "ppo":
        assert model.replay_buffer.size() * 16 == 160


def test_checkpoints_by_time(tmp_path: Path, policy_id: str, monkeypatch) -> None:
    """After every rollout of 64 env steps, also where none is validated."""
    saved, save = [], RunFolder.save_checkpoint

    def record(self: RunFolder, write: Any, state: dict[str, Any]) -> None:
        saved.append((state["env_steps"], len(state["curve"])))
        save(self, write, state)

    monkeypatch.setattr(RunFolder, "save_checkpoint", record)
    small_one = small("ppo", policy_id, run_dir=tmp_path / "a", eval_points=1, save_minutes=1e-9)
    train(small_one)
    assert saved == [(0, 1), (0, 1), (64, 1), (128, 1), (192, 1), (256, 2)]
    assert "save_minutes" not in results_of(tmp_path / "a")["options"]


def restored(options: Options, folder: Path) -> tuple[Any, ValidationCallback]:
    """A model and its callback, from the folder's latest checkpoint or new ones."""
    experiment, device = prepare(options), torch.device("cpu")
    model = experiment.untrained(device)
    kept = folder / "options.json"
    defining = json.loads(kept.read_text()) if kept.exists() else {}
    run = RunFolder(folder, defining, kept.exists(), device, "train/sb3_baselines.py")
    callback = ValidationCallback(run, 256, 4, lambda p: experiment.evaluate(p, "validation"))
    callback.restore(model)
    run.writer.close()
    run.close()
    return model, callback


def assert_same_tree(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same_tree(ours[key], theirs[key])
    elif isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_same_tree(one, other)
    elif isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def test_what_was_logged_after_the_checkpoint_is_logged_once(
    tmp_path: Path, policy_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a validation and before its checkpoint."""

    class Killed(BaseException):
        pass

    def die(self: Any, step: int, scalars: Any) -> None:
        log(self, step, scalars)
        if step == 128:
            raise Killed

    cut, log = tmp_path / "cut", RunFolder.log
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", die)
        with pytest.raises(Killed):
            train(small("ppo", policy_id, run_dir=cut))
    train(small("ppo", policy_id, run_dir=cut, resume=True))
    rows = [json.loads(row) for row in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 64, 128, 192, 256]
    assert [point["env_steps"] for point in results_of(cut)["curve"]] == [0, 64, 128, 192, 256]


def test_the_best_model_is_the_checkpoints(
    tmp_path: Path, policy_id: str, interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of a later validation, which was lost."""
    cut = tmp_path / "cut"
    interrupted(lambda: train(small("ppo", policy_id, run_dir=cut)), 2, sb3_baselines)
    best = cut / "best_model.zip"
    kept = best.read_bytes()
    assert (next(cut.glob("checkpoint-*")) / "best_model.zip").read_bytes() == kept
    best.write_bytes(b"of a later validation")
    restored(small("ppo", policy_id), cut)
    assert best.read_bytes() == kept


def test_interrupted_at_the_test_split_it_learns_no_more(
    tmp_path: Path, policy_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    cut, flops = tmp_path / "cut", sb3_baselines.sb3.flops_per_glimpse
    monkeypatch.setattr(sb3_baselines.sb3, "flops_per_glimpse", refuse)
    with pytest.raises(KeyboardInterrupt):
        train(small("ppo", policy_id, run_dir=cut))
    best = (cut / "best_model.zip").read_bytes()
    monkeypatch.setattr(sb3_baselines.sb3, "flops_per_glimpse", flops)
    monkeypatch.setattr(BaseAlgorithm, "_setup_learn", refuse)
    train(small("ppo", policy_id, run_dir=cut, resume=True))
    assert (cut / "best_model.zip").read_bytes() == best
    assert results_of(cut)["env_steps"] == 256


def test_a_resumed_run_draws_other_images(tmp_path: Path, policy_id: str, interrupted) -> None:
    """Not those of its beginning once more."""
    cut = tmp_path / "cut"
    interrupted(lambda: train(small("ppo", policy_id, run_dir=cut)), 2, sb3_baselines)
    drawn = []
    for folder in (tmp_path / "new", cut):
        model, _ = restored(small("ppo", policy_id), folder)
        model.env.reset()
        drawn.append([info["image_index"] for info in model.env.unwrapped.reset_infos])
    assert drawn[0] != drawn[1]


def test_a_finished_run_prints_its_result(tmp_path: Path, policy_id: str, capsys) -> None:
    run = train(small("a2c", policy_id, run_dir=tmp_path / "run"))
    shown = capsys.readouterr().out.splitlines()[-1]
    before = (run / "results.json").stat().st_mtime_ns
    train(small("a2c", policy_id, run_dir=run, resume=True))
    assert capsys.readouterr().out == f"{run}: finished already\n{shown}\n"
    assert (run / "results.json").stat().st_mtime_ns == before


# --- Errors


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The text that the program ends with: the parser's, or the one line of another error."""
    with pytest.raises(SystemExit) as stopped:
        run_program(lambda: train(tyro.cli(Options, args=words)))
    line = stopped.value.code
    if line == 2:
        return " ".join(capsys.readouterr().err.replace("│", "").split())
    assert isinstance(line, str) and line.startswith("error: ") and "\n" not in line
    return line


POLICY = ("--env-id", "DTRAM-Signpost-Policy-v0")
WHOLE_ID = ("--env-id", WHOLE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--algo", "dqn", *POLICY, "--view", "continuous"),
            "--algo dqn takes one Discrete action, which policy-only ids have (--view single), not "
            "--view continuous on the policy-only track; with --view continuous: --algo ppo, a2c, "
            "sac, tqc, recurrent_ppo",
        ),
        (
            ("--algo", "maskable_ppo", *WHOLE_ID, "--view", "continuous"),
            "--algo maskable_ppo takes a MultiDiscrete action (--view discrete) or one Discrete "
            "action, which policy-only ids have (--view single), not --view continuous",
        ),
        (
            ("--algo", "dqn", *WHOLE_ID),
            "--algo dqn takes one Discrete action, which policy-only ids have; "
            "hyperparameters.toml has no row [whole-task.dqn]; use --algo ppo, a2c, sac, "
            "tqc, recurrent_ppo, maskable_ppo, ars, random, center, scan, or add a row",
        ),
        (
            ("--algo", "ppo", *WHOLE_ID, "--view", "native"),
            "with --view native: --algo random, center, scan",
        ),
        (("--algo", "ppo", *WHOLE_ID, "--env", "view=native"), "view=native: it is --view here"),
        (("--env-id", "CartPole-v1"), "environment 'CartPole-v1': expected one of this package's"),
        (
            ("--algo", "ppo", *WHOLE_ID, "--set", "lerning_rate=1e-3"),
            "unexpected keyword argument 'lerning_rate'; see hyperparameters.toml",
        ),
        (
            ("--algo", "ppo", *WHOLE_ID, "--set", "network.wdith=3"),
            "--algo ppo: ",
        ),
        (
            ("--algo", "random", *WHOLE_ID, "--set", "learning_rate=1e-3"),
            "--algo random: RandomPolicy.__init__() got an unexpected keyword argument "
            "'learning_rate'",
        ),
        (
            ("--algo", "ppo", *WHOLE_ID, "--set", "env.gird=3"),
            "'gird' is no keyword of GlimpseVectorEnv; did you mean 'grid'?",
        ),
        (
            ("--algo", "ppo", "--env-id", "DTRAM-ImageFolder-v0", "--set", "env.root=photos"),
            "--set env.root=photos: use --root photos",
        ),
        (
            ("--algo", "ppo", *WHOLE_ID, "--set", "env.grid=3", "--env", "grid=4"),
            "--env grid=4: expected it there or in --set, not in both",
        ),
        (
            ("--algo", "scan", *WHOLE_ID, "--set", "env.split=test"),
            "--set env.split=…: the program",
        ),
        (
            ("--algo", "ppo", *WHOLE_ID, "--set", "gamma=0.9"),
            "--set gamma=0.9: expected no gamma",
        ),
        (("--algo", "ppo", *WHOLE_ID, "--set", "net.width=3"), "--set net.width=3: expected NAME"),
        (("--algo", "ppo", *WHOLE_ID, "--set", "env=3"), "--set env=3: expected NAME, env.NAME"),
        (("--algo", "ppo", *WHOLE_ID, "--set", "num_envs=x"), "num_envs=x: expected an integer"),
        (("--algo", "ppo", *WHOLE_ID, "--set", "learning_rate=lin_fast"), "learning_rate=lin_fast"),
        (
            ("--algo", "ppo", *WHOLE_ID, "--num-envs", "1", "--set", "n_steps=1"),
            "--algo ppo: `n_steps * n_envs` must be greater than 1",
        ),
        (("--set", "width"), "--set width: expected NAME=VALUE"),
        (("--algo", "ppoo"), "--algo ppoo: expected one of ppo, a2c, dqn"),
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--total-timesteps", "0"), "--total-timesteps 0: expected at least 1"),
        (("--num-envs", "0"), "--num-envs 0: expected at least 1"),
        (("--eval-points", "0"), "--eval-points 0: expected at least 1"),
        (("--resume",), "--resume: expected with --run-dir"),
    ],
)
def test_what_does_not_go_together_ends_in_one_line(
    tmp_path: Path, policy_id: str, capsys, words: tuple[str, ...], said: str
) -> None:
    run = tmp_path / "run"
    assert said in refused(
        capsys, *words, *(() if "--resume" in words else ("--run-dir", str(run)))
    )
    assert not run.exists()  # nothing is in the way of the mended command


def test_a_missing_package_is_named(
    tmp_path: Path, policy_id: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "train.baselines.ars", raising=False)
    for algo in ("recurrent_ppo", "maskable_ppo", "ars"):
        run = tmp_path / algo
        said = refused(capsys, "--algo", algo, *POLICY, "--run-dir", str(run))
        assert said.startswith(
            "error: sb3_contrib is not installed: run `pip install 'dtram[sb3]'`"
        )
        assert not run.exists()


def test_options_change_the_row_of_the_table() -> None:
    words = ("learning_rate=1e-4", "env.grid=3", "network.width=64", "ent_coef=auto_0.1")
    chosen = prepare(
        Options(algo="ppo", env_id=WHOLE, set=words, view="discrete", observe="glimpse", num_envs=8)
    ).chosen
    row = settings("whole-task", "ppo")
    assert chosen.env == row.env | {"view": "discrete", "observe": "glimpse", "grid": 3}
    assert (chosen.num_envs, chosen.network) == (8, row.network | {"width": 64})
    assert chosen.algorithm == row.algorithm | {"learning_rate": 1e-4, "ent_coef": "auto_0.1"}

"""Several processes that train one model: the same weights as one, signals, a process that dies."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.processes import (
    check_batch_norm,
    check_what_is_shared,
    refuse_the_folder,
    together,
    train_some,
    train_whole,
)
from tests.train.runs import assert_same_run, metrics, read
from tests.train.test_one_look import HALTING
from tests.train.test_one_look import SMALL as SMALL_LOOK
from tests.train.test_reinforce import BUDGET, CHANGES
from train import one_look
from train.common.augment import Augmentation
from train.common.one_look_networks import HaltingBlocks
from train.common.options import SGD, AdamW
from train.common.provenance import choose_device
from train.dtram.options import StopAfter, Values
from train.reinforce import Options

ROOT = Path(__file__).resolve().parents[2]
DIGITS: dict[str, Any] = {
    "env": ("max_glimpses=3",),
    "env_steps": 20 * 4 * 65 * 2,  # 20 batches of the trunk, of 65 images x 2 x 3 glimpses
    "batch_size": 65,  # no multiple of 2 or 3 processes
    "optimizer": AdamW(max_grad_norm=0.5),  # so that gradients are clipped
    "baseline": "value",
    "augment": Augmentation(affine=1.0, flip=True),
    "stop": StopAfter(epochs=2, batch_size=100, gradient="reinforce"),
    "device": "cpu",
}


BATCH_NORMS: dict[str, Any] = {"optimizer": SGD(), "learning_rate": 1e-4}
"""With these, networks with batch norms in 2 processes are compared with those in 3: torch's own,
in one, are inexact on the CPU. They learn little, as rounding can switch the ReLU of a whole blank
region, and AdamW's first steps would enlarge it; another glimpse changes weights by some 1e-3."""


def digits(run_dir: Path, **changes: Any) -> Options:
    return Options(**{**DIGITS, "run_dir": run_dir, **changes})


def assert_close(one: Path, other: Path, name: str = "final.safetensors") -> None:
    """Weights and metrics of two runs are equal but for rounding."""
    before, after = (load_file(run / name) for run in (one, other))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    for row, expected in zip(metrics(other), metrics(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_20_steps_of_2_and_3_processes_are_those_of_one(tmp_path: Path, mnist_folder: Path) -> None:
    for count in (1, 2, 3):
        together(count, train_some, digits(tmp_path / f"{count}"))
    rows = metrics(tmp_path / "1")
    trunk = [row["step"] for row in rows if row["rollout/ep_len_mean"] == 3]
    assert trunk[-1] == 20 * 65 and len(rows) > len(trunk)  # the stopper learned, too
    assert all(row["train/loss"] != 0 for row in rows)
    for count in (2, 3):
        assert_close(tmp_path / "1", tmp_path / f"{count}")


@pytest.mark.parametrize("count", [2, 3])
def test_values_that_processes_share(count: int) -> None:
    together(count, check_what_is_shared)
    together(count, check_batch_norm)


def test_an_error_of_the_main_process_is_everyones(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text("{}")
    together(2, refuse_the_folder, Options(env_id="DTRAM-Signpost-v0", run_dir=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("batches", [7, 25])  # in the trunk's stage, in the stopper's
def test_a_signal_to_one_process_saves_and_any_number_goes_on(
    tmp_path: Path, mnist_folder: Path, batches: int
) -> None:
    together(2, train_some, digits(tmp_path / "whole"))
    for count in (1, 2, 3):
        run = tmp_path / f"{count}"
        together(2, train_some, digits(run), batches)
        assert len(list(run.glob("checkpoint-*"))) == 1
        together(count, train_some, digits(run, resume=True))
        assert_close(tmp_path / "whole", run)
    before, after = (load_file(tmp_path / f / "final.safetensors") for f in ("whole", "2"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert metrics(tmp_path / "2") == metrics(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_programs_of_several_processes_give_the_weights_of_one(
    tmp_path: Path, small_options: Callable[..., Options], name: str
) -> None:
    """Maps with batch norms and dropout, per-step networks, stages, sampled stops, and so on.

    What enlarges rounding is left out: bfloat16 (as of Muon), and the choice of the best cell.
    """
    counts, changes = (1, 2), BUDGET | CHANGES[name]
    if name in ("warm-up", "talk"):
        changes |= {"bf16": False, "optimizer": AdamW()}
    if name in ("values", "scan", "per-step"):
        counts, changes = (2, 3), changes | BATCH_NORMS
    if name == "values":
        changes |= {"locator": Values(grid=7, hidden=8, exploration=1.0)}
    for count in counts:
        run = tmp_path / f"{count}"
        together(count, train_whole, small_options(run_dir=run, **changes))
    before = tmp_path / f"{counts[0]}"
    assert_close(before, run, "model.safetensors")
    fewer, more = read(before), read(run)
    assert more["test_error"] == pytest.approx(fewer["test_error"], abs=0.1)
    assert more["hardware"]["processes"] == count
    names = [sorted(p.name.split(".")[0] for p in folder.iterdir()) for folder in (before, run)]
    assert names[0] == names[1]  # one process writes


@pytest.mark.slow
@pytest.mark.parametrize("halting", ["none", "act", "sact"])
def test_one_look_of_several_processes_gives_the_weights_of_one(
    tmp_path: Path, halting: Any
) -> None:
    counts, changes = (1, 2), {**SMALL_LOOK, "batch_size": 601}
    if halting != "none":
        halts = {**HALTING, "halting": HaltingBlocks(halting)}
        counts, changes = (2, 3), {**SMALL_LOOK, **halts, **BATCH_NORMS}
    for count in counts:
        run = tmp_path / f"{count}"
        together(count, train_whole, one_look.Options(**changes, run_dir=run))
    assert_close(tmp_path / f"{counts[0]}", run, "model.safetensors")


# -- torchrun ----------


def torchrun(*words: str) -> subprocess.Popen[str]:
    """``train/reinforce.py`` in two processes; the command in their messages is the same."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, str(ROOT / "train" / "reinforce.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def process_of(launcher: int, number: int) -> int:
    """The id of a process that torchrun started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text("utf-8").split()
    (found,) = [
        int(child)
        for child in children
        if f"\0RANK={number}\0" in Path(f"/proc/{child}/environ").read_text("utf-8")
    ]
    return found


SHORT = ["--env-id", "DTRAM-Signpost-v0", "--device", "cpu", "--batch-size", "300", "--epochs", "8"]
SHORT += ["--stop", "after", "epochs=1", "batch_size=900"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_dies_ends_the_other_and_the_run_goes_on(
    tmp_path: Path, number: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = torchrun(*SHORT, "--run-dir", str(whole))
    said, problems = undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0, problems
    assert said.count("model and results") == 1  # only one process prints

    launcher = torchrun(*SHORT, "--run-dir", str(cut))
    deadline = time.monotonic() + 120
    while not (cut / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process_of(launcher.pid, number), signal.SIGKILL)
    began = time.monotonic()
    _, problems = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 60 and launcher.returncode != 0
    assert problems.count("another process of this run ended") == 1, problems
    command = re.search(r"to go on: \S+ -m (torch.distributed.run --nproc-per-node 2 .*)", problems)
    assert command is not None and command[1].endswith(f"--run-dir {cut} --resume")

    again = torchrun(*SHORT, "--run-dir", str(cut), "--resume")
    _, problems = again.communicate(timeout=600)
    assert again.returncode == 0, problems
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_one_of_two_processes_says_what_both_refuse(tmp_path: Path) -> None:
    launcher = torchrun(*SHORT[:4], "--run-dir", str(tmp_path), "--batch-size", "1000000")
    _, problems = launcher.communicate(timeout=120)
    assert problems.count("error: --batch-size 1000000: expected at most 5400") >= 1
    assert launcher.returncode != 0 and not list(tmp_path.iterdir())


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cuda:0: expected auto, cuda or cpu with torchr"):
        choose_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--nproc-per-node 4: expected at most 2, the GPUs of th"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)
    assert choose_device("cuda") == torch.device("cuda:1")

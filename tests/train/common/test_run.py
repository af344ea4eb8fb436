"""Run folders, checkpoints, signals, provenance."""

import importlib.metadata
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from agents.files import write_tensors
from agents.objective import supervised_losses
from agents.one_look import OneLook, OneLookConfig
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.files import write_json, write_text
from dtram_env.output import READER_GONE
from tests.dtram_env.datasets.images import Given
from train.common.files import read_json, save_figure
from train.common.optimizers import Optimizers
from train.common.options import AdamW
from train.common.provenance import choose_device, provenance, shell_command
from train.common.records import ORIGIN
from train.common.run import Interrupt, RunFolder, new_folder, run_program, save_states
from train.common.signals import ENDINGS
from train.common.training import Selection, TrainingRun

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


def new_run(path: Path, options: dict[str, Any] | None = None, resume: bool = False) -> RunFolder:
    return RunFolder(path, options or {}, resume, CPU, "train/reinforce.py")


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff/run"])
def test_a_folder_whose_name_is_not_utf8_is_refused_at_once(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    with pytest.raises(ValueError, match=r"--run-dir .*[\udce9\udcff].*: expected a name in UTF-8"):
        new_run(path)
    assert not path.exists()


def test_options_that_are_not_utf8_are_written(tmp_path: Path) -> None:
    run = new_run(tmp_path, {"root": os.fsdecode(b"caf\xe9")})
    write_text(tmp_path / "results.txt", f"{run.options['root']} γ\n")
    run.finish({"error": 1}, "error")
    assert (tmp_path / "results.txt").read_bytes() == "caf\\udce9 γ\n".encode()
    assert os.fsencode(read_json(tmp_path / "options.json")["root"]) == b"caf\xe9"
    (events,) = tmp_path.glob("events*")
    assert rb"caf\udce9" in events.read_bytes()


def test_a_checkpoint_restores_state_files_and_generator(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert run.load_state() is None and run.checkpoint is None
    torch.manual_seed(3)
    run.save_checkpoint(lambda folder: (folder / "a.txt").write_text("a"), {"epoch": 2})
    expected = torch.rand(5)
    run.close()
    torch.manual_seed(99)
    again = new_run(tmp_path, resume=True)
    assert again.load_state() == {"epoch": 2}
    assert again.checkpoint is not None and (again.checkpoint / "a.txt").read_text() == "a"
    again.restore_generators()
    assert torch.equal(torch.rand(5), expected)


def test_only_the_latest_checkpoint_stays_and_a_half_written_one_is_ignored(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for epoch in range(12):
        run.save_checkpoint(lambda folder: None, {"epoch": epoch})
    begun = tmp_path / ".checkpoint-000013.new"
    begun.mkdir()
    (begun / "state.json").write_text('{"ste')
    assert run.load_state() == {"epoch": 11}
    run.save_checkpoint(lambda folder: None, {})
    assert [p.name for p in sorted(tmp_path.glob("*checkpoint*"))] == ["checkpoint-000013"]
    begun.mkdir()
    run.finish({"error": 1})
    assert run.finished and not list(tmp_path.glob("*checkpoint*"))


def test_a_run_killed_as_it_ends_leaves_no_checkpoint(tmp_path: Path, monkeypatch) -> None:
    """Its results are written; the next call removes what the kill left."""
    run = new_run(tmp_path)
    run.save_checkpoint(lambda folder: None, {})
    (tmp_path / ".checkpoint-000002.new").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        run.finish({"error": 1})
    assert len(list(tmp_path.glob("*checkpoint*"))) == 2
    assert new_run(tmp_path, resume=True).finished
    assert not list(tmp_path.glob("*checkpoint*"))


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    """It can be shown from a disk that is read-only, and by several processes."""
    new_run(tmp_path).finish({"error": 1})
    before = {path: path.stat() for path in [tmp_path, *tmp_path.iterdir()]}
    runs = [new_run(tmp_path, resume=True) for _ in range(2)]
    assert all(run.finished for run in runs)
    assert {path: path.stat() for path in [tmp_path, *tmp_path.iterdir()]} == before
    assert not list(tmp_path.glob(".lock*"))


def test_programs_that_begin_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path / "runs", "now_seed0"), range(12)))
    assert {path.name for path in made} == {"now_seed0", *(f"now_seed0-{n}" for n in range(2, 13))}
    assert all(path.is_dir() for path in made)


def test_a_checkpoint_killed_while_it_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint(lambda folder: None, {"epoch": 0})
    with pytest.raises(ZeroDivisionError):
        run.save_checkpoint(lambda folder: 1 // 0, {"epoch": 1})  # type: ignore[arg-type]
    assert run.load_state() == {"epoch": 0}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("m=0"), "error: m=0"),
        (FileNotFoundError("run: no saved model"), "error: run: no saved model"),
        (PermissionError(13, "Permission denied", "a/b"), "error: a/b: Permission denied"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_programs_end_in_one_line(error: BaseException, status: object) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_program(main)
    assert stopped.value.code == status


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_stops_reading(unbuffered: str) -> None:
    """As ``| head``: no message."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, str(ROOT / "train" / "evaluate.py"), "--help"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (done.stderr, done.returncode) == (b"", READER_GONE)


def test_nothing_to_resume_is_printed(tmp_path: Path, capsys) -> None:
    new_run(tmp_path / "typo", resume=True)
    assert f"{tmp_path / 'typo'}: nothing to resume" in capsys.readouterr().out


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    new_run(tmp_path, {"seed": 0})
    with pytest.raises(ValueError, match="holds a run already; add --resume"):
        new_run(tmp_path, {"seed": 0})
    new_run(tmp_path, {"seed": 0}, resume=True)
    with pytest.raises(ValueError, match=r"--seed \(0 then, 1 now\)"):
        new_run(tmp_path, {"seed": 1}, resume=True)


def test_metrics_can_be_rewound(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    for step in (1, 2, 3):
        run.log(step, {"eval/accuracy": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "eval/acc')  # cut off by a kill
    run.rewind(2)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "eval/accuracy": 0.1}, {"step": 2, "eval/accuracy": 0.2}]


@pytest.mark.usefixtures("no_signal_ignored")
@pytest.mark.parametrize("name", ENDINGS)
def test_a_signal_sets_the_flag_and_handlers_are_restored(name: signal.Signals) -> None:
    before = signal.getsignal(name)
    with Interrupt() as interrupt:
        assert interrupt.signal is None
        os.kill(os.getpid(), name)
        assert interrupt.signal == name
        assert signal.getsignal(name) == before  # a second one acts as usual
    assert signal.getsignal(name) == before


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="--device quantum"):
        choose_device("quantum")


def test_provenance() -> None:
    found = provenance(torch.device("cpu"))
    assert set(ORIGIN) <= set(found)  # what a record needs
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["hardware"]["device"] == "cpu"
    assert found["command"].startswith("python ")
    assert found["commit"] == "unknown" or len(found["commit"].removesuffix("+changes")) == 40


def test_the_command_of_an_interrupted_run(tmp_path: Path, monkeypatch, capsys) -> None:
    def printed(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train/reinforce.py", *words])
        with pytest.raises(SystemExit) as stopped:
            run.leave(signal.SIGTERM)
        assert stopped.value.code == 128 + signal.SIGTERM
        return capsys.readouterr().err.partition("To go on: ")[2].strip()

    run = new_run(tmp_path)
    expected = shell_command(
        "train/reinforce.py", ["--m", "2", "--run-dir", str(tmp_path), "--resume"]
    )
    assert expected.endswith(f" train/reinforce.py --m 2 --run-dir {tmp_path} --resume")
    assert printed("--m", "2") == expected
    assert printed("--m", "2", "--resume", "--run-dir", str(tmp_path)) == expected
    assert printed(f"--run-dir={tmp_path}").endswith(f"py --run-dir={tmp_path} --resume")
    monkeypatch.chdir(tmp_path)
    assert Path(shlex.split(printed())[1]).is_file()


# -- the bookkeeping of a training loop ----------


def linear_run(
    path: Path,
    epochs: int,
    resume: bool = False,
    save_minutes: float = math.inf,
    killed: Callable[[TrainingRun], bool] = lambda run: False,  # asked after each batch
) -> tuple[TrainingRun, nn.Module]:
    """A loop of two stages of two epochs on a linear model; killed after so many epochs."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    how = resume, CPU, "train/a.py", save_minutes
    run = TrainingRun(path, {}, *how, model=model, seed=5)
    with run:
        for stage in run.stages(["one", "two"]):
            parameters = list(model.parameters())
            optimizers = Optimizers(model, parameters, 6, 0.01, AdamW())
            run.begin(optimizers, 2, env_steps=7)
            for epoch in run.epochs():
                if (run.progress.stage, epoch) == divmod(epochs, 2):
                    return run, model
                for indices in run.batches(6, 2):
                    if killed(run):
                        return run, model
                    loss = (model(torch.randn(2, 3)) - indices[:, None]).square().mean()
                    optimizers.zero_grad()
                    loss.backward()
                    optimizers.step()
                    run.count(supervised_losses(loss, torch.tensor(0.5), 1, 0.9), env_steps=2)
                metrics = {"eval/accuracy": 0.5, "eval/mean_glimpses": 1.0, "stage": len(stage)}
                run.end_epoch(Selection((1.0, 1.0), metrics))
    return run, model


def assert_same_learning(
    whole: tuple[TrainingRun, nn.Module], cut: tuple[TrainingRun, nn.Module]
) -> None:
    """The same weights, counts and losses of four epochs of 6 images."""
    (run, model), (other, theirs) = whole, cut
    for a, b in zip(model.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert run.progress.images == other.progress.images == 4 * 6
    assert run.progress.env_steps == other.progress.env_steps == 4 * 6 + 2 * 7
    logged = [(each.path / "metrics.jsonl").read_text().splitlines() for each in (run, other)]
    losses = [[json.loads(line)["train/loss"] for line in lines] for lines in logged]
    assert losses[0] == losses[1] and len(losses[0]) == 4


@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_a_loop_that_stopped_continues_bit_for_bit(tmp_path: Path, epochs: int) -> None:
    whole = linear_run(tmp_path / "whole", epochs=9)
    linear_run(tmp_path / "cut", epochs=epochs)
    torch.manual_seed(77)
    assert_same_learning(whole, linear_run(tmp_path / "cut", epochs=9, resume=True))


@pytest.mark.parametrize(
    ("save_minutes", "saved"), [(1e-9, (1, 1)), (30, (0, 0)), (math.inf, (0, 0))]
)
def test_checkpoints_by_time(tmp_path: Path, save_minutes: float, saved: tuple[int, int]) -> None:
    """Killed in the second batch of the second epoch: that batch alone, or the epoch, is lost."""
    whole = linear_run(tmp_path / "whole", epochs=9)

    def in_second_batch(run: TrainingRun) -> bool:
        return (run.progress.epoch, run.progress.batch) == (1, 1)

    cut, _ = linear_run(tmp_path / "cut", 9, False, save_minutes, in_second_batch)
    state = cut.load_state()
    assert state is not None and state["epoch"] == 1
    assert (state["batch"], len(state["sums"]) > 0) == saved
    torch.manual_seed(77)
    assert_same_learning(whole, linear_run(tmp_path / "cut", 9, True, save_minutes))


def damages(content: bytes) -> Iterator[bytes]:
    """A file cut off, emptied, grown, and with one bit changed at its start, middle and end."""
    yield from (content[:-10], b"", content + b"x")
    for place in (0, len(content) // 2, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run, _ = linear_run(tmp_path, epochs=1)
    assert run.checkpoint is not None
    for path in list(run.checkpoint.iterdir()):
        content = path.read_bytes()
        for damaged in damages(content):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{re.escape(str(run.checkpoint))}.*start it ag"):
                linear_run(tmp_path, epochs=2, resume=True)
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(path))):
            linear_run(tmp_path, epochs=2, resume=True)
        path.write_bytes(content)
    linear_run(tmp_path, epochs=2, resume=True)


def test_a_checkpoint_is_on_the_disk_before_the_one_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    run.save_checkpoint(lambda folder: None, {})
    first, events = run.checkpoint, []
    flush, remove, replace = os.fsync, shutil.rmtree, os.replace

    def note(event: str, call: Callable[..., None]) -> Callable[..., None]:
        def noted(target: Any, *others: Any, **options: Any) -> None:
            path = os.readlink(f"/proc/self/fd/{target}") if event == "flush" else target
            events.append((event, Path(path).name))
            call(target, *others, **options)

        return noted

    monkeypatch.setattr(os, "fsync", note("flush", flush))
    monkeypatch.setattr(os, "replace", note("rename", replace))
    monkeypatch.setattr(shutil, "rmtree", note("remove", remove))
    run.save_checkpoint(lambda folder: (folder / "a.txt").write_text("a"), {})
    renamed = events.index(("rename", ".checkpoint-000002.new"))
    for name in (".checkpoint-000002.new", "a.txt", "generators.pt", "state.json"):
        assert ("flush", name) in events[:renamed]
    assert first is not None
    removed = events.index(("remove", first.name))
    assert ("flush", tmp_path.name) in events[renamed:removed]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_agent(run: RunFolder) -> Path:
    OneLook(OneLookConfig(2, (4, 4, 1), hidden_size=2)).save(run.path / "model")
    return run.path / "model" / "model.safetensors"


def log(run: RunFolder) -> Path:
    run.log(2, {"a": 1.0})
    return run.path / "metrics.jsonl"


def checkpoint(run: RunFolder) -> Path:
    tensors = {"a": torch.zeros(9)}
    run.save_checkpoint(lambda folder: save_states(folder / "a.pt", tensors), {"epoch": 1})
    return Path(run.path, "checkpoint-000002")


def weights(run: RunFolder) -> Path:
    return write_tensors(run.path / "a.safetensors", {"a": torch.zeros(9)})


def results(run: RunFolder) -> Path:
    return write_json(run.path / "b.json", {"a": 1})


def figure(run: RunFolder) -> Path:
    save_figure(Figure(), run.path / "a.png")
    return run.path / "a.png"


def finish(run: RunFolder) -> Path:
    run.finish({"test_error": 1.0}, "test_error")
    return run.path  # a file of TensorBoard, whose name nobody knows


def cache(run: RunFolder) -> Path:
    build_cache(run.path / "cache", Given([np.ones((3, 4, 1), np.uint8)]))
    return run.path / "cache"


@pytest.mark.parametrize(
    "write", [save_agent, log, checkpoint, weights, results, figure, finish, cache]
)
def test_a_full_disk_is_an_error_with_the_file_and_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[RunFolder], Path]
) -> None:
    run = new_run(tmp_path / "run")
    run.log(1, {"a": 1.0})
    run.save_checkpoint(lambda folder: None, {"epoch": 0})
    path = run.path / write(new_run(tmp_path / "other")).relative_to(tmp_path / "other")
    before = set(tmp_path.rglob("*"))
    with full_disk(), pytest.raises(SystemExit) as stopped:
        run_program(lambda: write(run))
    assert str(stopped.value.code).startswith(f"error: {path}: ")
    assert "\n" not in str(stopped.value.code) and capsys.readouterr().err == ""
    made = {found.name for found in set(tmp_path.rglob("*")) - before}
    assert made <= {"model", ".cache.lock"}  # an empty folder, and a lock
    assert run.load_state() == {"epoch": 0}


def test_a_finished_run_is_shown_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model = linear_run(tmp_path, epochs=9)
    write_text(tmp_path / "results.txt", "the result\n")
    run.finish({})
    capsys.readouterr()
    with full_disk():
        again = TrainingRun(tmp_path, {}, True, CPU, "train/a.py", model=model, seed=5)
        assert again.finished and again.show() == tmp_path
    assert capsys.readouterr().out == f"the result\nmodel and results: {tmp_path}\n"


def test_the_best_weights_have_the_smallest_criterion(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, {}, False, CPU, "train/a.py", model=nn.Linear(1, 1), seed=0)
    criteria = [(0.5, 2.0), (0.5, 2.0), (0.5, 1.0), (0.6, 0.0), (0.4, 9.0)]
    assert [run.is_best(Selection(c, {})) for c in criteria] == [True, False, True, False, True]

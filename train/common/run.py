"""A run on disk: folder, options, metrics, TensorBoard, signals, checkpoints."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from dtram_env.datasets import DatasetCorruptError
from train.common.provenance import python_command


def run_program(main: Callable[[], object]) -> None:
    """Runs a program of this package: what its user can mend ends it in one line on stderr."""
    try:
        main()
    except (ValueError, DatasetCorruptError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        # One of the system's own knows its file; ours say everything in their text.
        known = error.strerror and error.filename
        sys.exit(f"error: {error.filename}: {error.strerror}" if known else f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON aside, then renames, so that a reader never sees half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Writes text aside, then renames; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text)
    os.replace(aside, path)
    return path


def read_json(path: Path) -> Any:
    """Reads JSON, naming the file if it is damaged."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}); delete the run and start it again"
        ) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file of a run, naming the file if it is missing or damaged."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"{path}: missing or damaged ({error}); delete the run and start it again"
        ) from None


class RunFolder:
    """One training run's folder: ``options.json``, ``metrics.jsonl``, TensorBoard, checkpoints.

    Args:
        path: the folder; made if missing.
        options: JSON values that define the run.
        resume: go on with what is there.
        device: whose random generator is saved in checkpoints, beside the CPU's.

    Attributes:
        command: what goes on with an interrupted run, if not the program itself with --resume.

    Raises:
        ValueError: if the folder holds a run and `resume` is false, or one with other options.
    """

    def __init__(
        self,
        path: Path,
        options: Mapping[str, Any],
        resume: bool,
        device: torch.device | None = None,
    ) -> None:
        self.path = path
        self.device = device or torch.device("cpu")
        self._purge_step: int | None = None
        self.command: str | None = None
        existing = path / "options.json"
        if existing.exists():
            if not resume:
                raise ValueError(
                    f"{path}: holds a run already; add --resume to continue it, "
                    "or choose another --run-dir"
                )
            before = read_json(existing)
            changed = sorted(
                f"--{name.replace('_', '-')} ({before.get(name)!r} then, {options.get(name)!r} now)"
                for name in before.keys() | options.keys()
                if before.get(name) != options.get(name)
            )
            if changed:
                raise ValueError(
                    f"{path}: was started with other options: {', '.join(changed)}; "
                    f"resume with the same ones, choose another --run-dir, or delete {path}"
                )
        elif resume:
            print(f"{path}: nothing to resume, a new run begins")
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(existing, dict(options))
        except OSError as error:
            raise ValueError(
                f"--run-dir {path}: expected a folder that can be made and written "
                f"({error.strerror}); choose another"
            ) from None

    @cached_property
    def writer(self) -> SummaryWriter:
        """TensorBoard's."""
        return SummaryWriter(str(self.path), max_queue=1000, purge_step=self._purge_step)

    @property
    def finished(self) -> bool:
        """Whether the run has its results; they are written last."""
        return (self.path / "results.json").exists()

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json`` and removes what only an unfinished run needs."""
        write_json(self.path / "results.json", dict(results))
        for folder in self._checkpoints():
            shutil.rmtree(folder)
        self.close()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a row to ``metrics.jsonl`` and the same scalars to TensorBoard."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Drops metrics logged after `step`: a resumed run logs them again."""
        self._purge_step = step + 1
        path = self.path / "metrics.jsonl"
        if path.exists():
            rows = [row for row in path.read_text().splitlines() if row.endswith("}")]
            kept = [row for row in rows if json.loads(row)["step"] <= step]
            aside = path.with_name(path.name + ".tmp")
            aside.write_text("".join(row + "\n" for row in kept))
            os.replace(aside, path)

    def log_hyperparameters(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fills TensorBoard's hyper-parameter tab: one row of options with its final metrics."""
        flat = {
            k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in options.items()
        }
        for summary in hparams(flat, dict(metrics)):
            assert self.writer.file_writer is not None
            self.writer.file_writer.add_summary(summary)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value)

    def close(self) -> None:
        self.writer.close()

    def leave(self, signalled: signal.Signals, program: str) -> NoReturn:
        """Says how to go on with a saved run, and exits with the signal's usual status."""
        self.close()
        words = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word.split("=")[0] == "--run-dir" for word in words):
            words += ["--run-dir", str(self.path)]
        command = self.command or shlex.join([python_command(), program, *words, "--resume"])
        print(f"\n{signalled.name}: saved. To go on: {command}", file=sys.stderr)
        raise SystemExit(128 + signalled)

    # -- checkpoints ----------------------------------------------------------------------------

    def save_checkpoint(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> Path:
        """Saves everything needed to go on.

        Args:
            model: its weights go to ``weights.safetensors``.
            optimizer: its tensors go to ``optimizer.safetensors``.
            state: JSON values; the generators' states are added.
        """
        tensors, numbers = _split_optimizer(optimizer)

        def write(folder: Path) -> None:
            save_file(_contiguous(model.state_dict()), folder / "weights.safetensors")
            save_file(tensors, folder / "optimizer.safetensors")

        return self.write_checkpoint(write, {**state, "optimizer": numbers})

    def write_checkpoint(self, write: Callable[[Path], None], state: dict[str, Any]) -> Path:
        """Makes a checkpoint, valid by one rename; then older ones go.

        Args:
            write: puts its files into the folder that it is given.
            state: JSON values; torch's generators' states are added.
        """
        before = self._checkpoints()
        number = int(before[-1].name.rpartition("-")[2]) + 1 if before else 1
        aside = self.path / "checkpoint.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write(aside)
        generators = _generator_states(self.device)
        write_json(aside / "state.json", {**state, "generators": generators})
        final = self.path / f"checkpoint-{number:06d}"
        os.replace(aside, final)
        for old in before:
            shutil.rmtree(old)
        return final

    @property
    def latest_checkpoint(self) -> Path | None:
        """The folder of the latest checkpoint; None if there is none."""
        found = self._checkpoints()
        return found[-1] if found else None

    def latest_state(self) -> dict[str, Any] | None:
        """The state of the latest checkpoint; None if there is none."""
        found = self._checkpoints()
        return read_json(found[-1] / "state.json") if found else None

    def load_weights(self, model: nn.Module) -> None:
        """Puts the latest checkpoint's weights into the model."""
        model.load_state_dict(read_tensors(self._checkpoints()[-1] / "weights.safetensors"))

    def load_checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Puts the latest checkpoint into the model, the optimizer and torch's generators."""
        folder = self._checkpoints()[-1]
        state = read_json(folder / "state.json")
        self.load_weights(model)
        tensors = read_tensors(folder / "optimizer.safetensors")
        _restore_optimizer(optimizer, tensors, state["optimizer"])
        _restore_generators(state["generators"], self.device)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-[0-9]*"))


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag that the training loop reads between two batches.

    A second signal acts as if this were not here.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        for name in (signal.SIGINT, signal.SIGTERM):
            self._before[name] = signal.signal(name, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        for name, handler in self._before.items():
            signal.signal(name, handler)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as flat tensors ``"3.exp_avg"`` and JSON numbers."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    return _contiguous(tensors), {"param_groups": state["param_groups"], "numbers": numbers}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **saved["numbers"]}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})


def _generator_states(device: torch.device) -> dict[str, str]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(s.numpy().tobytes()).decode() for name, s in states.items()}


def _restore_generators(saved: Mapping[str, str], device: torch.device) -> None:
    def tensor(text: str) -> Tensor:
        return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)

    torch.set_rng_state(tensor(saved["cpu"]))
    if "cuda" in saved and device.type == "cuda":
        torch.cuda.set_rng_state(tensor(saved["cuda"]), device)

"""The folder of a run: options, metrics, TensorBoard, checkpoints; and signals."""

import io
import json
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from dtram_env.datasets import DatasetCorruptError
from dtram_env.files import naming, replacing, sha256_of
from dtram_env.optional import MissingDependencyError
from dtram_env.output import for_any_reader, in_one_line
from train.common.files import (
    WAY_OUT,
    Record,
    Step,
    read_json,
    read_json_lines,
    write_json,
    write_text,
)
from train.common.provenance import shell_command

CHECKSUMS = "checksums.json"  # of a checkpoint's other files


def run_program(main: Callable[[], object]) -> None:
    """Runs a program; an error that the user can fix ends it with one line on stderr.

    It ends without a line if nobody reads its output any more, as after ``| head``.
    """
    try:
        with for_any_reader():
            main()
    except (ValueError, OSError, DatasetCorruptError, MissingDependencyError) as error:
        sys.exit(f"error: {in_one_line(error)}")
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


class RunFolder:
    """The folder of one training run.

    It holds ``options.json``, ``metrics.jsonl``, TensorBoard's files, the latest checkpoint while
    the run is unfinished, and ``results.json`` once it is finished.

    Raises ValueError if the folder holds a run and `resume` is false, if the run has other options,
    or if the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,  # made if missing
        options: Mapping[str, Any],  # JSON values that define the run
        resume: bool,  # whether to continue the run in the folder
        device: torch.device,  # checkpoints hold the state of its random generator and the CPU's
        program: str,  # its path in the repository, for the command that continues a run
    ) -> None:
        self.path, self.options, self.device, self.program = path, options, device, program
        self._purge_step: int | None = None
        existing = path / "options.json"
        if existing.exists() and not resume:
            way_out = "add --resume to continue it, or choose another --run-dir"
            raise ValueError(f"{path}: holds a run already; {way_out}")
        if existing.exists():
            check_same(path, read_json(existing), options)
            return  # nothing is written into a finished run, which may be on a read-only disk
        if resume:
            print(f"{path}: nothing to resume, a new run begins")
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(existing, dict(options))
        except OSError as error:
            expected = f"expected a folder that can be made and written ({error.strerror})"
            raise ValueError(f"--run-dir {path}: {expected}; choose another") from None

    @cached_property
    def writer(self) -> SummaryWriter:
        """TensorBoard's writer."""
        return SummaryWriter(str(self.path), max_queue=1000, purge_step=self._purge_step)

    @property
    def finished(self) -> bool:
        """Whether the run has its results, which are written last."""
        return has_results(self.path)

    def finish(self, results: Mapping[str, Any], *metrics: str) -> None:
        """Writes ``results.json``, `metrics` of it to TensorBoard; removes the checkpoints."""
        if metrics:
            plain = (bool, int, float, str)
            flat = {k: v if isinstance(v, plain) else str(v) for k, v in self.options.items()}
            final = {f"hparam/{name}": results[name] for name in metrics}
            assert self.writer.file_writer is not None
            for summary in hparams(flat, final):
                self.writer.file_writer.add_summary(summary)
            for name, value in final.items():
                self.writer.add_scalar(name, value)
        write_json(self.path / "results.json", dict(results))
        for folder in self.path.glob("*checkpoint-*"):  # also one that a killed process began
            shutil.rmtree(folder)
        self.writer.close()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a line to ``metrics.jsonl`` and the same scalars to TensorBoard."""
        path = self.path / "metrics.jsonl"
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
        with naming(self.path):  # a file of TensorBoard
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Removes metrics logged after `step`, because a resumed run logs them again."""
        self._purge_step = step + 1
        path = self.path / "metrics.jsonl"
        if path.exists():
            content = path.read_bytes()
            if not content.endswith(b"\n"):  # a kill may cut off the last line
                path.write_bytes(content[: content.rfind(b"\n") + 1])
            kept = [line for line in read_json_lines(path, Step) if line["step"] <= step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def leave(self, signalled: signal.Signals) -> NoReturn:
        """Prints the command that continues the run; exits with the signal's usual status."""
        self.writer.close()
        words = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word.split("=")[0] == "--run-dir" for word in words):
            words += ["--run-dir", str(self.path)]
        command = shell_command(self.program, [*words, "--resume"])
        print(f"\n{signalled.name}: saved. To go on: {command}", file=sys.stderr)
        raise SystemExit(128 + signalled)

    # -- checkpoints ----------------------------------------------------------------------------

    def save_checkpoint(self, write: Callable[[Path], None], state: dict[str, Any]) -> None:
        """Saves what `write` writes into a folder, JSON values, and torch's random generators.

        ``checksums.json`` has the SHA-256 of each file. The checkpoint is renamed when it is
        complete and on the disk, so a crash leaves a valid one; then the previous one is removed.
        """
        before = self._checkpoints()
        number = int(before[-1].name.rpartition("-")[2]) + 1 if before else 1
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        with replacing(self.path / f"checkpoint-{number:06d}") as aside:
            aside.mkdir()
            write(aside)
            save_states(aside / "generators.pt", states)
            write_json(aside / "state.json", state)
            write_json(aside / CHECKSUMS, {p.name: sha256_of(p) for p in sorted(aside.iterdir())})
        for old in before:
            shutil.rmtree(old)

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the latest checkpoint; None if there is none."""
        return max(self._checkpoints(), default=None)

    def load_state(self, kind: Any = dict[str, Any]) -> Record | None:
        """JSON values of the latest checkpoint, None if there is none; first checks its files.

        Raises ValueError if a file is missing or was changed, or the values are of another kind,
        see `read_json`.
        """
        folder = self.checkpoint
        if folder is None:
            return None
        for name, expected in read_json(folder / CHECKSUMS, dict[str, str]).items():
            path = folder / name
            if not path.is_file() or sha256_of(path) != expected:
                problem = f"missing or damaged, expected a file with SHA-256 {expected}"
                raise ValueError(f"{path}: {problem}; {WAY_OUT}")
        return read_json(folder / "state.json", kind)

    def load_checkpoint(self, name: str) -> Any:
        """A file of the latest checkpoint that `save_states` wrote."""
        assert self.checkpoint is not None
        path = self.checkpoint / name
        try:
            return torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            problem = f"damaged, or holds more than tensors ({str(error)[:200]})"
            raise ValueError(f"{path}: {problem}; {WAY_OUT}") from None

    def restore_generators(self) -> None:
        """Sets torch's random generators to their states in the latest checkpoint."""
        saved = self.load_checkpoint("generators.pt")
        torch.set_rng_state(saved["cpu"])
        if "cuda" in saved and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda"], self.device)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-[0-9]*"))


def save_states(path: Path, states: Any) -> None:
    """Writes tensors in nested containers, as ``torch.save`` does."""
    content = io.BytesIO()  # torch's own writing does not say why it failed
    torch.save(states, content)
    path.write_bytes(content.getbuffer())


def has_results(folder: Path) -> bool:
    """Whether the run in a folder is finished."""
    return (folder / "results.json").exists()


def check_same(
    path: Path,
    before: Mapping[str, Any],
    options: Mapping[str, Any],
    way_out: str = "resume with the same ones, choose another --run-dir, or delete it",
) -> None:
    """Raises ValueError if a run was started with other options than today's."""
    changed = sorted(
        f"--{name.replace('_', '-')} ({before.get(name)!r} then, {options.get(name)!r} now)"
        for name in before.keys() | options.keys()
        if before.get(name) != options.get(name)
    )
    if changed:
        raise ValueError(f"{path}: was started with other options: {', '.join(changed)}; {way_out}")


class Interrupt:
    """Stores Ctrl-C or SIGTERM in `signal`, read between two batches; a second acts as usual."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for name in (signal.SIGINT, signal.SIGTERM):
            self._before[name] = signal.signal(name, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()  # a second signal then acts as usual

"""The folder of a run: options, metrics, TensorBoard, checkpoints; and signals."""

import io
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from dtram_env.datasets import DatasetCorruptError
from dtram_env.files import Record, naming, replacing, sha256_of, write_json, write_text
from dtram_env.optional import MissingDependencyError
from dtram_env.output import for_any_reader, in_one_line
from train.common import distributed
from train.common.files import WAY_OUT, Step, read_json, read_json_lines
from train.common.lock import RunLock
from train.common.memory import keep_freed_memory
from train.common.provenance import shell_command
from train.common.signals import Handlers, end_with_parent, restore_handlers, set_handlers

CHECKSUMS = "checksums.json"  # of a checkpoint's other files


def run_program(main: Callable[[], object]) -> None:
    """Runs a program; an error that the user can fix ends it with one line on stderr.

    It ends without a line if nobody reads its output any more, as after ``| head``, and with the
    program that started it, see `end_with_parent`. Of several processes that train together and
    have the same error one prints it.
    """
    end_with_parent()
    keep_freed_memory()
    try:
        with for_any_reader(), one_error_of_tensorboard():
            main()
        distributed.leave()
    except (ValueError, OSError, DatasetCorruptError, MissingDependencyError) as error:
        text = f"error: {in_one_line(error)}"
        sys.exit(text if distributed.says(text) else 1)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextmanager
def one_error_of_tensorboard() -> Iterator[None]:
    """Its thread prints nothing if it cannot write; the program gets that error too."""
    before = threading.excepthook

    def report(failed: Any) -> None:
        of_tensorboard = type(failed.thread).__module__.startswith("tensorboard.")
        if not (of_tensorboard and issubclass(failed.exc_type, OSError)):
            before(failed)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


def new_folder(parent: Path, name: str) -> Path:
    """Makes a folder, which no other process gets; ``NAME-2`` ... if `name` is taken."""
    for number in itertools.count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise AssertionError


class RunFolder:
    """The folder of one training run, which no other process writes into (`RunLock`).

    It holds ``options.json``, ``metrics.jsonl``, TensorBoard's files, the latest checkpoint while
    the run is unfinished, and ``results.json`` once it is finished.

    A finished run is left as it is. Raises ValueError if the folder holds a run and `resume` is
    false, if the run has other options, if another process writes it, if its name is not UTF-8, or
    if it cannot be written.

    Of several processes, see `distributed`, the main one alone reads and writes the folder.
    """

    def __init__(
        self,
        path: Path,  # made if missing
        options: Mapping[str, Any],  # JSON values that define the run
        resume: bool,  # whether to continue the run in the folder
        device: torch.device,  # checkpoints hold the state of its random generator and the CPU's
        program: str,  # its path in the repository, for the command that continues a run
        save_minutes: float = math.inf,  # for `save_is_due`
    ) -> None:
        self.path, self.options, self.device, self.program = path, options, device, program
        self._save_seconds, self._saved = 60 * save_minutes, time.monotonic()
        self.is_main = distributed.is_main()
        self._purge_step: int | None = None
        self._lock: RunLock | None = None
        if os.fsencode(path) != str(path).encode(errors="replace"):
            expected = "a name in UTF-8, as TensorBoard and safetensors need"
            way_out = "choose another, or set PYTHONUTF8=1 if it is UTF-8 and your locale is not"
            raise ValueError(f"--run-dir {path}: expected {expected}; {way_out}")
        distributed.from_main(lambda: self._begin(resume))

    def _begin(self, resume: bool) -> None:
        """Takes the lock, and begins or continues the run."""
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not has_results(path):
                self._lock = RunLock(path, shell_command(self.program, sys.argv[1:]))
        except OSError as error:
            expected = f"expected a folder that can be made and written ({error.strerror})"
            raise ValueError(f"--run-dir {path}: {expected}; choose another") from None
        try:
            self._open(resume)
        except BaseException:
            self.close()
            raise

    def _open(self, resume: bool) -> None:
        """Begins or continues the run; this process has the lock, unless the run is finished."""
        existing = self.path / "options.json"
        if existing.exists():
            if not resume:
                way_out = "add --resume to continue it, or choose another --run-dir"
                raise ValueError(f"{self.path}: holds a run already; {way_out}")
            check_same(self.path, read_json(existing), self.options)
        else:
            if resume:
                print(f"{self.path}: nothing to resume, a new run begins")
            write_json(existing, dict(self.options))
        if has_results(self.path):
            self._remove_checkpoints()  # of a run that was killed as it ended

    def close(self) -> None:
        """Lets other processes write into the folder."""
        if self._lock is not None:
            self._lock.release()

    @cached_property
    def writer(self) -> SummaryWriter:
        """TensorBoard's writer."""
        return SummaryWriter(str(self.path), max_queue=1000, purge_step=self._purge_step)

    @property
    def finished(self) -> bool:
        """Whether the run has its results, which are written last."""
        return distributed.from_main(lambda: has_results(self.path))

    def finish(self, results: Mapping[str, Any], *metrics: str) -> None:
        """Writes ``results.json``, `metrics` of it to TensorBoard; removes the checkpoints."""
        with naming(self.path):  # a file of TensorBoard
            if metrics:
                self._log_options({f"hparam/{name}": results[name] for name in metrics})
            self.writer.flush()
        write_json(self.path / "results.json", dict(results))
        self._remove_checkpoints()
        self.writer.close()
        self.close()
        with suppress(OSError):
            (self.path / ".lock").unlink()  # no process writes into a finished run

    def _log_options(self, final: Mapping[str, Any]) -> None:
        """Adds the options and the final metrics to TensorBoard's table of hyper-parameters."""
        numbers = (bool, int, float)
        flat = {k: v if isinstance(v, numbers) else _utf8(v) for k, v in self.options.items()}
        assert self.writer.file_writer is not None
        for summary in hparams(flat, final):
            self.writer.file_writer.add_summary(summary)
        for name, value in final.items():
            self.writer.add_scalar(name, value)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a line to ``metrics.jsonl`` and the same scalars to TensorBoard."""
        if not self.is_main:
            return
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
        if self.is_main and path.exists():
            content = path.read_bytes()
            if not content.endswith(b"\n"):  # a kill may cut off the last line
                with replacing(path) as aside:
                    aside.write_bytes(content[: content.rfind(b"\n") + 1])
            kept = [line for line in read_json_lines(path, Step) if line["step"] <= step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def leave(self, signalled: signal.Signals) -> NoReturn:
        """Prints the command that continues the run; exits with the signal's usual status."""
        if self.is_main:
            self.writer.close()
            self.close()
            print(f"\n{signalled.name}: saved. To go on: {self.way_to_resume()}", file=sys.stderr)
        distributed.summed(torch.zeros(1))  # all wait: torchrun ends them once one has ended
        raise SystemExit(128 + signalled)

    def way_to_resume(self) -> str:
        """The command that continues the run."""
        words = [word for word in sys.argv[1:] if word != "--resume"]
        if not any(word.split("=")[0] == "--run-dir" for word in words):
            words += ["--run-dir", str(self.path)]
        return shell_command(self.program, [*words, "--resume"])

    # -- checkpoints ----------------------------------------------------------------------------

    def save_checkpoint(self, write: Callable[[Path], None], state: dict[str, Any]) -> None:
        """Saves what `write` writes into a folder, JSON values, and torch's random generators.

        ``checksums.json`` has the SHA-256 of each file. The checkpoint is renamed when it is
        complete and on the disk, so a crash leaves a valid one; then the previous one is removed.
        """
        self._saved = time.monotonic()
        if not self.is_main:
            return
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
    def save_is_due(self) -> bool:
        """Whether the latest checkpoint is older than `save_minutes`."""
        return time.monotonic() - self._saved >= self._save_seconds

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
        saved = distributed.from_main(lambda: self.load_checkpoint("generators.pt"))
        torch.set_rng_state(saved["cpu"])
        if "cuda" in saved and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda"], self.device)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-[0-9]*"))

    def _remove_checkpoints(self) -> None:
        """Removes all, complete or not; a disk that is read-only keeps them."""
        for folder in self.path.glob("*checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _utf8(value: Any) -> str:
    """A value as text that TensorBoard can write; other bytes of names of files are escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def save_states(path: Path, states: Any) -> None:
    """Writes tensors in nested containers, as ``torch.save`` does."""
    content = io.BytesIO()  # torch's own writing does not say why it failed
    torch.save(states, content)
    path.write_bytes(content.getbuffer())


def has_results(folder: Path) -> bool:
    """Whether the run in a folder is finished."""
    return (folder / "results.json").exists()


def output_folder(folder: Path) -> Path:
    """Where programs write what they make of the model in a folder: there if it is a run's, or, for
    a shipped model, into the current folder."""
    return folder if (folder / "options.json").exists() else Path()


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
    """Stores a signal of `ENDINGS` in `signal`, read between two batches.

    A second one acts as usual.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: Handlers = {}

    def __enter__(self) -> Self:
        self._before = set_handlers(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        restore_handlers(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()  # a second signal then acts as usual

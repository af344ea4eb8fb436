"""How a result was made: command, commit, date, versions and hardware."""

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agents.precision import has_bf16
from train.common import distributed

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_INSTALLED = "not installed"
MADE = ("benchmarks/results", "docs/leaderboard.md", "docs/environments")
CODE = (":/", *(f":(exclude,top){made}" for made in MADE))
"""Files whose changes make a commit unclean: all except results and pages of them (pathspecs)."""


def choose_device(name: str) -> torch.device:
    """The device with a name, if it is usable here; "auto" is the GPU if any, else the CPU.

    With torchrun each process of a machine has a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if distributed.launched():
        if ":" in name:
            expected = "auto, cuda or cpu with torchrun, where each process takes its own"
            raise ValueError(f"--device {name}: expected {expected}")
        if name == "cuda":
            started, gpus = distributed.local_processes(), torch.cuda.device_count()
            if started > gpus > 0:
                expected = f"at most {gpus}, the GPUs of this machine"
                raise ValueError(f"--nproc-per-node {started}: expected {expected}")
            name = f"cuda:{distributed.local_process()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: not usable here ({reason}); try auto or cpu") from None
    return device


def provenance(device: torch.device) -> dict[str, Any]:
    """What makes a result repeatable: command, commit, date, versions and hardware."""
    packages = ["dtram", "torch", "torchvision", "gymnasium", "stable-baselines3", "numpy"]
    packages += [name for name in ("sb3-contrib", "optuna") if _version(name) != NOT_INSTALLED]
    return {
        "command": shlex.join(["python", *(_relative(word) for word in sys.argv)]),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "processor": _processor(),
            "cpu_threads": torch.get_num_threads(),
            "bf16": has_bf16(device.type),
            **({"processes": distributed.processes()} if distributed.joined() else {}),
        },
    }


def shell_command(program: str, words: Sequence[str]) -> str:
    """The line for a shell in the current folder that runs a program, as ``"train/compare.py"``."""
    python = "python" if shutil.which("python") == sys.executable else _relative(sys.executable)
    program = _relative(str(REPOSITORY / program))
    return shlex.join([python, *distributed.launcher(), program, *words])


def _relative(word: str) -> str:
    """A path relative to the current folder if it lies below; other words as they are."""
    return word.removeprefix(str(Path.cwd()) + os.sep)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def commit() -> str:
    """The checkout's commit, with "+changes" if files of `CODE` differ or a module is new.

    In a copy without git's folder it is $DTRAM_COMMIT, or "unknown".
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
        ).stdout.strip()

    try:
        status = git("status", "--porcelain", "--untracked-files=all", "--", *CODE).splitlines()
        changed = [line for line in status if line[:2] != "??" or line.endswith(".py")]
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("DTRAM_COMMIT", "unknown")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    model = re.search("^model name.*: *(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()

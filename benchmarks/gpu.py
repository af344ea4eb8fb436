"""Runs what needs a GPU, in an order of worth, within given minutes.

    make gpu                                           # 9 minutes; ARGS=--dry-run: seconds, no GPU
    python benchmarks/gpu.py --parts mnist --minutes 4 # with any Python that has the packages
    python benchmarks/gpu.py --out gpu-results         # a checkout with changes, or without .git

It needs no network and installs nothing. MNIST is read from $DTRAM_DATA (or ~/.cache/dtram), where
the drawn birds are cached, too. A part that takes longer than its share of the minutes is ended,
and what it leaves of its share goes to the parts after it. Each part is written to OUT/PART.json as
it ends, and OUT/summary.json lists them all. Where there is no .git, $DTRAM_COMMIT names the commit
in the results.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a clone, installed or not

PACKAGES = ("matplotlib", "safetensors", "tensorboard", "torch", "tyro")
"""What every part imports, beside the base dependencies of the project."""
TEST_PACKAGES = ("hypothesis", "pytest")
GRACE = 10.0  # seconds that an ended process has to save its state
TAIL = 3000  # characters of a part's output that its result keeps


@dataclass(frozen=True)
class Part:
    """What is run, and what its results say in a line."""

    share: float  # of the minutes
    commands: "Commands"  # run side by side; their words after python
    headline: Callable[[list[dict[str, Any]], str], str]  # of its results and its output
    goal: str = ""  # on an H100
    needs_mnist: bool = False


@dataclass
class Plan:
    """What the commands of the parts depend on."""

    work: Path  # folder of their results and runs
    dry: bool
    compile: bool = False  # the compiled step has run, so recipes use it


Commands = Callable[[Plan], list[list[str]]]


def recipe(name: str, dry: str, seeds: int = 1) -> Commands:
    """Training runs; `dry` has the options that make one of seconds."""

    def commands(plan: Plan) -> list[list[str]]:
        device = ["cpu", *shlex.split(dry)] if plan.dry else ["cuda", *["--compile"] * plan.compile]
        words = ["train/reinforce.py", "--recipe", name, "--device", *device]
        runs = [
            ["--seed", str(k), "--run-dir", str(plan.work / f"{name}-{k}")] for k in range(seeds)
        ]
        return [[*words, *run] for run in runs[: 1 if plan.dry else seeds]]

    return commands


def benchmark(program: str, name: str, options: str, dry: str) -> Commands:
    """A benchmark that writes its figures to `name`."""

    def commands(plan: Plan) -> list[list[str]]:
        words = [f"benchmarks/{program}.py", "--json", str(plan.work / f"{name}.json")]
        device = ["cpu", *shlex.split(dry)] if plan.dry else ["cuda", *shlex.split(options)]
        return [[*words, "--device", *device]]

    return commands


SIGNPOST = "--env-id DTRAM-Signpost-v0 --env max_glimpses=2 --epochs 1 --batch-size 180 --stop"
FEW_BIRDS = "--env glimpse_size=64 thumbnail_size=32 num_train=40 num_test=20 --epochs 1"


def tests(plan: Plan) -> list[list[str]]:
    """The tests that are marked gpu; only their files are read."""
    files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text("utf-8")]
    names = sorted(str(path.relative_to(ROOT)) for path in files)
    return [["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *names]]


def errors(results: list[dict[str, Any]], output: str) -> str:
    rows = [
        f"{r['test_error']:.2f} % at {r['mean_glimpses']:.2f} in {r['train_seconds']:.0f} s"
        for r in results
    ]
    return "error " + ", ".join(rows)


def fastest(key: str) -> Callable[[list[dict[str, Any]], str], str]:
    """The headline of a benchmark whose rows have a rate `key`."""

    def text(results: list[dict[str, Any]], output: str) -> str:
        rows = [row for result in results for row in result["rows"]]
        best = max(rows, key=lambda row: row[key])
        return f"{best[key]:,.0f} {key.replace('_', ' ')}, batch {best['batch_size']:,}"

    return text


def saving(results: list[dict[str, Any]], output: str) -> str:
    figures = results[0]["figures"]
    return f"time {figures['time_ratio']:.2f}, FLOPs {figures['flop_ratio']:.2f} of all glimpses"


PARTS: Mapping[str, Part] = {
    "tests": Part(0.12, tests, lambda results, output: output.strip().splitlines()[-1]),
    "environment": Part(
        0.10,
        benchmark(
            "env_throughput",
            "environment",
            "--no-host --rounds 1 --batch-sizes 128 1024 8192 65536 1048576",
            "--no-host --rounds 1 --batch-sizes 64 --seconds 0.01 --env-id DTRAM-Signpost-v0",
        ),
        fastest("glimpses_per_second"),
        "1e9 glimpses/s from 1e6 slots",
        needs_mnist=True,
    ),
    "training": Part(
        0.08,
        benchmark(
            "train_throughput",
            "training",
            "--bf16 --seconds 1",
            "--batch-sizes 64 --seconds 0.01",
        ),
        fastest("images_per_second"),
        "1e6 images/s from batch 4,096",
    ),
    "training-compiled": Part(
        0.15,
        benchmark(
            "train_throughput",
            "training-compiled",
            "--compile --bf16 --seconds 1 --batch-sizes 128 4096 65536",
            "--batch-sizes 64 --seconds 0.01",
        ),
        fastest("images_per_second"),
        "1e6 images/s from batch 4,096",
    ),
    "mnist": Part(
        0.33,
        recipe("mnist", f"{SIGNPOST} after epochs=1 --scan-epochs 0 --m 2", seeds=3),
        errors,
        "a seed alone in 180 s",
        needs_mnist=True,
    ),
    "birds-small": Part(
        0.14,
        recipe("birds-small", f"{FEW_BIRDS} --batch-size 10 --stop after epochs=1"),
        errors,
    ),
    "dynamic-saving": Part(
        0.06,
        benchmark(
            "dynamic_saving",
            "dynamic-saving",
            "--first-look 448 --images 512 --repeats 5",
            "--encoder resnet10 --width 8 --image-size 64 --glimpse-size 32 --first-look 32 "
            "--images 8 --batch-size 8 --repeats 1",
        ),
        saving,
        "the two are equal",
    ),
    "original": Part(
        0.02,
        recipe("original", f"{SIGNPOST} after epochs=1"),
        errors,
        needs_mnist=True,
    ),
}
"""The parts, in order of worth."""


def main() -> None:
    options = read_options()
    names = usable_parts(options)
    from train.common.provenance import choose_device, provenance
    from train.common.records import check_destination

    try:
        check_destination(options.out)
        origin = provenance(choose_device("cpu" if options.dry_run else "cuda"))
    except ValueError as error:
        sys.exit(f"error: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that processes are ended
    began, summary = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="dtram-gpu-") as temporary:
        kept = ROOT / "runs" / time.strftime("gpu-%Y-%m-%d_%H-%M-%S")
        plan = Plan(Path(temporary) if options.dry_run else kept, options.dry_run)
        plan.work.mkdir(parents=True, exist_ok=True)
        due, shares = began, sum(PARTS[name].share for name in names)
        for name in names:
            due += 60 * options.minutes * PARTS[name].share / shares
            left = due - time.monotonic()
            if time.monotonic() - began >= 60 * options.minutes or left <= 0:
                record: dict[str, Any] = {"part": name, "status": "not started"}
            else:
                print(f"== {name}: {left:.0f} s at most", flush=True)
                record = run_part(name, PARTS[name], plan, left)
                write(options.out / f"{name}.json", {**origin, **record})
                plan.compile |= name == "training-compiled" and record["status"] == "done"
            keys = ("part", "status", "seconds", "headline", "goal")
            summary.append({key: record[key] for key in keys if key in record})
            print(*(f"{key}: {value}" for key, value in summary[-1].items()), sep="; ", flush=True)
            write(options.out / "summary.json", {**origin, "parts": summary})
    print(f"results: {options.out}")
    sys.exit(any(row["status"] == "failed" for row in summary))


def read_options() -> argparse.Namespace:
    description, _, rest = (__doc__ or "").partition("\n")
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=rest, formatter_class=layout)
    text = "no part starts later (default %(default)s)"
    parser.add_argument("--minutes", type=float, default=9.0, help=text)
    text = f"some of {', '.join(PARTS)}, in this order"
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help=text)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--dry-run", action="store_true", help="every part in seconds, on the CPU")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes}: expected more than 0")
    if options.dry_run and options.out == parser.get_default("out"):
        options.out = Path(tempfile.mkdtemp(prefix="dtram-gpu-dry-run-"))
    return options


def usable_parts(options: argparse.Namespace) -> list[str]:
    """The parts that can run here, in order; prints what is there and what is missing.

    Exits if a package that every part imports is missing or too old, or if there is no GPU.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = requirements([*project["dependencies"], *extras["train"], *extras["dev"]])
    base = [*requirements(project["dependencies"]), *PACKAGES]
    print("Python", sys.version.split()[0], *(f"{n} {found(n)}," for n in [*base, "torchvision"]))
    if lacking := [n for n in base if not is_at_least(found(n), wanted[n])]:
        asked = " ".join(f"'{n}>={wanted[n]}'" for n in lacking)
        sys.exit(f"error: missing or too old: {', '.join(lacking)}; pip install {asked}")
    import torch

    if not options.dry_run and not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA device; --dry-run needs none")
    from dtram_env import datasets
    from dtram_env.datasets.paths import data_root

    names = [name for name in PARTS if name in options.parts]
    lacking = [n for n in TEST_PACKAGES if not is_at_least(found(n), wanted[n])]
    if lacking and "tests" in names:
        print(f"left out: tests, without {' and '.join(lacking)}")
        names.remove("tests")
    if not options.dry_run and not datasets.is_ready("mnist"):
        for name in [name for name in names if PARTS[name].needs_mnist]:
            print(f"left out: {name}, without MNIST in {data_root()} ($DTRAM_DATA)")
            names.remove(name)
    return names


def requirements(lines: Sequence[str]) -> dict[str, str]:
    """The lowest version of each package, of lines such as ``torch>=2.11``."""
    return dict(line.split(">=") for line in lines if ">=" in line)


def found(package: str) -> str:
    """The version of an installed package, or "missing"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def is_at_least(here: str, least: str) -> bool:
    """Whether a version is `least` or later; "missing" is not."""
    numbers = [[int(n) for n in re.findall(r"\d+", text.split("+")[0])] for text in (here, least)]
    return numbers[0] >= numbers[1]


def run_part(name: str, part: Part, plan: Plan, limit: float) -> dict[str, Any]:
    """Runs a part's commands side by side, and ends them after `limit` seconds."""
    commands, began = part.commands(plan), time.monotonic()
    logs = [plan.work / f"{name}-{k}.log" for k in range(len(commands))]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    env |= {"DTRAM_DATA": str(plan.work / "data"), "OMP_NUM_THREADS": "1"} if plan.dry else {}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words, log in zip(commands, logs, strict=True):
            with log.open("wb") as file:
                how: dict[str, Any] = {"cwd": ROOT, "env": env, "start_new_session": True}
                command = [sys.executable, *words]
                processes.append(
                    subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **how)
                )
        overran = not wait(processes, limit)
    finally:
        end(processes)
    seconds = round(time.monotonic() - began, 1)
    failed = any(process.returncode for process in processes)
    status = "ended" if overran else "failed" if failed else "done"
    output = "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    results = [json.loads(p.read_text("utf-8")) for w in commands if (p := result_of(w)).is_file()]
    about = {"part": name, "status": status, "seconds": seconds, "limit_seconds": round(limit)}
    if status == "done":
        about["headline"] = part.headline(results, output)
    about |= {"goal": part.goal} if part.goal else {}
    lines = [shlex.join(["python", *words]) for words in commands]
    about["commands"] = [line.replace(f"{ROOT}{os.sep}", "") for line in lines]
    return {**about, "results": results, "output": output[-TAIL:]}


def result_of(words: Sequence[str]) -> Path:
    """The file to which a command writes its results."""
    if "--json" in words:
        return Path(words[words.index("--json") + 1])
    if "--run-dir" in words:
        return Path(words[words.index("--run-dir") + 1], "results.json")
    return Path()


def wait(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> bool:
    """Waits so long for processes; whether all have ended."""
    due = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, due - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
    return True


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes and what they started: a training run first saves a checkpoint."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, number)
        if wait(processes, GRACE):
            break


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all."""
    from train.common.records import write_result

    write_result(path, record)


if __name__ == "__main__":
    main()

"""DT-RAM against one look of the same compute, on small drawn birds.

    python benchmarks/birds_small.py                # trains what is missing, then compares
    python benchmarks/birds_small.py --runs runs/try --epochs 2 --num-train 1000 --num-test 400

Each network has at most 20 minutes of training on 2 CPU cores: DT-RAM, its trunk and its stopper;
the one-look network of the same encoder on the whole image, shrunk so that its FLOPs equal DT-RAM's
mean; and that network at full resolution. RAM with a fixed number of glimpses, and the confidence
rule, are read off DT-RAM's network. The birds' species differ in the texture of small parts, which
the thumbnail does not show: so a crop that holds the centre of such a part counts as one that
touches it. Interrupted, the same command goes on where it stopped; finished runs are read.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.cost import mean_flops
from agents.dtram import DTRAM
from agents.one_look import OneLook
from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from agents.unroll import Scores, score
from benchmarks.discriminative_parts import touch_shares
from train.common.evaluate_one_look import predictions_and_rate
from train.common.jobs import ProgramRun, Runner, run_in_order
from train.common.provenance import provenance
from train.common.run import read_json, read_tensors, run_program, write_json
from train.common.statistics import (
    Answered,
    answers,
    glimpses_needed,
    matching_confidence,
    paired_bootstrap,
)
from train.common.training_task import Task
from train.dtram.report import answering_rate, percent
from train.paper.systems import BIRDS

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("ram", "dtram", "one-look-like", "one-look-full")
"""Systems of `train.paper.systems.BIRDS` that are compared, in an order in which they can be made."""
CAP_SECONDS = 20 * 60  # of training, each
REPEATS = 3  # passes over the test split that are timed; the fastest counts


@dataclass(frozen=True)
class Options:
    """Compares DT-RAM with one look of the same compute."""

    runs: Path | None = None
    """where the runs are; runs/reproduce if not given, which train/reproduce.py shares, or
    runs/birds-small-try for a try"""
    json: Path | None = None
    """where the figures go; benchmarks/results/birds_small.json if not given, and RUNS/results.json
    if the next three make it a try"""
    epochs: int | None = None
    """of every network, for a try"""
    num_train: int | None = None
    """training images, for a try"""
    num_test: int | None = None
    """test images, for a try"""
    seed: int = 0
    """of everything random"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""

    @property
    def whole(self) -> bool:
        """Whether this is no try."""
        return self.epochs is None and self.num_train is None and self.num_test is None

    @property
    def folder(self) -> Path:
        """Where the runs are."""
        return self.runs or Path("runs/reproduce" if self.whole else "runs/birds-small-try")

    @property
    def out(self) -> Path:
        """Where the figures go."""
        if self.json is not None:
            return self.json
        whole = ROOT / "benchmarks/results/birds_small.json"
        return whole if self.whole else self.folder / "results.json"


# -- the runs -----------------------------------------------------------------------------------


def runs(options: Options) -> dict[str, ProgramRun]:
    """The runs by name, in order."""
    given: dict[str, Any] = {"num_train": options.num_train, "num_test": options.num_test}
    if options.epochs is not None:  # and so perhaps of few images
        given["epochs"] = options.epochs
    found = {}
    for name in NAMES:
        run = BIRDS.run(options.folder, name, options.seed, options.data_dir)
        own = dict(given)
        if name == "dtram" and "epochs" in own:
            own |= {"stop_epochs": own.pop("epochs"), "stop_batch_size": 50}
        found[name] = replace(run, options={**run.options, **own})
    return found


# -- what is read off them ----------------------------------------------------------------------


def row(answered: Answered, flops: float, images_per_second: float, seconds: float) -> dict:
    """A line of the table."""
    return {
        "test_accuracy": percent(float(answered.right.mean())),
        "mean_glimpses": round(float(answered.glimpses.mean()), 4),
        "flops": round(flops),
        "images_per_second": round(images_per_second),
        "train_seconds": seconds,
    }


def read_dtram(
    folder: Path, task: Task, trunk_seconds: float
) -> tuple[dict[str, dict], Answered, Scores]:
    """The lines of one network under every stopping rule; DT-RAM's own answers; the pass."""
    agent, results = DTRAM.load(folder, task.device), read_json(folder / "results.json")
    seconds = {True: trunk_seconds + results["train_seconds"], False: trunk_seconds}
    test, validation = task.images("test"), task.images("validation")
    size = task.scored_at_once
    scores = score(agent, task.sensor, test.store, test.labels, size)
    validated = score(agent, task.sensor, validation.store, validation.labels, size)
    own = agent.stopping
    confidence = ConfidenceStop(
        matching_confidence(validated, validated.error_and_glimpses(own)[1])
    )
    rules: dict[str, StoppingRule] = {"DT-RAM, learned stop": own}
    for t in range(1, task.max_glimpses + 1):
        rules[f"RAM, {t} glimpse{'s' * (t > 1)}"] = FixedStop(t)
    rules[f"confidence > {confidence.threshold:.3g}"] = confidence
    rows = {}
    for name, rule in rules.items():
        answered = answers(scores, rule)
        agent.stopping = rule
        rate = fastest(lambda: answering_rate(task, agent, test))
        flops = mean_flops(agent, float(answered.glimpses.mean()))
        rows[name] = row(answered, flops, rate, round(seconds[rule is own], 1))
    return rows, answers(scores, own), scores


def read_one_look(folder: Path, task: Task) -> tuple[dict[str, dict], np.ndarray]:
    """The line of a one-look network, and whether it was right of each image ``(N,)``."""
    network, results = OneLook.load(folder, task.device), read_json(folder / "results.json")
    test = task.images("test")
    prediction = read_tensors(folder / "test_images.safetensors")["prediction"]
    right = (prediction == test.labels.cpu()).numpy()
    rate = fastest(lambda: predictions_and_rate(network, test)[1])
    side = results["side"]
    answered = Answered(right, np.ones(len(right), dtype=np.int64))
    line = row(answered, results["flops"], rate, results["train_seconds"])
    return {f"one look at {side}x{side}": line}, right


def fastest(measure: Callable[[], float]) -> float:
    """The highest of some measured rates: what other work on the machine disturbed least."""
    return max(measure() for _ in range(REPEATS))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Difference of two accuracies ``(N,)`` on the same images, in points, with a 95 % interval."""
    mean, low, high = paired_bootstrap(100 * (ours.astype(np.float64) - theirs)[None])
    return {"points": round(mean, 2), "low": round(low, 2), "high": round(high, 2)}


def by_telling_parts(
    discriminative: np.ndarray, dtram: Answered, one_look: np.ndarray
) -> dict[str, dict[str, float]]:
    """What images need, against what they get: by their number of discriminative parts."""
    count = discriminative.sum(axis=1)
    return {
        str(n): {
            "images": int((count == n).sum()),
            "mean_glimpses": round(float(dtram.glimpses[count == n].mean()), 4),
            "test_accuracy": percent(float(dtram.right[count == n].mean())),
            "one_look_test_accuracy": percent(float(one_look[count == n].mean())),
        }
        for n in np.unique(count).tolist()
    }


# -- the result ---------------------------------------------------------------------------------


def compare(options: Options) -> dict[str, Any]:
    """Everything that is compared, from finished runs."""
    folders = {name: run.folder for name, run in runs(options).items()}
    found = {name: read_json(folder / "results.json") for name, folder in folders.items()}
    own = found["dtram"]
    places = {} if options.data_dir is None else {"data_dir": str(options.data_dir)}
    device = torch.device(
        own["hardware"]["device"] if own["hardware"]["device"] == "cpu" else "cuda"
    )
    task = Task(own["env_id"], device, **{**own["env_options"], **places})
    rows, dtram, scores = read_dtram(folders["dtram"], task, found["ram"]["train_seconds"])
    learned, *_ = rows.values()
    small, small_right = read_one_look(folders["one-look-like"], task)
    full, full_right = read_one_look(folders["one-look-full"], task)
    rows |= small | full
    fixed = [rows[name]["test_accuracy"] for name in rows if name.startswith("RAM")]
    needed = glimpses_needed(fixed, learned["test_accuracy"])
    touched = touch_shares(task, scores, dtram.glimpses)
    difference = paired_difference(dtram.right, small_right)
    slowest = max(line["train_seconds"] for line in rows.values())
    origin = ("command", "commit", "date", "versions", "hardware", "options")
    return {
        "env_id": own["env_id"],
        "dataset": own["dataset"],
        "split": "test",
        "images": own["images"],
        "seed": options.seed,
        "rows": rows,
        "over_one_look_of_the_same_compute": difference,
        "over_one_look_at_full_resolution": paired_difference(dtram.right, full_right),
        "fixed_glimpses_needed": None if needed is None else round(needed, 4),
        "touches": touched,
        "by_telling_parts": by_telling_parts(
            task.images("test").data.metadata["discriminative"], dtram, small_right
        ),
        "claims": {
            "at least 5 points over one look of the same compute": difference["points"] >= 5,
            "fewer glimpses than a fixed number needs for the accuracy": needed is None
            or learned["mean_glimpses"] < needed,
            "touches discriminative parts at least twice as often as random": (
                touched["ratio"] or 0
            )
            >= 2,
            "at most 20 minutes of training each": slowest <= CAP_SECONDS,
        },
        "runs": {name: {key: run[key] for key in origin} for name, run in found.items()},
        **provenance(task.device),
    }


def in_words(result: dict[str, Any]) -> str:
    """The comparison as text."""
    console = Console(file=io.StringIO(), width=110)
    grid = Table(title=f"{result['env_id']}: {result['dataset']}, {result['images']:,} test images")
    columns = ("test accuracy %", "mean glimpses", "MFLOP", "images/s", "training s")
    grid.add_column("network and rule")
    for column in columns:
        grid.add_column(column, justify="right")
    for name, line in result["rows"].items():
        grid.add_row(
            name,
            f"{line['test_accuracy']:.2f}",
            f"{line['mean_glimpses']:.2f}",
            f"{line['flops'] / 1e6:.1f}",
            f"{line['images_per_second']:,}",
            f"{line['train_seconds']:.0f}",
        )
    console.print(grid)
    grid = Table(title="by the number of discriminative parts")
    for column in ("parts", "images", "mean glimpses", "DT-RAM %", "one look %"):
        grid.add_column(column, justify="right")
    for parts, line in result["by_telling_parts"].items():
        grid.add_row(
            parts,
            f"{line['images']:,}",
            f"{line['mean_glimpses']:.2f}",
            f"{line['test_accuracy']:.2f}",
            f"{line['one_look_test_accuracy']:.2f}",
        )
    console.print(grid)
    for key, other in (("the_same_compute", "of the same compute"), ("full_resolution", "in full")):
        (found,) = (v for k, v in result.items() if k.startswith("over") and k.endswith(key))
        console.print(
            f"DT-RAM over one look {other}: {found['points']:+.2f} points, 95 % interval over "
            f"images {found['low']:+.2f} to {found['high']:+.2f}, one seed"
        )
    needed, touched = result["fixed_glimpses_needed"], result["touches"]
    reached = "not reached" if needed is None else f"{needed:.2f}"
    console.print(f"glimpses that a fixed number needs for DT-RAM's accuracy: {reached}")
    if touched["crops"]:
        console.print(
            f"crops that touch a discriminative part: {100 * touched['of_dtram']:.1f} % of DT-RAM's "
            f"{touched['crops']:,}, {100 * touched['of_random']:.1f} % of random ones, ratio "
            f"{touched['ratio']} ({touched['ratio_within']} to random ones within the image)"
        )
    for claim, holds in result["claims"].items():
        console.print(f"{'yes' if holds else 'NO '}  {claim}")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def main(options: Options) -> None:
    """Trains what is missing, compares, writes and prints."""
    made = list(runs(options).values())
    for run in made:
        print(f"{run.name}: {run.folder}.log", flush=True)
    runner = Runner(jobs=1)
    try:
        run_in_order(made, runner)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    if runner.problems:
        raise ValueError("; ".join(f"{folder}: {said}" for folder, said in runner.problems.items()))
    result = compare(options)
    write_json(options.out, result)
    print(in_words(result), end="")
    print(f"figures: {options.out}")


if __name__ == "__main__":
    run_program(lambda: main(tyro.cli(Options, description=__doc__)))

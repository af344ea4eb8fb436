"""DT-RAM against one look of the same compute, on small drawn birds.

    python benchmarks/birds_small.py                # trains missing runs, then compares
    python benchmarks/birds_small.py --runs runs/try --epochs 2 --num-train 1000 --num-test 400

Each network has at most 20 minutes of training on 2 CPU cores: DT-RAM (trunk and stopper), a
one-look network with the same encoder on the shrunk image, whose FLOPs equal DT-RAM's mean, and the
same network at full resolution. RAM and the confidence rule use DT-RAM's network. The species
differ in the texture of small discriminative parts, which the thumbnail does not show. A crop
touches a part if it holds the part's centre. After an interruption the same command continues.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from pandas import DataFrame

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.cost import mean_flops
from agents.dtram import DTRAM
from agents.one_look import OneLook
from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from agents.unroll import Scores, score
from dtram_env import sensor
from train.common.evaluate_one_look import predictions_and_rate
from train.common.files import read_json, read_tensors
from train.common.jobs import ProgramRun, Runner, run_in_order
from train.common.provenance import provenance
from train.common.records import RESULTS, origin, write_result
from train.common.run import run_program
from train.common.statistics import (
    Outcome,
    glimpses_needed,
    matching_confidence,
    outcome,
    paired_bootstrap,
)
from train.common.training_task import TrainingTask
from train.dtram.options import StopAfter
from train.dtram.report import images_per_second, percent
from train.paper.systems import BIRDS

NAMES = ("ram", "dtram", "one-look-like", "one-look-full")
"""The systems of `BIRDS` that are compared, each after the systems that it reads."""
MAX_SECONDS = 20 * 60  # training of each network
REPEATS = 3  # timed passes over the test split; the fastest counts


@dataclass(frozen=True)
class Options:
    """Compares DT-RAM with one look of the same compute."""

    runs: Path | None = None
    """folder of the runs; runs/reproduce (shared with train/reproduce.py) if not given, or
    runs/birds-small-try for a small trial"""
    json: Path | None = None
    """file of the figures; benchmarks/results/birds_small.json if not given, or RUNS/results.json
    for a small trial"""
    epochs: int | None = None
    """epochs of every network, for a small trial"""
    num_train: int | None = None
    """training images, for a small trial"""
    num_test: int | None = None
    """test images, for a small trial"""
    seed: int = 0
    """seed of everything random"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""

    @property
    def whole(self) -> bool:
        """Whether this is the full comparison, not a small trial."""
        return self.epochs is None and self.num_train is None and self.num_test is None

    @property
    def folder(self) -> Path:
        """Folder of the runs."""
        return self.runs or Path("runs/reproduce" if self.whole else "runs/birds-small-try")

    @property
    def out(self) -> Path:
        """File of the figures."""
        if self.json is not None:
            return self.json
        return RESULTS / "birds_small.json" if self.whole else self.folder / "results.json"


# -- the runs -----------------------------------------------------------------------------------


def runs(options: Options) -> dict[str, ProgramRun]:
    """The runs by name, in order."""
    counts = {"num_train": options.num_train, "num_test": options.num_test}
    env = tuple(f"{name}={count}" for name, count in counts.items() if count is not None)
    found = {}
    for name in NAMES:
        run = BIRDS.run(options.folder, name, options.seed, options.data_dir)
        own: dict[str, Any] = {"env": env or None}
        if options.epochs is not None and name == "dtram":
            stop = run.options["stop"]
            assert isinstance(stop, StopAfter)
            own["stop"] = replace(stop, epochs=options.epochs, batch_size=50)
        elif options.epochs is not None:
            own["epochs"] = options.epochs
        found[name] = replace(run, options={**run.options, **own})
    return found


# -- the networks of finished runs -----------------------------------------------------------------


def row(found: Outcome, flops: float, images_per_second: float, seconds: float) -> dict:
    """A row of the table."""
    return {
        "test_accuracy": percent(float(found.right.mean())),
        "mean_glimpses": round(float(found.glimpses.mean()), 4),
        "flops": round(flops),
        "images_per_second": round(images_per_second),
        "train_seconds": seconds,
    }


def read_dtram(
    folder: Path, task: TrainingTask, trunk_seconds: float
) -> tuple[dict[str, dict], Outcome, Scores]:
    """Rows of one network under every stopping rule, DT-RAM's own outcome, and the scores."""
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
        found = outcome(scores, rule)
        agent.stopping = rule
        rate = fastest(lambda: images_per_second(task, agent, test))
        flops = mean_flops(agent, float(found.glimpses.mean()))
        rows[name] = row(found, flops, rate, round(seconds[rule is own], 1))
    return rows, outcome(scores, own), scores


def read_one_look(folder: Path, task: TrainingTask) -> tuple[dict[str, dict], np.ndarray]:
    """The row of a one-look network, and for each image whether it was right ``(N,)``."""
    network, results = OneLook.load(folder, task.device), read_json(folder / "results.json")
    test = task.images("test")
    prediction = read_tensors(folder / "test_images.safetensors")["prediction"]
    right = (prediction == test.labels.cpu()).numpy()
    rate = fastest(lambda: predictions_and_rate(network, test)[1])
    side = results["side"]
    found = Outcome(right, np.ones(len(right), dtype=np.int64))
    line = row(found, results["flops"], rate, results["train_seconds"])
    return {f"one look at {side}x{side}": line}, right


def fastest(measure: Callable[[], float]) -> float:
    """The highest of `REPEATS` measured rates, which other work disturbed least."""
    return max(measure() for _ in range(REPEATS))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Difference of two accuracies ``(N,)`` on the same images, in points, with a 95 % interval."""
    mean, low, high = paired_bootstrap(100 * (ours.astype(np.float64) - theirs)[None])
    return {"points": round(mean, 2), "low": round(low, 2), "high": round(high, 2)}


def by_discriminative_parts(
    discriminative: np.ndarray, dtram: Outcome, one_look: np.ndarray
) -> dict[str, dict[str, float]]:
    """Glimpses and accuracy by the number of discriminative parts of an image."""
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


# -- discriminative parts --------------------------------------------------------------------------


def touches(
    boxes: np.ndarray, discriminative: np.ndarray, lefts: np.ndarray, tops: np.ndarray, side: int
) -> np.ndarray:
    """Whether crops hold the centre of the box of a discriminative part.

    Args:
        boxes: ``(N, P, 4)``, left, top, width and height of every part, in pixels.
        discriminative: ``(N, P)`` bool.
        lefts: ``(N, ...)`` integers, first column of each crop.
        tops: ``(N, ...)`` integers, first row of each crop.
        side: side of a crop, in pixels.

    Returns:
        bool ``(N, ...)``.
    """
    found = np.zeros(np.broadcast_shapes(lefts.shape, tops.shape), dtype=bool)
    shape = (-1,) + (1,) * (found.ndim - 1)
    for p in range(boxes.shape[1]):
        x, y = ((boxes[:, p, k] + boxes[:, p, 2 + k] / 2).reshape(shape) for k in (0, 1))
        inside = (lefts <= x) & (x < lefts + side) & (tops <= y) & (y < tops + side)
        found |= inside & discriminative[:, p].reshape(shape)
    return found


def random_touches(
    boxes: np.ndarray,
    discriminative: np.ndarray,
    size: tuple[int, int],
    side: int,
    reach: float = 1.0,
) -> np.ndarray:
    """Probability ``(N,)`` that a crop at a uniform location touches a discriminative part.

    It is exact: a sum over all pixels at which a crop can begin.

    Args:
        boxes: as for `touches`; likewise `discriminative`.
        size: height and width of the images, in pixels.
        side: side of a crop, in pixels.
        reach: locations are uniform in [-reach, reach]².
    """
    (top, p_top), (left, p_left) = (_corners(n, side, reach) for n in size)
    shares = []
    for n in range(len(boxes)):
        grid = touches(
            boxes[n : n + 1], discriminative[n : n + 1], left[None, None], top[None, :, None], side
        )
        shares.append(p_top @ grid[0] @ p_left)
    return np.array(shares)


def _corners(size: int, side: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """First pixels of crops along an axis, and their probabilities for a uniform location."""
    low, high = (float(sensor.edge(end, size, side)) for end in (-reach, reach))
    begin = np.arange(int(np.floor(low)), int(np.floor(high)) + 1)
    share = np.minimum(begin + 1, high) - np.maximum(begin, low)
    return begin, share / share.sum()


def touch_shares(task: TrainingTask, scores: Scores, glimpses: np.ndarray) -> dict[str, Any]:
    """Fractions of crops that touch a discriminative part: DT-RAM's, and random ones.

    Only test images with discriminative parts count. The first glimpse is the thumbnail, not a
    crop. Random crops are anywhere in the image or, as a stricter measure, within it; the images
    must be square.

    Args:
        task: the task.
        scores: of its test split.
        glimpses: ``(N,)``, glimpses that each image took.
    """
    data = task.images("test").data
    height, width, _ = data.image_shape
    assert height is not None and width is not None
    boxes, discriminative, side = (
        data.metadata["part_boxes"],
        data.metadata["discriminative"],
        task.sensor.glimpse_size,
    )
    place = scores.locations[1:].cpu().numpy().astype(np.float64)  # (T - 1, N, 2)
    lefts, tops = (
        sensor.corner(place[..., k], n, side).T for k, n in enumerate((width, height))
    )  # (N, T - 1)
    some = np.asarray(discriminative.any(axis=1))
    taken = (np.arange(2, len(place) + 2) <= glimpses[:, None]) & some[:, None]
    crops = int(taken.sum())
    if not crops:
        return {"crops": 0, "of_dtram": None, "of_random": None, "ratio": None}
    ours = float(touches(boxes, discriminative, lefts, tops, side)[taken].mean())

    def by_chance(reach: float) -> float:
        each = random_touches(boxes, discriminative, (height, width), side, reach)
        return float((each * taken.sum(axis=1)).sum() / crops)

    anywhere = by_chance(1.0)
    within = by_chance(1 - side / min(height, width))
    return {
        "crops": crops,
        "of_dtram": round(ours, 4),
        "of_random": round(anywhere, 4),
        "ratio": round(ours / anywhere, 2),
        "of_random_within": round(within, 4),
        "ratio_within": round(ours / within, 2),
    }


# -- the result ------------------------------------------------------------------------------------


def compare(options: Options) -> dict[str, Any]:
    """The whole comparison, from finished runs."""
    folders = {name: run.folder for name, run in runs(options).items()}
    found = {name: read_json(folder / "results.json") for name, folder in folders.items()}
    own = found["dtram"]
    places = {} if options.data_dir is None else {"data_dir": str(options.data_dir)}
    device = torch.device(
        own["hardware"]["device"] if own["hardware"]["device"] == "cpu" else "cuda"
    )
    task = TrainingTask(own["env_id"], device, **{**own["env_options"], **places})
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
        "by_discriminative_parts": by_discriminative_parts(
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
            "at most 20 minutes of training each": slowest <= MAX_SECONDS,
        },
        "runs": {name: origin(results) for name, results in found.items()},
        **provenance(task.device),
    }


def in_words(result: dict[str, Any]) -> str:
    """The comparison as text."""
    rows = DataFrame.from_dict(result["rows"], orient="index")
    rows["flops"] /= 1e6
    rows.columns = ["test accuracy %", "mean glimpses", "MFLOP", "images/s", "training s"]
    parts = DataFrame.from_dict(result["by_discriminative_parts"], orient="index")
    parts.columns = ["images", "mean glimpses", "DT-RAM %", "one look %"]
    lines = [
        f"{result['env_id']}: {result['dataset']}, {result['images']:,} test images",
        rows.to_string(float_format="{:.2f}".format),
        "by the number of discriminative parts:",
        parts.to_string(float_format="{:.2f}".format),
    ]
    for other in ("of_the_same_compute", "at_full_resolution"):
        found = result[f"over_one_look_{other}"]
        lines.append(
            f"DT-RAM over one look {other.replace('_', ' ')}: {found['points']:+.2f} points, 95 % "
            f"interval over images {found['low']:+.2f} to {found['high']:+.2f}, one seed"
        )
    needed, touched = result["fixed_glimpses_needed"], result["touches"]
    reached = "not reached" if needed is None else f"{needed:.2f}"
    lines.append(f"glimpses that RAM needs for DT-RAM's accuracy: {reached}")
    if touched["crops"]:
        lines.append(
            f"crops that touch a discriminative part: {100 * touched['of_dtram']:.1f} % of "
            f"DT-RAM's {touched['crops']:,}, {100 * touched['of_random']:.1f} % of random ones, "
            f"ratio {touched['ratio']} ({touched['ratio_within']} to random ones within the image)"
        )
    lines += [f"{'yes' if holds else 'NO '}  {claim}" for claim, holds in result["claims"].items()]
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Trains missing runs, compares, writes and prints."""
    made = list(runs(options).values())
    for run in made:
        print(f"{run.name}: {run.folder}.log", flush=True)
    runner = Runner(jobs=1)
    try:
        run_in_order(made, runner)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    if runner.problems:
        raise ValueError(
            "; ".join(f"{folder}: {problem}" for folder, problem in runner.problems.items())
        )
    result = compare(options)
    write_result(options.out, result)
    print(in_words(result), end="")
    print(f"figures: {options.out}")


if __name__ == "__main__":
    run_program(lambda: main(tyro.cli(Options, description=__doc__)))

"""The facts of a result: the keys of a record, their values, and what in it must agree.

`FACTS` is the one table: docs/protocol.md shows it, and whatever reads records checks them with it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import gymnasium as gym

from agents.policy_only import POLICY_TABLE
from dtram_env import ENV_IDS
from dtram_env.checks import misfit
from dtram_env.datasets import DATASETS
from dtram_env.files import Record
from train.common.files import Count, CurvePoint, Seconds, Share, read_json_lines
from train.common.records import HERE, RESULTS

IDS = (*(env_id for env_id in ENV_IDS if env_id != "DTRAM-ImageFolder-v0"), *POLICY_TABLE)
"""The ids whose results can be compared: everybody has the same images."""


class Fact(NamedTuple):
    """A key of a record."""

    kind: Any  # as `dtram_env.checks.misfit` reads it
    meaning: str
    required: bool = False  # of every record; null is the same as missing


FACTS: dict[str, Fact] = {
    "env_id": Fact(str, "id with its version, without a package", True),
    "algo": Fact(str, "name of the algorithm", True),
    "seed": Fact(Annotated[int, 0, 2**31 - 1], "seed of the run", True),
    "source": Fact(str, f'a link; required from elsewhere, else "{HERE}"'),
    "track": Fact(Literal["policy-only", "whole-task"], "the track ([Tracks](#tracks))", True),
    "learns_from": Fact(
        Literal["nothing", "reward", "labels and reward"], "what the algorithm learns from", True
    ),
    "dataset": Fact(str, "name of the data", True),
    "split": Fact(Literal["test"], "the images of the figures", True),
    "images": Fact(Count, "number of images in the split", True),
    "test_error": Fact(Annotated[float, 0, 100], "test error in percent", True),
    "mean_glimpses": Fact(
        Annotated[float, 1, 10**6], "mean number of glimpses over all images, right or wrong", True
    ),
    "mean_return": Fact(Share, "discounted return: mean reward of an episode", True),
    "env_steps": Fact(Count, "glimpses learned from; required from elsewhere"),
    "accuracy": Fact(Share, "fraction of images that were classified correctly"),
    "error": Fact(Share, "1 - `accuracy`"),
    "histogram": Fact(list[Count], "number of images that took 1, 2, … glimpses"),
    "view": Fact(Literal["native", "continuous", "discrete", "single"], "view of the environment"),
    "observe": Fact(Literal["glimpse", "canvas"], "observation of the environment"),
    "classifier": Fact(str, "classifier in the loop, with its hash (policy-only)"),
    "env_options": Fact(dict[str, Any], "keywords of the environment"),
    "hyperparameters": Fact(dict[str, Any], "hyper-parameters of the algorithm"),
    "tries": Fact(Count, "trials of the search that found them; 0 without a search"),
    "stopping": Fact(str, "stopping rule of a DT-RAM"),
    "flops_per_image": Fact(Annotated[float, 0, 10**18], "with the classifier in the loop"),
    "mean_flops": Fact(Annotated[float, 0, 10**18], "of a DT-RAM without a classifier in the loop"),
    "train_seconds": Fact(Seconds, "training time in seconds, without validation"),
    "curve": Fact(list[CurvePoint], "learning curve, on validation"),
    "area": Fact(Share, "area under the learning curve: its mean return over the env steps"),
    "validation": Fact(CurvePoint, "the point of the curve whose weights were chosen"),
    "differs_from_training": Fact(Count, "images that the run's own test pass answered otherwise"),
    "trunk": Fact(dict[str, str], "command and commit of the trunk, if another run trained it"),
    "command": Fact(str, "origin: the command"),
    "commit": Fact(str, "origin: the commit, without changes"),
    "date": Fact(str, "origin: the day"),
    "python": Fact(str, "origin: version of Python"),
    "versions": Fact(dict[str, Any], "origin: versions of the packages"),
    "hardware": Fact(dict[str, Any], "origin: the machine"),
}
"""Every key that a record may have. A run without a result has `problem`, and no facts."""

REQUIRED = frozenset(key for key, fact in FACTS.items() if fact.required)

# Keywords of the environment that may differ from an id's: the same task, shown otherwise.
SHOWN_OTHERWISE = ("view", "grid", "observe", "glimpse_format", "mask_seen", "min_glimpses")
ROUNDING = 1e-4  # of figures that somebody sends
NAME = re.compile(r"\w[\w .,+()-]{0,58}[\w)]|\w")
LINK = re.compile(r"https?://[^\s|()<>\[\]`\\]+")


def problem(record: Mapping[str, Any], needed: Collection[str] = REQUIRED) -> str | None:
    """What of a record does not fit `FACTS`, as ``"seed='x': expected an integer"``; None: it fits.

    `needed` are the keys that may not be missing.
    """
    if unknown := sorted(record.keys() - FACTS.keys()):
        return f"{unknown[0]}: unknown key; expected some of {', '.join(FACTS)}"
    for key, fact in FACTS.items():
        if record.get(key) is None:
            if key in needed:
                return f"{key}: missing; expected {fact.meaning}"
        elif found := misfit(record[key], fact.kind, key):
            return f"{found} ({fact.meaning})"
    return None


def contradiction(record: Mapping[str, Any]) -> str | None:
    """What of a record of the leaderboard contradicts its id or itself; None: nothing.

    Reads the id's test split, to count its images.
    """
    for key, fits, expected in _claims(record):
        if not fits:
            return f"{key}={str(record.get(key))[:60]!r}: expected {expected}"
    return None


def _claims(record: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """What must hold: key, whether it does, what was expected. Later ones rely on earlier ones."""
    env_id, classifier = record["env_id"], record.get("classifier")
    yield "env_id", env_id in IDS, f"one of {', '.join(IDS)}"
    registered = gym.spec(env_id).kwargs
    made = (record.get("hyperparameters") or {}).get("env")
    made = {**(made if isinstance(made, dict) else {}), **(record.get("env_options") or {})}
    yield "env_options", not (expected := other_task(env_id, made)), f"{expected}"
    track, named = "whole-task", None
    if env_id in POLICY_TABLE:
        _, name, sha256 = POLICY_TABLE[env_id]
        track, named = "policy-only", f"{name}-{sha256[:12]}"
    yield "track", record["track"] == track, f"{track!r}, that of {env_id}"
    yield "classifier", classifier in (None, named), f"{named!r}, that of {env_id}"
    title, images = DATASETS[registered["dataset"].lower()].title, count_test_images(env_id)
    yield "dataset", record["dataset"] == title, f"{title!r}; no stand-in has a row"
    yield "images", record["images"] == images, f"{images}, the test split of {env_id}"

    budget, discount = registered["max_glimpses"], registered["discount"]
    right, glimpses = 1 - record["test_error"] / 100, record["mean_glimpses"]
    yield "mean_glimpses", glimpses <= budget, f"at most the budget of {env_id}, {budget}"
    low, high = right * discount**budget, right * discount
    fits = low - ROUNDING <= record["mean_return"] <= high + ROUNDING
    paid = f"{low:.4f} to {high:.4f}: {100 * right:g} % are right, at a discount of {discount}"
    yield "mean_return", fits, f"from {paid}"
    for key, share in (("accuracy", right), ("error", 1 - right)):
        given = record.get(key)
        fits = given is None or abs(given - share) <= ROUNDING
        yield key, fits, f"{share:g}, as test_error has it"
    if counts := record.get("histogram"):
        yield "histogram", len(counts) == budget, f"{budget} numbers, one for each glimpse"
        mean = sum(t * count for t, count in enumerate(counts, start=1)) / images
        fits = sum(counts) == images and abs(mean - glimpses) < 0.01
        yield "histogram", fits, f"{images} images with a mean of {glimpses} glimpses"

    trunk = record.get("trunk") or {}
    for key, text in (("command", record.get("command")), ("trunk", " ".join(trunk.values()))):
        yield key, not text or (text.isprintable() and "`" not in text), "a line without backticks"
    named = record["algo"]
    yield "algo", bool(NAME.fullmatch(named)), "letters, digits, spaces and .,+()-, 60 at most"
    ours = (source := record.get("source")) == HERE
    yield "source", ours or bool(LINK.fullmatch(source or "")), f"a link, or {HERE!r}"
    counted = ours or record.get("env_steps") is not None
    yield "env_steps", counted, "the number of glimpses learned from"


def other_task(env_id: str, keywords: Mapping[str, Any]) -> str | None:
    """What was expected of a keyword that makes another task of a registered id; None: none."""
    for name, value in keywords.items():
        own = gym.spec(env_id).kwargs.get(name)
        if name not in SHOWN_OTHERWISE and value != own:
            return f"{name}={own!r}, of {env_id}; another task has no row"
    return None


@cache
def count_test_images(env_id: str) -> int:
    """The number of images in an id's test split. Drawn stand-ins have as many as the real data."""
    dataset = DATASETS[gym.spec(env_id).kwargs["dataset"].lower()]
    if dataset.folder is not None:  # made of another dataset's images, and takes seconds to load
        env_id = DATASETS[dataset.folder].env_id
    keywords: dict[str, Any] = {"data": "builtin"} if dataset.stand_in else {}
    env: Any = gym.make_vec(env_id, num_envs=1, split="test", **keywords)
    env.close()
    return int(env.unwrapped.num_images)


def read_results(path: Path, needed: Collection[str] = REQUIRED) -> list[Record]:
    """Reads records, none if there is no file; ValueError if one does not fit, with its line."""
    records = read_json_lines(path) if path.exists() else []
    for number, record in enumerate(records, start=1):
        if "problem" not in record and (found := problem(record, needed)):
            raise ValueError(f"{path}, line {number}: {found}")
    return records


class Entry(NamedTuple):
    """A record on the leaderboard."""

    place: str  # its file and line
    record: Record
    of_suite: bool = False  # which trains for fewer env steps

    @property
    def row(self) -> tuple[str, str, str, bool]:
        """What the seeds of a row share: environment, algorithm, source, whether of the suite."""
        record = self.record
        return record["env_id"], record["algo"], record.get("source") or HERE, self.of_suite


def read_leaderboard(results: Path = RESULTS) -> list[Entry]:
    """The records of comparisons, of the suite, and those that were added, each run once.

    Of two records of one row and seed the first with a result counts, in that order.
    """
    found: dict[tuple[Any, ...], Entry] = {}
    for folder in ("comparison", "suite", "leaderboard"):
        for path in sorted((results / folder).glob("*.jsonl")):
            for number, record in enumerate(read_results(path), start=1):
                of_suite = folder == "suite" and record.get("env_steps") != 0  # shorter runs
                entry = Entry(f"{path}, line {number}", record, of_suite)
                key = (*entry.row, record["seed"])
                if key not in found or "problem" in found[key].record:
                    found[key] = entry
    return list(found.values())

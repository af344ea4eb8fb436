"""Ways to stop on one trunk, at equal mean glimpses: `train/reproduce.py stops`.

A rule's threshold is set so that test images take the wanted number of glimpses on average; between
two thresholds, a share of the images gets the second. No label is read for it. A record of
`RECORDS` has a way's expected error of each test image at each mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from agents.halting.act import ACTStop
from agents.stopping import ConfidenceStop, FixedStop, LearnedStop
from agents.unroll import Scores
from train.common import statistics
from train.common.files import markdown_table, read_json
from train.common.records import origin, pack_floats, unpack_floats
from train.common.run import has_results
from train.common.statistics import Outcome, outcome
from train.dtram.validation import stop_thresholds
from train.paper.read_runs import Reader, Record
from train.paper.systems import BIRDS, MNIST, WAYS_TO_STOP, Protocol

RECORDS = "stops.jsonl"  # beside the tables
KEY = ("protocol", "way", "seed")  # identifies a record
PROTOCOLS = (MNIST, BIRDS)
MEANS = {MNIST.name: (1.5, 2.0, 2.4, 3.0, 3.6), BIRDS.name: (1.5, 2.0, 2.4)}
"""Mean glimpses at which the errors are compared."""
LEARNED = next(iter(WAYS_TO_STOP))  # with which the others are compared
CONFIDENCE, RANDOM, FIXED = "confidence threshold", "at random, as often", "fixed number"
WAYS = (*WAYS_TO_STOP, CONFIDENCE, RANDOM, FIXED)


def systems_of(protocol: Protocol) -> tuple[str, ...]:
    """The systems whose runs are needed: the trunk, and those that learned to stop on it."""
    return ("ram", *(name for systems in WAYS_TO_STOP.values() for name in systems))


def measure(reader: Reader, protocol: Protocol, runs: Path, seed: int) -> Iterator[Record]:
    """The records of a seed, of the ways whose runs are finished in `runs`."""
    folders = {name: protocol.folder(runs, name, seed) for name in systems_of(protocol)}
    done = {name: folder for name, folder in folders.items() if has_results(folder)}
    if "ram" not in done:
        return
    trunk = reader.scores(done["ram"], done["ram"])
    ways = {
        CONFIDENCE: (
            "ram",
            [outcome(trunk, ConfidenceStop(c)) for c in statistics.confidences(trunk)],
        )
    }
    fixed = [outcome(trunk, FixedStop(t)) for t in range(1, len(trunk.logits) + 1)]
    ways[FIXED] = ("ram", fixed)
    for way, systems in WAYS_TO_STOP.items():
        if set(systems) <= done.keys():
            read = [reader.scores(done[name], done[name]) for name in systems]
            ways[way] = (systems[0], learned_outcomes(way, read))
    for way, (system, found) in ways.items():
        yield _record(protocol, way, seed, found, done[system])
    if LEARNED in ways:
        system, found = ways[LEARNED]
        yield _record(protocol, RANDOM, seed, found, done[system], fixed)


def learned_outcomes(way: str, scores: Sequence[Scores]) -> list[Outcome]:
    """What the networks of a way do: at every threshold, or each ACT at its own."""
    if way == "ACT":
        return [outcome(one, ACTStop()) for one in scores]
    return [outcome(one, LearnedStop(t)) for one in scores for t in stop_thresholds(one)]


def error_at(
    found: Sequence[Outcome], mean: float, fixed: Sequence[Outcome] | None = None
) -> tuple[np.ndarray, float]:
    """Expected errors ``(N,)`` in [0, 1] at `mean` glimpses, and the mean that was met.

    With `fixed`, the outcomes after 1 ... T glimpses, the numbers of glimpses of `found` are dealt
    to the images at random.
    """
    means = np.array([one.glimpses.mean() for one in found])
    low, high, share = statistics.nearest(means, mean)
    met = float((1 - share) * means[low] + share * means[high])
    if fixed is None:
        return (1 - share) * ~found[low].right + share * ~found[high].right, met
    dealt = [np.bincount(found[k].glimpses, minlength=len(fixed) + 1)[1:] for k in (low, high)]
    shares = ((1 - share) * dealt[0] + share * dealt[1]) / dealt[0].sum()  # (T,)
    return shares @ np.stack([~one.right for one in fixed]), met


def _record(
    protocol: Protocol,
    way: str,
    seed: int,
    found: Sequence[Outcome],
    folder: Path,
    fixed: Sequence[Outcome] | None = None,
) -> Record:
    results = read_json(folder / "results.json")
    errors = {}
    for mean in MEANS[protocol.name]:
        error, met = error_at(found, mean, fixed)
        if abs(met - mean) < 0.005:  # else no threshold of this way has so many glimpses
            errors[f"{mean:g}"] = pack_floats(error)
    about = {"protocol": protocol.name, "system": folder.parent.name, "way": way, "seed": seed}
    about |= {"data": results["dataset"]}
    return {**about, "errors": errors, **origin(results)}


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row for each protocol and way, from records in the order of `KEY`."""
    found = []
    for name, group in groupby(records, lambda one: one["protocol"]):
        by_way: dict[str, dict[int, Record]] = {}
        for one in group:
            by_way.setdefault(one["way"], {})[one["seed"]] = one
        for way in WAYS:
            if way in by_way:
                row = {"protocol": name, "way": way, "seeds": len(by_way[way])}
                row["data"] = next(iter(by_way[way].values()))["data"]
                row["at"] = {
                    f"{mean:g}": at
                    for mean in MEANS[name]
                    if (at := _compared(by_way[way], by_way.get(LEARNED, {}), f"{mean:g}"))
                }
                found.append(row)
    return found


def _compared(runs: Mapping[int, Record], ours: Mapping[int, Record], mean: str) -> dict[str, Any]:
    """Error in percent over seeds, and the difference to ours in points; empty if no run has it."""
    errors, others = (
        {s: unpack_floats(r["errors"][mean]) for s, r in each.items() if mean in r["errors"]}
        for each in (runs, ours)
    )
    if not errors:
        return {}
    each = [100 * float(error.mean()) for error in errors.values()]
    found = {"error": round(float(np.mean(each)), 4)}
    if len(each) > 1:
        found["spread"] = round(float(np.std(each, ddof=1)), 4)
    return found if runs is ours else found | statistics.paired_difference(errors, others)


def tables(found: Sequence[dict[str, Any]], heading: str) -> str:
    """A Markdown table for each protocol, under its data in a `heading` such as ``"## {}"``."""
    parts = []
    for name, group in groupby(found, lambda row: row["protocol"]):
        lines = []
        for row in group:
            line = {"stop": row["way"]}
            for mean in MEANS[name]:
                line[f"at {mean:g}"] = _cell(row["at"].get(f"{mean:g}"))
            lines.append({**line, "seeds": str(row["seeds"])})
            data = row["data"]
        table = markdown_table([*lines[0]], [[*line.values()] for line in lines])
        parts.append(f"{heading.format(data)}\n\n{table}")
    return "\n".join(parts)


def markdown(found: Sequence[dict[str, Any]], command: str) -> str:
    """The comparison as a page."""
    return (
        f"# When to stop\n\n{tables(found, '## {}')}\n"
        "Test error in percent at equal mean glimpses, all on the same trunk. In parentheses: the "
        f'difference to "{LEARNED}" in points, a 95 % interval over images and seeds. ± is the '
        "standard deviation over seeds. Thresholds are set by the number of glimpses of the test "
        "images, without their labels; between two, a share of the images gets the second. The "
        f"discount of the learned stops is 0.98. ACT was trained with {len(WAYS_TO_STOP['ACT'])} "
        "costs of a glimpse, and images are mixed between them. At random: the numbers of glimpses "
        f'of "{LEARNED}", dealt to the images at random. An empty cell: the way stops earlier or '
        f"later whatever its threshold. Runs: [{RECORDS}]({RECORDS}).\n\nMade by `{command}`.\n"
    )


def _cell(at: dict[str, float] | None) -> str:
    if at is None:
        return ""
    spread = f" ± {at['spread']:.2f}" if "spread" in at else ""
    interval = f" ({at['low']:+.2f} to {at['high']:+.2f})" if "low" in at else ""
    return f"{at['error']:.2f}{spread}{interval}"

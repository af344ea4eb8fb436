"""Claims about DT-RAM, with intervals over images and seeds.

A record of `RECORDS` has, for each test image, the errors of one DT-RAM and of what it is compared
with. Records of several machines can be merged into one claim.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from train.common import statistics
from train.common.files import markdown_table, read_json
from train.common.records import origin, pack_bits, unpack_bits
from train.common.run import has_results
from train.paper import systems
from train.paper.read_runs import Reader, Record
from train.paper.tables import Line, label_of, line_of

RECORDS = "claims.jsonl"  # beside the tables
KEY = ("protocol", "system", "against", "seed")  # identifies a record of evidence
THRESHOLD, WHOLE, LOOK = "confidence threshold", "whole budget", "best one look"


def pack(wrong: np.ndarray, mean_glimpses: float, other: statistics.Mixture) -> Record:
    """The errors ``(N,)`` bool of a learned stop and of another way to stop, packed for JSON."""
    first, *others = (pack_bits(each) for each in (wrong, *other.wrong))
    return {
        "images": len(wrong),
        "mean_glimpses": mean_glimpses,
        "other_mean_glimpses": other.mean_glimpses,
        "other_share": other.share,
        "wrong": first,
        "other_wrong": others,
    }


def unpack(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Errors ``(N,)`` bool of the learned stop, and the other's expected errors in [0, 1]."""
    texts = [record["wrong"], *record["other_wrong"]]
    wrong = np.stack([unpack_bits(text, record["images"]) for text in texts])
    return wrong[0], statistics.Mixture(wrong[1:], record["other_share"], 0.0).error


def compare(
    reader: Reader,
    line: Line,
    seed: int,
    dtram: Path,
    ram: Path,
    looks: Mapping[str, Path],
    before: Sequence[Record],
) -> list[Record]:
    """Evidence on a DT-RAM against other ways to stop on its trunk, and against one look.

    Two confidence thresholds are mixed so that their mean glimpses on the test split are DT-RAM's.
    Of the networks that look once, validation chooses the best; if a run is missing, it is the one
    in the records `before`, and without such a record there is no such evidence. `dtram`, `ram` and
    `looks` are the run folders of `line`, its trunk and those networks. ValueError: the trunk was
    trained again.
    """
    reading = reader.read(line, dtram)
    wrong, mean = ~reading.outcome.right, float(reading.outcome.glimpses.mean())
    scores = reader.scores(ram, ram)
    budget, best = len(scores.logits), ""
    whole = FixedStop(budget)
    rules: list[StoppingRule] = [*map(ConfidenceStop, statistics.confidences(scores)), whole]
    others = {
        THRESHOLD: statistics.mixture_at(scores, rules, mean),
        WHOLE: statistics.mixture_at(scores, [whole], budget),
    }
    key = {"protocol": line.protocol.name, "against": LOOK}
    on_record = next((record for record in before if key.items() <= record.items()), None)
    look = None
    if looks and all(map(has_results, looks.values())):
        read = {name: read_json(folder / "results.json") for name, folder in looks.items()}
        best = min(read, key=lambda name: read[name]["validation"]["error"])
        look = ~reader.read(line_of(line.protocol, best), looks[best]).outcome.right
    elif on_record is not None:
        best, look = on_record["look"], unpack(on_record)[1] > 0
    if look is not None:
        others[LOOK] = statistics.Mixture(np.stack([look] * 2), 0.0, 1.0)
    about = {"protocol": line.protocol.name, "system": line.system, "seed": seed}
    data = reading.results["dataset"]
    return [
        {**about, "against": against}
        | ({"look": best} if against == LOOK else {})
        | {"data": data, **pack(wrong, mean, other), **origin(reading.results)}
        for against, other in others.items()
    ]


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One claim for each DT-RAM and comparison, from records in the order of `KEY`."""
    return [claim(list(group)) for _, group in groupby(records, itemgetter(*KEY[:3]))]


def claim(records: Sequence[Record]) -> dict[str, Any]:
    """The claim that runs of several seeds support on one DT-RAM and what it is compared with.

    Errors are in percent. Their difference (negative: DT-RAM is better) is in points, with a 95 %
    interval by a bootstrap over images and seeds, and the half-width of Student's t interval over
    seeds.

    Raises:
        ValueError: the seeds have different test images, or were compared with different networks
            that look once.
    """
    look = records[0].get("look", "")
    about = "{protocol} {system}".format_map(records[0])
    if len(sizes := {one["images"] for one in records}) > 1:
        raise ValueError(
            f"{RECORDS}: seeds of {about} have {sorted(sizes)} test images, expected one number; "
            "delete the older records"
        )
    others = {(one.get("look"), *one["other_wrong"]) for one in records if look}
    if len(others) > 1:
        raise ValueError(
            f"{RECORDS}: seeds of {about} were compared with {len(others)} networks that look "
            "once, expected one; delete the older records"
        )
    wrong, other = (np.stack(each) for each in zip(*map(unpack, records), strict=True))
    differences = 100 * (wrong - other)  # (seeds, N)
    mean, low, high = statistics.paired_bootstrap(differences)
    by_seed = differences.mean(axis=1).tolist()
    protocol, system, against = (records[0][name] for name in KEY[:3])
    glimpses, other_glimpses = (
        float(np.mean([record[name] for record in records]))
        for name in ("mean_glimpses", "other_mean_glimpses")
    )
    values: dict[str, float | None] = {
        "error": 100 * float(wrong.mean()),
        "glimpses": glimpses,
        "other_error": 100 * float(other.mean()),
        "other_glimpses": other_glimpses,
        "fewer_glimpses": None if against != WHOLE else 1 - glimpses / other_glimpses,
        "difference": mean,
        "low": low,
        "high": high,
        "student_half_width": statistics.mean_interval(by_seed)[1],
    }
    return {
        "data": records[0]["data"],
        "protocol": protocol,
        "system": system,
        "label": label_of(systems.PROTOCOLS[protocol], system),
        "against": f"{against} ({look})" if look else against,
        **{name: None if value is None else round(value, 4) for name, value in values.items()},
        "seeds": len(records),
        "seed_differences": [round(one, 4) for one in by_seed],
    }


NOTE = (
    "95 % interval: 2,000 bootstrap draws of images, the same for all seeds, and of seeds. With "
    "few seeds it is too narrow where seeds differ more than images; Student's interval over the "
    "differences of seeds shows what seeds alone support. The confidence threshold's error at "
    "DT-RAM's mean glimpses is interpolated once, on the whole test split. All seeds are compared "
    "with one network that looks once, of seed 0. Where none is here, the answers of such networks "
    "are not on record, and only the tables show their error. Which images each run got wrong, its "
    f"command, commit, versions and hardware: [{RECORDS}]({RECORDS})."
)


def markdown(claims: Sequence[dict[str, Any]], command: str) -> str:
    """The claims as Markdown."""
    lines = []
    for one in claims:
        fewer, half = one["fewer_glimpses"], one["student_half_width"]
        lines.append(
            {
                "data": one["data"],
                "DT-RAM": one["label"],
                "error %": f"{one['error']:.2f}",
                "at glimpses": f"{one['glimpses']:.2f}",
                "against": one["against"],
                "its error %": f"{one['other_error']:.2f}",
                "its glimpses": f"{one['other_glimpses']:.2f}",
                "fewer glimpses, %": "" if fewer is None else f"{100 * fewer:.1f}",
                "difference, points": f"{one['difference']:+.2f}",
                "95 % interval": f"{one['low']:+.2f} to {one['high']:+.2f}",
                "Student's": "" if half is None else f"{one['difference']:+.2f} ± {half:.2f}",
                "seeds": str(one["seeds"]),
            }
        )
    table = markdown_table([*lines[0]], [[*line.values()] for line in lines], text_columns=(0, 1))
    return (
        "# DT-RAM against other ways to stop, and against one look\n\n"
        "On the same test images, other ways to stop also on the same trunk; negative: DT-RAM "
        "makes fewer errors. Of the networks that look once, validation chose the best.\n\n"
        f"{table}\n{NOTE}\n\nMade by `{command}`.\n"
    )

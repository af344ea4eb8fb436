"""What is claimed of the learned stop, with intervals over images and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.stopping import ConfidenceStop, FixedStop

from . import rows
from .comparison import mean_interval
from .finished import Reader
from .readings import answers, confidences, error_at, paired_bootstrap
from .systems import PROTOCOLS
from .tables import Line


def stands(row: Mapping[str, Any]) -> bool:
    """Whether a row of an earlier writing is of systems and recipes that are still the same."""
    protocol = PROTOCOLS.get(row.get("protocol", ""))
    runs = [one for one in row.get("runs", ()) if isinstance(one, dict)]
    system = row.get("system", "")
    if protocol is None or system not in protocol.systems or len(runs) != row["seeds"]:
        return False
    return all(rows.stands(one["run"], one["recipe"], protocol, system) for one in runs)


class Pair(NamedTuple):
    """The runs of a DT-RAM and of the RAM whose trunk it has, of one seed."""

    dtram: Path
    ram: Path


def against_threshold(reader: Reader, line: Line, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The learned stop against stopping by confidence on the same trunk, at equal mean glimpses.

    The thresholds' error is interpolated between the two whose mean numbers of glimpses enclose the
    learned stop's, on the test split, for each seed by itself.

    Returns:
        Error of both in percent, their difference (negative: the learned stop is better), its 95 %
        interval by a bootstrap over images and seeds, and Student's over the seeds' differences.

    Raises:
        ValueError: a run's trunk has been trained anew since.
    """
    learned, other, glimpses = [], [], []
    for pair in pairs:
        found = reader.read(line, pair.dtram).answered
        scores = reader.scores(pair.ram, pair.ram)
        mean = float(found.glimpses.mean())
        rules = [ConfidenceStop(p) for p in confidences(scores)]
        learned.append(1.0 - found.right)
        other.append(error_at(scores, [*rules, FixedStop(len(scores.logits))], mean))
        glimpses.append(mean)
    return _compared("confidence threshold", np.array(learned), np.array(other), glimpses, glimpses)


def against_fixed(reader: Reader, line: Line, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The learned stop against RAM with the whole budget of glimpses, on the same trunk.

    Returns:
        As `against_threshold`, and by which share glimpses are fewer.
    """
    learned, other, glimpses, budgets = [], [], [], []
    for pair in pairs:
        found = reader.read(line, pair.dtram).answered
        scores = reader.scores(pair.ram, pair.ram)
        budget = len(scores.logits)
        learned.append(1.0 - found.right)
        other.append(1.0 - answers(scores, FixedStop(budget)).right)
        glimpses.append(float(found.glimpses.mean()))
        budgets.append(float(budget))
    result = _compared("whole budget", np.array(learned), np.array(other), glimpses, budgets)
    return result | {"fewer_glimpses": round(1 - np.mean(glimpses) / np.mean(budgets), 4)}


def _compared(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    our_glimpses: Sequence[float],
    their_glimpses: Sequence[float],
) -> dict[str, Any]:
    """Errors ``(seeds, N)`` in [0, 1] of two systems, as a row."""
    mean, low, high = paired_bootstrap(100 * (ours - theirs))
    each = 100 * (ours - theirs).mean(axis=1)
    half = mean_interval(each.tolist())[1]
    return {
        "against": name,
        "error": round(100 * float(ours.mean()), 4),
        "glimpses": round(float(np.mean(our_glimpses)), 4),
        "other_error": round(100 * float(theirs.mean()), 4),
        "other_glimpses": round(float(np.mean(their_glimpses)), 4),
        "difference": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "seeds": len(ours),
        "of_each_seed": [round(float(one), 4) for one in each],
        "half_of_students": None if half is None else round(half, 4),
    }


NOTE = (
    "95 % interval: 2,000 draws of images, the same for all seeds, and of seeds. With so few seeds "
    "it is too narrow where seeds differ more than images do; Student's interval over the seeds' "
    "differences says what seeds alone can tell (rows without it were written before it was). At "
    "equal mean glimpses the threshold's error "
    "is interpolated on its curve, once, on the whole split: draws do not match them anew."
)


def markdown(found: Sequence[Mapping[str, Any]], command: str) -> str:
    """The claims as Markdown."""
    heads = ["data", "DT-RAM", "error %", "at glimpses", "against", "error %", "at glimpses"]
    heads += ["fewer glimpses, %", "difference, points", "95 % interval", "Student's", "seeds"]
    lines = ["# The learned stop against other ways to stop", ""]
    lines += [
        "On the same trunk and test images; negative: the learned stop makes fewer errors.",
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in found:
        name = row.get("label", row["system"]) + (" ‡" if row.get("kept") else "")
        cells = [row["data"], name, f"{row['error']:.2f}", f"{row['glimpses']:.2f}"]
        cells += [row["against"], f"{row['other_error']:.2f}", f"{row['other_glimpses']:.2f}"]
        fewer, half = row.get("fewer_glimpses"), row.get("half_of_students")
        cells.append("" if fewer is None else f"{100 * fewer:.1f}")
        cells += [f"{row['difference']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}"]
        cells.append("" if half is None else f"{row['difference']:+.2f} ± {half:.2f}")
        lines.append("| " + " | ".join([*cells, str(row["seeds"])]) + " |")
    kept = [KEPT, ""] if any(row.get("kept") for row in found) else []
    return "\n".join([*lines, "", NOTE, "", *kept, f"Made by `{command}`.", ""])


KEPT = (
    "‡ From an earlier writing, with the same recipe; not all of its runs were on the machine that "
    "wrote this last."
)

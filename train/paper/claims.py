"""What is claimed of the learned stop, with intervals over images and seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from agents.stopping import ConfidenceStop, FixedStop, StoppingRule
from train.baselines.summary import mean_interval
from train.common.statistics import Mixture, confidences, mixture_at, paired_bootstrap
from train.paper import systems
from train.paper import write_tables as rows
from train.paper.read_runs import Reader
from train.paper.tables import Line


def stands(said: Mapping[str, Any]) -> bool:
    """Whether a row of an earlier writing is of systems and recipes that are still the same."""
    protocol = systems.PROTOCOLS.get(said.get("protocol", ""))
    runs = [one for one in said.get("runs", ()) if isinstance(one, dict)]
    system = said.get("system", "")
    if protocol is None or system not in protocol.systems or len(runs) != said["seeds"]:
        return False
    return all(rows.stands(one["run"], one["recipe"], protocol, system) for one in runs)


class Evidence(NamedTuple):
    """What the learned stop and another way to stop did on one trunk's test images."""

    wrong: np.ndarray  # (N,) bool, the learned stop's errors
    other: Mixture
    glimpses: float  # mean of the learned stop

    @property
    def difference(self) -> np.ndarray:
        """Errors of the learned stop less the other's ``(N,)``, in [-1, 1]."""
        return self.wrong - self.other.error


def compare(reader: Reader, line: Line, dtram: Path, ram: Path) -> dict[str, Evidence]:
    """A DT-RAM against other ways to stop on the same trunk, by what it is against.

    Against stopping by confidence it is at equal mean glimpses: between the two thresholds whose
    means enclose the learned stop's, on the test split.

    Args:
        reader: of finished runs.
        line: the DT-RAM.
        dtram: its run.
        ram: the run of the RAM whose trunk it has.

    Raises:
        ValueError: the trunk has been trained anew since.
    """
    found = reader.read(line, dtram).answered
    scores = reader.scores(ram, ram)
    budget, mean = len(scores.logits), float(found.glimpses.mean())
    rules: list[StoppingRule] = [ConfidenceStop(p) for p in confidences(scores)]
    threshold = mixture_at(scores, [*rules, FixedStop(budget)], mean)
    whole = mixture_at(scores, [FixedStop(budget)], budget)
    return {
        THRESHOLD: Evidence(~found.right, threshold, mean),
        WHOLE: Evidence(~found.right, whole, mean),
    }


THRESHOLD, WHOLE = "confidence threshold", "whole budget"


def row(against: str, found: Sequence[Evidence]) -> dict[str, Any]:
    """What runs of several seeds say against another way to stop.

    Returns:
        Error of both in percent, their difference (negative: the learned stop is better), its 95 %
        interval by a bootstrap over images and seeds, and Student's over the seeds' differences.
    """
    differences = 100 * np.stack([one.difference for one in found])
    mean, low, high = paired_bootstrap(differences)
    each = differences.mean(axis=1)
    half = mean_interval(each.tolist())[1]
    glimpses = [one.glimpses for one in found]
    others = [one.other.mean_glimpses for one in found]
    fewer = {} if against == THRESHOLD else {"fewer_glimpses": 1 - sum(glimpses) / sum(others)}
    values: dict[str, float | None] = {
        "error": 100 * float(np.mean([one.wrong.mean() for one in found])),
        "glimpses": float(np.mean(glimpses)),
        "other_error": 100 * float(np.mean([one.other.error.mean() for one in found])),
        "other_glimpses": float(np.mean(others)),
        "difference": mean,
        "low": low,
        "high": high,
        "half_of_students": half,
        **fewer,
    }
    return {
        "against": against,
        **{name: None if value is None else round(value, 4) for name, value in values.items()},
        "seeds": len(found),
        "of_each_seed": [round(float(one), 4) for one in each],
    }


# -- what is kept ---------------------------------------------------------------------------------

Kept = dict[str, dict[str, Evidence]]  # by run, and by what it is against


def save_evidence(path: Path, found: Kept, origins: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes what rows are made of, image by image, so that runs of elsewhere can join them.

    Args:
        path: of the safetensors file.
        found: by run.
        origins: of the runs: data, recipe (see `Protocol.recipe`), command and more.
    """
    tensors, about = {}, {}
    for run, each in found.items():
        for against, one in each.items():
            name = f"{run}: {against}"
            tensors[name] = np.packbits(np.stack([one.wrong, *one.other.wrong]), axis=1)
            said = {"origin": origins[run], "images": len(one.wrong), "share": one.other.share}
            said |= {"glimpses": one.glimpses, "other_glimpses": one.other.mean_glimpses}
            about[name] = said
    aside = path.with_name(path.name + ".tmp")
    # Under one name: the order of several is another each time.
    save_file(tensors, aside, {"about": json.dumps(about, sort_keys=True)})
    os.replace(aside, path)


def load_evidence(path: Path) -> tuple[Kept, dict[str, dict[str, Any]]]:
    """What `save_evidence` wrote of runs whose recipe is still the same, and their origins."""
    found: Kept = {}
    origins: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return found, origins
    with safe_open(path, "numpy") as file:
        said = (file.metadata() or {}).get("about")
        if said is None:
            raise ValueError(
                f"{path}: expected evidence as save_evidence writes it, found another format; "
                "restore the committed file, or delete it"
            )
        about = json.loads(said)
        for name in file.keys():  # noqa: SIM118, it is no mapping
            said, (run, against) = about[name], name.split(": ")
            protocol, system, _ = run.split("/")
            known = systems.PROTOCOLS.get(protocol)
            if known is None or system not in known.systems:
                continue
            if not rows.stands(run, said["origin"]["recipe"], known, system):
                continue
            bits = np.unpackbits(file.get_tensor(name), axis=1, count=said["images"]).astype(bool)
            other = Mixture(bits[1:], said["share"], said["other_glimpses"])
            one = Evidence(bits[0], other, said["glimpses"])
            found.setdefault(run, {})[against] = one
            origins[run] = said["origin"]
    return found, origins


# -- what is written ------------------------------------------------------------------------------

NOTE = (
    "The rule for the threshold with a budget of 4 was made after other rules' test errors had "
    "been seen (`docs/attempts.md`). "
    "95 % interval: 2,000 draws of images, the same for all seeds, and of seeds. With so few seeds "
    "it is too narrow where seeds differ more than images do; Student's interval over the seeds' "
    "differences says what seeds alone can tell (older rows lack it). At "
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
    for one in found:
        name = one.get("label", one["system"]) + (" ‡" if one.get("kept") else "")
        cells = [one["data"], name, f"{one['error']:.2f}", f"{one['glimpses']:.2f}"]
        cells += [one["against"], f"{one['other_error']:.2f}", f"{one['other_glimpses']:.2f}"]
        fewer, half = one.get("fewer_glimpses"), one.get("half_of_students")
        cells.append("" if fewer is None else f"{100 * fewer:.1f}")
        cells += [f"{one['difference']:+.2f}", f"{one['low']:+.2f} to {one['high']:+.2f}"]
        cells.append("" if half is None else f"{one['difference']:+.2f} ± {half:.2f}")
        lines.append("| " + " | ".join([*cells, str(one["seeds"])]) + " |")
    kept = [rows.KEPT, ""] if any(one.get("kept") for one in found) else []
    return "\n".join([*lines, "", NOTE, "", *kept, f"Made by `{command}`.", ""])

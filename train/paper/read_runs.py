"""Reads finished runs: their outcome on the test split, and the records that tables are made of."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.cost import mean_flops
from agents.loading import load_agent
from agents.stopping import ConfidenceStop, FixedStop
from agents.unroll import Scores, score
from train.common.files import read_json, read_tensors
from train.common.lock import in_turn
from train.common.records import origin, read_records, write_records
from train.common.statistics import Outcome, outcome
from train.common.training_task import TrainingTask, read_task
from train.paper import systems
from train.paper.tables import Line


class Reading(NamedTuple):
    """What a run did for a line of a table, on the test split."""

    outcome: Outcome
    flops: float  # mean floating-point operations of an image
    results: dict[str, Any]  # the run's results.json

    @property
    def error(self) -> float:
        """Test error in percent, rounded to 0.0001."""
        return round(100 * (1 - float(self.outcome.right.mean())), 4)

    @property
    def mean_glimpses(self) -> float:
        """Mean glimpses of a test image, rounded to 0.0001."""
        return round(float(self.outcome.glimpses.mean()), 4)


class Reader:
    """Reads finished runs; each network is scored on the test split once."""

    def __init__(self, device: torch.device, data_dir: Path | None = None) -> None:
        self._device = device
        self._places = {} if data_dir is None else {"data_dir": str(data_dir)}
        self._tasks: dict[str, TrainingTask] = {}
        self.scores = cache(self._score)
        """Scores of the network in one folder on a split, test if not named, of the run in
        another."""

    def read(self, line: Line, folder: Path) -> Reading:
        """Reads a line's run; ValueError if it is damaged or its trunk was trained again later."""
        results = read_json(folder / "results.json")
        check_trunk(line, folder)
        if "side" in results:  # a one-look network
            labels = self.task(folder).images("test").labels.cpu()
            prediction = read_tensors(folder / "test_images.safetensors")["prediction"]
            right = (prediction == labels).numpy()
            one = np.ones(len(right), dtype=np.int64)
            return Reading(Outcome(right, one), float(results["flops"]), results)
        steps, threshold = line.published.steps, line.published.threshold
        trained = network_of(folder, steps)
        agent = load_agent(trained, self._device)
        if steps is not None:
            agent.stopping = FixedStop(steps)
        elif threshold is not None:
            agent.stopping = ConfidenceStop(threshold)
        found = outcome(self.scores(trained, folder), agent.stopping)
        return Reading(found, mean_flops(agent, float(found.glimpses.mean())), results)

    def task(self, folder: Path) -> TrainingTask:
        """The task of a finished run."""
        results = read_json(folder / "results.json")
        env_id, options = read_task(results, folder / "results.json")
        key = f"{env_id} {sorted(options.items())}"
        if key not in self._tasks:
            self._tasks[key] = TrainingTask(env_id, self._device, **options, **self._places)
        return self._tasks[key]

    def _score(self, trained: Path, folder: Path, split: str = "test") -> Scores:
        task, agent = self.task(folder), load_agent(trained, self._device)
        images, batch = task.images(split), min(1000, task.eval_batch_size)
        return score(agent, task.sensor, images.store, images.labels, batch)


def network_of(folder: Path, steps: int | None) -> Path:
    """The run's network for a fixed number of glimpses: the curriculum stage's, if there is one."""
    stage = folder / "stages" / f"trunk-{steps}"
    return stage if stage.exists() else folder


def check_trunk(line: Line, folder: Path) -> None:
    """Raises ValueError if the trunk's run no longer has the weights that a run was trained on."""
    trunk = line.protocol.systems[line.system].trunk
    trunk_folder = folder.parent.parent / (trunk or "") / folder.name
    if trunk is None or not (trunk_folder / "model.json").exists():
        return
    then = (read_json(folder / "results.json").get("trunk") or {}).get("weights_sha256")
    now = read_json(trunk_folder / "model.json")["weights_sha256"]
    if then != now:
        raise ValueError(
            f"{folder}: trained on another trunk than {trunk_folder} has now; "
            "delete it to run it again"
        )


# -- records ---------------------------------------------------------------------------------------

Record = dict[str, Any]
KEY = ("protocol", "system", "steps", "confidence", "seed")
"""Names that identify a record: the run, and the fixed number of glimpses or the confidence
threshold at which it was stopped, if not by its own rule."""


def record_of(line: Line, seed: int, reading: Reading) -> Record:
    """The record of one run for a line: its key, figures and origin."""
    results = reading.results
    units = {}
    if "units" in results:  # residual units that a halting network took, and those that it has
        units["units"] = round(sum(results["units"]), 2)
        units["of_units"] = sum(results["units_of_each_block"])
    return {
        **_key_of_line(line),
        "seed": seed,
        "data": results["dataset"],
        "error": reading.error,
        "mean_glimpses": reading.mean_glimpses,
        "flops": round(reading.flops),
        **units,
        "train_seconds": results["train_seconds"],
        **origin(results),
    }


def update_file(path: Path, new: list[Record], key: tuple[str, ...] = KEY) -> list[Record]:
    """Adds records to a file, in place of those with the same key; returns all, ordered by key.

    Records of systems that are no longer in `systems.PROTOCOLS` are dropped.
    """
    known = {name: protocol.systems for name, protocol in systems.PROTOCOLS.items()}
    with in_turn(path.with_name(".lock")):
        found = {
            tuple(record[name] for name in key): record
            for record in [*read_records(path), *new]
            if record["system"] in known.get(record["protocol"], ())
        }
        order = sorted(found, key=lambda values: [(v is not None, v or 0) for v in values])
        records = [found[values] for values in order]
        if records:
            write_records(path, records)
    return records


def records_of(line: Line, records: list[Record]) -> list[Record]:
    """The records of a line, all seeds; only seed 0 of a line that stands beside another."""
    key = _key_of_line(line)
    if line.beside:
        key["seed"] = 0
    return [record for record in records if key.items() <= record.items()]


def _key_of_line(line: Line) -> Record:
    stop = {"steps": line.published.steps, "confidence": line.published.threshold}
    return {"protocol": line.protocol.name, "system": line.system, **stop}

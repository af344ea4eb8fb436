"""Reads what finished runs say of the test split."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.cost import mean_flops
from agents.loading import load_agent
from agents.stopping import ConfidenceStop, FixedStop
from agents.unroll import Scores, score
from train.common.run import read_json, read_tensors
from train.common.statistics import Answered, answers
from train.common.training_task import Task
from train.paper.tables import Line


class Reading(NamedTuple):
    """What a run says for a line, on the test split."""

    answered: Answered
    flops: float  # an image, on average
    folder: Path


class Reader:
    """Reads finished runs; a network is run over the test split once.

    Args:
        device: where.
        data_dir: where data lies, if not at its usual place.
    """

    def __init__(self, device: torch.device, data_dir: Path | None = None) -> None:
        self._device, self._data_dir = device, data_dir
        self._scores = cache(self._score)
        self._task = cache(self._make_task)

    def read(self, line: Line, folder: Path) -> Reading:
        """What a line's run says.

        Raises:
            ValueError: the run's files are damaged, or its trunk has been trained anew since.
        """
        results = read_json(folder / "results.json")
        check_trunk(line, folder)
        task = self.task(folder)
        if "side" in results:  # a one-look network's
            prediction = read_tensors(folder / "test_images.safetensors")["prediction"]
            right = (prediction == task.images("test").labels.cpu()).numpy()
            one = np.ones(len(right), dtype=np.int64)
            return Reading(Answered(right, one), float(results["flops"]), folder)
        steps, threshold = line.published.steps, line.published.threshold
        trained = network_of(folder, steps)
        agent = load_agent(trained, self._device)
        rule: Any = agent.stopping
        if steps is not None:
            rule = FixedStop(steps)
        elif threshold is not None:
            rule = ConfidenceStop(threshold)
        answered = answers(self.scores(trained, folder), rule)
        return Reading(answered, mean_flops(agent, float(answered.glimpses.mean())), folder)

    def scores(self, trained: Path, folder: Path) -> Scores:
        """A network's pass over the test split; `folder` is its run's."""
        return self._scores(trained, folder)

    def task(self, folder: Path) -> Task:
        """The task of a finished run."""
        results = read_json(folder / "results.json")
        options = tuple(sorted(results["env_options"].items()))
        return self._task(results["env_id"], options)

    def _make_task(self, env_id: str, options: tuple[tuple[str, Any], ...]) -> Task:
        places = {} if self._data_dir is None else {"data_dir": str(self._data_dir)}
        return Task(env_id, self._device, **dict(options), **places)

    def _score(self, trained: Path, folder: Path) -> Scores:
        task, agent = self.task(folder), load_agent(trained, self._device)
        test = task.images("test")
        size = min(1000, task.scored_at_once)
        return score(agent, task.sensor, test.store, test.labels, size)


def network_of(folder: Path, steps: int | None) -> Path:
    """The network of a run that is read with a fixed number of glimpses: that of the curriculum's
    stage of so many, if there is one."""
    stage = folder / "stages" / f"trunk-{steps}"
    return stage if steps is not None and stage.exists() else folder


def check_trunk(line: Line, folder: Path) -> None:
    """Raises ValueError if a run's trunk was another one than the trunk's run, if here, has now."""
    trunk = line.protocol.systems[line.system].trunk
    trunk_folder = folder.parent.parent / (trunk or "") / folder.name
    if trunk is None or not (trunk_folder / "model.json").exists():
        return
    then = (read_json(folder / "results.json").get("trunk") or {}).get("weights_sha256")
    now = read_json(trunk_folder / "model.json")["weights_sha256"]
    if then != now:
        raise ValueError(
            f"{folder}: its trunk was not what {trunk_folder} has now; delete it to run anew"
        )

"""The talk's figures 7 and 8, drawn from a finished run."""

from pathlib import Path

import matplotlib
import numpy as np

from agents.loading import load_agent
from train.common.files import read_json, save_figure
from train.common.provenance import provenance
from train.common.records import RESULTS, check_origin, origin, write_result
from train.dtram.report import glimpse_figure, histogram, set_title
from train.paper.read_runs import Reader

matplotlib.use("Agg")


def histogram_figure(reader: Reader, folder: Path, stem: Path) -> list[Path]:
    """Test images by number of glimpses with boxes in visiting order, and how many took each.

    Reads the run of a DT-RAM in `folder`. Writes ``STEM.png``, ``STEM-histogram.png`` and
    ``STEM.json``, with the origin of the run; returns the pictures.
    """
    task, agent, scores = reader.task(folder), load_agent(folder), reader.scores(folder, folder)
    taken, prediction = scores.apply(agent.stopping)
    counts = np.bincount(taken.cpu().numpy(), minlength=task.max_glimpses + 1)[1:]
    name, of_run = "/".join(folder.parts[-3:]), origin(read_json(folder / "results.json"))
    path = stem.with_name(f"{stem.name}.json")
    if RESULTS in path.resolve().parents:
        check_origin(of_run, name)
    content = {"data": task.dataset, "histogram": counts.tolist(), "runs": {name: of_run}}
    write_result(path, {**content, **provenance(task.device)})
    pictures = [stem.with_name(stem.name + ending) for ending in (".png", "-histogram.png")]
    figure = glimpse_figure(task, task.images("test"), scores, taken, prediction)
    save_figure(figure, pictures[0])
    figure = histogram(counts.tolist())
    set_title(figure.axes[0], task.dataset)
    save_figure(figure, pictures[1])
    return pictures

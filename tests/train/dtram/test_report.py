"""The pictures and the table of a report: names of the user's own data are shown as they are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dtram_env.rendering import readable
from train.dtram.report import error_plot, glimpse_figure, table

NAMES = ("$x_{", "$y^{")  # together a formula, which has no end
ROW = {"mean_glimpses": 2.0, "test_error": 10.0}


@pytest.mark.parametrize("names", [NAMES, ("ñ", "鳥"), (r"a\b", "a\nb")])
def test_titles_show_class_names_as_they_are(tmp_path: Path, names: tuple[str, str]) -> None:
    """Characters that no font has become escapes, as in captions; a box would be a warning."""
    sensor = SimpleNamespace(first_glimpse="center", glimpse_size=4)
    task: Any = SimpleNamespace(sensor=sensor, max_glimpses=1, class_names=names)
    data = SimpleNamespace(image=lambda n: np.zeros((8, 8, 1), np.uint8))
    images: Any = SimpleNamespace(data=data, labels=torch.tensor([0, 1]))
    scores: Any = SimpleNamespace(locations=torch.zeros(1, 2, 2))
    figure = glimpse_figure(task, images, scores, torch.tensor([1, 1]), torch.tensor([0, 0]), 2)
    right, wrong = names[0], f"{names[0]} (is {names[1]})"
    assert [axes.get_title() for axes in figure.axes] == [readable(s)[0] for s in (right, wrong)]
    figure.savefig(tmp_path / "glimpses.png")


def test_a_plot_and_the_table_show_the_datasets_name_as_it_is(tmp_path: Path) -> None:
    curves = {family: {1: ROW} for family in ("fixed", "confidence", "learned")}
    results: dict[str, Any] = {**curves, **ROW, "images": 10, "env_id": "ID", "split": "test"}
    results |= {"stop_threshold": 0.5, "bound_kept": {}, "collapsed": [], "parameters": 7}
    results |= dict.fromkeys(("flops_per_glimpse", "images_per_second", "train_seconds"), 1)
    results["hardware"] = {"device": "cpu", "processor": "P", "cpu_threads": 1}
    results["options"] = {"stop": {"name": "after"}}
    for name in ("".join(NAMES), "photos [/b] :cat:"):
        results["dataset"] = name
        error_plot(results, tmp_path / "plot.png")
        assert f"ID: {name}, test split, 10 images" in table(results)

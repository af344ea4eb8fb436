"""Where an agent looked: maps and images."""

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.unroll import GlimpseSensor, Scores
from train.dtram.looks import BINS, SHOWN, episode, episode_groups, location_map, location_maps


def brightness(element: str) -> np.ndarray:
    """Pixels of a map, summed over the colours."""
    data = base64.b64decode(element.partition("base64,")[2].partition('"')[0])
    with Image.open(io.BytesIO(data)) as shown:
        return np.asarray(shown.convert("RGB")).sum(axis=-1)


def test_a_map_is_bright_where_the_agent_looked() -> None:
    """Left top, and right bottom thrice; the first coordinate is x."""
    at = np.array([[-1.0, -1.0], [1.0, 0.99], [1.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    shown = brightness(location_map(at, "a map"))
    assert shown.shape == (BINS, BINS)
    places = {(0, 0), (BINS - 1, BINS - 1), (BINS // 2, 0)}
    assert {(int(y), int(x)) for y, x in np.argwhere(shown > shown[0, 1])} == places
    assert shown[-1, -1] == shown.max() > shown[0, 0] == shown[BINS // 2, 0]


@pytest.mark.parametrize(("first", "steps"), [("center", [1, 2, 3]), ("thumbnail", [2, 3])])
def test_maps_are_of_the_images_that_took_a_glimpse(first: str, steps: list[int]) -> None:
    locations = torch.zeros(4, 5, 2)
    taken = torch.tensor([1, 1, 1, 3, 3])
    found = location_maps(GlimpseSensor(4, first_glimpse=first), locations, taken)
    assert list(found["steps"]) == steps and not found["left_out"]
    names, maps = zip(*found["rows"], strict=True)
    assert names == ("all images", "1 glimpse, 60.0 %", "3 glimpses, 40.0 %")
    shown = [[step for step, one in zip(steps, row, strict=True) if one] for row in maps]
    assert shown == [steps, [t for t in steps if t == 1], steps]


def test_long_budgets_have_the_maps_of_some() -> None:
    taken = torch.arange(1, 101)
    found = location_maps(GlimpseSensor(4), torch.zeros(100, 100, 2), taken)
    assert len(found["rows"]) == 13 and len(found["steps"]) == 12 and found["left_out"]


def test_after_one_look_at_the_whole_image_there_is_no_map() -> None:
    sensor = GlimpseSensor(4, first_glimpse="thumbnail")
    assert location_maps(sensor, torch.zeros(1, 3, 2), torch.ones(3, dtype=torch.int64)) == {}


def a_pass(logits: torch.Tensor, labels: list[int]) -> tuple[Any, Any, Scores]:
    """Task, images and scores of logits ``(T, N, K)``."""
    steps, count, classes = logits.shape
    names = tuple(f"class {k}" for k in range(classes))
    task = SimpleNamespace(sensor=GlimpseSensor(4), class_names=names)
    data = SimpleNamespace(image=lambda n: np.zeros((8, 8, 1), np.uint8))
    images = SimpleNamespace(data=data, labels=torch.tensor(labels))
    stop_logit = torch.zeros(steps, count)
    return task, images, Scores(images.labels, logits, stop_logit, torch.zeros(steps, count, 2))


def test_groups_are_ordered() -> None:
    """Images 0 ... 4 are right and 5 is wrong, by their glimpses and probabilities."""
    sure = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 4.0])
    taken = torch.tensor([1, 2, 1, 3, 3, 3])
    answer = torch.stack([sure, torch.zeros(6)], dim=1)
    given = a_pass(answer.expand(3, 6, 2), [0, 0, 0, 0, 0, 1])
    found = episode_groups(*given, taken, answer, True)
    order = {group["title"]: [one["index"] for one in group["episodes"]] for group in found}
    assert order == {"Easiest": [2, 0, 1, 4, 3], "Hardest": [3, 4, 1, 0, 2], "Wrong": [5]}
    (wrong,) = found[2]["episodes"]
    assert (wrong["label"], wrong["answer"], wrong["taken"]) == ("class 1", "class 0", 3)
    assert [(name, kind) for name, kind, _ in wrong["bars"]] == [
        ("class 0", "wrong"),
        ("class 1", "right"),
        ("p(stop)", ""),
    ]
    assert wrong["bars"][2][2] == [0.5] * 3 and 'alt="image 5, class 1,' in wrong["picture"]


def test_groups_have_some_images_at_most_or_none() -> None:
    logits = torch.zeros(1, 40, 2)
    given = a_pass(logits, [0] * 40)
    found = episode_groups(*given, torch.ones(40, dtype=torch.int64), logits[0], False)
    assert [len(group["episodes"]) for group in found] == [SHOWN, SHOWN, 0]


def test_long_episodes_show_their_beginning_and_end() -> None:
    logits = torch.arange(100.0)[:, None, None] * torch.tensor([0.0, 1.0])
    one = episode(*a_pass(logits, [1]), 0, 100, False)
    assert one["steps"] == [1, 2, 3, 4, 5, 6, 95, 96, 97, 98, 99, 100] and one["more"] == 88
    (name, kind, shares), _ = one["bars"]
    assert (name, kind) == ("class 1", "right") and shares[0] == 0.5 and shares[-1] > 0.99

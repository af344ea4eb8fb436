"""Where an agent looked: maps and images."""

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from train.common.film import Episode, Look
from train.common.looks import BINS, SHOWN, episode_groups, location_map, location_maps, shown


def brightness(element: str) -> np.ndarray:
    """Pixels of a map, summed over the colours."""
    data = base64.b64decode(element.partition("base64,")[2].partition('"')[0])
    with Image.open(io.BytesIO(data)) as shown:
        return np.asarray(shown.convert("RGB")).sum(axis=-1)


def test_a_map_is_bright_where_the_agent_looked() -> None:
    """Left top, and right bottom thrice; the first coordinate is x."""
    at = np.array([[-1.0, -1.0], [1.0, 0.99], [1.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    light = brightness(location_map(at, "a map"))
    assert light.shape == (BINS, BINS)
    places = {(0, 0), (BINS - 1, BINS - 1), (BINS // 2, 0)}
    assert {(int(y), int(x)) for y, x in np.argwhere(light > light[0, 1])} == places
    assert light[-1, -1] == light.max() > light[0, 0] == light[BINS // 2, 0]


@pytest.mark.parametrize(("whole_first", "steps"), [(False, [1, 2, 3]), (True, [2, 3])])
def test_maps_are_of_the_images_that_took_a_glimpse(whole_first: bool, steps: list[int]) -> None:
    """Locations of glimpses that were not taken are NaN."""
    taken = np.array([1, 1, 1, 3, 3])
    locations = np.where(np.arange(4) < taken[:, None], 0.0, np.nan)[..., None].repeat(2, axis=-1)
    found = location_maps(locations, taken, whole_first)
    assert list(found["steps"]) == steps and not found["left_out"]
    names, maps = zip(*found["rows"], strict=True)
    assert names == ("all images", "1 glimpse, 60.0 %", "3 glimpses, 40.0 %")
    seen = [[step for step, one in zip(steps, row, strict=True) if one] for row in maps]
    assert seen == [steps, [t for t in steps if t == 1], steps]


def test_one_number_of_glimpses_has_one_row() -> None:
    found = location_maps(np.zeros((4, 2, 2)), np.full(4, 2), False)
    assert [name for name, _ in found["rows"]] == ["all images"]


def test_long_budgets_have_the_maps_of_some() -> None:
    found = location_maps(np.zeros((100, 100, 2)), np.arange(1, 101), False)
    assert len(found["rows"]) == 13 and len(found["steps"]) == 12 and found["left_out"]


def test_after_one_look_at_the_whole_image_there_is_no_map() -> None:
    assert location_maps(np.zeros((3, 1, 2)), np.ones(3, dtype=np.int64), True) == {}


def episodes(taken: list[int], right: list[bool]) -> Callable[[int], Episode]:
    """Gives episodes of black images of class "a", with these numbers of glimpses."""

    def episode(n: int) -> Episode:
        look = Look([], np.zeros(2), np.array([0.75, 0.25]), 0.5)
        about = f"image {n}", np.zeros((8, 8, 1), np.uint8), ("a", "b"), 4, False, 0
        return Episode(*about, [look] * taken[n], 0 if right[n] else 1)

    return episode


def titles(groups: list[dict]) -> list[list[int]]:
    return [[int(one["title"].split()[1]) for one in group["episodes"]] for group in groups]


def test_groups_are_ordered() -> None:
    """Images 0 ... 4 are right and 5 is wrong, by their glimpses, then by their probabilities."""
    taken, right = [1, 2, 1, 3, 3, 3], [True] * 5 + [False]
    sure = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.4])
    given = episodes(taken, right), np.array(right), np.array(taken)
    found = episode_groups(*given, sure)
    assert titles(found) == [[2, 0, 1, 4, 3], [3, 4, 1, 0, 2], [5]]
    assert titles(episode_groups(*given)) == [[0, 2, 1, 3, 4], [3, 4, 1, 0, 2], [5]]
    assert [group["order"] for group in found] == [
        "Right after the fewest glimpses. The surest first.",
        "Right after the most glimpses. The least sure first.",
        "The surest first.",
    ]
    (wrong,) = found[2]["episodes"]
    assert (wrong["label"], wrong["answer"], wrong["taken"]) == ("a", "b", 3)
    assert wrong["bars"] == [
        ("a", "right", [0.75] * 3),
        ("b", "wrong", [0.25] * 3),
        ("p(stop)", "stop", [0.5] * 3),
    ]
    assert 'alt="image 5, a, with its 3 glimpses"' in wrong["picture"]


def test_groups_have_some_images_at_most_or_none() -> None:
    right, taken = [True] * 40, [1] * 40
    given = episodes(taken, right), np.array(right), np.array(taken)
    found = episode_groups(*given)
    assert [(group["title"], len(group["episodes"])) for group in found] == [
        ("Right", SHOWN),
        ("Wrong", 0),
    ]
    (easiest, hardest, wrong) = episode_groups(*given, np.linspace(0, 1, 40))
    assert [len(group["episodes"]) for group in (easiest, hardest, wrong)] == [SHOWN, SHOWN, 0]
    assert (easiest["order"], hardest["order"]) == (
        "Right. The surest first.",
        "Right. The least sure first.",
    )


def test_long_episodes_show_their_beginning_and_end() -> None:
    one = shown(episodes([100], [True])(0))
    assert one["steps"] == [1, 2, 3, 4, 5, 6, 95, 96, 97, 98, 99, 100] and one["more"] == 88
    assert [len(shares) for _, _, shares in one["bars"]] == [12] * 3


def test_after_one_look_at_the_whole_image_there_are_no_boxes_and_no_bars() -> None:
    one = shown(episodes([0], [False])(0))
    assert (one["taken"], one["steps"], one["bars"]) == (0, [], [])
    assert 'alt="image 0, a"' in one["picture"]

"""CUB and Cars without their data: drawn images, labelled as drawn everywhere."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.datasets import BuiltinDataWarning
from dtram_env.rendering import crop_boxes, draw_episode

from .conftest import assert_same

FEW: dict[str, Any] = {"image_size": 96, "num_classes": 10, "num_test": 12, "glimpse_size": 24}
PAIRS = [
    ("DTRAM-CUB-v0", "CUB-200-2011", "DTRAM-Birds-v0", "Birds (drawn)"),
    ("DTRAM-Cars-v0", "Stanford Cars", "DTRAM-Autos-v0", "Autos (drawn)"),
]


@pytest.fixture(params=PAIRS, ids=lambda pair: pair[0])
def pair(request: pytest.FixtureRequest) -> tuple[str, str, str, str]:
    """The id, its data's title, the drawn data's id and title."""
    return request.param


def test_a_stand_in_warns(pair: tuple[str, ...], tmp_path: Path) -> None:
    env_id, title, drawn_id, drawn = pair
    makers: list[Callable[[], Any]] = [
        lambda: gym.make(env_id, data_dir=str(tmp_path), split="test"),
        lambda: gym.make_vec(env_id, num_envs=2, data_dir=str(tmp_path), split="test"),
        lambda: gym.make_vec(
            env_id, num_envs=2, data_dir=str(tmp_path), split="test", backend="torch"
        ),
    ]
    for make in makers:
        with pytest.warns(
            BuiltinDataWarning, match=f"these are drawn images, not {title}: "
        ) as said:
            env = make()
        assert len(said) == 1 and drawn_id in str(said[0].message)
        assert env.unwrapped.dataset == drawn
        assert env.reset(seed=0)[1].get("dataset", drawn) == drawn  # only of one environment
        assert env.unwrapped.data.stands_in_for == title
    assert list(tmp_path.iterdir()) == []


def test_no_warning_where_it_was_asked_for(pair: tuple[str, ...], tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"data_dir": str(tmp_path), "split": "test"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = gym.make(pair[0], data="builtin", **keywords)
        itself = gym.make(pair[2], **keywords)
    assert asked.observation_space == itself.observation_space
    assert asked.action_space == itself.action_space
    action = {"location": [0.3, -0.5], "stop": 0, "prediction": 1}
    for one, other in (
        (asked.reset(options={"image_index": 7}), itself.reset(options={"image_index": 7})),
        (asked.step(action), itself.step(action)),
    ):
        assert_same(one, other)


def test_captions_say_that_images_are_drawn(pair: tuple[str, ...], tmp_path: Path) -> None:
    env_id, title, _, _ = pair
    common: dict[str, Any] = {
        "data": "builtin",
        "data_dir": str(tmp_path),
        "render_mode": "rgb_array",
        "split": "test",
        **FEW,
    }
    single = gym.make(env_id, **common).unwrapped
    vector = gym.make_vec(env_id, num_envs=2, autoreset_mode="Disabled", **common).unwrapped
    assert isinstance(single, GlimpseEnv) and isinstance(vector, GlimpseVectorEnv)
    label = single.reset(options={"image_index": 3})[1]["label"]
    vector.reset(options={"image_index": 3})
    single.step({"location": [0.5, -0.5], "stop": 0, "prediction": label})
    batch = np.array([[0.5, -0.5]] * 2), np.zeros(2, np.int64), np.full(2, label)
    vector.step(dict(zip(("location", "stop", "prediction"), batch, strict=True)))
    names = single.class_names
    boxes = crop_boxes(np.array([[0.5, -0.5]]), (96, 96, 3), 24, whole_first=True)
    caption = f"drawn, not {title}! 2: says {names[label]}, is {names[label]}"
    expected = draw_episode(single.data.image(3), boxes, caption)
    np.testing.assert_array_equal(single.render(), expected)
    frames = vector.render()
    assert frames is not None
    for frame in frames:
        np.testing.assert_array_equal(frame, expected)


def test_the_drawn_id_itself_stands_in_for_nothing(tmp_path: Path) -> None:
    env = gym.make("DTRAM-Birds-v0", data_dir=str(tmp_path), render_mode="rgb_array", **FEW)
    single: Any = env.unwrapped
    label = single.reset(options={"image_index": 0})[1]["label"]
    boxes = crop_boxes(np.zeros((0, 2)), (96, 96, 3), 24, whole_first=True)
    caption = f"1: says ?, is {single.class_names[label]}"
    expected = draw_episode(single.data.image(0), boxes, caption)
    np.testing.assert_array_equal(single.render(), expected)


def test_it_works_in_under_a_second(run_python: Callable[..., str], tmp_path: Path) -> None:
    program = f"""
import time, warnings
import gymnasium as gym, dtram_env
warnings.simplefilter("ignore")
start = time.process_time()
env = gym.make("DTRAM-CUB-v0", data_dir={str(tmp_path)!r})
env.reset(seed=0)
print(time.process_time() - start)
"""
    assert float(run_python("-c", program)) < 1

"""Gymnasium's wrappers of whole observations, pictures and episodes, on every view."""

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import vector
from PIL import Image
from stable_baselines3.common.vec_env import VecVideoRecorder

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.datasets import Dataset
from dtram_env.sb3 import Sb3VecEnv

from .conftest import TOY, VIEWS, actions_of, task_id

Wrap = Callable[[Any], Any]
# A film of the first 6 frames, over several episodes; collecting garbage takes most of the time.
FILM: dict[str, Any] = {
    "video_folder": "films",
    "video_length": 5,
    "episode_trigger": lambda episode: episode == 0,
    "gc_trigger": None,
}
FILMS: list[list[np.ndarray]] = []  # the frames of the films that wrappers have made


class Film:
    """In place of moviepy's `ImageSequenceClip`, which refuses frames of several sizes too."""

    def __init__(self, frames: list[np.ndarray], fps: int) -> None:
        assert len({frame.shape for frame in frames}) == 1, "frames of several sizes"
        self.frames, self.fps = frames, fps

    def write_videofile(self, path: str, logger: Any = None) -> None:
        Path(path).write_text("film", encoding="utf-8")
        FILMS.append(self.frames)


def resize(picture: np.ndarray, size: tuple[int, int], **_: Any) -> np.ndarray:
    """In place of OpenCV's; `size` is width, height."""
    return np.array(Image.fromarray(picture).resize(size))


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What wrappers import and this project does not need."""
    names = ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip")
    for name in ("cv2", *names):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].ImageSequenceClip = Film  # type: ignore[attr-defined]
    sys.modules["cv2"].resize = resize  # type: ignore[attr-defined]
    sys.modules["cv2"].INTER_AREA = 3  # type: ignore[attr-defined]
    if find_spec("array_api_compat") is None:
        copy = importlib.import_module("scipy._lib.array_api_compat")
        monkeypatch.setitem(sys.modules, "array_api_compat", copy)
    monkeypatch.setitem(GlimpseEnv.metadata, "render_fps", 10_000)
    monkeypatch.setitem(GlimpseVectorEnv.metadata, "render_fps", 10_000)
    FILMS.clear()
    yield


# --- Scalar wrappers


SCALAR: dict[str, Wrap] = {
    "AddRenderObservation": gym.wrappers.AddRenderObservation,
    "ArrayConversion": lambda env: gym.wrappers.ArrayConversion(env, np, torch),
    "Autoreset": lambda env: gym.wrappers.Autoreset(env),
    "FilterObservation": lambda env: gym.wrappers.FilterObservation(env, ["time"]),
    "FlattenObservation": lambda env: gym.wrappers.FlattenObservation(env),
    "FrameStackObservation": lambda env: gym.wrappers.FrameStackObservation(env, 2),
    "HumanRendering": lambda env: gym.wrappers.HumanRendering(env),
    "NumpyToTorch": lambda env: gym.wrappers.NumpyToTorch(env),
    "PassiveEnvChecker": lambda env: gym.wrappers.PassiveEnvChecker(env),
    "RecordEpisodeStatistics": lambda env: gym.wrappers.RecordEpisodeStatistics(env),
    "RecordVideo": lambda env: gym.wrappers.RecordVideo(env, **FILM),
    "RenderCollection": lambda env: gym.wrappers.RenderCollection(env),
    "TimeAwareObservation": lambda env: gym.wrappers.TimeAwareObservation(
        gym.wrappers.TimeLimit(env, 99), flatten=False, dict_time_key="step"
    ),
    "TimeLimit": lambda env: gym.wrappers.TimeLimit(env, 99),
}
TENSORS = {"ArrayConversion", "NumpyToTorch"}
SMALL: dict[str, Any] = {"glimpse_size": 4, "max_glimpses": 3, "render_mode": "rgb_array"}


def as_given(name: str, action: Any) -> Any:
    """An action as a wrapper takes it."""
    if name not in TENSORS:
        return action
    if isinstance(action, dict):
        return {key: torch.as_tensor(value) for key, value in action.items()}
    return torch.as_tensor(action)


@pytest.mark.parametrize("name", sorted(SCALAR))
def test_scalar_wrappers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for task in VIEWS:
        monkeypatch.setitem(FILM, "video_folder", task_id(task))
        plain, wrapped = (
            GlimpseEnv(TOY, **SMALL, **task),
            SCALAR[name](GlimpseEnv(TOY, **SMALL, **task)),
        )
        ended, over = 0, True
        for space in (plain.action_space, wrapped.action_space):
            space.seed(1)
        for step in range(8):
            if over:
                seen, info = wrapped.reset(seed=step)
                assert info["image_index"] == plain.reset(seed=step)[1]["image_index"]
            assert name in TENSORS or seen in wrapped.observation_space
            action = plain.action_space.sample()
            seen, reward, over, cut, info = wrapped.step(as_given(name, action))
            _, paid, expected, _, found = plain.step(action)
            assert (over, cut) == (expected, False)
            assert reward == paid
            assert all(info[key] == found[key] for key in found), name
            ended += over
        assert ended >= 2
        wrapped.close()
    if name == "RecordVideo":
        assert [len(frames) for frames in FILMS] == [6] * len(VIEWS)  # over several episodes


# --- Vector wrappers


VECTOR: dict[str, Wrap] = {
    "ArrayConversion": lambda env: vector.ArrayConversion(env, np, torch),
    "DictInfoToList": lambda env: vector.DictInfoToList(env),
    "FilterObservation": lambda env: vector.FilterObservation(env, ["time"]),
    "FlattenObservation": lambda env: vector.FlattenObservation(env),
    "HumanRendering": lambda env: vector.HumanRendering(env),
    "NumpyToTorch": lambda env: vector.NumpyToTorch(env),
    "RecordEpisodeStatistics": lambda env: vector.RecordEpisodeStatistics(env),
    "RecordVideo": lambda env: vector.RecordVideo(env, **FILM),
    "VectorizeTransformObservation": lambda env: vector.VectorizeTransformObservation(
        env, gym.wrappers.FlattenObservation
    ),
}


@pytest.mark.parametrize("name", sorted(VECTOR))
def test_vector_wrappers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for task in VIEWS:
        monkeypatch.setitem(FILM, "video_folder", task_id(task))
        plain = GlimpseVectorEnv(TOY, num_envs=3, **SMALL, **task)
        wrapped = VECTOR[name](GlimpseVectorEnv(TOY, num_envs=3, **SMALL, **task))
        seen, infos = wrapped.reset(seed=2)
        compare_infos(infos, plain.reset(seed=2)[1])
        ended = 0
        for action in actions_of(plain, 8):
            assert name in TENSORS or seen in wrapped.observation_space
            _, paid, expected, _, found = plain.step(action)
            seen, reward, over, cut, infos = wrapped.step(as_given(name, action))
            assert np.asarray(reward).tolist() == paid.tolist()
            assert np.asarray(over).tolist() == expected.tolist() and not np.asarray(cut).any()
            compare_infos(infos, found)
            ended += int(expected.sum())
            if name == "RecordEpisodeStatistics" and expected.any():
                lengths = infos["episode"]["l"] - (task.get("first_glimpse") == "choose")
                assert lengths[expected].tolist() == infos["num_glimpses"][expected].tolist()
        assert ended >= 3
        wrapped.close()
    if name == "RecordVideo":
        assert [len(frames) for frames in FILMS] == [6] * len(VIEWS)


def compare_infos(infos: Any, expected: dict[str, Any]) -> None:
    """The wrapper's infos have all of the environment's; a list of dicts has those of masks."""
    for key, values in expected.items():
        if not isinstance(infos, list):
            assert np.asarray(infos[key]).tolist() == values.tolist(), key
        elif not key.startswith("_"):
            mask = expected[f"_{key}"]
            assert [key in info for info in infos] == mask.tolist()
            assert [info[key] for info in infos if key in info] == values[mask].tolist()


def test_statistics_on_tensors() -> None:
    """They need arrays; the returns are the rewards at the end."""
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, max_glimpses=2, backend="torch")
    counted = vector.RecordEpisodeStatistics(vector.ArrayConversion(env, torch, np))
    counted.reset(seed=0)
    counted.step(actions_of(env, 1)[0] | {"stop": np.array([0, 0, 1])})
    _, rewards, over, _, infos = counted.step(actions_of(env, 1)[0])
    assert over.tolist() == [True, True, False]
    assert infos["episode"]["r"].tolist() == rewards.tolist()
    assert infos["episode"]["l"].tolist() == [2, 2, 0]


# --- Pictures of images of several sizes have one size


@pytest.mark.parametrize("view", ["native", "discrete"])
def test_films_of_images_of_several_sizes(
    ragged: Dataset, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task: dict[str, Any] = {**SMALL, "order": "sequential", "view": view}
    for made in (
        gym.wrappers.RecordVideo(GlimpseEnv(ragged, **task), **FILM),
        gym.wrappers.HumanRendering(GlimpseEnv(ragged, **task)),
    ):
        for step in range(8):
            made.reset(seed=None if step else 0)
            made.step(
                {"location": [0, 0], "stop": 1, "prediction": 0} if view == "native" else [0, 1, 0]
            )
        made.close()
    for make in (
        lambda env: vector.RecordVideo(env, **{**FILM, "video_folder": "many"}),
        lambda env: vector.HumanRendering(env),
    ):
        env = make(GlimpseVectorEnv(ragged, num_envs=4, **task))
        env.reset(seed=0)
        for action in actions_of(env, 8):
            env.step(action)
        env.close()
    one, many = FILMS
    assert {frame.shape for frame in one} == {(298, 280, 3)} and len(one) == 6
    assert {frame.shape for frame in many} == {(2 * 298, 2 * 280, 3)} and len(many) == 6
    assert len({frame.tobytes() for frame in one}) > 4  # it shows other images


def test_films_by_stable_baselines(ragged: Dataset, tmp_path: Path) -> None:
    task = {"dataset": ragged, "view": "discrete", "glimpse_size": 4, "render_mode": "rgb_array"}
    env = VecVideoRecorder(
        Sb3VecEnv("DTRAM-Signpost-v0", 4, max_glimpses=2, **task),
        str(tmp_path),
        record_video_trigger=lambda step: step == 0,
        video_length=6,
    )
    env.reset()
    for _ in range(8):
        env.step(np.array([env.action_space.sample() for _ in range(4)]))
    env.close()
    (frames,) = FILMS
    assert {frame.shape for frame in frames} == {(2 * 298, 2 * 280, 3)}

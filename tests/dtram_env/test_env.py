"""The scalar environment: episodes by hand, the checkers of Gymnasium and SB3, bad input."""

import copy
import pickle
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode

import dtram_env
from dtram_env import GlimpseEnv
from dtram_env.datasets.storage.thumbnails import box_resize

from .conftest import TOY, actions_of, assert_same, check_env
from .datasets.trees import make_folder

IDS = dtram_env.ENV_IDS
VIEWS = ("native", "continuous", "discrete")
# Every view and format of one id. Of the others the native view, and canvases of two more sizes;
# their other views, which change actions only, are slow.
FORMATS: list[Any] = [
    *product(["DTRAM-Signpost-v0"], VIEWS, ("glimpse", "canvas"), (None, "image", "flat")),
    *((env_id, "native", "glimpse", None) for env_id in IDS if env_id != "DTRAM-Signpost-v0"),
    ("DTRAM-TranslatedMNIST-v0", "native", "canvas", None),
    ("DTRAM-Birds-v0", "discrete", "canvas", "image"),
    *(
        pytest.param(env_id, view, "glimpse", None, marks=pytest.mark.slow)
        for env_id in IDS
        for view in ("continuous", "discrete")
        if env_id != "DTRAM-Signpost-v0"
    ),
]


def act(
    x: float = 0.0, y: float = 0.0, stop: int = 0, prediction: int = 0, **change: Any
) -> dict[str, Any]:
    location = np.array([x, y], np.float32)
    return {"location": location, "stop": stop, "prediction": prediction, **change}


@pytest.fixture(autouse=True)
def fast_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GlimpseEnv.metadata, "render_fps", 10_000)


# --- Closed-form episodes


def test_an_episode_by_hand() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, max_glimpses=3, discount=0.5)
    observation, info = env.reset(options={"image_index": 6})
    label = int(TOY.labels[6])
    assert info == {"label": label, "image_index": 6, "num_glimpses": 1, "dataset": "Toy"}
    # 14x10 image, crop of 4 about (5, 7): rows 5-8, columns 3-6.
    np.testing.assert_array_equal(observation["glimpse"], TOY.images[6, 5:9, 3:7])
    np.testing.assert_array_equal(observation["location"], [0, 0])
    np.testing.assert_array_equal(observation["time"], np.float32([1 / 3]))

    observation, reward, terminated, truncated, info = env.step(act(0.4, -0.5, 0, label))
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"label": label, "image_index": 6, "num_glimpses": 2}
    # Centre at x = 1.4 * 5 = 7, y = 0.5 * 7 = 3.5: left 5, top floor(3.5 - 2 + 0.5) = 2.
    np.testing.assert_array_equal(observation["glimpse"], TOY.images[6, 2:6, 5:9])
    np.testing.assert_array_equal(observation["location"], np.float32([0.4, -0.5]))

    last, reward, terminated, truncated, info = env.step(act(-1, -1, 1, label))
    assert (reward, terminated, truncated) == (0.25, True, False)
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]
    assert info == {
        "label": label,
        "image_index": 6,
        "num_glimpses": 2,
        "prediction": label,
        "is_success": True,
    }
    for key, value in last.items():  # no glimpse is taken after the end
        np.testing.assert_array_equal(value, observation[key])


def test_the_budget_ends_an_episode_and_a_wrong_answer_pays_nothing() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, max_glimpses=2, discount=0.5)
    _, info = env.reset(seed=0)
    env.step(act(prediction=info["label"]))
    _, reward, terminated, _, last = env.step(act(prediction=(info["label"] + 1) % 5))
    assert (reward, terminated, last["is_success"], last["num_glimpses"]) == (0.0, True, False, 2)
    env.reset(options={"image_index": 0})
    env.step(act())
    assert env.step(act(prediction=int(TOY.labels[0])))[1:3] == (0.25, True)


def test_first_glimpse_choose() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, max_glimpses=1, discount=0.5, first_glimpse="choose")
    observation, info = env.reset(options={"image_index": 1})
    assert not observation["glimpse"].any() and not observation["location"].any()
    assert observation["time"].tolist() == [0.0] and info["num_glimpses"] == 0
    label = int(TOY.labels[1])
    # Stop and prediction are ignored; one glimpse is the whole budget.
    observation, reward, terminated, _, info = env.step(act(0.4, -0.5, 1, label))
    assert (reward, terminated, info["num_glimpses"]) == (0.0, False, 1)
    np.testing.assert_array_equal(observation["glimpse"], TOY.images[1, 2:6, 5:9])
    assert env.step(act(prediction=label))[1:3] == (0.5, True)


def test_first_glimpse_thumbnail_of_the_glimpse_size() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, num_scales=2, first_glimpse="thumbnail")
    observation, _ = env.reset(options={"image_index": 2})
    small = box_resize(TOY.images[2:3], 4)[0]
    np.testing.assert_array_equal(observation["glimpse"], np.concatenate([small, small], -1))
    assert "thumbnail" not in observation and observation["time"][0] == np.float32(1 / 7)
    observation = env.step(act(0.4, -0.5))[0]
    np.testing.assert_array_equal(observation["glimpse"][..., :1], TOY.images[2, 2:6, 5:9])


def test_first_glimpse_thumbnail_of_another_size_has_its_own_key() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, thumbnail_size=6, first_glimpse="thumbnail")
    assert env.observation_space["thumbnail"].shape == (6, 6, 1)  # type: ignore[index]
    observation, _ = env.reset(options={"image_index": 2})
    np.testing.assert_array_equal(observation["thumbnail"], box_resize(TOY.images[2:3], 6)[0])
    assert not observation["glimpse"].any()
    observation = env.step(act(0.4, -0.5))[0]
    np.testing.assert_array_equal(observation["glimpse"], TOY.images[2, 2:6, 5:9])
    assert not observation["thumbnail"].any()


def test_first_glimpse_random_covers_the_square() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, first_glimpse="random")
    env.reset(seed=0)
    drawn = np.array([env.reset()[0]["location"] for _ in range(400)])
    assert (np.abs(drawn) <= 1).all()
    # 400 uniform draws: mean 0 with standard error 0.029, variance 1/3.
    assert np.abs(drawn.mean(axis=0)).max() < 5 * 0.029
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 3, atol=0.1)


def test_canvas_shows_what_was_seen_and_nothing_else() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, observe="canvas", num_scales=2)
    observation, _ = env.reset(options={"image_index": 3})
    assert set(observation) == {"canvas", "location", "time"}
    expected = np.zeros((14, 10, 2), np.uint8)
    expected[5:9, 3:7, 0], expected[5:9, 3:7, 1] = TOY.images[3, 5:9, 3:7, 0], 255
    np.testing.assert_array_equal(observation["canvas"], expected)
    observation = env.step(act(-1, -1))[0]  # a crop that reaches beyond the image
    expected[:2, :2, 0], expected[:2, :2, 1] = TOY.images[3, :2, :2, 0], 255
    np.testing.assert_array_equal(observation["canvas"], expected)
    again = env.step(act(1, 1, stop=1))[0]
    np.testing.assert_array_equal(again["canvas"], expected)
    assert env.reset()[0]["canvas"][..., 1].sum() == 255 * 16  # forgotten


def test_canvas_keeps_a_first_thumbnail_apart() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, observe="canvas", first_glimpse="thumbnail")
    observation, _ = env.reset(options={"image_index": 3})
    assert not observation["canvas"].any()
    np.testing.assert_array_equal(observation["thumbnail"], box_resize(TOY.images[3:4], 4)[0])


def test_sequential_order_and_shards() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, order="sequential", shard=(1, 2))
    seen = [env.reset()[1] for _ in range(14)]
    assert [info["image_index"] for info in seen] == [*range(11, 23), 11, 12]
    assert [info["repeat"] for info in seen] == [False] * 12 + [True] * 2
    # A fixed image is outside the pass, which goes on after it.
    assert env.reset(options={"image_index": 4})[1]["repeat"] is True
    assert env.reset()[1]["image_index"] == 13
    assert env.reset(seed=0)[1] == {**seen[0]}  # a seed starts over


def test_a_seed_fixes_images_and_locations() -> None:
    runs = []
    for _ in range(2):
        env = GlimpseEnv(TOY, glimpse_size=4, first_glimpse="random")
        env.reset(seed=7)
        runs.append([env.reset()[0]["location"].tolist() for _ in range(80)])
    assert runs[0] == runs[1]
    env.reset(seed=8)
    assert [env.reset()[0]["location"].tolist() for _ in range(80)] != runs[0]


# --- Copies


def walk(env: GlimpseEnv, steps: int) -> list[Any]:
    """All results of a fixed sequence of actions: locations, glimpses, rewards, images."""
    seen: list[Any] = []
    for step in range(steps):
        if step % 2 == 0:
            observation, info = env.reset()
            seen.append(info["image_index"])
        else:
            observation, reward, *_ = env.step(act(0.1, -0.3, step % 4 == 1, 1))
            seen.append(reward)
        seen += [values.tolist() for values in observation.values()]
    return seen


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize(
    "task",
    [
        {"first_glimpse": "random"},
        {"order": "sequential", "shard": (1, 2)},
        {"observe": "canvas", "render_mode": "rgb_array"},
    ],
)
def test_a_copy_goes_on_as_the_original(task: dict[str, Any], clone: Any) -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, **task)
    env.reset(seed=3)
    walk(env, 70)  # into the second block of random numbers
    env.reset()
    twin = clone(env)
    assert env.step(act(0.2))[4] == twin.step(act(0.2))[4]
    frames = [env.render(), twin.render()] if "render_mode" in task else [0, 0]
    np.testing.assert_array_equal(*frames)
    assert walk(env, 150) == walk(twin, 150)
    assert twin.data.images.flags.writeable is False


def test_a_pickle_holds_the_images_and_little_else() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, num_scales=2)
    env.reset(seed=0)
    size = len(pickle.dumps(env))
    env.step(act())  # a pickle holds nothing that a crop computed
    assert abs(len(pickle.dumps(env)) - size) < 500
    assert size < TOY.images.nbytes + 8000


# --- Checkers


Keywords = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(("env_id", "view", "observe", "form"), FORMATS)
def test_check_env_of_gymnasium_and_of_sb3(
    env_id: str, view: str, observe: str, form: str | None, keywords_of: Keywords
) -> None:
    shown = {"view": view, "observe": observe, "glimpse_format": form}
    env = gym.make(env_id, split="test", **shown, **keywords_of(env_id)).unwrapped
    expected = ["not based off a numpy array"] if view == "native" else []
    (height, _, _), glimpse = EXPECTED[env_id].image_shape, EXPECTED[env_id].glimpse[0]
    small = (height if observe == "canvas" else glimpse) < 36
    # Non-native views flatten images under 36 pixels by default.
    if small and (form == "image" or (form is None and view == "native")):
        expected.append("minimal resolution")
    check_env(env, *expected)


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("first", ["random", "thumbnail", "choose"])
def test_gymnasium_check_env_of_other_starts(first: str, order: str) -> None:
    env = gym.make("DTRAM-Signpost-v0", first_glimpse=first, order=order, num_scales=2)
    gymnasium_check(env.unwrapped)


class Known(NamedTuple):
    """The properties of an id."""

    dataset: str
    image_shape: tuple[int | None, int | None, int]
    glimpse: tuple[int, int, int]
    max_glimpses: int
    num_classes: int
    first_glimpse: str
    num_images: int  # of the test split


BIRDS = Known("Birds (drawn)", (512, 512, 3), (224, 224, 3), 3, 200, "thumbnail", 5794)
AUTOS = BIRDS._replace(dataset="Autos (drawn)", num_classes=196, num_images=8041)
CLUTTERED = Known("ClutteredMNIST", (60, 60, 1), (12, 12, 3), 8, 10, "center", 10_000)
SIGNPOST = Known("Signpost", (28, 28, 1), (8, 8, 1), 4, 4, "center", 2000)
EXPECTED = {
    "DTRAM-MNIST-v0": Known("MNIST", (28, 28, 1), (8, 8, 1), 7, 10, "center", 10_000),
    "DTRAM-FashionMNIST-v0": Known("FashionMNIST", (28, 28, 1), (8, 8, 1), 7, 10, "center", 20),
    "DTRAM-TranslatedMNIST-v0": CLUTTERED._replace(dataset="TranslatedMNIST"),
    "DTRAM-ClutteredMNIST-v0": CLUTTERED,
    "DTRAM-ClutteredMNIST100-v0": Known(
        "ClutteredMNIST100", (100, 100, 1), (12, 12, 4), 8, 10, "center", 10_000
    ),
    "DTRAM-CUB-v0": BIRDS,
    "DTRAM-Birds-v0": BIRDS,
    "DTRAM-Cars-v0": AUTOS,
    "DTRAM-Autos-v0": AUTOS,
    "DTRAM-BirdsSmall-v0": Known(
        "Birds (drawn)", (128, 128, 3), (32, 32, 3), 3, 20, "thumbnail", 2000
    ),
    "DTRAM-Scenes-v0": Known(
        "Scenes (drawn)", (512, 512, 3), (64, 64, 3), 6, 20, "thumbnail", 2000
    ),
    "DTRAM-ImageFolder-v0": Known("photos", (None, None, 3), (96, 96, 3), 4, 3, "thumbnail", 12),
    "DTRAM-Signpost-v0": SIGNPOST,
    "DTRAM-NoisySignpost-v0": SIGNPOST._replace(dataset="NoisySignpost"),
    "DTRAM-WideSignpost-v0": SIGNPOST._replace(dataset="WideSignpost", image_shape=(100, 100, 1)),
    "DTRAM-Patience-v0": Known("Patience", (40, 40, 1), (8, 8, 1), 7, 4, "center", 2240),
    "DTRAM-Pair-v0": Known("Pair", (28, 28, 1), (8, 8, 1), 4, 4, "center", 2000),
}


@pytest.mark.parametrize("env_id", IDS)
def test_properties_of_every_id(env_id: str, keywords_of: Keywords) -> None:
    env = gym.make(env_id, split="test", **keywords_of(env_id)).unwrapped
    assert isinstance(env, GlimpseEnv)
    assert isinstance(env.observation_space, gym.spaces.Dict)
    # No "thumbnail": it has the size of a glimpse.
    assert set(env.observation_space) == {"glimpse", "location", "time"}
    assert EXPECTED[env_id] == (
        env.dataset,
        env.image_shape,
        env.observation_space["glimpse"].shape,
        env.max_glimpses,
        env.num_classes,
        env.first_glimpse,
        env.num_images,
    )
    assert (env.discount, env.split, env.order) == (0.98, "test", "random")
    assert len(env.class_names) == env.num_classes and len(env.data) == env.num_images
    assert env.spec is not None and env.spec.max_episode_steps is None


def test_the_split_is_train_unless_it_is_named() -> None:
    env = gym.make("DTRAM-Signpost-v0").unwrapped
    assert isinstance(env, GlimpseEnv) and (env.split, env.num_images) == ("train", 5400)


@pytest.mark.parametrize("env_id", IDS)
def test_two_of_an_id_with_one_seed_and_a_copy_agree(env_id: str, keywords_of: Keywords) -> None:
    """Two instances, then a pickled copy: the same observations, rewards and infos."""
    envs: list[Any] = [
        gym.make(env_id, split="test", **keywords_of(env_id)).unwrapped for _ in range(2)
    ]
    results: list[Any] = [env.reset(seed=5) for env in envs]
    over = False
    for step, action in enumerate(actions_of(envs[0], 12)):
        results = [env.reset() if over else env.step(action) for env in envs]
        for theirs in results[1:]:
            assert_same(results[0], theirs)
        over = not over and results[0][2]
        if step == 5:
            pickled = pickle.dumps(envs[0])
            # A pickle leaves out drawn or mapped images, and keeps their metadata.
            assert isinstance(envs[0].data.images, np.ndarray) or len(pickled) < 2_000_000
            envs.append(pickle.loads(pickled))


PATHS: dict[str, Any] = {"root": Path("photos"), "data_dir": Path("data")}
NUMBERS: dict[str, Any] = {"max_glimpses": np.int64(3), "discount": np.float32(0.5)}


@pytest.mark.parametrize(
    ("make", "keywords"),
    [
        (gym.make, PATHS),
        (gym.make_vec, PATHS),
        (gym.make, NUMBERS),
        (gym.make_vec, NUMBERS),
        (gym.make_vec, {"autoreset_mode": AutoresetMode.SAME_STEP}),
        (gym.make_vec, {"backend": "torch", "device": torch.device("cpu")}),
    ],
)
def test_specs_are_json(
    make: Any, keywords: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths, numbers of numpy, modes and devices; the environment can be made again from it."""
    make_folder(tmp_path / "photos", train=3, test=1)
    monkeypatch.chdir(tmp_path)
    env_id = "DTRAM-ImageFolder-v0" if "root" in keywords else "DTRAM-Signpost-v0"
    spec = make(env_id, **keywords).spec
    read = EnvSpec.from_json(spec.to_json())
    assert read.kwargs == spec.kwargs
    again, first = make(read).unwrapped, make(env_id, **keywords).unwrapped
    for name in ("dataset", "max_glimpses", "discount", "autoreset_mode", "device"):
        assert getattr(again, name, None) == getattr(first, name, None)


def test_ids_are_found_without_an_import() -> None:
    assert gym.make("dtram_env:DTRAM-Signpost-v0").reset(seed=0)[1]["num_glimpses"] == 1


# --- Bad input


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (act(np.nan), r"action\['location'\] = \[nan, 0.0\]: expected finite"),
        (act(y=np.inf), r"action\['location'\] = \[0.0, inf\]"),
        (act(location=[0.0]), r"'location'\].*shape \(1,\): expected numbers of shape \(2,\)"),
        (act(location=["left", "up"]), r"action\['location'\].*expected numbers"),
        (act(location=[[0.0], [0.0, 1.0]]), r"action\['location'\] cannot be an array"),
        (act(location=[True, False]), r"action\['location'\] is bool .* expected numbers"),
        (act(stop=2), r"action\['stop'\] = 2: expected 0 or 1"),
        (act(stop=-1), r"action\['stop'\] = -1: expected 0 or 1"),
        (act(stop=0.5), r"action\['stop'\] = 0.5: expected 0 or 1"),
        (act(stop=float("nan")), r"action\['stop'\] = nan"),
        (act(stop=None), r"action\['stop'\] = None"),
        (act(prediction=5), r"action\['prediction'\] = 5: expected an integer from 0 to 4"),
        (act(prediction=-1), r"action\['prediction'\] = -1"),
        (act(prediction=[1, 2]), r"action\['prediction'\] = \[1, 2\]"),
        (act(extra=1), r"action has the keys \['extra', 'location', 'prediction', 'stop'\]"),
        ({"stop": 1}, r"action has the keys \['stop'\]"),
        (3, "action is a int: expected a dict"),
    ],
)
def test_bad_actions(action: Any, message: str) -> None:
    env = GlimpseEnv(TOY, glimpse_size=4)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.step(act())[4]["num_glimpses"] == 2  # the refused action changed nothing


def test_actions_of_other_types() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4)
    env.reset(options={"image_index": 0})
    first = env.step({"location": [3, -9], "stop": np.array(0), "prediction": np.int8(1)})[0]
    np.testing.assert_array_equal(first["location"], [1, -1])  # clipped
    assert env.step({"location": (0, 0), "stop": True, "prediction": 1.0})[2] is True


def test_calls_outside_an_episode() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, render_mode="rgb_array", view="discrete")
    for call in (lambda: env.step([0, 0, 0]), env.render, env.action_masks):
        with pytest.raises(ResetNeeded, match="before reset"):
            call()
    env.reset()
    env.step([0, 1, 0])
    with pytest.raises(ResetNeeded, match="after the end: call reset"):
        env.step([0, 1, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "split='valid'"),
        ({"dataset": TOY, "split": "test"}, "the dataset given is the split 'train'"),
        ({"dataset": TOY, "crop_to_box": True}, "crop_to_box=True: the dataset given is made alr"),
        ({"dataset": TOY, "num_train": 9}, "num_train=9: the dataset given is made already"),
        ({"render_mode": "ansi"}, "render_mode='ansi'"),
        ({"view": "flat"}, "view='flat': expected one of 'native', 'continuous', 'discrete'"),
        ({"observe": "all"}, "observe='all'"),
        ({"glimpse_format": "png"}, "glimpse_format='png'"),
        ({"first_glimpse": "left"}, "first_glimpse='left'"),
        ({"order": "shuffled"}, "order='shuffled'"),
        ({"data": "fake"}, "data='fake'"),
        ({"dataset": "MNIST", "data": "builtin"}, "data='builtin': .* DTRAM-Signpost-v0"),
        ({"glimpse_size": 29}, "glimpse_size=29: larger than the image, 28x28"),
        ({"glimpse_size": 0}, "glimpse_size=0: expected an integer of at least 1"),
        ({"num_scales": 0}, "num_scales=0"),
        ({"max_glimpses": 0}, "max_glimpses=0: expected an integer of at least 1"),
        ({"max_glimpses": 2.5}, "max_glimpses=2.5"),
        ({"discount": 0}, r"discount=0: expected a number in \(0, 1\]"),
        ({"discount": 1.01}, "discount=1.01"),
        ({"discount": float("nan")}, "discount=nan"),
        ({"discount": "0.9"}, r"discount='0.9': expected a number in \(0, 1\]"),
        ({"discount": None}, "discount=None"),
        ({"image_size": 32}, "image_size=32: .* expected None or 28"),
        ({"image_size": 0}, "image_size=0: expected an integer of at least 1"),
        ({"crop_to_box": 1}, "crop_to_box=1: expected True or False"),
        ({"crop_to_box": True}, "crop_to_box=True: Signpost does not accept it"),
        ({"root": "photos"}, "root='.*photos': Signpost does not accept it"),
        ({"num_classes": 1}, "num_classes=1: expected an integer of at least 2"),
        ({"num_train": 0}, "num_train=0: expected an integer of at least 1"),
        ({"num_test": 2.5}, "num_test=2.5: expected an integer of at least 1"),
        ({"thumbnail_size": 9}, "thumbnail_size=9: only first_glimpse='thumbnail'"),
        ({"first_glimpse": "thumbnail", "thumbnail_size": 0}, "thumbnail_size=0"),
        ({"grid": 4}, "grid=4: only view='discrete'"),
        ({"mask_seen": True}, "mask_seen=True: only view='discrete'"),
        ({"view": "continuous", "min_glimpses": 2}, "min_glimpses=2: only view='discrete'"),
        (
            {"view": "discrete", "min_glimpses": 5},
            "min_glimpses=5: expected an integer from 1 to 4",
        ),
        ({"view": "discrete", "grid": 0}, "grid=0"),
        ({"shard": (0, 2)}, "only order='sequential'"),
        ({"order": "sequential", "shard": (2, 2)}, r"shard=\(2, 2\): expected integers \(i, n\)"),
        ({"order": "sequential", "shard": (0,)}, r"shard=\(0,\): expected integers \(i, n\)"),
        ({"order": "sequential", "shard": 3}, r"shard=3: expected integers \(i, n\)"),
        ({"order": "sequential", "shard": (0.5, 2)}, r"shard=\(0.5, 2\): expected integers"),
        ({"dataset": "nothing"}, "dataset 'nothing'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlimpseEnv(**{"dataset": "Signpost", "max_glimpses": 4, **arguments})


def test_unknown_arguments() -> None:
    near = "'glimps_size' is no keyword of GlimpseEnv; did you mean 'glimpse_size'"
    with pytest.raises(TypeError, match=near):
        gym.make("DTRAM-Signpost-v0", glimps_size=3)
    none_near = "'shard' is no keyword of GlimpseVectorEnv; expected one of autoreset_mode, .*view"
    with pytest.raises(TypeError, match=none_near):
        gym.make_vec("DTRAM-Signpost-v0", num_envs=3, shard=(0, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_index": 23}, r"options\['image_index'\]=23: expected an integer from 0 to 22"),
        ({"image_index": -1}, "=-1: expected an integer from 0"),
        ({"image_index": 1.0}, "=1.0: expected an integer from 0"),
        ({"image_index": [1, 2]}, r"=\[1, 2\]: expected an integer"),
        ({"image_index": [[1], [2, 3]]}, "expected an integer from 0"),
        ({"image_index": None}, "=None: expected an integer"),
        ({"index": 1}, r"options\['index'\]: unknown; expected 'image_index'"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], message: str) -> None:
    env = GlimpseEnv(TOY, glimpse_size=4)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


def test_masks_belong_to_the_discrete_view() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4)
    env.reset()
    with pytest.raises(ValueError, match="action_masks\\(\\) belongs to view='discrete'"):
        env.action_masks()

"""`Sb3VecEnv`: equal to the vector environment and to SB3's own; SB3's algorithms learn on it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from dtram_env import GlimpseEnv
from dtram_env.datasets import Dataset
from dtram_env.datasets.drawn import SMALL_BIRDS
from dtram_env.sb3 import Sb3VecEnv

from .conftest import TALLY, TOY, Tally, assert_same, make_dataset

ID = "DTRAM-Signpost-v0"
TASKS: list[dict[str, Any]] = [
    {"view": "continuous"},
    {"view": "continuous", "glimpse_format": "image", "first_glimpse": "random"},
    {"view": "discrete", "observe": "canvas", "mask_seen": True},
    {"view": "single", "classifier": TALLY, "first_glimpse": "choose", "mask_seen": True},
]


def make(num_envs: int, **task: Any) -> Sb3VecEnv:
    """The toy images, glimpses of 4 pixels, at most 3 of them."""
    settings = {"glimpse_size": 4, "max_glimpses": 3, "discount": 0.5, **task}
    return Sb3VecEnv(ID, num_envs, dataset=TOY, **settings)


def sampled(env: Sb3VecEnv, steps: int) -> list[np.ndarray]:
    """Random actions, batched."""
    env.action_space.seed(0)
    actions = (
        np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in [0] * steps
    )
    return list(actions)


# --- The same as the vector environment, and as SB3's own over scalar ones


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["view"])
def test_equals_the_vector_environment(task: dict[str, Any], order: str) -> None:
    ours = make(5, order=order, **task)
    theirs: Any = gym.make_vec(
        ID,
        num_envs=5,
        dataset=TOY,
        autoreset_mode="SameStep",
        **{"glimpse_size": 4, "max_glimpses": 3, "discount": 0.5, "order": order, **task},
    )
    assert ours.observation_space == theirs.single_observation_space
    assert ours.action_space == theirs.single_action_space
    ours.seed(7)
    observation, expected = ours.reset(), theirs.reset(seed=7)
    assert_same(observation, expected[0])
    for key in ("label", "image_index", "num_glimpses"):
        assert [info[key] for info in ours.reset_infos] == expected[1][key].tolist()
    assert [info["dataset"] for info in ours.reset_infos] == ["Toy"] * 5
    ended = 0
    for actions in sampled(ours, 80):  # more than one block of random numbers
        observation, rewards, dones, infos = ours.step(actions)
        seen, paid, over, cut, their_infos = theirs.step(actions)
        assert_same(observation, seen)
        np.testing.assert_array_equal(rewards, paid.astype(np.float32))
        assert (rewards.dtype, dones.dtype, len(infos)) == (np.float32, np.bool_, 5)
        np.testing.assert_array_equal(dones, over | cut)
        for i, info in enumerate(infos):
            if not over[i]:
                assert info == {}
                continue
            ended += 1
            assert_same(info.pop("terminal_observation"), their_infos["final_obs"][i])
            assert info.pop("TimeLimit.truncated") is False
            last = {k: v[i] for k, v in their_infos["final_info"].items() if not k.startswith("_")}
            assert info == last
            assert type(info["label"]) is int and type(info["is_success"]) is bool
        if task.get("mask_seen"):
            masks = np.stack(ours.env_method("action_masks"))
            np.testing.assert_array_equal(masks, theirs.unwrapped.action_masks())
            np.testing.assert_array_equal(get_action_masks(ours), masks)
    assert ended > 80


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["view"])
def test_equals_a_dummy_of_scalar_environments(task: dict[str, Any]) -> None:
    task = {"glimpse_size": 4, "max_glimpses": 3, "discount": 0.5, **task}
    if task.get("first_glimpse") == "random":  # scalar environments have separate generators
        task["first_glimpse"] = "center"
    ours = make(4, order="sequential", **task)

    def scalar(i: int) -> Any:
        return lambda: GlimpseEnv(TOY, order="sequential", shard=(i, 4), **task)

    theirs = DummyVecEnv([scalar(i) for i in range(4)])
    assert ours.observation_space == theirs.observation_space
    assert_same(ours.reset(), theirs.reset())
    assert ours.reset_infos == theirs.reset_infos
    for actions in sampled(ours, 40):
        observation, rewards, dones, infos = ours.step(actions)
        seen, paid, over, their_infos = theirs.step(actions)
        assert_same(observation, seen)
        assert_same(rewards, paid)
        assert_same(dones, over)
        for i in np.flatnonzero(over):
            assert_same(infos[i], their_infos[i])
    # The same fixed images, this once.
    chosen = [{"image_index": i} for i in (3, 3, 22, 0)]
    for env in (ours, theirs):
        env.set_options(chosen)
    assert_same(ours.reset(), theirs.reset())
    assert [info["image_index"] for info in ours.reset_infos] == [3, 3, 22, 0]
    ours.reset()
    assert [info["image_index"] for info in ours.reset_infos] == [0, 5, 11, 17]


# --- What SB3 asks of an environment


def test_infos_of_an_episode_by_hand() -> None:
    env = make(2, view="discrete", grid=2)
    env.set_options({"image_index": 6})
    env.reset()
    label = int(TOY.labels[6])
    wrong = (label + 1) % 5
    first, rewards, dones, infos = env.step(np.array([[0, 0, label], [3, 0, label]]))
    assert infos == [{}, {}] and not rewards.any() and not dones.any()
    _, rewards, dones, infos = env.step(np.array([[1, 0, label], [0, 1, wrong]]))
    assert (rewards.tolist(), dones.tolist()) == ([0, 0], [False, True]) and infos[0] == {}
    last = infos[1].pop("terminal_observation")
    for key, values in last.items():  # no glimpse is taken after the end
        np.testing.assert_array_equal(values, first[key][1])
    assert infos[1] == {
        "label": label,
        "image_index": 6,
        "num_glimpses": 2,
        "prediction": wrong,
        "is_success": False,
        "TimeLimit.truncated": False,
    }
    _, rewards, dones, infos = env.step(np.array([[1, 0, label], [0, 0, 0]]))
    assert (rewards.tolist(), dones.tolist()) == ([0.125, 0], [True, False])
    assert (infos[0]["is_success"], infos[0]["num_glimpses"], infos[1]) == (True, 3, {})


def test_labels_are_shown_for_training() -> None:
    """Of the image that is seen: after an episode's end the next one's, and in the last
    observation its own. Nothing else changes."""
    plain, shown = make(2, view="discrete"), make(2, view="discrete", show_label=True)
    space = dict(shown.observation_space)  # type: ignore[call-overload]
    assert space.pop("label").shape == (5,)
    assert space == dict(plain.observation_space)  # type: ignore[call-overload]
    for env in (plain, shown):
        env.seed(0)
        env.set_options({"image_index": 6})
    one_hot = np.eye(5, dtype=np.float32)
    expected, seen = plain.reset(), shown.reset()
    assert_same({**expected, "label": one_hot[TOY.labels[[6, 6]]]}, seen)  # type: ignore[dict-item]
    for stop in (0, 1, 0):
        action = np.array([[0, stop, 0], [0, 0, 0]])
        expected, *_, infos = plain.step(action)
        seen, *_, found = shown.step(action)
        labels = seen.pop("label")  # type: ignore[union-attr]
        assert_same(expected, seen)
        np.testing.assert_array_equal(labels, one_hot[shown.venv._episodes.label])
        for before, after in zip(infos, found, strict=True):
            if after:
                last = after["terminal_observation"].pop("label")
                np.testing.assert_array_equal(last, one_hot[after["label"]])
            assert_same(before, after)


def test_metadata_of_an_image_is_in_its_last_info(tmp_path: Path) -> None:
    few: dict[str, Any] = {"num_train": 40, "num_test": 10, "data_dir": str(tmp_path)}
    env = Sb3VecEnv(
        "DTRAM-BirdsSmall-v0", 2, view="discrete", order="sequential", split="test", **few
    )
    env.reset()
    layout = replace(SMALL_BIRDS, num_train=40, num_test=10).layout("test")
    infos = env.step(np.array([[0, 1, 0], [0, 0, 0]]))[3]
    assert infos[0]["image_index"] == 0 and infos[1] == {}
    for name in ("part_boxes", "discriminative"):
        assert infos[0][name] == getattr(layout, name)[0].tolist()


def test_vec_monitor_adds_returns_and_lengths() -> None:
    env = VecMonitor(make(3, view="single", classifier=TALLY, order="sequential"))
    env.reset()
    stop = env.action_space.n - 1  # type: ignore[attr-defined]
    rows: list[tuple[int, float, int]] = []
    for actions in ([0, stop, 0], [0, 0, 0], [0, 0, 0]):
        _, _, _, infos = env.step(np.array(actions))
        rows += [
            (info["image_index"], info["episode"]["r"], info["episode"]["l"])
            for info in infos
            if "episode" in info
        ]
    assert [(image, length) for image, _, length in rows] == [(7, 1), (0, 3), (15, 3)]
    (vote,) = {int(TOY.images[7, 5:9, 3:7].sum()) % 5}
    assert rows[0][1] == 0.5 * (vote == TOY.labels[7])


class StopsWithClass2:
    """An SB3 model of the continuous view that stops at once and predicts class 2 of 4."""

    def predict(self, observation: dict[str, np.ndarray], state: Any, **_: Any) -> tuple[Any, None]:
        action = np.zeros((len(observation["time"]), 3 + 4), np.float32)
        action[:, 2] = action[:, 3 + 2] = 1
        return action, None


@pytest.mark.parametrize("n", [1, 3, 8, 64])
def test_evaluate_policy_counts_every_image_once(planted: Dataset, n: int) -> None:
    venv = Sb3VecEnv(ID, n, dataset=planted, order="sequential", view="continuous", discount=0.5)
    shown: list[int] = []

    def note(local: dict[str, Any], _: Any) -> None:
        if local["done"]:
            assert not local["info"]["repeat"]
            shown.append(local["info"]["image_index"])

    model: Any = StopsWithClass2()
    for _ in range(2):  # a reset starts the pass over
        mean, _ = evaluate_policy(model, VecMonitor(venv), n_eval_episodes=50, callback=note)
        assert sorted(shown) == list(range(50))
        assert mean == pytest.approx(0.5 * 12 / 50)  # 12 of the 50 images are of class 2
        shown.clear()


def test_attributes_and_methods() -> None:
    env = make(3, view="discrete", grid=2, min_glimpses=2)
    assert (
        env.get_attr("max_glimpses") == [3] * 3 and env.get_attr("view", [0, 2]) == ["discrete"] * 2
    )
    assert env.get_attr("dataset", 1) == ["Toy"]
    with pytest.raises(AttributeError, match="nothing"):
        env.get_attr("nothing")
    with pytest.raises(ValueError, match=r"set_attr\('discount'\): expected no set_attr"):
        env.set_attr("discount", None)
    env.reset()
    env.step(np.array([[0, 0, 0]] * 3))
    env.step(np.array([[0, 1, 0], [0, 0, 0], [0, 1, 0]]))  # slots 0 and 2 start again
    stops = [row[4:6].tolist() for row in env.env_method("action_masks")]
    assert stops == [[True, False], [True, True], [True, False]]
    (only,) = env.env_method("action_masks", indices=1)
    assert only[4:6].tolist() == [True, True]
    assert is_masking_supported(env)
    assert env.env_is_wrapped(Monitor) == [False] * 3 and env.env_is_wrapped(Monitor, [1]) == [
        False
    ]
    assert env.unwrapped is env and env.num_envs == 3


def test_seeds_and_options() -> None:
    env = make(4, view="continuous", first_glimpse="random")

    def images(seed: int | None) -> list[list[float]]:
        if seed is not None:
            env.seed(seed)
        observation: Any = env.reset()
        return [observation["location"].tolist(), [info["image_index"] for info in env.reset_infos]]

    assert images(1) == images(1) != images(2)
    one = images(1)
    assert images(None) != one  # the seed was for that reset only
    env.set_options({"image_index": 9})
    assert images(None)[1] == [9] * 4
    for options, message in [
        ({"index": 3}, r"options\['index'\]: unknown; expected 'image_index'"),
        ([{"image_index": 1}, {}, {}, {}], r"options\['image_index'\]: expected for every slot"),
        ({"image_index": 23}, "23 is out of range; the split has images 0 to 22"),
        ([{"image_index": 1}] * 3, "options: expected one dict, or 4, got 3"),
    ]:
        env.set_options(options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            env.reset()
        env.reset()  # they are forgotten


def test_pictures() -> None:
    env = make(4, view="continuous", render_mode="rgb_array")
    env.reset()
    frames = env.get_images()
    picture = env.render()
    assert len(frames) == 4 and picture is not None
    height, width, _ = frames[0].shape  # type: ignore[union-attr]
    assert picture.shape == (2 * height, 2 * width, 3)  # two rows of two
    np.testing.assert_array_equal(picture[height:, :width], frames[2])
    env.close()


# Gymnasium 1.2's own `VectorEnv.__del__` fails after a constructor that raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("env_id", "keywords", "message"),
    [
        (ID, {}, "view='native': Stable-Baselines3 accepts no Dict"),
        (ID, {"view": "native"}, "view='native': Stable-Baselines3 accepts no Dict"),
        (ID, {"view": "flat"}, "view='flat': expected one of"),
        (ID, {"veiw": "discrete"}, "did you mean 'view'"),
        (ID, {"view": "discrete", "autoreset_mode": "NextStep"}, "autoreset_mode: Sb3VecEnv works"),
        (ID, {"view": "discrete", "backend": "torch"}, "backend: Sb3VecEnv works with numpy only"),
        ("CartPole-v1", {"view": "discrete"}, "env_id='CartPole-v1': .*expected an environment of"),
    ],
)
def test_bad_arguments(env_id: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Sb3VecEnv(env_id, 2, **keywords)
    assert "\n" not in str(caught.value)


# --- SB3's algorithms learn on it

LARGE = make_dataset(30, (40, 44, 1), classes=4)  # SB3's convolutions need 36 pixels
IMAGES: dict[str, Any] = {"dataset": LARGE, "glimpse_size": 36}
SMALL: dict[str, Any] = {"gamma": 1.0, "seed": 0, "device": "cpu"}
ON_POLICY: dict[str, Any] = {"n_steps": 16, **SMALL}
OFF_POLICY: dict[str, Any] = {"learning_starts": 40, "batch_size": 16, "buffer_size": 400, **SMALL}
EPOCH: dict[str, Any] = {"batch_size": 32, "n_epochs": 1}
LEARNERS: list[Any] = [
    (PPO, "continuous", IMAGES, {**ON_POLICY, **EPOCH}),
    pytest.param(PPO, "single", {}, {**ON_POLICY, **EPOCH}, marks=pytest.mark.slow),
    pytest.param(A2C, "discrete", {"observe": "canvas"}, ON_POLICY, marks=pytest.mark.slow),
    (DQN, "single", IMAGES, {"target_update_interval": 50, **OFF_POLICY}),
    pytest.param(SAC, "continuous", {}, OFF_POLICY, marks=pytest.mark.slow),
    (MaskablePPO, "discrete", {"mask_seen": True, "min_glimpses": 2}, {**ON_POLICY, **EPOCH}),
    pytest.param(RecurrentPPO, "discrete", IMAGES, {**ON_POLICY, **EPOCH}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algorithm", "view", "task", "settings"), LEARNERS)
def test_algorithms_learn(
    algorithm: Any, view: str, task: dict[str, Any], settings: dict[str, Any]
) -> None:
    if view == "single":
        task = {**task, "classifier": Tally(4)}
    venv = Sb3VecEnv(ID, 4, view=view, max_glimpses=3, discount=0.5, num_scales=2, **task)
    env = VecMonitor(venv)
    recurrent = algorithm is RecurrentPPO
    network: dict[str, Any] = {"net_arch": [8]}
    if "dataset" in task:
        network["features_extractor_kwargs"] = {"cnn_output_dim": 8}
    if recurrent:
        network["lstm_hidden_size"] = 8
    policy = "MultiInputLstmPolicy" if recurrent else "MultiInputPolicy"
    model = algorithm(policy, env, policy_kwargs=network, **settings)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(192)
    after = model.policy.state_dict()
    assert model.num_timesteps == 192
    assert all(value.isfinite().all() for value in after.values())
    assert any((after[name] != before[name]).any() for name in before)
    if "dataset" in task:  # SB3 puts the channels first
        assert env.observation_space["glimpse"].shape == (36, 36, 2)  # type: ignore[index]
        assert model.observation_space["glimpse"].shape == (2, 36, 36)
    episodes = list(model.ep_info_buffer)
    assert len(episodes) >= 192 / 3 - 4
    for episode in episodes:
        least = 2 if algorithm is MaskablePPO else 1
        assert least <= episode["l"] <= 3 and episode["r"] in (0.0, 0.5 ** episode["l"])
    if isinstance(model, OffPolicyAlgorithm):
        buffer: Any = model.replay_buffer
        full = slice(0, buffer.pos)
        assert not buffer.timeouts[full].any()  # never truncated
        over = buffer.dones[full].astype(bool)
        assert not buffer.rewards[full][~over].any()
        for key in buffer.observations:  # the terminal observation repeats the last
            seen, then = buffer.observations[key][full], buffer.next_observations[key][full]
            np.testing.assert_array_equal(seen[over], then[over])

"""The vector environment: equal to Gymnasium's vector of scalar environments, on both backends, and
by hand where it differs on purpose."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import dtram_env
from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.datasets import Dataset
from dtram_env.views import GRID_VIEWS

from .conftest import (
    MODES,
    TALLY,
    TOY,
    VIEWS,
    actions_of,
    assert_same,
    make_dataset,
    task_id,
)

BOXED = make_dataset(metadata=True)


def reference(num_envs: int, mode: str, data: Dataset = TOY, **task: Any) -> SyncVectorEnv:
    """Gymnasium's vector environment over scalar ones, each with its shard."""

    def make(i: int) -> Callable[[], GlimpseEnv]:
        return lambda: GlimpseEnv(data, order="sequential", shard=(i, num_envs), **task)

    return SyncVectorEnv([make(i) for i in range(num_envs)], autoreset_mode=AutoresetMode(mode))


def numbers_only(result: Any) -> Any:
    """A result without the text in its infos, which only the scalar environment has."""
    for key in ("dataset", "_dataset"):
        result[-1].pop(key, None)
    return result


# --- Scalar = vector, every view and autoreset mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", VIEWS, ids=task_id)
def test_equals_gymnasiums_vector_of_scalar_environments(task: dict[str, Any], mode: str) -> None:
    compare(TOY, task, mode)


NOT_CANVAS = [task for task in VIEWS if task.get("observe") != "canvas"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", NOT_CANVAS, ids=task_id)
def test_so_do_images_of_different_sizes_with_metadata(
    task: dict[str, Any], mode: str, ragged: Dataset
) -> None:
    compare(ragged, task, mode)


@pytest.mark.parametrize("mode", MODES)
def test_so_does_metadata_of_images_in_memory(mode: str) -> None:
    compare(BOXED, {"view": "discrete", "observe": "canvas"}, mode)


def compare(data: Dataset, task: dict[str, Any], mode: str) -> None:
    task = {"glimpse_size": 4, "max_glimpses": 3, "discount": 0.9, **task}
    ours = GlimpseVectorEnv(data, num_envs=6, order="sequential", autoreset_mode=mode, **task)
    theirs = reference(6, mode, data, **task)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    seen, expected = ours.reset(seed=0), numbers_only(theirs.reset(seed=0))
    assert_same(seen, expected, "reset")
    ended = 0
    for action in actions_of(ours, 20):
        seen, expected = ours.step(copy.deepcopy(action)), numbers_only(theirs.step(action))
        assert_same(seen, expected, "step")
        assert seen[0] in ours.observation_space
        over = expected[2]
        ended += int(over.sum())
        if task["view"] in GRID_VIEWS:
            np.testing.assert_array_equal(ours.action_masks(), theirs.call("action_masks"))
        if mode == "Disabled" and over.any():
            # `options` is emptied by Gymnasium's own reset.
            again = ours.reset(options={"reset_mask": over.copy()})
            against = numbers_only(theirs.reset(options={"reset_mask": over.copy()}))
            assert_same(again, against, "masked reset")
    assert ended > 20


def test_a_fixed_image_is_of_that_reset_only() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=4, glimpse_size=4)
    assert env.reset(options={"image_index": 5})[1]["image_index"].tolist() == [5, 5, 5, 5]
    assert env.reset()[1]["image_index"].tolist() != [5, 5, 5, 5]


@pytest.mark.parametrize("env_id", dtram_env.ENV_IDS)
def test_every_id_as_vector_is_the_scalar_one(
    env_id: str, keywords_of: Callable[[str], dict[str, Any]]
) -> None:
    """Numpy, torch and scalar environments of every id: the same observations and infos."""
    keywords = {"split": "test", **keywords_of(env_id)}
    single: Any = gym.make(env_id, **keywords).unwrapped
    fixed = np.array([0, 2, single.num_images - 1])
    for backend in ("numpy", "torch"):
        envs: Any = gym.make_vec(env_id, num_envs=3, backend=backend, **keywords)
        assert envs.single_observation_space == single.observation_space
        assert (envs.spec.id, envs.dataset, envs.split) == (env_id, single.dataset, "test")
        (action,) = actions_of(envs, 1)
        action["stop"][:] = 0
        action["location"][0] *= 5  # outside the image
        batches = envs.reset(options={"image_index": fixed}), envs.step(action)
        for i, image in enumerate(fixed):
            rows = (
                single.reset(options={"image_index": image}),
                single.step({key: value[i] for key, value in action.items()}),
            )
            for batch, row in zip(batches, rows, strict=True):
                for key, value in row[0].items():
                    np.testing.assert_array_equal(np.asarray(batch[0][key][i]), value)
                for key, value in numbers_only(row)[-1].items():
                    np.testing.assert_array_equal(np.asarray(batch[-1][key][i]), value)


# --- Metadata


def test_metadata_may_be_changed_by_the_user() -> None:
    single = GlimpseEnv(BOXED, glimpse_size=4)
    single.reset(options={"image_index": 3})[1]["box"][:] = -1
    assert single.reset(options={"image_index": 3})[1]["box"][0] == 4
    for backend in ("numpy", "torch"):
        env = GlimpseVectorEnv(BOXED, num_envs=2, glimpse_size=4, backend=backend)
        env.reset(options={"image_index": 3})[1]["box"][:] = -1
        assert env.reset(options={"image_index": 3})[1]["box"][0, 0] == 4


# --- Autoreset modes by hand


def stop_all(n: int, prediction: Any = 0, stop: Any = 1) -> dict[str, Any]:
    return {
        "location": np.zeros((n, 2), np.float32),
        "stop": np.broadcast_to(stop, n),
        "prediction": np.broadcast_to(prediction, n),
    }


def test_disabled_slots_rest_until_they_are_reset() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, discount=0.5, autoreset_mode="Disabled")
    _, infos = env.reset(seed=0)
    label = infos["label"]
    first = env.step(stop_all(3, label, [1, 0, 1]))
    assert first[1].tolist() == [0.5, 0, 0.5] and first[2].tolist() == [True, False, True]
    # Invalid actions of resting slots are ignored; the episode of slot 1 goes on.
    nonsense = stop_all(3, [99, label[1], -7], [5, 1, 9])
    nonsense["location"][0] = np.nan
    second = env.step(nonsense)
    assert second[1].tolist() == [0, 0.25, 0] and second[2].all()
    assert second[4]["_prediction"].tolist() == [False, True, False]
    np.testing.assert_array_equal(second[0]["glimpse"][0], first[0]["glimpse"][0])
    third = env.step(nonsense)
    assert not third[1].any() and third[2].all() and "prediction" not in third[4]
    mask = np.array([True, False, False])
    observation, infos = env.reset(options={"reset_mask": mask})
    assert observation["time"][:, 0].round(6).tolist() == pytest.approx([1 / 7, 2 / 7, 1 / 7])
    assert infos["_label"].tolist() == mask.tolist()
    assert env.step(stop_all(3, 0, 0))[2].tolist() == [False, True, True]


def test_actions_of_resting_slots_may_be_any_numbers() -> None:
    for backend in ("numpy", "torch"):
        env = GlimpseVectorEnv(
            TOY, num_envs=2, glimpse_size=4, view="discrete", grid=2, backend=backend
        )
        for resting in ([99, 0, 0], [np.nan, np.nan, np.inf]):
            env.reset(seed=0)
            env.step(np.array([[0, 1, 0], [0, 0, 0]]))
            observation = env.step(np.array([resting, [3, 0, 0]]))[0]
            assert observation["location"].tolist() == [[0, 0], [0.5, 0.5]]


def test_continuous_actions_stop_above_zero_only() -> None:
    for backend in ("numpy", "torch"):
        env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, view="continuous", backend=backend)
        env.reset(seed=0)
        action = np.zeros((3, 8), np.float32)
        action[:, 2] = [0, 1e-6, -1]
        assert env.step(action)[2].tolist() == [False, True, False]


def test_next_step_ignores_the_action_of_a_slot_that_restarts() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=2, glimpse_size=4)
    env.reset(seed=0)
    env.step(stop_all(2, 0, [1, 0]))
    action = stop_all(2, [77, 0], [8, 0])
    action["location"][0] = np.inf
    _, reward, over, _, infos = env.step(action)
    assert not reward.any() and not over.any()
    assert infos["num_glimpses"].tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"action\['stop'\]\[0\] = 8: expected 0 or 1"):
        env.step(stop_all(2, 0, [8, 0]))


def test_modes_by_name_and_by_object() -> None:
    for mode in AutoresetMode:
        for spelling in (mode, mode.value):
            env = gym.make_vec("DTRAM-Signpost-v0", num_envs=2, autoreset_mode=spelling)
            assert env.metadata["autoreset_mode"] is mode
    assert "autoreset_mode" not in GlimpseVectorEnv.metadata  # it belongs to the instance


# --- Order and seeds


@settings(max_examples=40)
@given(
    count=st.integers(1, 30),
    num_envs=st.integers(1, 12),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
)
def test_a_sequential_pass_shows_every_image_once_before_it_repeats(
    count: int, num_envs: int, mode: str, seed: int
) -> None:
    env = GlimpseVectorEnv(
        make_dataset(count),
        num_envs=num_envs,
        order="sequential",
        glimpse_size=4,
        max_glimpses=2,
        autoreset_mode=mode,
    )
    _, infos = env.reset(seed=seed)
    shown: list[int] = []
    counted = infos["_image_index"] & ~infos["repeat"]
    shown += infos["image_index"][counted].tolist()
    over = np.zeros(num_envs, bool)
    for action in actions_of(env, 4 * (count // num_envs + 2), seed):
        before = over
        over, infos = env.step(action)[2::2]
        if mode == "Disabled":
            _, infos = env.reset(options={"reset_mask": over})
        new = before if mode == "NextStep" else over
        shown += infos["image_index"][new & ~infos["repeat"]].tolist()
    assert sorted(shown) == sorted(set(shown))
    assert set(shown) == set(range(count))
    # A reset of all slots starts over.
    again = env.reset()[1]
    assert again["repeat"].tolist() == [(count + i) // num_envs == 0 for i in range(num_envs)]


def test_fixed_images_are_outside_a_sequential_pass() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=2, order="sequential", autoreset_mode="Disabled")
    infos = env.reset(options={"image_index": np.array([20, 21])})[1]
    assert infos["repeat"].all()
    mask = np.array([True, True])
    infos = env.reset(options={"reset_mask": mask})[1]
    assert infos["image_index"].tolist() == [0, 11] and not infos["repeat"].any()


@pytest.mark.parametrize("mode", MODES)
def test_seeds(mode: str) -> None:
    def run(seed: int) -> list[Any]:
        env = GlimpseVectorEnv(
            TOY, num_envs=5, glimpse_size=4, first_glimpse="random", autoreset_mode=mode
        )
        rows = [env.reset(seed=seed)[0]["location"]]
        rows += [env.step(action)[0]["location"] for action in actions_of(env, 70)]
        return np.array(rows).tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)


@settings(max_examples=30)
@given(budget=st.integers(1, 6), seed=st.integers(0, 999), choose=st.booleans())
def test_no_episode_passes_its_budget_and_rewards_are_discounts(
    budget: int, seed: int, choose: bool
) -> None:
    env = GlimpseVectorEnv(
        TOY,
        num_envs=8,
        glimpse_size=4,
        max_glimpses=budget,
        discount=0.5,
        first_glimpse="choose" if choose else "center",
        autoreset_mode="SameStep",
    )
    env.reset(seed=seed)
    steps = np.zeros(8, np.int64)
    for action in actions_of(env, 30, seed):
        _, reward, over, _, infos = env.step(action)
        steps += 1
        if over.any():
            final = infos["final_info"]
            taken = final["num_glimpses"][over]
            assert ((taken >= 1) & (taken <= budget)).all()
            np.testing.assert_array_equal(taken, steps[over] - choose)
            right = action["prediction"] == final["label"]
            np.testing.assert_array_equal(reward[over], (0.5**taken) * right[over])
            np.testing.assert_array_equal(final["is_success"][over], right[over])
        assert not reward[~over].any()
        steps[over] = 0


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_rewards_are_those_of_the_scalar_environment_to_the_last_bit(backend: str) -> None:
    """numpy's power of an array of 11 is not Python's 0.98**11."""
    common: dict[str, Any] = {"glimpse_size": 4, "max_glimpses": 60}
    single = GlimpseEnv(TOY, **common)
    env = GlimpseVectorEnv(TOY, num_envs=60, backend=backend, autoreset_mode="Disabled", **common)
    label = single.reset(options={"image_index": 6})[1]["label"]
    env.reset(options={"image_index": 6})
    paid = np.zeros(60)
    for t in range(1, 61):  # slot t - 1 stops after t glimpses
        paid += np.asarray(env.step(stop_all(60, label, np.arange(1, 61) == t))[1])
        single.reset(options={"image_index": 6})
        for _ in range(t - 1):
            single.step({"location": [0, 0], "stop": 0, "prediction": label})
        reward = single.step({"location": [0, 0], "stop": 1, "prediction": label})[1]
        assert reward == 0.98**t
        assert paid[t - 1] == (reward if backend == "numpy" else np.float32(reward))


# --- Results are copies


def test_results_may_be_changed_by_the_user() -> None:
    for backend in ("numpy", "torch"):
        runs = []
        for spoil in (False, True):
            env = GlimpseVectorEnv(
                TOY, num_envs=4, glimpse_size=4, backend=backend, autoreset_mode="SameStep"
            )
            observation, infos = env.reset(seed=0)
            rows = []
            for action in actions_of(env, 20):
                given = {key: value.copy() for key, value in action.items()}
                rows.append(np.asarray(observation["glimpse"]).sum().item())
                if spoil:
                    for values in [*observation.values(), *infos.values()]:
                        if not isinstance(values, dict) and values.dtype != object:
                            values[...] = 0
                observation, reward, over, cut, infos = env.step(given)
                rows.append(np.asarray(reward).sum().item())
                if spoil:
                    for values in (*given.values(), reward, over, cut):
                        values[...] = 0
            runs.append(rows)
        assert runs[0] == runs[1]


# --- Copies


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize(
    "task",
    [
        {"first_glimpse": "random", "render_mode": "rgb_array"},
        {"order": "sequential", "observe": "canvas", "view": "discrete", "mask_seen": True},
        {"first_glimpse": "random", "view": "single", "classifier": TALLY},
    ],
    ids=["native", "discrete", "single"],
)
def test_a_copy_goes_on_as_the_original(
    task: dict[str, Any], clone: Any, mode: str, backend: str
) -> None:
    env = GlimpseVectorEnv(
        TOY, num_envs=3, glimpse_size=4, autoreset_mode=mode, backend=backend, **task
    )
    actions = actions_of(env, 75)
    env.reset(seed=1)
    for action in actions[:10]:
        env.step(action)
    twin = clone(env)
    assert twin.metadata["autoreset_mode"] is AutoresetMode(mode)
    for action in actions[10:]:  # past the block of random numbers
        ours, theirs = env.step(action), twin.step(action)
        assert_same(ours, theirs)
        if mode == "Disabled":
            mask = ours[2]
            again = [one.reset(options={"reset_mask": mask}) for one in (env, twin)]
            assert_same(*again)
    if "render_mode" in task:
        np.testing.assert_array_equal(np.array(env.render()), np.array(twin.render()))


# --- Arrays of any kind: the scalar environment and both backends take or refuse them alike

UNSIGNED = ("uint8", "uint64")
TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    "list": np.ndarray.tolist,
    "tensor": torch.tensor,
    "bfloat16": lambda values: torch.tensor(values).bfloat16(),
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "turned round": lambda values: np.array(values[..., ::-1])[..., ::-1],
    "gradient": lambda values: torch.tensor(values).float().requires_grad_(),
    **{name: lambda values, name=name: values.astype(name) for name in UNSIGNED},
    **{f"{n} tensor": lambda values, n=n: torch.tensor(values.astype(n)) for n in UNSIGNED},
}
REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "objects": (lambda values: values.astype(object), "its items are object"),
    "text": (lambda values: values.astype(str), "its items are <U"),
    "list of gradients": (
        lambda values: [torch.tensor(v).float().requires_grad_() for v in values],
        "cannot be an array",
    ),
    "complex": (lambda values: values.astype(complex), "is complex128 of shape"),
}


def action_of(view: str, stop: int) -> Any:
    """Look at (1, 0), or at the last of 2 x 2 cells; class 2."""
    if view == "native":
        return {"location": [1, 0], "stop": stop, "prediction": 2}
    return [1, 0, stop, 0, 0, 1, 0, 0] if view == "continuous" else [3, stop, 2]


def environments(view: str) -> list[tuple[Any, tuple[int, ...]]]:
    """A scalar environment and some of each backend, with the shape of their batches."""
    task = {"glimpse_size": 4, "view": view, **({"grid": 2} if view == "discrete" else {})}
    vectors = [
        GlimpseVectorEnv(TOY, num_envs=n, backend=backend, validate_actions=True, **task)
        for backend in ("numpy", "torch")
        for n in (1, 2)
    ]
    made: list[tuple[Any, tuple[int, ...]]] = [(GlimpseEnv(TOY, **task), ())]
    made += [(env, (env.num_envs,)) for env in vectors]
    for env, _ in made:
        env.reset(seed=0)
    return made


def write(action: Any, batch: tuple[int, ...], kind: Callable[[np.ndarray], Any]) -> Any:
    """An action, repeated in all slots, in arrays of some kind."""
    if isinstance(action, dict):
        return {key: write(value, batch, kind) for key, value in action.items()}
    values = np.array(np.broadcast_to(action, batch + np.shape(action)))
    return kind(values) if values.ndim else kind(values[None])[0]


@pytest.mark.parametrize("view", ["native", "continuous", "discrete"])
@pytest.mark.parametrize("kind", TAKEN)
def test_actions_in_arrays_of_any_kind(kind: str, view: str) -> None:
    where = [0.5, 0.5] if view == "discrete" else [1, 0]
    for env, batch in environments(view):
        observation = env.step(write(action_of(view, 0), batch, TAKEN[kind]))[0]
        assert not any(getattr(value, "requires_grad", False) for value in observation.values())
        assert (np.asarray(observation["location"]) == where).all()
        _, _, over, _, info = env.step(write(action_of(view, 1), batch, TAKEN[kind]))
        assert np.all(np.asarray(over)) and np.all(np.asarray(info["prediction"]) == 2)


@pytest.mark.parametrize("view", ["native", "continuous", "discrete"])
@pytest.mark.parametrize("kind", REFUSED)
def test_arrays_that_are_no_actions(kind: str, view: str) -> None:
    kind_of, message = REFUSED[kind]
    for env, batch in environments(view):
        with pytest.raises(ValueError, match=f"action.*{message}"):
            env.step(write(action_of(view, 0), batch, kind_of))


@pytest.mark.parametrize("kind", ["list", "tensor", *UNSIGNED])
def test_options_in_arrays_of_any_kind(kind: str) -> None:
    for backend in ("numpy", "torch"):
        env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend=backend)
        options = {"image_index": TAKEN[kind](np.array([22, 0, 7]))}
        assert env.reset(options=options)[1]["image_index"].tolist() == [22, 0, 7]


# --- Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": np.full((3, 2), np.nan)}, r"action\['location'\]\[0\] = \[nan, nan\]"),
        (
            {"location": np.zeros((3, 1))},
            r"location'\] is float64 of shape \(3, 1\): expected numbers of shape \(3, 2\)",
        ),
        (
            {"location": [[0, 0], [1], [0, 0]]},
            r"'location'\] cannot be an array .*: expected numbers",
        ),
        (
            {"location": np.zeros((3, 2), bool)},
            r"action\['location'\] is bool of shape \(3, 2\): expected numbers",
        ),
        ({"stop": None}, r"action\['stop'\]"),
        ({"stop": np.array([0, 0, 2])}, r"action\['stop'\]\[2\] = 2: expected 0 or 1"),
        ({"stop": np.array([0, 0.5, 1])}, r"action\['stop'\]\[1\] = 0.5"),
        ({"prediction": np.array([0, 5, 0])}, r"action\['prediction'\]\[1\] = 5: .* 0 to 4"),
        (
            {"prediction": np.array(["a"] * 3)},
            r"action\['prediction'\].* expected numbers of shape \(3,\)",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_bad_actions(change: dict[str, Any], message: str, backend: str) -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend=backend, validate_actions=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step({**stop_all(3, 0, 0), **change})


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"reset_mask": np.ones(2, bool)},
            r"is bool of shape \(2,\): expected bool of shape \(3,\)",
        ),
        ({"reset_mask": np.ones(3)}, r"options\['reset_mask'\] is float64 .* expected bool"),
        ({"reset_mask": None}, r"options\['reset_mask'\].* expected bool"),
        ({"image_index": np.array([0, 1, 23])}, "23 is out of range"),
        ({"image_index": np.array([0, 1])}, r"expected integers of shape \(3,\)"),
        ({"image_index": np.array([0.0, 1, 2])}, r"options\['image_index'\] is float64"),
        ({"image_index": [True, False, True]}, r"options\['image_index'\] is bool"),
        ({"image_index": None}, r"options\['image_index'\].* expected integers of shape \(3,\)"),
        (
            {"image_index": [[1], [2, 3], 4]},
            r"'image_index'\] cannot be an array .*: expected integers",
        ),
        ({"mask": 1}, r"options\['mask'\]: unknown"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, backend: str) -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend=backend)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_calls_before_a_reset_of_all_slots(backend: str) -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend=backend)
    with pytest.raises(ResetNeeded, match=r"step\(\) before reset"):
        env.step(stop_all(3))
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.reset(options={"reset_mask": np.ones(3, bool)})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs=0"),
        ({"num_envs": 2.5}, ValueError, "num_envs=2.5: expected an integer of at least 1"),
        ({"num_envs": "8"}, ValueError, "num_envs='8'"),
        ({"discount": "0.9"}, ValueError, "discount='0.9'"),
        ({"backend": "torch", "device": "gpu"}, ValueError, "device='gpu': expected 'cpu', or"),
        ({"backend": "torch", "device": 1.5}, ValueError, "device=1.5: expected 'cpu', or"),
        ({"backend": "jax"}, ValueError, "backend='jax': expected one of 'numpy', 'torch'"),
        ({"device": "cuda"}, ValueError, "device='cuda': backend='numpy' runs on 'cpu' only"),
        ({"render_mode": "human"}, ValueError, "render_mode='human'"),
        ({"autoreset_mode": "Never"}, ValueError, "='Never': expected one of 'NextStep'"),
        ({"shard": (0, 1)}, TypeError, "'shard' is no keyword of GlimpseVectorEnv"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GlimpseVectorEnv(TOY, glimpse_size=4, **arguments)

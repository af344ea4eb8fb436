"""The classifier in the loop: its inputs, its probabilities, and the grade of its prediction."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dtram_env import CenterPolicy, GlimpseEnv, GlimpseVectorEnv, RandomPolicy, ScanPolicy, evaluate
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.store import box_resize
from dtram_env.sensor import margin

from .conftest import MODES, TALLY, TOY, Tally, check_env

EQUAL = [np.float32(1 / 5)] * 5

# In every view: a glimpse at (0.5, -0.5), the second cell of a 2x2 grid; and a stop.
LOOK: dict[str, Any] = {
    "native": {"location": [0.5, -0.5], "stop": 0},
    "continuous": [0.5, -0.5, -1.0],
    "discrete": [1, 0],
    "single": 1,
}
STOP: dict[str, Any] = {
    "native": {"location": [0.5, -0.5], "stop": 1},
    "continuous": [0.5, -0.5, 1.0],
    "discrete": [1, 1],
    "single": 4,
}
SPACES: dict[str, spaces.Space] = {
    "native": spaces.Dict(location=spaces.Box(-1, 1, (2,), np.float32), stop=spaces.Discrete(2)),
    "continuous": spaces.Box(-1, 1, (3,), np.float32),
    "discrete": spaces.MultiDiscrete([4, 2]),
    "single": spaces.Discrete(5),
}


def grid(view: str) -> dict[str, Any]:
    """The keywords of a view of a 2x2 grid, if it has one."""
    return {"view": view, "grid": 2} if view in ("discrete", "single") else {"view": view}


def make(cls: type = GlimpseEnv, **task: Any) -> Any:
    """A policy-only environment of the toy images with glimpses of 4 pixels."""
    return cls(TOY, **{"glimpse_size": 4, "discount": 0.5, "classifier": TALLY, **task})


def center_vote(image: int) -> int:
    """The tally's vote after a first glimpse at the centre: rows 5-8, columns 3-6."""
    return int(TOY.images[image, 5:9, 3:7].sum()) % 5


def right_vote(image: int) -> int:
    """Its vote for (0.5, -0.5): centre (7.5, 3.5), so left 6, top 2; plus 1, as it is right."""
    return int(TOY.images[image, 2:6, 6:10].sum() + 1) % 5


def belief(*votes: int) -> list[float]:
    """Fractions of the votes."""
    count = np.bincount(np.array(votes, np.int64), minlength=5)
    return (count / np.float32(len(votes))).astype(np.float32).tolist()


# --- Episodes by hand


@pytest.mark.parametrize("view", ["native", "continuous", "discrete", "single"])
def test_an_episode_by_hand(view: str) -> None:
    env = make(**grid(view), max_glimpses=3)
    assert env.action_space == SPACES[view]
    assert env.observation_space["probs"] == spaces.Box(0, 1, (5,), np.float32)
    for image in range(23):
        first, second = center_vote(image), right_vote(image)
        observation, _ = env.reset(options={"image_index": image})
        assert observation["probs"].dtype == np.float32
        assert observation["probs"].tolist() == belief(first)
        observation, reward, over, _, info = env.step(copy.deepcopy(LOOK[view]))
        assert observation["probs"].tolist() == belief(first, second)
        np.testing.assert_array_equal(observation["location"], [0.5, -0.5])
        assert (reward, over) == (0.0, False) and "prediction" not in info
        last, reward, over, _, info = env.step(STOP[view])
        answer = min(first, second)  # one vote each: the first of equals
        right = answer == TOY.labels[image]
        assert (over, info["prediction"], info["is_success"]) == (True, answer, right)
        assert reward == 0.25 * right
        for key, value in last.items():  # no glimpse is taken after the end
            np.testing.assert_array_equal(value, observation[key])


def test_a_classifier_that_learns_leaves_no_graph() -> None:
    class Learning(Tally):
        weight = torch.ones((), requires_grad=True)

        def step(self, observation: Any, state: Any) -> Any:
            probs, votes = super().step(observation, state)
            return probs * self.weight, votes

    env: Any = gym.make_vec(
        "DTRAM-Signpost-v0", num_envs=2, backend="torch", classifier=Learning(4), view="single"
    )
    env.reset(seed=0)
    assert not env.step(np.zeros(2, np.int64))[0]["probs"].requires_grad


@pytest.mark.parametrize("view", ["native", "single"])
def test_first_glimpse_choose(view: str) -> None:
    env = make(**grid(view), first_glimpse="choose", max_glimpses=1)
    observation, _ = env.reset(options={"image_index": 2})
    assert observation["probs"].tolist() == EQUAL
    # A stop is ignored: the first glimpse is taken, for "single" at the centre.
    observation, _, over, _, _ = env.step(STOP[view])
    vote = center_vote(2) if view == "single" else right_vote(2)
    assert not over and observation["probs"].tolist() == belief(vote)
    assert env.step(LOOK[view])[4]["prediction"] == vote


def test_first_glimpse_thumbnail_is_read_too() -> None:
    env = make(view="native", first_glimpse="thumbnail", num_scales=2)
    observation, _ = env.reset(options={"image_index": 5})
    small = box_resize(TOY.images[5:6], 4)
    assert observation["probs"].tolist() == belief(2 * int(small.sum()) % 5)


def test_first_glimpse_random_is_read_where_it_was_taken() -> None:
    env = make(view="native", first_glimpse="random")
    env.reset(seed=0)
    store = TOY.store(margin(4, 1))
    for _ in range(20):
        observation, info = env.reset()
        x, y = observation["location"].astype(np.float64)
        left, top = np.floor((x + 1) * 5 - 1.5), np.floor((y + 1) * 7 - 1.5)
        rows, columns = np.arange(4) + int(top), np.arange(4) + int(left)
        inside = store.images[info["image_index"]][
            np.ix_(rows[(rows >= 0) & (rows < 14)], columns[(columns >= 0) & (columns < 10)])
        ]
        vote = (int(inside.sum()) + (x > 0)) % 5
        assert observation["probs"].tolist() == belief(vote)


@pytest.mark.parametrize("shown", [{"observe": "canvas"}, {"glimpse_format": "flat"}])
def test_the_classifier_always_reads_native_observations(
    shown: dict[str, Any],
) -> None:
    """`Tally` asserts that its glimpses are native; its probabilities must be the same, too."""
    for first in ("center", "thumbnail", "choose"):
        plain = make(view="single", grid=2, first_glimpse=first, glimpse_format="image")
        other = make(view="single", grid=2, first_glimpse=first, **shown)
        for image in range(5):
            seen = [env.reset(options={"image_index": image})[0] for env in (plain, other)]
            for action in (1, 2, 0, 4):
                np.testing.assert_array_equal(seen[0]["probs"], seen[1]["probs"])
                seen = [env.step(action)[0] for env in (plain, other)]
    key = "canvas" if "observe" in shown else "glimpse"
    assert (seen[1][key].ndim, seen[1][key].dtype) == (1, np.float32)


# --- New episodes


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("mode", MODES)
def test_a_new_episode_starts_from_a_fresh_state(mode: str, backend: str) -> None:
    """Slot 1 goes on while slots 0 and 2 end after their second glimpse and start again."""
    env = make(
        GlimpseVectorEnv,
        num_envs=3,
        view="single",
        grid=2,
        order="sequential",
        autoreset_mode=mode,
        backend=backend,
    )

    def probs(observation: dict[str, Any]) -> list[list[float]]:
        return observation["probs"].tolist()

    # 23 images in blocks of 7, 8, 8: they begin at 0, 7 and 15.
    def first(image: int) -> int:
        return center_vote(image)

    def both(image: int) -> list[float]:
        return belief(first(image), right_vote(image))

    three = belief(first(7), right_vote(7), right_vote(7))
    assert probs(env.reset()[0]) == [belief(first(i)) for i in (0, 7, 15)]
    assert probs(env.step(np.array([1, 1, 1]))[0]) == [both(i) for i in (0, 7, 15)]
    observation, reward, over, _, infos = env.step(np.array([4, 1, 4]))
    assert over.tolist() == [True, False, True]
    answers = [min(first(i), right_vote(i)) for i in (0, 15)]
    graded = infos["final_info"] if mode == "SameStep" else infos
    assert graded["prediction"].tolist() == [answers[0], 0, answers[1]]
    paid = [0.25 * (answer == TOY.labels[i]) for answer, i in zip(answers, (0, 15), strict=True)]
    assert reward.tolist() == [paid[0], 0.0, paid[1]]
    if mode == "SameStep":
        assert probs(observation) == [belief(first(1)), three, belief(first(16))]
        final = infos["final_obs"]
        last = [final["probs"][i] if backend == "torch" else final[i]["probs"] for i in (0, 2)]
        assert [row.tolist() for row in last] == [both(0), both(15)]
    else:
        assert probs(observation) == [both(0), three, both(15)]  # the terminal one repeats
    if mode == "NextStep":  # the action of a slot that starts again is ignored
        observation = env.step(np.array([4, 4, 4]))[0]
        assert probs(observation) == [belief(first(1)), three, belief(first(16))]
    if mode == "Disabled":
        observation, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
        assert probs(observation) == [belief(first(1)), three, both(15)]
        observation = env.step(np.array([1, 4, 0]))[0]  # slot 2 still rests
        assert probs(observation) == [both(1), three, both(15)]
    assert probs(env.reset()[0]) == [belief(first(i)) for i in (0, 7, 15)]


def test_observations_may_be_changed_by_the_user() -> None:
    for backend in ("numpy", "torch"):
        env = make(GlimpseVectorEnv, num_envs=2, view="single", grid=2, backend=backend)
        observation, _ = env.reset(options={"image_index": np.array([3, 8])})
        observation["probs"][...] = 0
        assert env.reset(options={"image_index": np.array([3, 8])})[0]["probs"].tolist() == [
            belief(center_vote(3)),
            belief(center_vote(8)),
        ]
        observation, *_ = env.step(np.array([1, 1]))
        observation["probs"][...] = 0
        again = env.step(np.array([4, 1]))[0]["probs"][0].tolist()
        assert again == belief(center_vote(3), right_vote(3))


# --- Masks


def masks_of(env: Any) -> list[bool]:
    row = env.action_masks()
    assert row.dtype == bool
    return row.tolist()


def test_masks_without_a_prediction() -> None:
    env = make(view="discrete", grid=2, mask_seen=True, min_glimpses=2)
    env.reset(seed=0)
    assert masks_of(env) == [True] * 4 + [True, False]  # cells, go on, stop
    env.step([1, 0])
    assert masks_of(env) == [True, False, True, True, True, True]


def test_masks_of_the_single_view() -> None:
    env = make(view="single", grid=2, mask_seen=True, min_glimpses=3, max_glimpses=7)
    env.reset(seed=0)
    assert masks_of(env) == [True] * 4 + [False]  # cells, stop
    env.step(2)
    assert masks_of(env) == [True, True, False, True, False]
    env.step(0)
    assert masks_of(env) == [False, True, False, True, True]
    env.step(1)
    env.step(3)
    assert masks_of(env) == [True] * 5  # all seen: none forbidden
    vector = make(GlimpseVectorEnv, num_envs=3, view="single", grid=2, first_glimpse="choose")
    vector.reset(seed=0)
    assert vector.action_masks().tolist() == [[True] * 4 + [False]] * 3  # at time 0 nothing to stop


# --- Bad input


@pytest.mark.parametrize(
    ("view", "action", "message"),
    [
        ("native", {**STOP["native"], "prediction": 0}, r"keys \['location', 'prediction', 'stop'"),
        ("native", [0, 0, 1], "action is a list: expected a dict with the keys 'location', 'stop'"),
        ("continuous", [0.0] * 8, r"shape \(8,\): expected numbers of shape \(3,\)"),
        ("discrete", [0, 0, 0], r"shape \(3,\): expected numbers of shape \(2,\)"),
        ("discrete", [4, 0], r"action\[0\] \(cell\) = 4"),
        ("single", 5, "action = 5: expected an integer from 0 to 4"),
        ("single", -1, "action = -1: expected an integer from 0 to 4"),
        ("single", 0.5, "action = 0.5: expected an integer"),
        ("single", [1], r"action = \[1\]: expected an integer"),
    ],
)
def test_bad_actions(view: str, action: Any, message: str) -> None:
    env = make(**grid(view))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.step(LOOK[view])[4]["num_glimpses"] == 2  # the refused action changed nothing


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_bad_actions_of_the_vector_environment(backend: str) -> None:
    env = make(
        GlimpseVectorEnv,
        num_envs=3,
        view="single",
        grid=2,
        backend=backend,
        validate_actions=True,
    )
    env.reset(seed=0)
    for action, message in [
        ([0, 5, 0], r"action\[1\] = 5: expected an integer from 0 to 4"),
        ([0, 0, -1], r"action\[2\] = -1"),
        ([0.0, 0.5, 0.0], r"action\[1\] = 0.5"),
        ([[0], [0], [0]], r"shape \(3, 1\): expected numbers of shape \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.step(np.array(action))
    env = make(GlimpseVectorEnv, num_envs=2, backend=backend)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action has the keys .*'prediction'"):
        env.step({"location": np.zeros((2, 2)), "stop": np.zeros(2), "prediction": np.zeros(2)})


def test_unchecked_cells_are_clipped() -> None:
    env = make(GlimpseVectorEnv, num_envs=2, view="single", grid=2, backend="torch")
    env.reset(seed=0)
    observation, _, over, _, _ = env.step(torch.tensor([-3, 99]))
    assert over.tolist() == [False, True] and observation["location"][0].tolist() == [-0.5, -0.5]


class ThreeClasses(Tally):
    """Refuses environments that do not have 3 classes."""

    def check_spaces(self, observation_space: spaces.Dict, num_classes: int) -> None:
        if num_classes != 3:
            raise ValueError(f"{list(observation_space)}, {num_classes} classes: not mine")


def test_bad_classifiers() -> None:
    message = "classifier='mnist-classifier': expected a dtram_env.Classifier, or None; agents"
    for make_it in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make_it("DTRAM-Signpost-v0", classifier="mnist-classifier")
        with pytest.raises(ValueError, match=r"view='single': .* needs a classifier in the loop"):
            make_it("DTRAM-Signpost-v0", view="single")
    # `check_spaces` gets the native space, not the view's.
    refused = r"\['glimpse', 'location', 'time'\], 5 classes: not mine"
    with pytest.raises(ValueError, match=refused):
        make(classifier=ThreeClasses(), view="continuous", observe="canvas")
    for backend in ("numpy", "torch"):
        env = make(GlimpseVectorEnv, num_envs=2, classifier=Tally(7), backend=backend)
        wrong = r"classifier 'tally' gave probabilities of shape \(2, 7\): expected \(2, 5\)"
        with pytest.raises(ValueError, match=wrong):
            env.reset(seed=0)


# --- Fixed policies, and the checkers of Gymnasium and SB3


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("num_envs", [1, 7, 64])
def test_evaluate_a_policy_without_predictions(num_envs: int, backend: str) -> None:
    data = Dataset("Toy", "test", TOY.images, TOY.labels, TOY.class_names)
    common: dict[str, Any] = {
        "dataset": data,
        "glimpse_size": 4,
        "classifier": TALLY,
        "num_envs": num_envs,
        "backend": backend,
    }
    votes = np.array([center_vote(i) for i in range(23)])
    result = evaluate(CenterPolicy(None, stop_after=1), "DTRAM-Signpost-v0", **common)
    np.testing.assert_array_equal(result.prediction, votes)
    np.testing.assert_allclose(result.reward, 0.98 * (votes == TOY.labels), rtol=1e-6)
    policy = ScanPolicy(None, grid=2, stop_after=3)  # after the centre: cells 0 and 1
    result = evaluate(policy, "DTRAM-Signpost-v0", **common)
    assert result.mean_glimpses == 3.0
    for i in range(23):
        left = int(TOY.images[i, 2:6, 1:5].sum()) % 5  # centre (2.5, 3.5)
        shares = belief(center_vote(i), left, right_vote(i))
        assert result.prediction[i] == np.argmax(shares)


def test_policies_refuse_environments_with_other_predictions() -> None:
    rows: list[tuple[Any, dict[str, Any], str]] = [
        (RandomPolicy(4), {"classifier": Tally(4)}, "the environment expects num_classes=None"),
        (ScanPolicy(None), {}, "the environment expects num_classes=4"),
    ]
    for policy, keywords, message in rows:
        with pytest.raises(ValueError, match=message):
            evaluate(policy, "DTRAM-Signpost-v0", **keywords)
    with pytest.raises(ValueError, match="guess=1: expected None with num_classes=None"):
        CenterPolicy(None, guess=1)
    action, _ = RandomPolicy(None).step({"time": np.ones((3, 1))}, np.zeros(3, np.int64))
    assert set(action) == {"location", "stop"}


@pytest.mark.parametrize(
    ("view", "first"),
    [
        *((view, "center") for view in SPACES),
        ("native", "thumbnail"),
        ("single", "choose"),
    ],
)
def test_check_env_of_gymnasium_and_of_sb3(view: str, first: str) -> None:
    keywords: dict[str, Any] = {"view": view, "classifier": Tally(4), "first_glimpse": first}
    env = gym.make("DTRAM-Signpost-v0", **keywords).unwrapped
    expected = ["not based off a numpy array", "minimal resolution"] if view == "native" else []
    check_env(env, *expected)

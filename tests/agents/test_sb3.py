"""Stable-Baselines3: the features extractor, the adapter, and FLOPs."""

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as maskable_evaluate_policy
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from torch import nn

import dtram_env
from agents.dtram import DTRAM, DTRAMConfig
from agents.policy_only import FrozenClassifier
from agents.sb3 import (
    GlimpseExtractor,
    Sb3Policy,
    flops_per_glimpse,
    ignore_unread,
    learn_labels,
    policy_settings,
    set_first_stop,
)
from dtram_env.datasets import Dataset
from dtram_env.sb3 import Sb3VecEnv

ID = "DTRAM-Signpost-v0"
COUNT = 120


def patches() -> Dataset:
    """Images of 7x7 random squares, so that every glimpse differs from the others."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (COUNT, 7, 7, 1), dtype=np.uint8)
    images = squares.repeat(4, axis=1).repeat(4, axis=2)
    return Dataset("Patches", "test", images, rng.integers(0, 4, COUNT), ("a", "b", "c", "d"))


DATA = patches()
QUIET: dict[str, Any] = {"gamma": 1.0, "seed": 0, "device": "cpu"}


def small_agent() -> DTRAM:
    """An untrained agent for Signpost, whose heads differ after every glimpse."""
    torch.manual_seed(0)
    agent = DTRAM(DTRAMConfig(4, (8, 8, 1), 4, hidden_size=16))
    scatter(agent)
    return agent.eval()


def scatter(network: nn.Module, seed: int = 1) -> None:
    """Sets weights so that small differences between glimpses change the actions."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=3 * parameter.shape[1] ** -0.5)
            parameter.data -= parameter.data.mean(1, keepdim=True)  # what all share cancels
        else:
            nn.init.zeros_(parameter)


def vary(network: nn.Module, policy: Any, **task: Any) -> dtram_env.Evaluation:
    """Scatters a policy's weights until its answers and its stops differ among the images.

    Args:
        network: the network that gets the weights.
        policy: the policy that acts with it.
        **task: keywords of the environment.

    Returns:
        The policy's evaluation; its last wave of episodes holds repeats.
    """
    for seed in range(50):
        scatter(network, seed)
        found = dtram_env.evaluate(policy, ID, dataset=DATA, num_envs=50, **task)
        if min(len(set(found.prediction)), len(set(found.num_glimpses))) > 1:
            return found
    raise AssertionError("no seed makes it vary")


def per_image(
    model: Any, venv: Any, evaluate: Callable[..., Any] = evaluate_policy
) -> dict[str, np.ndarray]:
    """Results of `evaluate_policy` on a sequential pass, in the order of the images."""
    rows: dict[int, tuple[Any, ...]] = {}

    def note(local: dict[str, Any], _: Any) -> None:
        if local["done"]:
            info = local["info"]
            assert not info["repeat"] and info["image_index"] not in rows
            rows[info["image_index"]] = (
                info["prediction"],
                info["num_glimpses"],
                info["episode"]["r"],
                info["label"],
            )

    evaluate(model, VecMonitor(venv), n_eval_episodes=COUNT, callback=note)
    assert sorted(rows) == list(range(COUNT))
    columns = zip(*(rows[i] for i in range(COUNT)), strict=True)
    names = ("prediction", "num_glimpses", "reward", "label")
    return {name: np.array(column) for name, column in zip(names, columns, strict=True)}


def assert_agree(seen: dict[str, np.ndarray], exact: dtram_env.Evaluation) -> None:
    for name in ("prediction", "num_glimpses", "label"):
        np.testing.assert_array_equal(seen[name], getattr(exact, name))
    np.testing.assert_allclose(seen["reward"], exact.reward, rtol=1e-6)


# --- The extractor


@pytest.mark.parametrize(
    ("task", "sizes", "numbers"),
    [
        ({"view": "continuous"}, {"glimpse": 64}, 3),
        ({"view": "continuous", "num_scales": 2}, {"glimpse": 128}, 3),
        ({"view": "discrete", "glimpse_format": "image"}, {"glimpse": 64}, 3),
        ({"view": "discrete", "observe": "canvas"}, {"canvas": 28 * 28 * 2}, 3),
        (
            {"view": "single", "observe": "canvas", "glimpse_format": "image", "classifier": 4},
            {"canvas": 32 * 5 * 5},
            3 + 4,
        ),
        ({"view": "native", "classifier": 4}, {"glimpse": 64}, 3 + 4),
        (
            {"view": "continuous", "glimpse_format": "image", "first_glimpse": "thumbnail"}
            | {"thumbnail_size": 36},
            {"glimpse": 64, "thumbnail": 32 * 3 * 3},
            3,
        ),
    ],
    ids=["flat", "scales", "image", "flat-canvas", "canvas", "probs", "thumbnail"],
)
def test_extractor(task: dict[str, Any], sizes: dict[str, int], numbers: int) -> None:
    """A linear layer under 12 pixels, then two convolutions, with larger strides from 36 on."""
    if "classifier" in task:
        task = {**task, "classifier": FrozenClassifier(small_agent(), "small")}
    venv: Any = gym.make_vec(ID, num_envs=3, **task)
    channels_first = {
        key: spaces.Box(0, 255, (space.shape[2], *space.shape[:2]), np.uint8)
        if len(space.shape) == 3
        else space
        for key, space in venv.single_observation_space.items()
    }
    space = spaces.Dict(channels_first)
    torch.manual_seed(0)
    extractor = GlimpseExtractor(space, features_dim=10, what_features=6, where_features=7)
    assert extractor.features_dim == 10
    for key, size in sizes.items():
        first: Any = extractor.what[key][1]  # type: ignore[index]
        assert (first.in_features, first.out_features) == (size, 6)
    assert set(extractor.what) == set(sizes)
    assert extractor.where[0].in_features == numbers
    assert extractor.join[0].in_features == 6 * len(extractor.what) + 7
    observation, _ = venv.reset(seed=0)
    tensors = {
        key: torch.from_numpy(
            np.moveaxis(value, -1, 1) if value.ndim == 4 else value  # as VecTransposeImage does
        )
        for key, value in observation.items()
    }
    features = extractor(preprocess_obs(tensors, space))
    assert features.shape == (3, 10) and (features >= 0).all()
    # By hand, from pixels in [0, 1].
    place, join = extractor.where[0], extractor.join[0]
    rest = torch.cat([tensors[key] for key in extractor.rest], 1)
    assert isinstance(place, nn.Linear) and isinstance(join, nn.Linear)
    parts = []
    for key, path in extractor.what.items():
        pixels = tensors[key] / 255 if tensors[key].dtype == torch.uint8 else tensors[key]
        filters = [one for one in path.modules() if isinstance(one, nn.Conv2d)]
        strides = {800: [2, 2], 288: [4, 2]}.get(sizes[key], [])
        for one, stride in zip(filters, strides, strict=True):
            pixels = nn.functional.conv2d(pixels, one.weight, one.bias, stride=stride).relu()
        parts.append(path[1](pixels.flatten(1)).relu())  # type: ignore[index]
    where = (3 * rest @ place.weight.T + place.bias).relu()
    joined = torch.cat([*parts, where], 1)
    expected = (joined @ join.weight.T + join.bias).relu()
    torch.testing.assert_close(features, expected)


def test_policy_settings() -> None:
    chosen = policy_settings(32, what_features=8, activation_fn=nn.ReLU, net_arch=[5])
    assert chosen == {
        "features_extractor_class": GlimpseExtractor,
        "features_extractor_kwargs": {"features_dim": 32, "what_features": 8},
        "net_arch": [5],  # what is given wins
        "activation_fn": nn.ReLU,
    }
    assert policy_settings(9)["net_arch"] == [9]
    for name in ("width", "what_features", "lstm_hidden_size"):
        for size in (0, 10**9, 2.5):
            with pytest.raises(ValueError, match=f"{name}={size}: expected an integer from 1 to"):
                policy_settings(**{name: size})


# --- The first probability of stopping


@pytest.mark.parametrize("first", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("algorithm", "view", "std"),
    [
        (PPO, "discrete", 0.0),
        (MaskablePPO, "discrete", 0.0),
        (A2C, "single", 0.0),
        (PPO, "continuous", -1.0),  # of the actions, logarithm
    ],
)
def test_an_untrained_model_stops_as_often_as_it_is_told(
    algorithm: Any, view: str, std: float, first: float
) -> None:
    task = with_classifier({"view": view, "classifier": True})
    env = Sb3VecEnv(ID, 4096, **task)
    more = {"log_std_init": std} if std else {}
    model = algorithm("MultiInputPolicy", env, policy_kwargs=policy_settings(16, **more), **QUIET)
    set_first_stop(model, first)
    seen: Any = env.reset()
    with torch.no_grad():
        action = model.policy(model.policy.obs_to_tensor(seen)[0])[0].numpy()
    cells = int(np.ravel(getattr(env.action_space, "nvec", getattr(env.action_space, "n", 0)))[0])
    stops = {"discrete": action[..., 1] == 1, "continuous": action[..., -1] > 0}.get(view)
    found = np.mean(action == cells - 1 if stops is None else stops)
    assert found == pytest.approx(first, abs=0.03)


def test_first_stops_that_cannot_be(mnist_folder: Path) -> None:
    env = Sb3VecEnv(ID, 2, view="discrete")
    model = PPO("MultiInputPolicy", env, policy_kwargs=policy_settings(16), **QUIET)
    for wrong in (0.0, 1.0, -1, "half"):
        with pytest.raises(ValueError, match=f"probability={wrong!r}: expected a number between"):
            set_first_stop(model, wrong)  # type: ignore[arg-type]
    single = Sb3VecEnv(ID, 2, **with_classifier({"view": "single", "classifier": True}))
    other = DQN("MultiInputPolicy", single, policy_kwargs=policy_settings(16), **QUIET)
    with pytest.raises(
        ValueError, match="DQN: expected PPO, A2C, RecurrentPPO or MaskablePPO with"
    ):
        set_first_stop(other, 0.1)
    env = Sb3VecEnv(ID, 2, view="continuous")
    noise = PPO("MultiInputPolicy", env, policy_kwargs=policy_settings(16), use_sde=True, **QUIET)
    with pytest.raises(ValueError, match=r"PPO: expected .* without gSDE"):
        set_first_stop(noise, 0.1)


# --- What the environment reads of an action

READ = [
    (algorithm, view, policy_only)
    for algorithm in (PPO, A2C, RecurrentPPO, MaskablePPO)
    for view in ("discrete", "continuous")
    for policy_only in (False, True)
    if (algorithm, view) != (MaskablePPO, "continuous")
]


@pytest.mark.parametrize(("algorithm", "view", "policy_only"), READ)
def test_scores_and_entropy_are_of_what_the_environment_reads(
    algorithm: Any, view: str, policy_only: bool
) -> None:
    """Of three observations the last one is at the end of the budget; one of two actions stops."""
    task = with_classifier({"view": view, **({"classifier": True} if policy_only else {})})
    policy = "MultiInputLstmPolicy" if algorithm is RecurrentPPO else "MultiInputPolicy"
    env = Sb3VecEnv(ID, 3, **task)
    model = algorithm(policy, env, policy_kwargs=policy_settings(16, 8), **QUIET)
    ignore_unread(model)
    observation = env.reset()
    observation["time"] = np.float32([[0.25], [0.5], [1.0]])
    tensors = model.policy.obs_to_tensor(observation)[0]
    distribution = model.policy.action_dist
    features = model.policy.extract_features(tensors)
    outputs = torch.linspace(-1, 1, 3 * model.policy.action_net.out_features).view(3, -1)
    assert features.shape == (3, 16)
    if view == "discrete":
        distribution.proba_distribution(outputs)
        sizes = env.action_space.nvec.tolist()
        logs = [part.log_softmax(-1) for part in outputs.split(sizes, dim=-1)]
        actions = torch.tensor([[1, stop, 2][: len(sizes)] for stop in (0, 1, 0)])
        found = [log[torch.arange(3), k] for log, k in zip(logs, actions.T, strict=True)]
        entropies = [-(log.exp() * log).sum(-1) for log in logs]
        p = logs[1].exp()[:, 1]
    else:
        distribution.proba_distribution(outputs, torch.zeros(outputs.shape[1]))
        normal = torch.distributions.Normal(outputs, 1.0)
        actions = torch.full_like(outputs, 0.3)
        actions[:, 2] = torch.tensor([-1.0, 1.0, -1.0])
        split = [2, 1, outputs.shape[1] - 3]
        found = [log.sum(-1) for log in normal.log_prob(actions).split(split, dim=-1)]
        entropies = [part.sum(-1) for part in normal.entropy().split(split, dim=-1)]
        p = 1 - normal.cdf(torch.tensor(0.0))[:, 2]
    none = torch.zeros(3)
    location, stop, prediction = [*found, none][:3]
    expected = torch.stack([location[0] + stop[0], stop[1] + prediction[1], prediction[2]])
    torch.testing.assert_close(distribution.log_prob(actions), expected)
    location, stop, prediction = [*entropies, none][:3]
    going_on = stop + p * prediction + (1 - p) * location
    expected = torch.stack([going_on[0], going_on[1], prediction[2]])
    torch.testing.assert_close(distribution.entropy(), expected)


@pytest.mark.parametrize("algorithm", [PPO, A2C, RecurrentPPO, MaskablePPO])
def test_labels_add_their_cross_entropy_to_the_loss(algorithm: Any) -> None:
    """The gradient of the logits of the prediction is (p - 1[label]) / B, added to the scores'."""
    policy = "MultiInputLstmPolicy" if algorithm is RecurrentPPO else "MultiInputPolicy"
    env = Sb3VecEnv(ID, 3, view="discrete", show_label=True)
    model = algorithm(policy, env, policy_kwargs=policy_settings(16, 8), **QUIET)
    observation: Any = env.reset()
    tensors = model.policy.obs_to_tensor(observation)[0]
    tensors["label"][2] = 0  # as where RecurrentPPO pads a sequence
    model.policy.extract_features(tensors)
    distribution, sizes = model.policy.action_dist, env.action_space.nvec.tolist()  # type: ignore[attr-defined]
    actions = torch.tensor([[1, 0, 2], [0, 1, 1], [2, 0, 0]])

    def gradient() -> torch.Tensor:
        outputs = torch.linspace(-1, 1, 3 * sum(sizes)).view(3, -1).requires_grad_()
        distribution.proba_distribution(outputs)
        (distribution.log_prob(actions) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert outputs.grad is not None
        return outputs.grad

    model.set_logger(Logger(None, []))
    ignore_unread(model)
    without = gradient()
    learn_labels(model)
    p = torch.linspace(-1, 1, 3 * sum(sizes)).view(3, -1)[:, -sizes[2] :].softmax(dim=-1)
    expected = (p - tensors["label"]) / 2
    expected[2] = 0
    added = gradient() - without
    torch.testing.assert_close(added[:, -sizes[2] :], expected)
    assert not added[:, : -sizes[2]].any()
    loss = -(tensors["label"] * p.log()).sum() / 2
    assert model.logger.name_to_value["train/label_loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("algorithm", [PPO, A2C, RecurrentPPO, MaskablePPO])
def test_a_model_learns_from_what_is_read_and_from_labels(algorithm: Any) -> None:
    """It learns, with labels otherwise than without, is saved, and acts as before. It plays where
    no label is shown."""
    policy = "MultiInputLstmPolicy" if algorithm is RecurrentPPO else "MultiInputPolicy"
    size = {} if algorithm is A2C else {"batch_size": 32}
    kwargs = {"n_steps": 8, "policy_kwargs": policy_settings(16, 8), **size, **QUIET}
    weights = []
    for learns_labels in (False, True):
        env = Sb3VecEnv(ID, 4, view="discrete", show_label=True)
        model = algorithm(policy, env, **kwargs)
        ignore_unread(model)
        if learns_labels:
            learn_labels(model)
        before = nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        model.learn(64)
        weights.append(nn.utils.parameters_to_vector(model.policy.parameters()).detach())
        assert not torch.equal(before, weights[-1])
        file = io.BytesIO()
        model.save(file)
        file.seek(0)
        seen, again = env.reset(), algorithm.load(file)
        actions = [one.predict(seen, deterministic=True)[0] for one in (model, again)]
        np.testing.assert_array_equal(*actions)
    assert weights[0].shape == weights[1].shape and not torch.equal(*weights)
    found = dtram_env.evaluate(Sb3Policy(model), ID, "validation", view="discrete")
    assert found.images == 600


def test_models_that_cannot_learn_labels() -> None:
    kwargs: dict[str, Any] = {"policy_kwargs": policy_settings(16, 8), **QUIET}
    twice = PPO("MultiInputPolicy", Sb3VecEnv(ID, 2, view="discrete", show_label=True), **kwargs)
    learn_labels(twice)
    with pytest.raises(ValueError, match="learns labels already; call learn_labels once"):
        learn_labels(twice)
    with pytest.raises(ValueError, match="expected before learn_labels"):
        ignore_unread(twice)
    for keys, fits in ((["location", "label"], False), (["location"], True)):
        normal = VecNormalize(
            Sb3VecEnv(ID, 2, view="discrete", show_label=True), norm_obs_keys=keys
        )
        with nullcontext() if fits else pytest.raises(ValueError, match="without 'label'"):
            learn_labels(PPO("MultiInputPolicy", normal, **kwargs))
    reads = PPO("MultiInputPolicy", Sb3VecEnv(ID, 2, view="discrete", show_label=True), **QUIET)
    with pytest.raises(ValueError, match=r"was made for the observation_space .*'label'"):
        dtram_env.evaluate(Sb3Policy(reads), ID, "validation", view="discrete")
    for model in (
        PPO("MultiInputPolicy", Sb3VecEnv(ID, 2, view="discrete"), **kwargs),
        PPO("MultiInputPolicy", Sb3VecEnv(ID, 2, view="continuous", show_label=True), **kwargs),
    ):
        with pytest.raises(ValueError, match="PPO: expected PPO, A2C, RecurrentPPO or MaskablePPO"):
            learn_labels(model)


def test_models_without_parts_to_ignore() -> None:
    single = PPO(
        "MultiInputPolicy",
        Sb3VecEnv(ID, 2, **with_classifier({"view": "single", "classifier": True})),
        policy_kwargs=policy_settings(16, 8),
        **QUIET,
    )
    ignore_unread(single)
    env = Sb3VecEnv(ID, 2, view="continuous")
    others = [
        SAC("MultiInputPolicy", env, policy_kwargs=policy_settings(16, 8), **QUIET),
        PPO("MultiInputPolicy", env, policy_kwargs=policy_settings(16, 8), use_sde=True, **QUIET),
        PPO("MultiInputPolicy", env, **QUIET),
    ]
    for other in others:
        with pytest.raises(ValueError, match=f"{type(other).__name__}: expected PPO, A2C,"):
            ignore_unread(other)
    for keys, fits in ((["location", "time"], False), (["location"], True)):
        normal = VecNormalize(Sb3VecEnv(ID, 2, view="discrete"), norm_obs_keys=keys)
        model = PPO("MultiInputPolicy", normal, policy_kwargs=policy_settings(16, 8), **QUIET)
        with nullcontext() if fits else pytest.raises(ValueError, match="without 'time'"):
            ignore_unread(model)


# --- An SB3 model behind `dtram_env.evaluate`

MODELS: list[tuple[Any, dict[str, Any]]] = [
    (PPO, {"view": "continuous"}),
    (PPO, {"view": "discrete", "glimpse_format": "image", "num_scales": 2}),
    (MaskablePPO, {"view": "discrete", "mask_seen": True, "min_glimpses": 3, "grid": 2}),
    (RecurrentPPO, {"view": "discrete", "observe": "canvas"}),
    (DQN, {"view": "single", "classifier": True}),
    (SAC, {"view": "continuous", "classifier": True}),
]


def make_model(algorithm: Any, task: dict[str, Any]) -> Any:
    """An untrained model whose actions differ between states."""
    env = Sb3VecEnv(ID, 2, split="validation", **task)
    lstm = {"lstm_hidden_size": 8, "n_lstm_layers": 2} if algorithm is RecurrentPPO else {}
    policy = "MultiInputLstmPolicy" if lstm else "MultiInputPolicy"
    model = algorithm(policy, env, policy_kwargs=policy_settings(16, 8, **lstm), **QUIET)
    scatter(model.policy)
    return model


def with_classifier(task: dict[str, Any]) -> dict[str, Any]:
    if "classifier" not in task:
        return task
    return {**task, "classifier": FrozenClassifier(small_agent(), "small")}


@pytest.mark.parametrize(
    ("algorithm", "task"), MODELS, ids=[f"{row[0].__name__}-{row[1]['view']}" for row in MODELS]
)
def test_sb3_policy_agrees_with_evaluate_policy(algorithm: Any, task: dict[str, Any]) -> None:
    task = with_classifier(task)
    model = make_model(algorithm, task)
    policy = Sb3Policy(model)
    exact = vary(model.policy, policy, **task)
    again = dtram_env.evaluate(policy, ID, dataset=DATA, num_envs=COUNT, **task)
    np.testing.assert_array_equal(again.prediction, exact.prediction)
    np.testing.assert_array_equal(again.num_glimpses, exact.num_glimpses)
    evaluate = evaluate_policy
    if algorithm is MaskablePPO:
        assert exact.num_glimpses.min() == 3  # stopping before is masked
        evaluate = maskable_evaluate_policy  # SB3's own passes no masks
    venv = Sb3VecEnv(ID, 50, dataset=DATA, order="sequential", **task)
    assert_agree(per_image(model, venv, evaluate), exact)


def test_sb3_policy_takes_tensors_and_begins_anew_after_reset() -> None:
    model = make_model(RecurrentPPO, {"view": "discrete"})
    policy = Sb3Policy(model)
    task: dict[str, Any] = {"view": "discrete", "dataset": DATA}
    exact = vary(model.policy, policy, view="discrete")
    tensors = dtram_env.evaluate(policy, ID, backend="torch", **task)
    np.testing.assert_array_equal(tensors.prediction, exact.prediction)
    np.testing.assert_array_equal(tensors.num_glimpses, exact.num_glimpses)

    observation, _ = gym.make_vec(ID, num_envs=6, **task).reset(seed=0)
    first, state = policy.step(observation, policy.reset(6))
    _, after = policy.step(observation, state)
    for before, now in zip(state.lstm or (), after.lstm or (), strict=True):
        assert now.shape == (2, 6, 8) and (now != before).any()  # layers, episodes, units
    np.testing.assert_array_equal(policy.step(observation, policy.reset(6))[0], first)


def test_masks_need_the_environment() -> None:
    model = make_model(MaskablePPO, {"view": "discrete", "mask_seen": True, "grid": 2})
    policy = Sb3Policy(model)
    env: Any = gym.make_vec(ID, num_envs=6, view="discrete", mask_seen=True, grid=2, dataset=DATA)
    observation, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=r"call check_env\(env\) first"):
        policy.step(observation, policy.reset(6))
    policy.check_env(env.unwrapped)
    with pytest.raises(ValueError, match=r"a batch of 2: expected .* environment's 6 slots"):
        policy.step({key: value[:2] for key, value in observation.items()}, policy.reset(2))
    # Each slot has looked at three of four cells, another one is left to each of four slots.
    for cells in ([0, 1, 2, 3, 0, 1], [1, 2, 3, 0, 1, 2], [2, 3, 0, 1, 2, 3]):
        observation, *_ = env.step(np.array([[cell, 0, 0] for cell in cells]))
    actions, _ = policy.step(observation, policy.reset(6))
    assert actions[:, 0].tolist() == [3, 0, 1, 2, 3, 0]


def test_a_model_behind_vec_normalize_sees_through_it() -> None:
    """`evaluate_policy` on the wrapped environment and `evaluate` on the bare one agree."""
    task: dict[str, Any] = {"view": "discrete"}

    def wrapped(**more: Any) -> VecNormalize:
        venv = Sb3VecEnv(ID, 50, **task, **more)
        return VecNormalize(venv, norm_reward=False, norm_obs_keys=["location", "time"])

    env = wrapped(split="validation")
    model = PPO("MultiInputPolicy", env, policy_kwargs=policy_settings(16, 8), **QUIET)
    env.reset()
    for _ in range(20):
        env.step(np.array([env.action_space.sample() for _ in range(50)]))
    env.training = False
    exact = vary(model.policy, Sb3Policy(model), **task)
    scored = wrapped(dataset=DATA, order="sequential")
    scored.obs_rms, scored.training = env.obs_rms, False
    assert_agree(per_image(model, scored), exact)
    env.obs_rms["time"].mean += 1.0  # it does matter
    other = dtram_env.evaluate(Sb3Policy(model), ID, dataset=DATA, num_envs=50, **task)
    assert (other.prediction != exact.prediction).any()


def test_sb3_policy_refuses_other_spaces() -> None:
    model = make_model(PPO, {"view": "discrete"})
    for task, message in [
        ({"view": "continuous"}, "PPO was made for the action_space MultiDiscrete"),
        ({"view": "discrete", "grid": 3}, "action_space"),
        ({"view": "discrete", "observe": "canvas"}, "was made for the observation_space"),
        ({"view": "discrete", "glimpse_format": "image"}, "was made for the observation_space"),
        ({"view": "discrete", "glimpse_size": 6, "grid": 4}, "was made for the observation_space"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            dtram_env.evaluate(Sb3Policy(model), ID, "validation", **task)  # type: ignore[arg-type]
        assert "pass the same view=, observe= and sizes" in str(error.value)


# --- FLOPs of a decision


def extractor_products(pixels: int, numbers: int, what: int, width: int) -> int:
    """Multiply-adds of `GlimpseExtractor` with one what-path and 128 units of where-path."""
    return pixels * what + numbers * 128 + (what + 128) * width


def first_observation(venv: Any) -> dict[str, np.ndarray]:
    return {key: values[0] for key, values in venv.reset().items()}


def test_flops_of_an_mlp_policy() -> None:
    env = Sb3VecEnv(ID, 2, view="discrete")
    model = PPO("MultiInputPolicy", env, policy_kwargs=policy_settings(16, 8), **QUIET)
    # features -> 16 -> cells, stop, classes; the value network does not act.
    products = extractor_products(64, 3, 8, 16) + 16 * 16 + 16 * (16 + 2 + 4)
    assert flops_per_glimpse(model, first_observation(env)) == 2 * products


@pytest.mark.parametrize("layers", [1, 2])
def test_flops_of_an_lstm_policy(layers: int) -> None:
    env = Sb3VecEnv(ID, 2, view="discrete")
    settings = policy_settings(16, 8, lstm_hidden_size=12, n_lstm_layers=layers)
    model = RecurrentPPO("MultiInputLstmPolicy", env, policy_kwargs=settings, **QUIET)
    lstm = 4 * 12 * (16 + 12) + (layers - 1) * 4 * 12 * (12 + 12)
    products = extractor_products(64, 3, 8, 16) + lstm + 12 * 16 + 16 * (16 + 2 + 4)
    assert flops_per_glimpse(model, first_observation(env)) == 2 * products
    assert not torch.nn.modules.module._global_forward_hooks  # counting leaves no hook behind


def test_flops_of_q_values_do_not_count_the_target_network() -> None:
    task = with_classifier({"view": "single", "classifier": True})
    env = Sb3VecEnv(ID, 2, **task)
    model = DQN("MultiInputPolicy", env, policy_kwargs=policy_settings(16, 8), **QUIET)
    products = extractor_products(64, 3 + 4, 8, 16) + 16 * 16 + 16 * 17
    assert flops_per_glimpse(model, first_observation(env)) == 2 * products

"""Policy-only environments: the shipped classifier and its hash, and the user's own."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import agents
from agents.cost import classifier_flops_per_glimpse
from agents.dtram import DTRAM, DTRAMConfig
from agents.policy_only import POLICY_TABLE, FrozenClassifier, LookAndStop, agent_with_classifier
from agents.resnet import ResNetOptions
from dtram_env import GlimpseEnv, GlimpseVectorEnv
from tests.dtram_env.conftest import check_env

ID = "agents:DTRAM-MNIST-Policy-v0"
SHIPPED = Path(agents.__file__).resolve().parent.parent / "pretrained"


def small_network(**changes: Any) -> DTRAM:
    """An untrained one for Signpost: 4 classes, glimpses of 8x8."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"hidden_size": 12, **changes}
    return DTRAM(DTRAMConfig(4, (8, 8, 1), 4, **settings))


def by_hand(network: DTRAM, glimpses: list[np.ndarray], locations: list[np.ndarray]) -> np.ndarray:
    """Beliefs ``(T, K)`` of one episode, one glimpse after another."""
    rows = []
    with torch.no_grad():
        state = network.initial(1)
        for glimpse, location in zip(glimpses, locations, strict=True):
            state = network.observe(
                torch.tensor(glimpse)[None],
                torch.tensor(location, dtype=torch.float32)[None],
                state,
            )
            rows.append(torch.softmax(network.logits(state), -1)[0].numpy())
    return np.array(rows)


# --- The registered ids


@pytest.mark.parametrize("name", POLICY_TABLE)
def test_both_checkers(mnist_folder: Path, name: str) -> None:
    check_env(gym.make(f"agents:{name}", view="single", split="test").unwrapped)


@pytest.mark.parametrize("name", POLICY_TABLE)
def test_an_id_names_its_shipped_classifier_by_hash(mnist_folder: Path, name: str) -> None:
    whole, folder, sha256 = POLICY_TABLE[name]
    weights = SHIPPED / folder / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == sha256
    env: Any = gym.make(f"agents:{name}").unwrapped
    assert env.classifier.sha256 == sha256
    assert env.classifier.name == f"{folder}-{sha256[:12]}"
    spec = gym.spec(name)
    assert all(isinstance(value, str | int | float) for value in spec.kwargs.values())
    assert spec.max_episode_steps is None
    theirs: Any = gym.make(whole).unwrapped
    for attribute in ("max_glimpses", "discount", "glimpse_size", "dataset", "num_images"):
        assert getattr(env, attribute) == getattr(theirs, attribute)
    vector: Any = gym.make_vec(f"agents:{name}", num_envs=2).unwrapped
    assert vector.classifier.sha256 == sha256


def test_the_belief_is_the_shipped_network_unrolled(mnist_folder: Path) -> None:
    env = gym.make(ID, split="test", max_glimpses=5)
    network = DTRAM.load(SHIPPED / "mnist-classifier")
    for image in range(3):
        observation, _ = env.reset(options={"image_index": image})
        glimpses, locations, beliefs = [], [], []
        for where in ([0.5, 0.1], [-0.3, -0.9], [0.0, 0.7], [3.0, -1.0], [0.0, 0.0]):
            glimpses.append(observation["glimpse"])
            locations.append(observation["location"])
            beliefs.append(observation["probs"])
            observation, reward, over, _, info = env.step({"location": where, "stop": 0})
        assert over  # the fifth glimpse was the last
        expected = by_hand(network, glimpses, locations)
        np.testing.assert_allclose(np.array(beliefs), expected, rtol=1e-5, atol=1e-7)
        assert info["prediction"] == expected[-1].argmax()
        assert reward == (0.98**5 if info["prediction"] == info["label"] else 0)


# --- It never changes


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_classifier_is_frozen(backend: str) -> None:
    classifier = FrozenClassifier(small_network(), "small")
    network = classifier.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    env = GlimpseVectorEnv("Signpost", num_envs=5, classifier=classifier, backend=backend)
    assert env.classifier is classifier
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(12):
        if backend == "torch":
            assert not observation["probs"].requires_grad
        observation = env.step(env.action_space.sample())[0]
    assert not network.training
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("answer", ["state", "first_plus_mean"])
@pytest.mark.parametrize("view", ["native", "continuous"])
def test_the_environment_keeps_the_whole_state(answer: str, view: str) -> None:
    network = small_network(answer=answer)
    env = GlimpseEnv(
        "Signpost", classifier=FrozenClassifier(network, "small"), max_glimpses=4, view=view
    )
    native = GlimpseEnv("Signpost", max_glimpses=4)
    for image in range(2):
        seen, _ = env.reset(options={"image_index": image})
        shown, _ = native.reset(options={"image_index": image})
        glimpses, locations, beliefs = [], [], []
        for where in ([0.5, 0.1], [-0.3, -0.9], [0.0, 0.7], [0.0, 0.0]):
            beliefs.append(seen["probs"])
            glimpses.append(shown["glimpse"])
            locations.append(shown["location"])
            action = {"location": where, "stop": 0} if view == "native" else [*where, -1.0]
            seen = env.step(action)[0]
            shown = native.step({"location": where, "stop": 0, "prediction": 0})[0]
        expected = by_hand(network, glimpses, locations)
        np.testing.assert_allclose(np.array(beliefs), expected, rtol=1e-5, atol=1e-7)


def test_one_classifier_may_serve_many_environments() -> None:
    classifier = FrozenClassifier(small_network(), "small")
    common: dict[str, Any] = {"classifier": classifier, "order": "sequential"}
    first = GlimpseVectorEnv("Signpost", num_envs=2, **common)
    second = GlimpseVectorEnv("Signpost", num_envs=2, backend="torch", **common)
    action = {"location": np.array([[0.2, 0.3], [-1, 1]], np.float32), "stop": np.zeros(2, int)}
    seen = [first.reset()[0], second.reset()[0]]
    for _ in range(3):
        np.testing.assert_allclose(seen[0]["probs"], seen[1]["probs"], rtol=1e-5)
        seen = [first.step(dict(action))[0], second.step(dict(action))[0]]


# --- The user's own classifier, and errors


def test_a_folder_need_not_have_the_ids_hash(mnist_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DTRAM(DTRAMConfig(10, (8, 8, 1), 7, hidden_size=6))
    network.save(tmp_path / "mine")
    digest = hashlib.sha256((tmp_path / "mine" / "model.safetensors").read_bytes()).hexdigest()
    for folder in (tmp_path / "mine", str(tmp_path / "mine")):
        env: Any = gym.make(ID, classifier=folder).unwrapped
        assert (env.classifier.name, env.classifier.sha256) == (f"mine-{digest[:12]}", digest)
        observation, _ = env.reset(seed=0)
        expected = by_hand(network, [observation["glimpse"]], [observation["location"]])
        np.testing.assert_allclose(observation["probs"], expected[0], rtol=1e-5)
    given = FrozenClassifier(network, "given")
    vector: Any = gym.make_vec(ID, num_envs=2, classifier=given).unwrapped
    assert vector.classifier.name == "given"


def test_another_shipped_file_is_refused(mnist_folder: Path) -> None:
    right = POLICY_TABLE["DTRAM-MNIST-Policy-v0"][2]
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError) as error:
            make(ID, classifier_sha256="0" * 64)
        said = str(error.value)
        assert "\n" not in said and f"SHA-256 {right}, expected {'0' * 64}" in said
        assert "restore the shipped file, or pass classifier=PATH" in said
    assert FrozenClassifier.load("mnist-classifier", right).sha256 == right


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(SHIPPED / "mnist-classifier", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"not the weights that model.json beside it was written"):
        FrozenClassifier.load(folder, POLICY_TABLE["DTRAM-MNIST-Policy-v0"][2])


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"classifier": "nowhere"},
            FileNotFoundError,
            "nowhere: no saved model, there is no such folder",
        ),
        ({"classifier": Path("nowhere")}, FileNotFoundError, "nowhere: no saved model"),
        ({"classifier": None}, ValueError, "classifier=None: a policy-only id needs one"),
        ({"classifier": 3}, ValueError, "classifier=3: expected a dtram_env.Classifier"),
        (
            {"glimpse_size": 6},
            ValueError,
            r"was made for \{'glimpse': \(8, 8, 1\), 'classes': 10\}, the environment has "
            r"\{'glimpse': \(6, 6, 1\), 'classes': 10\}; train one with: python train/classifier",
        ),
        ({"num_scales": 2}, ValueError, r"the environment has \{'glimpse': \(8, 8, 2\)"),
        (
            {"first_glimpse": "thumbnail", "thumbnail_size": 14},
            ValueError,
            "reads glimpses, not a thumbnail of another size",
        ),
        ({"dataset": "Signpost"}, ValueError, r"the environment has .*'classes': 4\}"),
    ],
)
def test_bad_classifiers(
    mnist_folder: Path, keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(error, match=message) as caught:
            make(ID, **keywords)
        assert "\n" not in str(caught.value)


def test_a_dtram_env_id_takes_one_that_fits_and_no_other(mnist_folder: Path) -> None:
    shipped = FrozenClassifier.load("mnist-classifier")
    with pytest.raises(ValueError, match=r"was made for .*'classes': 10}, the environment has"):
        gym.make("DTRAM-Signpost-v0", classifier=shipped)
    env = gym.make("DTRAM-MNIST-v0", classifier=shipped, view="single", split="test")
    theirs = gym.make(ID, view="single", split="test")
    seen = [one.reset(options={"image_index": 4})[0] for one in (env, theirs)]
    np.testing.assert_array_equal(seen[0]["probs"], seen[1]["probs"])


def test_flops_of_a_step_of_the_classifier() -> None:
    config = DTRAMConfig(10, (8, 8, 1), 7, hidden_size=20)
    # what 64 -> 128, where 2 -> 128, join 256 -> 20, out 20 -> 20; core 20 -> 20; classes 20 -> 10
    products = 64 * 128 + 2 * 128 + 256 * 20 + 20 * 20 + 20 * 20 + 20 * 10
    assert classifier_flops_per_glimpse(DTRAM(config)) == 2 * products


# --- A policy-only DT-RAM


def signpost(classifier: FrozenClassifier, **keywords: Any) -> GlimpseVectorEnv:
    given = {"num_envs": 6, "autoreset_mode": "Disabled", "max_glimpses": 4, **keywords}
    return GlimpseVectorEnv("Signpost", classifier=classifier, **given)


def looker(classifier: FrozenClassifier, **config: Any) -> LookAndStop:
    torch.manual_seed(1)
    agent = agent_with_classifier(classifier, 4, ("a", "b", "c", "d"), **config)
    torch.nn.init.normal_(agent.stopper[-1].weight, std=2.0)
    return LookAndStop(agent)


def test_an_agent_on_a_classifier_sees_and_believes_as_it_does() -> None:
    """Step by step its class probabilities are the belief that the environment shows."""
    classifier = FrozenClassifier(small_network(pixel_mean=9.0, pixel_std=40.0), "small")
    policy = looker(classifier, locator_grid=3, locator_hidden=5)
    assert policy.agent.config.pixel_mean == 9.0
    env = signpost(classifier)
    policy.check_env(env)
    observation, _ = env.reset(options={"image_index": np.arange(6)})
    state = policy.reset(6)
    for _ in range(4):
        action, state = policy.step(observation, state)
        assert set(action) == {"location", "stop"}
        with torch.no_grad():
            believed = torch.softmax(policy.agent.heads(state).logits, -1)
            np.testing.assert_allclose(observation["probs"], believed, rtol=1e-5, atol=1e-7)
            np.testing.assert_array_equal(action["location"], policy.agent.locate(state))
        observation, *_ = env.step({**action, "stop": np.zeros(6, np.int64)})


def test_an_agent_on_a_classifier_has_copies_of_its_modules() -> None:
    classifier = FrozenClassifier(small_network(), "small")
    policy = looker(classifier)
    with torch.no_grad():
        policy.agent.classifier.weight.add_(1.0)
    assert not torch.equal(policy.agent.classifier.weight, classifier.network.classifier.weight)
    with pytest.raises(ValueError, match="was trained with another classifier or budget"):
        policy.check_env(signpost(classifier))


def test_an_agent_on_a_residual_classifier_keeps_its_statistics() -> None:
    """Batch norms of a classifier whose statistics were learned stay as they are in training."""
    options = ResNetOptions("resnet10", width=4, stem_stride=1, channels=1)
    hidden = options.out_features
    network = small_network(encoder="resnet10", resnet=options, hidden_size=hidden)
    policy = looker(FrozenClassifier(network, "small"))
    before = {name: part.clone() for name, part in policy.agent.named_buffers()}
    glimpse = torch.randint(0, 256, (6, 8, 8, 1), dtype=torch.uint8)
    policy.agent.train().observe(glimpse, torch.zeros(6, 2), policy.agent.initial(6))
    assert any("running" in name for name in before)
    assert all(torch.equal(part, before[name]) for name, part in policy.agent.named_buffers())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 13}, "hidden_size=13: the classifier in the loop, small, has 12"),
        ({"encoder": "conv"}, "encoder='conv': the classifier in the loop, small, has 'mlp'"),
        ({"pixel_mean": 1.0}, "pixel_mean=1.0: the classifier in the loop, small, has 0.0"),
    ],
)
def test_settings_must_be_the_classifiers(config: dict[str, Any], message: str) -> None:
    classifier = FrozenClassifier(small_network(), "small")
    with pytest.raises(ValueError, match=message):
        looker(classifier, **config)
    assert looker(classifier, hidden_size=12, encoder="mlp").agent.config.hidden_size == 12


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_glimpses": 3}, r"another classifier or budget than .*\(small, 3 glimpses\)"),
        ({"view": "continuous"}, "leave out view=, observe= and glimpse_format="),
        ({"observe": "canvas"}, "leave out view=, observe= and glimpse_format="),
        ({"glimpse_format": "flat"}, "leave out view=, observe= and glimpse_format="),
        ({"first_glimpse": "choose"}, "first_glimpse='choose'"),
    ],
)
def test_looking_and_stopping_elsewhere_is_one_error(
    keywords: dict[str, Any], message: str
) -> None:
    classifier = FrozenClassifier(small_network(), "small")
    policy = looker(classifier)
    policy.check_env(signpost(classifier))
    policy.check_env(GlimpseEnv("Signpost", classifier=classifier, max_glimpses=4))
    with pytest.raises(ValueError, match=message):
        policy.check_env(signpost(classifier, **keywords))


def test_looking_and_stopping_needs_its_own_classifier() -> None:
    classifier = FrozenClassifier(small_network(), "small")
    policy = looker(classifier)
    policy.check_env(signpost(FrozenClassifier(small_network(), "a copy")))  # by weights
    for other in (small_network(encoder="conv"), small_network(hidden_size=8), small_network()):
        with torch.no_grad():
            other.classifier.bias[2] += 1e-3
        with pytest.raises(ValueError, match=r"another classifier .*\(other, 4 glimpses\)"):
            policy.check_env(signpost(FrozenClassifier(other, "other")))
    with pytest.raises(ValueError, match="policy-only: expected a policy-only environment, as"):
        policy.check_env(GlimpseVectorEnv("Signpost", num_envs=2, max_glimpses=4))

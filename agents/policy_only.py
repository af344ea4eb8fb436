"""Policy-only environments: a frozen classifier answers; the agent chooses locations and stops.

    gym.make("agents:DTRAM-MNIST-Policy-v0")

The classifier is a DT-RAM's encoder, core and classifier, trained on uniformly random locations by
`train/classifier.py`. The id's spec holds the hash of its weights; another classifier raises the
id's version.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.registration import TABLE
from dtram_env.suite import best_return

from .dtram import DTRAM, State
from .first_look import FirstLookDTRAM

# id -> (id with the same images and sensor, shipped classifier, SHA-256 of its weights)
POLICY_TABLE: dict[str, tuple[str, str, str]] = {
    "DTRAM-MNIST-Policy-v0": (
        "DTRAM-MNIST-v0",
        "mnist-classifier",
        "682070ae2da41057ffb50012878fc5ac91fd8b803671a8100023cfa93f3f4072",
    ),
    "DTRAM-ClutteredMNIST-Policy-v0": (
        "DTRAM-ClutteredMNIST-v0",
        "cluttered-classifier",
        "f8d4bc6dd2dbfc16e56493474cbf2ba82181d4fa439f28dd2984f9fba644f77d",
    ),
    "DTRAM-BirdsSmall-Policy-v0": (
        "DTRAM-BirdsSmall-v0",
        "birds-small-classifier",
        "47fe18feee7f3709625a0a512f98f028ef5e4907955532b600890ed12ef0971b",
    ),
}
POLICY_IDS: tuple[str, ...] = tuple(POLICY_TABLE)
SHARED = ("encoder", "core", "classifier")  # modules that a policy-only DT-RAM copies


class FrozenClassifier:
    """A trained network as the `dtram_env.Classifier` of an environment.

    Args:
        network: its encoder, core and classifier are used. It is put into evaluation mode and its
            parameters are frozen, in place.
        name: its name in results.

    Attributes:
        network: the network, on the device of the last observation.
        sha256: hash of its weights' file; "" if it was not loaded.
    """

    def __init__(self, network: DTRAM, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name, self.sha256 = name, ""

    @classmethod
    def load(cls, folder: str | Path, sha256: str | None = None) -> Self:
        """Loads a model's folder, or a shipped model by name.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: it is damaged, or its weights have another hash than `sha256`, if given.
        """
        path = _find(folder)
        try:
            found = DTRAM.read_header(path)["weights_sha256"]
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"classifier={str(folder)!r}: {error}; expected a folder that train/classifier.py "
                "made, or a shipped one's name"
            ) from None
        if sha256 is not None and found != sha256:
            raise ValueError(
                f"classifier {str(folder)!r} ({path}): its weights have SHA-256 {found}, expected "
                f"{sha256}; restore the shipped file, or pass classifier=PATH for one of your own"
            )
        classifier = cls(DTRAM.load(path), f"{path.name}-{found[:12]}")
        classifier.sha256 = found
        return classifier

    def check_spaces(self, observation_space: spaces.Space, num_classes: int) -> None:
        """Raises ValueError if the classifier was made for other glimpses or classes."""
        assert isinstance(observation_space, spaces.Dict)
        if "thumbnail" in observation_space.spaces:
            raise ValueError(
                f"classifier {self.name!r} reads glimpses, not a thumbnail of another size; "
                "expected thumbnail_size=glimpse_size (None)"
            )
        config = self.network.config
        made = {"glimpse": config.glimpse_shape, "classes": config.num_classes}
        found = {"glimpse": observation_space["glimpse"].shape, "classes": num_classes}
        if made != found:
            raise ValueError(
                f"classifier {self.name!r} was made for {made}, the environment has {found}; train "
                "one with: python train/classifier.py --env-id ID, and pass classifier=ITS_FOLDER"
            )

    def initial(self, batch: int) -> tuple[Tensor, ...]:
        return tuple(part.cpu() for part in self.network.initial(batch))

    @torch.no_grad()
    def step(
        self, observation: dict[str, Any], state: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        glimpse, location = (torch.as_tensor(observation[k]) for k in ("glimpse", "location"))
        if glimpse.device != self.network.device:
            self.network.to(glimpse.device)
        before = State(*map(torch.as_tensor, state))
        after = self.network.observe(glimpse, location, before)
        probs = torch.softmax(self.network.logits(after), dim=-1)
        if isinstance(observation["glimpse"], np.ndarray):
            return probs.numpy(), tuple(part.numpy() for part in after)
        return probs, tuple(after)


def agent_with_classifier(
    classifier: FrozenClassifier, max_glimpses: int, class_names: tuple[str, ...], **config: Any
) -> DTRAM:
    """A DT-RAM with a frozen classifier's modules; its locator, stopper and baseline are untrained.

    `config` has further fields of `DTRAMConfig`; ValueError if one is not the classifier's.
    """
    made = classifier.network.config
    for name in ("encoder", "core", "hidden_size", "pixel_mean", "pixel_std"):
        if name in config and config[name] != getattr(made, name):
            raise ValueError(
                f"{name}={config[name]!r}: the classifier in the loop, {classifier.name}, has "
                f"{getattr(made, name)!r}, and a policy-only DT-RAM has its network"
            )
    fixed = {"max_glimpses": max_glimpses, "frozen_norms": made.resnet is not None}
    kind = FirstLookDTRAM if config.get("first_look") else DTRAM
    agent = kind(replace(made, **fixed, **config), class_names)
    for name in SHARED:
        getattr(agent, name).load_state_dict(getattr(classifier.network, name).state_dict())
    return agent


class LookAndStop:
    """A DT-RAM as a `dtram_env.Policy` of policy-only environments: it gives no prediction.

    The agent was trained on the environment's own classifier (`agent_with_classifier`).
    """

    def __init__(self, agent: DTRAM) -> None:
        self.agent = agent

    def check_env(self, env: Any) -> None:
        """Raises ValueError unless the environment has the agent's own classifier and budget.

        Its view must be native, with a glimpse at reset.
        """
        classifier = env.classifier
        if not isinstance(classifier, FrozenClassifier):
            raise ValueError(
                "this DT-RAM is policy-only: expected a policy-only environment, as "
                + ", ".join(POLICY_IDS)
            )
        own, theirs = _shared_state(self.agent), _shared_state(classifier.network)
        same = own.keys() == theirs.keys() and all(
            torch.equal(own[name].cpu(), theirs[name].cpu()) for name in own
        )
        if not same or self.agent.config.max_glimpses != env.max_glimpses:
            raise ValueError(
                f"this DT-RAM was trained with another classifier or budget than the "
                f"environment's ({classifier.name}, {env.max_glimpses} glimpses); make it with "
                "the same classifier= and max_glimpses="
            )
        shown = getattr(env, "single_observation_space", env.observation_space)
        glimpse = shown.spaces.get("glimpse")
        if env.view != "native" or glimpse is None or len(glimpse.shape) != 3:
            raise ValueError(
                "a DT-RAM reads glimpses as images and gives native actions; leave out view=, "
                "observe= and glimpse_format="
            )
        if env.first_glimpse == "choose":
            expected = "'center', 'random' or 'thumbnail', as this DT-RAM needs one at reset"
            raise ValueError(f"first_glimpse='choose': expected {expected}")

    def reset(self, batch: int) -> State:
        return self.agent.reset(batch)

    def step(self, observation: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Location and stop, see `DTRAM.step`."""
        action, state = self.agent.step(observation, state)
        del action["prediction"]
        return action, state


def _shared_state(network: DTRAM) -> dict[str, Tensor]:
    """The tensors of the modules in `SHARED`."""
    tensors = network.state_dict()
    return {key: value for key, value in tensors.items() if key.partition(".")[0] in SHARED}


def make_env(**keywords: Any) -> GlimpseEnv:
    """The entry point of the Policy ids; `classifier` may also be a folder or a shipped name."""
    return GlimpseEnv(**_with_classifier(keywords))


def make_vector_env(**keywords: Any) -> GlimpseVectorEnv:
    """The vector entry point of the Policy ids."""
    return GlimpseVectorEnv(**_with_classifier(keywords))


def register_all() -> None:
    """Registers the Policy ids with Gymnasium, unless they are registered already."""
    for env_id, (whole, classifier, sha256) in POLICY_TABLE.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point=f"{__name__}:make_env",
                vector_entry_point=f"{__name__}:make_vector_env",
                reward_threshold=best_return(env_id),
                kwargs={**TABLE[whole], "classifier": classifier, "classifier_sha256": sha256},
            )


def _with_classifier(keywords: dict[str, Any]) -> dict[str, Any]:
    """Loads the named classifier; only a shipped one must have the id's hash."""
    sha256 = keywords.pop("classifier_sha256", None)
    classifier = keywords.get("classifier")
    if classifier is None:
        raise ValueError(
            "classifier=None: a policy-only id needs one; leave it out for the id's own, or make "
            "the id without 'Policy', whose actions have a prediction"
        )
    if isinstance(classifier, str | Path):
        shipped = {name for _, name, _ in POLICY_TABLE.values()}
        loaded = FrozenClassifier.load(classifier, sha256 if classifier in shipped else None)
        keywords["classifier"] = loaded
    return keywords


def _find(folder: str | Path) -> Path:
    """The folder, or the shipped one of that name: in the package (wheel) or beside it (clone)."""
    package = Path(__file__).resolve().parent
    for shipped in (package / "pretrained", package.parent / "pretrained"):
        if isinstance(folder, str) and (shipped / folder / "model.json").exists():
            return shipped / folder
    return Path(folder)

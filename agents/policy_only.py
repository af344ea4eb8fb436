"""Policy-only environments: a frozen classifier answers, the agent only looks and stops.

    gym.make("agents:DTRAM-MNIST-Policy-v0")

The classifier is a DT-RAM's encoder, core and classifier, trained on uniformly random locations by
`train/classifier.py`. Its hash stands in the id's spec; another classifier raises the version.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dtram_env import GlimpseEnv, GlimpseVectorEnv
from dtram_env.registration import TABLE

from .config import read_header
from .dtram import DTRAM, State

# id -> (the id whose images and sensor it has, its shipped classifier, its weights' SHA-256)
POLICY_TABLE: dict[str, tuple[str, str, str]] = {
    "DTRAM-MNIST-Policy-v0": (
        "DTRAM-MNIST-v0",
        "mnist-classifier",
        "682070ae2da41057ffb50012878fc5ac91fd8b803671a8100023cfa93f3f4072",
    ),
}
POLICY_IDS: tuple[str, ...] = tuple(POLICY_TABLE)
SHARED = ("encoder", "core", "classifier")  # what a policy-only DT-RAM takes from the classifier


class FrozenClassifier:
    """A trained network as the `dtram_env.Classifier` of an environment.

    Args:
        network: its encoder, core and classifier are used; it is put into evaluation mode and its
            parameters are frozen, in place.
        name: what results call it.

    Attributes:
        network: the same, on the device of the last observation.
        sha256: of its weights' file; "" if it was not loaded.
    """

    def __init__(self, network: DTRAM, name: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.name, self.sha256 = name, ""

    @classmethod
    def load(cls, folder: str | Path, sha256: str | None = None) -> FrozenClassifier:
        """Reads a model's folder, or a shipped model's by its name.

        Args:
            folder: a path; or a name, as "mnist-classifier".
            sha256: what the weights' SHA-256 must be; None takes any.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: it is damaged, or not the one that was asked for.
        """
        path = _find(folder)
        try:
            found = read_header(path)["weights_sha256"]
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
        """Raises ValueError if it was made for other glimpses or classes."""
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


def agent_on(
    classifier: FrozenClassifier, max_glimpses: int, class_names: tuple[str, ...], **config: Any
) -> DTRAM:
    """A DT-RAM that sees and answers with a frozen classifier: only where and when are new.

    Args:
        classifier: its encoder, core and classifier are copied.
        max_glimpses: the environment's budget.
        class_names: of the environment.
        **config: further fields of `DTRAMConfig`.

    Raises:
        ValueError: `config` asks for another network than the classifier's.
    """
    made = classifier.network.config
    fixed = ("encoder", "core", "hidden_size", "pixel_mean", "pixel_std")
    for name in fixed:
        if name in config and config[name] != getattr(made, name):
            raise ValueError(
                f"{name}={config[name]!r}: the classifier in the loop, {classifier.name}, has "
                f"{getattr(made, name)!r}, and a policy-only DT-RAM sees with it"
            )
    agent = DTRAM(replace(made, max_glimpses=max_glimpses, **config), class_names)
    for name in SHARED:
        getattr(agent, name).load_state_dict(getattr(classifier.network, name).state_dict())
    return agent


class LookAndStop:
    """A DT-RAM as a `dtram_env.Policy` of a policy-only environment: it gives no prediction.

    Args:
        agent: trained on the environment's own classifier (`agent_on`).
    """

    def __init__(self, agent: DTRAM) -> None:
        self.agent = agent

    def check_env(self, env: Any) -> None:
        """Raises ValueError unless the environment answers with the agent's own classifier.

        Its view must be the native one, with a glimpse at reset.
        """
        classifier = env.classifier
        if not isinstance(classifier, FrozenClassifier):
            raise ValueError(
                "this DT-RAM is policy-only: expected a policy-only environment, as "
                + ", ".join(POLICY_IDS)
            )
        own = _shared_state(self.agent)
        theirs = _shared_state(classifier.network)
        same = own.keys() == theirs.keys() and all(
            own[name].shape == theirs[name].shape
            and torch.equal(own[name].cpu(), theirs[name].cpu())
            for name in own
        )
        if not same or self.agent.config.max_glimpses != env.max_glimpses:
            raise ValueError(
                f"this DT-RAM was trained with another classifier or budget than the "
                f"environment's ({classifier.name}, {env.max_glimpses} glimpses); make it with "
                "the same classifier= and max_glimpses="
            )
        vector = hasattr(env, "single_observation_space")
        shown = env.single_observation_space if vector else env.observation_space
        glimpse = shown.spaces.get("glimpse")
        if env.view != "native" or glimpse is None or len(glimpse.shape) != 3:
            raise ValueError(
                "a DT-RAM reads glimpses as images and gives native actions; leave out view=, "
                "observe= and glimpse_format="
            )
        if env.first_glimpse == "choose":
            raise ValueError(
                "first_glimpse='choose': DTRAM answers glimpses; expected one at reset"
            )

    def reset(self, batch: int) -> State:
        return self.agent.reset(batch)

    def step(self, observation: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Where to look and whether to stop; see `DTRAM.step`."""
        action, state = self.agent.step(observation, state)
        del action["prediction"]
        return action, state

    def select(self, state: State, keep: Any) -> State:
        return self.agent.select(state, keep)


def _shared_state(network: DTRAM) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name in SHARED
        for key, value in getattr(network, name).state_dict().items()
    }


def make_env(**keywords: Any) -> GlimpseEnv:
    """The entry point of the Policy ids; keywords as `GlimpseEnv`'s, `classifier` a folder too."""
    return GlimpseEnv(**_with_classifier(keywords))


def make_vector_env(**keywords: Any) -> GlimpseVectorEnv:
    """The vector entry point of the Policy ids."""
    return GlimpseVectorEnv(**_with_classifier(keywords))


def register_all() -> None:
    """Registers the Policy ids with Gymnasium; those that are there already stay."""
    for env_id, (whole, classifier, sha256) in POLICY_TABLE.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point=f"{__name__}:make_env",
                vector_entry_point=f"{__name__}:make_vector_env",
                kwargs={
                    **TABLE[whole],
                    "classifier": classifier,
                    "classifier_sha256": sha256,
                },
            )


def _with_classifier(keywords: dict[str, Any]) -> dict[str, Any]:
    """Loads the classifier that is named; one of the user's own is not held to the id's hash."""
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
    """A folder, or the shipped one of that name: beside the packages, or in the wheel's own."""
    package = Path(__file__).resolve().parent
    for shipped in (package / "pretrained", package.parent / "pretrained"):
        if isinstance(folder, str) and (shipped / folder / "model.json").exists():
            return shipped / folder
    return Path(folder)


__all__ = ["POLICY_IDS", "FrozenClassifier", "LookAndStop", "register_all"]

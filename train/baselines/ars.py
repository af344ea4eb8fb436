"""Augmented Random Search (Mania et al. 2018) of sb3-contrib, for Dict observations."""

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from dtram_env.optional import require

require("sb3_contrib", "sb3")
from sb3_contrib import ARS  # noqa: E402
from sb3_contrib.ars.policies import ARSPolicy  # noqa: E402


class ArsPolicy(ARSPolicy):
    """A network that `agents.sb3.policy_settings` describes. Its actions are clipped."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        lr_schedule: Any = None,  # SB3's other policies have one
        *,
        features_extractor_class: type[BaseFeaturesExtractor],
        features_extractor_kwargs: dict[str, Any],
        net_arch: list[int],
    ) -> None:
        self._extractor = features_extractor_class, features_extractor_kwargs
        super().__init__(observation_space, action_space, net_arch, squash_output=False)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        self.features_extractor_class, self.features_extractor_kwargs = self._extractor
        return super().make_features_extractor()


class Ars(ARS):
    """`ARS` that starts from a random network, counts each step of the episodes that it compares
    once, and can be continued."""

    weights: Any  # a vector of all parameters
    policy_aliases: ClassVar[dict[str, Any]] = {"MultiInputPolicy": ArsPolicy}

    def __init__(self, policy: Any, env: Any, gamma: float = 1.0, **keywords: Any) -> None:
        self.gamma = gamma  # not used: it compares whole returns
        super().__init__(policy, env, zero_policy=False, **keywords)

    def _trigger_callback(self, *_: Any, callback: Any, n_envs: int) -> None:  # type: ignore[override]
        self.num_timesteps += 1  # it is called for each environment; ARS adds their number
        callback.on_step()

    def set_parameters(self, *arguments: Any, **keywords: Any) -> None:
        super().set_parameters(*arguments, **keywords)
        self.weights = torch.nn.utils.parameters_to_vector(self.policy.parameters()).detach()

"""Stable-Baselines3: networks for its policies, and its models as policies of this package.

    env = Sb3VecEnv(ID, 64, view="discrete", observe="canvas", glimpse_format="image")
    model = PPO("MultiInputPolicy", env, gamma=1.0, policy_kwargs=policy_settings())
    set_first_stop(model, 0.1)  # looks on often at first, and so learns from many glimpses
    ignore_unread(model)  # learns from what the environment reads of an action
    learn_labels(model)  # and from the labels, if Sb3VecEnv(..., show_label=True) shows them
    dtram_env.evaluate(Sb3Policy(model), ID, view="discrete", ...)  # as in training

`Sb3VecEnv` is in `dtram_env.sb3`.
"""

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from dtram_env.backends import to_host
from dtram_env.observation_builder import SMALL_IMAGE
from dtram_env.optional import require

from .checks import require as check
from .cost import count_flops
from .encoders import WHERE_GAIN

require("stable_baselines3", "train")
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor  # noqa: E402

from dtram_env.sb3 import LABEL  # noqa: E402

MOST_UNITS = 2**13
"""Of a layer: a run's options.json may be anybody's, and its network is made before it is read."""


class GlimpseExtractor(BaseFeaturesExtractor):
    """Features of the environment's Dict observations, in every view and format.

    The RAM paper's glimpse network. Each image (``glimpse``, ``canvas``, ``thumbnail``) has a
    what-path: two convolutions from 12 pixels on, with larger strides from 36 on; a linear layer
    for smaller images and flat vectors. The rest (``location``, ``time``, ``probs``) has one
    where-path. One layer joins them. A ``label`` takes no part: `learn_labels` reads it.
    `features_dim` is the width of the features; the paths have `what_features` and
    `where_features` units.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 256,
        what_features: int = 128,
        where_features: int = 128,
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.what = nn.ModuleDict()
        self.rest: list[str] = []
        numbers = 0
        for key, space in observation_space.items():
            assert isinstance(space, spaces.Box)
            if key in ("glimpse", "canvas", "thumbnail"):
                self.what[key] = _what_path(space, what_features)
            elif key != LABEL:
                self.rest.append(key)
                numbers += space.shape[0]
        joined = len(self.what) * what_features + where_features
        self.where = nn.Sequential(nn.Linear(numbers, where_features), nn.ReLU())
        self.join = nn.Sequential(nn.Linear(joined, features_dim), nn.ReLU())

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features ``(B, features_dim)`` of observations that SB3 has preprocessed."""
        parts = [path(observations[key]) for key, path in self.what.items()]
        rest = torch.cat([observations[key] for key in self.rest], dim=1)
        self.last = observations["time"][:, 0] >= 1  # for `ignore_unread`
        self.label: Any = observations.get(LABEL)  # for `learn_labels`
        where = self.where(WHERE_GAIN * rest)  # of the input: SB3 draws the weights anew
        return self.join(torch.cat([*parts, where], dim=1))


def _what_path(space: spaces.Box, features: int) -> nn.Module:
    """The network that reads one image, of channels first or flat."""
    side = min(space.shape[1:]) if len(space.shape) == 3 else 0
    layers: list[nn.Module] = []
    if side >= 12:
        kernels = [(5, 2), (3, 2)] if side < SMALL_IMAGE else [(8, 4), (4, 2)]
        channels = space.shape[0]
        for filters, (kernel, stride) in zip((16, 32), kernels, strict=True):
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels = filters
    read = nn.Sequential(*layers, nn.Flatten())
    with torch.no_grad():
        size = read(torch.zeros(1, *space.shape)).shape[1]
    return nn.Sequential(read, nn.Linear(size, features), nn.ReLU())


def policy_settings(width: int = 256, what_features: int = 128, **more: Any) -> dict[str, Any]:
    """``policy_kwargs`` for a "MultiInputPolicy" or "MultiInputLstmPolicy" on this task.

    `width` units have the features and the one hidden layer after them; `what_features` is the
    extractor's. Further policy keywords override these. Sizes out of range are a ValueError.
    """
    sizes = {"width": width, "what_features": what_features}
    if "lstm_hidden_size" in more:
        sizes["lstm_hidden_size"] = more["lstm_hidden_size"]
    for name, size in sizes.items():
        fits = isinstance(size, int) and 1 <= size <= MOST_UNITS
        check(name, size, fits, f"an integer from 1 to {MOST_UNITS:,}")
    return {
        "features_extractor_class": GlimpseExtractor,
        "features_extractor_kwargs": {"features_dim": width, "what_features": what_features},
        "net_arch": [width],
        **more,
    }


def set_first_stop(model: Any, probability: float) -> None:
    """Makes an untrained model stop after each glimpse with the given probability.

    SB3's policies begin with 0.5 in the views "discrete" and "continuous", so they have hardly seen
    a third glimpse when they learn to stop, and then see fewer and fewer.

    Args:
        model: PPO, A2C, RecurrentPPO or MaskablePPO, on one of this package's environments.
        probability: between 0 and 1, both excluded. In the view "single" the cells share the rest
            evenly; if some of them are masked, the model stops more often.

    Raises:
        ValueError: the probability is out of range, it is another algorithm, or it uses gSDE.
    """
    fits = isinstance(probability, float) and 0 < probability < 1
    check("probability", probability, fits, "a number between 0 and 1, both excluded")
    space, policy = model.action_space, model.policy
    layer = getattr(policy, "action_net", None)
    if not isinstance(layer, nn.Linear) or getattr(model, "use_sde", False):
        raise ValueError(
            f"{type(model).__name__}: expected PPO, A2C, RecurrentPPO or MaskablePPO without gSDE"
        )
    odds = probability / (1 - probability)
    with torch.no_grad():
        if isinstance(space, spaces.MultiDiscrete):
            layer.bias[int(space.nvec[0]) + 1] = np.log(odds)
        elif isinstance(space, spaces.Discrete):
            layer.bias[-1] = np.log(odds * (int(space.n) - 1))
        else:  # Gaussian; above 0 it stops
            quantile = torch.special.ndtri(torch.tensor(probability))
            layer.bias[2] = quantile * policy.log_std[2].exp()


def ignore_unread(model: Any) -> None:
    """Makes a model score only the parts of its actions that the environment reads.

    The environment reads the location if the agent looks on, and the prediction if it stops or has
    used its budget. The log-probability of an action and the entropy then count these parts only.
    Otherwise the parts without effect add noise to the policy gradient. Actions, and what
    the model is saved as, do not change. A model of the view "single" has no such parts.

    Args:
        model: PPO, A2C, RecurrentPPO or MaskablePPO, made with `policy_settings` and not trained
            yet. One that is loaded to be trained on needs the call again.

    Raises:
        ValueError: it is another algorithm, has another features extractor, uses gSDE, or its
            environment is a `VecNormalize` that changes ``time``.
    """
    distribution: Any = getattr(model.policy, "action_dist", None)
    extractor = getattr(model.policy, "features_extractor", None)
    kinds = ("MultiCategorical", "DiagGaussian", "Categorical")
    fits = type(distribution).__name__.removeprefix("Maskable").removesuffix("Distribution")
    if hasattr(distribution, "learns_labels"):
        raise ValueError("ignore_unread: expected before learn_labels, not after it")
    if fits not in kinds or not isinstance(extractor, GlimpseExtractor):
        raise ValueError(
            f"{type(model).__name__}: expected PPO, A2C, RecurrentPPO or MaskablePPO without gSDE, "
            "made with policy_kwargs=policy_settings()"
        )
    _check_unchanged(model, "time")
    if fits == "Categorical":
        return

    def parts(values: list[Tensor] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the location, the stop and the prediction of values of the components."""
        split = 2 if fits == "DiagGaussian" else 1
        columns = torch.stack(values, dim=1) if isinstance(values, list) else values
        return columns[:, :split].sum(1), columns[:, split], columns[:, split + 1 :].sum(1)

    def log_prob(actions: Tensor) -> Tensor:
        if fits == "DiagGaussian":
            found, stops = distribution.distribution.log_prob(actions), actions[:, 2] > 0
        else:
            actions = actions.view(-1, len(distribution.action_dims))
            pairs = zip(_categoricals(distribution), actions.unbind(1), strict=True)
            found, stops = [one.log_prob(action) for one, action in pairs], actions[:, 1] == 1
        location, stop, prediction = parts(found)
        read = torch.where(stops | extractor.last, prediction, location)
        return read + torch.where(extractor.last, 0.0, stop)

    def entropy() -> Tensor:
        if fits == "DiagGaussian":
            normal = distribution.distribution
            found, stops = normal.entropy(), 1 - normal.cdf(torch.zeros_like(normal.mean))[:, 2]
        else:
            found = [one.entropy() for one in _categoricals(distribution)]
            stops = _categoricals(distribution)[1].probs[:, 1]
        location, stop, prediction = parts(found)
        stops = torch.where(extractor.last, 1.0, stops)
        return stops * prediction + (1 - stops) * location + torch.where(extractor.last, 0.0, stop)

    distribution.log_prob, distribution.entropy = log_prob, entropy


class _AddLoss(torch.autograd.Function):
    """The values as they are. In the backward pass the loss gets the gradient 1, too, as if it were
    a term of the total loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, loss: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones(())


def learn_labels(model: Any) -> None:
    """Adds the cross-entropy of a model's predictions with the true classes to its loss.

    The mean over the glimpses of a minibatch, whether the agent stops there or not, is added with
    weight 1, and logged as ``train/label_loss``. The label has no part in what the model acts on,
    so it acts without one.

    Args:
        model: PPO, A2C, RecurrentPPO or MaskablePPO, made with `policy_settings` and an
            `Sb3VecEnv` that shows the label, in the view "discrete". One that is loaded to be
            trained on needs the call again.

    Raises:
        ValueError: it is another model, its environment shows no label or is a `VecNormalize` that
            changes ``label``, or it learns labels already.
    """
    distribution: Any = getattr(model.policy, "action_dist", None)
    extractor = getattr(model.policy, "features_extractor", None)
    shows = LABEL in getattr(model.observation_space, "spaces", ())
    actions = getattr(model.action_space, "nvec", ())
    if len(actions) != 3 or not isinstance(extractor, GlimpseExtractor) or not shows:
        raise ValueError(
            f"{type(model).__name__}: expected PPO, A2C, RecurrentPPO or MaskablePPO with "
            "policy_kwargs=policy_settings() and env=Sb3VecEnv(ID, view='discrete', "
            "show_label=True), of an id where the agent predicts"
        )
    _check_unchanged(model, LABEL)
    if hasattr(distribution, "learns_labels"):
        raise ValueError(f"{type(model).__name__}: learns labels already; call learn_labels once")
    score = distribution.log_prob

    def log_prob(actions: Tensor) -> Tensor:
        label = extractor.label  # (B, K) one-hot; 0 where RecurrentPPO pads its sequences
        of_label = (label * _categoricals(distribution)[2].logits).sum()
        loss = -of_label / label.sum().clamp(min=1)
        if torch.is_grad_enabled():  # else the model acts
            model.logger.record_mean("train/label_loss", loss.item())
        return _AddLoss.apply(score(actions), loss)

    distribution.log_prob, distribution.learns_labels = log_prob, True


def _check_unchanged(model: Any, key: str) -> None:
    """Raises ValueError if the model's environment is a `VecNormalize` that changes an observation
    which is read as it is."""
    normalizer = getattr(model, "get_vec_normalize_env", lambda: None)()
    changed = normalizer.obs_rms if normalizer is not None and normalizer.norm_obs else ()
    if key in changed:
        raise ValueError(f"VecNormalize: expected norm_obs_keys without {key!r}, which is read")


def _categoricals(distribution: Any) -> list[Any]:
    """The components of SB3's distribution, or of sb3-contrib's."""
    masked = getattr(distribution, "distributions", None)
    return distribution.distribution if masked is None else masked


class _Memory(NamedTuple):
    """The state of an SB3 model between two steps of a batch."""

    lstm: tuple[np.ndarray, ...] | None  # each (layers, B, H)
    start: np.ndarray  # (B,) bool, before the first glimpse


class Sb3Policy:
    """A trained SB3 model as a `dtram_env.Policy`, so that `dtram_env.evaluate` can score it.

    Give `evaluate` the keywords of the environment that the model was trained in (`view`,
    `observe`, …). A model that takes action masks gets them. If the model's environment is SB3's
    `VecNormalize`, observations are normalised by it. It takes the most probable action.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._masks = "action_masks" in inspect.signature(model.predict).parameters
        self._normalizer = getattr(model, "get_vec_normalize_env", lambda: None)()
        extractor = getattr(getattr(model, "policy", model), "features_extractor", None)
        self._ignores_label = isinstance(extractor, GlimpseExtractor)  # only training shows it
        self._env: Any = None

    def check_env(self, env: Any) -> None:
        """Raises ValueError if the model was made for other spaces; keeps `env` for its masks."""
        for name in ("observation_space", "action_space"):
            # The model's own spaces have the bounds that VecNormalize changed.
            made = getattr(getattr(self._normalizer, "venv", self.model), name)
            found = getattr(env, f"single_{name}")
            if _plain(made, LABEL if self._ignores_label else None) != _plain(found):
                raise ValueError(
                    f"this {type(self.model).__name__} was made for the {name} {made}, the "
                    f"environment has {found}; pass the same view=, observe= and sizes"
                )
        self._env = env

    def reset(self, batch: int) -> _Memory:
        return _Memory(None, np.ones(batch, dtype=np.bool_))

    def step(self, observation: dict[str, Any], state: _Memory) -> tuple[Any, _Memory]:
        """Acts on a batch: returns actions of the model's own view, and the next state.

        Raises:
            ValueError: the model takes action masks, and `check_env` was not called before, or the
                batch is not the environment's.
        """
        more = {}
        if self._masks:
            if self._env is None:
                raise ValueError(
                    f"this {type(self.model).__name__} takes the environment's action masks; call "
                    "check_env(env) first, as dtram_env.evaluate does"
                )
            masks = to_host(self._env.action_masks())
            if len(masks) != len(state.start):
                raise ValueError(
                    f"a batch of {len(state.start)}: expected one episode for each of the "
                    f"environment's {len(masks)} slots, whose action masks they are"
                )
            more["action_masks"] = masks
        seen = {key: to_host(values) for key, values in observation.items()}
        if self._normalizer is not None:
            seen = self._normalizer.normalize_obs(seen)
        action, lstm = self.model.predict(
            seen,
            state=state.lstm,
            episode_start=state.start,
            deterministic=True,
            **more,
        )
        return action, _Memory(lstm, np.zeros_like(state.start))


def _plain(space: spaces.Space, without: str | None = None) -> Any:
    """A space in a form that is equal whether images have their channels first or last, and without
    one key."""
    if isinstance(space, spaces.Dict):
        return {key: _plain(part) for key, part in space.items() if key != without}
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        return sorted(space.shape), str(space.dtype)
    return space


def flops_per_glimpse(model: Any, observation: dict[str, np.ndarray]) -> int:
    """FLOPs of one deterministic `predict` of an SB3 model, counted as in `cost`.

    Fused LSTMs, which torch's counter misses on the CPU, are added by hand. `observation` is one of
    the model's environment, not batched.
    """
    lstm = 0

    def add(module: nn.Module, *_: Any) -> None:
        nonlocal lstm
        if isinstance(module, nn.LSTM):  # each weight takes part in one multiply-add
            lstm += 2 * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)

    hook = nn.modules.module.register_module_forward_hook(add)
    try:
        flops = count_flops(model.policy, lambda: model.predict(observation, deterministic=True))
    finally:
        hook.remove()
    return flops + lstm

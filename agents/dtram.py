"""DT-RAM: the recurrent actor. Encoder -> core -> classifier, locator, stopper, baseline.

Li, Yang, Liu, Zhou, Wen, Xu, "Dynamic Computational Time for Visual Attention" (2017); the modules
are those of the talk's slide "Dynamic Computational Time for RAM", one line each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import one_hot

from dtram_env.views import grid_centres

from .config import (
    EVEN_DOUBT,
    DTRAMConfig,
    config_from_json,
    config_to_json,
    names_of_classes,
    read_header,
)
from .encoders import ENCODERS, GlimpseResNet, PixelScale
from .files import load_weights, save_model
from .stopping import LearnedStop, StoppingRule

_OWN_KEYS = {"format", "config", "stop_threshold", "class_names", "weights_sha256"}  # of model.json


class State(NamedTuple):
    """Recurrent state of a batch: h_t (and the LSTM's cell), and the glimpses taken so far."""

    h: Tensor  # (B, H)
    c: Tensor  # (B, ...) the LSTM's cell, then sums of logits where the answer needs them; else 0
    time: Tensor  # (B,) int64


class Heads(NamedTuple):
    """What the actor says after a glimpse."""

    logits: Tensor  # (B, K) of f_c
    location: Tensor  # (B, 2) mean of the location policy, f_l, in [-1, 1]
    stop_logit: Tensor  # (B,) of f_a; p(stop) = sigmoid
    value: Tensor  # (B,) baseline b_t


class RNNCell(nn.Module):
    """The paper's core: ``h_t = ReLU(W h_{t-1} + g_t)``, g_t the encoded glimpse."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, code: Tensor, h: Tensor) -> Tensor:
        return torch.relu(self.recurrent(h) + code)


class DTRAM(nn.Module):
    """The recurrent actor; also a `dtram_env.policy.Policy`, so the environment can be played.

    Args:
        config: what it is made of.
        class_names: names of the K classes, saved with the model; numbers if not given.
        stopping: the rule that `step` stops by.

    Attributes:
        about: what else its ``model.json`` tells, JSON values: for which environment it was made
            (``env_id``, ``env_options``) and how images are shown to it (``look``). Empty for one
            that was not loaded.
    """

    scores_in_look = False  # whether `look` asks the stopper already

    def __init__(
        self,
        config: DTRAMConfig,
        class_names: tuple[str, ...] | None = None,
        stopping: StoppingRule | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.class_names = names_of_classes(class_names, config.num_classes)
        self.stopping: StoppingRule = stopping or LearnedStop()
        self.about: dict[str, Any] = {}
        hidden = config.hidden_size
        scale = PixelScale(config.pixel_mean, config.pixel_std)
        copies = config.max_glimpses if config.per_step else 1
        encoders = [_make_encoder(config, scale) for _ in range(copies)]
        self.encoder: nn.Module = nn.ModuleList(encoders) if config.per_step else encoders[0]
        self.core: nn.Module = {"rnn": RNNCell, "gru": _gru, "lstm": _lstm}[config.core](hidden)
        classifiers = [nn.Linear(hidden, config.num_classes) for _ in range(copies)]
        self.classifier: nn.Module = classifiers[0]
        if config.per_step:
            self.classifier = nn.ModuleList(classifiers)
        outputs = config.locator_grid**2 or 2
        self.locator: nn.Module = nn.Linear(hidden, outputs)
        if config.locator_hidden:
            self.locator = nn.Sequential(
                nn.Linear(hidden, config.locator_hidden),
                nn.ReLU(),
                nn.Linear(config.locator_hidden, outputs),
            )
        centres = torch.from_numpy(grid_centres(config.locator_grid or 1))
        self.register_buffer("cell_centres", centres, persistent=False)
        self.cell_centres: Tensor
        self.baseline = nn.Linear(hidden, 1)
        self.scalar_baseline = nn.Parameter(torch.zeros(()))
        self._cell_size = hidden if config.core == "lstm" else 0
        self._sums_size = 2 * config.num_classes if config.answer == "first_plus_mean" else 0
        evidence = config.num_classes + 1 + config.max_glimpses
        stopper_in = hidden + evidence * config.stopper_evidence
        if config.stopper_hidden:
            self.stopper = nn.Sequential(
                nn.Linear(stopper_in, config.stopper_hidden),
                nn.ReLU(),
                nn.Linear(config.stopper_hidden, 1),
            )
        else:
            self.stopper = nn.Sequential(nn.Linear(stopper_in, 1))
        # p(stop) = 1/2 whatever is seen, until something is learned.
        for parameter in self.stopper[-1].parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def for_spaces(
        cls,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_glimpses: int,
        **kw: Any,
    ) -> DTRAM:
        """Makes an untrained agent that fits an environment's native spaces.

        Args:
            observation_space: of one environment, ``Dict(glimpse, location, time)``, and
                ``thumbnail`` where the first look has a size of its own.
            action_space: of one environment, ``Dict(location, stop, prediction)``.
            max_glimpses: the environment's budget.
            **kw: further fields of `DTRAMConfig`, and `class_names`.

        Raises:
            ValueError: if the spaces are not the native view's.
        """
        spaces = _read_spaces(observation_space, action_space)
        names = kw.pop("class_names", None)
        config = DTRAMConfig(
            spaces.num_classes,
            spaces.glimpse_shape,
            max_glimpses,
            thumbnail_size=spaces.thumbnail_size,
            **kw,
        )
        return cls(config, class_names=names)

    def check_spaces(
        self, observation_space: spaces.Space, action_space: spaces.Space, max_glimpses: int
    ) -> None:
        """Raises one ValueError if this agent was made for another environment."""
        spaces = _read_spaces(observation_space, action_space)
        found = {
            "glimpse": spaces.glimpse_shape,
            "thumbnail": spaces.thumbnail_size,
            "classes": spaces.num_classes,
            "max_glimpses": max_glimpses,
        }
        made = {
            "glimpse": self.config.glimpse_shape,
            "thumbnail": self.config.thumbnail_size,
            "classes": self.config.num_classes,
            "max_glimpses": self.config.max_glimpses,
        }
        if found != made:
            raise ValueError(
                f"this DT-RAM was made for {made}, the environment has {found}; "
                "make the environment with the same settings, or train a new agent"
            )

    def check_env(self, env: Any) -> None:
        """Raises one ValueError if this agent was made for another environment than `env`.

        Args:
            env: scalar or vector, unwrapped; `dtram_env.evaluate` calls this.
        """
        vector = hasattr(env, "single_observation_space")
        self.check_spaces(
            env.single_observation_space if vector else env.observation_space,
            env.single_action_space if vector else env.action_space,
            env.max_glimpses,
        )
        if env.first_glimpse == "choose":
            raise ValueError(
                "first_glimpse='choose': DTRAM answers glimpses; expected one at reset"
            )

    @staticmethod
    def learned_stop(threshold: float) -> LearnedStop:
        """The rule that it learns, with a threshold."""
        return LearnedStop(threshold)

    # -- the recurrence -------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scalar_baseline.device

    def initial(self, batch: int) -> State:
        """State before the first glimpse, ``(batch, ...)``."""
        h = self.scalar_baseline.new_zeros(batch, self.config.hidden_size)
        time = torch.zeros(batch, dtype=torch.int64, device=h.device)
        return State(h, h.new_zeros(batch, self._cell_size + self._sums_size), time)

    def look(
        self, glimpse: Tensor, location: Tensor, state: State, step: int | None = None
    ) -> State:
        """``h_t = f_h(h_{t-1}, φ(x, l_{t-1}))``.

        Args:
            glimpse: ``(B, g, g, channels)`` uint8; a first look may have another size.
            location: ``(B, 2)``, where it was taken.
            state: the batch's state.
            step: glimpses taken so far, if all of the batch have the same number and the caller
                knows it; weights of each step's own need it.

        Raises:
            ValueError: `step` is needed.
        """
        return self.update(self.encode(glimpse, location, step), state, step)

    def encode(self, glimpse: Tensor, location: Tensor, step: int | None = None) -> Tensor:
        """A glimpse as a vector ``(B, H)``, g_t = φ(x, l_{t-1}); arguments as for `look`."""
        return self._of_step("encoder", step)(glimpse, location)

    def update(self, code: Tensor, state: State, step: int | None = None) -> State:
        """The state after an encoded glimpse ``(B, H)``; the rest as for `look`."""
        cell, sums = state.c.tensor_split((self._cell_size,), dim=1)
        if self.config.core == "lstm":
            h, cell = self.core(code, (state.h, cell))
        else:
            h = self.core(code, state.h)
        if self._sums_size:
            logits = self._of_step("classifier", step)(h)
            first, later = sums.chunk(2, dim=1)
            begins = (state.time == 0)[:, None]
            sums = torch.cat(
                [torch.where(begins, logits, first), later + torch.where(begins, 0, logits)], dim=1
            )
            cell = torch.cat([cell, sums], dim=1)
        return State(h, cell, state.time + 1)

    def logits(self, state: State, step: int | None = None) -> Tensor:
        """What the classifier says ``(B, K)`` after the glimpses so far, f_c.

        Args:
            state: after at least one glimpse.
            step: as for `look`, of the last glimpse.
        """
        if not self._sums_size:
            return self._of_step("classifier", step)(state.h)
        first, later = state.c[:, self._cell_size :].chunk(2, dim=1)
        return first + later / (state.time - 1).clamp(min=1)[:, None]

    def stacked_logits(self, states: Sequence[State]) -> Tensor:
        """`logits` ``(T, B, K)`` of the states after glimpses 1 ... T of one batch."""
        if self._sums_size or self.config.per_step:
            return torch.stack([self.logits(state, step) for step, state in enumerate(states)])
        return self.classifier(torch.stack([state.h for state in states]))

    def _of_step(self, name: str, step: int | None) -> nn.Module:
        """The encoder or classifier of a step; the one that there is, if steps share it."""
        module = getattr(self, name)
        if not self.config.per_step:
            return module
        if step is None:
            raise ValueError("step=None: expected the step, as per_step=True gives each its own")
        return module[step]

    def encoders(self) -> list[nn.Module]:
        """The encoder of each step, or the one that all share."""
        return list(self.encoder) if isinstance(self.encoder, nn.ModuleList) else [self.encoder]

    def classifiers(self) -> list[nn.Module]:
        """The classifier of each step, or the one that all share."""
        one = self.classifier
        return list(one) if isinstance(one, nn.ModuleList) else [one]

    def heads(self, state: State, step: int | None = None) -> Heads:
        """What the agent says in a state: f_c, f_l, f_a, the baseline; `step` as for `logits`."""
        logits = self.logits(state, step)
        stop_logit = self.stop_logit(state.h, logits, state.time)
        return Heads(logits, self.locate(state.h), stop_logit, self.value(state.h))

    def location_params(self, h: Tensor) -> Tensor:
        """What the location policy is made of, from states ``(..., H)``.

        Returns:
            The Gaussian's mean ``(..., 2)`` in [-1, 1], or with a grid the logit of every cell
            ``(..., G * G)``.
        """
        h = h if self.config.locator_input == "state" else h.detach()
        location_params = self.locator(h)
        return location_params if self.config.locator_grid else torch.tanh(location_params)

    def best_location(self, location_params: Tensor) -> Tensor:
        """The most probable location ``(..., 2)`` of the policy that `location_params` gave."""
        return (
            self.cell_centres[location_params.argmax(dim=-1)]
            if self.config.locator_grid
            else location_params
        )

    def locate(self, h: Tensor) -> Tensor:
        """Most probable location ``(..., 2)`` in [-1, 1], from states ``(..., H)``."""
        return self.best_location(self.location_params(h))

    def value(self, h: Tensor) -> Tensor:
        """Baseline b_t ``(...)`` of states ``(..., H)``; its gradient trains its head alone."""
        return self.baseline(h.detach()).squeeze(-1)

    def stop_logit(self, h: Tensor, logits: Tensor, time: Tensor) -> Tensor:
        """Logit of p(stop).

        With `stopper_evidence` f_a also reads the class log-probabilities, the log of the doubt
        1 - max p, and the time. Logarithms, because a stop is decided between doubts such as 0.01
        and 0.001, which probabilities hardly tell apart. The state is scaled down beside them: with
        it at full size the stopper fits the training images' states rather than their evidence.

        With ``stopper_prior="confidence"`` the logit is ``log EVEN_DOUBT - log doubt + f_a``:
        before anything is learned a threshold on p(stop) is one on the confidence max p, and what
        is learned is when to depart from it.

        Args:
            h: states ``(..., H)``.
            logits: ``(..., K)``, the classifier's; no gradient goes through them.
            time: ``(...)`` int64, glimpses taken, 1 ... T_max.

        Returns:
            ``(...)``.
        """
        h = h if self.config.stopper_input == "state" else h.detach()
        log_p = torch.log_softmax(logits.detach(), dim=-1)
        doubt = torch.log1p(-log_p.amax(dim=-1, keepdim=True).exp()).clamp(min=-14)
        if self.config.stopper_evidence:
            clock = one_hot(time - 1, self.config.max_glimpses).to(h.dtype)
            h = torch.cat([0.1 * h, log_p.clamp(min=-12) / 4, doubt / 4, clock], dim=-1)
        logit = self.stopper(h)
        if self.config.stopper_prior == "confidence":
            logit = logit + (math.log(EVEN_DOUBT) - doubt)
        return logit.squeeze(-1)

    # -- the policy protocol --------------------------------------------------------------------

    def reset(self, batch: int) -> State:
        """State of `batch` new episodes."""
        return self.initial(batch)

    @torch.no_grad()
    def step(self, obs: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Acts deterministically: location = mean, stop by `stopping`, most probable class.

        Args:
            obs: the environment's batched observation, numpy or torch.
            state: of the batch.

        Returns:
            Native action ``{location (B, 2), stop (B,), prediction (B,)}`` of the kind that came
            in, and the new state.

        Raises:
            ValueError: an episode of the batch has had all its glimpses already (CPU).
        """
        device = self.device
        views: dict[str, Tensor] = {
            name: torch.as_tensor(obs[name], device=device)
            for name in ("glimpse", "thumbnail")
            if name in obs
        }
        location = torch.as_tensor(obs["location"], device=device)
        budget = self.config.max_glimpses
        # On a GPU the question would make the host wait.
        if device.type == "cpu" and (state.time >= budget).any():
            raise ValueError(
                f"step: an episode of this state has had all its {budget} glimpses; start each "
                "episode from the state of `reset`"
            )
        if self.config.per_step or "thumbnail" in views:
            action, state = self._act_by_step(views, location, state)
        else:
            action, state = self._act(views["glimpse"], location, state, None)
        if isinstance(obs["glimpse"], np.ndarray):
            return {name: value.cpu().numpy() for name, value in action.items()}, state
        return action, state

    def _act(
        self, glimpse: Tensor, location: Tensor, state: State, step: int | None
    ) -> tuple[dict[str, Tensor], State]:
        state = self.look(glimpse, location, state, step)
        heads = self.heads(state, step)
        action = {
            "location": heads.location,
            "stop": self.stopping.stops(state.time, heads.logits, heads.stop_logit).long(),
            "prediction": heads.logits.argmax(dim=-1),
        }
        return action, state

    def _act_by_step(
        self, views: dict[str, Tensor], location: Tensor, state: State
    ) -> tuple[dict[str, Tensor], State]:
        """`_act` where it matters how many glimpses each episode has had: one call for each."""
        parts, order = [], []
        for step in state.time.unique().tolist():
            rows = torch.nonzero(state.time == step)[:, 0]
            view = views["thumbnail" if step == 0 and "thumbnail" in views else "glimpse"]
            parts.append(self._act(view[rows], location[rows], self.select(state, rows), step))
            order.append(rows)
        back = torch.cat(order).argsort()
        action = {name: torch.cat([part[name] for part, _ in parts])[back] for name in parts[0][0]}
        columns = zip(*(after for _, after in parts), strict=True)
        return action, State(*(torch.cat(column)[back] for column in columns))

    def select(self, state: State, keep: Any) -> State:
        """The state of some of the episodes; `keep` is a mask or indices ``(B',)``."""
        keep = torch.as_tensor(keep, device=state.h.device)
        return State(*(part[keep] for part in state))

    # -- saving ---------------------------------------------------------------------------------

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder, each by one rename.

        Args:
            folder: made if missing.
            **about: further JSON values to keep (the environment's id, its options, ...), beside
                those of `about`.
        """
        if not isinstance(self.stopping, LearnedStop):
            raise ValueError(f"stopping={self.stopping}: only a LearnedStop is saved with a model")
        header = {
            "config": config_to_json(self.config),
            "stop_threshold": self.stopping.threshold,
            "class_names": list(self.class_names),
            **self.about,
            **about,
        }
        save_model(folder, self, header)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> DTRAM:
        """Reads a saved model back; nothing is unpickled.

        Raises:
            FileNotFoundError: if there is no model in `folder`.
            ValueError: if the files are not a DT-RAM's or do not fit one another.
        """
        folder = Path(folder)
        header = read_header(folder)
        agent = cls(
            config_from_json(header["config"]),
            class_names=tuple(header["class_names"]),
            stopping=LearnedStop(header["stop_threshold"]),
        )
        load_weights(folder, header, agent)
        agent.about = {key: value for key, value in header.items() if key not in _OWN_KEYS}
        return agent.to(device).eval()


def _gru(hidden: int) -> nn.Module:
    return nn.GRUCell(hidden, hidden)


def _lstm(hidden: int) -> nn.Module:
    return nn.LSTMCell(hidden, hidden)


def _make_encoder(config: DTRAMConfig, scale: PixelScale) -> nn.Module:
    if config.resnet is None:
        made = ENCODERS[config.encoder]
        return made(config.glimpse_shape, config.hidden_size, scale=scale)
    encoder = GlimpseResNet(
        config.resnet, config.hidden_size, config.location_embedding, scale=scale
    )
    encoder.trunk.freeze_batch_norm(config.frozen_norms)
    return encoder


class Spaces(NamedTuple):
    """What an agent has to fit."""

    glimpse_shape: tuple[int, int, int]
    thumbnail_size: int  # 0: the first look has no size of its own
    num_classes: int


def _read_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> Spaces:
    """What the native spaces ask of an agent."""
    native = (
        isinstance(observation_space, spaces.Dict)
        and isinstance(action_space, spaces.Dict)
        and observation_space.keys() - {"thumbnail"} == {"glimpse", "location", "time"}
        and action_space.keys() == {"location", "stop", "prediction"}
        and len(observation_space["glimpse"].shape or ()) == 3
    )
    if not native:
        raise ValueError(
            f"DTRAM needs the spaces of view='native' with glimpse_format='image', got observation "
            f"{observation_space} and action {action_space}; for a policy-only environment wrap a "
            "policy-only DTRAM: agents.LookAndStop(agent)"
        )
    assert isinstance(observation_space, spaces.Dict) and isinstance(action_space, spaces.Dict)
    side, _, channels = observation_space["glimpse"].shape or ()
    thumbnail = 0
    if "thumbnail" in observation_space.spaces:
        thumbnail = (observation_space["thumbnail"].shape or (0,))[0]
    prediction = action_space["prediction"]
    assert isinstance(prediction, spaces.Discrete)
    return Spaces((int(side), int(side), int(channels)), int(thumbnail), int(prediction.n))

"""DT-RAM: the recurrent actor. Encoder -> core -> classifier, locator, stopper, baseline.

Li, Yang, Liu, Zhou, Wen, Xu, "Dynamic Computational Time for Visual Attention" (2017); the modules
are those of the talk's slide "Dynamic Computational Time for RAM", one line each.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from torch import Tensor, nn
from torch.nn.functional import hardtanh

from dtram_env.views import grid_centres

from .config import DTRAMConfig
from .cores import RNNCell
from .encoders import WHERE_FEATURES, make_encoder
from .files import DTRAM_KIND, Header, SavedNetwork, load_stop
from .stopping import LearnedStop, StoppingRule

STATE_SCALE = 0.1  # of h_t at the stopper's input; at 1 the stopper overfits the training images
EVIDENCE_SCALE = 0.25  # of the logarithms there, to bring them near the range of the rest
LEAST_LOG_PROB = -12.0  # bound on a class's log-probability there; it is -inf for an impossible one
LEAST_LOG_DOUBT = -14.0  # bound on log(1 - max p): in float32 a smaller doubt is mostly rounding
EVEN_DOUBT = math.exp(-5)
"""Doubt 1 - max p, 0.7 %, at which the confidence prior alone gives p(stop) = 1/2. It lies between
what a glimpse costs at discount 0.98 (2 %) and at 0.999 (0.1 %), so f_a starts near a good rule."""


class State(NamedTuple):
    """Recurrent state of a batch. Every field has the batch first."""

    h: Tensor  # (B, H) h_t
    time: Tensor  # (B,) int64, glimpses taken so far
    first_logits: Tensor  # (B, K) of glimpse 1; (B, 0) unless answer="first_plus_mean"
    later_logits: Tensor  # (B, K) sum over glimpses 2 ... t; (B, 0) likewise


class Heads(NamedTuple):
    """Outputs of the actor after a glimpse."""

    logits: Tensor  # (B, K) of f_c
    location: Tensor  # (B, 2) mean of the location policy, f_l, in [-1, 1]
    stop_logit: Tensor  # (B,) of f_a; p(stop) = sigmoid


class DTRAM(SavedNetwork):
    """The recurrent actor; also a `dtram_env.policy.Policy`, so it plays the environment.

    Args:
        config: its settings.
        class_names: names of the K classes, saved with the model; numbers if not given.
        stopping: the rule by which `step` stops; the learned one at 1/2 if not given.

    Attributes:
        about: further JSON values of its ``model.json``: the environment that it was trained in
            (``env_id``, ``env_options``) and how images are shown to it (``sensor``). Empty for an
            agent that was not loaded.
    """

    KIND = DTRAM_KIND
    CONFIG = DTRAMConfig
    learned_stop: ClassVar[type[LearnedStop]] = LearnedStop  # the rule that it learns
    STOPPER_BIAS: ClassVar[float] = 0.0  # initial bias of the stopper's output
    updates_with_stopper: ClassVar[bool] = False  # whether `update` evaluates the stopper

    def __init__(
        self,
        config: DTRAMConfig,
        class_names: tuple[str, ...] | None = None,
        stopping: StoppingRule | None = None,
    ) -> None:
        super().__init__(config, class_names)
        self.stopping: StoppingRule = stopping or self.learned_stop()
        self.about: dict[str, Any] = {}
        hidden, classes = config.hidden_size, config.num_classes
        self.encoder, self.core = self._make_encoder_and_core()
        self.classifier = _by_step(config, lambda: nn.Linear(hidden, classes))
        self.locator = self._make_locator()
        centres = torch.from_numpy(grid_centres(config.locator_grid or 1))
        self.register_buffer("cell_centres", centres, persistent=False)
        self.cell_centres: Tensor
        self.baseline = nn.Linear(hidden, 1)
        self.scalar_baseline = nn.Parameter(torch.zeros(()))
        stopper_in = hidden + config.stopper_evidence * (classes + 1 + config.max_glimpses)
        self.stopper = _layers(stopper_in, config.stopper_hidden, 1)
        # Until something is learned, p(stop) is 1/2 (or the prior's) for every image.
        nn.init.zeros_(self.stopper[-1].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.stopper[-1].bias, self.STOPPER_BIAS)  # type: ignore[arg-type]

    def _make_encoder_and_core(self) -> tuple[nn.Module, nn.Module]:
        config = self.config
        where = WHERE_FEATURES if config.location_embedding else 0
        encoder = _by_step(config, lambda: make_encoder(config, config.glimpse_shape, where))
        return encoder, RNNCell(config.hidden_size)

    def _make_locator(self) -> nn.Module:
        config, outputs = self.config, self.config.locator_grid**2 or 2
        if config.locator_hidden:
            return _layers(config.hidden_size, config.locator_hidden, outputs)
        return nn.Linear(config.hidden_size, outputs)

    @classmethod
    def for_spaces(
        cls, observation_space: Space, action_space: Space, max_glimpses: int, **kw: Any
    ) -> Self:
        """Makes an untrained agent for the native spaces and the budget of one environment.

        `kw` has further fields of `DTRAMConfig`, and `class_names`. Spaces of another view are a
        ValueError.
        """
        names, found = kw.pop("class_names", None), _read_spaces(observation_space, action_space)
        return cls(DTRAMConfig(max_glimpses=max_glimpses, **found, **kw), class_names=names)

    def check_spaces(
        self, observation_space: Space, action_space: Space, max_glimpses: int
    ) -> None:
        """Raises a ValueError if this agent was made for other spaces or another budget."""
        found = _read_spaces(observation_space, action_space) | {"max_glimpses": max_glimpses}
        made = {name: getattr(self.config, name) for name in found}
        if found != made:
            raise ValueError(
                f"this DT-RAM was made for {made}, the environment has {found}; "
                "make the environment with the same settings, or train a new agent"
            )

    def check_env(self, env: Any) -> None:
        """Raises a ValueError if this agent was made for another environment than `env`.

        `dtram_env.evaluate` calls this with a scalar or vector environment, unwrapped.
        """
        observation_space = getattr(env, "single_observation_space", env.observation_space)
        action_space = getattr(env, "single_action_space", env.action_space)
        self.check_spaces(observation_space, action_space, env.max_glimpses)

    # -- the recurrence -------------------------------------------------------------------------

    def initial(self, batch: int) -> State:
        """The `State` before the first glimpse, of `batch` episodes."""
        new = self.scalar_baseline.new_zeros
        h, time = new(batch, self.config.hidden_size), new(batch, dtype=torch.int64)
        logits = self.config.num_classes if self.config.answer == "first_plus_mean" else 0
        return State(h, time, new(batch, logits), new(batch, logits))

    def observe(
        self, glimpse: Tensor, location: Tensor, state: State, step: int | None = None
    ) -> State:
        """The state after a glimpse, ``h_t = f_h(h_{t-1}, φ(x, l_{t-1}))``.

        Args:
            glimpse: ``(B, g, g, channels)`` uint8; glimpse 1 may have another size.
            location: ``(B, 2)``, where it was taken.
            state: the state before it.
            step: number of glimpses before this one, the same for the whole batch. With
                ``per_step=True`` None is a ValueError.
        """
        return self.update(self.encode(glimpse, location, step), state, step)

    def encode(self, glimpse: Tensor, location: Tensor, step: int | None = None) -> Tensor:
        """The encoded glimpse g_t = φ(x, l_{t-1}), ``(B, H)``; arguments as for `observe`."""
        return _of_step(self.encoder, step)(glimpse, location)

    def update(self, code: Tensor, state: State, step: int | None = None) -> State:
        """The state after an encoded glimpse ``(B, H)``; other arguments as for `observe`."""
        h = self.core(code, state.h)
        first, later = state.first_logits, state.later_logits
        if self.config.answer == "first_plus_mean":
            logits = _of_step(self.classifier, step)(h)
            is_first = (state.time == 0)[:, None]
            first = torch.where(is_first, logits, first)
            later = later + torch.where(is_first, 0, logits)
        return state._replace(h=h, time=state.time + 1, first_logits=first, later_logits=later)

    def logits(self, state: State, step: int | None = None) -> Tensor:
        """Class logits ``(B, K)`` after one or more glimpses, f_c; `step` is the last one's."""
        if self.config.answer == "state":
            return _of_step(self.classifier, step)(state.h)
        later_glimpses = (state.time - 1).clamp(min=1)[:, None]
        return state.first_logits + state.later_logits / later_glimpses

    def stacked_logits(self, states: Sequence[State]) -> Tensor:
        """`logits` ``(T, B, K)`` of the states after glimpses 1 ... T of one batch."""
        if self.config.answer == "state" and not self.config.per_step:
            return self.classifier(torch.stack([state.h for state in states]))
        return torch.stack([self.logits(state, step) for step, state in enumerate(states)])

    def encoders(self) -> list[nn.Module]:
        """The encoder of every step, or the one shared by all."""
        return _of_all_steps(self.encoder)

    def classifiers(self) -> list[nn.Module]:
        """The classifier of every step, or the one shared by all."""
        return _of_all_steps(self.classifier)

    def heads(self, state: State, step: int | None = None) -> Heads:
        """Outputs of all heads in a state, with the answer to give if the agent stops now.

        `HaltingRAM` mixes in the answers of earlier glimpses here, but not in its `logits`.
        """
        logits = self.logits(state, step)
        stop_logit = self.stop_logit(state.h, logits, state.time)
        return Heads(logits, self.locate(state), stop_logit)

    def location_params(self, state: State) -> Tensor:
        """Parameters of the location policy: the Gaussian's mean ``(B, 2)`` in [-1, 1], or with
        ``locator_grid`` the logit of every cell ``(B, G * G)``."""
        h = state.h if self.config.locator_input == "state" else state.h.detach()
        params = self.locator(h)
        if self.config.locator_grid:
            return params
        hard = self.config.location_squash == "hard_tanh"
        return self.config.location_bound * (hardtanh(params) if hard else torch.tanh(params))

    def best_location(self, location_params: Tensor) -> Tensor:
        """Most probable location ``(..., 2)`` of a policy with these `location_params`."""
        if self.config.locator_grid:
            return self.cell_centres[location_params.argmax(dim=-1)]
        return location_params

    def locate(self, state: State) -> Tensor:
        """Most probable location ``(B, 2)`` in [-1, 1]."""
        return self.best_location(self.location_params(state))

    def value(self, h: Tensor) -> Tensor:
        """Baseline b_t ``(...)`` of states ``(..., H)``; its gradient stops at its own head."""
        return self.baseline(h.detach()).squeeze(-1)

    def stop_logit(self, h: Tensor, logits: Tensor, time: Tensor) -> Tensor:
        """Logit of p(stop), f_a. Its gradient reaches the state if `stopper_input` says so, and
        never the classifier.

        With `stopper_evidence` f_a reads, beside the state, the class log-probabilities, the log of
        the doubt 1 - max p, and the time. They are logarithms because the decision depends on
        doubts such as 0.01 and 0.001, whose probabilities are nearly equal.

        With ``stopper_prior="confidence"`` the logit is ``log EVEN_DOUBT - log doubt + f_a``. An
        untrained stopper then stops by the confidence max p, and learns where to depart from it.

        Shapes: states `h` ``(..., H)``, the classifier's logits ``(..., K)``, and the number of
        glimpses taken, `time` ``(...)`` int64, 1 ... T_max.
        """
        if self.config.stopper_input == "detached":
            h = h.detach()
        log_p = torch.log_softmax(logits.detach(), dim=-1)
        log_doubt = torch.log1p(-log_p.amax(dim=-1, keepdim=True).exp()).clamp(min=LEAST_LOG_DOUBT)
        if self.config.stopper_evidence:
            steps = torch.arange(1, self.config.max_glimpses + 1, device=h.device)
            clock = (time[..., None] == steps).to(h.dtype)
            evidence = EVIDENCE_SCALE * log_p.clamp(min=LEAST_LOG_PROB), EVIDENCE_SCALE * log_doubt
            h = torch.cat([STATE_SCALE * h, *evidence, clock], dim=-1)
        logit = self.stopper(h)
        if self.config.stopper_prior == "confidence":
            logit = logit + (math.log(EVEN_DOUBT) - log_doubt)
        return logit.squeeze(-1)

    # -- the policy protocol --------------------------------------------------------------------

    def reset(self, batch: int) -> State:
        """State of `batch` new episodes."""
        return self.initial(batch)

    @torch.no_grad()
    def step(self, obs: dict[str, Any], state: State) -> tuple[dict[str, Any], State]:
        """Acts deterministically: location = mean, stop by `stopping`, most probable class.

        `obs` is the environment's batched observation, numpy or torch. Returns the native action
        ``{location (B, 2), stop (B,), prediction (B,)}``, arrays or tensors as in `obs`, and the
        new state. An episode that has taken its whole budget is a ValueError (on the CPU only).
        """
        names = {"glimpse", "thumbnail", "location"} & obs.keys()
        seen = {name: torch.as_tensor(obs[name], device=self.device) for name in names}
        budget = self.config.max_glimpses
        # On a GPU this test would make the host wait.
        if self.device.type == "cpu" and (state.time >= budget).any():
            raise ValueError(
                f"step: an episode of this state has had all its {budget} glimpses; start each "
                "episode from the state of `reset`"
            )
        by_step = self.config.per_step or "thumbnail" in seen or self.config.first_look is not None
        action, after = self._act_by_step(seen, state) if by_step else self._act(seen, state)
        # With first_glimpse="choose" nothing is seen at time 0, and the agent only says where.
        time = torch.as_tensor(obs.get("time", 1), device=self.device)
        begins = time.reshape(-1, 1) == 0
        if self.device.type != "cpu" or begins.any():
            action["stop"] = action["stop"] * ~begins[:, 0]
            action["location"] = torch.where(begins, self.locate(state), action["location"])
            columns = zip(state, after, strict=True)
            after = type(state)(
                *(
                    torch.where(begins.view(-1, *[1] * (old.ndim - 1)), old, new)
                    for old, new in columns
                )
            )
        state = after
        if isinstance(obs["glimpse"], np.ndarray):
            return {name: value.cpu().numpy() for name, value in action.items()}, state
        return action, state

    def _act(
        self, seen: dict[str, Tensor], state: State, step: int | None = None
    ) -> tuple[dict[str, Tensor], State]:
        view = seen["thumbnail" if step == 0 and "thumbnail" in seen else "glimpse"]
        state = self.observe(view, seen["location"], state, step)
        heads = self.heads(state, step)
        stop = self.stopping.stops(state.time, heads.logits, heads.stop_logit).long()
        prediction = heads.logits.argmax(dim=-1)
        return {"location": heads.location, "stop": stop, "prediction": prediction}, state

    def _act_by_step(
        self, seen: dict[str, Tensor], state: State
    ) -> tuple[dict[str, Tensor], State]:
        """`_act` for networks or sizes that depend on the step: one call for each step."""
        parts, order = [], []
        for step in state.time.unique().tolist():
            order.append(torch.nonzero(state.time == step)[:, 0])
            part = {name: value[order[-1]] for name, value in seen.items()}
            parts.append(self._act(part, self.select(state, order[-1]), step))
        back = torch.cat(order).argsort()
        action = {name: torch.cat([part[name] for part, _ in parts])[back] for name in parts[0][0]}
        columns = zip(*(after for _, after in parts), strict=True)
        return action, type(state)(*(torch.cat(column)[back] for column in columns))

    def select(self, state: State, keep: Any) -> State:
        """The state of some of the episodes; `keep` is a mask or indices ``(B',)``."""
        keep = torch.as_tensor(keep, device=state.h.device)
        return type(state)(*(part[keep] for part in state))

    # -- saving ---------------------------------------------------------------------------------

    def save(self, folder: str | Path, **about: Any) -> None:
        """Saves the model, see `SavedNetwork.save`; keeps `about` too.

        Raises:
            ValueError: the stopping rule is not a learned one.
        """
        if not isinstance(self.stopping, LearnedStop):
            raise ValueError(f"stopping={self.stopping}: only a LearnedStop is saved with a model")
        super().save(folder, stop_threshold=self.stopping.threshold, **{**self.about, **about})

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "cpu", stop: str | None = None
    ) -> Self:
        """Reads a saved model back; nothing is unpickled.

        Args:
            folder: the model's.
            device: where its weights go.
            stop: name of one of its stops (see `files.save_stop`); the default one if None.

        Raises:
            FileNotFoundError: there is no model in `folder`, or the stop's file is missing.
            ValueError: an unknown stop, a model of another kind, or files of different models.
        """
        header = cls.read_header(folder)
        agent = cls._load(folder, header)
        agent.stopping = cls.learned_stop(load_stop(folder, header, agent, stop))
        header_keys = {"format", "kind", *Header.__annotations__}
        agent.about = {key: value for key, value in header.items() if key not in header_keys}
        return agent.to(device).eval()


def _layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers, or with 0 hidden units one."""
    if not hidden:
        return nn.Sequential(nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _by_step(config: DTRAMConfig, make: Callable[[], nn.Module]) -> nn.Module:
    """A module for all glimpses, or with `per_step` a list of one for each."""
    return nn.ModuleList(make() for _ in range(config.max_glimpses)) if config.per_step else make()


def _of_step(module: nn.Module, step: int | None) -> nn.Module:
    """The module for glimpse `step`, if `_by_step` made one for each."""
    if not isinstance(module, nn.ModuleList):
        return module
    if step is None:
        raise ValueError("step=None: expected the step, as per_step=True gives each its own")
    return module[step]


def _of_all_steps(module: nn.Module) -> list[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def _read_spaces(observation_space: Any, action_space: Any) -> dict[str, Any]:
    """The settings that the native spaces fix; ValueError if they are another view's."""
    native = (
        isinstance(observation_space, Dict)
        and isinstance(action_space, Dict)
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
    thumbnail = observation_space.get("thumbnail")
    return {
        "glimpse_shape": observation_space["glimpse"].shape,
        "thumbnail_size": thumbnail.shape[0] if thumbnail else 0,  # 0: the size of the others
        "num_classes": int(action_space["prediction"].n),
    }

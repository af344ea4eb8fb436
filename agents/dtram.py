"""DT-RAM: the recurrent actor. Encoder -> core -> classifier, locator, stopper, baseline.

Li, Yang, Liu, Zhou, Wen, Xu, "Dynamic Computational Time for Visual Attention" (2017); the modules
are those of the talk's slide "Dynamic Computational Time for RAM", one line each.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import one_hot

from dtram_env.views import grid_centres

from .config import FORMAT_VERSION, DTRAMConfig, read_header
from .encoders import ENCODERS, PixelScale
from .stopping import LearnedStop, StoppingRule


class State(NamedTuple):
    """Recurrent state of a batch: h_t (and the LSTM's cell), and the glimpses taken so far."""

    h: Tensor  # (B, H)
    c: Tensor  # (B, H) for the LSTM, (B, 0) otherwise
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
    """

    def __init__(
        self,
        config: DTRAMConfig,
        class_names: tuple[str, ...] | None = None,
        stopping: StoppingRule | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.class_names = class_names or tuple(str(k) for k in range(config.num_classes))
        if len(self.class_names) != config.num_classes:
            raise ValueError(
                f"class_names: {len(self.class_names)} names for {config.num_classes} classes"
            )
        self.stopping: StoppingRule = stopping or LearnedStop()
        hidden = config.hidden_size
        scale = PixelScale(config.pixel_mean, config.pixel_std)
        self.encoder = ENCODERS[config.encoder](config.glimpse_shape, hidden, scale=scale)
        self.core: nn.Module = {"rnn": RNNCell, "gru": _gru, "lstm": _lstm}[config.core](hidden)
        self.classifier = nn.Linear(hidden, config.num_classes)
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
            observation_space: of one environment, ``Dict(glimpse, location, time)``.
            action_space: of one environment, ``Dict(location, stop, prediction)``.
            max_glimpses: the environment's budget.
            **kw: further fields of `DTRAMConfig`, and `class_names`.

        Raises:
            ValueError: if the spaces are not the native view's.
        """
        shape, num_classes = _read_spaces(observation_space, action_space)
        names = kw.pop("class_names", None)
        return cls(DTRAMConfig(num_classes, shape, max_glimpses, **kw), class_names=names)

    def check_spaces(
        self, observation_space: spaces.Space, action_space: spaces.Space, max_glimpses: int
    ) -> None:
        """Raises one ValueError if this agent was made for another environment."""
        shape, num_classes = _read_spaces(observation_space, action_space)
        found = {"glimpse": shape, "classes": num_classes, "max_glimpses": max_glimpses}
        made = {
            "glimpse": self.config.glimpse_shape,
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

    # -- the recurrence -------------------------------------------------------------------------

    def initial(self, batch: int) -> State:
        """State before the first glimpse, ``(batch, ...)``."""
        h = self.classifier.weight.new_zeros(batch, self.config.hidden_size)
        time = torch.zeros(batch, dtype=torch.int64, device=h.device)
        return State(h, h if self.config.core == "lstm" else h[:, :0], time)

    def look(self, glimpse: Tensor, location: Tensor, state: State) -> State:
        """``h_t = f_h(h_{t-1}, φ(x, l_{t-1}))``.

        Args:
            glimpse: ``(B, g, g, channels)`` uint8.
            location: ``(B, 2)``, where it was taken.
            state: the batch's state.
        """
        code = self.encoder(glimpse, location)
        if self.config.core == "lstm":
            h, c = self.core(code, (state.h, state.c))
            return State(h, c, state.time + 1)
        return State(self.core(code, state.h), state.c, state.time + 1)

    def heads(self, state: State) -> Heads:
        """What the agent says in a state: f_c, f_l, f_a and the baseline."""
        logits = self.classifier(state.h)
        stop_logit = self.stop_logit(state.h, logits, state.time)
        return Heads(logits, self.locate(state.h), stop_logit, self.value(state.h))

    def aim(self, h: Tensor) -> Tensor:
        """What the location policy is made of, from states ``(..., H)``.

        Returns:
            The Gaussian's mean ``(..., 2)`` in [-1, 1], or with a grid the logit of every cell
            ``(..., G * G)``.
        """
        h = h if self.config.locator_input == "state" else h.detach()
        aim = self.locator(h)
        return aim if self.config.locator_grid else torch.tanh(aim)

    def best_location(self, aim: Tensor) -> Tensor:
        """The most probable location ``(..., 2)`` of the policy that `aim` gave."""
        return self.cell_centres[aim.argmax(dim=-1)] if self.config.locator_grid else aim

    def locate(self, h: Tensor) -> Tensor:
        """Most probable location ``(..., 2)`` in [-1, 1], from states ``(..., H)``."""
        return self.best_location(self.aim(h))

    def value(self, h: Tensor) -> Tensor:
        """Baseline b_t ``(...)`` of states ``(..., H)``; its gradient trains its head alone."""
        return self.baseline(h.detach()).squeeze(-1)

    def stop_logit(self, h: Tensor, logits: Tensor, time: Tensor) -> Tensor:
        """Logit of p(stop).

        With `stopper_evidence` f_a also reads the class log-probabilities, the log of the doubt
        1 - max p, and the time. Logarithms, because a stop is decided between doubts such as 0.01
        and 0.001, which probabilities hardly tell apart. The state is scaled down beside them: with
        it at full size the stopper fits the training images' states rather than their evidence.

        Args:
            h: states ``(..., H)``.
            logits: ``(..., K)``, the classifier's; no gradient goes through them.
            time: ``(...)`` int64, glimpses taken, 1 ... T_max.

        Returns:
            ``(...)``.
        """
        h = h if self.config.stopper_input == "state" else h.detach()
        if self.config.stopper_evidence:
            log_p = torch.log_softmax(logits.detach(), dim=-1)
            doubt = torch.log1p(-log_p.amax(dim=-1, keepdim=True).exp()).clamp(min=-14)
            clock = one_hot(time - 1, self.config.max_glimpses).to(h.dtype)
            h = torch.cat([0.1 * h, log_p.clamp(min=-12) / 4, doubt / 4, clock], dim=-1)
        return self.stopper(h).squeeze(-1)

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
        device = self.classifier.weight.device
        glimpse = torch.as_tensor(obs["glimpse"], device=device)
        location = torch.as_tensor(obs["location"], device=device)
        budget = self.config.max_glimpses
        # On a GPU the question would make the host wait.
        if device.type == "cpu" and (state.time >= budget).any():
            raise ValueError(
                f"step: an episode of this state has had all its {budget} glimpses; start each "
                "episode from the state of `reset`"
            )
        state = self.look(glimpse, location, state)
        heads = self.heads(state)
        action = {
            "location": heads.location,
            "stop": self.stopping.stops(state.time, heads.logits, heads.stop_logit).long(),
            "prediction": heads.logits.argmax(dim=-1),
        }
        if isinstance(obs["glimpse"], np.ndarray):
            return {name: value.cpu().numpy() for name, value in action.items()}, state
        return action, state

    def select(self, state: State, keep: Any) -> State:
        """The state of some of the episodes; `keep` is a mask or indices ``(B',)``."""
        keep = torch.as_tensor(keep, device=state.h.device)
        return State(*(part[keep] for part in state))

    # -- saving ---------------------------------------------------------------------------------

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder, each by one rename.

        Args:
            folder: made if missing.
            **about: further JSON values to keep (the environment's id, its options, ...).
        """
        if not isinstance(self.stopping, LearnedStop):
            raise ValueError(f"stopping={self.stopping}: only a LearnedStop is saved with a model")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / "model.safetensors.tmp"
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, aside)
        header = {
            "format": FORMAT_VERSION,
            "config": asdict(self.config),
            "stop_threshold": self.stopping.threshold,
            "class_names": list(self.class_names),
            "weights_sha256": _sha256(aside),
            **about,
        }
        os.replace(aside, folder / "model.safetensors")
        aside = folder / "model.json.tmp"
        aside.write_text(json.dumps(header, indent=2) + "\n")
        os.replace(aside, folder / "model.json")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> DTRAM:
        """Reads a saved model back; nothing is unpickled.

        Raises:
            FileNotFoundError: if there is no model in `folder`.
            ValueError: if the files are not a DT-RAM's or do not fit one another.
        """
        folder = Path(folder)
        header = read_header(folder)
        config = dict(header["config"])
        config["glimpse_shape"] = tuple(config["glimpse_shape"])
        agent = cls(
            DTRAMConfig(**config),
            class_names=tuple(header["class_names"]),
            stopping=LearnedStop(header["stop_threshold"]),
        )
        if _sha256(folder / "model.safetensors") != header["weights_sha256"]:
            raise ValueError(
                f"{folder / 'model.safetensors'}: not the weights that model.json beside it was "
                "written for; copy both files of one model"
            )
        weights = load_file(folder / "model.safetensors")
        expected = agent.state_dict()
        wrong = sorted(
            name
            for name in weights.keys() | expected.keys()
            if name not in weights
            or name not in expected
            or weights[name].shape != expected[name].shape
        )
        if wrong:
            raise ValueError(
                f"{folder / 'model.safetensors'}: does not fit model.json beside it; "
                f"missing, unknown or of another shape: {', '.join(wrong)}"
            )
        agent.load_state_dict(weights)
        return agent.to(device).eval()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _gru(hidden: int) -> nn.Module:
    return nn.GRUCell(hidden, hidden)


def _lstm(hidden: int) -> nn.Module:
    return nn.LSTMCell(hidden, hidden)


def _read_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> tuple[Any, int]:
    """Glimpse shape and number of classes of the native spaces."""
    native = (
        isinstance(observation_space, spaces.Dict)
        and isinstance(action_space, spaces.Dict)
        and observation_space.keys() == {"glimpse", "location", "time"}
        and action_space.keys() == {"location", "stop", "prediction"}
        and len(observation_space["glimpse"].shape or ()) == 3
    )
    if not native:
        raise ValueError(
            f"DTRAM needs the spaces of view='native' with glimpse_format='image' and no separate "
            f"thumbnail, got observation {observation_space} and action {action_space}; for a "
            "policy-only environment wrap a policy-only DTRAM: agents.LookAndStop(agent)"
        )
    assert isinstance(observation_space, spaces.Dict) and isinstance(action_space, spaces.Dict)
    shape = observation_space["glimpse"].shape or ()
    prediction = action_space["prediction"]
    assert isinstance(prediction, spaces.Discrete)
    return tuple(int(n) for n in shape), int(prediction.n)

"""Unrolling the agent without the environment: densely, in one forward pass, with static shapes.

`unroll` samples trajectories to learn from; `score` reads every stopping rule off one deterministic
pass; `classify` drops images that stopped. All three use the environment's own sensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dtram_env.episodes import ends
from dtram_env.sensor_torch import TorchStore, glimpse

from .dtram import DTRAM, Heads, State
from .precision import autocast
from .stopping import StoppingRule, glimpses_taken


class Look(NamedTuple):
    """The settings of the environment's sensor and of its first glimpse."""

    glimpse_size: int
    num_scales: int = 1
    first_glimpse: str = "center"
    thumbnail_size: int = 0  # of a first look at the whole image; 0: the glimpse's size

    def first(self, store: TorchStore, index: Tensor, fixed: bool = False) -> tuple[Tensor, Tensor]:
        """Glimpse 1 of images `index` ``(B,)``, and its location ``(B, 2)``.

        If its place is random and `fixed`, an image has the same one each time, so that scores
        repeat. A thumbnail's location is the centre; where it has the glimpse's size it stands for
        every scale.
        """
        location = self.first_location(index, fixed)
        if self.first_glimpse != "thumbnail":
            return self(store, index, location), location
        whole = store.thumbnail(index, self.thumbnail_size or self.glimpse_size)
        if self.thumbnail_size in (0, self.glimpse_size) and self.num_scales > 1:
            whole = torch.cat([whole] * self.num_scales, dim=-1)
        return whole, location

    def first_location(self, index: Tensor, fixed: bool = False) -> Tensor:
        """Locations ``(B, 2)`` of glimpse 1; see `first`."""
        batch, device = len(index), index.device
        if self.first_glimpse in ("center", "thumbnail"):
            return torch.zeros(batch, 2, device=device)
        if self.first_glimpse == "random" and fixed:
            # Multiples of two irrational numbers cover the square evenly (Weyl's sequence).
            steps = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
            place = (index[:, None] + 1).double() * steps.to(device)
            return (place.frac() * 2 - 1).float()
        if self.first_glimpse == "random":
            return torch.rand(batch, 2, device=device) * 2 - 1
        raise ValueError(
            f"first_glimpse={self.first_glimpse!r}: the dense unroll knows 'center', 'random' and "
            "'thumbnail'"
        )

    def __call__(self, store: TorchStore, index: Tensor, location: Tensor) -> Tensor:
        """Glimpses ``(B, g, g, C * num_scales)`` uint8 of images `index` at `location`."""
        return glimpse(store, index, location, self.glimpse_size, self.num_scales)


SCRIPT_SPREAD = 0.2
"""Standard deviation, in image halves, of the cells that a scripted_locations's location stands for."""


class Trajectory(NamedTuple):
    """What happened at glimpses t = 1 ... T of B = images x M trajectories, time first.

    Trajectory b belongs to image ``b // M``. Everything is dense: entries after a trajectory's own
    stop are what would have happened, had it gone on.
    """

    locations: Tensor  # (T, B, 2) where glimpse t was taken, l_{t-1}, in [-1, 1]
    logits: Tensor  # (T, B, K)
    location_mean: Tensor  # (T, B, 2) most probable location of π(l_t), the Gaussian's mean
    sampled_locations: Tensor  # (T, B, 2) l_t as drawn, before clipping
    location_log_prob: Tensor  # (T, B) log π(l_t)
    stop_logit: Tensor  # (T, B)
    stop: Tensor  # (T, B) bool, a_t as drawn
    value: Tensor  # (T, B) b_t
    location_entropy: Tensor | None = None  # (T, B) of π(l_t), in nats; None for the Gaussian's
    glimpse_only_logits: Tensor | None = None  # (T - 1, B, K) of glimpses 2 ... T, each by itself

    @property
    def steps(self) -> int:
        """Number of glimpses T."""
        return len(self.logits)

    @property
    def prediction(self) -> Tensor:
        """``(T, B)`` int64, y_t."""
        return self.logits.argmax(dim=-1)


class Unroll(nn.Module):
    """The whole T-step unroll as one module with one `forward`.

    Args:
        agent: the actor.
        look: the sensor's settings.
        location_std: standard deviation of the location policy's Gaussian, in image halves; not
            used where the agent chooses among cells.
        stop: whether stops are drawn; if not, the stopper is left out and its logits are 0.
        glimpse_only: whether each later glimpse is also answered by itself, the state empty before it.
        bf16: whether encoder and core run under autocast to bfloat16; states stay float32.

    Attributes:
        scripted_locations: ``(T - 1 or more, 2)`` where glimpses 2, 3, ... are taken, give or take, in place of
            the agent's choice: Gaussian about it, or cells as near as a Gaussian of
            `SCRIPT_SPREAD` would have them. ``location_log_prob`` then is the mean of the agent's
            log-probability over such choices, but for a constant. None: the agent chooses.
    """

    scripted_locations: Tensor | None

    def __init__(
        self,
        agent: DTRAM,
        look: Look,
        location_std: float,
        stop: bool = True,
        glimpse_only: bool = False,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.agent, self.look, self.location_std, self.stop = agent, look, location_std, stop
        self.glimpse_only, self.bf16 = glimpse_only, bf16
        self.register_buffer("scripted_locations", None, persistent=False)

    def forward(self, store: TorchStore, index: Tensor, steps: int, m: int = 1) -> Trajectory:
        """Samples `m` trajectories of `steps` glimpses for each image.

        Args:
            store: the images.
            index: ``(N,)`` int64, rows of the store.
            steps: glimpses T of every trajectory.
            m: trajectories an image, M.
        """
        agent, batch = self.agent, len(index) * m
        # Nothing has been decided before glimpse 1, so an image's trajectories share it.
        glimpse, location = self.look.first(store, index)
        code = self._encode(glimpse, location, 0)
        state = self._update_state(code, agent.initial(len(index)), 0)
        state = State(*(part.repeat_interleave(m, dim=0) for part in state))
        location = location.repeat_interleave(m, dim=0)
        index = index.repeat_interleave(m)
        params_by_step = [agent.location_params(state.h)]
        noise = self._noise(steps, params_by_step[0])
        states, choices, locations = [state], [], [location]
        empty, glimpse_only_logits = agent.initial(batch), []
        for t in range(steps):
            # A choice is a number, not a function of the location_params: the score is what carries gradient.
            choices.append(self._choose(self._goal(params_by_step[t].detach(), t), noise[t]))
            if t + 1 < steps:
                location = self._place(choices[t]).clamp(-1.0, 1.0)
                glimpse = self.look(store, index, location)
                code = self._encode(glimpse, location, t + 1)
                state = self._update_state(code, state, t + 1)
                if self.glimpse_only:
                    glimpse_only = self._update_state(code, empty, t + 1)
                    glimpse_only_logits.append(agent.logits(glimpse_only, t + 1))
                states.append(state)
                params_by_step.append(agent.location_params(state.h))
                locations.append(location)
        h, location_params, choice = (
            torch.stack(part) for part in ([state.h for state in states], params_by_step, choices)
        )
        logits = agent.stacked_logits(states)
        if self.stop:
            time = torch.arange(1, steps + 1, device=h.device)[:, None].expand(steps, batch)
            stop_logit = agent.stop_logit(h, logits, time)
        else:
            stop_logit = logits.new_zeros(steps, batch)
        return Trajectory(
            locations=torch.stack(locations),
            logits=logits,
            location_mean=agent.best_location(location_params),
            sampled_locations=self._place(choice),
            location_log_prob=self._score(choice, location_params),
            stop_logit=stop_logit,
            stop=torch.rand_like(stop_logit) < torch.sigmoid(stop_logit.detach()),
            value=agent.value(h),
            location_entropy=self._entropy(location_params),
            glimpse_only_logits=torch.stack(glimpse_only_logits) if glimpse_only_logits else None,
        )

    # A choice is a location (..., 2) of the Gaussian, or the number (...) of a cell of the grid.

    def _noise(self, steps: int, location_params: Tensor) -> Tensor:
        """What makes the choices of `steps` steps random, ``(steps, *location_params.shape)``."""
        shape = (steps, *location_params.shape)
        if self.agent.config.locator_grid:  # Gumbel's: the largest sum is a draw of the softmax
            uniform = torch.rand(shape, device=location_params.device, dtype=location_params.dtype)
            return -torch.log(-torch.log(uniform.clamp(min=1e-20)))
        return self.location_std * torch.randn(
            shape, device=location_params.device, dtype=location_params.dtype
        )

    def _encode(self, glimpse: Tensor, location: Tensor, step: int) -> Tensor:
        with autocast(glimpse.device.type, self.bf16):
            return self.agent.encode(glimpse, location, step)

    def _update_state(self, code: Tensor, state: State, step: int) -> State:
        with autocast(code.device.type, self.bf16):
            h, c, time = self.agent.update(code, state, step)
        return State(h.to(state.h.dtype), c.to(state.c.dtype), time)

    def _goal(self, location_params: Tensor, t: int) -> Tensor:
        """What l_t is drawn about: the agent's location_params, or in its place the scripted_locations."""
        if self.scripted_locations is None:
            return location_params
        goal = self.scripted_locations[
            min(t, len(self.scripted_locations) - 1)
        ]  # that of the last glimpse is not looked at
        if self.agent.config.locator_grid:
            far = (self.agent.cell_centres - goal).square().sum(dim=-1)
            return (far / (-2 * SCRIPT_SPREAD**2)).expand_as(location_params)
        return goal.expand_as(location_params)

    def _choose(self, location_params: Tensor, noise: Tensor) -> Tensor:
        chosen = location_params + noise
        return chosen.argmax(dim=-1) if self.agent.config.locator_grid else chosen

    def _place(self, choice: Tensor) -> Tensor:
        """Locations ``(..., 2)`` of choices, not clipped."""
        return self.agent.cell_centres[choice] if self.agent.config.locator_grid else choice

    def _score(self, choice: Tensor, location_params: Tensor) -> Tensor:
        """``(T, B)``: log π(l_t) of what was chosen, or its mean over what a scripted_locations may choose."""
        if self.scripted_locations is None:
            return self._log_prob(choice, location_params)
        goal = torch.stack([self._goal(part.detach(), t) for t, part in enumerate(location_params)])
        if self.agent.config.locator_grid:
            return (torch.softmax(goal, dim=-1) * torch.log_softmax(location_params, dim=-1)).sum(
                dim=-1
            )
        return self._log_prob(goal, location_params)

    def _log_prob(self, choice: Tensor, location_params: Tensor) -> Tensor:
        """Log-probability (or log-density) ``(...)`` of choices under the location policy."""
        if self.agent.config.locator_grid:
            return (
                torch.log_softmax(location_params, dim=-1).gather(-1, choice[..., None]).squeeze(-1)
            )
        error = (choice - location_params) / self.location_std
        normaliser = 2 * math.log(self.location_std) + math.log(2 * math.pi)
        return -0.5 * error.square().sum(dim=-1) - normaliser

    def _entropy(self, location_params: Tensor) -> Tensor | None:
        """Entropy ``(...)`` of the choice of a cell, in nats; the Gaussian's never changes."""
        if not self.agent.config.locator_grid:
            return None
        log_p = torch.log_softmax(location_params, dim=-1)
        return -(log_p.exp() * log_p).sum(dim=-1)


def read_logits(
    agent: DTRAM, look: Look, store: TorchStore, index: Tensor, locations: Tensor
) -> Tensor:
    """What the classifier says on a path that is given.

    Args:
        agent: the actor; its encoder, core and classifier are used.
        look: the sensor's settings.
        store: the images.
        index: ``(B,)`` int64, rows of the store.
        locations: ``(T, B, 2)`` where each glimpse is taken, in [-1, 1].

    Returns:
        Logits ``(T, B, K)`` after each glimpse.
    """
    state, states = agent.initial(len(index)), []
    for step, location in enumerate(locations):
        whole = step == 0 and look.first_glimpse == "thumbnail"
        seen = look.first(store, index)[0] if whole else look(store, index, location)
        state = agent.look(seen, location, state, step)
        states.append(state)
    return torch.stack([agent.logits(state, step) for step, state in enumerate(states)])


class Scores(NamedTuple):
    """One deterministic pass to the budget; every stopping rule can be read off it."""

    labels: Tensor  # (N,)
    logits: Tensor  # (T, N, K)
    stop_logit: Tensor  # (T, N)
    locations: Tensor  # (T, N, 2) where each glimpse was taken

    def limit(self, glimpses: int) -> Scores:
        """The same pass with a smaller budget: a curriculum's stage."""
        return Scores(self.labels, *(part[:glimpses] for part in self[1:]))

    def read(self, rule: StoppingRule) -> tuple[Tensor, Tensor]:
        """Number of glimpses ``(N,)`` and prediction ``(N,)`` of every image under a rule."""
        taken, logits = self.stopped(rule)
        return taken, logits.argmax(dim=-1)

    def stopped(self, rule: StoppingRule) -> tuple[Tensor, Tensor]:
        """Number of glimpses ``(N,)`` and logits ``(N, K)`` of every image where a rule stops."""
        time = torch.arange(1, len(self.logits) + 1, device=self.logits.device)[:, None]
        taken = glimpses_taken(rule.stops(time, self.logits, self.stop_logit))
        final = self.logits.gather(
            0, (taken - 1)[None, :, None].expand(1, -1, self.logits.shape[-1])
        )
        return taken, final[0]

    def error(self, rule: StoppingRule) -> tuple[float, float]:
        """Share of wrong answers, in [0, 1], and mean number of glimpses under a rule."""
        taken, prediction = self.read(rule)
        wrong = (prediction != self.labels).double().mean()
        return float(wrong), float(taken.double().mean())


@torch.no_grad()
def score(
    agent: DTRAM, look: Look, store: TorchStore, labels: Tensor, batch_size: int = 2000
) -> Scores:
    """Runs every image to the budget once, locations at their means.

    Args:
        agent: the actor; its mode (train/eval) is the caller's.
        look: the sensor's settings.
        store: the images.
        labels: ``(N,)`` int64 on the store's device.
        batch_size: images at a time.
    """
    parts = []
    for index in torch.arange(len(labels), device=labels.device).split(batch_size):
        path = list(deterministic_path(agent, look, store, index))
        parts.append(
            (
                torch.stack([step.heads.logits for step in path]),
                torch.stack([step.heads.stop_logit for step in path]),
                torch.stack([step.location for step in path]),
            )
        )
    logits, stop_logit, locations = (
        torch.cat(column, dim=1) for column in zip(*parts, strict=True)
    )
    return Scores(labels, logits, stop_logit, locations)


class PathStep(NamedTuple):
    """One glimpse of a batch on its deterministic path."""

    location: Tensor  # (B, 2) where it was taken
    state: State
    heads: Heads


@torch.no_grad()
def deterministic_path(
    agent: DTRAM, look: Look, store: TorchStore, index: Tensor
) -> Iterator[PathStep]:
    """Looks at images until the budget, each location at its mean; nobody stops.

    Args:
        agent: the actor.
        look: the sensor's settings.
        store: the images.
        index: ``(B,)`` int64, rows of the store.
    """
    seen, location = look.first(store, index, fixed=True)
    state = agent.initial(len(index))
    for step in range(agent.config.max_glimpses):
        if step:
            seen = look(store, index, location)
        state = agent.look(seen, location, state, step)
        heads = agent.heads(state, step)
        yield PathStep(location, state, heads)
        location = heads.location.clamp(-1.0, 1.0)


class Classified(NamedTuple):
    """What an agent said of images, by its own stopping rule."""

    prediction: Tensor  # (N,) int64
    probability: Tensor  # (N, K) of the classes
    num_glimpses: Tensor  # (N,) int64
    locations: Tensor  # (N, T_max, 2) where each glimpse was taken; zeros after the last


@torch.no_grad()
def classify(agent: DTRAM, look: Look, store: TorchStore, index: Tensor) -> Classified:
    """Answers images by the agent's own stopping rule; those that stopped leave the batch.

    So the time that it takes falls with the mean number of glimpses.

    Args:
        agent: the actor; in evaluation mode.
        look: the sensor's settings.
        store: the images.
        index: ``(N,)`` int64, rows of the store.
    """
    budget = agent.config.max_glimpses
    probability = torch.zeros(len(index), agent.config.num_classes, device=index.device)
    taken = torch.zeros_like(index)
    locations = torch.zeros(len(index), budget, 2, device=index.device)
    open_rows = torch.arange(len(index), device=index.device)
    seen, location = look.first(store, index, fixed=True)
    state = agent.initial(len(index))
    for t in range(1, budget + 1):
        if t > 1:
            seen = look(store, index[open_rows], location)
        locations[open_rows, t - 1] = location
        state = agent.look(seen, location, state, t - 1)
        heads = agent.heads(state, t - 1)
        stops = agent.stopping.stops(state.time, heads.logits, heads.stop_logit)
        stops = ends(t, stops, budget)
        ended = open_rows[stops]
        probability[ended] = torch.softmax(heads.logits[stops], dim=-1)
        taken[ended] = t
        open_rows, location = open_rows[~stops], heads.location[~stops].clamp(-1.0, 1.0)
        state = agent.select(state, ~stops)
        if not len(open_rows):
            break
    return Classified(probability.argmax(dim=-1), probability, taken, locations)

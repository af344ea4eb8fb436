"""Unrolling the agent without the environment: densely, in one forward pass, with static shapes.

`Unroll` samples trajectories to learn from. `score` runs every image to the budget once, so that
any stopping rule can be evaluated on the result. `classify` acts as the agent does in use: images
that stopped leave the batch. All three use the environment's own sensor.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dtram_env.episodes import ends
from dtram_env.sensor_torch import TorchStore, glimpse

from . import draws
from .dtram import DTRAM, Heads, State
from .location_policy import CellLocations, GaussianLocations, LocationPolicy
from .precision import autocast
from .stopping import StoppingRule, glimpses_taken


class GlimpseSensor(NamedTuple):
    """The environment's sensor: its settings, and those of the first glimpse."""

    glimpse_size: int
    num_scales: int = 1
    first_glimpse: str = "center"
    thumbnail_size: int = 0  # pixels a side of the thumbnail; 0: the glimpse's size

    def first(self, store: TorchStore, index: Tensor, fixed: bool = False) -> tuple[Tensor, Tensor]:
        """Glimpse 1 of the images at `index` ``(B,)`` in the store, and its location ``(B, 2)``.

        A thumbnail's location is the centre. If it has the glimpse's size, it is repeated for every
        scale. With `fixed` a random location depends on the index alone, so that scores repeat.
        """
        location = self.first_location(index, fixed)
        if self.first_glimpse != "thumbnail":
            return self(store, index, location), location
        whole = store.thumbnail(index, self.thumbnail_size or self.glimpse_size)
        if self.thumbnail_size in (0, self.glimpse_size):
            whole = whole.repeat(1, 1, 1, self.num_scales)
        return whole, location

    def first_location(self, index: Tensor, fixed: bool = False) -> Tensor:
        """Locations ``(B, 2)`` of glimpse 1; see `first`."""
        if self.first_glimpse in ("center", "thumbnail"):
            return torch.zeros(len(index), 2, device=index.device)
        if self.first_glimpse != "random":
            expected = "'center', 'random' or 'thumbnail', as this agent needs one to begin"
            raise ValueError(f"first_glimpse={self.first_glimpse!r}: expected {expected}")
        if not fixed:
            return draws.rand(len(index), 2, device=index.device) * 2 - 1
        # Multiples of two irrational numbers cover the square evenly (Weyl's sequence).
        steps = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
        place = (index[:, None] + 1).double() * steps.to(index.device)
        return (place.frac() * 2 - 1).float()

    def make_tables(self, store: TorchStore, index: Tensor) -> None:
        """Makes a store keep what it needs for glimpses of the images at `index` ``(B,)`` and all
        others: tables that a compiled step made would end with it."""
        if self.first_glimpse == "thumbnail":
            self.first(store, index)
        self(store, index, torch.zeros(len(index), 2, device=index.device))

    def __call__(self, store: TorchStore, index: Tensor, location: Tensor) -> Tensor:
        """Glimpses ``(B, g, g, C * num_scales)`` uint8 of images `index` at `location`."""
        return glimpse(store, index, location, self.glimpse_size, self.num_scales)


class FirstChoice(NamedTuple):
    """The first location of B trajectories, l_0, where the agent chooses it before any glimpse."""

    log_prob: Tensor  # (B,) log π(l_0)
    value: Tensor  # (B,) b_0


class Trajectory(NamedTuple):
    """Glimpses t = 1 ... T of B = images x M trajectories, time first.

    Trajectory b belongs to image ``b // M``. All entries are filled: after its own stop, `Unroll`
    continues a trajectory, and `MapUnroll` repeats its last values.
    """

    locations: Tensor  # (T, B, 2) l_{t-1}, where glimpse t was taken, in [-1, 1]
    logits: Tensor  # (T, B, K)
    # (T, B, 2) l_t as sampled, before clipping, and before the move of `Unroll.within_cell`
    sampled_locations: Tensor
    location_log_prob: Tensor  # (T, B) log π(l_t)
    stop_logit: Tensor  # (T, B)
    stop: Tensor  # (T, B) bool, a_t as sampled
    value: Tensor  # (T, B) b_t
    location_entropy: Tensor | None = None  # (T, B) of π(l_t), in nats; None for the Gaussian
    location_score: Tensor | None = None  # (T, B) of the cell chosen; None for the Gaussian
    first: FirstChoice | None = None  # None: the task gives the first glimpse
    # (T, B) bool, each trajectory's last glimpse, the only one with a cross-entropy; None: those of
    # `Objective.supervision`
    supervised: Tensor | None = None

    @property
    def steps(self) -> int:
        """Number of glimpses T."""
        return len(self.logits)

    @property
    def prediction(self) -> Tensor:
        """``(T, B)`` int64, y_t."""
        return self.logits.argmax(dim=-1)

    @property
    def outside(self) -> Tensor:
        """Share ``()`` of the locations of glimpses 2 ... T that were sampled outside the image and
        then clipped to its edge; NaN if T is 1."""
        return (self.sampled_locations[:-1].abs() > 1).any(dim=-1).float().mean()


class Unroll(nn.Module):
    """The whole T-step unroll as one module with one `forward`.

    Args:
        agent, sensor: the actor, and what takes its glimpses.
        location_std: standard deviation of the Gaussian location policy, in image halves; not used
            if the agent chooses among cells.
        stop: whether stops are sampled; if not, the stopper is left out and its logits are 0.
        bf16: whether encoder and core run under autocast to bfloat16; states stay float32.

    Attributes:
        scripted_locations: ``(T - 1 or more, 2)`` targets for glimpses 2, 3, ... that replace
            sampled locations during warm-up, see `location_policy`; None: the agent samples them.
        exploration: share of random cells, where scores of cells are values, also as a tensor
            ``()``; None: cells are sampled from the softmax of the scores.
        within_cell: whether a glimpse is taken anywhere in the cell chosen, not at its centre, so
            that crops differ from epoch to epoch.
    """

    scripted_locations: Tensor | None

    def __init__(
        self,
        agent: DTRAM,
        sensor: GlimpseSensor,
        location_std: float,
        stop: bool = True,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.agent, self.sensor, self.location_std, self.stop = agent, sensor, location_std, stop
        self.bf16 = bf16
        self.register_buffer("scripted_locations", None, persistent=False)
        self.exploration: float | Tensor | None = None
        self.within_cell = False

    def mean_length(self, steps: int) -> float:
        """Mean number of glimpses of a trajectory."""
        return steps

    def forward(self, store: TorchStore, index: Tensor, steps: int, m: int = 1) -> Trajectory:
        """Samples `m` trajectories of `steps` glimpses for each of N images.

        `index` ``(N,)`` int64 are the images' indices in the store.
        """
        agent, script, batch = self.agent, self.scripted_locations, len(index) * m
        policy: LocationPolicy = GaussianLocations(self.location_std)
        if agent.config.locator_grid:
            policy = CellLocations(agent.cell_centres, self.exploration)
        first = None
        if self.sensor.first_glimpse == "choose":
            index = index.repeat_interleave(m)
            start = agent.initial(batch)
            where = agent.location_params(start)
            choice = policy.choose(where.detach(), policy.noise(1, where)[0])
            first = FirstChoice(policy.log_prob(choice, where), agent.value(start.h))
            location = policy.location(choice).clamp(-1.0, 1.0)
            code = self._encode(self.sensor(store, index, location), location, 0)
            state = self._update(code, start, 0)
        else:
            # Nothing is sampled before glimpse 1, so an image's trajectories share it.
            seen, location = self.sensor.first(store, index)
            state = self._update(self._encode(seen, location, 0), agent.initial(len(index)), 0)
            state = type(state)(*(part.repeat_interleave(m, dim=0) for part in state))
            location = location.repeat_interleave(m, dim=0)
            index = index.repeat_interleave(m)
        states, locations, sampled_params, choices = [state], [location], [], []
        params = [agent.location_params(state)]
        noise = policy.noise(steps, params[0])
        for t in range(steps):
            sampled_params.append(params[t].detach())
            if script is not None:
                # No glimpse is taken at the last location, so any target serves.
                sampled_params[t] = policy.centred_at(script[min(t, len(script) - 1)], params[t])
            choices.append(policy.choose(sampled_params[t], noise[t]))
            if t + 1 == steps:
                break
            location = policy.location(choices[t])
            if self.within_cell:
                place = 2 * draws.rand(batch, 2, device=location.device) - 1
                location = location + place / agent.config.locator_grid
            location = location.clamp(-1.0, 1.0)
            code = self._encode(self.sensor(store, index, location), location, t + 1)
            state = self._update(code, state, t + 1)
            states.append(state)
            locations.append(location)
            params.append(agent.location_params(state))
        h, location_params, choice = (
            torch.stack(part) for part in ([state.h for state in states], params, choices)
        )
        if script is None:
            location_log_prob = policy.log_prob(choice, location_params)
        else:
            location_log_prob = policy.expected_log_prob(
                torch.stack(sampled_params), location_params
            )
        score = None
        if agent.config.locator_grid:
            score = location_params.gather(-1, choice[..., None]).squeeze(-1)
        logits = agent.stacked_logits(states)
        stop_logit = logits.new_zeros(steps, batch)
        if self.stop:
            time = torch.arange(1, steps + 1, device=h.device)[:, None].expand(steps, batch)
            stop_logit = agent.stop_logit(h, logits, time)
        return Trajectory(
            locations=torch.stack(locations),
            logits=logits,
            sampled_locations=policy.location(choice),
            location_log_prob=location_log_prob,
            stop_logit=stop_logit,
            stop=draws.rand(steps, batch, dim=1, device=h.device) < stop_logit.detach().sigmoid(),
            value=agent.value(h),
            location_entropy=policy.entropy(location_params),
            location_score=score,
            first=first,
        )

    def _encode(self, seen: Tensor, location: Tensor, step: int) -> Tensor:
        with autocast(seen.device.type, self.bf16):
            return self.agent.encode(seen, location, step)

    def _update(self, code: Tensor, state: State, step: int) -> State:
        with autocast(state.h.device.type, self.bf16):
            after = self.agent.update(code, state, step)
        return type(after)(*(new.to(old.dtype) for new, old in zip(after, state, strict=True)))


def logits_along(
    agent: DTRAM, sensor: GlimpseSensor, store: TorchStore, index: Tensor, locations: Tensor
) -> Tensor:
    """Class logits ``(T, B, K)`` along given locations ``(T, B, 2)``, of the images at `index`.

    A thumbnail takes the place of the first glimpse, wherever that is.
    """
    state, states = agent.initial(len(index)), []
    for step, location in enumerate(locations):
        if step == 0 and sensor.first_glimpse == "thumbnail":
            seen, location = sensor.first(store, index)
        else:
            seen = sensor(store, index, location)
        state = agent.observe(seen, location, state, step)
        states.append(state)
    return torch.stack([agent.logits(state, step) for step, state in enumerate(states)])


class Scores(NamedTuple):
    """One deterministic pass to the budget, on which any stopping rule can be evaluated."""

    labels: Tensor  # (N,)
    logits: Tensor  # (T, N, K)
    stop_logit: Tensor  # (T, N)
    locations: Tensor  # (T, N, 2) where each glimpse was taken

    def limit(self, glimpses: int) -> "Scores":
        """The same pass with a smaller budget, as in a stage of the curriculum."""
        return Scores(self.labels, *(part[:glimpses] for part in self[1:]))

    def apply(self, rule: StoppingRule) -> tuple[Tensor, Tensor]:
        """Number of glimpses ``(N,)`` and prediction ``(N,)`` of every image under a rule."""
        taken, logits = self.logits_at_stop(rule)
        return taken, logits.argmax(dim=-1)

    def logits_at_stop(self, rule: StoppingRule) -> tuple[Tensor, Tensor]:
        """Number of glimpses ``(N,)`` and final logits ``(N, K)`` of every image under a rule."""
        time = torch.arange(1, len(self.logits) + 1, device=self.logits.device)[:, None]
        taken = glimpses_taken(rule.stops(time, self.logits, self.stop_logit))
        at_stop = (taken - 1)[None, :, None].expand(1, -1, self.logits.shape[-1])
        return taken, self.logits.gather(0, at_stop)[0]

    def error_and_glimpses(self, rule: StoppingRule) -> tuple[float, float]:
        """Share of wrong answers, in [0, 1], and mean number of glimpses under a rule."""
        taken, prediction = self.apply(rule)
        wrong = (prediction != self.labels).double().mean()
        return float(wrong), float(taken.double().mean())


@torch.no_grad()
def score(
    agent: DTRAM,
    sensor: GlimpseSensor,
    store: TorchStore,
    labels: Tensor,
    batch_size: int = 2000,
    indices: Tensor | None = None,
) -> Scores:
    """Runs every image to the budget once, `batch_size` at a time, with locations at their means.

    The labels are ``(N,)`` int64 on the store's device, of the images at `indices` ``(N,)`` int64,
    or of the first N. The caller sets the agent's mode.
    """
    parts = []
    if indices is None:
        indices = torch.arange(len(labels), device=labels.device)
    for index in indices.split(batch_size):
        path = deterministic_path(agent, sensor, store, index)
        of_steps = [(step.heads.logits, step.heads.stop_logit, step.location) for step in path]
        parts.append([torch.stack(column) for column in zip(*of_steps, strict=True)])
    return Scores(labels, *(torch.cat(column, dim=1) for column in zip(*parts, strict=True)))


class PathStep(NamedTuple):
    """One glimpse of a batch on its deterministic path."""

    location: Tensor  # (B, 2) where it was taken
    state: State
    heads: Heads


@torch.no_grad()
def deterministic_path(
    agent: DTRAM, sensor: GlimpseSensor, store: TorchStore, index: Tensor
) -> Iterator[PathStep]:
    """Takes glimpses of the images at `index` until the budget, each at the mean location."""
    seen, location = _first(agent, sensor, store, index)
    state = agent.initial(len(index))
    for step in range(agent.config.max_glimpses):
        if step:
            seen = sensor(store, index, location)
        state = agent.observe(seen, location, state, step)
        heads = agent.heads(state, step)
        yield PathStep(location, state, heads)
        location = heads.location


def _first(
    agent: DTRAM, sensor: GlimpseSensor, store: TorchStore, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Glimpse 1 and its location ``(B, 2)`` when the agent is used."""
    if sensor.first_glimpse != "choose":
        return sensor.first(store, index, fixed=True)
    location = agent.locate(agent.initial(len(index)))
    return sensor(store, index, location), location


class Classified(NamedTuple):
    """Answers of an agent by its own stopping rule."""

    prediction: Tensor  # (N,) int64
    probability: Tensor  # (N, K) of the classes
    num_glimpses: Tensor  # (N,) int64
    locations: Tensor  # (N, T_max, 2) where each glimpse was taken; zeros after the last


@torch.no_grad()
def classify(agent: DTRAM, sensor: GlimpseSensor, store: TorchStore, index: Tensor) -> Classified:
    """Classifies the images at `index` ``(N,)`` int64 by the agent's own stopping rule.

    Stopped images leave the batch, so the time falls with the mean number of glimpses. The agent is
    in evaluation mode.
    """
    budget = agent.config.max_glimpses
    probability = torch.zeros(len(index), agent.config.num_classes, device=index.device)
    taken = torch.zeros_like(index)
    locations = torch.zeros(len(index), budget, 2, device=index.device)
    running = torch.arange(len(index), device=index.device)  # positions in `index`
    seen, location = _first(agent, sensor, store, index)
    state = agent.initial(len(index))
    for t in range(1, budget + 1):
        if t > 1:
            seen = sensor(store, index[running], location)
        locations[running, t - 1] = location
        state = agent.observe(seen, location, state, t - 1)
        heads = agent.heads(state, t - 1)
        stops = agent.stopping.stops(state.time, heads.logits, heads.stop_logit)
        stops = ends(t, stops, budget)
        ended = running[stops]
        probability[ended] = torch.softmax(heads.logits[stops], dim=-1)
        taken[ended] = t
        running, location = running[~stops], heads.location[~stops]
        state = agent.select(state, ~stops)
        if not len(running):
            break
    return Classified(probability.argmax(dim=-1), probability, taken, locations)

"""The stages of training: what each one learns from a batch, and how validation judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agents.dtram import DTRAM
from agents.encoders import GlimpseResNet
from agents.objective import Losses, Objective, hybrid_loss, trained_heads
from agents.resnet import learning_parameters
from agents.stopping import FixedStop, LearnedStop
from agents.unroll import Scores, Trajectory, Unroll, deterministic_path, read_logits, score
from dtram_env.episodes import grade
from train.common.augment import Augmentation
from train.common.training_task import Task
from train.dtram.scripted_scan import scan_path

IMITATION_WEIGHT = 0.1  # of the scan's likelihood: what is learned with it is mostly to see
NEVER = 1.0  # a threshold that no probability exceeds: stop at the budget


class Verdict(NamedTuple):
    """What validation says of the weights as they are."""

    criterion: tuple[float, float]  # smaller is better; compared in order
    threshold: float  # of the learned stop
    metrics: dict[str, float]


class Stage(Protocol):
    """One stage: parameters that learn, a loss for a batch of training rows, a judgement."""

    name: str
    epochs: int
    batch_size: int
    batches: int  # in an epoch
    images: int  # that an epoch's order is drawn over
    learning_rate: float
    own_rates: Mapping[str, float] = MappingProxyType({})  # of parts of the agent, by name
    env_steps_first: int  # taken when the stage is made
    env_steps_per_batch: int

    def parameters(self) -> list[nn.Parameter]:
        """What learns; every one of them is reached by the loss."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Told before the batches of an epoch, also when it is taken up again half-way.

        Nothing, unless a stage says otherwise: no epoch differs from another.
        """
        return None

    def loss(self, rows: Tensor) -> Losses: ...

    def judge(self) -> Verdict: ...


class UnrollStage(Stage):
    """Learns from sampled trajectories: the trunk alone (stop off), or everything jointly.

    Args:
        task: the images and the sensor.
        agent: what learns.
        objective: the loss's switches.
        steps: glimpses of every trajectory; the curriculum's limit.
        m: trajectories an image.
        location_std: of sampled locations; or in the first epoch and in the last.
        augment: applied to every batch of images.
        max_mean_glimpses: bound for the choice of the stop threshold (joint stages).
        choose: what validation chooses the threshold by, see `judge_stop`.
        env_steps: if given, how many to learn from in all, instead of whole epochs.
        replay: earlier batches whose cross-entropy is learned again beside each new one. Their
            glimpses are looked at again, not taken anew, so no env step is added.
        new_from: glimpses of the stage before; 0 for the first. Encoders and classifiers of the new
            glimpses' own begin as copies of the last one before.
        freeze_earlier: whether those of earlier stages' glimpses stay as they are.
        scan_epochs: epochs at the start in which locations follow `scan_path`, with one trajectory
            an image, and the location policy learns to do so itself.
        location_entropy_last: weight of the entropy bonus in the last epoch; constant if None.
        locator_learning_rate: the location policy's own; as all if None.
        bf16: whether encoder and core run under autocast to bfloat16.
    """

    def __init__(
        self,
        task: Task,
        agent: DTRAM,
        objective: Objective,
        *,
        name: str,
        steps: int,
        m: int,
        location_std: float | tuple[float, float],
        augment: Augmentation,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        max_mean_glimpses: float,
        choose: str = "error",
        env_steps: int | None = None,
        replay: int = 0,
        new_from: int = 0,
        freeze_earlier: bool = False,
        scan_epochs: int = 0,
        location_entropy_last: float | None = None,
        locator_learning_rate: float | None = None,
        bf16: bool = False,
    ) -> None:
        self.name, self.batch_size = name, batch_size
        self.learning_rate = learning_rate
        if locator_learning_rate is not None:
            self.own_rates = {"locator": locator_learning_rate}
        self._replay = replay
        self._paths: list[
            tuple[Tensor, Tensor]
        ] = []  # rows (B,) and locations (T, B, 2) of batches
        self.images = len(task.images("train"))
        self.env_steps_first, self.env_steps_per_batch = 0, batch_size * m * steps
        self.epochs, self.batches = epochs, self.images // batch_size
        if env_steps is not None:
            self.epochs, self.batches = _in_parts(
                env_steps // self.env_steps_per_batch, self.batches
            )
        self._task, self._agent, self._objective = task, agent, objective
        self._steps, self._m, self._augment = steps, m, augment
        pair = location_std if isinstance(location_std, tuple) else (location_std, location_std)
        self._location_std = pair
        self._unroll = Unroll(
            agent,
            task.look,
            pair[0],
            objective.stop == "learned",
            objective.needs_glimpse_only,
            bf16,
        )
        self._of_trunk = objective, m  # after the scan
        self._scan_epochs = scan_epochs if steps > 1 else 0
        self._location_entropy_last = location_entropy_last
        self._max_mean_glimpses, self._choose = max_mean_glimpses, choose
        self._train = task.images("train")
        self._frozen = new_from if freeze_earlier else 0
        if agent.config.per_step:
            self._begin_new_steps(new_from)

    def _begin_new_steps(self, new_from: int) -> None:
        """Copies the last learned step's networks to the new ones; fixes those before, if asked."""
        for networks in (self._agent.encoders(), self._agent.classifiers()):
            for step in range(new_from, len(networks)) if new_from else ():
                networks[step].load_state_dict(networks[new_from - 1].state_dict())
        for encoder in self._agent.encoders()[: self._frozen]:
            if isinstance(encoder, GlimpseResNet):  # else its statistics would move
                encoder.trunk.freeze_batch_norm(True)

    def parameters(self) -> list[nn.Parameter]:
        agent = self._agent
        trunk: tuple[nn.Module, ...] = (agent.locator,)
        if self._task.classifier is None:
            seeing = [agent.encoder, agent.classifier]
            if agent.config.per_step:  # no loss reaches a step that is not taken
                learned = slice(self._frozen, self._steps)
                seeing = agent.encoders()[learned] + agent.classifiers()[learned]
            trunk = (*seeing, agent.core, agent.locator)
        parameters = [p for module in trunk for p in learning_parameters(module)]
        return parameters + trained_heads(agent, self._objective)

    def begin_epoch(self, epoch: int) -> None:
        first, last = self._location_std
        share = epoch / max(1, self.epochs - 1)
        self._unroll.location_std = first * (last / first) ** share
        objective, self._m = self._of_trunk
        scans = epoch < self._scan_epochs
        self._unroll.scripted_locations = None
        if scans:
            # Nothing is chosen by the agent, so more trajectories an image would teach little.
            self._m = 1
            objective = replace(
                objective,
                baseline="none",
                location_reward="imitation",
                location_entropy=0.0,
                glimpse_only_reward=0.0,
                policy_weight=IMITATION_WEIGHT * objective.policy_weight,
            )
            self._unroll.scripted_locations = scan_path(self._steps - 1).to(self._task.device)
        elif self._location_entropy_last is not None:
            change = share * (self._location_entropy_last - objective.location_entropy)
            objective = replace(objective, location_entropy=objective.location_entropy + change)
        self._objective = objective
        self.env_steps_per_batch = self.batch_size * self._m * self._steps

    def loss(self, rows: Tensor) -> Losses:
        trajectory = self._unroll(
            self._task.augmented(self._train, rows, self._augment),
            torch.arange(len(rows), device=rows.device),
            self._steps,
            self._m,
        )
        losses = hybrid_loss(
            trajectory,
            self._train.labels[rows],
            self._m,
            self._objective,
            self._agent.scalar_baseline,
        )
        if not self._replay:
            return losses
        self._paths.append((rows.repeat_interleave(self._m), trajectory.locations))
        return losses._replace(total=losses.total + self._replayed())

    def _replayed(self) -> Tensor:
        """Cross-entropy of earlier batches, drawn at random; summed over glimpses as the loss's."""
        drawn = torch.randint(len(self._paths), (self._replay,)).tolist()
        rows = torch.cat([self._paths[k][0] for k in drawn])
        locations = torch.cat([self._paths[k][1] for k in drawn], dim=1)
        logits = read_logits(self._agent, self._task.look, self._train.store, rows, locations)
        labels = self._train.labels[rows].repeat(len(logits))
        return len(logits) * cross_entropy(logits.flatten(0, 1), labels)

    def judge(self) -> Verdict:
        scores = validate(self._task, self._agent).limit(self._steps)
        if self._objective.stop == "learned":
            return judge_stop(scores, self._max_mean_glimpses, self._task.discount, self._choose)
        errors = [scores.error(FixedStop(t))[0] for t in range(1, self._steps + 1)]
        metrics = {f"eval/error_at_{t}": e for t, e in enumerate(errors, start=1)}
        metrics |= {
            "eval/accuracy": 1 - errors[-1],
            "eval/mean_glimpses": float(self._steps),
            "eval/mean_return": self._task.discount**self._steps * (1 - errors[-1]),
        }
        # A dynamic stop may come anywhere, so every glimpse but a shared first one counts.
        later = errors[1:] or errors
        return Verdict((sum(later) / len(later), errors[-1]), NEVER, metrics)


class StopperStage(Stage):
    """Learns when to stop on a frozen trunk, from states that are computed once.

    The trunk's locations are at their means, as when the agent is used, so an image has one path
    and stopping only decides where it ends.

    Args:
        task: the images and the sensor.
        agent: its stopper and baseline learn; the rest stays.
        objective: the loss's switches; its stop must be "learned".
        m: sampled stopping times an image (for the sampled gradient; the exact one needs one).
        augment: applied once, to the images that the states are computed from.
        seed: of that augmentation.
        max_mean_glimpses: bound for the choice of the stop threshold.
        choose: what validation chooses the threshold by, see `judge_stop`.
        env_steps: if given, how many to learn from in all: that many glimpses of as many images as
            they are enough for, not of the whole split.
    """

    def __init__(
        self,
        task: Task,
        agent: DTRAM,
        objective: Objective,
        *,
        name: str,
        m: int,
        augment: Augmentation,
        seed: int,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        max_mean_glimpses: float,
        choose: str = "error",
        env_steps: int | None = None,
    ) -> None:
        self.name, self.epochs, self.batch_size = name, epochs, batch_size
        self.learning_rate = learning_rate
        self._task, self._agent = task, agent
        train, budget = task.images("train"), agent.config.max_glimpses
        self._rows = torch.arange(len(train), device=task.device)
        if env_steps is not None and env_steps // budget < len(train):
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(train), generator=generator)
            self._rows = order[: env_steps // budget].sort().values.to(task.device)
        self.images = len(self._rows)
        self.batch_size = min(batch_size, self.images)
        self.batches = self.images // self.batch_size
        self.env_steps_first, self.env_steps_per_batch = self.images * budget, 0
        exact = objective.stop_gradient == "exact"
        # The exact gradient has nothing sampled here, so nothing for a baseline to calm.
        self._objective = replace(objective, baseline="none") if exact else objective
        self._m = 1 if exact else m
        self._max_mean_glimpses, self._choose = max_mean_glimpses, choose
        self._labels = train.labels[self._rows]
        self._h, self._logits = self._states(augment, seed)

    def parameters(self) -> list[nn.Parameter]:
        return trained_heads(self._agent, self._objective)

    def loss(self, rows: Tensor) -> Losses:
        repeated = rows.repeat_interleave(self._m)
        h, logits = self._h[:, repeated], self._logits[:, repeated]
        time = torch.arange(1, len(h) + 1, device=h.device)[:, None].expand(h.shape[:2])
        stop_logit = self._agent.stop_logit(h, logits, time)
        nothing = torch.zeros_like(stop_logit)
        nowhere = nothing[..., None].expand(-1, -1, 2)
        trajectory = Trajectory(
            locations=nowhere,
            logits=logits,
            location_mean=nowhere,
            sampled_locations=nowhere,
            location_log_prob=nothing,
            stop_logit=stop_logit,
            stop=torch.rand_like(stop_logit) < torch.sigmoid(stop_logit.detach()),
            value=self._agent.value(h),
        )
        return hybrid_loss(
            trajectory, self._labels[rows], self._m, self._objective, self._agent.scalar_baseline
        )

    def judge(self) -> Verdict:
        scores = validate(self._task, self._agent)
        return judge_stop(scores, self._max_mean_glimpses, self._task.discount, self._choose)

    @torch.no_grad()
    def _states(self, augment: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        """States ``(T, N, H)`` and logits ``(T, N, K)`` of the training images, on the device."""
        task, agent = self._task, self._agent
        agent.eval()  # a trunk's batch norms stay, and say what they will say when it is used
        train, config = task.images("train"), agent.config
        shape = (config.max_glimpses, self.images)
        h = torch.empty(*shape, config.hidden_size, device=task.device)
        logits = torch.empty(*shape, config.num_classes, device=task.device)
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for rows in torch.arange(self.images, device=task.device).split(task.whole_at_once):
                store = task.augmented(train, self._rows[rows], augment)
                index = torch.arange(len(rows), device=task.device)
                path = deterministic_path(agent, task.look, store, index)
                for t, step in enumerate(path):
                    # What is said after this glimpse alone, which heads of another rule may mix.
                    h[t, rows], logits[t, rows] = step.state.h, agent.logits(step.state, t)
        return h, logits


def validate(task: Task, agent: DTRAM) -> Scores:
    """One deterministic pass over the validation split."""
    agent.eval()
    images = task.images("validation")
    return score(agent, task.look, images.store, images.labels, task.scored_at_once)


def _in_parts(total: int, epoch: int) -> tuple[int, int]:
    """`total` batches as equal epochs, each of at most `epoch`; five to ten of them if it can be.

    Returns:
        Number of epochs, and batches in each; their product may be a little less than `total`.
    """
    least = max(-(-total // epoch), 1)
    fitting = [n for n in range(max(least, 5), max(least, 10) + 1) if n <= total] or [least]
    epochs = max(fitting, key=lambda n: (n * (total // n), n))
    return epochs, total // epochs


def judge_stop(
    scores: Scores, max_mean_glimpses: float, discount: float, choose: str = "error"
) -> Verdict:
    """Chooses the stop threshold on validation.

    Candidates are 1/2, never, and a hundred quantiles of the stop probabilities that occur, so that
    a stopper whose probabilities are all tiny or all near 1 is served as well.

    Args:
        scores: of the validation split.
        max_mean_glimpses: a bound on the mean number of glimpses. If no threshold keeps it, the one
            with fewest is chosen, and ``eval/bound_kept`` is 0.
        discount: of the reward.
        choose: "error": the lowest error within the bound, of equal ones that with fewer glimpses;
            "bound": the most glimpses within the bound; "return": the highest mean return, whatever
            the bound.
    """
    p = torch.sigmoid(scores.stop_logit[:-1].flatten().double())
    candidates = {0.5, NEVER}
    if len(p):
        order = p.sort().values
        ranks = torch.linspace(0, len(order) - 1, 100, device=p.device).long()
        candidates |= set(order[ranks].tolist())
        candidates.add(float(order[0]) * (1 - 1e-6))  # everyone stops at once
    judged = []
    for threshold in sorted(candidates):
        taken, prediction = scores.read(LearnedStop(threshold))
        error = float((prediction != scores.labels).double().mean())
        glimpses = float(taken.double().mean())
        paid = float(grade(taken.double(), prediction, scores.labels, discount).mean())
        over = glimpses > max_mean_glimpses
        # Within the bound the error decides, beyond it the number of glimpses; then the other.
        ranked: tuple[float, ...] = (over, glimpses, error) if over else (over, error, glimpses)
        if choose == "return":
            ranked = (-paid, glimpses)
        elif choose == "bound" and not over:
            ranked = (over, -glimpses, error)
        judged.append((ranked, threshold, error, glimpses, paid))
    _, threshold, error, glimpses, paid = min(judged)
    over = glimpses > max_mean_glimpses
    metrics = {
        "eval/accuracy": 1 - error,
        "eval/mean_glimpses": glimpses,
        "eval/mean_return": paid,
        "eval/stop_threshold": threshold,
        "eval/bound_kept": float(not over),
    }
    criterion = (-paid, glimpses) if choose == "return" else (error + float(over), glimpses)
    return Verdict(criterion, threshold, metrics)

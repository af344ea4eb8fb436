"""The data of a stopper that learns on a frozen trunk: states computed once for every image.

The trunk's locations are at their means, as when the agent is used, so an image has one path, and
stopping only decides where it ends.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agents import draws
from agents.dtram import DTRAM
from agents.halting.act import halted_answer, ponder_cost_loss
from agents.objective import Losses, gains_to_come, supervised_losses
from agents.unroll import Scores, Trajectory, deterministic_path
from train.common import distributed
from train.common.augment import Augmentation
from train.common.options import check
from train.common.training_task import TrainingTask


class FrozenStates(NamedTuple):
    """States and logits after glimpses 1 ... T of N images."""

    h: Tensor  # (T, N, H)
    logits: Tensor  # (T, N, K) of the agent's answer after each glimpse
    labels: Tensor  # (N,) int64
    answers_learn: bool = False  # whether the classifier learns on, and reads h anew

    @property
    def env_steps(self) -> int:
        """Glimpses that were taken."""
        return self.h.shape[0] * self.h.shape[1]

    def answers(self, agent: DTRAM, indices: Tensor) -> Tensor:
        """Logits of the answers ``(T, B, K)`` for some images ``(B,)``."""
        if self.answers_learn:
            return agent.classifier(self.h[:, indices])
        return self.logits[:, indices]

    def stop_logit(self, agent: DTRAM, indices: Tensor) -> Tensor:
        """The stopper's logits ``(T, B)`` for some images ``(B,)``."""
        h, logits = self.h[:, indices], self.answers(agent, indices)
        time = torch.arange(1, len(h) + 1, device=h.device)[:, None].expand(h.shape[:2])
        return agent.stop_logit(h, logits, time)

    def trajectory(self, agent: DTRAM, indices: Tensor, m: int = 1) -> Trajectory:
        """`m` trajectories of each of some images with the stopper's decisions; no location is
        scored."""
        indices = indices.repeat_interleave(m)
        stop_logit = self.stop_logit(agent, indices)
        zeros = torch.zeros_like(stop_logit)
        uniform = draws.rand(*zeros.shape, dim=1, device=zeros.device)
        centre = zeros[..., None].expand(-1, -1, 2)
        return Trajectory(
            locations=centre,
            logits=self.answers(agent, indices),
            sampled_locations=centre,
            location_log_prob=zeros,
            stop_logit=stop_logit,
            stop=uniform < torch.sigmoid(stop_logit.detach()),
            value=agent.value(self.h[:, indices]),
        )

    def act_losses(
        self, agent: DTRAM, indices: Tensor, ponder_cost: float, discount: float
    ) -> Losses:
        """ACT's loss: cross-entropy of the mixed answer plus `ponder_cost` nats a glimpse."""
        labels = self.labels[indices]
        logits, halt = halted_answer(self.stop_logit(agent, indices), self.logits[:, indices])
        total = ponder_cost_loss(logits, labels, halt.ponder, ponder_cost)
        correct = (logits.detach().argmax(dim=-1) == labels).float()
        taken = halt.taken.float()
        return supervised_losses(total, correct.mean(), 1, discount)._replace(
            cross_entropy=total.detach() - ponder_cost * halt.ponder.detach().mean(),
            mean_glimpses=taken.mean(),
            mean_return=(correct * discount**taken).mean(),
        )

    def gain_losses(self, agent: DTRAM, indices: Tensor, discount: float) -> Losses:
        """Regresses the stop logits of some images ``(B,)`` on minus `gains_to_come`, in nats, so
        that it stops where little is left to gain: squared errors over glimpses 1 ... T - 1."""
        labels, logits = self.labels[indices], self.logits[:, indices]
        error = self.stop_logit(agent, indices) + gains_to_come(logits, labels)
        total = error[:-1].square().sum(dim=0).mean()
        correct = (logits[-1].argmax(dim=-1) == labels).float().mean()
        losses = supervised_losses(total, correct, len(logits), discount)
        answered = cross_entropy(logits[-1], labels)
        return losses._replace(cross_entropy=answered, baseline=total.detach())

    @torch.no_grad()
    def scores(self, agent: DTRAM) -> Scores:
        """The scores of all images under the stopper as it is; locations are left out."""
        every = torch.arange(len(self.labels), device=self.labels.device)
        nowhere = self.h.new_zeros(*self.h.shape[:2], 2)
        answers = self.answers(agent, every)
        return Scores(self.labels, answers, self.stop_logit(agent, every), nowhere)


def learning_classifier(task: TrainingTask, agent: DTRAM) -> list[nn.Parameter]:
    """The parameters of a classifier that can answer from the state alone.

    Raises:
        ValueError: the agent has no such classifier.
    """
    alone = agent.config.answer == "state" and not agent.config.per_step
    fits = alone and task.classifier is None and isinstance(agent.classifier, nn.Module)
    expected = "frozen, unless one classifier of the agent's own reads the state"
    check("stop classifier", "learns", fits, expected)
    return list(agent.classifier.parameters())


@torch.no_grad()
def frozen_states(
    task: TrainingTask,
    agent: DTRAM,
    split: str,
    augment: Augmentation,
    seed: int,
    env_steps: int | None = None,
) -> FrozenStates:
    """Runs the trunk over a split, or over a random part of it with `env_steps` glimpses.

    Several processes share the images; each gets the states of all.
    """
    agent.eval()
    images, budget = task.images(split), agent.config.max_glimpses
    chosen = torch.arange(len(images), device=task.device)
    if env_steps is not None and env_steps // budget < len(images):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        chosen = order[: env_steps // budget].sort().values.to(task.device)
    h = torch.zeros(budget, len(chosen), agent.config.hidden_size, device=task.device)
    logits = torch.zeros(budget, len(chosen), agent.config.num_classes, device=task.device)
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        torch.manual_seed(seed)
        positions = torch.arange(len(chosen), device=task.device)
        whole = augment.copies_images
        batch = task.whole_image_batch_size if whole else task.eval_batch_size
        for part in positions.split(batch):
            own = distributed.own(part)
            if not len(own):  # only in the last part, after which nothing is drawn
                break
            with draws.sharing(distributed.share_of(len(part))):
                store, in_store = task.augmented(images, chosen[own], augment)
            for t, step in enumerate(deterministic_path(agent, task.sensor, store, in_store)):
                # Not `heads`: HaltingRAM's mix the answers of earlier glimpses.
                h[t, own], logits[t, own] = step.state.h, agent.logits(step.state, t)
    return FrozenStates(distributed.summed(h), distributed.summed(logits), images.labels[chosen])

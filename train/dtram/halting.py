"""The stage in which RAM learns to halt by ACT, on a trunk that stays as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agents.halting.act import ACTStop, HaltingRAM, halted_answer, ponder_cost_loss
from agents.objective import Losses, Objective, supervised_losses
from train.common.training_task import Task
from train.dtram.stages import StopperStage, Verdict, validate


class HaltingStage(StopperStage):
    """Learns the halting scores from states that are computed once; nothing is sampled.

    The loss is the cross-entropy of the mixed answer plus `ponder_cost` for each unit of ACT's
    ponder cost, the number of glimpses and the remainder.

    Args:
        task: the images and the sensor.
        agent: its stopper learns, the rest stays.
        ponder_cost: tau, in nats.
        **how: further arguments of `StopperStage`.
    """

    def __init__(self, task: Task, agent: HaltingRAM, *, ponder_cost: float, **how: Any) -> None:
        objective = Objective(stop_gradient="exact", baseline="none")
        super().__init__(task, agent, objective, m=1, max_mean_glimpses=task.max_glimpses, **how)
        self._ponder_cost = ponder_cost

    def parameters(self) -> list[nn.Parameter]:
        return list(self._agent.stopper.parameters())

    def loss(self, rows: Tensor) -> Losses:
        h, logits, labels = self._h[:, rows], self._logits[:, rows], self._labels[rows]
        time = torch.arange(1, len(h) + 1, device=h.device)[:, None].expand(h.shape[:2])
        answer = halted_answer(self._agent.stop_logit(h, logits, time), logits)
        total = ponder_cost_loss(answer.logits, labels, answer.ponder, self._ponder_cost)
        right = (answer.logits.detach().argmax(dim=-1) == labels).float()
        taken = answer.taken.float()
        losses = supervised_losses(total, right.mean(), 1, self._task.discount)
        return losses._replace(
            cross_entropy=total.detach() - self._ponder_cost * answer.ponder.detach().mean(),
            mean_glimpses=taken.mean(),
            mean_return=(right * self._task.discount**taken).mean(),
        )

    def judge(self) -> Verdict:
        """By the loss on validation, with N in place of the ponder cost."""
        scores, rule = validate(self._task, self._agent), ACTStop()
        taken, answer = scores.stopped(rule)
        right = (answer.argmax(dim=-1) == scores.labels).double()
        glimpses = taken.double().mean()
        loss = cross_entropy(answer, scores.labels) + self._ponder_cost * glimpses
        metrics = {
            "eval/accuracy": float(right.mean()),
            "eval/mean_glimpses": float(glimpses),
            "eval/mean_return": float((right * self._task.discount**taken).mean()),
            "eval/loss": float(loss),
        }
        return Verdict((float(loss), float(glimpses)), rule.threshold, metrics)

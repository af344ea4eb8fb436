"""The statistics of a map's batch norms, for images as they are in use."""

import torch
from torch import nn

from agents import draws
from agents.spatial_map import MapUnroll
from train.common import distributed
from train.common.augment import Augmentation
from train.common.training_task import TrainingTask

BATCHES = 30


@torch.no_grad()
def set_batch_norms(
    unroll: MapUnroll, task: TrainingTask, augment: Augmentation, batch_size: int, glimpses: int
) -> None:
    """Gives batch norms the statistics of up to `BATCHES` batches of unchanged training images.

    While a network learns, its batch norms follow changed images, looked at here and there. In use
    images are unchanged, and locations the best ones. As `torch.optim.swa_utils.update_bn`, for
    several processes, too.
    """
    norms = [module for module in unroll.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    images, as_in_use = task.images("train"), Augmentation(affine=0.0, compose=augment.compose)
    exploration, jitter = unroll.exploration, unroll.jitter
    unroll.jitter = 0.0
    if exploration is not None:
        unroll.exploration = 0.0
    order = torch.randperm(len(images))[: BATCHES * batch_size].to(task.device)
    unroll.train()
    for batch in range(len(order) // batch_size):
        indices = order[batch * batch_size : (batch + 1) * batch_size]
        for norm in norms:
            norm.momentum = 1 / (batch + 1)  # a mean over batches; the first replaces all before
        with draws.sharing(distributed.share_of(batch_size)):
            store, in_store = task.augmented(images, distributed.own(indices), as_in_use)
            unroll(store, in_store, glimpses)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    unroll.exploration, unroll.jitter = exploration, jitter

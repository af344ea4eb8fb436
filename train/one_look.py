"""Trains a one-look network: it sees the whole image once, shrunk, and answers.

    python train/one_look.py                                          # MNIST, fully connected
    python train/one_look.py --encoder conv
    python train/one_look.py --env-id DTRAM-BirdsSmall-v0 --encoder cnn --side 0   # full resolution
    python train/one_look.py --env-id DTRAM-BirdsSmall-v0 --encoder resnet34 width=16 --side 0 \\
      --halting sact                             # as many residual units as each position needs
    python train/one_look.py --recipe birds-small   # a small ResNet-18 at full resolution
    python train/one_look.py --recipe original-cub   # CUB as the original trains its ResNet-50
    torchrun --nproc-per-node 4 train/one_look.py …  # on 4 GPUs
    torchrun --nproc-per-node 4 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST1:29400 \\
      train/one_look.py …                            # on two machines, both run this

Validation chooses the weights. The test split is evaluated once, at the end.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

from torch import Tensor
from torch.nn.functional import cross_entropy

from agents.halting.act import ponder_cost_loss
from agents.halting.act_resnet import ACTOutput, ACTResNet
from agents.loading import load_one_look
from agents.objective import Losses, supervised_losses
from agents.one_look import OneLook
from agents.resnet import learning_parameters
from train.common import distributed
from train.common.augment import Augmentation
from train.common.compiled import compiled
from train.common.evaluate_one_look import report, select_network
from train.common.one_look_networks import RECIPES, Halting, NoHalting, new_network
from train.common.optimizers import Optimizers
from train.common.options import Count, PlainEncoder, TrainingOptions, check, command_line
from train.common.training import TrainingRun, learn_only, open_run, open_task
from train.common.training_task import TrainingTask


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Trains a one-look network on a registered environment's images."""

    recipe: str = ""
    """named set of options to start from; other flags change it. One of birds-small, scenes,
    original-cub"""

    side: Count | None = None
    """pixels a side to which the whole image is shrunk; 0 keeps its shorter side; if not given, the
    side of the environment's thumbnail, or the image's own where there is none"""
    halting: Halting = field(default_factory=NoHalting)
    """blocks of a resnet halt: for the whole image (act) or separately at each position (sact);
    both take ponder_cost=0.005, the cost of a residual unit in nats"""

    def __post_init__(self) -> None:
        super().__post_init__()
        halts = not isinstance(self.halting, NoHalting)
        if isinstance(self.encoder, PlainEncoder):
            check("bf16", self.bf16, not self.bf16, "not given, unless --encoder is a resnet")
            check("halting", self.halting, not halts, "none, unless --encoder is a resnet")
            return
        per_step = self.encoder.per_step
        check("encoder per_step", per_step, not per_step, "false, as there is only one look")
        if halts:
            plain = not (self.bf16 or self.encoder.frozen_norms)
            check("halting", self.halting, plain, "none with --bf16 or frozen_norms=true")


def shrunk_images(task: TrainingTask, indices: Tensor, augment: Augmentation, side: int) -> Tensor:
    """Training images ``(B, side, side, C)`` uint8, augmented and shrunk."""
    store, in_store = task.augmented(task.images("train"), indices, augment)
    return store.thumbnail(in_store, side)


def train_network(
    options: Options, task: TrainingTask, network: OneLook | ACTResNet, run: TrainingRun
) -> None:
    """Minimises the cross-entropy of the shrunk images; with halting, plus the ponder cost."""
    images, side = task.images("train"), network.config.image_shape[0]
    ponder_cost = getattr(options.halting, "ponder_cost", 0.0)
    parameters = learning_parameters(network)
    learn_only(network, parameters)
    steps = options.epochs * (len(images) // options.batch_size)
    rate, settings = options.learning_rate, options.optimizer
    optimizers = Optimizers(network, parameters, steps, rate, settings, decay_norms=False)
    forward = compiled(network, options.compile, task.device)

    def loss(seen: Tensor, labels: Tensor) -> Losses:
        output = forward(seen)
        halts = isinstance(output, ACTOutput)
        logits = output.logits if halts else output
        entropy = total = cross_entropy(logits, labels)
        if halts:
            total = ponder_cost_loss(logits, labels, output.ponder, ponder_cost)
        correct = (logits.detach().argmax(-1) == labels).float().mean()
        losses = supervised_losses(total, correct, 1, task.discount)
        return losses._replace(cross_entropy=entropy.detach())

    batch_loss = distributed.spread(network, loss)
    run.begin(optimizers, options.epochs)
    for epoch in run.epochs():
        network.train()
        augment = options.augment.at(epoch, options.epochs)
        for indices in run.batches(len(images), options.batch_size):
            seen = shrunk_images(task, indices, augment, side)
            losses = batch_loss(seen, images.labels[indices])
            optimizers.zero_grad()
            losses.total.backward()
            optimizers.clip_gradient()
            optimizers.step()
            run.count(losses, env_steps=options.batch_size)  # a look counts as a glimpse

        selection = select_network(network, task.images("validation"), ponder_cost)
        if run.is_best(selection):
            run.save_model(network, **task.metadata)
        run.end_epoch(selection)


def train(options: Options) -> Path:
    """Trains and evaluates a network; returns the run's folder."""
    task = open_task(options)
    task.check_whole_task()
    keywords = {name: getattr(options, name) for name in ("side", "bf16", "seed")}
    network, backbone = new_network(task, options.encoder, options.halting, **keywords)
    options.check_batch_size(len(task.images("train")))
    side = network.config.image_shape[0]
    run = open_run(options, task, network, "train/one_look.py", prefix="one-look_")
    if run.finished:
        return run.show()
    print(f"images seen at {side}x{side}")
    splits = ("train", "validation", "test")
    for split in splits[1:] if options.augment.copies_images else splits:
        data = task.images(split).data
        if data.image_shape[:2] != (side, side):
            data.prepare(side)  # shrinks the split once and keeps it
    distributed.meet("prepared")

    with run:
        for _ in run.stages(["one-look"]):
            train_network(options, task, network, run)
        if not distributed.leave():
            return run.path
        about = {"recipe": options.recipe, "backbone": backbone, **run.about()}
        best = load_one_look(run.path, task.device)
        results = report(run.path, task, best, about)
        run.finish(results, "test_error")
    return run.show()


if __name__ == "__main__":
    run_program(lambda: train(command_line(Options, __doc__, RECIPES)))

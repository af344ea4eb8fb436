"""Trains DT-RAM, which looks at images through glimpses, on any registered environment.

    python train/reinforce.py                                    # MNIST, under 10 minutes on a CPU
    python train/reinforce.py --recipe birds-small               # birds; scenes: in large scenes
    python train/reinforce.py --recipe talk                      # MNIST, the talk's algorithm
    python train/reinforce.py --recipe original                  # its code; CUB: original-cub
    python train/reinforce.py --env-id DTRAM-ImageFolder-v0 --root photos --encoder cnn
    python train/reinforce.py --stop off --run-dir runs/ram      # RAM, a fixed number of glimpses
    python train/reinforce.py --trunk runs/ram                   # a stopper on that trunk: DT-RAM
    python train/reinforce.py --run-dir runs/mine --resume       # continue an interrupted run
    torchrun --nproc-per-node 4 train/reinforce.py …             # on 4 GPUs
    torchrun --nproc-per-node 4 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST1:29400 \\
      train/reinforce.py …                                       # on two machines, both run this

First the trunk (encoder, core, classifier, locator) learns with a fixed number of glimpses, then
the stopper learns on the frozen trunk. The loss and its gradient are in agents/objective.py. The
validation split chooses the best epoch and the stop threshold. The test split is evaluated once, at
the end.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

from torch import Tensor

from agents.dtram import DTRAM
from agents.loading import load_agent
from agents.objective import Losses, Objective, hybrid_loss, trained_heads
from agents.spatial_map import MapUnroll
from agents.unroll import Unroll
from train.common import distributed
from train.common.augment import Augmentation
from train.common.compiled import changing, compiled
from train.common.optimizers import Optimizers
from train.common.options import AdamW, AtLeast1, TrainingOptions, check, command_line
from train.common.training import TrainingRun, learn_only, open_run, open_task
from train.common.training_task import TrainingTask
from train.dtram import validation
from train.dtram.curriculum import begin_stage, check_stages, epochs_of_budget, stage_parameters
from train.dtram.frozen_states import frozen_states, learning_classifier
from train.dtram.networks import agent_on_trunk, new_agent, new_unroll, origin_of_trunk
from train.dtram.options import (
    ACT,
    RNN,
    AfterTrunk,
    Cells,
    Core,
    Gaussian,
    Locator,
    Map,
    Scan,
    Stop,
    StopAfter,
    StopJoint,
    Values,
)
from train.dtram.recipes import RECIPES
from train.dtram.report import report
from train.dtram.warm_up import scripted_scan, warm_up_objective

STOPPER_LEARNING_RATE = 2e-3
OF_LOCATIONS = ("train/locator_gradient_norm", "train/locations_outside")  # norm before clipping
OPTIONS_OF_THE_TRUNK = (
    *("encoder", "core", "locator", "curriculum", "scan_epochs", "location_reward", "supervision"),
    *("epochs", "batch_size", "learning_rate", "optimizer"),
)
"""Options of the trunk's training, which ``--trunk`` leaves out."""


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Trains DT-RAM on a registered environment."""

    recipe: str = ""
    """named set of options to start from; other flags change it. One of talk, original, mnist,
    mnist-conv, mnist-map, translated, cluttered, cluttered-100, birds-small, scenes, original-cub,
    ours"""

    discount: float | None = None
    """γ of the reward; the environment's own if not given"""
    locator: Locator = field(default_factory=Gaussian)
    """location policy: gaussian std=0.1 squash=tanh|hard_tanh bound=1 (the paper's), or cells
    grid=none entropy=0; both take gradient=detached|state hidden=0 learning_rate=none (none: as the
    rest). For a map, or a thumbnail, also values grid=none exploration=0.1 hidden=64, which
    predicts the reward of each cell and looks at the best; for a map also scan jitter=1"""
    core: Core = field(default_factory=RNN)
    """recurrent core: rnn init=none (the paper's), or a spatial memory, map cells=none
    cell=none window=0 width=16 pool=none|max_and_mean dropout=0.2 answer=state|product"""
    stop: Stop = field(default_factory=StopAfter)
    """after: learned after the trunk (epochs=20 batch_size=1000 classifier=frozen|learns); joint:
    with it (into=detached|state ram_share=0 learning_rate=none); both: max_mean_glimpses=3.5
    threshold=none gradient=exact|reinforce entropy=0.0005 prior=confidence|none reads=answer|state
    hidden=128; value: from the later drop of cross-entropy; act: ponder_cost=0.01; off: RAM"""
    trunk: Path | None = None
    """folder of a trained run, or of one of its stages (RUN/stages/trunk-4): only the stopper
    learns, on that trunk"""
    baseline: Literal["leave_one_out", "value", "scalar", "none"] = "leave_one_out"
    """b_t, subtracted from the reward of a decision; locations have none with values or scan"""
    supervision: Literal["all", "taken", "last"] = "all"
    """cross-entropy at every glimpse up to the budget, at those taken, or at the last one"""
    location_reward: Literal["mean_prob", "mean_log_prob", "drop", "return"] | None = None
    """reward of a location: the true class's mean later probability (the default), or its log, the
    drops in cross-entropy after it, or the return (the default, and the only one, if joint)"""
    scan_epochs: int = 0
    """warm-up: epochs at the start of a stage in which locations follow one scripted scan"""
    curriculum: tuple[int, ...] = ()
    """glimpses of each trunk stage, as in 1 2 4 7; one stage with the whole budget if not given"""
    m: AtLeast1 = 2
    """trajectories sampled for each image, M"""
    env_steps: AtLeast1 | None = None
    """glimpses to learn from in all, in place of epochs: a quarter of them for the stopper"""

    def __post_init__(self) -> None:
        super().__post_init__()
        samples_stops = isinstance(self.stop, StopAfter) and self.stop.gradient == "reinforce"
        needs_baseline = samples_stops or (self.learns_policy and self.trunk is None)
        fits = self.m >= 2 or self.baseline != "leave_one_out" or not needs_baseline
        check("m", self.m, fits, "at least 2, unless with --baseline none, value or scalar")

        joint = isinstance(self.stop, StopJoint)
        mapped = isinstance(self.core, Map)
        kinds = (Cells, Values, Scan) if mapped else (Gaussian, Cells, Values)
        expected = "cells, values or scan with a map, gaussian, cells or values without"
        check("locator", self.locator.name, isinstance(self.locator, kinds), expected)
        fits = not mapped or self.supervision == "all"
        check("supervision", self.supervision, fits, "all with a map")
        product = isinstance(self.core, Map) and self.core.answer == "product"
        fits = not (product and getattr(self.stop, "classifier", "") == "learns")
        check("stop classifier", "learns", fits, "frozen with --core map answer=product")
        reward = self.location_reward
        check("location_reward", reward, not joint or reward in (None, "return"), "return")
        by_value = isinstance(self.locator, Values)
        fits = not (joint and (mapped or by_value))
        check("stop", self.stop.name, fits, "after or off with a map or values")

        valid = 0 <= self.scan_epochs < self.epochs and not (joint and self.scan_epochs)
        fewer = f"fewer than --epochs {self.epochs}, and 0 with --stop joint"
        check("scan_epochs", self.scan_epochs, valid, fewer)
        fits = not (self.scan_epochs and (mapped or by_value))
        check("scan_epochs", self.scan_epochs, fits, "0 with a map or values")
        by_epochs = self.env_steps is None or self.scan_epochs == 0
        check("scan_epochs", self.scan_epochs, by_epochs, "0 with --env-steps")

        if self.trunk is None:
            valid = not isinstance(self.stop, ACT)
            check("stop", "act", valid, "after, value, joint or off; act needs --trunk")
        else:
            valid = isinstance(self.stop, AfterTrunk)
            check("stop", self.stop.name, valid, "after, value or act with --trunk")
            for name in OPTIONS_OF_THE_TRUNK:
                given = getattr(self, name) != getattr(Options(), name)
                whose = f" (of --recipe {self.recipe})" if self.recipe else ""
                expected = f"no value{whose}: with --trunk only the stopper learns"
                check(name, getattr(self, name), not given, expected)

    @property
    def learns_policy(self) -> bool:
        """Whether the locator learns by policy gradient, which a baseline helps."""
        return isinstance(self.locator, Gaussian | Cells)

    def env_steps_of(self, stage: str) -> int | None:
        """Glimpses that a stage may take; None without ``--env-steps``."""
        if self.env_steps is None or self.trunk is not None:
            return self.env_steps
        stopper = self.env_steps // 4 if isinstance(self.stop, AfterTrunk) else 0
        share = (self.env_steps - stopper) // max(1, len(self.curriculum))
        return stopper if stage == "stopper" else share

    def objective(self, discount: float) -> Objective:
        """The loss of the trunk, or of everything with ``--stop joint``."""
        baseline = self.baseline if self.learns_policy else "none"
        common = Objective(discount, baseline=baseline, supervision=self.supervision)
        if isinstance(self.stop, StopJoint):
            return replace(
                common,
                stop="learned",
                location_reward="return",
                stop_gradient=self.stop.gradient,
                stop_entropy=self.stop.entropy,
            )
        return replace(
            common,
            location_reward=self.location_reward or "mean_prob",
            location_learning="value" if isinstance(self.locator, Values) else "policy_gradient",
        )


def train_trunk(
    options: Options, task: TrainingTask, agent: DTRAM, run: TrainingRun, glimpses: int, before: int
) -> None:
    """Trains the trunk with `glimpses` glimpses an image; `before`: those of the previous stage of
    the curriculum, 0 for the first."""
    images, objective = task.images("train"), options.objective(task.discount)
    joint = isinstance(options.stop, StopJoint)
    unroll = new_unroll(agent, task.sensor, options.locator, joint, options.bf16)
    sample = compiled(unroll, options.compile, task.device)
    loss_of = compiled(hybrid_loss, options.compile, task.device)
    epochs, batches = options.epochs, len(images) // options.batch_size
    if (env_steps := options.env_steps_of("trunk")) is not None:
        a_step = round(options.batch_size * options.m * unroll.mean_length(glimpses))
        epochs, batches = epochs_of_budget(env_steps // a_step, batches)

    begin_stage(agent, before)
    answers = task.classifier is None  # else a frozen classifier answers in the agent's place
    parameters = stage_parameters(agent, objective, glimpses, before, answers)
    learn_only(agent, parameters)  # the optimizers leave out all other parameters
    steps, how = epochs * batches, (options.learning_rate, options.optimizer)
    heads = {"locator": options.locator, "stopper": options.stop}
    rates = {name: getattr(head, "learning_rate", None) for name, head in heads.items()}
    ram_epochs = options.stop.ram_epochs(epochs) if isinstance(options.stop, StopJoint) else 0
    optimizers = Optimizers(agent, parameters, steps, *how, ram_epochs * batches, own_rates=rates)
    locates = glimpses > 1 and not agent.config.scan

    def loss(store: Any, in_store: Tensor, labels: Tensor, m: int, objective: Objective) -> Losses:
        trajectory = sample(store, in_store, glimpses, m)
        return loss_of(trajectory, labels, m, objective, agent.scalar_baseline)

    partly = glimpses == 1 or max(options.scan_epochs, ram_epochs) > 0
    batch_loss = distributed.spread(agent, loss, partly)
    run.begin(optimizers, epochs, more_means=OF_LOCATIONS * locates)
    for epoch in run.epochs():
        agent.train()
        epoch_objective, m, progress = objective, options.m, epoch / max(1, epochs - 1)
        augment = options.augment.at(epoch, epochs)
        stops = joint and epoch >= ram_epochs
        if isinstance(unroll, Unroll):
            unroll.scripted_locations, unroll.stop = None, stops
        if isinstance(options.locator, Values):
            unroll.exploration = changing(options.locator.exploration_at(progress), task.device)
        elif isinstance(unroll, MapUnroll) and isinstance(options.locator, Scan):
            unroll.jitter = 2 * options.locator.jitter / (task.image_size or 1)
        if epoch < options.scan_epochs and glimpses > 1:
            # The scan needs no baseline over an image's trajectories, so one is enough.
            epoch_objective, m = warm_up_objective(objective), 1
            unroll.scripted_locations = scripted_scan(glimpses - 1).to(task.device)
        elif isinstance(options.locator, Cells):
            entropy = changing(options.locator.entropy_at(progress), task.device)
            epoch_objective = replace(objective, location_entropy=entropy)
        if not stops:
            epoch_objective = replace(epoch_objective, stop="off", stop_entropy=0.0)
        for indices in run.batches(len(images), options.batch_size, batches):
            store, in_store = task.augmented(images, indices, augment)
            losses = batch_loss(store, in_store, images.labels[indices], m, epoch_objective)
            optimizers.zero_grad()
            losses.total.backward()
            means = [optimizers.gradient_norm(agent.locator), losses.outside] if locates else []
            optimizers.clip_gradient()
            optimizers.step()
            taken = round(options.batch_size * m * unroll.mean_length(glimpses))
            run.count(losses, *means, env_steps=taken)

        scores = validation.score_validation(task, agent).limit(glimpses)
        if stops and isinstance(options.stop, StopJoint):
            bound, fixed = options.stop.max_mean_glimpses, options.stop.threshold
            selection = validation.select_threshold(scores, task.discount, bound, fixed)
        else:
            last_only = options.supervision == "last"
            selection = validation.select_by_error(scores, task.discount, last_only)
        if stops == joint and run.is_best(selection):
            agent.stopping = agent.learned_stop(selection.threshold)
            run.save_model(agent, **task.metadata)
        farthest = validation.farthest_location(agent)
        found = validation.behaviour(scores, stops=joint, farthest=farthest)
        warnings = validation.collapses(scores, stops=stops, farthest=farthest)
        run.end_epoch(selection, found, warnings if epoch >= options.scan_epochs else [])


def train_stopper(options: Options, task: TrainingTask, agent: DTRAM, run: TrainingRun) -> None:
    """The last stage: the stopper learns on the frozen trunk, from states computed once."""
    stop = options.stop
    assert isinstance(stop, AfterTrunk)
    env_steps = options.env_steps_of("stopper")
    states = frozen_states(task, agent, "train", options.augment, options.seed, env_steps)
    objective, m = None, 1
    parameters = list(agent.stopper.parameters())
    if not isinstance(stop, ACT):
        plain = Augmentation(affine=0.0)
        held_out = frozen_states(task, agent, "validation", plain, options.seed)
    if isinstance(stop, StopAfter):
        # The exact gradient averages over all stopping times: one trajectory, no baseline.
        sampled = stop.gradient == "reinforce"
        m = options.m if sampled else 1
        objective = Objective(
            discount=task.discount,
            stop="learned",
            location_reward="return",
            baseline=options.baseline if sampled else "none",
            stop_gradient=stop.gradient,
            supervision="last",  # for a classifier that learns
            stop_entropy=stop.entropy,
        )
        parameters = trained_heads(agent, objective)
        if stop.classifier == "learns":
            parameters += learning_classifier(task, agent)
            states, held_out = (part._replace(answers_learn=True) for part in (states, held_out))
    learn_only(agent, parameters)
    batch_size = min(stop.batch_size, len(states.labels))
    steps = stop.epochs * (len(states.labels) // batch_size)
    optimizers = Optimizers(agent, parameters, steps, STOPPER_LEARNING_RATE, AdamW())

    def loss(indices: Tensor) -> Losses:
        if isinstance(stop, ACT):
            return states.act_losses(agent, indices, stop.ponder_cost, task.discount)
        if objective is None:
            return states.gain_losses(agent, indices, task.discount)
        trajectory, labels = states.trajectory(agent, indices, m), states.labels[indices]
        return hybrid_loss(trajectory, labels, m, objective, agent.scalar_baseline)

    batch_loss = distributed.spread(agent, loss)
    run.begin(optimizers, stop.epochs, env_steps=states.env_steps)
    for _ in run.epochs():
        agent.train()
        for indices in run.batches(len(states.labels), batch_size):
            losses = batch_loss(indices)
            optimizers.zero_grad()
            losses.total.backward()
            optimizers.clip_gradient()
            optimizers.step()
            run.count(losses)

        agent.eval()
        if isinstance(stop, ACT):  # its answers depend on the stopper
            scores = validation.score_validation(task, agent)
            selection = validation.select_halting(scores, task.discount, stop.ponder_cost)
        else:
            scores, bound = held_out.scores(agent), stop.max_mean_glimpses
            fixed = stop.threshold if isinstance(stop, StopAfter) else None
            selection = validation.select_threshold(scores, task.discount, bound, fixed)
        if run.is_best(selection):
            agent.stopping = agent.learned_stop(selection.threshold)
            run.save_model(agent, **task.metadata)
        stops = isinstance(stop, StopAfter)
        run.end_epoch(selection, validation.behaviour(scores, stops=stops, farthest=None))


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    keywords = {} if options.discount is None else {"discount": options.discount}
    task = open_task(options, **keywords)
    curriculum = options.curriculum or (task.max_glimpses,)
    check_stages(curriculum, task.max_glimpses)
    stages = {f"trunk-{t}": t for t in curriculum}
    if options.trunk is None:
        options.check_batch_size(len(task.images("train")))
    names = list(stages) if options.trunk is None else []
    names += ["stopper"] if isinstance(options.stop, AfterTrunk) else []
    if options.env_steps is not None:
        for stage in names:
            batch = 1 if stage == "stopper" else options.batch_size * options.m
            share, least = options.env_steps_of(stage) or 0, batch * task.max_glimpses
            expected = f"enough that {stage} gets {least}; it would get {share}"
            check("env_steps", options.env_steps, share >= least, expected)

    how = options.stop, options.bf16, options.seed
    if options.trunk is None:
        agent, backbone = new_agent(task, options.encoder, options.core, options.locator, *how)
    else:
        agent, backbone = agent_on_trunk(options.trunk, task, *how), "trunk"
    run = open_run(options, task, agent, "train/reinforce.py")
    if run.finished:
        return run.show()

    with run:
        for stage in run.stages(names):
            if stage == "stopper":
                train_stopper(options, task, agent, run)
            else:
                glimpses = stages[stage]
                before = max((t for t in curriculum if t < glimpses), default=0)
                train_trunk(options, task, agent, run, glimpses, before)
            best = distributed.from_main(lambda: load_agent(run.path))  # starts the next stage
            agent.load_state_dict(best.state_dict())
            agent.stopping = best.stopping
            if len(names) > 1:
                run.save_model(agent, "stages", stage, **task.metadata)
        if not distributed.leave():
            return run.path
        # Ctrl-C is ignored during the report, which takes a few seconds.
        about = {
            "recipe": options.recipe,
            "classifier": None if task.classifier is None else task.classifier.name,
            "backbone": backbone,
            "trunk": None if options.trunk is None else origin_of_trunk(options.trunk),
            **run.about(),
        }
        results = report(run.path, task, load_agent(run.path, task.device), about)
        run.finish(results, "test_error", "mean_glimpses")
    return run.show()


if __name__ == "__main__":
    run_program(lambda: train(command_line(Options, __doc__, RECIPES)))

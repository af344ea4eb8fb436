"""Trains DT-RAM: looks, stops and answers, on any registered environment.

    python train/reinforce.py                               # MNIST, under 10 minutes on 2 CPU cores
    python train/reinforce.py --env-id DTRAM-Signpost-v0 --location-std 0.5 --m 8  # needs no data
    python train/reinforce.py --stop joint --stop-gradient reinforce  # all in one stage
    python train/reinforce.py --run-dir runs/mine --resume  # goes on where it was interrupted

First the trunk learns to look and answer with a fixed number of glimpses (RAM), then the stopper
learns on the frozen trunk (``--stop after``), or all learn together (``--stop joint``). Validation
chooses the weights and the stop threshold; the test split is looked at once, at the end.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM
from agents.objective import Objective
from train.augment import Affine
from train.loop import Loop, Progress
from train.provenance import choose_device, provenance
from train.report import glimpse_pictures, report
from train.run import Interrupt, RunFolder, run_program
from train.stages import Stage, StopperStage, UnrollStage
from train.task import Task


@dataclass(frozen=True)
class Options:
    """Trains DT-RAM on a registered environment."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    discount: float | None = None
    """γ of the reward; the environment's own if not given"""
    max_glimpses: int | None = None
    """budget T_max; the environment's own if not given"""
    glimpse_size: int | None = None
    """side of a glimpse in pixels; the environment's own if not given"""
    num_scales: int | None = None
    """crops of a glimpse; the environment's own if not given"""
    first_glimpse: Literal["center", "random"] | None = None
    """where the first glimpse is; the environment's own if not given"""
    classifier: Path | None = None
    """folder of the classifier in the loop (policy-only ids); the id's own if not given"""
    data_dir: Path | None = None
    """where data lies; $DTRAM_DATA or ~/.cache/dtram if not given"""

    encoder: Literal["mlp", "conv"] = "mlp"
    """glimpse encoder: mlp is the paper's"""
    core: Literal["rnn", "gru", "lstm"] = "rnn"
    """recurrent cell: rnn (ReLU) is the paper's"""
    hidden_size: int = 256
    """width of the recurrent state"""
    locator_input: Literal["detached", "state"] = "detached"
    """whether the location's policy gradient reaches the state"""
    locator_hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    locator_grid: int = 0
    """the location policy chooses among the centres of G x G cells; 0: a Gaussian, the paper's"""
    stopper_input: Literal["detached", "state"] = "detached"
    """whether the stop's policy gradient reaches the state"""

    stop: Literal["after", "joint", "off"] = "after"
    """the stopper learns after the trunk, jointly with it, or not at all (RAM)"""
    stop_gradient: Literal["exact", "reinforce"] = "exact"
    """gradient of the stop decisions: expectation over the stopping time, or sampled"""
    baseline: Literal["leave_one_out", "value", "scalar", "none"] = "leave_one_out"
    """b_t of the policy gradient"""
    supervision: Literal["all", "taken", "last"] = "all"
    """cross-entropy at every glimpse up to the limit, at those taken, or at the last one"""
    location_reward: Literal["anytime", "return"] | None = None
    """what pays a location: the true class's mean later probability (anytime; the default while the
    trunk learns with stop off), or the return R (the default, and all there is, with stop joint)"""
    stop_entropy: float = 5e-4
    """weight of the entropy bonus on stop decisions"""
    location_entropy: float = 0.0
    """weight of the entropy bonus on the choice of a cell; with --locator-grid"""
    max_mean_glimpses: float = 3.5
    """bound on validation's mean glimpses when the stop threshold is chosen"""
    choose: Literal["error", "return"] = "error"
    """the stop threshold is the one with the lowest validation error within that bound, or with the
    highest return, whatever the bound"""

    curriculum: tuple[int, ...] = ()
    """glimpses of each trunk stage, as in 1 2 4 7; one stage with the whole budget if not given"""
    epochs: int = 30
    """passes over the training split in each trunk (or joint) stage"""
    batch_size: int = 96
    """images a batch"""
    m: int = 2
    """trajectories sampled for each image, M"""
    location_std: float = 0.1
    """standard deviation of a sampled location, where the image is 2 wide"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 0.01
    """AdamW's"""
    max_grad_norm: float = 5.0
    """gradients are clipped to this norm"""
    augment: float = 0.5
    """strength of the random affine augmentation; 0 is none, 1 is 2 pixels and 12 degrees"""
    stop_epochs: int = 20
    """passes over the training split in the stopper's stage"""
    stop_batch_size: int = 1000
    """images a batch in the stopper's stage"""
    stop_learning_rate: float = 2e-3
    """peak of the stopper's schedule"""
    replay: int = 0
    """earlier batches whose cross-entropy the trunk learns again beside each new one; takes no env
    steps; with --augment 0. The memory is empty again after an interruption"""
    env_steps: int | None = None
    """glimpses to learn from in all, in place of whole epochs: a quarter of them for the stopper
    with --stop after; validation's are not counted"""

    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one; a finished run prints its result"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "m", "stop_epochs", "stop_batch_size", "hidden_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("location_std", "learning_rate", "stop_learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            _check(name, value, 0 < value < math.inf, "a positive number")
        zero_or_more = ("weight_decay", "augment", "stop_entropy", "locator_hidden", "locator_grid")
        for name in (*zero_or_more, "replay", "location_entropy"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < math.inf, "0 or more")
        _check("seed", self.seed, 0 <= self.seed < 2**31, "0 or more, below 2**31")
        _check(
            "max_mean_glimpses", self.max_mean_glimpses, self.max_mean_glimpses >= 1, "1 or more"
        )
        rising = all(a < b for a, b in zip(self.curriculum, self.curriculum[1:], strict=False))
        _check(
            "curriculum",
            self.curriculum,
            rising and all(t >= 1 for t in self.curriculum),
            "rising numbers of glimpses, from 1",
        )
        if self.baseline == "leave_one_out":
            _check("m", self.m, self.m >= 2, "at least 2 with --baseline leave_one_out")
        if self.stop == "joint":
            _check(
                "location_reward",
                self.location_reward,
                self.location_reward != "anytime",
                "return with --stop joint",
            )
        if self.location_entropy:
            _check(
                "location_entropy",
                self.location_entropy,
                self.locator_grid > 0,
                "0, without a grid",
            )
        if self.replay:
            _check("replay", self.replay, self.augment == 0, "0, unless --augment is 0")
        if self.env_steps is not None:
            _check("env_steps", self.env_steps, self.env_steps >= 1, "at least 1")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def env_options(self) -> dict[str, Any]:
        """The environment's keywords that were given."""
        names = ("discount", "max_glimpses", "glimpse_size", "num_scales", "first_glimpse")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        for name in ("classifier", "data_dir"):
            if getattr(self, name) is not None:
                given[name] = str(getattr(self, name))
        return given

    def share(self, stopper: bool) -> int | None:
        """Env steps of the stopper's stage, or of each other one; None if they are not limited."""
        if self.env_steps is None:
            return None
        last = self.env_steps // 4 if self.stop == "after" else 0
        return last if stopper else (self.env_steps - last) // max(1, len(self.curriculum))

    def to_json(self) -> dict[str, Any]:
        """The options that define the run: all but where it lies and how it was called."""
        values = asdict(self) | {"curriculum": list(self.curriculum)}
        if self.classifier is not None:
            values["classifier"] = str(self.classifier)
        del values["run_dir"], values["resume"], values["data_dir"], values["device"]
        return values


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} {value}: expected {expected}")


def make_stages(options: Options, task: Task, agent: DTRAM) -> list[tuple[str, Any]]:
    """The stages in order, as (name, function that makes it); one is made when it begins."""
    o, augment = options, Affine(options.augment)
    fixed = Objective(
        discount=task.discount,
        stop="off",
        baseline=o.baseline,
        supervision=o.supervision,
        location_reward=o.location_reward or "anytime",
        location_entropy=o.location_entropy,
    )
    learned = Objective(
        discount=task.discount,
        baseline=o.baseline,
        stop_gradient=o.stop_gradient,
        supervision=o.supervision,
        stop_entropy=o.stop_entropy,
        location_entropy=o.location_entropy if o.stop == "joint" else 0.0,
    )

    def unroll_stage(name: str, steps: int) -> Stage:
        return UnrollStage(
            task,
            agent,
            learned if o.stop == "joint" else fixed,
            name=name,
            steps=steps,
            m=o.m,
            location_std=o.location_std,
            augment=augment,
            epochs=o.epochs,
            batch_size=o.batch_size,
            learning_rate=o.learning_rate,
            max_mean_glimpses=o.max_mean_glimpses,
            choose=o.choose,
            env_steps=o.share(stopper=False),
            replay=o.replay,
        )

    def stopper_stage() -> Stage:
        return StopperStage(
            task,
            agent,
            learned,
            name="stopper",
            m=o.m,
            augment=augment,
            seed=o.seed,
            epochs=o.stop_epochs,
            batch_size=o.stop_batch_size,
            learning_rate=o.stop_learning_rate,
            max_mean_glimpses=o.max_mean_glimpses,
            choose=o.choose,
            env_steps=o.share(stopper=True),
        )

    curriculum = o.curriculum or (task.max_glimpses,)
    if curriculum[-1] != task.max_glimpses:
        raise ValueError(
            f"--curriculum {' '.join(map(str, curriculum))}: expected to end with the budget, "
            f"{task.max_glimpses} glimpses; --max-glimpses sets another"
        )
    images = len(task.images("train"))
    for name in ("batch_size", "stop_batch_size"):
        _check(name, getattr(o, name), getattr(o, name) <= images, f"at most {images}, the split")
    if task.classifier is not None:
        _check("replay", o.replay, o.replay == 0, "0 on a policy-only id, whose network is frozen")
    if o.env_steps is not None:
        for steps in curriculum:
            least = steps * o.batch_size * o.m
            share = o.share(stopper=False) or 0
            _check("env_steps", o.env_steps, share >= least, f"at least {least} for each stage")
        if o.stop == "after":
            share, least = o.share(stopper=True) or 0, task.max_glimpses
            _check("env_steps", o.env_steps, share >= least, f"at least {4 * least}")
    stages: list[tuple[str, Any]] = []
    for steps in curriculum:
        name = f"{'joint' if o.stop == 'joint' else 'trunk'}-{steps}"
        stages.append((name, lambda name=name, steps=steps: unroll_stage(name, steps)))
    if o.stop == "after":
        stages.append(("stopper", stopper_stage))
    return stages


def fit(
    options: Options,
    stages: list[tuple[str, Any]],
    task: Task,
    agent: DTRAM,
    run: RunFolder,
    interrupt: Interrupt,
) -> Progress:
    """Runs every stage that is not done yet; the best weights are then in the run's folder."""
    progress, saved = Progress(), run.latest_state()
    if saved is not None:
        progress.restore(saved)
    run.rewind(progress.images)
    if saved is not None:
        run.load_weights(agent)  # a stage may compute from the trunk when it is made
        print(f"{run.path}: continuing after {progress.images:,} images")
    loop = Loop(
        task,
        agent,
        run,
        progress,
        interrupt,
        seed=options.seed,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
    )
    for name, make in stages[progress.stage :]:
        loop.run_stage(make, restore=saved is not None)
        saved = None
        progress.next_stage()
        pictures = glimpse_pictures(task, agent, "validation")
        run.writer.add_image(f"glimpses/{name}", pictures, progress.images, dataformats="HWC")
    return progress


def new_agent(options: Options, task: Task) -> DTRAM:
    """An untrained agent; seeds torch's generator."""
    torch.manual_seed(options.seed)
    return task.new_agent(
        encoder=options.encoder,
        core=options.core,
        hidden_size=options.hidden_size,
        locator_input=options.locator_input,
        locator_hidden=options.locator_hidden,
        locator_grid=options.locator_grid,
        stopper_input=options.stopper_input,
    )


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    run_dir = options.run_dir or Path(
        "runs",
        options.env_id.rpartition(":")[2],
        f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}",
    )
    device = choose_device(options.device)
    origin = provenance(device)
    task = Task(options.env_id, device, **options.env_options())
    agent = new_agent(options, task)
    stages = make_stages(options, task, agent)
    run = RunFolder(run_dir, options.to_json(), options.resume, device)
    if run.finished:
        print(f"{run_dir}: finished already")
        show(run_dir)
        return run_dir

    with Interrupt() as interrupt:
        progress = fit(options, stages, task, agent, run, interrupt)
        # Still inside: a signal that comes now waits the few seconds that the report takes.
        about = {
            "options": options.to_json(),
            "train_seconds": round(progress.seconds, 1),
            "validation_seconds": round(progress.validation_seconds, 1),
            "images_seen": progress.images,
            "env_steps": progress.env_steps,
            "classifier": None if task.classifier is None else task.classifier.name,
            **origin,
        }
        results = report(run_dir, task, DTRAM.load(run.path, device), about)
        final = {f"hparam/{name}": results[name] for name in ("test_error", "mean_glimpses")}
        run.log_hyperparameters(options.to_json(), final)
        run.finish(results)
    show(run_dir)
    return run_dir


def show(run_dir: Path) -> None:
    """Prints the result of a finished run."""
    print((run_dir / "results.txt").read_text(), end="")
    print(f"model, results, plot and pictures: {run_dir}")


def main() -> None:
    """The command line."""
    train(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    run_program(main)

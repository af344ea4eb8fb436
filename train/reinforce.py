"""Trains DT-RAM: looks, stops and answers, on any registered environment.

    python train/reinforce.py                               # MNIST, under 10 minutes on 2 CPU cores
    python train/reinforce.py --env-id DTRAM-Signpost-v0 --location-std 0.5 --m 8  # needs no data
    python train/reinforce.py --env-id DTRAM-BirdsSmall-v0 --encoder cnn    # drawn birds
    python train/reinforce.py --env-id DTRAM-CUB-v0 --encoder resnet50 --backbone-weights DEFAULT
    python train/reinforce.py --stop joint --stop-gradient reinforce  # all in one stage
    python train/reinforce.py --run-dir runs/mine --resume  # goes on where it was interrupted

First the trunk learns to look and answer with a fixed number of glimpses (RAM), then the stopper
learns on the frozen trunk (``--stop after``), or all learn together (``--stop joint``). Validation
chooses the weights and the stop threshold; the test split is looked at once, at the end.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.act import HaltingRAM
from agents.dtram import DTRAM
from agents.loading import load_agent
from agents.objective import Objective
from train.backbone import backbone_scale, prepare_backbone
from train.halting import HaltingStage
from train.loop import Loop, Progress
from train.options import (
    AugmentOptions,
    NetworkOptions,
    OptimizerOptions,
    TaskOptions,
    check,
    check_ranges,
)
from train.provenance import choose_device, provenance
from train.report import glimpse_pictures, report
from train.run import Interrupt, RunFolder, run_program
from train.stages import Stage, StopperStage, UnrollStage
from train.task import Task

NOT_NEGATIVE = (
    "weight_decay",
    "augment",
    "colour",
    "lighting",
    "stop_entropy",
    "locator_hidden",
    "locator_grid",
    "replay",
    "location_entropy",
    "lone_weight",
    "ponder_cost",
)

OF_THE_TRUNK = (
    *(field.name for field in fields(NetworkOptions)),
    "core",
    "hidden_size",
    "location_embedding",
    "per_step",
    "answer",
    "locator_input",
    "locator_hidden",
    "locator_grid",
    "stopper_input",
)
"""Options that a trunk has settled."""


@dataclass(frozen=True)
class Options(OptimizerOptions, AugmentOptions, NetworkOptions, TaskOptions):
    """Trains DT-RAM on a registered environment."""

    core: Literal["rnn", "gru", "lstm"] = "rnn"
    """recurrent cell: rnn (ReLU) is the paper's"""
    hidden_size: int | None = None
    """width of the recurrent state; 256, or a resnet's own width, if not given"""
    location_embedding: bool = True
    """whether a resnet is told where a glimpse was taken; the original's is not"""
    per_step: bool = False
    """an encoder and a classifier of its own for each glimpse, as the original on CUB"""
    answer: Literal["state", "first_plus_mean"] = "state"
    """answers from the state, or as the original on CUB: logits of glimpse 1 plus the mean of the
    later ones"""
    locator_input: Literal["detached", "state"] = "detached"
    """whether the location's policy gradient reaches the state"""
    locator_hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    locator_grid: int = 0
    """the location policy chooses among the centres of G x G cells; 0: a Gaussian, the paper's"""
    stopper_input: Literal["detached", "state"] = "detached"
    """whether the stop's policy gradient reaches the state"""

    trunk: Path | None = None
    """folder of a trained DT-RAM or RAM, or of one of its stages, whose trunk is taken as it is:
    only the stopper learns. The network's options are its own and not to be given"""
    stop: Literal["after", "joint", "off", "act"] = "after"
    """the stopper learns after the trunk, jointly with it, or not at all (RAM); act: on a --trunk,
    Adaptive Computation Time in place of DT-RAM's stop"""
    ponder_cost: float = 0.01
    """with --stop act: what a glimpse costs, in nats"""
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
    lone_weight: float = 0.0
    """weight of the cross-entropy of each later glimpse answered by itself, the state empty before
    it, while the trunk learns"""
    lone_reward: float = 0.0
    """share of a location's pay that is what its glimpse says of the true class by itself, while
    the trunk learns with stop off; leads crops to the object where the thumbnail says most"""
    max_mean_glimpses: float = 3.5
    """bound on validation's mean glimpses when the stop threshold is chosen"""
    choose: Literal["error", "return"] = "error"
    """the stop threshold is the one with the lowest validation error within that bound, or with the
    highest return, whatever the bound"""

    curriculum: tuple[int, ...] = ()
    """glimpses of each trunk stage, as in 1 2 4 7; one stage with the whole budget if not given"""
    freeze_earlier: bool = False
    """with --curriculum and --per-step: encoders and classifiers of earlier stages stay fixed"""
    epochs: int = 30
    """passes over the training split in each trunk (or joint) stage"""
    batch_size: int = 96
    """images a batch"""
    m: int = 2
    """trajectories sampled for each image, M"""
    location_std: float = 0.1
    """standard deviation of a sampled location, where the image is 2 wide"""
    location_std_first: float | None = None
    """the same in a stage's first epoch, from where it shrinks by the same factor each epoch to
    --location-std in the last; constant if not given"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
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
        for name in ("epochs", "batch_size", "m", "stop_epochs", "stop_batch_size"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.hidden_size is not None:
            check("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        check_ranges(
            self,
            ("location_std", "learning_rate", "stop_learning_rate", "max_grad_norm"),
            NOT_NEGATIVE,
        )
        if self.location_std_first is not None:
            check_ranges(self, ("location_std_first",), ())
        self.check_network()
        check("seed", self.seed, 0 <= self.seed < 2**31, "0 or more, below 2**31")
        check("max_mean_glimpses", self.max_mean_glimpses, self.max_mean_glimpses >= 1, "1 or more")
        rising = all(a < b for a, b in zip(self.curriculum, self.curriculum[1:], strict=False))
        check(
            "curriculum",
            self.curriculum,
            rising and all(t >= 1 for t in self.curriculum),
            "rising numbers of glimpses, from 1",
        )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.trunk is not None:
            stops = self.stop in ("after", "act")
            check("stop", self.stop, stops, "after or act, beside --trunk")
            check("curriculum", self.curriculum, not self.curriculum, "none beside --trunk")
            for name in OF_THE_TRUNK:
                value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
                check(name, value, value == default, "not given: --trunk says what it is")
        elif self.stop == "act":
            raise ValueError("--stop act: expected with --trunk, a trained RAM or DT-RAM")
        if self.freeze_earlier:
            both = self.per_step and len(self.curriculum) > 1
            check("freeze_earlier", True, both, "with --per-step and a --curriculum of stages")
        if self.baseline == "leave_one_out":
            check("m", self.m, self.m >= 2, "at least 2 with --baseline leave_one_out")
        if self.stop == "joint":
            check(
                "location_reward",
                self.location_reward,
                self.location_reward != "anytime",
                "return with --stop joint",
            )
        if self.location_entropy:
            check(
                "location_entropy",
                self.location_entropy,
                self.locator_grid > 0,
                "0, without a grid",
            )
        anytime = self.stop != "joint" and self.location_reward != "return"
        alone = f"0 to 1{'' if anytime else '; 0 unless a location is paid anytime'}"
        check("lone_reward", self.lone_reward, 0 <= self.lone_reward <= anytime, alone)
        if self.replay:
            plain = not (self.augment or self.colour or self.lighting or self.flip)
            check(
                "replay", self.replay, plain and self.scale_crop is None, "0, unless --augment is 0"
            )
        if self.env_steps is not None:
            check("env_steps", self.env_steps, self.env_steps >= 1, "at least 1")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def share(self, stopper: bool) -> int | None:
        """Env steps of the stopper's stage, or of each other one; None if they are not limited."""
        if self.env_steps is None:
            return None
        last = self.env_steps // 4 if self.stop in ("after", "act") else 0
        if self.trunk is not None:
            last = self.env_steps
        return last if stopper else (self.env_steps - last) // max(1, len(self.curriculum))

    def to_json(self) -> dict[str, Any]:
        """The options that define the run: all but where it lies and how it was called."""
        values = asdict(self) | {"curriculum": list(self.curriculum)}
        for name in ("classifier", "root", "trunk"):
            if values[name] is not None:
                values[name] = str(values[name])
        if self.scale_crop is not None:
            values["scale_crop"] = list(self.scale_crop)
        del values["run_dir"], values["resume"], values["data_dir"], values["device"]
        return values


def make_stages(options: Options, task: Task, agent: DTRAM) -> list[tuple[str, Any]]:
    """The stages in order, as (name, function that makes it); one is made when it begins."""
    o, augment = options, options.augmentation()
    fixed = Objective(
        discount=task.discount,
        stop="off",
        baseline=o.baseline,
        supervision=o.supervision,
        location_reward=o.location_reward or "anytime",
        location_entropy=o.location_entropy,
        lone_weight=o.lone_weight,
        lone_reward=o.lone_reward,
    )
    learned = Objective(
        discount=task.discount,
        baseline=o.baseline,
        stop_gradient=o.stop_gradient,
        supervision=o.supervision,
        stop_entropy=o.stop_entropy,
        location_entropy=o.location_entropy if o.stop == "joint" else 0.0,
        lone_weight=o.lone_weight if o.stop == "joint" else 0.0,
    )

    first = o.curriculum[0] if o.curriculum else task.max_glimpses

    def unroll_stage(name: str, steps: int) -> Stage:
        return UnrollStage(
            task,
            agent,
            learned if o.stop == "joint" else fixed,
            name=name,
            steps=steps,
            m=o.m,
            location_std=(o.location_std_first or o.location_std, o.location_std),
            augment=augment,
            epochs=o.epochs,
            batch_size=o.batch_size,
            learning_rate=o.learning_rate,
            max_mean_glimpses=o.max_mean_glimpses,
            choose=o.choose,
            env_steps=o.share(stopper=False),
            replay=o.replay,
            new_from=o.curriculum[o.curriculum.index(steps) - 1] if steps != first else 0,
            freeze_earlier=o.freeze_earlier,
        )

    def stopper_stage() -> Stage:
        how: dict[str, Any] = {
            "name": "stopper",
            "augment": augment,
            "seed": o.seed,
            "epochs": o.stop_epochs,
            "batch_size": o.stop_batch_size,
            "learning_rate": o.stop_learning_rate,
            "env_steps": o.share(stopper=True),
        }
        if isinstance(agent, HaltingRAM):
            return HaltingStage(task, agent, ponder_cost=o.ponder_cost, **how)
        how |= {"max_mean_glimpses": o.max_mean_glimpses, "choose": o.choose}
        return StopperStage(task, agent, learned, m=o.m, **how)

    curriculum = o.curriculum or (task.max_glimpses,)
    if curriculum[-1] != task.max_glimpses:
        raise ValueError(
            f"--curriculum {' '.join(map(str, curriculum))}: expected to end with the budget, "
            f"{task.max_glimpses} glimpses; --max-glimpses sets another"
        )
    images = len(task.images("train"))
    check("batch_size", o.batch_size, o.batch_size <= images, f"at most {images}, the split")
    if task.classifier is not None:
        check("replay", o.replay, o.replay == 0, "0 on a policy-only id, whose network is frozen")
    if o.env_steps is not None:
        for steps in curriculum:
            least = steps * o.batch_size * o.m
            share = o.share(stopper=False) or 0
            check("env_steps", o.env_steps, share >= least, f"at least {least} for each stage")
        if o.stop in ("after", "act"):
            share, least = o.share(stopper=True) or 0, task.max_glimpses
            check("env_steps", o.env_steps, share >= least, f"at least {4 * least}")
    stages: list[tuple[str, Any]] = []
    for steps in () if o.trunk is not None else curriculum:
        name = f"{'joint' if o.stop == 'joint' else 'trunk'}-{steps}"
        stages.append((name, lambda name=name, steps=steps: unroll_stage(name, steps)))
    if o.stop in ("after", "act"):
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
        how=options,
    )
    for name, make in stages[progress.stage :]:
        loop.run_stage(make, restore=saved is not None)
        saved = None
        progress.next_stage()
        if len(stages) > 1:
            agent.save(run.path / "stages" / name, **task.about)
        pictures = glimpse_pictures(task, agent, "validation")
        run.writer.add_image(f"glimpses/{name}", pictures, progress.images, dataformats="HWC")
    return progress


def new_agent(options: Options, task: Task) -> tuple[DTRAM, str]:
    """An untrained agent, and where its backbone's weights come from; seeds torch's generator."""
    torch.manual_seed(options.seed)
    if options.trunk is not None:
        kind = HaltingRAM if options.stop == "act" else DTRAM
        return agent_on_trunk(options.trunk, task, kind), "trunk"
    config: dict[str, Any] = {
        "encoder": options.encoder,
        "core": options.core,
        "locator_input": options.locator_input,
        "locator_hidden": options.locator_hidden,
        "locator_grid": options.locator_grid,
        "stopper_input": options.stopper_input,
    }
    if options.hidden_size is not None:
        config["hidden_size"] = options.hidden_size
    resnet = options.resnet(task.channels * task.look.num_scales)
    if resnet is not None:
        config |= {
            "resnet": resnet,
            "location_embedding": options.location_embedding,
            "frozen_norms": options.frozen_norms,
        }
        config.setdefault("hidden_size", resnet.out_features)
    config |= {"per_step": options.per_step, "answer": options.answer}
    agent = task.new_agent(**config, **backbone_scale(options.backbone_weights, task))
    return agent, prepare_backbone(agent.encoders(), options)


def agent_on_trunk(folder: Path, task: Task, kind: type[DTRAM] = DTRAM) -> DTRAM:
    """An agent of a kind with a trained one's trunk and an untrained stopper and baseline.

    Raises:
        FileNotFoundError: there is no model in `folder`.
        ValueError: it was made for another environment.
    """
    trained = load_agent(folder, task.device)
    trained.check_spaces(task.observation_space, task.action_space, task.max_glimpses)
    agent = kind(trained.config, class_names=trained.class_names).to(task.device)
    trunk = trained.state_dict()
    heads = {name for name in trunk if name.split(".")[0] in ("stopper", "baseline")}
    untrained = agent.state_dict()
    agent.load_state_dict(trunk | {name: untrained[name] for name in heads})
    return agent


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    device = choose_device(options.device)
    origin = provenance(device)
    task = Task(options.env_id, device, **options.env_options())
    run_dir = options.run_dir or Path(
        "runs",
        task.env_id.rpartition(":")[2],
        f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}",
    )
    agent, backbone = new_agent(options, task)
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
            "backbone": backbone,
            **origin,
        }
        results = report(run_dir, task, load_agent(run.path, device), about)
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

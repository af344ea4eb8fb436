"""Trains DT-RAM: looks, stops and answers, on any registered environment.

    python train/reinforce.py                               # MNIST, about 10 minutes on 2 CPU cores
    python train/reinforce.py --env-id DTRAM-Signpost-v0    # needs no data
    python train/reinforce.py --stop joint --location-reward return --stop-gradient reinforce
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
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM
from agents.objective import Objective
from agents.stopping import LearnedStop
from train.augment import Affine
from train.report import glimpse_pictures, report
from train.run import Interrupt, RunFolder, choose_device, provenance, write_json
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
    location_reward: Literal["anytime", "return"] = "anytime"
    """what pays a location while stop is off: the true class's mean later probability, or R"""
    stop_entropy: float = 5e-4
    """weight of the entropy bonus on stop decisions"""
    max_mean_glimpses: float = 3.5
    """bound on validation's mean glimpses when the stop threshold is chosen"""

    curriculum: tuple[int, ...] = ()
    """glimpses of each trunk stage, as in 1 2 4 7; one stage with the whole budget if not given"""
    epochs: int = 12
    """passes over the training split in each trunk (or joint) stage"""
    batch_size: int = 96
    """images a batch"""
    m: int = 4
    """trajectories sampled for each image, M"""
    location_std: float = 0.1
    """standard deviation of a sampled location, where the image is 2 wide"""
    learning_rate: float = 1e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 0.01
    """AdamW's"""
    max_grad_norm: float = 5.0
    """gradients are clipped to this norm"""
    augment: float = 0.0
    """strength of the random affine augmentation; 0 is none, 1 is 2 pixels and 12 degrees"""
    stop_epochs: int = 20
    """passes over the training split in the stopper's stage"""
    stop_batch_size: int = 1000
    """images a batch in the stopper's stage"""
    stop_learning_rate: float = 2e-3
    """peak of the stopper's schedule"""

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
            _check(name, getattr(self, name), getattr(self, name) > 0, "a positive number")
        for name in ("weight_decay", "augment", "stop_entropy"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
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
                self.location_reward == "return",
                "return with --stop joint",
            )
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def env_options(self) -> dict[str, Any]:
        """The environment's keywords that were given."""
        names = ("discount", "max_glimpses", "glimpse_size", "num_scales", "first_glimpse")
        given = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if self.data_dir is not None:
            given["data_dir"] = str(self.data_dir)
        return given

    def to_json(self) -> dict[str, Any]:
        """The options that define the run: all but where it lies and how it was called."""
        values = asdict(self) | {"curriculum": list(self.curriculum)}
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
        location_reward=o.location_reward,
    )
    learned = Objective(
        discount=task.discount,
        baseline=o.baseline,
        stop_gradient=o.stop_gradient,
        supervision=o.supervision,
        stop_entropy=o.stop_entropy,
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
        )

    stages: list[tuple[str, Any]] = []
    for steps in o.curriculum or (task.max_glimpses,):
        if steps > task.max_glimpses:
            raise ValueError(
                f"--curriculum {steps}: more glimpses than the budget, {task.max_glimpses}"
            )
        name = f"{'joint' if o.stop == 'joint' else 'trunk'}-{steps}"
        stages.append((name, lambda name=name, steps=steps: unroll_stage(name, steps)))
    if o.stop == "after":
        stages.append(("stopper", stopper_stage))
    return stages


class Progress:
    """Where the run is; saved in every checkpoint and restored from it."""

    def __init__(self) -> None:
        self.stage, self.epoch, self.batch = 0, 0, 0
        self.images, self.seconds = 0, 0.0
        self.best: list[float] | None = None  # criterion of the stage's best weights

    def to_json(self) -> dict[str, Any]:
        return vars(self).copy()


def run_stage(
    stage: Stage,
    options: Options,
    task: Task,
    agent: DTRAM,
    run: RunFolder,
    progress: Progress,
    interrupt: Interrupt,
    restore: bool,
) -> None:
    """Trains one stage to its end, or raises SystemExit after saving when a signal came."""
    optimizer = torch.optim.AdamW(
        stage.parameters(),
        lr=stage.learning_rate,
        weight_decay=options.weight_decay,
        betas=(0.9, 0.99),
        fused=True,
    )
    if restore:
        run.load_checkpoint(agent, optimizer)
    images = len(task.images("train"))
    batches = images // stage.batch_size
    if batches < 1:
        raise ValueError(f"batch of {stage.batch_size}: larger than the split, {images} images")

    while progress.epoch < stage.epochs:
        agent.train()
        order = epoch_order(options.seed, progress.stage, progress.epoch, images).to(task.device)
        sums, count = torch.zeros(6, device=task.device, dtype=torch.float64), 0
        bar = tqdm(
            total=batches,
            initial=progress.batch,
            unit="batch",
            leave=False,
            disable=None,
            desc=f"{stage.name} epoch {progress.epoch + 1}/{stage.epochs}",
        )
        began, first_batch = time.perf_counter(), progress.batch
        for batch in range(progress.batch, batches):
            share = (progress.epoch * batches + batch) / (stage.epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * one_cycle(share)
            rows = order[batch * stage.batch_size : (batch + 1) * stage.batch_size]
            losses = stage.loss(rows)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            nn.utils.clip_grad_norm_(stage.parameters(), options.max_grad_norm)
            optimizer.step()
            sums += torch.stack(
                [
                    losses.total.detach(),
                    losses.policy,
                    losses.baseline,
                    losses.accuracy,
                    losses.mean_glimpses,
                    losses.mean_return,
                ]
            )
            count += 1
            progress.batch, progress.images = batch + 1, progress.images + len(rows)
            bar.update()
            if count % 50 == 0:
                mean = (sums / count).tolist()
                rate = count * stage.batch_size / (time.perf_counter() - began)
                bar.set_postfix_str(
                    f"error {100 * (1 - mean[3]):.2f} %, glimpses {mean[4]:.2f}, "
                    f"{rate:,.0f} images/s"
                )
            if interrupt.signal is not None:
                bar.close()
                progress.seconds += time.perf_counter() - began
                run.save_checkpoint(progress.images, agent, optimizer, progress.to_json())
                stop_for(interrupt, run, options)
        bar.close()
        progress.seconds += time.perf_counter() - began
        rate = (batches - first_batch) * stage.batch_size / (time.perf_counter() - began)

        verdict = stage.judge()
        if progress.best is None or list(verdict.criterion) < progress.best:
            progress.best = list(verdict.criterion)
            agent.stopping = LearnedStop(verdict.threshold)
            agent.save(run.path, env_id=options.env_id, env_options=task.env_options)
        mean = (sums / max(count, 1)).tolist()
        entries = {
            "train/loss": mean[0],
            "train/policy_gradient_loss": mean[1],
            "train/value_loss": mean[2],
            "rollout/success_rate": mean[3],
            "rollout/ep_len_mean": mean[4],
            "rollout/ep_rew_mean": mean[5],
            "train/learning_rate": optimizer.param_groups[0]["lr"],
            "time/fps": rate,
            "time/time_elapsed": progress.seconds,
            **verdict.metrics,
        }
        run.log(progress.images, entries)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        print(
            f"{stage.name} {progress.epoch}/{stage.epochs}: "
            f"train error {100 * (1 - mean[3]):.2f} % at {mean[4]:.2f} glimpses, "
            f"validation error {100 * (1 - verdict.metrics['eval/accuracy']):.2f} % "
            f"at {verdict.metrics['eval/mean_glimpses']:.2f}, {rate:,.0f} images/s, "
            f"{progress.seconds:.0f} s",
            flush=True,
        )
        run.save_checkpoint(progress.images, agent, optimizer, progress.to_json())
        if interrupt.signal is not None:
            stop_for(interrupt, run, options)


def epoch_order(seed: int, stage: int, epoch: int, images: int) -> torch.Tensor:
    """The order of the training images in an epoch: a function of these numbers alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + stage * 10_007 + epoch)
    return torch.randperm(images, generator=generator)


def one_cycle(share: float) -> float:
    """Learning rate relative to its peak after a share of the stage: 15 % up, then cosine to 0."""
    if share < 0.15:
        return 0.04 + 0.96 * share / 0.15
    return max(1e-3, 0.5 * (1 + math.cos(math.pi * (share - 0.15) / 0.85)))


def stop_for(interrupt: Interrupt, run: RunFolder, options: Options) -> None:
    """Says how to go on, and leaves with the signal's usual exit status."""
    assert interrupt.signal is not None
    run.close()
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if options.run_dir is None:
        words += ["--run-dir", str(run.path)]
    print(
        f"\n{interrupt.signal.name}: saved. To go on: python train/reinforce.py "
        f"{' '.join(words)} --resume",
        file=sys.stderr,
    )
    raise SystemExit(128 + interrupt.signal)


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    run_dir = options.run_dir or Path(
        "runs", options.env_id, f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}"
    )
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    task = Task(options.env_id, device, **options.env_options())
    agent = task.new_agent(
        encoder=options.encoder,
        core=options.core,
        hidden_size=options.hidden_size,
        locator_input=options.locator_input,
        stopper_input=options.stopper_input,
    )
    stages = make_stages(options, task, agent)
    run = RunFolder(run_dir, options.to_json(), options.resume)
    if (run_dir / "results.json").exists():
        print(f"{run_dir}: finished already")
        print((run_dir / "results.txt").read_text(), end="")
        run.close()
        return run_dir

    progress, restore = Progress(), False
    saved = run.latest_state()
    if saved is not None:
        for name in vars(progress):
            setattr(progress, name, saved[name])
        run.rewind(progress.images)
        restore = True
        print(f"{run_dir}: continuing after {progress.images:,} images")
    with Interrupt() as interrupt:
        while progress.stage < len(stages):
            name, make = stages[progress.stage]
            if restore:
                run.load_weights(agent)  # a stage may compute from the trunk when it is made
            run_stage(make(), options, task, agent, run, progress, interrupt, restore)
            restore = False
            agent.load_state_dict(DTRAM.load(run.path, device).state_dict())
            progress.stage, progress.epoch, progress.batch = progress.stage + 1, 0, 0
            progress.best = None
            run.writer.add_image(
                f"glimpses/{name}",
                glimpse_pictures(task, agent, "validation"),
                progress.images,
                dataformats="HWC",
            )

    agent = DTRAM.load(run.path, device)
    about = {
        "options": options.to_json(),
        "train_seconds": round(progress.seconds, 1),
        "images_seen": progress.images,
        **provenance(device),
    }
    results = report(run_dir, task, agent, about)
    run.log_hyperparameters(
        options.to_json(),
        {
            "hparam/test_error": results["test_error"],
            "hparam/mean_glimpses": results["mean_glimpses"],
        },
    )
    write_json(run_dir / "results.json", results)
    run.drop_checkpoints()
    run.close()
    print((run_dir / "results.txt").read_text(), end="")
    return run_dir


def main() -> None:
    """The command line."""
    try:
        train(tyro.cli(Options, description=__doc__))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

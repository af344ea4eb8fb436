"""Trains DT-RAM: looks, stops and answers, on any registered environment.

    python train/reinforce.py                               # MNIST, under 10 minutes on 2 CPU cores
    python train/reinforce.py --env-id DTRAM-Signpost-v0 --locator-grid 6 --m 8  # needs no data
    python train/reinforce.py --env-id DTRAM-BirdsSmall-v0 --encoder cnn    # drawn birds
    python train/reinforce.py --env-id DTRAM-CUB-v0 --encoder resnet50 --backbone-weights DEFAULT
    python train/reinforce.py --stop off --run-dir runs/ram # RAM, a fixed number of glimpses
    python train/reinforce.py --trunk runs/ram             # DT-RAM on it; --stop act: ACT
    python train/reinforce.py --stop joint --stop-gradient reinforce  # all in one stage
    python train/reinforce.py --run-dir runs/mine --resume  # goes on where it was interrupted

First the trunk learns to look and answer with a fixed number of glimpses (RAM), then the stopper
learns on the frozen trunk (``--stop after``), or all learn together (``--stop joint``). Validation
chooses the weights and the stop threshold; the test split is looked at once, at the end.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.dtram import DTRAM
from agents.encoders import GlimpseResNet
from agents.halting.act import HaltingRAM
from agents.loading import load_agent
from agents.objective import Objective
from agents.precision import tell_of_bf16
from agents.resnet import RESNETS
from train.common.backbone import backbone_scale, prepare_backbone
from train.common.options import check
from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, read_json, run_program
from train.common.training_task import Task
from train.dtram.halting import HaltingStage
from train.dtram.loop import Loop, Progress
from train.dtram.options import Options
from train.dtram.report import glimpse_pictures, report
from train.dtram.stages import Stage, StopperStage, UnrollStage


def make_stages(options: Options, task: Task, agent: DTRAM) -> list[tuple[str, Any]]:
    """The stages in order, as (name, function that makes it); one is made when it begins."""
    o, augment = options, options.augmentation()
    fixed = Objective(
        discount=task.discount,
        stop="off",
        baseline=o.baseline,
        supervision=o.supervision,
        location_reward=o.location_reward or "mean_prob",
        location_entropy=o.location_entropy,
        glimpse_only_weight=o.glimpse_only_weight,
        glimpse_only_reward=o.glimpse_only_reward,
    )
    learned = Objective(
        discount=task.discount,
        baseline=o.baseline,
        stop_gradient=o.stop_gradient,
        supervision=o.supervision,
        stop_entropy=o.stop_entropy,
        location_entropy=o.location_entropy if o.stop == "joint" else 0.0,
        glimpse_only_weight=o.glimpse_only_weight if o.stop == "joint" else 0.0,
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
            scan_epochs=o.scan_epochs,
            location_entropy_last=o.location_entropy_last,
            locator_learning_rate=o.locator_learning_rate,
            bf16=o.bf16 and o.encoder not in RESNETS,  # those do it themselves
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
    if o.trunk is None:
        fits = o.batch_size <= images
        check("batch_size", o.batch_size, fits, f"at most {images}, the training images")
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
        return agent_on_trunk(options, task), "trunk"
    config: dict[str, Any] = {
        "encoder": options.encoder,
        "core": options.core,
        "locator_input": options.locator_input,
        "locator_hidden": options.locator_hidden,
        "locator_grid": options.locator_grid,
        "stopper_input": options.stopper_input,
        "stopper_prior": options.stop_prior,
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


def agent_on_trunk(options: Options, task: Task) -> DTRAM:
    """An agent with a trained one's trunk and an untrained stopper and baseline.

    Raises:
        FileNotFoundError: there is no model in the trunk's folder.
        ValueError: its run is not finished, or it was made for another environment.
    """
    folder = options.trunk
    assert folder is not None
    if (folder / "options.json").exists() and not (folder / "results.json").exists():
        raise ValueError(f"--trunk {folder}: expected a finished run; results.json is missing")
    trained = load_agent(folder, task.device)
    for name in ("env_id", "look"):
        made, wanted = (about.get(name) for about in (trained.about, task.about))
        made, wanted = (
            str(v).rpartition(":")[2] if name == "env_id" else v for v in (made, wanted)
        )
        if name in trained.about and made != wanted:
            way_out = f"; add --env-id {made}" if name == "env_id" else ""
            raise ValueError(
                f"--trunk {folder}: was made for {made}, the environment has {wanted}{way_out}"
            )
    trained.check_spaces(task.observation_space, task.action_space, task.max_glimpses)
    kind = HaltingRAM if options.stop == "act" else DTRAM
    config = replace(trained.config, stopper_prior=options.stop_prior)
    agent = kind(config, class_names=trained.class_names).to(task.device)
    trunk, untrained = trained.state_dict(), agent.state_dict()
    heads = {name for name in trunk if name.split(".")[0] in ("stopper", "baseline")}
    agent.load_state_dict(trunk | {name: untrained[name] for name in heads})
    resnets = [encoder for encoder in agent.encoders() if isinstance(encoder, GlimpseResNet)]
    read = bool(resnets) or not options.bf16
    check("bf16", options.bf16, read, "not given: the trunk's encoder is no resnet")
    for encoder in resnets:
        encoder.bf16 = options.bf16
    return agent.eval()


def origin_of(folder: Path) -> dict[str, Any]:
    """How a trunk was made, from its run's results; empty if it has none.

    Of a stop that was learned on a trunk it is that trunk's.
    """
    for place in (folder, folder.parent.parent):  # a run's folder, or that of one of its stages
        if (place / "results.json").exists():
            found = read_json(place / "results.json")
            if found.get("trunk"):
                return dict(found["trunk"])
            kept = ("command", "commit", "date", "versions", "hardware", "train_seconds", "options")
            found = {name: found.get(name) for name in kept}
            return found | {"weights_sha256": read_json(folder / "model.json")["weights_sha256"]}
    return {}


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    device = choose_device(options.device)
    origin = provenance(device)
    if options.bf16:
        tell_of_bf16(device.type)
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
            "trunk": None if options.trunk is None else origin_of(options.trunk),
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

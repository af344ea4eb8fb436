"""Trains a one-look network: it sees the whole image once, shrunk, and answers.

    python train/one_look.py                                              # MNIST, fully connected
    python train/one_look.py --encoder conv
    python train/one_look.py --env-id DTRAM-BirdsSmall-v0 --like runs/birds   # DT-RAM's compute
    python train/one_look.py --env-id DTRAM-BirdsSmall-v0 --encoder cnn --side 0  # full resolution
    python train/one_look.py --env-id DTRAM-BirdsSmall-v0 --encoder resnet34 --resnet-width 16 \\
      --side 0 --halting sact                     # as many residual units as each position needs
    python train/one_look.py --env-id DTRAM-CUB-v0 --encoder resnet50 --backbone-weights DEFAULT \\
      --side 224 --optimizer sgd --learning-rate 0.01 --scale-crop 0.25 1 --colour 0.4 --flip

Validation chooses the weights; the test split is looked at once, at the end.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.backbone_weights import load_backbone
from agents.config import config_from_json, read_header
from agents.halting.act import ponder_cost_loss
from agents.halting.act_resnet import ACTConfig, ACTOutput, ACTResNet
from agents.halting.sact import SACTResNet
from agents.objective import Losses, supervised_losses
from agents.one_look import OneLook, OneLookConfig, one_look_flops, side_of_flops
from agents.precision import tell_of_bf16
from agents.resnet import RESNETS, learning_parameters
from train.common.backbone import backbone_scale, prepare_backbone
from train.common.evaluate_one_look import answers_and_rate, draw_ponder, halting_of, look_at_all
from train.common.options import (
    AugmentOptions,
    NetworkOptions,
    OptimizerOptions,
    TaskOptions,
    check,
    check_ranges,
)
from train.common.provenance import choose_device, provenance
from train.common.run import Interrupt, RunFolder, read_json, run_program
from train.common.training_task import Task
from train.dtram.loop import Loop, Progress
from train.dtram.report import percent
from train.dtram.stages import NEVER, Stage, Verdict

# What of an environment's keywords says which images there are; the others are of glimpses.
OF_IMAGES = ("image_size", "crop_to_box", "num_classes", "num_train", "num_test", "root")


@dataclass(frozen=True)
class Options(OptimizerOptions, AugmentOptions, NetworkOptions, TaskOptions):
    """Trains a one-look network on a registered environment's images."""

    side: int | None = None
    """pixels a side that the whole image is shrunk to; 0: its own shorter side; if not given, the
    environment's first look at the whole, or the image's own where it has none"""
    flops: float | None = None
    """takes the side at which an image costs that many floating-point operations, or the next more
    that there are"""
    like: Path | None = None
    """folder of a finished DT-RAM: takes its encoder, and its mean floating-point operations as
    --flops unless --side or --flops is given"""
    hidden_size: int | None = None
    """width of the code; 256, or a resnet's own width, if not given"""
    decay_norms: bool = False
    """whether weight decay takes in norms and biases"""
    halting: Literal["none", "act", "sact"] = "none"
    """a resnet's blocks halt after as many units as the image needs (act), or each position of it
    (sact)"""
    ponder_cost: float = 0.005
    """with --halting: what a residual unit costs, in nats"""

    epochs: int = 30
    """passes over the training split"""
    batch_size: int = 96
    """images a batch"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""

    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/one-look_DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one; a finished run prints its result"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.hidden_size is not None:
            check("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        if self.side is not None:
            check("side", self.side, self.side >= 0, "0 or more")
            check("flops", self.flops, self.flops is None, "none beside --side")
        if self.flops is not None:
            check("flops", self.flops, self.flops > 0, "a positive number")
        check_ranges(
            self,
            ("learning_rate", "max_grad_norm"),
            ("weight_decay", "augment", "elastic", "colour", "lighting"),
        )
        self.check_network()
        if self.encoder not in RESNETS:
            check("bf16", self.bf16, not self.bf16, "not given, unless --encoder is a resnet")
        check_ranges(self, (), ("ponder_cost",))
        if self.halting == "none":
            default = type(self).__dataclass_fields__["ponder_cost"].default
            known = self.ponder_cost == default
            check("ponder_cost", self.ponder_cost, known, "not given, without --halting")
        else:
            check("halting", self.halting, self.encoder in RESNETS, "with --encoder resnet…")
            for name in ("flops", "like"):
                value = getattr(self, name)
                check(name, value, value is None, "none beside --halting")
            for name in ("bf16", "frozen_norms"):
                check(name, True, not getattr(self, name), "not given beside --halting")
        check("seed", self.seed, 0 <= self.seed < 2**31, "0 or more, below 2**31")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def to_json(self) -> dict[str, Any]:
        """The options that define the run: all but where it lies and how it was called."""
        values = asdict(self)
        for name in ("classifier", "root", "like"):
            if values[name] is not None:
                values[name] = str(values[name])
        if self.scale_crop is not None:
            values["scale_crop"] = list(self.scale_crop)
        for name in ("run_dir", "resume", "data_dir", "device"):
            del values[name]
        return values


class OneLookStage(Stage):
    """The one stage: cross-entropy of what is said of the shrunk images.

    Args:
        task: the images.
        network: what learns.
        options: of the run.
    """

    name = "one-look"
    env_steps_first = 0

    def __init__(self, task: Task, network: OneLook | ACTResNet, options: Options) -> None:
        self.epochs, self.batch_size = options.epochs, options.batch_size
        self.learning_rate = options.learning_rate
        self.env_steps_per_batch = options.batch_size  # a look counts as a glimpse
        self._task, self._network = task, network
        self._ponder_cost = options.ponder_cost
        self._side = network.config.image_shape[0]
        self._augment = options.augmentation() if options.changes_images else None
        self._train = task.images("train")
        self.images = len(self._train)
        self.batches = self.images // self.batch_size

    def parameters(self) -> list[nn.Parameter]:
        return learning_parameters(self._network)

    def loss(self, rows: Tensor) -> Losses:
        said, labels = self._network(self._seen(rows)), self._train.labels[rows]
        if isinstance(said, ACTOutput):
            logits = said.logits
            loss = ponder_cost_loss(logits, labels, said.ponder, self._ponder_cost)
        else:
            logits = said
            loss = cross_entropy(logits, labels)
        correct = (logits.detach().argmax(-1) == labels).float().mean()
        losses = supervised_losses(loss, correct, 1, self._task.discount)
        return losses._replace(cross_entropy=cross_entropy(logits.detach(), labels))

    def judge(self) -> Verdict:
        images = self._task.images("validation")
        logits = look_at_all(self._network, images)
        error = float((logits.argmax(-1) != images.labels).double().mean())
        loss = float(cross_entropy(logits, images.labels))
        metrics = {
            "eval/accuracy": 1 - error,
            "eval/cross_entropy": loss,
            "eval/mean_glimpses": 1.0,
        }
        criterion = error, loss
        if isinstance(self._network, ACTResNet):
            ponder = halting_of(self._network, images)["ponder"]
            metrics["eval/ponder"] = ponder
            criterion = loss + self._ponder_cost * ponder, error
        return Verdict(criterion, NEVER, metrics)

    def _seen(self, rows: Tensor) -> Tensor:
        """Training images ``(B, s, s, C)``: changed at random as they are, then shrunk."""
        if self._augment is None:
            return self._train.store.thumbnail(rows, self._side)
        store = self._task.augmented(self._train, rows, self._augment)
        return store.thumbnail(torch.arange(len(rows), device=rows.device), self._side)


def new_network(options: Options, task: Task) -> tuple[OneLook | ACTResNet, str]:
    """An untrained network, and where its backbone's weights come from; seeds torch's generator."""
    config, flops = network_config(options, task)
    if options.side is not None:
        side = options.side or own_side(task)
    elif flops is not None:
        side = side_of_flops(config, flops)
    elif task.look.first_glimpse == "thumbnail":
        side = task.look.thumbnail_size or task.look.glimpse_size
    else:
        side = own_side(task)
    torch.manual_seed(options.seed)
    if config.resnet is None or options.halting == "none":
        network = OneLook(config.at(side), task.class_names).to(task.device)
        return network, prepare_backbone([network.encoder], options)
    kind = {"act": ACTResNet, "sact": SACTResNet}[options.halting]
    settings = ACTConfig(
        len(task.class_names),
        config.resnet,
        side,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )
    halting = kind(settings, task.class_names)
    return halting.to(task.device), load_backbone(halting.trunk, options.backbone_weights)


def network_config(options: Options, task: Task) -> tuple[OneLookConfig, float | None]:
    """What the network is made of, its side apart; and how many FLOPs it shall have, if given."""
    encoder, resnet = str(options.encoder), options.resnet(task.channels)
    hidden, flops, made_for = options.hidden_size, options.flops, 0
    if options.like is not None:
        header, results = _read_like(options.like, task)
        made = config_from_json(header["config"])
        own = made.resnet and replace(made.resnet, channels=task.channels)
        said = (encoder, resnet) != ("mlp", None)
        agrees = not said or (encoder, resnet) == (made.encoder, own)
        expected = f"{made.encoder} with the options of {options.like}; or leave them out"
        check("encoder", encoder, agrees, expected)
        encoder, resnet = made.encoder, own
        made_for = made.glimpse_shape[0] if encoder == "cnn" else 0
        hidden, flops = hidden or made.hidden_size, flops or results["mean_flops"]
    scale: dict[str, Any] = backbone_scale(options.backbone_weights, task)
    if not scale:
        scale = dict(zip(("pixel_mean", "pixel_std"), task.pixel_scale(), strict=True))
    any_side = 64  # that every encoder takes
    config = OneLookConfig(
        len(task.class_names),
        (any_side, any_side, task.channels),
        encoder,
        resnet,
        made_for,
        hidden or (256 if resnet is None else resnet.out_features),
        options.frozen_norms,
        **scale,
    )
    return config, flops


def _read_like(run_dir: Path, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """A DT-RAM's ``model.json`` and ``results.json``; ValueError unless it is this task's."""
    header = read_header(run_dir)
    if not (run_dir / "results.json").exists():
        raise ValueError(f"--like {run_dir}: expected a finished run, results.json is missing")
    name, wanted = (str(e).rpartition(":")[2] for e in (task.env_id, header.get("env_id")))
    check("env_id", name, name == wanted, f"{wanted}, as --like {run_dir}")
    options = header.get("env_options", {})
    for name in OF_IMAGES:
        value, theirs = task.env_options.get(name), options.get(name)
        expected = "not given" if theirs is None else str(theirs)
        check(name, value, value == theirs, f"{expected}, as --like {run_dir}")
    return header, read_json(run_dir / "results.json")


def own_side(task: Task) -> int:
    """The images' own shorter side, in pixels; its median if they differ."""
    return min(task.images("train").data.typical_size)


def report(
    folder: Path, task: Task, network: OneLook | ACTResNet, about: dict[str, Any]
) -> dict[str, Any]:
    """Looks at the test split once, and writes ``results.txt`` and ``test_images.safetensors``.

    Args:
        folder: of the run.
        task: what was learned.
        network: as chosen on validation.
        about: further values of the result (options, provenance).

    Returns:
        The results, ready for JSON; errors in percent.
    """
    images, validation = task.images("test"), task.images("validation")
    prediction, rate = answers_and_rate(network, images)
    error = float((prediction != images.labels).double().mean())
    validated = look_at_all(network, validation).argmax(-1)
    side = network.config.image_shape[0]
    if isinstance(network, ACTResNet):
        cost = halting_of(network, images)
        draw_ponder(folder, network, images)
    else:
        cost = {"flops": one_look_flops(network)}
    results = {
        "env_id": task.env_id,
        "env_options": task.env_options,
        "dataset": task.dataset,
        "split": "test",
        "images": len(images),
        "test_error": percent(error),
        "validation": {"error": percent(float((validated != validation.labels).double().mean()))},
        "encoder": about["options"]["encoder"]
        if isinstance(network, ACTResNet)
        else network.config.encoder,
        "side": side,
        "parameters": sum(p.numel() for p in network.parameters()),
        **cost,
        "images_per_second": round(rate),
        **about,
    }
    aside = folder / "test_images.safetensors.tmp"
    save_file({"prediction": prediction.to(torch.int32).cpu()}, aside)
    os.replace(aside, folder / "test_images.safetensors")
    (folder / "results.txt").write_text(in_words(results))
    return results


def in_words(results: dict[str, Any]) -> str:
    """The results as text."""
    side, hardware = results["side"], results["hardware"]
    halting = ""
    if "units" in results:
        pairs = zip(results["units"], results["units_of_each_block"], strict=True)
        halting = (
            f"residual units taken in each block: {', '.join(f'{n:.2f} of {m}' for n, m in pairs)}"
            f"; ponder cost {results['ponder']:.2f}\n"
        )
    return (
        f"{results['env_id']}: {results['dataset']}, {results['split']} split, "
        f"{results['images']:,} images, one deterministic pass\n"
        f"one look at the image of {side}x{side} pixels, {results['encoder']}: "
        f"test error {results['test_error']:.2f} %\n"
        f"{halting}"
        f"{results['parameters']:,} parameters, {results['flops'] / 1e6:.3f} MFLOP an image, "
        f"{results['images_per_second']:,} images/s; trained in {results['train_seconds']:.0f} s "
        f"on {hardware['device']} ({hardware['processor']}, {hardware['cpu_threads']} threads)\n"
    )


def train(options: Options) -> Path:
    """Trains, evaluates and reports; returns the run's folder."""
    device = choose_device(options.device)
    origin = provenance(device)
    if options.bf16:
        tell_of_bf16(device.type)
    task = Task(options.env_id, device, **options.env_options())
    if task.classifier is not None:
        raise ValueError(
            f"--env-id {options.env_id}: a frozen classifier answers there; expected the id of the "
            "whole task, without 'Policy'"
        )
    network, backbone = new_network(options, task)
    count, batch = len(task.images("train")), options.batch_size
    check("batch_size", batch, batch <= count, f"at most {count}, the split")
    run_dir = options.run_dir or Path(
        "runs",
        task.env_id.rpartition(":")[2],
        f"one-look_{time.strftime('%Y-%m-%d_%H-%M-%S')}_seed{options.seed}",
    )
    side = network.config.image_shape[0]
    # As it came out: what --like names may change, and the run is not to go on with another side.
    settings = options.to_json() | {"side": side}
    run = RunFolder(run_dir, settings, options.resume, device)
    if run.finished:
        print(f"{run_dir}: finished already")
        show(run_dir)
        return run_dir
    print(f"images seen at {side}x{side}")
    # Training images that change are shrunk anew each time.
    shrunk = ("validation", "test") if options.changes_images else ("train", "validation", "test")
    for data in (task.images(split).data for split in shrunk):
        if data.image_shape[:2] != (side, side):
            data.prepare(side)

    with Interrupt() as interrupt:
        progress = fit(options, task, network, run, interrupt)
        about = {
            "options": settings,
            "train_seconds": round(progress.seconds, 1),
            "validation_seconds": round(progress.validation_seconds, 1),
            "images_seen": progress.images,
            "backbone": backbone,
            **origin,
        }
        results = report(run_dir, task, network, about)
        run.log_hyperparameters(settings, {"hparam/test_error": results["test_error"]})
        run.finish(results)
    show(run_dir)
    return run_dir


def fit(
    options: Options, task: Task, network: OneLook | ACTResNet, run: RunFolder, interrupt: Interrupt
) -> Progress:
    """Trains to the end, from where the run is; the network then has the best weights."""
    progress, saved = Progress(), run.latest_state()
    if saved is not None:
        progress.restore(saved)
        print(f"{run.path}: continuing after {progress.images:,} images")
    run.rewind(progress.images)
    loop = Loop(
        task,
        network,
        run,
        progress,
        interrupt,
        seed=options.seed,
        how=options,
        program="train/one_look.py",
    )
    loop.run_stage(lambda: OneLookStage(task, network, options), restore=saved is not None)
    return progress


def show(run_dir: Path) -> None:
    """Prints the result of a finished run."""
    print((run_dir / "results.txt").read_text(), end="")
    print(f"model and results: {run_dir}")


if __name__ == "__main__":
    run_program(lambda: train(tyro.cli(Options, description=__doc__)))

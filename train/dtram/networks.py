"""The network that a run trains: a new one, or a new stopper on a trained trunk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agents.config import FirstLookOptions
from agents.cores import MapOptions, RNNCell
from agents.dtram import DTRAM
from agents.encoders import GlimpseResNet
from agents.files import STOP_PARTS
from agents.halting.act import HALTING
from agents.loading import load_agent
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.unroll import GlimpseSensor, Unroll
from train.common.backbone import load_classifier, pixel_scale, prepare_backbone
from train.common.files import read_json
from train.common.options import Encoder, PlainEncoder, ResNetEncoder, check
from train.common.records import ORIGIN
from train.common.run import has_results
from train.common.training_task import TrainingTask, read_task
from train.dtram.options import (
    ACT,
    DIGIT_SCAN,
    RNN,
    Cells,
    Core,
    Gaussian,
    Locator,
    Map,
    Scan,
    Stop,
    StopByValue,
    StopJoint,
    StopOff,
    Values,
)

RESULTS_OF_THE_TRUNK = (*ORIGIN, "train_seconds", "validation_seconds", "env_steps", "options")
"""Entries that a stopper's results copy from its trunk's."""


def new_agent(
    task: TrainingTask,
    encoder: Encoder,
    core: Core,
    locator: Locator,
    stop: Stop,
    bf16: bool,
    seed: int,
) -> tuple[DTRAM, str]:
    """An untrained agent, and the source of its backbone's weights; seeds torch's generator.

    On a policy-only id its network is that of the frozen classifier, and `encoder` the default.
    """
    torch.manual_seed(seed)
    expected = "no value on a policy-only id: DT-RAM has the network of the frozen classifier"
    check("encoder", encoder, not task.classifier or encoder == PlainEncoder(), expected)
    config: dict[str, Any] = {
        "locator_input": locator.gradient,
        "locator_hidden": locator.hidden,
        "locator_grid": (locator.grid or 7) if isinstance(locator, Cells | Values) else 0,
        "scan": DIGIT_SCAN[: task.max_glimpses - 1] if isinstance(locator, Scan) else (),
        **stopper_settings(stop),
    }
    if isinstance(locator, Gaussian):
        config |= {"location_squash": locator.squash, "location_bound": locator.bound}
    if isinstance(core, Map):
        side, glimpse = task.image_size, task.sensor.glimpse_size
        fits = side is not None and task.channels == 1 and task.sensor.first_glimpse != "thumbnail"
        expected = "grey images of one size, and a first glimpse that is no thumbnail"
        check("core", f"map on {task.env_id}", fits, expected)
        assert side is not None
        later, expected = task.max_glimpses - 1, f"at most {len(DIGIT_SCAN) + 1} glimpses"
        fits = not isinstance(locator, Scan) or later <= len(DIGIT_SCAN)
        check("locator", f"scan with {later + 1} glimpses", fits, expected)
        cells, cell = core.sides(side, glimpse)
        expected = f"a divisor of the glimpse's {glimpse} pixels"
        check("core", f"map cell={cell}", glimpse % cell == 0, expected)
        if isinstance(locator, Cells | Values):
            config["locator_grid"] = locator.grid or cells // 2
        config |= {
            "core": core.name,
            "answer": core.answer,
            "hidden_size": 8 * core.width,
            "map": MapOptions(
                extent=glimpse / side,
                glimpse_cells=glimpse // cell,
                cells=cells,
                window=core.window,
                width=core.width,
                pool=core.pool,
                dropout=core.dropout,
            ),
        }
    elif isinstance(locator, Values):
        side, sensor = task.image_size, task.sensor
        fits = side is not None and sensor.first_glimpse == "thumbnail"
        expected = "a map, or a thumbnail of images with a known shorter side"
        check("locator", f"values on {task.env_id}", fits, expected)
        assert side is not None
        thumbnail = sensor.thumbnail_size or sensor.glimpse_size
        sides = [s for s in range(4, 65, 4) if thumbnail % s == 0]
        check("env thumbnail_size", thumbnail, bool(sides), "a multiple of 4")
        quarter = sides[-1] // 4
        grid = locator.grid or 2 * quarter
        expected = f"a multiple of {quarter} with this thumbnail"
        check("locator grid", grid, grid % quarter == 0, expected)
        config["locator_grid"] = grid
        config["first_look"] = FirstLookOptions(sensor.glimpse_size / side, sides[-1])
    if isinstance(encoder, ResNetEncoder):
        resnet = encoder.resnet(task.channels * task.sensor.num_scales)
        config |= {
            "resnet": resnet,
            "hidden_size": resnet.out_features,
            "frozen_norms": encoder.frozen_norms,
            "per_step": encoder.per_step,
            "location_embedding": not encoder.per_step,
            "answer": "first_plus_mean" if encoder.per_step else "state",
        }
    if task.classifier is None:
        config |= {"encoder": encoder.name, **pixel_scale(encoder, task)}
    agent = task.new_agent(**config)
    if isinstance(core, RNN) and core.init is not None:
        for name, parameter in agent.named_parameters():
            if name.partition(".")[0] not in STOP_PARTS:
                nn.init.uniform_(parameter, -core.init, core.init)
    source = prepare_backbone(agent.encoders(), encoder, bf16)
    own = task.classifier is None and agent.config.answer == "state"
    if own and load_classifier(agent.classifier, encoder, agent.class_names):
        begin_without_memory(agent)
    return agent, source


def begin_without_memory(agent: DTRAM) -> None:
    """Makes h_t depend on the pixels of glimpse t alone, until more is learned."""
    assert isinstance(agent.core, RNNCell)
    nn.init.zeros_(agent.core.recurrent.weight)
    for encoder in agent.encoders():
        if isinstance(encoder, GlimpseResNet) and encoder.where is not None:
            assert isinstance(encoder.where, nn.Sequential)
            for parameter in encoder.where[-1].parameters():
                nn.init.zeros_(parameter)


def stopper_settings(stop: Stop) -> dict[str, Any]:
    """The fields of `DTRAMConfig` that make the stopper; RAM has one that it does not use."""
    if isinstance(stop, StopOff | ACT):
        stop = StopJoint()
    return {
        "stopper_input": stop.into if isinstance(stop, StopJoint) else "detached",
        "stopper_evidence": stop.reads == "answer",
        "stopper_hidden": stop.hidden,
        "stopper_prior": "none" if isinstance(stop, StopByValue) else stop.prior,
    }


def agent_on_trunk(folder: Path, task: TrainingTask, stop: Stop, bf16: bool, seed: int) -> DTRAM:
    """An agent with the trunk of a trained one, and an untrained stopper and baseline."""
    torch.manual_seed(seed)
    if (folder / "options.json").exists() and not has_results(folder):
        raise ValueError(f"--trunk {folder}: expected a finished run; results.json is missing")
    trained = load_agent(folder, task.device)
    about = {**task.metadata, **trained.about}
    if "env_id" in trained.about:
        read_task(trained.about, folder / "model.json")
    made, wanted = (name.rpartition(":")[2] for name in (about["env_id"], task.env_id))
    message = f"--trunk {folder}: was made for"
    if made != wanted:
        raise ValueError(f"{message} {made}, the environment is {wanted}; add --env-id {made}")
    if about["sensor"] != (wanted := task.metadata["sensor"]):
        raise ValueError(
            f"{message} {about['sensor']}, the environment has {wanted}; give the same --env"
        )
    trained.check_spaces(task.observation_space, task.action_space, task.max_glimpses)
    kind = next((one for one in HALTING if HALTING[one] is type(trained)), type(trained))
    if isinstance(stop, ACT):
        check("stop", stop.name, kind in HALTING, f"after with a {trained.KIND}")
        kind = HALTING[kind]
    config = replace(trained.config, **stopper_settings(stop))
    agent = kind(config, class_names=trained.class_names).to(task.device)
    trunk, untrained = trained.state_dict(), agent.state_dict()
    heads = {name for name in trunk if name.partition(".")[0] in STOP_PARTS}
    agent.load_state_dict(trunk | {name: untrained[name] for name in heads})
    resnets = [encoder for encoder in agent.encoders() if isinstance(encoder, GlimpseResNet)]
    check("bf16", bf16, bool(resnets) or not bf16, "no value: the trunk's encoder is no resnet")
    for encoder in resnets:
        encoder.bf16 = bf16
    return agent.eval()


def new_unroll(
    agent: DTRAM, sensor: GlimpseSensor, locator: Locator, stops: bool, bf16: bool
) -> Unroll | MapUnroll:
    """What samples an agent's trajectories, and with `stops` their ends, to learn from."""
    bf16 = bf16 and agent.config.resnet is None  # a ResNet casts itself
    if isinstance(agent, MapDTRAM):
        return MapUnroll(agent, sensor, bf16)
    std = locator.std if isinstance(locator, Gaussian) else 1.0  # cells: unused
    unroll = Unroll(agent, sensor, std, stops, bf16)
    unroll.within_cell = isinstance(locator, Values)
    return unroll


def origin_of_trunk(folder: Path) -> dict[str, Any]:
    """How a trunk was made, from its run's results (for a stopper: its own trunk's), if any."""
    for run in (folder, folder.parent.parent):  # a run's folder, or that of one of its stages
        if has_results(run):
            results = read_json(run / "results.json")
            if results.get("trunk"):
                return dict(results["trunk"])
            digest = read_json(folder / "model.json")["weights_sha256"]
            copied = {name: results.get(name) for name in RESULTS_OF_THE_TRUNK}
            return copied | {"weights_sha256": digest}
    return {}

"""Device faults without a GPU: training steps on tensors that have a device and no data.

On a fake ``cuda`` device a mix of devices is an error, and so is every read of a value by the host;
it has no backward pass. On ``meta`` the whole step runs.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
)

from agents.dtram import DTRAM
from agents.objective import hybrid_loss
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.unroll import Trajectory, Unroll
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.tensors import FlatStore, HostStore, TensorStore
from tests.dtram_env.datasets.trees import make_folder
from train.common.augment import Augmentation
from train.common.optimizers import Optimizers
from train.common.options import ResNetEncoder
from train.common.training_task import Images, TrainingTask
from train.dtram.networks import new_agent
from train.dtram.options import StopJoint, Values
from train.dtram.recipes import RECIPES
from train.reinforce import Options

CPU = torch.device("cpu")
FEW, BATCH, GLIMPSES = 12, 8, 3


@contextmanager
def device_without_data(name: str) -> Iterator[torch.device]:
    """``"cuda"`` with fake tensors, or ``"meta"``."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # fake tensors have none
            if name == "cuda":
                stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            else:
                # Neither of them knows the device.
                patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
                adamw = torch.optim.AdamW
                patch.setattr(torch.optim, "AdamW", lambda p, fused, **k: adamw(p, **k))
            yield torch.device(name)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keywords of an environment of photographs of several sizes."""
    root = tmp_path_factory.mktemp("photos")
    make_folder(root)
    sizes = {"image_size": 64, "thumbnail_size": 48, "glimpse_size": 32, "max_glimpses": 3}
    return {"root": str(root), "data_dir": str(tmp_path_factory.mktemp("data")), **sizes}


@pytest.fixture(scope="module")
def open_task(folder: dict[str, Any]):
    """Makes the task of an id, each once."""
    made: dict[str, TrainingTask] = {}

    def task(env_id: str) -> TrainingTask:
        if env_id not in made:
            keywords = folder if env_id == "DTRAM-ImageFolder-v0" else {}
            made[env_id] = TrainingTask(env_id, CPU, **keywords)
        return made[env_id]

    return task


def moved(task: TrainingTask, device: torch.device) -> tuple[TrainingTask, Images]:
    """A task on a device without data, and its training images there."""
    images = task.images("train")
    labels = images.labels[:FEW].to(device)
    if isinstance(images.store, TensorStore):
        few = images.store.images[:FEW].to(device)
        store: Any = TensorStore(few, images.store.margin)
    else:
        assert isinstance(images.store, HostStore) and isinstance(images.store.store, MappedStore)
        store = FlatStore(images.store.store, device)
    there = copy.copy(task)
    there.device = device
    return there, replace(images, store=store, labels=labels)


def options_of(name: str, **changes: Any) -> Options:
    """A recipe's options, with a small network in place of a large one."""
    options = {k: v for k, v in RECIPES[name].items() if k not in ("env_id", "env", "curriculum")}
    if isinstance(encoder := options.get("encoder"), ResNetEncoder):
        small = replace(encoder, name="resnet10", width=8, weights="none", frozen_norms=False)
        options |= {"encoder": small}
        if isinstance(options["locator"], Values):
            options |= {"locator": replace(options["locator"], grid=12)}
    if options.get("augment", Augmentation()).compose:  # see the test of the composer
        options |= {"augment": replace(options["augment"], compose=False)}
    return Options(**{"recipe": name, **options, **changes})


def agent_of(task: TrainingTask, options: Options) -> DTRAM:
    """A new agent on the CPU."""
    made = (options.encoder, options.core, options.locator, options.stop, options.bf16)
    return new_agent(task, *made, options.seed)[0]


def step(task: TrainingTask, options: Options, agent: DTRAM, device: torch.device) -> None:
    """A whole training step of the trunk; on a fake device, up to the loss."""
    there, images = moved(task, device)
    agent = agent.to(device)
    joint = isinstance(options.stop, StopJoint)
    unroll: MapUnroll | Unroll
    if isinstance(agent, MapDTRAM):
        unroll = MapUnroll(agent, there.sensor, options.bf16)
    else:
        unroll = Unroll(agent, there.sensor, 0.1, joint, options.bf16)
    objective, m = options.objective(0.98), options.m
    parameters = [p for p in agent.parameters() if p.requires_grad]
    indices = torch.randperm(len(images), device=device)[:BATCH]
    store, in_store = there.augmented(images, indices, options.augment)
    trajectory = unroll(store, in_store, GLIMPSES, m)
    losses = hybrid_loss(trajectory, images.labels[indices], m, objective, agent.scalar_baseline)
    assert losses.total.device.type == device.type and losses.total.shape == ()
    if device.type == "meta":
        optimizers = Optimizers(agent, parameters, 9, options.learning_rate, options.optimizer)
        optimizers.zero_grad()
        losses.total.backward()
        optimizers.clip_gradient()
        optimizers.step()


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_step_of_every_recipe(open_task, recipe: str, device: str) -> None:
    resnet = isinstance(RECIPES[recipe].get("encoder"), ResNetEncoder)
    env_id = "DTRAM-ImageFolder-v0" if resnet else "DTRAM-Signpost-v0"
    options = options_of(recipe, bf16=device == "cuda" and RECIPES[recipe].get("bf16", False))
    task = open_task(env_id)
    agent = agent_of(task, options)
    with device_without_data(device) as there:
        step(task, options, agent, there)


def test_a_tensor_left_on_the_host_is_found(open_task) -> None:
    task, options = open_task("DTRAM-Signpost-v0"), options_of("mnist-conv")
    agent = agent_of(task, options)
    left = agent._buffers.pop("cell_centres")
    agent.cell_centres = left  # no longer a buffer: it does not follow the module
    with device_without_data("cuda") as there, pytest.raises(RuntimeError, match="two devices"):
        step(task, options, agent, there)


def test_a_read_by_the_host_is_found(open_task, monkeypatch: pytest.MonkeyPatch) -> None:
    task, options, loss = open_task("DTRAM-Signpost-v0"), options_of("mnist"), hybrid_loss
    agent = agent_of(task, options)

    def waits(trajectory: Trajectory, labels: Tensor, *args: Any) -> Any:
        assert labels.max().item() < 4
        return loss(trajectory, labels, *args)

    monkeypatch.setitem(globals(), "hybrid_loss", waits)
    with device_without_data("cuda") as there, pytest.raises(DataDependentOutputException):
        step(task, options, agent, there)

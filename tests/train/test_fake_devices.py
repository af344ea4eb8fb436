"""Device faults without a GPU: training on tensors that have a device and no data.

Where there is a GPU, the same steps run on it.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.nn.functional import cross_entropy

from agents.dtram import DTRAM
from agents.halting.act import ponder_cost_loss
from agents.halting.act_resnet import ACTOutput
from agents.objective import Objective, hybrid_loss
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.unroll import Trajectory, Unroll, classify, score
from dtram_env.datasets.sources.cluttered import COMPOSITIONS
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.tensors import FlatStore, HostStore, TensorStore
from tests.dtram_env.datasets.trees import make_folder
from tests.fake_devices import NoCopies, device_without_data
from train.common.augment import Augmentation
from train.common.clutter import Composer
from train.common.compiled import changing, compiled
from train.common.one_look_networks import HaltingBlocks, NoHalting, new_network
from train.common.optimizers import Optimizers
from train.common.options import ResNetEncoder
from train.common.training import learn_only
from train.common.training_task import Images, TrainingTask
from train.dtram.curriculum import stage_parameters
from train.dtram.frozen_states import FrozenStates
from train.dtram.networks import new_agent
from train.dtram.options import ACT, AfterTrunk, Cells, StopAfter, StopByValue, StopJoint, Values
from train.dtram.recipes import RECIPES
from train.reinforce import Options

CPU = torch.device("cpu")
FEW, BATCH, GLIMPSES = 12, 8, 3


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
    task.sensor.make_tables(store, labels[:1])
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


def update(network: nn.Module, loss: Tensor, options: Options) -> None:
    """The gradient and the optimizer's step; a fake device has no backward pass."""
    assert loss.shape == ()
    if not isinstance(loss, FakeTensor):
        parameters = list(network.parameters())
        optimizers = Optimizers(network, parameters, 9, options.learning_rate, options.optimizer)
        optimizers.zero_grad()
        loss.backward()
        optimizers.clip_gradient()
        optimizers.step()


def step(task: TrainingTask, options: Options, agent: DTRAM, device: torch.device) -> None:
    """A whole training step of the trunk; on a fake device, up to the loss."""
    there, images = moved(task, device)
    agent = agent.to(device)
    with NoCopies() if device.type == "cuda" else nullcontext():
        steps(there, images, options, agent)


def steps(
    task: TrainingTask,
    images: Images,
    options: Options,
    agent: DTRAM,
    progress: Sequence[float] = (0.0,),
    compile: bool = False,
) -> None:
    """Training steps of the trunk, when these shares of the epochs are done."""
    device, joint = task.device, isinstance(options.stop, StopJoint)
    unroll: MapUnroll | Unroll
    if isinstance(agent, MapDTRAM):
        unroll = MapUnroll(agent, task.sensor, options.bf16)
    else:
        unroll = Unroll(agent, task.sensor, 0.1, joint, options.bf16)
    sample, loss = compiled(unroll, compile, device), compiled(hybrid_loss, compile, device)
    for share in progress:
        objective, m = options.objective(0.98), options.m
        if isinstance(options.locator, Values):
            unroll.exploration = changing(options.locator.exploration_at(share), device)
        elif isinstance(options.locator, Cells):
            entropy = changing(options.locator.entropy_at(share), device)
            objective = replace(objective, location_entropy=entropy)
        indices = torch.randperm(len(images), device=device)[:BATCH]
        store, in_store = task.augmented(images, indices, options.augment)
        trajectory = sample(store, in_store, GLIMPSES, m)
        losses = loss(trajectory, images.labels[indices], m, objective, agent.scalar_baseline)
        assert losses.total.device.type == device.type
        update(agent, losses.total, options)


def task_of(recipe: str) -> str:
    """The id of the small task on which the tests train a recipe."""
    resnet = isinstance(RECIPES[recipe].get("encoder"), ResNetEncoder)
    return "DTRAM-ImageFolder-v0" if resnet else "DTRAM-Signpost-v0"


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_step_of_every_recipe(open_task, recipe: str, device: str) -> None:
    options = options_of(recipe, bf16=device == "cuda" and RECIPES[recipe].get("bf16", False))
    task = open_task(task_of(recipe))
    agent = agent_of(task, options)
    with device_without_data(device) as there:
        step(task, options, agent, there)


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_a_policy_only_step(open_task, mnist_folder: Path, device: str) -> None:
    task, options = open_task("DTRAM-MNIST-Policy-v0"), options_of("mnist", bf16=False)
    agent = agent_of(task, options)
    task.images("train")  # read before tensors lose their data
    learn_only(agent, stage_parameters(agent, options.objective(0.98), GLIMPSES, 0, answers=False))
    with device_without_data(device) as there:
        step(task, options, agent, there)
    learned = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert learned == (set() if device == "cuda" else {"locator.weight", "locator.bias"})


COMPILED = ("talk", "mnist-conv", "mnist-map", "birds-small")


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler reads it
@pytest.mark.parametrize("recipe", COMPILED)
def test_a_compiled_step_is_whole_and_compiled_once(
    open_task, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile = torch.compile

    def traced(part: Any, mode: str | None, dynamic: bool) -> Any:
        return compile(part, backend="eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    task, options = open_task(task_of(recipe)), options_of(recipe, bf16=False)
    agent = agent_of(task, options)
    with device_without_data("meta") as there:
        there_too, images = moved(task, there)
        with torch._dynamo.config.patch(error_on_recompile=True):
            steps(there_too, images, options, agent.to(there), (0.1, 0.2), compile=True)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_on_a_gpu_waits_for_nothing(open_task, recipe: str) -> None:
    task, options = open_task(task_of(recipe)), options_of(recipe)
    there, images = moved(task, torch.device("cuda"))
    agent = agent_of(task, options).to(there.device)
    steps(there, images, options, agent)  # libraries begin, and wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(there, images, options, agent)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(p).all() for p in agent.parameters())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("recipe", COMPILED)
def test_compiled_steps_on_a_gpu(open_task, recipe: str) -> None:
    task, options = open_task(task_of(recipe)), options_of(recipe)
    there, images = moved(task, torch.device("cuda"))
    agent = agent_of(task, options).to(there.device)
    before = [p.detach().clone() for p in agent.encoder.parameters()]
    steps(there, images, options, agent, (0.1, 0.2, 0.3, 0.4), compile=True)
    assert all(torch.isfinite(p).all() for p in agent.parameters())
    learned = zip(before, agent.encoder.parameters(), strict=True)
    assert not before or any(not torch.equal(old, new) for old, new in learned)


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize(
    "augment",
    [
        Augmentation(affine=1.0, elastic=0.5, flip=True),
        Augmentation(colour=0.4, lighting=0.1),
        Augmentation(scale_crop=(0.3, 1.0)),
    ],
)
def test_augmentation_of_images_of_any_size(open_task, augment: Augmentation, device: str) -> None:
    with device_without_data(device) as there:
        task, images = moved(open_task("DTRAM-ImageFolder-v0"), there)
        indices = torch.randperm(len(images), device=there)[:BATCH]
        store, in_store = task.augmented(images, indices, augment)
        assert store.thumbnail(in_store, 16).device.type == device
        centre = torch.zeros(len(indices), 2, device=there)
        assert task.sensor(store, in_store, centre).device.type == device


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("dataset", COMPOSITIONS)
def test_digits_composed_anew(dataset: str, device: str) -> None:
    with device_without_data(device) as there:
        digits = torch.zeros(FEW, 28, 28, 1, dtype=torch.uint8, device=there)
        composer = Composer(dataset, digits)
        images = composer(torch.randperm(FEW, device=there), Augmentation(elastic=0.5))
        assert images.device.type == device and len(images) == FEW


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize(
    "stop", [StopAfter(), StopAfter(gradient="reinforce"), StopByValue(), ACT()]
)
def test_a_step_of_every_stopper(open_task, stop: AfterTrunk, device: str) -> None:
    task = open_task("DTRAM-Signpost-v0")
    options = options_of("mnist")
    agent = agent_of(task, options)
    with device_without_data(device) as there:
        agent = agent.to(there)
        states = FrozenStates(
            torch.zeros(GLIMPSES, FEW, agent.config.hidden_size, device=there),
            torch.zeros(GLIMPSES, FEW, agent.config.num_classes, device=there),
            torch.zeros(FEW, dtype=torch.int64, device=there),
        )
        indices = torch.randperm(FEW, device=there)[:BATCH]
        if isinstance(stop, ACT):
            losses = states.act_losses(agent, indices, stop.ponder_cost, 0.98)
        elif isinstance(stop, StopByValue):
            losses = states.gain_losses(agent, indices, 0.98)
        else:
            objective = Objective(
                stop="learned",
                location_reward="return",
                baseline="value",
                stop_gradient=stop.gradient,
                stop_entropy=stop.entropy,
            )
            trajectory, labels = states.trajectory(agent, indices), states.labels[indices]
            losses = hybrid_loss(trajectory, labels, 1, objective, agent.scalar_baseline)
        update(agent, losses.total, options)


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("halting", [NoHalting(), HaltingBlocks("act"), HaltingBlocks("sact")])
def test_a_step_of_one_look(open_task, halting: Any, device: str) -> None:
    task = open_task("DTRAM-ImageFolder-v0")
    encoder = ResNetEncoder("resnet18", width=8)
    network, _ = new_network(task, encoder, halting, side=32, bf16=False, seed=0)
    with device_without_data(device) as there:
        network = network.to(there)
        output = network(torch.zeros(BATCH, 32, 32, 3, dtype=torch.uint8, device=there))
        labels = torch.zeros(BATCH, dtype=torch.int64, device=there)
        if isinstance(output, ACTOutput):
            loss = ponder_cost_loss(output.logits, labels, output.ponder, 0.01)
        else:
            loss = cross_entropy(output, labels)
        update(network, loss, Options())


def test_scores_wait_for_nothing(open_task) -> None:
    task = open_task("DTRAM-Signpost-v0")
    agent = agent_of(task, options_of("mnist-conv"))
    with device_without_data("cuda") as there:
        _, images = moved(task, there)
        found = score(agent.to(there).eval(), task.sensor, images.store, images.labels)
        assert {part.device.type for part in found} == {"cuda"}


def test_classify_waits_only_to_drop_stopped_images(open_task) -> None:
    task = open_task("DTRAM-Signpost-v0")
    agent = agent_of(task, options_of("mnist-conv"))
    with device_without_data("cuda") as there:
        _, images = moved(task, there)
        index = torch.arange(FEW, device=there)
        with pytest.raises(DynamicOutputShapeException) as caught:
            classify(agent.to(there).eval(), task.sensor, images.store, index)
    line = [frame for frame in caught.traceback if frame.path.name == "unroll.py"][-1]
    assert "running[stops]" in str(line.statement)


def test_a_tensor_left_on_the_host_is_found(open_task) -> None:
    task, options = open_task("DTRAM-Signpost-v0"), options_of("mnist-conv")
    agent = agent_of(task, options)
    left = agent._buffers.pop("cell_centres")
    agent.cell_centres = left  # no longer a buffer: it does not follow the module
    with device_without_data("cuda") as there, pytest.raises(RuntimeError, match="two devices"):
        step(task, options, agent, there)


@pytest.mark.parametrize(
    ("wait", "error", "message"),
    [
        (lambda labels: labels.new_tensor([0.5]), AssertionError, "new_tensor"),  # a copy
        (lambda labels: labels.max().item(), DataDependentOutputException, None),
    ],
)
def test_what_the_host_waits_for_is_found(
    open_task,
    monkeypatch: pytest.MonkeyPatch,
    wait: Any,
    error: type[Exception],
    message: str | None,
) -> None:
    task, options, loss = open_task("DTRAM-Signpost-v0"), options_of("mnist"), hybrid_loss
    agent = agent_of(task, options)

    def waits(trajectory: Trajectory, labels: Tensor, *args: Any) -> Any:
        wait(labels)
        return loss(trajectory, labels, *args)

    monkeypatch.setitem(globals(), "hybrid_loss", waits)
    with device_without_data("cuda") as there, pytest.raises(error, match=message):
        step(task, options, agent, there)

"""The torch backend: equal to numpy on the CPU; on a GPU the same, without waiting for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dtram_env import GlimpseVectorEnv, sensor, sensor_torch
from dtram_env.datasets import Dataset
from dtram_env.datasets.drawn import BIRDS
from dtram_env.datasets.storage import tensors
from dtram_env.datasets.storage.cache import build_cache
from dtram_env.datasets.storage.drawn_store import DrawnStore
from dtram_env.datasets.storage.mapped import MappedStore
from dtram_env.datasets.storage.store import ArrayStore, Pictures
from dtram_env.datasets.storage.tensors import FlatStore, HostStore, TensorStore
from dtram_env.sensor_torch import TorchStore

from .conftest import (
    MODES,
    TALLY,
    TOY,
    VIEWS,
    actions_of,
    assert_same,
    on_tensors,
    task_id,
)

CPU = torch.device("cpu")
DRAWING = replace(BIRDS, image_size=96, num_classes=10, num_train=9, num_test=5)


RANDOM_FIRST = [{"first_glimpse": "random"}, {"first_glimpse": "random", "classifier": TALLY}]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["random", pytest.param("sequential", marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", [*VIEWS, *RANDOM_FIRST], ids=task_id)
def test_torch_equals_numpy(task: dict[str, Any], order: str, mode: str) -> None:
    compare_backends(TOY, {"order": order, **task}, mode)


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("task", RANDOM_FIRST, ids=task_id)
def test_more_steps_than_a_block_of_random_numbers(task: dict[str, Any], order: str) -> None:
    compare_backends(TOY, {"order": order, **task}, "NextStep", steps=80)


# Images of different sizes have no canvas.
STARTS: list[dict[str, Any]] = [
    {"first_glimpse": "center", "num_scales": 3},
    {"first_glimpse": "random"},
    {"first_glimpse": "thumbnail", "num_scales": 2},
    {"first_glimpse": "thumbnail", "thumbnail_size": 6},
    {"first_glimpse": "choose", "view": "discrete", "mask_seen": True},
    {"first_glimpse": "thumbnail", "classifier": TALLY},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", STARTS, ids=task_id)
def test_images_of_different_sizes_and_their_metadata(
    task: dict[str, Any], mode: str, ragged: Dataset
) -> None:
    compare_backends(ragged, task, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", STARTS[2:5], ids=task_id)
def test_images_on_the_device_or_left_on_the_host(
    task: dict[str, Any], mode: str, ragged: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where images of any size are copied to it."""
    assert isinstance(ragged.images, MappedStore)
    flat = FlatStore(ragged.images, CPU)
    monkeypatch.setattr(tensors, "make_store", lambda *_: flat)
    compare_backends(ragged, task, mode)


@pytest.mark.parametrize("view", ["native", "discrete"])
def test_drawn_images_and_their_metadata(view: str) -> None:
    layout = DRAWING.layout("train")
    metadata = {"part_boxes": layout.part_boxes, "discriminative": layout.discriminative}
    store, names = DrawnStore(DRAWING, "train"), DRAWING.class_names
    data = Dataset("Drawn", "train", store, DRAWING.labels("train"), names, metadata, drawn=True)
    shown = {"view": view, "observe": "canvas" if view == "discrete" else "glimpse"}
    compare_backends(data, {"first_glimpse": "thumbnail", **shown}, "SameStep")


def compare_backends(data: Dataset, task: dict[str, Any], mode: str, steps: int = 12) -> None:
    """Runs one environment on each backend side by side, with the same actions."""
    task = {"glimpse_size": 4, "max_glimpses": 3, "discount": 0.9, **task}
    common = {"num_envs": 7, "autoreset_mode": mode, **task}
    host = GlimpseVectorEnv(data, **common)
    device = GlimpseVectorEnv(data, backend="torch", device="cpu", **common)
    assert host.observation_space == device.observation_space
    expected, host_infos = host.reset(seed=3)
    observation, infos = device.reset(seed=3)
    assert all(isinstance(value, torch.Tensor) for value in observation.values())
    assert_same(observation, expected)
    assert_same(infos, host_infos)
    for action in actions_of(host, steps):
        observation, reward, over, cut, infos = device.step(on_tensors(action))
        expected, paid, ended, _, host_infos = host.step(action)
        assert_same(observation, expected)
        assert_same(reward, paid.astype(np.float32))
        assert_same(over, ended)
        assert cut.dtype == torch.bool and not cut.any()
        compare_infos(infos, host_infos)
        if mode == "Disabled":
            assert_same(
                device.reset(options={"reset_mask": over})[0],
                host.reset(options={"reset_mask": ended})[0],
            )


def compare_infos(tensors: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Equal where a mask is set. Tensors have every key, arrays only those that a slot has."""
    for key, mask in arrays.items():
        if not key.startswith("_"):
            continue
        name = key[1:]
        assert_same(tensors[key], mask)
        if name == "final_info":
            compare_infos(tensors[name], arrays[name])
        elif name == "final_obs":
            for i in np.flatnonzero(mask):
                row = {k: value[i] for k, value in tensors[name].items()}
                assert_same(row, arrays[name][i])
        else:
            found = tensors[name].numpy()
            assert found.dtype == arrays[name].dtype
            np.testing.assert_array_equal(found[mask], arrays[name][mask])
    for key in set(tensors) - set(arrays):
        mask = tensors[key if key.startswith("_") else f"_{key}"]
        assert not mask.any(), f"{key}: a slot has it on tensors only"


# --- Stores


def compare_stores(numpy: Any, stores: list[TorchStore], most: int) -> None:
    """Windows in and beyond the images, thumbnails and glimpses, bit for bit."""
    rng = np.random.default_rng(0)
    count = len(numpy)
    for side in (1, 4, most + 3):
        index = rng.integers(0, count, 40)
        top, left = rng.integers(-side - 2, most + 3, (2, 40))
        location = rng.uniform(-1.1, 1.1, (40, 2)).astype(np.float32)
        location[:5] = [[-1, -1], [1, 1], [-1, 1], [0, 0], [1 / 3, -1 / 3]]
        crops = numpy.crop(index, top, left, side)
        small = numpy.thumbnail(index, side)
        seen = sensor.glimpse(numpy, index, location, side, 2)
        rows = torch.from_numpy(index)
        for store in stores:
            assert len(store) == count and store.channels == numpy.channels  # type: ignore[arg-type]
            assert_same(dict(enumerate(map(np.asarray, store.size(rows)))), sizes_of(numpy, index))
            assert_same(
                store.crop(rows, torch.from_numpy(top), torch.from_numpy(left), side), crops
            )
            assert_same(store.thumbnail(rows, side), small)
            assert_same(
                sensor_torch.glimpse(store, rows, torch.from_numpy(location), side, 2), seen
            )


def sizes_of(numpy: Any, index: np.ndarray) -> dict[int, np.ndarray]:
    return dict(enumerate(map(np.asarray, numpy.size(index))))


def test_stores_of_images_of_different_sizes_are_one(ragged: Dataset) -> None:
    mapped = ragged.images
    assert isinstance(mapped, MappedStore)
    for images in (mapped, mapped.select(np.array([5, 1, 22, 5]))):
        flat = FlatStore(images, CPU)
        compare_stores(images, [flat, HostStore(images, CPU)], 20)
        with pytest.raises(ValueError, match="the images differ in size"):
            flat.whole(torch.tensor([0, 1]))


def test_a_padded_batch_is_one_of_them(ragged: Dataset) -> None:
    """Images of different sizes, each at the top left of one padded batch, as in training."""
    images = ragged.images
    assert isinstance(images, MappedStore)
    index = np.arange(len(images))
    height, width = map(np.asarray, images.size(index))
    zero, sizes = np.zeros_like(index), np.stack([height, width], axis=1)
    pixels = images.crop(index, zero, zero, 20)
    padding = sensor.margin(23, 2)
    batch = TensorStore(torch.from_numpy(pixels), padding, torch.from_numpy(sizes))
    rng = np.random.default_rng(0)
    for side in (1, 4, 23):
        location = rng.uniform(-1, 1, (len(index), 2)).astype(np.float32)
        seen = sensor_torch.glimpse(
            batch, torch.from_numpy(index), torch.from_numpy(location), side, 2
        )
        assert_same(seen, sensor.glimpse(images, index, location, side, 2))
        assert_same(batch.thumbnail(torch.from_numpy(index), side), images.thumbnail(index, side))


def test_stores_of_images_of_one_size_are_one(tmp_path: Path) -> None:
    mapped = build_cache(tmp_path / "a", DrawnStore(DRAWING, "test"), [4])
    drawn, arrays = DrawnStore(DRAWING, "test"), DRAWING.draw_many("test", range(5))
    every: list[Pictures] = [mapped, drawn]
    flat, padding = FlatStore(mapped, CPU), sensor.margin(99, 3)
    stores: list[TorchStore] = [
        flat,
        TensorStore(torch.from_numpy(arrays), padding),
        *(HostStore(store, CPU) for store in every),
    ]
    compare_stores(mapped, stores, 96)
    rows = torch.tensor([4, 0, 4])
    for store in stores:
        assert_same(store.whole(rows), arrays[[4, 0, 4]])
    # And on numpy, where an ArrayStore's windows must lie inside its margin.
    index, location = np.arange(5), np.float32([[0, 0], [1, -1], [0.2, 0.9], [-1, -1], [1, 1]])
    expected = sensor.glimpse(ArrayStore(arrays, padding), index, location, 30, 2)
    for images in every:
        assert_same(sensor.glimpse(images, index, location, 30, 2), expected)
        one = sensor.glimpse(images, index[2:3], location[2:3], 30, 2)
        assert_same(one, expected[2:3])


def test_which_store_holds_what(ragged: Dataset) -> None:
    arrays = tensors.make_store(TOY, 4, CPU)
    mapped = tensors.make_store(ragged, 4, CPU)
    assert isinstance(arrays, TensorStore) and isinstance(mapped, HostStore)
    assert mapped.on_host and not arrays.on_host
    assert isinstance(ragged.images, MappedStore) and not FlatStore(ragged.images, CPU).on_host


def test_a_host_store_reads_only_what_is_shown(
    ragged: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first glimpse reads thumbnails only, later ones crops only, and of active slots only."""
    read: dict[str, list[int]] = {"crop": [], "thumbnail": []}
    for name, real in (("crop", MappedStore.crop), ("thumbnail", MappedStore.thumbnail)):

        def noted(self: Any, index: Any, *rest: Any, name: str = name, real: Any = real) -> Any:
            read[name] += index.tolist()
            return real(self, index, *rest)

        monkeypatch.setattr(MappedStore, name, noted)
    for backend in ("numpy", "torch"):
        env = GlimpseVectorEnv(
            ragged, num_envs=3, glimpse_size=4, first_glimpse="thumbnail", backend=backend
        )
        env.reset(options={"image_index": np.array([7, 0, 9])})
        assert read == {"crop": [], "thumbnail": [7, 0, 9]}
        action = {"location": np.zeros((3, 2), np.float32), "prediction": np.zeros(3, np.int64)}
        read["thumbnail"].clear()
        env.step({**action, "stop": np.array([0, 1, 0])})
        # The slot that stopped shows its first glimpse again.
        assert read == {"crop": [7, 9], "thumbnail": [0]}
        infos = env.step({**action, "stop": np.array([0, 0, 0])})[4]
        assert read == {"crop": [7, 9] * 2, "thumbnail": [0, int(infos["image_index"][1])]}
        read["crop"].clear()
        read["thumbnail"].clear()


# --- Waiting for the device


def test_torch_does_not_validate_unless_asked() -> None:
    quiet = GlimpseVectorEnv(TOY, num_envs=2, glimpse_size=4, backend="torch")
    strict = GlimpseVectorEnv(
        TOY, num_envs=2, glimpse_size=4, backend="torch", validate_actions=True
    )
    action = {
        "location": torch.zeros(2, 2),
        "stop": torch.tensor([0, 1]),
        "prediction": torch.tensor([0, 99]),
    }
    for env in (quiet, strict):
        env.reset(seed=0)
    assert quiet.step(action)[1].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"action\['prediction'\]\[1\] = 99"):
        strict.step(action)
    with pytest.raises(
        ValueError, match=r"'stop'\] .* shape \(3,\): expected numbers of shape \(2,\)"
    ):
        quiet.step({**action, "stop": torch.zeros(3)})
    with pytest.raises(ValueError, match="99 is out of range"):
        strict.reset(options={"image_index": torch.tensor([0, 99])})


class WaitCounter(TorchDispatchMode):
    """Counts the operations for which the host waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waiting = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
        self.waits += func.overloadpacket.__name__ in waiting
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("view", ["native", "continuous", "discrete", "single"])
def test_validation_waits_for_the_device_once_a_step(view: str, mode: str) -> None:
    common: dict[str, Any] = {"num_envs": 4, "glimpse_size": 4, "max_glimpses": 2, "view": view}
    if view == "single":
        common["classifier"] = TALLY
    for validate, expected in ((False, 0), (True, 1)):
        env = GlimpseVectorEnv(
            TOY, backend="torch", validate_actions=validate, autoreset_mode=mode, **common
        )
        pool = actions_of(env, 12)
        env.reset(seed=0)
        for action in pool:
            given = on_tensors(action)
            with WaitCounter() as counter:
                env.step(given)
            assert counter.waits == expected
        if mode == "Disabled":  # by now all slots rest: their actions are not checked
            nonsense = torch.utils._pytree.tree_map(lambda x: torch.full_like(x, 99), given)
            with WaitCounter() as counter:
                env.step(nonsense)
            assert counter.waits == expected
        images = {"image_index": torch.tensor([0, 22, 5, 5])}
        with WaitCounter() as counter:
            env.reset(options=images)
        assert counter.waits == expected


def test_an_unchecked_nan_location_is_the_centre() -> None:
    env = GlimpseVectorEnv(TOY, num_envs=3, glimpse_size=4, backend="torch")
    env.reset(options={"image_index": np.array([22, 0, 7])})
    location = torch.tensor([[np.nan, 0.4], [np.nan, np.nan], [np.inf, -np.inf]])
    observation = env.step(
        {"location": location, "stop": torch.zeros(3), "prediction": torch.zeros(3)}
    )[0]
    glimpse = observation["glimpse"].numpy()
    # 14x10 images, centre (5, 7); y = 0.4 is row 9.8, and the crop begins at floor(8.3) = 8.
    np.testing.assert_array_equal(glimpse[0], TOY.images[22, 8:12, 3:7])
    np.testing.assert_array_equal(glimpse[1], TOY.images[0, 5:9, 3:7])
    expected = np.zeros((4, 4, 1))
    expected[2:, :2] = TOY.images[7, :2, 8:]  # infinities are clipped: the top right corner
    np.testing.assert_array_equal(glimpse[2], expected)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", VIEWS, ids=task_id)
def test_a_gpu_is_never_waited_for_and_gives_the_same(task: dict[str, Any], mode: str) -> None:
    compare_devices(TOY, task, mode)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", STARTS[:5], ids=task_id)
def test_nor_for_images_of_different_sizes(
    task: dict[str, Any], mode: str, ragged: Dataset
) -> None:
    cuda = torch.device("cuda")
    assert isinstance(tensors.make_store(ragged, 4, cuda), FlatStore)
    compare_devices(ragged, task, mode)


def compare_devices(data: Dataset, task: dict[str, Any], mode: str) -> None:
    task = {"glimpse_size": 4, "max_glimpses": 3, "num_envs": 7, "autoreset_mode": mode, **task}
    host = GlimpseVectorEnv(data, backend="torch", **task)
    device = GlimpseVectorEnv(data, backend="torch", device="cuda", **task)
    pool = actions_of(host, 70)
    host.reset(seed=0)
    device.reset(seed=0)
    expected, seen = [], []
    on_device = [torch.utils._pytree.tree_map(torch.Tensor.cuda, on_tensors(a)) for a in pool]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for action in on_device:
            observation, reward, over, _, _ = device.step(action)
            seen.append((observation, reward, over))
            if mode == "Disabled":
                device.reset(options={"reset_mask": over})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for action in pool:
        observation, reward, over, _, _ = host.step(action)
        expected.append((observation, reward, over))
        if mode == "Disabled":
            host.reset(options={"reset_mask": over})
    for (observation, reward, over), (obs, rew, end) in zip(seen, expected, strict=True):
        assert_same({key: value.cpu() for key, value in observation.items()}, to_numpy(obs))
        torch.testing.assert_close(reward.cpu(), rew)
        assert (over.cpu() == end).all()


def to_numpy(observation: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in observation.items()}

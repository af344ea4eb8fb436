"""Array backends of the vector environment: numpy on the host, or torch tensors on a device.

The rules, views and observations are written once for both. numpy and torch share most function
names (`where`, `int64`, ...), which a backend offers as `xp`; its methods cover the differences.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from . import sensor
from .datasets import Dataset
from .optional import require


class Backend:
    """The numpy backend, and the interface of both; `TorchBackend` overrides what differs."""

    xp: Any = np  # the array library
    boolean: Any = np.bool_
    reward_dtype: Any = np.float64
    sensor: Any = sensor  # the module that takes glimpses
    # Whether reading values is free. False for torch on every device: reading would wait for a GPU,
    # and the CPU runs the same code.
    on_host = True

    def __init__(
        self, data: Dataset, glimpse_size: int, num_scales: int, device: Any = "cpu"
    ) -> None:
        self._data, self._glimpse_size, self._num_scales = data, glimpse_size, num_scales
        self.device = device
        self._store = self._make_store(sensor.margin(glimpse_size, num_scales))
        self._reads_all = False  # whether reading unneeded images is cheaper than selecting
        self.labels = self.array(data.labels)  # ``(N,)`` int64, of all images
        # Arrays ``(N, …)`` by name: what `info` reports about each image.
        self.metadata = {name: self.array(values) for name, values in data.metadata.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data, self._glimpse_size, self._num_scales, self.device)

    def _make_store(self, margin: int) -> Any:
        return self._data.store(margin)

    def array(self, values: np.ndarray) -> Any:
        """A host array as an array of this backend, without waiting for the device."""
        return values

    def asarray(self, values: Any) -> Any:
        """A user's array, tensor, list or number as an array of this backend, without gradient.

        Raises `ValueError` or `TypeError` if it cannot be one.
        """
        return host_array(values)

    def full(self, shape: int | tuple[int, ...], value: Any, dtype: Any) -> Any:
        """A new array filled with `value`."""
        return np.full(shape, value, dtype)

    def copy(self, values: Any) -> Any:
        """A copy that the user may change."""
        return values.copy()

    def cast(self, values: Any, dtype: Any) -> Any:
        """`values` as `dtype`; the same array if it has that type already."""
        return values.astype(dtype, copy=False)

    def kind(self, values: Any) -> str:
        """numpy's letter for the items' type: "f", "i" (or "u"), "b", or another."""
        return values.dtype.kind

    def divide(self, values: Any, by: int) -> Any:
        """``values / by`` in float32, correctly rounded on every device."""
        return np.true_divide(values, by, dtype=np.float32)

    def select(self, mask: Any, new: Any, old: Any) -> Any:
        """`new` ``(n, ...)`` in the slots of `mask` ``(n,)``, `old` (or a number) in the others."""
        return self.xp.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    def glimpse(self, index: Any, location: Any, needed: Any | None = None) -> Any:
        """Glimpses ``(n, g, g, C * num_scales)`` uint8; see `sensor.glimpse`.

        Slots outside `needed` ``(n,)`` bool (None: all are needed) may get any values.
        """
        store, size, scales = self._store, self._glimpse_size, self._num_scales
        return self._read(
            lambda slots: self.sensor.glimpse(store, index[slots], location[slots], size, scales),
            needed,
            (len(index), size, size, store.channels * scales),
        )

    def thumbnail(self, index: Any, side: int, needed: Any | None = None) -> Any:
        """Whole images shrunk to ``(n, side, side, C)`` uint8; `needed` as for `glimpse`."""
        shape = (len(index), side, side, self._store.channels)
        return self._read(lambda slots: self._store.thumbnail(index[slots], side), needed, shape)

    def images(self, index: Any) -> Any:
        """Whole images ``(n, H, W, C)`` uint8; all images must have one size."""
        if isinstance(self._data.images, np.ndarray):
            return self._data.images[index]
        return np.stack([self._data.image(i) for i in index])

    def _read(self, read: Callable[[Any], Any], needed: Any | None, shape: tuple[int, ...]) -> Any:
        if needed is None or self._reads_all or needed.all():
            return read(...)
        out = self.full(shape, 0, self.xp.uint8)
        if needed.any():
            out[needed] = read(needed)
        return out


class TorchBackend(Backend):
    """Tensors on any `torch.device`; raises `ValueError` if torch cannot use it here."""

    on_host = False

    def __init__(self, data: Dataset, glimpse_size: int, num_scales: int, device: Any) -> None:
        self.xp = torch = require("torch", "train")
        from . import sensor_torch

        self.boolean, self.reward_dtype, self.sensor = torch.bool, torch.float32, sensor_torch
        try:
            device = torch.device(device)
            torch.empty(0, device=device)
        except (AssertionError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"device={device!r}: expected 'cpu', or another device that torch can "
                f"use here; torch says: {str(error).splitlines()[0]}"
            ) from None
        super().__init__(data, glimpse_size, num_scales, device)
        self._reads_all = not self._store.on_host

    def _make_store(self, margin: int) -> Any:
        from .datasets.storage import tensors

        return tensors.make_store(self._data, margin, self.device)

    def array(self, values: np.ndarray) -> Any:
        from .datasets.storage.tensors import send

        return send(values, self.device)

    def asarray(self, values: Any) -> Any:
        if not isinstance(values, self.xp.Tensor):
            values = self.array(host_array(values))
        # torch compares no larger unsigned integers.
        larger = (self.xp.uint16, self.xp.uint32, self.xp.uint64)
        dtype = self.xp.int64 if values.dtype in larger else values.dtype
        return values.detach().to(self.device, dtype)

    def full(self, shape: int | tuple[int, ...], value: Any, dtype: Any) -> Any:
        shape = (shape,) if isinstance(shape, int) else shape
        return self.xp.full(shape, value, dtype=dtype, device=self.device)

    def copy(self, values: Any) -> Any:
        return values.clone()

    def cast(self, values: Any, dtype: Any) -> Any:
        return values.to(dtype)

    def kind(self, values: Any) -> str:
        if values.is_floating_point():
            return "f"
        if values.dtype == self.boolean:
            return "b"
        return "c" if values.is_complex() else "i"

    def divide(self, values: Any, by: int) -> Any:
        # On a GPU torch multiplies by the reciprocal of a Python number, which rounds once more.
        return values.to(self.xp.float32) / self.full((), by, self.xp.float32)

    def images(self, index: Any) -> Any:
        return self._store.whole(index)


BACKENDS = {"numpy": Backend, "torch": TorchBackend}


def to_host(values: Any) -> np.ndarray:
    """A tensor as an array on the host; an array unchanged."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def host_array(values: Any) -> np.ndarray:
    """A user's array, tensor, list or number as an array that torch can read as well.

    Raises `ValueError` or `TypeError` if it cannot be one, or holds other things than numbers.
    """
    if hasattr(values, "detach"):  # a tensor; torch may be missing
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has no such type
            values = values.float()
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"its items are {array.dtype}")
    # A copy has positive strides and the machine's byte order.
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def read_array(b: Backend, values: Any, field: str, kinds: str, *shapes: tuple[int, ...]) -> Any:
    """A user's array, tensor, list or number, called `field` in messages, as an array of `b`.

    Raises `ValueError` unless it has one of the `kinds` (letters of `Backend.kind`) and `shapes`.
    """
    try:
        array = b.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's own for gradients in a list
        found = f"cannot be an array ({error})"
    else:
        if b.kind(array) in kinds and tuple(array.shape) in shapes:
            return array
        dtype = str(array.dtype).removeprefix("torch.")
        found = f"is {dtype} of shape {tuple(array.shape)}"
    items = {"b": "bool", "iu": "integers"}.get(kinds, "numbers")
    raise ValueError(f"{field} {found}: expected {items} of shape {' or '.join(map(str, shapes))}")

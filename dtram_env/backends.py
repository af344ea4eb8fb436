"""Where the vector environment's arrays live: numpy on the host, or tensors on a device.

Both libraries share most names (`where`, `int64`, …), found under `xp`; a backend is the rest.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from . import sensor
from .datasets import Dataset

BACKENDS = ("numpy", "torch")


class Backend(Protocol):
    """What `episodes`, `views` and the environments ask of a backend."""

    xp: Any
    boolean: Any
    reward_dtype: Any
    labels: Any
    metadata: dict[str, Any]

    def array(self, values: np.ndarray) -> Any:
        """A host array on the backend, without waiting for the device."""
        ...

    def asarray(self, values: Any) -> Any:
        """What a user gave (array, tensor, list) as an array of the backend."""
        ...

    def full(self, shape: int | tuple[int, ...], value: Any, dtype: Any) -> Any:
        """A new array filled with `value`."""
        ...

    def copy(self, values: Any) -> Any:
        """A copy that the user may keep and change."""
        ...

    def cast(self, values: Any, dtype: Any) -> Any:
        """`values` as `dtype`."""
        ...

    def kind(self, values: Any) -> str:
        """numpy's letter for what the items are: "f", "i" (or "u"), "b", or another."""
        ...

    def divide(self, values: Any, by: int) -> Any:
        """``values / by`` in float32, correctly rounded on every device."""
        ...

    def glimpse(self, index: Any, location: Any, needed: Any | None = None) -> Any:
        """Glimpses ``(n, g, g, C * num_scales)`` uint8; see `sensor.glimpse`.

        Args:
            index: ``(n,)`` images.
            location: ``(n, 2)``.
            needed: ``(n,)`` bool, which will be looked at; the others may hold anything.
        """
        ...

    def corner(self, coordinate: Any, size: int, side: int) -> Any:
        """First row or column of a window; see `sensor.corner`."""
        ...

    def thumbnail(self, index: Any, side: int, needed: Any | None = None) -> Any:
        """Whole images shrunk to ``(n, side, side, C)`` uint8; `needed` as for `glimpse`."""
        ...

    def images(self, index: Any) -> Any:
        """Whole images ``(n, H, W, C)`` uint8, where all have one size."""
        ...


class NumpyBackend:
    """Arrays on the host."""

    xp: Any = np
    boolean: Any = np.bool_
    reward_dtype: Any = np.float64

    def __init__(self, data: Dataset, glimpse_size: int, num_scales: int) -> None:
        self._data = data
        self._store = data.store(sensor.margin(glimpse_size, num_scales))
        self._glimpse_size, self._num_scales = glimpse_size, num_scales
        self.labels: Any = data.labels
        self.metadata = dict(data.metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data, self._glimpse_size, self._num_scales)

    def array(self, values: np.ndarray) -> np.ndarray:
        return values

    def asarray(self, values: Any) -> np.ndarray:
        return np.asarray(values)

    def full(self, shape: int | tuple[int, ...], value: Any, dtype: Any) -> np.ndarray:
        return np.full(shape, value, dtype)

    def copy(self, values: np.ndarray) -> np.ndarray:
        return values.copy()

    def cast(self, values: np.ndarray, dtype: Any) -> np.ndarray:
        return values.astype(dtype, copy=False)

    def kind(self, values: np.ndarray) -> str:
        return values.dtype.kind

    def divide(self, values: np.ndarray, by: int) -> np.ndarray:
        return np.true_divide(values, by, dtype=np.float32)

    def glimpse(
        self, index: np.ndarray, location: np.ndarray, needed: np.ndarray | None = None
    ) -> np.ndarray:
        size, scales = self._glimpse_size, self._num_scales
        if needed is None or needed.all():
            return sensor.glimpse(self._store, index, location, size, scales)
        out = np.zeros((len(index), size, size, self._store.channels * scales), dtype=np.uint8)
        if needed.any():
            out[needed] = sensor.glimpse(self._store, index[needed], location[needed], size, scales)
        return out

    def corner(self, coordinate: np.ndarray, size: int, side: int) -> np.ndarray:
        return sensor.corner(coordinate, size, side)

    def thumbnail(
        self, index: np.ndarray, side: int, needed: np.ndarray | None = None
    ) -> np.ndarray:
        if needed is None or needed.all():
            return self._store.thumbnail(index, side)
        out = np.zeros((len(index), side, side, self._store.channels), dtype=np.uint8)
        if needed.any():
            out[needed] = self._store.thumbnail(index[needed], side)
        return out

    def images(self, index: np.ndarray) -> np.ndarray:
        if isinstance(self._data.images, np.ndarray):
            return self._data.images[index]
        return np.stack([self._data.image(i) for i in index])


class TorchBackend:
    """Tensors on a device; torch is imported when the first one is made.

    Args:
        data: the images.
        glimpse_size: side of a glimpse, in pixels.
        num_scales: crops in a glimpse.
        device: anything that `torch.device` takes.

    Raises:
        ValueError: torch has no such device here.
    """

    def __init__(self, data: Dataset, glimpse_size: int, num_scales: int, device: Any) -> None:
        import torch

        from . import sensor_torch
        from .datasets.storage import tensors

        self.xp: Any = torch
        self.boolean: Any = torch.bool
        self.reward_dtype: Any = torch.float32
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"device={device!r}: expected 'cpu', or another device that torch can "
                f"use here; torch says: {str(error).splitlines()[0]}"
            ) from None
        self._sensor = sensor_torch
        self._data = data
        self._store = tensors.make_store(data, sensor.margin(glimpse_size, num_scales), self.device)
        self._glimpse_size, self._num_scales = glimpse_size, num_scales
        self._divisors: dict[int, Any] = {}
        self.labels: Any = self.array(data.labels)
        self.metadata = {name: self.array(values) for name, values in data.metadata.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data, self._glimpse_size, self._num_scales, self.device)

    def array(self, values: np.ndarray) -> Any:
        if not values.flags.writeable:  # torch warns of memory that it must not write to
            values = values.copy()
        tensor = self.xp.from_numpy(values)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def asarray(self, values: Any) -> Any:
        if isinstance(values, self.xp.Tensor):
            return values.to(self.device)
        return self.array(np.asarray(values))

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
        # A number would be turned into its reciprocal on a GPU, one rounding too many.
        if by not in self._divisors:
            self._divisors[by] = self.full((), by, self.xp.float32)
        return values.to(self.xp.float32) / self._divisors[by]

    def glimpse(self, index: Any, location: Any, needed: Any | None = None) -> Any:
        size, scales = self._glimpse_size, self._num_scales
        if needed is None or not self._store.on_host:  # a device makes all rather than be asked
            return self._sensor.glimpse(self._store, index, location, size, scales)
        shape = (len(index), size, size, self._store.channels * scales)
        out = self.full(shape, 0, self.xp.uint8)
        if needed.any():
            out[needed] = self._sensor.glimpse(
                self._store, index[needed], location[needed], size, scales
            )
        return out

    def corner(self, coordinate: Any, size: int, side: int) -> Any:
        return self._sensor.corner(coordinate, size, side)

    def thumbnail(self, index: Any, side: int, needed: Any | None = None) -> Any:
        if needed is None or not self._store.on_host:
            return self._store.thumbnail(index, side)
        out = self.full((len(index), side, side, self._store.channels), 0, self.xp.uint8)
        if needed.any():
            out[needed] = self._store.thumbnail(index[needed], side)
        return out

    def images(self, index: Any) -> Any:
        return self._store.whole(index)


def to_host(values: Any) -> np.ndarray:
    """An array as it is, a tensor as an array on the host."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def read_array(b: Backend, values: Any, field: str, kinds: str, expected: str) -> Any:
    """What a user gave as an array of the backend.

    Args:
        b: the backend.
        values: array, tensor, list or number.
        field: what it is called in messages.
        kinds: the letters of `Backend.kind` that will do.
        expected: what that is, in words.

    Raises:
        ValueError: it is no array (a ragged list, None), or one of something else.
    """
    try:
        array = b.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field}: expected {expected}; no array can be made: {error}") from None
    if b.kind(array) not in kinds:
        dtype = str(array.dtype).removeprefix("torch.")
        raise ValueError(f"{field} holds {dtype}: expected {expected}")
    return array


def make_backend(
    name: str, data: Dataset, glimpse_size: int, num_scales: int, device: Any = "cpu"
) -> Backend:
    """The backend called `name`.

    Raises:
        ValueError: no such backend, or a device asked of numpy.
    """
    if name == "torch":
        return TorchBackend(data, glimpse_size, num_scales, device)
    if name != "numpy":
        raise ValueError(f"backend={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")
    if str(device) != "cpu":
        raise ValueError(f"device={str(device)!r}: backend='numpy' runs on 'cpu' only")
    return NumpyBackend(data, glimpse_size, num_scales)

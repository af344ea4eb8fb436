"""Views: the same task in the action spaces that a library can take.

An action codec turns a library's action into (location, stop, prediction), in batches, on any
backend. Observations are made by `observer`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from .backends import Backend, read_array

VIEWS = ("native", "continuous", "discrete", "single")
GRID_VIEWS = ("discrete", "single")  # those whose locations are the cells of a grid


class Decision(NamedTuple):
    """An action in the task's own words.

    Attributes:
        location: ``(n, 2)`` float32 in [-1, 1].
        stop: ``(n,)``, 1 to stop.
        prediction: ``(n,)`` int64; None where the action has none (policy-only).
    """

    location: Any
    stop: Any
    prediction: Any


class ActionCodec(Protocol):
    """Turns actions of one view into decisions."""

    space: spaces.Space[Any]

    def decode(self, b: Backend, action: Any, n: int, active: Any | None, check: bool) -> Decision:
        """Reads a batch of actions.

        Args:
            b: backend of the result.
            action: as `space`, batched.
            n: the batch.
            active: ``(n,)`` bool, slots whose action counts (None: all); others may hold anything.
            check: whether values are checked (shapes always are).

        Raises:
            ValueError: naming the field and the value.
        """
        ...

    def decode_one(self, action: Any) -> tuple[np.ndarray, int, int | None]:
        """Reads one action: location ``(2,)`` float32, stop, prediction (None: it has none).

        Raises:
            ValueError: naming the field and the value.
        """
        ...


class NativeActions:
    """``Dict(location, stop, prediction)``, as the task is told.

    Args:
        num_classes: number of classes; None where the action has no prediction.
    """

    def __init__(self, num_classes: int | None) -> None:
        self._num_classes = num_classes
        parts: dict[str, spaces.Space[Any]] = {
            "location": spaces.Box(-1, 1, (2,), np.float32),
            "stop": spaces.Discrete(2),
        }
        if num_classes is not None:
            parts["prediction"] = spaces.Discrete(num_classes)
        self.space: spaces.Space[Any] = spaces.Dict(parts)
        self._keys = tuple(parts)

    def decode(self, b: Backend, action: Any, n: int, active: Any | None, check: bool) -> Decision:
        self._check_keys(action)
        location = _array(b, action["location"], (n, 2), "action['location']", "iuf")
        stop = _array(b, action["stop"], (n,), "action['stop']")
        prediction, bound = None, self._num_classes
        if bound is not None:
            prediction = _array(b, action["prediction"], (n,), "action['prediction']")
        if check:
            claims = [
                _finite(b, location, "action['location']"),
                _integers(b, stop, 2, "action['stop']"),
            ]
            if bound is not None:
                claims.append(_integers(b, prediction, bound, "action['prediction']"))
            _check(claims, active)
        if prediction is not None:
            prediction = _int64(b, prediction, active)
        return Decision(_clip(b, location), stop, prediction)

    def decode_one(self, action: Any) -> tuple[np.ndarray, int, int | None]:
        self._check_keys(action)
        location = _host_array(action["location"], "action['location']")
        if location.shape != (2,) or location.dtype.kind not in "iuf":
            raise ValueError(
                f"action['location'] is {location.dtype} of shape {location.shape}: "
                "expected numbers of shape (2,)"
            )
        prediction = None
        if self._num_classes is not None:
            prediction = _one_integer(
                action["prediction"], self._num_classes, "action['prediction']"
            )
        return (
            _one_location(location, "action['location']"),
            _one_integer(action["stop"], 2, "action['stop']"),
            prediction,
        )

    def _check_keys(self, action: Any) -> None:
        keys = ", ".join(map(repr, self._keys))
        if not isinstance(action, dict):
            raise ValueError(
                f"action is a {type(action).__name__}: expected a dict with the keys {keys} "
                "(the other views take arrays)"
            )
        if action.keys() != set(self._keys):
            raise ValueError(f"action has the keys {sorted(action)}: expected {keys}")


class ContinuousActions:
    """``Box(3 + num_classes)``: x, y, stop if > 0, prediction the first largest of the rest.

    Args:
        num_classes: number of classes; None where the action has no prediction, as ``Box(3)``.
    """

    def __init__(self, num_classes: int | None) -> None:
        self._size = 3 + (num_classes or 0)
        self.space: spaces.Space[Any] = spaces.Box(-1, 1, (self._size,), np.float32)

    def decode(self, b: Backend, action: Any, n: int, active: Any | None, check: bool) -> Decision:
        action = _array(b, action, (n, self._size), "action", "iuf")
        if check:
            _check((_finite(b, action, "action"),), active)
        prediction = action[:, 3:].argmax(-1) if self._size > 3 else None
        return Decision(_clip(b, action[:, :2]), action[:, 2] > 0, prediction)

    def decode_one(self, action: Any) -> tuple[np.ndarray, int, int | None]:
        action = _host_array(action, "action")
        if action.shape != (self._size,) or action.dtype.kind not in "iuf":
            raise ValueError(
                f"action is {action.dtype} of shape {action.shape}: "
                f"expected numbers of shape ({self._size},)"
            )
        if not np.isfinite(action).all():
            raise ValueError(f"action = {action}: expected finite numbers")
        prediction = int(action[3:].argmax()) if self._size > 3 else None
        return _one_location(action[:2], "action[:2]"), int(action[2] > 0), prediction


class DiscreteActions:
    """``MultiDiscrete([G*G, 2, num_classes])``: a cell of the grid, stop, prediction.

    Cells are numbered row by row from the top left; a cell's location is its centre.

    Args:
        num_classes: number of classes; None where the action has no prediction.
        grid: G, cells a side.
    """

    def __init__(self, num_classes: int | None, grid: int) -> None:
        self.grid = grid
        self._bounds = (grid * grid, 2, *(() if num_classes is None else (num_classes,)))
        self.space: spaces.Space[Any] = spaces.MultiDiscrete(list(self._bounds))
        self.centres = grid_centres(grid)
        fields = ("action[0] (cell)", "action[1] (stop)", "action[2] (prediction)")
        self._fields = fields[: len(self._bounds)]
        self._placed: Any = None  # the centres, on the backend

    def decode(self, b: Backend, action: Any, n: int, active: Any | None, check: bool) -> Decision:
        action = _array(b, action, (n, len(self._bounds)), "action")
        columns = [action[:, k] for k in range(len(self._bounds))]
        if check:
            asked = zip(columns, self._bounds, self._fields, strict=True)
            _check([_integers(b, *column) for column in asked], active)
        if self._placed is None:
            self._placed = b.array(self.centres)
        cell = _int64(b, columns[0], active)
        if not check:  # a cell that does not exist must not read other memory
            cell = b.xp.clip(cell, 0, self._bounds[0] - 1)
        prediction = _int64(b, columns[2], active) if len(columns) > 2 else None
        return Decision(self._placed[cell], columns[1], prediction)

    def decode_one(self, action: Any) -> tuple[np.ndarray, int, int | None]:
        shape, expected = _host_array(action, "action").shape, (len(self._bounds),)
        if shape != expected:
            raise ValueError(f"action has shape {shape}: expected {expected}")
        cell, stop, *prediction = (
            _one_integer(value, bound, field)
            for value, bound, field in zip(action, self._bounds, self._fields, strict=True)
        )
        return self.centres[cell], stop, prediction[0] if prediction else None


class SingleActions:
    """``Discrete(G*G + 1)``: a cell to look at next, or, the last one, to stop.

    Args:
        grid: G, cells a side.
    """

    def __init__(self, grid: int) -> None:
        self._stop = grid * grid
        self.space: spaces.Space[Any] = spaces.Discrete(self._stop + 1)
        # Who stops looks nowhere; the row is there so that no index is out of range.
        self.centres = np.concatenate([grid_centres(grid), np.zeros((1, 2), np.float32)])
        self._placed: Any = None  # the centres, on the backend

    def decode(self, b: Backend, action: Any, n: int, active: Any | None, check: bool) -> Decision:
        action = _array(b, action, (n,), "action")
        if check:
            _check([_integers(b, action, self._stop + 1, "action")], active)
        if self._placed is None:
            self._placed = b.array(self.centres)
        choice = _int64(b, action, active)
        if not check:  # as in `DiscreteActions`
            choice = b.xp.clip(choice, 0, self._stop)
        return Decision(self._placed[choice], choice == self._stop, None)

    def decode_one(self, action: Any) -> tuple[np.ndarray, int, int | None]:
        choice = _one_integer(action, self._stop + 1, "action")
        return self.centres[choice], int(choice == self._stop), None


def grid_centres(grid: int) -> np.ndarray:
    """Centres of the cells of a G x G grid, row by row: ``(G * G, 2)`` float32, ``(x, y)``."""
    line = (2 * np.arange(grid) + 1) / grid - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def action_masks(
    b: Backend,
    cells: Any | None,
    t: Any,
    num_cells: int,
    min_glimpses: int,
    num_classes: int,
    single: bool = False,
) -> Any:
    """Which choices of a grid view are allowed, in the layout that MaskablePPO reads.

    Args:
        b: the backend.
        cells: ``(n, G * G)`` bool, cells seen; None to allow all. If all of a slot's cells were
            seen, all are allowed.
        t: ``(n,)`` int64, glimpses taken.
        num_cells: G * G.
        min_glimpses: stopping is not allowed before this many glimpses.
        num_classes: number of classes that the action chooses from, 0 if it has no prediction.
        single: whether stopping is one choice more beside the cells (the view "single").

    Returns:
        ``(n, G * G + 2 + num_classes)`` bool: cells, then stop 0 and 1, then classes; or
        ``(n, G * G + 1)``: cells, then stop.
    """
    stop = num_cells if single else num_cells + 1
    masks = b.full((len(t), stop + 1 + num_classes), True, b.boolean)
    if cells is not None:
        masks[:, :num_cells] = ~cells | cells.all(-1)[:, None]
    masks[:, stop] = t >= min_glimpses
    return masks


def _array(b: Backend, values: Any, shape: tuple[int, ...], field: str, kinds: str = "iufb") -> Any:
    values = read_array(b, values, field, kinds, f"numbers of shape {shape}")
    if tuple(values.shape) != shape:
        raise ValueError(f"{field} has shape {tuple(values.shape)}: expected {shape}")
    return values


def _host_array(values: Any, field: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{field}: no array can be made of it: {error}") from None


class _Claim(NamedTuple):
    """Which values of a field are as expected: `good` is of their shape, slots first."""

    values: Any
    good: Any
    field: str
    expected: str


def _finite(b: Backend, values: Any, field: str) -> _Claim:
    return _Claim(values, b.xp.isfinite(values), field, "finite numbers")


def _integers(b: Backend, values: Any, bound: int, field: str) -> _Claim:
    good = (values >= 0) & (values < bound)
    if b.kind(values) == "f":
        good = good & (values == b.xp.floor(values))
    return _Claim(
        values, good, field, "0 or 1" if bound == 2 else f"an integer from 0 to {bound - 1}"
    )


def _check(claims: Sequence[_Claim], active: Any | None) -> None:
    """Raises `ValueError` of the first value that is not as expected in an active slot.

    The answers are put together where they are: a device is asked (and waited for) once, and more
    only to say what is wrong.
    """
    # On the host asking costs less than putting together, and mostly all is well in idle slots too.
    if isinstance(claims[0].good, np.ndarray) and all(claim.good.all() for claim in claims):
        return
    goods = [claim.good for claim in claims]
    if active is not None:
        goods = [good | ~active.reshape(-1, *[1] * (good.ndim - 1)) for good in goods]
    if reduce(operator.and_, [good.all() for good in goods]):
        return
    for (values, _, field, expected), good in zip(claims, goods, strict=True):
        bad = ~good.reshape(len(good), -1).all(-1)
        if bad.any():
            row = int(bad.nonzero()[0][0])
            raise ValueError(f"{field}[{row}] = {values[row].tolist()}: expected {expected}")


def _clip(b: Backend, location: Any) -> Any:
    return b.cast(b.xp.clip(location, -1, 1), b.xp.float32)


def _int64(b: Backend, values: Any, active: Any | None) -> Any:
    if active is not None:  # what stands in an idle slot need not be a number of a class or cell
        values = b.xp.where(active, values, 0)
    return b.cast(values, b.xp.int64)


def _one_location(location: np.ndarray, field: str) -> np.ndarray:
    x, y = location.tolist()
    # A chain of comparisons is false for NaN; infinities are refused like it.
    if not (-np.inf < x < np.inf and -np.inf < y < np.inf):
        raise ValueError(f"{field} = {[x, y]}: expected finite numbers")
    return np.array([min(max(x, -1.0), 1.0), min(max(y, -1.0), 1.0)], dtype=np.float32)


def _one_integer(value: Any, bound: int, field: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = _whole(value)
    if not 0 <= number < bound:
        expected = "0 or 1" if bound == 2 else f"an integer from 0 to {bound - 1}"
        raise ValueError(f"{field} = {value}: expected {expected}")
    return number


def _whole(value: Any) -> int:
    """An integer given as a whole floating-point number; -1 for anything else."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iubf" or not np.isfinite(array):
        return -1
    return int(array) if array == np.floor(array) else -1

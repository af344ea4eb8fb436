"""Views: action spaces for libraries that cannot use the native one.

An action codec reads a library's action as location, stop and prediction, in batches on any
backend, or one at a time. `observation_builder` makes the observations.
"""

import operator
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from .backends import Backend, host_array, read_array

VIEWS = ("native", "continuous", "discrete", "single")
GRID_VIEWS = ("discrete", "single")  # their locations are the cells of a grid

OneAction = tuple[np.ndarray, int, int | None]  # location ``(2,)`` float32, stop, prediction


class Decision(NamedTuple):
    """A batch of actions, read."""

    location: Any  # ``(n, 2)`` float32 in [-1, 1]
    stop: Any  # ``(n,)``, 1 to stop
    prediction: Any  # ``(n,)`` int64; None where actions hold no prediction (policy-only)


class ActionCodec(Protocol):
    """Reads the actions of one view, whose space is `space`.

    `num_classes` is None where actions hold no prediction; `grid` is the number G of cells per
    side. Both methods raise `ValueError` for an invalid action: the field, the slot and the value.
    """

    space: spaces.Space[Any]

    def decode(self, b: Backend, action: Any, n: int, active: Any, check: bool) -> Decision:
        """Reads `n` actions; slots outside `active` ``(n,)`` bool may hold any values.

        Shapes and types are always checked, values only if `check`.
        """

    def decode_one(self, b: Backend, action: Any) -> OneAction:
        """Reads one action; Python numbers are several times faster than arrays of one."""


class NativeActions(ActionCodec):
    """``Dict(location, stop, prediction)``, the task's own action space."""

    def __init__(self, num_classes: int | None) -> None:
        parts: dict[str, spaces.Space[Any]] = {
            "location": spaces.Box(-1, 1, (2,), np.float32),
            "stop": spaces.Discrete(2),
        }
        self._bounds = {"location": None, "stop": 2}
        if num_classes is not None:
            parts["prediction"] = spaces.Discrete(num_classes)
            self._bounds["prediction"] = num_classes
        self.space = spaces.Dict(parts)

    def decode(self, b: Backend, action: Any, n: int, active: Any, check: bool) -> Decision:
        self._check_keys(action)
        fields: list[_Field] = []
        for key, bound in self._bounds.items():
            name = f"action['{key}']"
            kinds, shape = ("iuf", (n, 2)) if bound is None else ("iufb", (n,))
            fields.append((read_array(b, action[key], name, kinds, shape), name, bound))
        if check:
            _check_values(b, fields, active)
        location, stop, *rest = [values for values, _, _ in fields]
        prediction = _int64(b, rest[0], active) if rest else None
        return Decision(_clip(b, location), stop, prediction)

    def decode_one(self, b: Backend, action: Any) -> OneAction:
        self._check_keys(action)
        location = read_array(b, action["location"], "action['location']", "iuf", (2,))
        location = _one_location(location, "action['location']")
        stop = _one_integer(action["stop"], 2, "action['stop']")
        classes = self._bounds.get("prediction")
        if classes is None:
            return location, stop, None
        prediction = _one_integer(action["prediction"], classes, "action['prediction']")
        return location, stop, prediction

    def _check_keys(self, action: Any) -> None:
        is_dict = isinstance(action, dict)
        if not is_dict or action.keys() != self._bounds.keys():
            found = f"has the keys {sorted(action)}" if is_dict else f"is a {type(action).__name__}"
            keys = ", ".join(map(repr, self._bounds))
            raise ValueError(f"action {found}: expected a dict with the keys {keys}")


class ContinuousActions(ActionCodec):
    """``Box(3 + num_classes)``: x, y, stop if > 0, then one score per class (first largest)."""

    def __init__(self, num_classes: int | None) -> None:
        self._size = 3 + (num_classes or 0)
        self.space = spaces.Box(-1, 1, (self._size,), np.float32)

    def decode(self, b: Backend, action: Any, n: int, active: Any, check: bool) -> Decision:
        action = read_array(b, action, "action", "iuf", (n, self._size))
        if check:
            _check_values(b, [(action, "action", None)], active)
        prediction = action[:, 3:].argmax(-1) if self._size > 3 else None
        return Decision(_clip(b, action[:, :2]), action[:, 2] > 0, prediction)

    def decode_one(self, b: Backend, action: Any) -> OneAction:
        action = read_array(b, action, "action", "iuf", (self._size,))
        if not np.isfinite(action).all():
            raise ValueError(f"action = {action}: expected finite numbers")
        prediction = int(action[3:].argmax()) if self._size > 3 else None
        return _one_location(action[:2], "action[:2]"), int(action[2] > 0), prediction


class GridActions(ActionCodec):
    """What the grid views share: cells, numbered row by row from the top left, as locations."""

    def __init__(self, grid: int) -> None:
        self._centres = grid_centres(grid)
        self._cells = grid * grid
        self._on_backend: Any = None  # the centres
        # In action masks: columns before the choice to stop, and columns in all.
        self._stop_column, self._columns = self._cells, self._cells + 1

    def masks(self, b: Backend, visited: Any | None, t: Any, min_glimpses: int) -> Any:
        """The allowed choices after `t` ``(n,)`` glimpses, in the layout that MaskablePPO reads.

        The cells in `visited` ``(n, G * G)`` bool are forbidden (None: no cell is), unless all of a
        slot's cells were visited; stopping is forbidden before `min_glimpses`. Returns bool: cells,
        stop 0 and 1, then classes, if the action holds a prediction, ``(n, G * G + 2 + K)``; in the
        view "single" cells, then stop, ``(n, G * G + 1)``.
        """
        masks = b.full((len(t), self._columns), True, b.boolean)
        if visited is not None:
            masks[:, : self._cells] = ~visited | visited.all(-1)[:, None]
        masks[:, self._stop_column] = t >= min_glimpses
        return masks

    def _locations(self, b: Backend, cells: Any) -> Any:
        if self._on_backend is None:
            self._on_backend = b.array(self._centres)
        return self._on_backend[cells]


class DiscreteActions(GridActions):
    """``MultiDiscrete([G*G, 2, num_classes])``: a cell of the grid, stop, prediction."""

    def __init__(self, num_classes: int | None, grid: int) -> None:
        super().__init__(grid)
        self._bounds = (self._cells, 2) if num_classes is None else (self._cells, 2, num_classes)
        self._stop_column, self._columns = self._cells + 1, sum(self._bounds)
        self.space = spaces.MultiDiscrete(list(self._bounds))
        self._names = ("action[0] (cell)", "action[1] (stop)", "action[2] (prediction)")

    def decode(self, b: Backend, action: Any, n: int, active: Any, check: bool) -> Decision:
        action = read_array(b, action, "action", "iufb", (n, len(self._bounds)))
        columns = [action[:, k] for k in range(len(self._bounds))]
        if check:
            fields = zip(columns, self._names, self._bounds, strict=False)
            _check_values(b, list(fields), active)
        cells = _int64(b, columns[0], active, None if check else self._cells - 1)
        prediction = _int64(b, columns[2], active) if len(columns) > 2 else None
        return Decision(self._locations(b, cells), columns[1], prediction)

    def decode_one(self, b: Backend, action: Any) -> OneAction:
        action = read_array(b, action, "action", "iufb", (len(self._bounds),)).tolist()
        cell, stop, *prediction = map(_one_integer, action, self._bounds, self._names)
        return self._centres[cell], stop, prediction[0] if prediction else None


class SingleActions(GridActions):
    """``Discrete(G*G + 1)``: the grid's cell of the next glimpse, or G*G to stop."""

    def __init__(self, grid: int) -> None:
        super().__init__(grid)
        self.space = spaces.Discrete(self._cells + 1)
        # Stopping has no location; the last row keeps its index in range.
        self._centres = np.concatenate([self._centres, np.zeros((1, 2), np.float32)])

    def decode(self, b: Backend, action: Any, n: int, active: Any, check: bool) -> Decision:
        action = read_array(b, action, "action", "iufb", (n,))
        if check:
            _check_values(b, [(action, "action", self._cells + 1)], active)
        choices = _int64(b, action, active, None if check else self._cells)
        return Decision(self._locations(b, choices), choices == self._cells, None)

    def decode_one(self, b: Backend, action: Any) -> OneAction:
        choice = _one_integer(action, self._cells + 1, "action")
        return self._centres[choice], int(choice == self._cells), None


def make_codec(view: str, num_classes: int | None, grid: int | None) -> ActionCodec:
    """The codec of a view; `grid` is None in views without one."""
    if view == "native":
        return NativeActions(num_classes)
    if view == "continuous":
        return ContinuousActions(num_classes)
    assert grid is not None
    return SingleActions(grid) if view == "single" else DiscreteActions(num_classes, grid)


def grid_centres(grid: int) -> np.ndarray:
    """Centres of the cells of a G x G grid, row by row: ``(G * G, 2)`` float32, ``(x, y)``."""
    line = (2 * np.arange(grid) + 1) / grid - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


# --- Batches

# Values, slots first; name in messages; bound of integers from 0, or None for any finite numbers.
_Field = tuple[Any, str, int | None]


def _check_values(b: Backend, fields: list[_Field], active: Any) -> None:
    """Raises `ValueError` for the first bad value of an active slot; waits for the device once."""
    goods = [_valid(b, values, bound) for values, _, bound in fields]
    # On the host reading is cheaper than combining, and mostly the idle slots are valid as well.
    if b.on_host and all(good.all() for good in goods):
        return
    goods = [good | ~active.reshape(-1, *[1] * (good.ndim - 1)) for good in goods]
    if reduce(operator.and_, [good.all() for good in goods]):
        return
    for (values, name, bound), good in zip(fields, goods, strict=True):
        bad = ~good.reshape(len(good), -1).all(-1)
        if bad.any():
            slot = int(bad.nonzero()[0][0])
            found = values[slot].tolist()
            raise ValueError(f"{name}[{slot}] = {found}: expected {_expected(bound)}")


def _valid(b: Backend, values: Any, bound: int | None) -> Any:
    if bound is None:
        return b.xp.isfinite(values)
    valid = (values >= 0) & (values < bound)
    return valid & (values == b.xp.floor(values)) if b.kind(values) == "f" else valid


def _clip(b: Backend, location: Any) -> Any:
    if b.kind(location) != "f":  # unsigned integers have no -1
        location = b.cast(location, b.xp.float32)
    return b.cast(b.xp.clip(location, -1, 1), b.xp.float32)


def _int64(b: Backend, values: Any, active: Any, most: int | None = None) -> Any:
    """Values as int64, 0 in idle slots (which may hold anything), clipped to 0..`most`."""
    # Unchecked values have to be clipped before they index an array: they could read other memory.
    values = b.cast(b.xp.where(active, values, 0), b.xp.int64)
    return values if most is None else b.xp.clip(values, 0, most)


# --- One action


def _one_location(location: np.ndarray, field: str) -> np.ndarray:
    x, y = location.tolist()
    # A chain of comparisons is false for NaN and for infinities.
    if not (-np.inf < x < np.inf and -np.inf < y < np.inf):
        raise ValueError(f"{field} = {[x, y]}: expected {_expected(None)}")
    return np.array([min(max(x, -1.0), 1.0), min(max(y, -1.0), 1.0)], dtype=np.float32)


def _one_integer(value: Any, bound: int, field: str) -> int:
    number = _whole(value)
    if not 0 <= number < bound:
        raise ValueError(f"{field} = {value}: expected {_expected(bound)}")
    return number


def _whole(value: Any) -> int:
    """The integer that a number, an array or a tensor is; -1 if it is none."""
    if isinstance(value, int | np.integer):
        return int(value)
    try:
        array = host_array(value)
    except (TypeError, ValueError):
        return -1
    if array.shape or array.dtype.kind == "c" or not np.isfinite(array):
        return -1
    return int(array) if array == np.floor(array) else -1


def _expected(bound: int | None) -> str:
    if bound is None:
        return "finite numbers"
    return "0 or 1" if bound == 2 else f"an integer from 0 to {bound - 1}"

"""Checks of settings; each raises a ValueError that names the setting, its value and the range."""

from collections.abc import Iterable
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin

LARGEST = 1e6  # absolute value of a number in a setting
LARGEST_WIDTH = 2**16  # units of a layer
LARGEST_SIDE, MOST_CHANNELS = 2**13, 2**8  # of images, in pixels, and of glimpses of all scales
MOST_CLASSES = 10**6
_NUMBER = f"at most {LARGEST:,.0f}"
_NAMES: dict[Any, str] = {
    bool: "True or False",
    int: f"an integer, {_NUMBER}",
    float: f"a number, {_NUMBER}",
    str: "a text",
}


def require(name: str, value: object, holds: object, expected: str) -> None:
    """Raises ValueError with a setting's name, its value and what was expected unless `holds`."""
    if not holds:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def require_one_of(settings: object, **allowed: Iterable[str]) -> None:
    """Raises ValueError unless each named attribute of `settings` is one of its allowed values."""
    for name, values in allowed.items():
        value, values = getattr(settings, name), tuple(values)
        require(name, value, value in values, f"one of {values}")


def require_at_least(settings: object, least: float, *names: str) -> None:
    """Raises ValueError unless each named attribute of `settings` is `least` or more."""
    for name in names:
        value = getattr(settings, name)
        require(name, value, value >= least, f"at least {least}")


def require_range(settings: object, least: int, most: int, *names: str) -> None:
    """Raises ValueError unless each named attribute of `settings` is from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        require(name, value, least <= value <= most, f"at least {least}, at most {most:,}")


def require_sizes(settings: object, shape: str, least: int, expected: str) -> None:
    """Raises ValueError unless a network for images of `shape` can be made.

    `settings` have `num_classes`, `hidden_size` and the attribute `shape`, ``(side, side,
    channels)`` with a side of at least `least` pixels, which `expected` says in words.
    """
    side, width, channels = getattr(settings, shape)
    fits = least <= side == width <= LARGEST_SIDE and 0 < channels <= MOST_CHANNELS
    largest = (LARGEST_SIDE, LARGEST_SIDE, MOST_CHANNELS)
    require(shape, getattr(settings, shape), fits, f"{expected}, at most {largest}")
    require_range(settings, 2, MOST_CLASSES, "num_classes")
    require_range(settings, 1, LARGEST_WIDTH, "hidden_size")


def require_types(settings: Any) -> None:
    """Raises ValueError unless each field of a dataclass has a value of its annotated type.

    Numbers are finite, and not larger than `LARGEST`.
    """
    for field in fields(settings):
        value, kind = getattr(settings, field.name), field.type
        expected = _NAMES.get(kind, f"{kind}, numbers {_NUMBER}")
        require(field.name, value, _is_a(value, kind), expected)


def _is_a(value: Any, kind: Any) -> bool:
    parts = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_a(value, part) for part in parts)
    if get_origin(kind) is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, tuple) and ... in parts else parts
        same = isinstance(value, tuple) and len(value) == len(kinds)
        return same and all(map(_is_a, value, kinds))
    if kind in (int, float):
        number = isinstance(value, int | kind) and not isinstance(value, bool)
        return number and -LARGEST <= value <= LARGEST
    return value is None if kind is type(None) else isinstance(value, kind)

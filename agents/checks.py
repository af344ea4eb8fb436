"""Checks of settings; the error names the setting, its value and what was expected."""

from dataclasses import fields
from typing import Annotated, Any

from dtram_env.checks import misfit

LARGEST = 1e6  # absolute value of a number in a setting
LEAST = 1e-6  # the smallest number that counts as positive
LARGEST_SIDE, MOST_CLASSES = 2**13, 10**6

Side = Annotated[int, 1, LARGEST_SIDE]
"""Of images and glimpses, in pixels."""
Channels = Annotated[int, 1, 2**8]
"""Of images, and of glimpses with all scales."""
Width = Annotated[int, 1, 2**16]
"""Units or channels of a layer."""
Hidden = Annotated[int, 0, 2**16]
"""Units of a hidden layer; 0: there is none."""
Classes = Annotated[int, 2, MOST_CLASSES]
Share = Annotated[float, LEAST, 1]
"""Of a whole: more than 0, at most 1."""
Number = Annotated[float, -LARGEST, LARGEST]
NotNegative = Annotated[float, 0, LARGEST]
Positive = Annotated[float, LEAST, LARGEST]


def require(name: str, value: object, holds: object, expected: str) -> None:
    """Raises ValueError with a setting's name, its value and what was expected unless `holds`."""
    if not holds:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def check_fields(settings: Any) -> None:
    """Raises ValueError unless the fields of a dataclass fit their annotations, see `misfit`."""
    for field in fields(settings):
        if problem := misfit(getattr(settings, field.name), field.type, field.name):
            raise ValueError(problem)


def check_square(settings: Any, shape: str, least: int, encoder: str) -> None:
    """Raises ValueError unless a shape in pixels is ``(side, side, channels)`` with a side that the
    encoder takes."""
    side, width, _ = getattr(settings, shape)
    expected = f"(side, side, channels), at least {least}x{least} pixels for encoder={encoder!r}"
    if side < least:
        any_size = "pixels" if getattr(settings, "core", "") == "map" else "mlp"
        expected += f"; encoder={any_size!r} takes any size"
    require(shape, getattr(settings, shape), least <= side == width, expected)

"""Checks of keywords and options: the error gives the name, the value and what was expected."""

import operator
from collections.abc import Iterable
from typing import Any


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises `ValueError` unless the keyword `name` has an allowed value."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The keyword `name` as an int; raises `ValueError` if it is not one, or is out of range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r}: expected an integer {expected}")
    return number


def check_options(options: dict[str, Any], *known: str) -> None:
    """Raises `ValueError` for an unknown option of `reset`."""
    for key in options:
        if key not in known:
            raise ValueError(f"options[{key!r}]: unknown; expected {' or '.join(map(repr, known))}")

"""Checks of keywords and options: the error gives the name, the value and what was expected."""

import operator
from collections.abc import Iterable
from dataclasses import is_dataclass
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)


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


def misfit(value: Any, kind: Any, name: str = "") -> str | None:
    """What of a JSON value is not of a kind, as ``"curve[2].error='x': expected …"``; None: fits.

    A kind is bool, int, float (which takes integers), str, None, ``list[…]``, ``tuple[…]`` (which
    takes lists), ``dict[str, …]``, a union, ``Literal[…]``, ``Annotated[…, least, most]`` for a
    range of numbers, ``Any``, a class, a dataclass (which also takes an object with its fields), or
    a TypedDict: of its keys, those that are not required may be missing, and others may be there.

    >>> misfit({"a": [1, -2]}, dict[str, list[Annotated[int, 0, 9]]])
    'a[1]=-2: expected from 0 to 9'
    """
    origin, parts = get_origin(kind), get_args(kind)
    shown = f"{name or 'the whole'}={_short(value)}: expected"
    if kind is Any:
        return None
    if origin is NotRequired:
        return misfit(value, parts[0], name)
    if (is_typeddict(kind) or is_dataclass(kind)) and type(value) is not kind:
        if not isinstance(value, dict):
            return f"{shown} an object"
        hints = get_type_hints(kind, include_extras=True)
        needed = hints.keys() if is_dataclass(kind) else kind.__required_keys__
        wrong = (needed - value.keys()) | (value.keys() - needed if is_dataclass(kind) else set())
        if wrong:
            return f"{_inside(name, min(wrong))}: missing or unknown"
        found = (misfit(value[k], hints[k], _inside(name, k)) for k in hints if k in value)
        return next(filter(None, found), None)
    if origin is Literal:
        return None if value in parts else f"{shown} one of {', '.join(map(repr, parts))}"
    if origin is Annotated:
        base, least, most = parts
        problem = misfit(value, base, name)
        if problem is None and not least <= value <= most:
            problem = f"{shown} from {least:,} to {most:,}"
        return problem
    if origin in (UnionType, Union):
        problems = [misfit(value, part, name) for part in parts]
        return None if None in problems else next(filter(None, problems))
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return f"{shown} a list"
        fixed = origin is tuple and ... not in parts
        if fixed and len(value) != len(parts):
            return f"{shown} {len(parts)} values"
        kinds = parts if fixed else parts[:1] * len(value)
        pairs = enumerate(zip(value, kinds, strict=True))
        found = (misfit(v, k, f"{name}[{i}]") for i, (v, k) in pairs)
        return next(filter(None, found), None)
    if origin is dict:
        if not isinstance(value, dict):
            return f"{shown} an object"
        found = (misfit(v, parts[1], _inside(name, k)) for k, v in value.items())
        return next(filter(None, found), None)
    accepted = (int, float) if kind is float else (kind,)
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    return None if fits else f"{shown} {_WORDS.get(kind, kind.__name__)}"


_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

"""Checks of settings; each raises a ValueError that names the setting, its value and the range."""

from collections.abc import Iterable


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

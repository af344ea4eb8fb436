"""What settings have to be, and the error if they are not."""

from __future__ import annotations


def require(name: str, value: object, holds: object, expected: str) -> None:
    """Raises ValueError with a setting's name, its value and what was expected unless `holds`."""
    if not holds:
        raise ValueError(f"{name}={value!r}: expected {expected}")

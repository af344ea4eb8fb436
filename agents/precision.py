"""Where bfloat16 is worth computing in."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has_bf16(device_type: str) -> bool:
    """Whether a kind of device computes in bfloat16 by instructions of its own.

    A processor without them does so in software, some fifty times as slowly as in float32.
    """
    if device_type != "cpu":
        return device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def tell_of_bf16(device_type: str) -> None:
    """Says so where bfloat16 was asked for and float32 is what will be computed in."""
    if not has_bf16(device_type):
        print(f"--bf16: this {device_type} has no instructions for bfloat16; float32 in its place")


def autocast(device_type: str, bf16: bool) -> torch.autocast:
    """Autocast to bfloat16 if that is wanted and worth it, else float32 as it is.

    Args:
        device_type: "cpu", "cuda" ...
        bf16: whether it is wanted.
    """
    return torch.autocast(device_type, torch.bfloat16, enabled=bf16 and has_bf16(device_type))

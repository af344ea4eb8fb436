"""When computing in bfloat16 is faster than in float32."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


@cache
def has_bf16(device_type: str) -> bool:
    """Whether a kind of device has instructions for bfloat16.

    Without them it is computed in software, some fifty times slower than float32.
    """
    if device_type != "cpu":
        return device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def warn_without_bf16(device_type: str) -> None:
    """Prints a note if the device has no bfloat16 instructions, so float32 is used instead."""
    if not has_bf16(device_type):
        problem = f"this {device_type} has no instructions for bfloat16"
        print(f"--bf16: {problem}; float32 is used instead")


def autocast(device_type: str, bf16: bool) -> AbstractContextManager[object]:
    """Autocast to bfloat16 if it is requested and a device such as "cuda" has instructions."""
    if device_type == "meta":  # autocast does not know it
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16, enabled=bf16 and has_bf16(device_type))


def to_bf16(tensor: torch.Tensor, bf16: bool) -> torch.Tensor:
    """The tensor in bfloat16 where `autocast` computes in it, else as it is."""
    return tensor.bfloat16() if bf16 and has_bf16(tensor.device.type) else tensor

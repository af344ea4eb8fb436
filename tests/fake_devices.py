"""Devices whose tensors have no data, to find device faults without a GPU.

On a fake ``cuda`` device a mix of devices is an error, and so is every read of a value by the host;
it has no backward pass. On ``meta``, forward, backward and optimizer run; a mix with a tensor on
the CPU and a read are errors, too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode


@contextmanager
def device_without_data(name: str) -> Iterator[torch.device]:
    """``"cuda"`` with fake tensors, or ``"meta"``."""
    device = torch.device(name)
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
            patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)  # fake tensors have none
            if name == "cuda":
                stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            else:
                # Neither of them knows the device.
                patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
                for kind in ("AdamW", "SGD"):
                    plain = partial(_without_fusion, getattr(torch.optim, kind))
                    patch.setattr(torch.optim, kind, plain)
            yield device
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _without_fusion(optimizer: Any, parameters: Any, fused: bool, **options: Any) -> Any:
    return optimizer(parameters, **options)


class NoCopies(TorchFunctionMode):
    """Raises AssertionError if numbers or a tensor of the host are copied to a device and the host
    waits for the copy, which no device without data notices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, result = kwargs or {}, func(*args, **(kwargs or {}))
        from_numbers = func in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
        moved = func in (Tensor.to, Tensor.cuda) and args[0].device.type == "cpu"
        if (from_numbers or moved) and result.device.type != "cpu":
            assert kwargs.get("non_blocking"), f"{func.__name__}: the host waits for this copy"
        return result

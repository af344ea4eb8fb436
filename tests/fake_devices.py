"""Devices whose tensors have no data, to find device faults without a GPU.

On a fake ``cuda`` device a mix of devices is an error, and so is every read of a value by the host;
it has no backward pass. On ``meta``, forward, backward and optimizer run; a mix with a tensor on
the CPU and a read are errors, too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def device_without_data(name: str) -> Iterator[torch.device]:
    """``"cuda"`` with fake tensors, or ``"meta"``."""
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
                adamw = torch.optim.AdamW
                patch.setattr(torch.optim, "AdamW", lambda p, fused, **k: adamw(p, **k))
            yield torch.device(name)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)

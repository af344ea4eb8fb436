"""Large arrays are allocated again without new pages of the system."""

import platform
from collections.abc import Callable

import pytest

PROGRAM = """
import resource
import sys
import torch
from train.common.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**25)  # 128 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize(("how", "pages"), [("keep", range(30)), ("plain", range(30, 10**6))])
def test_freed_memory_is_used_again(run_python: Callable[..., str], how: str, pages: range) -> None:
    """The tenth array needs new pages only if the ninth was given back."""
    assert int(run_python("-c", PROGRAM, how)) in pages

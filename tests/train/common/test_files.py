"""Files of runs: who can read them (damaged ones are in tests/dtram_env/test_checks.py)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.files import write_tensors
from dtram_env.files import write_json, write_text
from train.common.files import read_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
@pytest.mark.parametrize(
    ("write", "content"), [(write_text, "a"), (write_json, [1]), (write_tensors, {"a": [1.5, 2]})]
)
def test_the_mode_of_a_file_is_the_users(
    tmp_path: Path, write: Callable[[Path, Any], Path], content: Any, umask: int, mode: int
) -> None:
    if isinstance(content, dict):
        content = {name: torch.tensor(values) for name, values in content.items()}
    before = os.umask(umask)
    try:
        path = write(tmp_path / "file", content)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode and list(tmp_path.iterdir()) == [path]
    if isinstance(content, dict):
        assert torch.equal(read_tensors(path)["a"], content["a"])

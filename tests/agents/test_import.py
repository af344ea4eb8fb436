"""A missing package is one error with the install line."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package"),
    [("agents", "safetensors"), ("agents", "torch"), ("agents.sb3", "stable_baselines3")],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # Python then does not find it
    with pytest.raises(ImportError, match=rf"{package} is not installed: .* 'dtram\[train\]'"):
        importlib.import_module(module)

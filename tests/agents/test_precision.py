"""Autocast to bfloat16: only if requested and if the device has instructions for it."""

import pytest
import torch

from agents import precision


@pytest.fixture
def capabilities(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Simulated capabilities of the processor."""
    found: dict[str, object] = {"avx2": True, "cpu_name": "any"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    precision.has_bf16.cache_clear()
    yield found
    precision.has_bf16.cache_clear()


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processors_capabilities_decide(capabilities: dict[str, object], name: str) -> None:
    assert not precision.has_bf16("cpu")
    precision.has_bf16.cache_clear()
    capabilities[name] = False
    assert not precision.has_bf16("cpu")
    precision.has_bf16.cache_clear()
    capabilities[name] = True
    assert precision.has_bf16("cpu")


@pytest.mark.parametrize(
    ("wanted", "has", "dtype"),
    [
        (True, True, torch.bfloat16),
        (True, False, torch.float32),
        (False, True, torch.float32),
    ],
)
def test_dtype_under_autocast(
    capabilities: dict[str, object], wanted: bool, has: bool, dtype: torch.dtype
) -> None:
    capabilities["avx512_bf16"] = has
    with precision.autocast("cpu", wanted):
        assert torch.nn.Linear(3, 2)(torch.ones(1, 3)).dtype == dtype


def test_emulation_on_a_gpu_does_not_count(
    capabilities: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Emulated, it is no faster than float32."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not precision.has_bf16("cuda")
    precision.warn_without_bf16("cuda")
    assert "this cuda has no instructions for bfloat16" in capsys.readouterr().out
    capabilities["amx_bf16"] = True
    precision.warn_without_bf16("cpu")
    assert not capsys.readouterr().out

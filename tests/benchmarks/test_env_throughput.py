"""The benchmark's ratio to the peer compares like with like, and the training step runs."""

from typing import Any

import pytest
import torch

from benchmarks import env_throughput, train_throughput


def test_the_peer_is_compared_with_episodes_that_do_not_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def vector(options: Any, mode: str, stop: float, backend: str) -> dict[str, Any]:
        no_stop = mode == "NextStep" and stop == 0 and backend == "numpy"
        return {"per_s": 600.0 if no_stop else 7.0}

    monkeypatch.setattr(env_throughput, "vector", vector)
    monkeypatch.setattr(env_throughput, "bare_gather", lambda options: {"per_s": 1.0})
    monkeypatch.setattr(env_throughput, "scalar", lambda options, wrapped: {"per_s": 1.0})
    monkeypatch.setattr(env_throughput, "ap_gym", lambda options: {"per_s": 20.0})
    result = env_throughput.run(env_throughput.Options())
    assert result["figures"][-1]["ratio_of_ours"] == 30.0
    assert "ours is 30 times as fast" in capsys.readouterr().out


@pytest.mark.parametrize("trajectories", [1, 2])
def test_the_training_step_runs(trajectories: int) -> None:
    options = train_throughput.Options(batch_size=4, m=trajectories, hidden_size=8)
    train_throughput.make_step(options, torch.device("cpu"))()

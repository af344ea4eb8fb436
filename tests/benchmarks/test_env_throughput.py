"""The benchmarks' ratios compare like with like, and the training step runs."""

from typing import Any

import pytest
import torch

from benchmarks import env_throughput, train_throughput
from benchmarks.timing import doubling


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
    figures = env_throughput.compare(env_throughput.Options())
    assert figures[-1]["ratio_of_ours"] == 30.0
    assert "ours is 30 times as fast" in capsys.readouterr().out


def test_glimpses_are_compared_with_a_copy_of_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []

    def rate_of(items: Any, use: Any, options: Any, calls: int, num_envs: int) -> dict[str, Any]:
        copied.append(use(items[0]).numel())
        return {"per_s": 1000.0}

    found = {"per_s": 400.0, "useful_per_s": 250.0}
    monkeypatch.setattr(env_throughput, "rate_over", rate_of)
    monkeypatch.setattr(env_throughput, "vector", lambda *_: found)
    options = env_throughput.Options(env_id="DTRAM-Signpost-v0", batch_sizes=(3,), host=False)
    (row,) = env_throughput.run(options)["rows"]
    assert row["batch_size"] == 3 and copied[0] % (3 * 64) == 0
    assert (row["steps_per_second"], row["glimpses_per_second"]) == (400, 250)
    assert (row["copied_glimpses_per_second"], row["fraction_of_copy"]) == (1000, 0.25)


@pytest.mark.parametrize("trajectories", [1, 2])
def test_the_training_step_is_compared_with_matrix_products(
    trajectories: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate(work: Any, *_: Any, calls: int, **__: Any) -> float:
        if calls > 1:  # the step; a product of large matrices would take long
            work()
        return 5.0

    monkeypatch.setattr(train_throughput, "best_rate", rate)
    options = train_throughput.Options(
        batch_sizes=(4,), m=trajectories, hidden_size=8, device="cpu"
    )
    (row,) = train_throughput.run(options)["rows"]
    assert row["images_per_second"] == 5 * 4
    assert row["glimpses_per_second"] == 5 * 4 * trajectories * 6
    limit = 5 * 2 * 2048**3
    assert row["images_per_second_of_matmuls"] == pytest.approx(
        limit / row["flops_per_image"], 1e-3
    )
    assert row["matmul_gflops"] == pytest.approx(limit / 1e9, 1e-3)


def test_batch_sizes() -> None:
    assert doubling(torch.device("cpu")) == (128, 256, 512, 1024)
    assert doubling(torch.device("cuda"))[-2:] == (32768, 65536)

"""The benchmarks' ratios compare like with like, and the training step runs."""

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import env_throughput, train_throughput
from benchmarks.timing import doubling

SHORT: dict[str, Any] = {"env_id": "DTRAM-Signpost-v0", "seconds": 0.001, "rounds": 1}


def test_each_row_has_the_numbers_of_environments_that_it_can(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = env_throughput.Options(**SHORT, num_envs=(1, 3), threads=(1,))
    figures = env_throughput.compare(options)
    sizes: dict[str, list[int]] = {}
    for figure in figures:
        sizes.setdefault(figure["name"], []).append(figure["num_envs"])
        assert figure["per_s"] > 0
    assert sizes.pop("ours, scalar, gym.make") == [1]
    assert len(sizes) >= 12 and set(map(tuple, sizes.values())) == {(1, 3)}
    assert len(capsys.readouterr().out.splitlines()) >= len(figures)


def test_the_work_by_hand_is_that_of_the_environment() -> None:
    """Until an episode ends, after which each draws images of its own."""
    options = env_throughput.Options(**SHORT, max_glimpses=4)
    n = 200
    env = env_throughput.make_vector(options, n)
    images = np.random.default_rng(0).integers(env.num_images, size=n)
    env.reset(options={"image_index": images})
    same, paid = np.ones(n, bool), 0
    with env_throughput.same_work(options, n) as step:
        for action in env_throughput.draw_actions(options, n, env.num_classes)[:4]:
            observation, *rest = env.step(action)
            ours = observation["glimpse"], *rest[:2]
            for one, other in zip(ours, step(), strict=True):  # type: ignore[call-overload]
                np.testing.assert_array_equal(one[same], other[same])
            paid += np.count_nonzero(ours[1][same])
            same &= ~ours[2]
    assert not same.any() and paid > 10  # the budget ends the last ones


def test_glimpses_are_compared_with_a_copy_of_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter((1000.0, 400.0))
    monkeypatch.setattr(env_throughput, "rate", lambda options, n, step: next(rates))
    options = env_throughput.Options(**SHORT, batch_sizes=(3,), max_glimpses=1, host=False)
    (row,) = env_throughput.run(options)["rows"]
    # Every other step of a budget of one only restarts.
    assert (row["steps_per_second"], row["glimpses_per_second"]) == (400, 200)
    assert (row["copied_glimpses_per_second"], row["fraction_of_copy"]) == (1000, 0.2)


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

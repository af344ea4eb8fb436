"""The benchmarks' clock, by hand."""

import pytest

from benchmarks import timing


def test_the_best_of_two_rounds_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    # The warm-up is a batch of two calls; then two calls fill a round of a second, then four.
    costs = iter([0.1, 0.1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])

    def work() -> None:
        now[0] += next(costs)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.best_rate(work, 1.0, rounds=2, calls=2) == pytest.approx(4.0)
    assert next(costs, None) is None

"""Policies and the exact evaluation, on data whose results are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dtram_env import CenterPolicy, GlimpseVectorEnv, RandomPolicy, ScanPolicy, evaluate
from dtram_env.datasets import Dataset
from dtram_env.datasets.drawn import Drawing
from dtram_env.datasets.storage import drawn_store
from dtram_env.views import grid_centres

from .conftest import make_dataset

ID = "DTRAM-Signpost-v0"


class Reader:
    """Looks at the top left pixel, which holds the label, and stops `delay` glimpses later.

    Works on arrays and tensors.
    """

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay

    def reset(self, batch: int) -> Any:
        return None

    def step(self, observation: dict[str, Any], state: Any) -> tuple[dict[str, Any], Any]:
        largest = observation["glimpse"].reshape(len(observation["glimpse"]), -1)
        largest = largest.max(-1) if isinstance(largest, np.ndarray) else largest.amax(-1)
        known = largest > 0
        # time = t / 7; the label is seen at the second glimpse.
        late = observation["time"][:, 0] * 7 > 1.5 + self.delay
        location = -0.99 * (0 * observation["location"] + 1)
        prediction = (0 * known + largest) - 1 * known
        return {
            "location": location,
            "stop": (known & late) * 1,
            "prediction": prediction * 1,
        }, None


@pytest.mark.parametrize("num_envs", [1, 7, 50, 64])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_policy_that_reads_the_label(planted: Dataset, backend: str, num_envs: int) -> None:
    result = evaluate(
        Reader(delay=1), ID, dataset=planted, max_glimpses=7, backend=backend, num_envs=num_envs
    )
    assert (result.accuracy, result.error, result.images) == (1.0, 0.0, 50)
    assert result.mean_glimpses == 3.0
    assert result.mean_return == pytest.approx(0.98**3, rel=1e-6)
    assert result.histogram.tolist() == [0, 0, 50, 0, 0, 0, 0]
    np.testing.assert_array_equal(result.label, planted.labels)
    np.testing.assert_array_equal(result.prediction, planted.labels)
    assert result.locations.shape == (50, 7, 2) and (result.locations[:, 0] == 0).all()
    assert (result.locations[:, 1:3] == np.float32(-0.99)).all()
    assert np.isnan(result.locations[:, 3:]).all()
    assert (result.dataset, result.split, result.env_id) == ("Planted", "test", ID)


def test_images_that_are_drawn_on_demand_are_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = Drawing.draw

    def counted(self: Drawing, part: str, index: int) -> np.ndarray:
        drawn.append(index)
        return draw(self, part, index)

    monkeypatch.setattr(Drawing, "draw", counted)
    monkeypatch.setattr(drawn_store, "_MEMORY", 3 * 96**2 * 4)  # bytes of four images
    few: dict[str, Any] = {"num_classes": 10, "num_train": 20, "num_test": 11, "image_size": 96}
    few |= {"glimpse_size": 24, "data_dir": str(tmp_path)}
    result = evaluate(CenterPolicy(10, stop_after=3, guess=3), "DTRAM-Birds-v0", **few)
    assert result.images == 11 and result.mean_glimpses == 3
    assert sorted(drawn) == [0, *range(11)]  # image 0 fills the last batch of four


@pytest.mark.parametrize("num_envs", [1, 7, 64])
def test_the_number_of_slots_does_not_change_the_result(num_envs: int) -> None:
    """It is at most the number of images, so that a small split costs little."""
    data, batches = make_dataset(23, split="test"), set()

    class Counted(CenterPolicy):
        def reset(self, batch: int) -> Any:
            batches.add(batch)
            return super().reset(batch)

    policy = Counted(5, stop_after=2, guess=3)
    result = evaluate(policy, ID, dataset=data, num_envs=num_envs, glimpse_size=4)
    assert batches == {min(num_envs, 23)}
    share = float((data.labels == 3).mean())
    assert result.accuracy == pytest.approx(share)
    assert result.mean_return == pytest.approx(0.98**2 * share)
    np.testing.assert_array_equal(result.reward, 0.98**2 * (data.labels == 3))
    assert result.num_glimpses.tolist() == [2] * 23


def test_scan_takes_the_whole_budget_row_by_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy = ScanPolicy(4, grid=2, guess=1)
    result = evaluate(policy, ID, max_glimpses=6, num_envs=300, progress=True)
    assert "2000/2000" in capsys.readouterr().err
    assert result.mean_glimpses == 6.0 and result.images == 2000
    assert result.histogram.tolist() == [0, 0, 0, 0, 0, 2000]
    cells = grid_centres(2)[[0, 1, 2, 3, 0]]
    np.testing.assert_array_equal(result.locations[7], [[0, 0], *cells])
    assert result.accuracy == 0.25  # classes are equally frequent
    state = policy.reset(2)
    visited = []
    for _ in range(5):
        action, state = policy.step({"time": np.ones((2, 1))}, state)
        visited.append(action["location"][1])
    np.testing.assert_array_equal(visited, cells)


def test_stop_after_counts_glimpses_also_when_the_first_is_chosen() -> None:
    for first in ("center", "choose"):
        result = evaluate(
            CenterPolicy(4, stop_after=2), ID, first_glimpse=first, split="validation"
        )
        assert result.mean_glimpses == 2.0
        assert (result.locations[:, :2] == 0).all() and np.isnan(result.locations[:, 2:]).all()


def test_random_stops_are_geometric() -> None:
    result = evaluate(RandomPolicy(4, seed=1), ID, max_glimpses=3)
    expected = 2000 * np.array([0.5, 0.25, 0.25])
    assert np.abs(result.histogram - expected).max() < 5 * np.sqrt(500)
    assert abs(result.accuracy - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    num_envs=st.integers(1, 40),
    budget=st.integers(1, 5),
)
def test_sums_that_always_hold(seed: int, num_envs: int, budget: int) -> None:
    data = make_dataset(23, split="test")
    result = evaluate(
        RandomPolicy(5, seed=seed),
        ID,
        dataset=data,
        num_envs=num_envs,
        max_glimpses=budget,
        glimpse_size=4,
    )
    assert result.histogram.shape == (budget,) and result.histogram.sum() == 23
    assert (result.histogram * np.arange(1, budget + 1)).sum() == result.num_glimpses.sum()
    right = result.prediction == result.label
    np.testing.assert_allclose(result.reward, 0.98**result.num_glimpses * right)
    assert result.accuracy + result.error == pytest.approx(1)
    assert result.accuracy == pytest.approx(right.mean())


def test_the_summary_is_json(planted: Dataset) -> None:
    summary = json.loads(json.dumps(evaluate(Reader(), ID, dataset=planted).to_dict()))
    assert summary == {
        "env_id": ID,
        "dataset": "Planted",
        "split": "test",
        "images": 50,
        "accuracy": 1.0,
        "error": 0.0,
        "test_error": 0.0,
        "mean_glimpses": 2.0,
        "mean_return": pytest.approx(0.98**2),
        "histogram": [0, 50, 0, 0],
    }
    other = evaluate(CenterPolicy(4, stop_after=1), ID, split="validation").to_dict()
    assert "test_error" not in other and other["split"] == "validation"


def test_mnist_test_split_is_counted_whole(mnist_folder: Any) -> None:
    result = evaluate(CenterPolicy(10, stop_after=1, guess=1), "DTRAM-MNIST-v0")
    assert result.images == 10_000 and result.mean_glimpses == 1.0
    assert result.accuracy == 0.1135  # the test split has 1,135 ones


def test_policies_repeat() -> None:
    time = {"time": torch.ones(6, 1)}
    one, two = RandomPolicy(9, seed=4), RandomPolicy(9, seed=4)
    for _ in range(3):
        first, second = one.step(time, one.reset(6))[0], two.step(time, two.reset(6))[0]
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


class Predicts(Reader):
    """Predicts a given class, and counts its steps."""

    def __init__(self, prediction: float = 0, refuses: str = "") -> None:
        super().__init__()
        self.prediction, self.refuses, self.steps = prediction, refuses, 0
        self.checked: list[Any] = []

    def check_env(self, env: Any) -> None:
        self.checked.append(env)
        if self.refuses:
            raise ValueError(self.refuses)

    def step(self, observation: dict[str, Any], state: Any) -> tuple[dict[str, Any], Any]:
        self.steps += 1
        action, state = super().step(observation, state)
        action["prediction"] = 0 * action["prediction"] + self.prediction
        return action, state


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_bad_predictions_of_a_policy(planted: Dataset, backend: str) -> None:
    common: dict[str, Any] = {"dataset": planted, "backend": backend, "num_envs": 8}
    for bad in (4, -1, 0.5):
        message = rf"action\['prediction'\]\[0\] = {bad}: expected an integer from 0 to 3"
        with pytest.raises(ValueError, match=message):
            evaluate(Predicts(bad), ID, **common)
    assert evaluate(Predicts(2), ID, **common).accuracy == 12 / 50


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_policy_may_refuse_an_environment(planted: Dataset, backend: str) -> None:
    policy = Predicts(refuses="made for 8 classes, the environment has 4")
    with pytest.raises(ValueError, match="made for 8 classes, the environment has 4"):
        evaluate(policy, ID, dataset=planted, backend=backend)
    assert policy.steps == 0  # before the first step
    (env,) = policy.checked
    assert isinstance(env, GlimpseVectorEnv)
    assert (env.num_classes, env.backend, env.data) == (4, backend, planted)
    policy = Predicts()
    evaluate(policy, ID, dataset=planted, backend=backend)
    assert len(policy.checked) == 1 and policy.steps > 0


class SideOfGlimpse(Reader):
    """Stops at once; predicts 1 if its glimpse was right of the centre, else 0."""

    def step(self, observation: dict[str, Any], state: Any) -> tuple[dict[str, Any], Any]:
        right = (observation["location"][:, 0] > 0) * 1
        return {"location": observation["location"], "stop": 0 * right + 1, "prediction": right}, 0


def test_a_seed_makes_random_first_glimpses_repeatable(planted: Dataset) -> None:
    def answers(backend: str = "numpy", **seed: int) -> list[int]:
        result = evaluate(
            SideOfGlimpse(),
            ID,
            dataset=planted,
            first_glimpse="random",
            num_envs=7,
            backend=backend,
            **seed,
        )
        return result.prediction.tolist()

    assert answers() == answers() == answers(seed=0) == answers("torch")
    assert answers(seed=1) == answers("torch", seed=1) != answers()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RandomPolicy(0), ValueError, "num_classes=0"),
        (lambda: CenterPolicy(4, stop_after=0), ValueError, "stop_after=0"),
        (lambda: CenterPolicy(4, guess=4), ValueError, "guess=4: expected an integer from 0 to 3"),
        (lambda: ScanPolicy(4, grid=0), ValueError, "grid=0"),
        (
            lambda: evaluate(CenterPolicy(5), ID),
            ValueError,
            r"CenterPolicy\(num_classes=5\): .* has 4 classes",
        ),
        (lambda: evaluate(Reader, ID), TypeError, r"policy=<class .*\(a class was given\)"),
        (lambda: evaluate(print, ID), TypeError, "an object with the methods.*reset and step"),
        (lambda: evaluate(Reader(), ID, order="random"), TypeError, "order"),
    ],
)
def test_bad_policies_and_arguments(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()

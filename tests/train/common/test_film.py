"""Films: they show what the environment showed and the policy thought; pictures by hand."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from PIL import Image, ImageSequence

from agents.stopping import LearnedStop
from agents.unroll import classify, deterministic_path
from dtram_env import CenterPolicy, GlimpseVectorEnv, ScanPolicy
from dtram_env.datasets import Dataset
from train.common.film import (
    COLOUR_OF,
    GAP,
    NAME,
    Episode,
    Look,
    draw_look,
    record,
    write_film,
)
from train.common.training_task import TrainingTask

ID = "DTRAM-Signpost-v0"
RIGHT, WRONG = COLOUR_OF["right"], COLOUR_OF["wrong"]


def make(**keywords: Any) -> Any:
    """An environment of one slot, on the test split."""
    how = {"num_envs": 1, "split": "test", "autoreset_mode": AutoresetMode.DISABLED, **keywords}
    return gym.make_vec(ID, **how).unwrapped


def test_glimpses_of_a_scan_by_hand() -> None:
    """Crops of 8 pixels about the centre of 28, then about (-1/2, -1/2) and (1/2, -1/2)."""
    env = make()
    episode = record(ScanPolicy(4, stop_after=3, guess=2, grid=2), env, 7)
    image, corners = env.data.image(7), [(10, 10), (3, 3), (17, 3)]
    assert episode.boxes == [(left, top, 8, 8) for left, top in corners]
    for look, (left, top) in zip(episode.looks, corners, strict=True):
        np.testing.assert_array_equal(look.views, [image[top : top + 8, left : left + 8]])
        assert look.belief is not None and look.belief.tolist() == [0, 0, 1, 0]
        assert look.stop is None
    assert (episode.label, episode.prediction) == (env.data.labels[7], 2)
    assert (episode.title, len(episode.image)) == ("Signpost 7", 28)


def test_a_dtram_tells_its_belief_and_its_probability_of_stopping() -> None:
    """As the dense pass gives them, until `classify` stops."""
    task = TrainingTask(ID, torch.device("cpu"))
    torch.manual_seed(0)
    agent = task.new_agent(encoder="mlp", hidden_size=32).eval()
    for head in (agent.locator, agent.classifier, *agent.stopper):
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter)
    agent.stopping = LearnedStop(0.5)
    images = task.images("test")
    taken = classify(agent, task.sensor, images.store, torch.arange(40)).num_glimpses.tolist()
    assert len(set(taken)) > 1
    for image in (taken.index(max(taken)), taken.index(min(taken))):
        episode = record(agent, make(), image)
        path = list(deterministic_path(agent, task.sensor, images.store, torch.tensor([image])))
        assert len(episode.looks) == taken[image]
        for look, step in zip(episode.looks, path, strict=False):
            np.testing.assert_allclose(look.location, step.location[0], atol=1e-6)
            expected = torch.softmax(step.heads.logits[0], 0)
            np.testing.assert_allclose(look.belief, expected, atol=1e-6)
            assert look.stop == pytest.approx(torch.sigmoid(step.heads.stop_logit[0]).item())
    agent.stopping = LearnedStop(1.0)  # RAM: its stopper has learned nothing
    assert all(look.stop is None for look in record(agent, make(), 0).looks)


class Cells:
    """A policy of the discrete view: it looks at cell 3 of 2x2, then stops."""

    def reset(self, batch: int) -> int:
        return 0

    def step(self, observation: dict[str, np.ndarray], state: int) -> tuple[np.ndarray, int]:
        return np.array([[3, state, 1]]), state + 1


def test_a_policy_of_another_view_is_shown_without_bars() -> None:
    episode = record(Cells(), make(view="discrete", grid=2, first_glimpse="choose"), 0)
    assert [look.location.tolist() for look in episode.looks] == [[0.5, 0.5]]
    assert episode.prediction == 1 and episode.looks[0].belief is None
    assert draw_look(episode, 1).shape == (298, 560, 3)


def test_the_first_look_may_be_a_thumbnail_and_a_glimpse_have_scales() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)
    data = Dataset("mine", "test", pixels, np.zeros(1, np.int64), ("a", "b"))
    how: dict[str, Any] = {"first_glimpse": "thumbnail", "thumbnail_size": 6, "num_scales": 2}
    env = GlimpseVectorEnv(data, glimpse_size=4, autoreset_mode="Disabled", **how)
    episode = record(CenterPolicy(2, stop_after=2, guess=1), env, 0, labelled=False)
    assert [len(look.views) for look in episode.looks] == [1, 2]
    thumbnail = pixels[0].reshape(6, 4, 6, 4, 3).mean(axis=(1, 3))
    assert np.abs(episode.looks[0].views[0] - thumbnail).max() <= 0.5
    fine, coarse = episode.looks[1].views
    np.testing.assert_array_equal(fine, pixels[0, 10:14, 10:14])
    wide = pixels[0, 8:16, 8:16].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(coarse - wide).max() <= 0.5
    assert episode.boxes == [(0, 0, 24, 24), (10, 10, 4, 4)] and episode.label is None


def episode_of(*beliefs: list[float], label: int | None = 0, stop: float | None = None) -> Episode:
    """An episode of a black image with the given beliefs after its glimpses."""
    black = np.zeros((8, 8, 1), np.uint8)
    looks = [Look([black[:4, :4]], np.zeros(2), np.array(b), stop) for b in beliefs]
    prediction = int(np.argmax(beliefs[-1]))
    return Episode("<one>", black, ("owl", "heron"), 4, False, label, looks, prediction)


def test_bars_are_as_long_as_the_belief() -> None:
    def width(frame: np.ndarray, colour: tuple[int, int, int]) -> int:
        return int((frame[112:, 281:] == colour).all(-1).any(0).sum())  # below the glimpse

    sure, unsure = (draw_look(episode_of([p, 1 - p]), 1) for p in (1.0, 0.5))
    assert width(unsure, RIGHT) == pytest.approx(width(sure, RIGHT) / 2, abs=2)
    wrong = draw_look(episode_of([0.25, 0.75]), 1)
    assert width(wrong, WRONG) == pytest.approx(3 * width(wrong, RIGHT), abs=4)
    assert width(draw_look(episode_of([0.25, 0.75], label=None), 1), RIGHT) == 0
    stops = draw_look(episode_of([1.0, 0.0], stop=0.5), 1)
    assert (stops != sure).any()  # one more bar, below the others


@pytest.mark.parametrize("long", ["W" * 40, "\U000f0000" * 20])  # the second is written as escapes
def test_a_long_name_ends_before_its_bar(long: str) -> None:
    short, cut = episode_of([0.1, 0.9]), episode_of([0.1, 0.9])
    cut.class_names = (long, "heron")
    bars = [draw_look(one, 1)[112:, 280 + GAP + NAME :] for one in (short, cut)]
    np.testing.assert_array_equal(*bars)


def test_the_gif_shows_every_look_and_the_page_needs_no_other_file(tmp_path: Path) -> None:
    episodes = [episode_of([0.6, 0.4], [0.9, 0.1], stop=0.25), episode_of([0.2, 0.8])]
    page = write_film(tmp_path / "film", "R&D", episodes)
    with Image.open(page.with_suffix(".gif")) as gif:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
        assert durations == [1000, 2500, 2500] and gif.info["loop"] == 0
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{20})', text)
    assert [source.split(";")[0] for source in sources] == ["data:image/gif"] + 3 * [
        "data:image/png"
    ]
    assert "http" not in text and "<one>" not in text
    assert "&lt;one&gt;" in text and "R&amp;D" in text
    assert "2 glimpses; probability of stopping after each: 0.25, 0.25" in text
    assert {path.name for path in (tmp_path / "film").iterdir()} == {"watch.gif", "watch.html"}

"""Playing by hand: clicks and keys, what the player sees, and the score."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import agents  # noqa: F401 - registers the policy-only id
from dtram_env.play import Game, handle, main, play
from tests.dtram_env.best_policies import read_signpost

pygame = pytest.importorskip("pygame")
SIGNPOST = "DTRAM-Signpost-v0"


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("dtram_env.play._FPS", 10_000)


def game_of(env_id: str = SIGNPOST, **keywords: Any) -> Game:
    game = Game(gym.make(env_id, split="test", order="sequential", **keywords))
    game.start(seed=0)
    game.frame()
    return game


def click(x: float, y: float) -> Any:
    return pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(x, y), button=1)


def key(code: int) -> Any:
    return pygame.event.Event(pygame.KEYDOWN, key=code)


def test_a_click_looks_where_it_points() -> None:
    """The picture enlarges 28 pixels 20 times: a click on the pixel (23, 4) from the top left."""
    game = game_of()
    assert game.shown == (560, 560)
    handle(game, click(23 * 20 + 10, 4 * 20 + 10), pygame)
    assert game.locations[-1] == pytest.approx([2 * 23.5 / 28 - 1, 2 * 4.5 / 28 - 1], abs=2e-3)
    handle(game, click(600, 10), pygame)  # on the list of classes
    assert game.info["num_glimpses"] == 2


def test_the_player_sees_only_what_was_looked_at() -> None:
    game = game_of()
    image = game.env.data.image(0)[..., 0]
    expected = np.zeros((28, 28), bool)
    expected[10:18, 10:18] = True  # the centre
    game.look(9 / 14, 0)
    expected[10:18, 19:27] = True
    assert np.array_equal(np.isfinite(game.coarse), expected)
    assert np.array_equal(game.seen[expected], np.repeat(image[expected][:, None], 3, axis=1))
    assert (game.seen[~expected] == (25, 25, 60)).all()


def test_finer_pixels_replace_coarser_ones() -> None:
    """Three scales of 12, 24 and 48 pixels about a corner of 60x60."""
    game = game_of("DTRAM-TranslatedMNIST-v0", first_glimpse="choose")
    assert np.isinf(game.coarse).all()
    game.answer(0)  # nothing was seen yet
    assert not game.over
    game.look(-1, -1)
    assert game.coarse[:6, :6].max() == 1
    assert game.coarse[6:12, :12].min() == game.coarse[:12, :12].max() == 2
    assert game.coarse[12:24, :24].min() == game.coarse[:24, :24].max() == 4
    assert np.isinf(game.coarse[24:]).all() and np.isinf(game.coarse[:, 24:]).all()
    assert np.array_equal(game.seen[:6, :6, 0], game.env.data.image(0)[:6, :6, 0])


def test_the_thumbnail_is_the_whole_image_coarsely() -> None:
    game = game_of("DTRAM-BirdsSmall-v0")
    assert (game.coarse == 4).all() and not game.locations  # 128 pixels in 32
    game.look(0, 0)
    assert (game.coarse[48:80, 48:80] == 1).all() and (game.coarse == 1).sum() == 32 * 32


def test_the_budget_leaves_only_an_answer() -> None:
    game = game_of(max_glimpses=2)
    assert "click to look" in game.caption()
    game.look(0, 0)
    assert not game.can_look and "click to look" not in game.caption()
    game.look(0, 0)
    assert not game.over and game.info["num_glimpses"] == 2
    game.answer(game.info["label"])
    assert game.over and game.score.rewards == [pytest.approx(0.98**2)]
    assert game.caption().startswith("right, it is ") and game.frame().any()


def test_arrows_choose_a_class_and_enter_answers() -> None:
    game = game_of()
    label = game.info["label"]
    for _ in range(label or 4):
        handle(game, key(pygame.K_DOWN), pygame)
    assert game.selected == label
    handle(game, key(pygame.K_UP), pygame)
    assert game.selected == (label - 1) % 4
    handle(game, key(pygame.K_DOWN), pygame)
    handle(game, key(pygame.K_RETURN), pygame)
    assert game.score.right == [True]
    handle(game, key(pygame.K_a), pygame)  # the next image
    assert not game.over and game.info["image_index"] == 1
    assert not handle(game, key(pygame.K_ESCAPE), pygame)
    assert not handle(game, pygame.event.Event(pygame.QUIT), pygame)


def following_the_arrow(images: int) -> Iterator[list[Any]]:
    """The events of a perfect player, who knows the layout, one list for each frame."""
    layout = read_signpost("test")
    for index in range(images):
        if not layout.easy[index]:
            x, y = (layout.location[index] + 1) / 2 * 560
            yield [click(x, y)]
        yield [key(pygame.K_0 + layout.labels[index])]
        yield [click(0, 0)]


def test_a_perfect_player_earns_the_best_return() -> None:
    frames = following_the_arrow(6)

    def events() -> Iterable[Any]:
        return next(frames)

    found = play(SIGNPOST, episodes=6, events=events, order="sequential")
    hard = ~read_signpost("test").easy[:6]
    assert found.images == list(range(6)) and all(found.right)
    assert found.glimpses == (1 + hard).tolist()
    assert found.rewards == pytest.approx(0.98 ** (1 + hard))
    assert str(found).endswith(f"error 0 %, {1 + hard.mean():.2f} glimpses")


def test_a_policy_only_game_shows_what_the_classifier_believes() -> None:
    game = game_of("agents:DTRAM-MNIST-Policy-v0")
    assert not game.names and game.caption().startswith("glimpse 1 of 7: click to look, or Enter")
    assert game.belief.count(",") == 2
    handle(game, key(pygame.K_RETURN), pygame)
    assert game.over and len(game.score.rewards) == 1


def test_nothing_is_answered_before_the_first_glimpse() -> None:
    game = game_of(first_glimpse="choose")
    assert game.caption() == "glimpse 0 of 4: click to look"


def test_the_mouse_wheel_does_nothing() -> None:
    game = game_of()
    wheel = pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(10, 10), button=4)
    assert handle(game, wheel, pygame) and game.info["num_glimpses"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DTRAM-Chess-v0"], "DTRAM-Chess"),
        ([SIGNPOST, "--episodes", "0"], "--episodes=0: expected an integer of at least 1"),
        ([SIGNPOST, "--split", "all"], "split='all': expected one of"),
        ([SIGNPOST, "--env", "max_glimpses"], "--env max_glimpses: expected KEY=VALUE"),
        ([SIGNPOST, "--env", "split=test"], "--env split=test: use --split test"),
        ([SIGNPOST, "--env", "glimpses=3"], "'glimpses' is no keyword of GlimpseEnv"),
        (
            ["DTRAM-ImageFolder-v0"],
            "root=None: expected the folder .* or --root photos",
        ),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        main(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"), [("view", "discrete"), ("observe", "canvas"), ("glimpse_format", "flat")]
)
def test_other_views_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='{value}': play shows {name}='.*' only"):
        play(SIGNPOST, **{name: value})


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    frames = iter([[key(pygame.K_RETURN)], [], [click(0, 0)]])
    monkeypatch.setattr(pygame.event, "get", lambda: next(frames))
    main([SIGNPOST, "--episodes", "1", "--seed", "0"])
    you, best = capsys.readouterr().out.splitlines()
    assert you.startswith("you: return ") and you.endswith(" 1.00 glimpses")
    assert best == "the best policy known earns 0.970 on average"
    frames = iter([[key(pygame.K_ESCAPE)]])
    main([SIGNPOST])
    assert capsys.readouterr().out.startswith("you: no image was answered")


def test_the_command_shows_your_own_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for place in ("a/1", "a/2", "b/1", "b/2", "b/3"):
        path = tmp_path / "photos" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
    frames = iter([[key(pygame.K_RETURN)], [], [click(0, 0)]])
    monkeypatch.setattr(pygame.event, "get", lambda: next(frames))
    words = ["--root", str(tmp_path / "photos"), "--data-dir", str(tmp_path / "data")]
    env = ["glimpse_size=8", "image_size=16", "discount=0.5"]
    main(["DTRAM-ImageFolder-v0", "--episodes", "1", *words, "--env", *env])
    assert capsys.readouterr().out.startswith("you: return 0.")
    assert (tmp_path / "data" / "imagefolder").is_dir()

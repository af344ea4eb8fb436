"""Pictures: pixels by hand; frames of both environments; the window."""

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import pytest

from dtram_env import GlimpseEnv, GlimpseVectorEnv, rendering
from dtram_env.rendering import COLOURS, crop_boxes, draw_episode, episode_caption

from .conftest import TOY


def test_an_image_is_enlarged_by_a_whole_number() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * 40
    frame = draw_episode(image, [], size=32)  # 32 // 3 = 10
    expected = np.repeat(np.repeat(np.repeat(image, 10, 0), 10, 1), 3, 2)
    np.testing.assert_array_equal(frame, expected)
    assert draw_episode(image, [], "", size=32).shape == (20 + 18, 30, 3)


@pytest.mark.parametrize(("height", "width"), [(2, 4), (4, 2), (1, 40), (90, 30), (7, 7)])
def test_bars_make_pictures_of_one_size(height: int, width: int) -> None:
    """The picture without bars lies in the middle, boxes and all; the caption is below."""
    image = np.full((height, width, 3), 200, np.uint8)
    boxes = [(1, 0, 2, 2), (-1, -1, 3, 3)]
    plain = draw_episode(image, boxes, size=40)
    frame = draw_episode(image, boxes, "text", size=40, square=True)
    assert frame.shape == (40 + 18, 40, 3) and frame[40:].any()
    top, left = (40 - plain.shape[0]) // 2, (40 - plain.shape[1]) // 2
    inside = frame[top : top + plain.shape[0], left : left + plain.shape[1]]
    untouched = (plain == 200).all(-1)
    assert (inside[untouched] == 200).all() and (plain[~untouched] == inside[~untouched]).any()
    bars = frame[:40].copy()
    bars[top : top + plain.shape[0], left : left + plain.shape[1]] = 0
    assert not (bars == 200).any()


def test_boxes_have_their_colours_in_visiting_order() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    frame = draw_episode(image, [(2, 4, 6, 6), (10, 10, 6, 6)], size=200)
    # Edges of the first box: left at 20, top at 40, right at 79, bottom at 99.
    for y, x in [(70, 20), (40, 60), (70, 79), (99, 60)]:
        assert tuple(frame[y, x]) == COLOURS[0], (y, x)
    assert tuple(frame[130, 100]) == COLOURS[1]
    assert not frame[60:90, 40:70].any()  # inside a box the image is untouched


def test_no_box_hides_a_number() -> None:
    """The second box crosses the corner of the first, where its number is."""
    image = np.zeros((20, 20, 3), np.uint8)
    alone = draw_episode(image, [(2, 2, 10, 10)], size=280)
    crossed = draw_episode(image, [(2, 2, 10, 10), (0, 3, 10, 10)], size=280)
    label = (slice(30, 44), slice(28, 38))  # the place of "1", below the box's line
    assert (alone[label] == COLOURS[0]).all(axis=-1).any()
    np.testing.assert_array_equal(crossed[label], alone[label])


def test_many_boxes_and_boxes_beyond_the_edge() -> None:
    image = np.zeros((10, 10, 1), np.uint8)
    frame = draw_episode(image, [(-4, -4, 8, 8)] * 9, size=100)
    assert tuple(frame[20, 0]) == COLOURS[0]  # the ninth has the first colour again


def test_a_path_joins_the_middles_of_the_boxes() -> None:
    """Boxes of 4 pixels about (4, 10) and (16, 10), ten times enlarged."""
    image, boxes = np.zeros((20, 20, 3), np.uint8), [(2, 8, 4, 4), (14, 8, 4, 4)]
    without, frame = (draw_episode(image, boxes, size=200, path=path) for path in (False, True))
    changed = (frame != without).any(-1)
    assert set(np.flatnonzero(changed.any(1))) <= {99, 100, 101}
    columns = np.flatnonzero(changed.any(0))
    assert abs(columns[0] - 40) <= 1 and abs(columns[-1] - 160) <= 1
    assert tuple(frame[100, 100]) == COLOURS[1] and not without[100, 100].any()


def test_crop_boxes_are_those_of_the_sensor() -> None:
    boxes = crop_boxes(np.array([[0, 0], [0.4, -0.5], [9, 1]]), (14, 10, 1), 4)
    assert boxes == [(3, 5, 4, 4), (5, 2, 4, 4), (8, 12, 4, 4)]
    assert crop_boxes(np.zeros((0, 2)), (14, 10), 4, whole_first=True) == [(0, 0, 10, 14)]


def test_captions() -> None:
    names = ("cat", "dog")
    assert episode_caption(1, None, 0, names) == "1: says ?, is cat"
    assert episode_caption(3, 1, 0, names, over=True) == "3 end: says dog, is cat"
    assert episode_caption(2, 0, None, names) == "2: says cat"


@pytest.fixture
def one_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Beside Pillow's own, which is ASCII, a font with letters of Europe and without Chinese ones.
    path = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
    monkeypatch.setattr(rendering, "FONTS", ("missing.ttf", path))
    for cached in (rendering._system_fonts, rendering.readable):
        cached.cache_clear()
    yield
    for cached in (rendering._system_fonts, rendering.readable):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("caption", "readable"),
    [
        ("cat, 0.93", "cat, 0.93"),
        ("piñón Жα", "piñón Жα"),
        ("n\u0303", "n\u0303"),
        ("鳥", r"\u9ce5"),
        ("ñ 鳥", r"ñ \u9ce5"),
        ("a\nb\x00", r"a\nb\x00"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_a_caption_has_no_characters_that_its_font_lacks(
    one_font: None, caption: str, readable: str
) -> None:
    image = np.zeros((20, 200, 1), np.uint8)
    frame = draw_episode(image, [], caption)
    np.testing.assert_array_equal(frame, draw_episode(image, [], readable))
    assert rendering.readable(caption)[0] == readable
    assert rendering._lacking(*rendering.readable(caption)) == set()


def test_captions_of_unknown_characters_differ(
    one_font: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((20, 200, 1), np.uint8)
    for one, other in ("ñé", "鳥魚"):
        assert (draw_episode(image, [], one) != draw_episode(image, [], other)).any()
    monkeypatch.setattr(rendering, "FONTS", ())
    for cached in (rendering._system_fonts, rendering.readable):
        cached.cache_clear()
    assert rendering.readable("piñón")[0] == r"pi\xf1\xf3n"


def test_bad_images_are_refused() -> None:
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="image: expected uint8"):
            draw_episode(image, [])


def test_frames_change_with_the_episode() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4, render_mode="rgb_array")
    env.reset(options={"image_index": 0})
    first = env.render()
    assert first is not None and first.dtype == np.uint8 and first.shape == (280 + 18, 200, 3)
    assert (first == COLOURS[0]).all(-1).any() and not (first == COLOURS[1]).all(-1).any()
    env.step({"location": [-1, -1], "stop": 0, "prediction": 2})
    second = env.render()
    assert second is not None and (second == COLOURS[1]).all(-1).any()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("first", ["center", "thumbnail", "choose"])
def test_vector_frames_are_the_scalar_ones(first: str, backend: str) -> None:
    common = {"glimpse_size": 4, "first_glimpse": first, "max_glimpses": 3, "order": "sequential"}
    vector = GlimpseVectorEnv(
        TOY,
        num_envs=2,
        render_mode="rgb_array",
        autoreset_mode="Disabled",
        backend=backend,
        **common,
    )
    singles = [GlimpseEnv(TOY, render_mode="rgb_array", shard=(i, 2), **common) for i in range(2)]
    vector.reset(seed=0)
    for single in singles:
        single.reset(seed=0)
    over = [False, False]
    for stops in ([0, 1], [0, 0], [1, 0], [0, 0]):
        action = {
            "location": np.array([[0.5, -1], [-0.3, 0.2]], np.float32) * (1 + sum(stops)),
            "stop": np.array(stops),
            "prediction": np.array([1, 3]),
        }
        vector.step(action)
        frames = vector.render()
        assert frames is not None and len(frames) == 2
        for i, single in enumerate(singles):
            if not over[i]:
                over[i] = single.step({key: value[i] for key, value in action.items()})[2]
            np.testing.assert_array_equal(frames[i], single.render())


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_masked_reset_clears_its_slots_predictions(backend: str) -> None:
    env = GlimpseVectorEnv(
        TOY,
        num_envs=3,
        glimpse_size=4,
        render_mode="rgb_array",
        autoreset_mode="Disabled",
        backend=backend,
    )

    def frames() -> tuple[np.ndarray, ...]:
        drawn = env.render()
        assert drawn is not None
        return drawn

    def answer(prediction: list[int]) -> None:
        stop = np.array([1, 1, 0])
        location = np.zeros((3, 2), np.float32)
        env.step({"location": location, "stop": stop, "prediction": np.array(prediction)})

    env.reset(options={"image_index": np.array([4, 7, 9])})
    fresh = frames()
    answer([1, 2, 3])
    before = frames()
    mask = np.array([False, True, False])
    env.reset(options={"reset_mask": mask, "image_index": np.array([0, 7, 0])})
    after = frames()
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[2], before[2])
    np.testing.assert_array_equal(after[1], fresh[1])  # no prediction yet
    assert (before[1] != fresh[1]).any()
    answer([4, 2, 3])  # predictions of resting slots are ignored
    after = frames()
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])


def test_a_vector_shows_its_first_slots_only() -> None:
    env = gym.make_vec("DTRAM-Signpost-v0", num_envs=40, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None and len(frames) == 16


def test_no_window_before_the_first_render(monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setitem(GlimpseEnv.metadata, "render_fps", 10_000)
    opened = []
    monkeypatch.setattr(
        pygame.display, "set_mode", lambda size: opened.append(size) or pygame.Surface(size)
    )
    monkeypatch.setattr(pygame.display, "flip", lambda: None)
    env = GlimpseEnv(TOY, glimpse_size=4, render_mode="human")
    assert not opened
    env.reset(seed=0)
    env.step({"location": [0, 0], "stop": 1, "prediction": 0})
    assert opened == [(200, 298)]
    env.close()
    env.close()  # twice is fine


def test_rendering_without_a_mode_warns() -> None:
    env = GlimpseEnv(TOY, glimpse_size=4)
    env.reset()
    with pytest.warns(UserWarning, match=r"render\(\) does nothing"):
        assert env.render() is None

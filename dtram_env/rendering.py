"""Pictures of an episode: the enlarged image with a numbered box for each glimpse."""

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import sensor
from .optional import require

# Distinguishable on black, white and grey; the colours repeat after eight glimpses.
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 200, 0),
    (0, 130, 255),
    (245, 130, 48),
    (200, 60, 220),
    (0, 200, 200),
    (160, 110, 60),
)
_LINE = 18  # height of the caption, in pixels
_CAPTION_SIZE = 10  # of its font
_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Tried in order if Pillow's own font lacks a character of the caption.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc"),
    *("YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "Nirmala.ttf", "unifont.ttf"),
)


def draw_episode(
    image: np.ndarray,
    boxes: Sequence[tuple[int, int, int, int]],
    caption: str | None = None,
    *,
    size: int = 280,
    square: bool = False,
    path: bool = False,
) -> np.ndarray:
    """Draws an image with boxes, numbered and coloured in the order of the glimpses.

    Returns ``(h, w, 3)`` uint8; h includes the line of the caption.

    Args:
        image: ``(H, W, C)`` uint8, C = 1 (grey) or 3 (RGB); `ValueError` for any other.
        boxes: ``(left, top, width, height)`` in pixels of the image, one per glimpse, in order, as
            `crop_boxes` makes them. They may reach beyond the image.
        caption: a line of text below the picture, cut off if it is too long; "" draws an empty
            line, None draws none. The first font that has its characters is used: Pillow's own, or
            one of `FONTS` on this machine. Characters that none has are written as escapes.
        size: largest side of the picture, in pixels. The image is enlarged by the largest integer
            factor that fits; a larger image is shrunk to `size`, its pixels averaged.
        square: whether black bars make the picture `size` on both sides, so that pictures of images
            of several sizes have one size.
        path: whether a line leads from the middle of each box to that of the next one, in the next
            one's colour.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"image: expected uint8 of shape (H, W, 1 or 3), got {image.dtype} {image.shape}"
        )
    height, width = image.shape[:2]
    longer = max(height, width)
    zoom = float(size // longer) if size >= longer else size / longer
    shown = (max(round(width * zoom), 1), max(round(height * zoom), 1))
    pixels = np.broadcast_to(image, (height, width, 3))
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.BOX
    picture = Image.fromarray(pixels).resize(shown, how)
    line = 0 if caption is None else _LINE
    width, height = (size, size) if square else shown
    x, y = (width - shown[0]) // 2, (height - shown[1]) // 2  # of the picture's corner
    canvas = Image.new("RGB", (width, height + line))
    canvas.paste(picture, (x, y))
    draw = ImageDraw.Draw(canvas)
    corners, middles = [], []
    for number, (left, top, box_width, box_height) in enumerate(boxes, start=1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        # A box that reaches beyond the image is cut off at its edge.
        x0, y0 = x + max(round(left * zoom), 0), y + max(round(top * zoom), 0)
        x1 = max(x + min(round((left + box_width) * zoom), shown[0]) - 1, x0)
        y1 = max(y + min(round((top + box_height) * zoom), shown[1]) - 1, y0)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=2)
        corners.append((x0, y0, colour))
        middles.append((x + (left + box_width / 2) * zoom, y + (top + box_height / 2) * zoom))
        if path and number > 1:
            draw.line(middles[-2:], fill=colour, width=2)
    # Numbers are drawn after all boxes, so that no box hides one.
    font = ImageFont.load_default(size=max(10, max(shown) // 14))
    for number, (x0, y0, colour) in enumerate(corners, start=1):
        place = draw.textbbox((x0 + 3, y0 + 1), str(number), font=font)
        draw.rectangle((x0, y0, place[2] + 2, place[3] + 2), fill=colour)
        draw.text((x0 + 3, y0 + 1), str(number), fill=(0, 0, 0), font=font)
    if caption:
        caption, font = readable(caption)
        draw.rectangle((0, height, width, height + line), fill=(0, 0, 0))
        draw.text((4, height + 3), caption, fill=(255, 255, 255), font=font)
    return np.array(canvas)


@lru_cache(maxsize=256)
def readable(text: str) -> tuple[str, _Font]:
    """A text without characters that its font lacks, and the font, which lacks the fewest."""
    font = ImageFont.load_default(size=_CAPTION_SIZE)
    if _lacking(text, font):
        font = min([font, *_system_fonts()], key=lambda font: len(_lacking(text, font)))
    escapes = {ord(character): ascii(character)[1:-1] for character in _lacking(text, font)}
    return text.translate(escapes), font


def _lacking(text: str, font: _Font) -> set[str]:
    """The characters that a font draws as the box of an unknown one, or that are not printable."""
    box = bytes(font.getmask("\U0010ffff"))  # not a character
    return {c for c in set(text) - {" "} if not c.isprintable() or bytes(font.getmask(c)) == box}


@lru_cache(maxsize=1)
def _system_fonts() -> list[ImageFont.FreeTypeFont]:
    found = []
    for name in FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, _CAPTION_SIZE))
    return found


def crop_boxes(
    locations: np.ndarray, image_shape: Sequence[int], glimpse_size: int, whole_first: bool = False
) -> list[tuple[int, int, int, int]]:
    """The boxes of the finest crops at `locations` ``(T, 2)``, as `draw_episode` reads them.

    `image_shape` begins with height and width. If the first glimpse was a thumbnail, `whole_first`
    adds its box, the whole image, before the others.
    """
    height, width = image_shape[:2]
    locations = np.clip(np.asarray(locations, dtype=np.float64).reshape(-1, 2), -1, 1)
    lefts = sensor.corner(locations[:, 0], width, glimpse_size).tolist()
    tops = sensor.corner(locations[:, 1], height, glimpse_size).tolist()
    whole = [(0, 0, width, height)] if whole_first else []
    return whole + [(*place, glimpse_size, glimpse_size) for place in zip(lefts, tops, strict=True)]


def episode_caption(
    step: int,
    prediction: int | None,
    label: int | None,
    class_names: Sequence[str],
    over: bool = False,
) -> str:
    """The caption of a frame: glimpses taken, last prediction, true class; None is not known."""
    said = "?" if prediction is None else class_names[prediction]
    truth = "" if label is None else f", is {class_names[label]}"
    return f"{step}{' end' if over else ''}: says {said}{truth}"


class Window:
    """A window that shows at most `fps` frames per second; it opens at the first one."""

    def __init__(self, fps: int) -> None:
        self._fps = fps
        self._screen: Any = None

    def show(self, frame: np.ndarray) -> None:
        """Shows a frame ``(h, w, 3)`` uint8 for ``1 / fps`` seconds; needs pygame."""
        pygame = require("pygame", "render")
        size = (frame.shape[1], frame.shape[0])
        if self._screen is None:
            pygame.display.init()
            pygame.display.set_caption("DT-RAM")
            self._clock = pygame.time.Clock()
        if self._screen is None or self._screen.get_size() != size:
            self._screen = pygame.display.set_mode(size)
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Closes the window, if it was opened."""
        if self._screen is not None:
            require("pygame", "render").display.quit()
            self._screen = None

"""Image files to pixels: any format and colour mode, resized, optionally cropped to their boxes.

Needs Pillow, which is imported when the first file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError, ImageRefusedError
from ..sources.listing import ImageList

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**28  # of an image file, such as 16384x16384; the variable below sets another limit
MAX_PIXELS_SETTING = "DTRAM_MAX_PIXELS"
MAX_ASPECT = 100  # longer side over shorter, where images are resized
_READER = 2  # raise it when the pixels of a file change: its cache is made again
_ALONE = 2**26  # pixels above which an image is decoded while no other one of that size is
_BAND = 2**22  # pixels that are converted at once
_ORIENTATION = 0x0112  # the EXIF tag; its values from 5 on swap height and width
_limits, _alone = threading.Lock(), threading.Lock()


@dataclass(frozen=True)
class DecodedImages:
    """The images of a list as RGB, upright and resized, in the form that the cache reads.

    Transparent pixels become white. An animation gives its first frame. A photograph that its
    camera marked as rotated is rotated upright. Grey of 16 or 32 bits or of floats is read as
    `_white` says.

    `image_size` is the length of the shorter side after bicubic resizing with antialiasing, pixels;
    the aspect ratio stays. None: no resizing. `crop_to_box` crops each image to its bounding box
    before resizing, and raises `ValueError` without boxes.
    """

    listing: ImageList
    image_size: int | None = None
    crop_to_box: bool = False
    channels: int = 3
    _file_sizes: dict[int, tuple[int, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.crop_to_box and self.listing.boxes is None:
            raise ValueError("crop_to_box=True: the images have no bounding boxes; expected False")

    def __len__(self) -> int:
        return len(self.listing)

    def name(self, i: int) -> str:
        """Path of an image's file."""
        return os.path.join(self.listing.root, self.listing.paths[i])

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the images by their files' paths, sizes and times, and by the options."""
        digest = hashlib.sha256()
        root = os.fspath(self.listing.root)
        for i, path in enumerate(self.listing.paths):
            try:
                status = os.stat(f"{root}/{path}")
            except OSError as error:
                missing = f"{self.name(i)}: no such file. {self.listing.fix}"
                raise DatasetNotFoundError(missing) from error
            about = f"\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(os.fsencode(path) + about.encode())
        if self.listing.boxes is not None:  # the cache holds them too
            digest.update(np.ascontiguousarray(self.listing.boxes, dtype="<f8").tobytes())
        options = {"image_size": self.image_size, "crop_to_box": self.crop_to_box}
        return {"files": digest.hexdigest(), "reader": _READER, **options}

    def size(self, i: int) -> tuple[int, int]:
        """Height and width that `pixels` will have; reads only the file's header."""
        with opened(self.name(i), self.listing.fix) as file:
            self._file_sizes[i] = upright_size(file, self._upright)
            left, top, right, bottom = self._box(i, file) or (0, 0, *self._file_sizes[i][::-1])
            return resized(bottom - top, right - left, self.image_size)

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """``box`` ``(N, 4)`` float32 in pixels of the resized images, unless there are no boxes.

        `sizes` ``(N, 2)`` are their heights and widths; call `size` of every image first.
        """
        if self.listing.boxes is None:
            return {}
        if self.crop_to_box:
            return {"box": np.pad(sizes[:, ::-1], ((0, 0), (2, 0))).astype(np.float32)}
        scale = sizes / np.array([self._file_sizes[i] for i in range(len(self))])
        return {"box": (self.listing.boxes * scale[:, [1, 0, 1, 0]]).astype(np.float32)}

    def pixels(self, i: int) -> np.ndarray:
        """The image ``(H, W, 3)`` uint8; raises as `opened`."""
        with opened(self.name(i), self.listing.fix) as file:
            return decode(file, self.image_size, box=self._box(i, file), upright=self._upright)

    def _box(self, i: int, file: Image.Image) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of the crop of a file's image; None: no crop."""
        if not self.crop_to_box or self.listing.boxes is None:
            return None
        width, height = file.size
        left, top, box_width, box_height = self.listing.boxes[i].tolist()
        x0, y0 = max(int(np.floor(left)), 0), max(int(np.floor(top)), 0)
        x1 = min(int(np.ceil(left + box_width)), width)
        y1 = min(int(np.ceil(top + box_height)), height)
        if x1 <= x0 or y1 <= y0:
            raise DatasetCorruptError(
                f"{self.name(i)}: its box, left {left:g}, top {top:g}, {box_width:g} x "
                f"{box_height:g}, lies outside the image, {width} x {height}. {self.listing.fix}"
            )
        return x0, y0, x1, y1

    @property
    def _upright(self) -> bool:
        return self.listing.boxes is None  # published boxes refer to the file's own orientation


def decode(
    file: Image.Image,
    image_size: int | None = None,
    *,
    box: tuple[int, int, int, int] | None = None,
    upright: bool = True,
) -> np.ndarray:
    """Converts an image that Pillow opened to pixels ``(H, W, 3)`` uint8, as `DecodedImages` says.

    `box` is left, top, right and bottom of the crop, in pixels of the upright image; None: no crop.
    `upright` says whether to rotate a photograph that its camera marked as rotated.
    """
    from PIL import Image

    is_deep = _is_deep(file)
    height, width = upright_size(file, upright)
    left, top, right, bottom = box or (0, 0, width, height)
    target = resized(bottom - top, right - left, image_size)
    whole = (left, top, right, bottom) == (0, 0, width, height)
    if whole and not (upright and _orientation(file) > 1) and file.mode == "RGB":
        # Decodes a JPEG at 1/2, 1/4 or 1/8, but at least at twice the target for the resize below.
        file.draft("RGB", (2 * target[1], 2 * target[0]))
    file.load()
    if is_deep:
        _check_16_bit_colour(file)
    image = _to_rgb(file)
    turn = _turn(file) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if not whole:
        image = image.crop((left, top, right, bottom))
    if (image.height, image.width) != target:
        image = image.resize((target[1], target[0]), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def loaded_copy(image: Image.Image) -> Image.Image:
    """A copy of a Pillow image for `decode`, which may change it.

    Raises `ImageRefusedError` as `decode`, which cannot tell 16-bit colour once it is loaded.
    """
    given: Any = image
    is_deep, path = _is_deep(image), getattr(given, "filename", None)
    if path:
        given.filename = ""  # else Pillow maps plain TIFFs into memory, and turned ones wrongly
    try:
        copy = image.copy()
    finally:
        if path:
            given.filename = path
    if is_deep:
        _check_16_bit_colour(copy)
    return copy


def upright_size(file: Image.Image, upright: bool = True) -> tuple[int, int]:
    """Height and width of the image that `decode` reads, before resizing."""
    width, height = file.size
    if upright and _orientation(file) >= 5:
        if tags := getattr(file, "tag_v2", None):  # Pillow swaps the size of some turned TIFFs
            width, height = tags[256], tags[257]
        return width, height
    return height, width


def resized(height: int, width: int, image_size: int | None) -> tuple[int, int]:
    """Height and width after the shorter side is resized to `image_size`; None: no resizing.

    Raises:
        ImageRefusedError: the aspect is so extreme that the resized image would be huge.
    """
    if image_size is None:
        return height, width
    shorter = min(height, width)
    if max(height, width) > MAX_ASPECT * shorter:
        raise ImageRefusedError(
            f"{width} x {height} pixels, expected a longer side of at most {MAX_ASPECT} times the "
            f"shorter, which is resized to {image_size}. Crop the image, or leave it out."
        )
    height, width = (max(round(s * image_size / shorter), image_size) for s in (height, width))
    return height, width


@contextlib.contextmanager
def opened(path: str, fix: str) -> Iterator[Image.Image]:
    """Opens an image file with Pillow, for code under `pillow_limits`; raises as `reading`.

    Very large images are opened one at a time, so that several threads do not hold several.
    """
    from PIL import Image

    most = max_pixels()
    with reading(path, fix):
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("not a regular file")  # opening a FIFO would wait for ever
        # Given a path, Pillow maps plain TIFFs into memory, and turned ones wrongly.
        with open(path, "rb") as stream, Image.open(stream) as file:
            pixels = file.width * file.height
            if pixels > most:
                raise ImageRefusedError(
                    f"{file.width} x {file.height} pixels, expected at most {most:,} pixels. "
                    f"Shrink it, leave it out, or set {MAX_PIXELS_SETTING}={pixels} to read it, "
                    f"which takes up to {pixels * 16 / 1e9:.1f} GB of memory."
                )
            with _alone if pixels > _ALONE else contextlib.nullcontext():
                yield file


@contextlib.contextmanager
def reading(name: str, fix: str) -> Iterator[None]:
    """Names the image in the errors of a block that reads it.

    Raises:
        DatasetNotFoundError: there is no such file; the message ends in `fix`.
        DatasetCorruptError: the image is damaged, or not an image; the message ends in `fix`.
        ImageRefusedError: the image is intact and cannot be used.
    """
    try:
        yield
    except (DatasetCorruptError, DatasetNotFoundError, Warning):
        raise
    except ImageRefusedError as error:
        raise ImageRefusedError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{name}: no such file. {fix}") from error
    except MemoryError as error:
        raise ImageRefusedError(
            f"{name}: it does not fit into memory. Shrink it, or leave it out."
        ) from error
    except Exception as error:  # Pillow raises many kinds for damaged files, such as struct.error
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetCorruptError(f"{name}: damaged, or no image ({cause}). {fix}") from error


def max_pixels() -> int:
    """The most pixels that an image file may have: `MAX_PIXELS`, unless the user set a limit."""
    given = os.environ.get(MAX_PIXELS_SETTING, str(MAX_PIXELS))
    if not (given.isdecimal() and int(given)):
        raise ValueError(f"{MAX_PIXELS_SETTING}={given}: expected a number of pixels above 0")
    return int(given)


@contextlib.contextmanager
def pillow_limits() -> Iterator[None]:
    """Replaces Pillow's limits while files are read.

    `opened` checks the number of pixels. Texts and colour profiles of a PNG may be as large as all
    of them together, since they do not change the pixels. ValueError if `max_pixels` is not set to
    a number.
    """
    from PIL import Image, PngImagePlugin

    max_pixels()  # a bad setting is one error, and not one for each file
    with _limits:
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS = None
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def _orientation(file: Image.Image) -> int:
    """How the pixels are still to be turned, 1 (not at all) to 8; Pillow turns TIFFs in `load`."""
    try:
        value = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # odd metadata does not make an image unreadable
        return 1
    return value if value in range(1, 9) else 1


def _turn(file: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright; None: it is."""
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(file))


def _to_rgb(file: Image.Image) -> Image.Image:
    """Converts any mode to RGB, band by band, so that few copies take memory at once."""
    from PIL import Image

    is_grey = file.mode.startswith("I;16") or file.mode in ("I", "F")
    if file.mode == "RGB" and "transparency" not in file.info:
        return file
    white = _white(file) if is_grey else 255
    rgb = Image.new("RGB", file.size)
    for top, band in _bands(file):
        if is_grey:
            band = Image.fromarray(_scaled(band, white))
        elif "transparency" in file.info or file.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
            clear = band.convert("RGBA")
            opaque = Image.new("RGBA", clear.size, (255, 255, 255, 255))
            band = Image.alpha_composite(opaque, clear)
        rgb.paste(band.convert("RGB"), (0, top))
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Parts of an image, each some whole rows, and their first rows."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _white(file: Image.Image) -> int:
    """The value of white in grey of 16 or 32 bits or of floats, which a file does not say.

    It is the least of 1 (floats only), 255, 4095 and 65535 that no pixel exceeds. A warning says
    so, unless it is 65535 for integers or 255 for floats.

    Raises:
        ImageRefusedError: a value is negative, above 65535 or not a number, or the largest float is
            just above 1, which would be nearly black.
    """
    clear = file.info.get("transparency")  # the value of transparent pixels
    is_float = file.mode == "F"
    ranges = []
    for _, band in _bands(file):
        values = np.asarray(band)
        if clear is not None:
            values = values[values != clear]
        ranges += [(values.min(), values.max())] if values.size else []
    low, high = np.min(ranges or 0), np.max(ranges or 0)
    whites = (1, 255, 4095, 65535) if is_float else (255, 4095, 65535)
    white = next((white for white in whites if high <= white), None)
    if white is None or not low >= 0 or (is_float and 1 < high < 16):
        expected = "0 to 65535, and of floats a largest value of at most 1 or at least 16"
        raise ImageRefusedError(
            f"grey values from {low:g} to {high:g}, expected {expected}. Convert it to 8 bits."
        )
    if high > 0 and white != (255 if is_float else 65535):
        kind = "floats" if is_float else "16 or 32 bits"
        warnings.warn(
            f"grey images of {kind} whose largest value is at most {white} are read with {white} "
            "as white; convert them to 8 bits if that is wrong",
            stacklevel=2,
        )
    return white


def _scaled(grey: Image.Image, white: int) -> np.ndarray:
    """Grey ``(H, W)`` uint8 of values from 0 to `white`; transparent pixels are 255."""
    values, clear = np.asarray(grey), grey.info.get("transparency")
    is_float = values.dtype.kind == "f"
    scaled = np.rint(values * (255 / white)) if is_float else values // ((white + 1) // 256)
    return np.where(values == clear, 255, scaled).astype(np.uint8)


def _is_deep(file: Image.Image) -> bool:
    """Whether a file has 16 bits a value; False once it is loaded."""
    return any(";16" in str(tile) for tile in getattr(file, "tile", ()))


def _check_16_bit_colour(file: Image.Image) -> None:
    """Raises `ImageRefusedError` for colours of fewer bits in a file of 16 bits.

    Pillow keeps the upper 8 bits of 16-bit colour, which would be black without a word.
    """
    bands = {"RGB": 3, "RGBA": 3, "LA": 1}.get(file.mode)  # without opacity
    if bands and np.array(file.getextrema())[:bands].max() < 16:
        raise ImageRefusedError(
            "16-bit values of at most 4095 of 65535, which is nearly black. Convert it to 8 bits."
        )

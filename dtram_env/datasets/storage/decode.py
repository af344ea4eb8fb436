"""Image files to pixels: any format and colour mode, resized, optionally cropped to their boxes.

Needs Pillow, which is imported when the first file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..sources.listing import ImageList

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag; its values from 5 on swap height and width
_limit = threading.Lock()


@dataclass(frozen=True)
class DecodedImages:
    """The images of a list as RGB, upright and resized, in the form that the cache reads.

    Transparent pixels become white. 16-bit grey keeps its upper 8 bits. An animation gives its
    first frame. A photograph that its camera marked as rotated is rotated upright.

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
        return str(self.listing.root / self.listing.paths[i])

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the images by their files' paths, sizes and times, and by the options."""
        digest = hashlib.sha256()
        for i, path in enumerate(self.listing.paths):
            try:
                status = (self.listing.root / path).stat()
            except OSError as error:
                missing = f"{self.name(i)}: no such file. {self.listing.fix}"
                raise DatasetNotFoundError(missing) from error
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        if self.listing.boxes is not None:  # the cache holds them too
            digest.update(np.ascontiguousarray(self.listing.boxes, dtype="<f8").tobytes())
        options = {"image_size": self.image_size, "crop_to_box": self.crop_to_box}
        return {"files": digest.hexdigest(), **options}

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
    from PIL import Image, ImageOps

    height, width = upright_size(file, upright)
    left, top, right, bottom = box or (0, 0, width, height)
    target = resized(bottom - top, right - left, image_size)
    whole = (left, top, right, bottom) == (0, 0, width, height)
    rotated = upright and _is_rotated(file)
    if whole and not rotated and file.mode == "RGB":
        # Decodes a JPEG at 1/2, 1/4 or 1/8, but at least at twice the target for the resize below.
        file.draft("RGB", (2 * target[1], 2 * target[0]))
    image = _to_rgb(file)
    if rotated:
        image.getexif()[_ORIENTATION] = file.getexif()[_ORIENTATION]  # a conversion may lose it
        image = ImageOps.exif_transpose(image) or image
    if not whole:
        image = image.crop((left, top, right, bottom))
    if (image.height, image.width) != target:
        image = image.resize((target[1], target[0]), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def upright_size(file: Image.Image, upright: bool = True) -> tuple[int, int]:
    """Height and width of the image that `decode` reads, before resizing; reads only the header."""
    width, height = file.size
    if upright and _is_rotated(file) and file.getexif()[_ORIENTATION] >= 5:
        return width, height
    return height, width


def resized(height: int, width: int, image_size: int | None) -> tuple[int, int]:
    """Height and width after the shorter side is resized to `image_size`; None: no resizing."""
    if image_size is None:
        return height, width
    shorter = min(height, width)
    height, width = (max(round(s * image_size / shorter), image_size) for s in (height, width))
    return height, width


@contextlib.contextmanager
def opened(path: str, fix: str) -> Iterator[Image.Image]:
    """Opens an image file with Pillow; errors in the block name the file and end in `fix`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file. {fix}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetCorruptError(f"{path}: damaged, or no image ({cause}). {fix}") from error


@contextlib.contextmanager
def large_images_allowed() -> Iterator[None]:
    """Lifts Pillow's limit on the number of pixels, because the files are the user's own."""
    from PIL import Image

    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_rotated(file: Image.Image) -> bool:
    return file.getexif().get(_ORIENTATION, 1) in range(2, 9)


def _to_rgb(file: Image.Image) -> Image.Image:
    """Converts any mode to RGB."""
    from PIL import Image

    if file.mode == "RGB" and "transparency" not in file.info:
        file.load()
        return file
    if file.mode.startswith("I;16") or file.mode in ("I", "F"):
        values = np.asarray(file, dtype=np.float64) / (1 if file.mode == "F" else 256)
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in file.info or file.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        clear = file.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    return file.convert("RGB")

"""Image files turned into pixels: any format and colour mode, resized, cropped to their boxes.

Needs Pillow, which is imported when the first file is read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DatasetCorruptError, DatasetNotFoundError
from ..sources.listing import ImageList

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, height and width change places
_limit = threading.Lock()


@dataclass(frozen=True)
class DecodedImages:
    """The images of a list as the cache takes them (`cache.Source`): RGB, upright, of one scale.

    Transparent pixels become white, 16-bit grey is cut to its upper 8 bits, of an animation the
    first frame is taken. A photograph that its camera marked as turned is turned upright.

    Attributes:
        listing: the files.
        image_size: the shorter side is resized to it, with antialiasing (bicubic), the aspect kept;
            None leaves images at their own size.
        crop_to_box: whether each image is cut to its bounding box first.
    """

    listing: ImageList
    image_size: int | None = None
    crop_to_box: bool = False
    channels: int = 3
    _files: dict[int, tuple[int, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.crop_to_box and self.listing.boxes is None:
            raise ValueError("crop_to_box=True: the images have no bounding boxes; expected False")

    def __len__(self) -> int:
        return len(self.listing.paths)

    def name(self, i: int) -> str:
        """Where an image lies."""
        return str(self.listing.root / self.listing.paths[i])

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a cache to be these images: files, their sizes and times."""
        import hashlib

        digest = hashlib.sha256()
        for i, path in enumerate(self.listing.paths):
            try:
                status = (self.listing.root / path).stat()
            except OSError as error:
                raise DatasetNotFoundError(
                    f"{self.name(i)}: no such file. {self.listing.mend}"
                ) from error
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        if self.listing.boxes is not None:  # they are kept beside the pixels
            digest.update(np.ascontiguousarray(self.listing.boxes, dtype="<f8").tobytes())
        return {
            "files": digest.hexdigest(),
            "image_size": self.image_size,
            "crop_to_box": self.crop_to_box,
        }

    def size(self, i: int) -> tuple[int, int]:
        """Height and width that `pixels` will have; only the file's header is read."""
        with self._opened(i) as file:
            self._files[i] = upright_size(file, self._upright)
            left, top, right, bottom = self._box(i, file) or (0, 0, *self._files[i][::-1])
            return resized(bottom - top, right - left, self.image_size)

    def metadata(self, sizes: np.ndarray) -> dict[str, np.ndarray]:
        """What is known of the images beside their labels, once the size of each was read.

        Args:
            sizes: ``(N, 2)``, height and width that the images have after resizing.

        Returns:
            ``box``: ``(N, 4)`` float32, left, top, width and height of what the image shows, in
            pixels of the resized image; nothing if no boxes are known.
        """
        if self.listing.boxes is None:
            return {}
        if self.crop_to_box:
            return {"box": np.pad(sizes[:, ::-1], ((0, 0), (2, 0))).astype(np.float32)}
        scale = sizes / np.array([self._files[i] for i in range(len(self))])
        return {"box": (self.listing.boxes * scale[:, [1, 0, 1, 0]]).astype(np.float32)}

    def pixels(self, i: int) -> np.ndarray:
        """The image ``(H, W, 3)`` uint8.

        Raises:
            DatasetNotFoundError: the file is gone.
            DatasetCorruptError: it is damaged or no image.
        """
        with self._opened(i) as file:
            box = self._box(i, file)
            return decode(file, self.image_size, box=box, upright=self._upright)

    def _box(self, i: int, file: Image.Image) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of what is kept of a file's image; None if all is."""
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
                f"{box_height:g}, lies outside the image, {width} x {height}. {self.listing.mend}"
            )
        return x0, y0, x1, y1

    @property
    def _upright(self) -> bool:
        # Published boxes count pixels of the file as it is stored.
        return self.listing.boxes is None

    def _opened(self, i: int) -> contextlib.AbstractContextManager[Image.Image]:
        return opened(self.name(i), self.listing.mend)


def decode(
    file: Image.Image,
    image_size: int | None = None,
    *,
    box: tuple[int, int, int, int] | None = None,
    upright: bool = True,
) -> np.ndarray:
    """Pixels of an image that Pillow opened, the one way from files to what an agent sees.

    Args:
        file: of any format and mode; see `DecodedImages` for what becomes of those that are not
            RGB. A JPEG that was not read yet is read at a half or less where that is enough.
        image_size: the shorter side is resized to it, with antialiasing (bicubic), the aspect kept;
            None: as it is.
        box: left, top, right, bottom of what is kept, in pixels of the upright image; None: all.
        upright: whether a photograph that its camera marked as turned is turned upright.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    from PIL import Image, ImageOps

    height, width = upright_size(file, upright)
    left, top, right, bottom = box or (0, 0, width, height)
    target = resized(bottom - top, right - left, image_size)
    whole = (left, top, right, bottom) == (0, 0, width, height)
    turned = upright and _is_turned(file)
    if whole and not turned and file.mode == "RGB":
        # A JPEG can be read at a half or less; twice what is needed leaves the rest to the resize
        # below.
        file.draft("RGB", (2 * target[1], 2 * target[0]))
    image = _to_rgb(file)
    if turned:
        transposed = ImageOps.exif_transpose(_with_orientation(image, file))
        assert transposed is not None
        image = transposed
    if not whole:
        image = image.crop((left, top, right, bottom))
    if (image.height, image.width) != target:
        image = image.resize((target[1], target[0]), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def upright_size(file: Image.Image, upright: bool = True) -> tuple[int, int]:
    """Height and width of an image as `decode` reads it, before resizing; the header is enough."""
    width, height = file.size
    if upright and _is_turned(file) and file.getexif()[_ORIENTATION] >= 5:
        return width, height
    return height, width


def resized(height: int, width: int, image_size: int | None) -> tuple[int, int]:
    """Height and width after the shorter side was resized to `image_size`; None: as they are."""
    if image_size is None:
        return height, width
    shorter = min(height, width)
    height, width = (
        max(round(side * image_size / shorter), image_size) for side in (height, width)
    )
    return height, width


@contextlib.contextmanager
def opened(path: str, mend: str) -> Iterator[Image.Image]:
    """An image file, as Pillow opens it; what goes wrong while it is in use names the file.

    Args:
        path: of the file.
        mend: what to do about a file that is missing or damaged, one sentence.

    Raises:
        DatasetNotFoundError: no such file.
        DatasetCorruptError: it is damaged or no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"{path}: no such file. {mend}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DatasetCorruptError(
            f"{path}: damaged, or no image ({_first_line(error)}). {mend}"
        ) from error


@contextlib.contextmanager
def large_images_allowed() -> Iterator[None]:
    """Lets Pillow open images of any number of pixels: these are the user's own files."""
    from PIL import Image

    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_turned(file: Image.Image) -> bool:
    """Whether the camera marked the photograph as turned or mirrored."""
    return file.getexif().get(_ORIENTATION, 1) in range(2, 9)


def _to_rgb(file: Image.Image) -> Image.Image:
    """Any mode as RGB."""
    from PIL import Image

    if file.mode == "RGB" and "transparency" not in file.info:
        file.load()
        return file
    if file.mode.startswith("I;16") or file.mode in ("I", "F"):
        values = np.asarray(file, dtype=np.float64)
        scale = 256.0 if file.mode != "F" else 1.0
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in file.info or file.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        clear = file.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    return file.convert("RGB")


def _with_orientation(image: Image.Image, file: Image.Image) -> Image.Image:
    """`image` with the file's mark of how it was turned; a conversion may have lost it."""
    exif = image.getexif()
    exif[_ORIENTATION] = file.getexif()[_ORIENTATION]
    return image


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

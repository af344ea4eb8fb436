"""Decoding: known pixels in every mode, sizes, boxes; errors name the damaged file."""

import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from dtram_env.datasets import DatasetCorruptError, DatasetNotFoundError
from dtram_env.datasets.errors import ImageRefusedError
from dtram_env.datasets.sources.listing import ImageList
from dtram_env.datasets.storage import decode as storage_decode
from dtram_env.datasets.storage.decode import (
    DecodedImages,
    loaded_copy,
    opened,
    pillow_limits,
    upright_size,
)

ORIENTATION = 0x0112
FIX = "Do this and that."


def listed(path: Path, *names: str, boxes: Any = None) -> ImageList:
    count = len(names)
    rows = None if boxes is None else np.array(boxes, dtype=np.float64)
    return ImageList(path, names, np.zeros(count, np.int64), ("a",), rows, FIX)


def decode(path: Path, **options: Any) -> np.ndarray:
    """Decodes one file and checks that `size` agrees with `pixels`."""
    images = DecodedImages(
        listed(path.parent, path.name, boxes=options.pop("boxes", None)), **options
    )
    size, pixels = images.size(0), images.pixels(0)
    assert pixels.shape == (*size, 3) and pixels.dtype == np.uint8
    return pixels


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# --- Modes


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif", "webp"])
def test_grey(tmp_path: Path, suffix: str) -> None:
    pixels = random_pixels(5, 7)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(decode(path), np.stack([pixels] * 3, -1))


PALETTE = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
PALETTE.putpalette([1, 2, 3, 40, 50, 60, 250, 0, 7])
COLOURS = [[1, 2, 3], [40, 50, 60], [250, 0, 7]]
WITHOUT_ONE = [[1, 2, 3], [255] * 3, [250, 0, 7]]
# The last is a fifth of itself and four fifths white: 40 + 204, 204, 20 + 204.
FADING = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], np.uint8)
GREYS = np.array([[0, 0xFF, 0xABCD, 0xFFFF]], np.uint16)


@pytest.mark.parametrize(
    ("suffix", "image", "options", "expected"),
    [
        ("png", np.array([[True, False, True]]), {}, [255, 0, 255]),
        ("png", FADING, {}, [[200, 0, 100], [255] * 3, [244, 204, 224]]),
        ("png", FADING[..., 2:], {}, [100, 255, 224]),
        ("png", PALETTE, {}, COLOURS),
        ("gif", PALETTE, {}, COLOURS),
        ("png", PALETTE, {"transparency": 1}, WITHOUT_ONE),
        ("gif", PALETTE, {"transparency": 1}, WITHOUT_ONE),
        ("png", PALETTE, {"transparency": bytes([255, 0, 255])}, WITHOUT_ONE),
        ("png", np.uint8([COLOURS]), {"transparency": (40, 50, 60)}, WITHOUT_ONE),
        ("png", GREYS, {}, [0, 0, 0xAB, 0xFF]),  # the upper 8 of 16 bits
        ("tif", GREYS, {}, [0, 0, 0xAB, 0xFF]),
        ("png", GREYS, {"transparency": 0xABCD}, [0, 0, 255, 255]),
    ],
)
def test_known_colours(
    tmp_path: Path, suffix: str, image: Any, options: dict[str, Any], expected: list[Any]
) -> None:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(tmp_path / f"a.{suffix}", **options)
    expected = [[value] * 3 if isinstance(value, int) else value for value in expected]
    assert decode(tmp_path / f"a.{suffix}")[0].tolist() == expected


def test_cmyk(tmp_path: Path) -> None:
    # No black: red, green and blue are what cyan, magenta and yellow leave.
    ink = np.full((16, 16, 4), (10, 200, 90, 0), np.uint8)
    image = Image.frombytes("CMYK", (16, 16), ink.tobytes())
    image.save(tmp_path / "a.tif")
    assert (decode(tmp_path / "a.tif") == (245, 55, 165)).all()
    image.save(tmp_path / "a.jpg", quality=100)
    assert np.abs(decode(tmp_path / "a.jpg").astype(int) - (245, 55, 165)).max() <= 3


# Values of the file, and the grey that is read.
@pytest.mark.parametrize(
    ("dtype", "values", "white", "expected"),
    [
        ("float32", [0, 0.5, 1], 1, [0, 128, 255]),
        ("float32", [0, 7.9, 255], None, [0, 8, 255]),
        ("float32", [0, 8, 16], None, [0, 8, 16]),
        ("float32", [0, 2048, 4095], 4095, [0, 128, 255]),
        ("float32", [0, 32768, 65535], 65535, [0, 128, 255]),
        ("uint16", [0, 15, 4095], 4095, [0, 0, 255]),
        ("uint16", [0, 15, 255], 255, [0, 15, 255]),
        ("uint16", [0, 15, 4096], None, [0, 0, 16]),
        ("int32", [0, 200, 255], 255, [0, 200, 255]),
        ("int32", [16, 160, 4000], 4095, [1, 10, 250]),
        ("int32", [0, 255, 65535], None, [0, 0, 255]),
        ("float32", [0, 0, 0], None, [0, 0, 0]),
        ("uint16", [0, 0, 0], None, [0, 0, 0]),
    ],
)
def test_white_is_the_least_range_that_holds_all_values(
    tmp_path: Path, dtype: str, values: list[float], white: int | None, expected: list[int]
) -> None:
    Image.fromarray(np.array([values], dtype)).save(tmp_path / "a.tif")
    warns = warnings.catch_warnings()
    kind = "floats" if dtype == "float32" else "16 or 32 bits"
    message = f"images of {kind} whose largest value is at most {white} are read with {white} as"
    with pytest.warns(UserWarning, match=message) if white else warns:
        assert decode(tmp_path / "a.tif")[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "values", "found"),
    [
        ("float32", [-3, 7], "-3 to 7"),
        ("float32", [0, 70000], "0 to 70000"),
        ("float32", [0, np.nan], "nan to nan"),
        ("float32", [0, np.inf], "0 to inf"),
        ("float32", [0, 1.02], "0 to 1.02"),  # with 255 as white it would be black without a word
        ("int32", [-1, 9], "-1 to 9"),
        ("int32", [0, 65536], "0 to 65536"),
    ],
)
def test_values_of_no_known_range_are_refused(
    tmp_path: Path, dtype: str, values: list[float], found: str
) -> None:
    Image.fromarray(np.array([values], dtype)).save(tmp_path / "a.tif")
    message = rf"a\.tif: grey values from {found}, expected 0 to 65535, .* Convert it to 8 bits\."
    with pytest.raises(ImageRefusedError, match=message):
        decode(tmp_path / "a.tif")


def test_a_transparent_value_tells_nothing_of_the_range(tmp_path: Path) -> None:
    values = np.array([[0, 2048, 0xFFFF]], np.uint16)  # 12 bits, but for the transparent pixel
    Image.fromarray(values).save(tmp_path / "b.png", transparency=0xFFFF)
    with pytest.warns(UserWarning, match="4095 as white"):
        assert decode(tmp_path / "b.png")[0, :, 1].tolist() == [0, 128, 255]


def write_16_bit_colour(path: Path, pixels: np.ndarray) -> None:
    """Pillow reads 16-bit colour and cannot write it: a PNG by hand."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour(tmp_path: Path, channels: int) -> None:
    pixels = np.full((2, 3, channels), 0xFFFF, np.uint16)
    pixels[..., 0] = 0x12FF
    write_16_bit_colour(tmp_path / "a.png", pixels)
    assert (decode(tmp_path / "a.png")[..., 0] == 0x12).all()
    pixels[..., : 3 if channels > 2 else 1] = 0xFFF
    write_16_bit_colour(tmp_path / "b.png", pixels)
    with pytest.raises(ImageRefusedError, match=r"b\.png: 16-bit values of at most 4095"):
        decode(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as file, pytest.raises(ImageRefusedError, match="16-bit"):
        loaded_copy(file)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (40, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decode(tmp_path / "a.gif") == 40).all()


# --- Turned photographs

# From what is seen upright to what the camera stored, by the EXIF number.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),  # is turned clockwise to be upright
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def save_turned(path: Path, pixels: np.ndarray, orientation: int, **options: Any) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    Image.fromarray(stored).save(path, exif=exif, **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("orientation", STORED)
def test_photographs_are_upright(tmp_path: Path, orientation: int, mode: str) -> None:
    path, pixels = tmp_path / "a.png", random_pixels(5, 8, 3)
    shown = pixels if mode != "L" else np.stack([pixels[..., 0]] * 3, -1)
    given = {"RGB": pixels, "L": pixels[..., 0], "RGBA": np.dstack([pixels, np.full((5, 8), 255)])}
    save_turned(path, given[mode].astype(np.uint8), orientation)
    np.testing.assert_array_equal(decode(path), shown)


def test_a_turned_jpeg_is_resized_upright(tmp_path: Path) -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, :200] = 255
    save_turned(tmp_path / "a.jpg", pixels, 6, quality=95)
    small = decode(tmp_path / "a.jpg", image_size=30)
    assert small.shape == (30, 40, 3)
    assert (small[:, :18] > 250).all() and (small[:, 22:] < 5).all()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *(("RGB", name) for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits")),
        *((mode, name) for mode in ("L", "P", "RGBA", "CMYK", "I;16") for name in ("raw", "zip")),
        ("1", "group4"),
    ],
)
def test_turned_tiffs_are_upright(
    tmp_path: Path, mode: str, compression: str, orientation: int, loaded: bool
) -> None:
    grey = np.zeros((5, 8), np.uint8)
    grey[1, 2:] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](grey)))
    compression = compression.replace("zip", "tiff_adobe_deflate")
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stored.convert(mode).save(tmp_path / "a.tif", exif=exif, compression=compression)
    expected = np.stack([grey] * 3, -1)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif"), expected)
    with (tmp_path / "a.tif").open("rb") as stream, Image.open(stream) as file:
        if loaded:
            file.load()
        assert upright_size(file) == (5, 8)
        np.testing.assert_array_equal(storage_decode.decode(file), expected)
        assert upright_size(file) == (5, 8)


def test_a_tiff_that_only_its_xmp_turns(tmp_path: Path) -> None:
    pixels = random_pixels(5, 8, 3)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[700] = b'<x tiff:Orientation="6"/>'
    Image.fromarray(np.ascontiguousarray(STORED[6](pixels))).save(tmp_path / "a.tif", tiffinfo=info)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif"), pixels)


# A signed rational resolution cannot be written back; the orientation before it is 6.
ODD_TAG = struct.pack("<HHIHHHHIi", 0x112, 3, 1, 6, 0, 0x11A, 9, 1, -1) + b"\0" * 4
ODD_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + ODD_TAG


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_odd_tag_does_not_hide_the_orientation(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / f"a.{suffix}", exif=ODD_EXIF)
    assert decode(tmp_path / f"a.{suffix}").shape == (16, 8, 3)


def text(size: int, compressed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("about", "x" * size, zip=compressed)
    return info


@pytest.mark.parametrize(
    ("suffix", "metadata"),
    [
        *((suffix, {"exif": b"Exif\0\0 garbage"}) for suffix in ("jpg", "png", "webp")),
        *((suffix, {"exif": ODD_EXIF[:24]}) for suffix in ("jpg", "png", "webp")),
        *((suffix, {"icc_profile": bytes(2 << 20)}) for suffix in ("jpg", "png", "webp", "tif")),
        ("png", {"pnginfo": text(2 << 20, compressed=True)}),
        ("png", {"pnginfo": text(2 << 20, compressed=False)}),
        ("tif", {"tiffinfo": {34665: 99_999_999}}),  # an EXIF block beyond the end of the file
    ],
)
def test_odd_metadata_damages_no_image(
    tmp_path: Path, suffix: str, metadata: dict[str, Any]
) -> None:
    path = tmp_path / f"a.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the metadata
        Image.new("RGB", (16, 8), "white").save(path, **metadata)
        with pillow_limits():
            np.testing.assert_array_equal(decode(path), np.full((8, 16, 3), 255))


def test_a_chunk_that_pillow_cannot_read_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    short = struct.pack(">I4sBI", 1, b"gAMA", 0, zlib.crc32(b"gAMA\0"))
    (tmp_path / "a.png").write_bytes(png[:33] + short + png[33:])  # after the header
    with pytest.raises(DatasetCorruptError, match=r"a\.png: damaged, or no image"):
        decode(tmp_path / "a.png")


def test_published_boxes_count_pixels_as_they_are_stored(tmp_path: Path) -> None:
    pixels = random_pixels(5, 8, 3)
    save_turned(tmp_path / "a.png", pixels, 6)
    stored = np.rot90(pixels)
    boxes = [[1, 2, 3, 4]]
    np.testing.assert_array_equal(decode(tmp_path / "a.png", boxes=boxes), stored)
    cropped = decode(tmp_path / "a.png", boxes=boxes, crop_to_box=True)
    np.testing.assert_array_equal(cropped, stored[2:6, 1:4])


# --- Sizes


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (37, 53, (16, 23)),  # 53 * 16 / 37 = 22.9
        (61, 41, (24, 16)),  # 23.8
        (33, 33, (16, 16)),
        (16, 90, (16, 90)),
        (5, 7, (16, 22)),  # enlarged, 22.4
        (200, 3, (1067, 16)),
        (401, 400, (16, 16)),
        (1, 1, (16, 16)),
    ],
)
def test_the_shorter_side_is_exact_and_the_aspect_stays(
    tmp_path: Path, height: int, width: int, expected: tuple[int, int]
) -> None:
    colour = (200, 10, 90)
    Image.new("RGB", (width, height), colour).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", image_size=16)
    assert pixels.shape == (*expected, 3) and (pixels == colour).all()
    if height * width < 10_000:
        assert decode(tmp_path / "a.png").shape == (height, width, 3)


@pytest.mark.parametrize(("width", "height"), [(2, 201), (3000, 2)])
def test_an_extreme_aspect_is_refused(tmp_path: Path, width: int, height: int) -> None:
    """At its own size it is small; its shorter side enlarged to 256 pixels it is not."""
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").shape == (height, width, 3)
    images = DecodedImages(listed(tmp_path, "a.png"), image_size=256)
    message = rf"a\.png: {width} x {height} pixels, expected a longer side of at most 100 times"
    for look in (images.size, images.pixels):
        with pytest.raises(ImageRefusedError, match=message):
            look(0)
    Image.new("RGB", (200, 2)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", image_size=8).shape == (8, 800, 3)


def test_nothing_is_resized_that_has_the_size(tmp_path: Path) -> None:
    pixels = random_pixels(16, 20, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png", image_size=16), pixels)


def test_large_jpegs_are_read_small_and_look_the_same(tmp_path: Path) -> None:
    y, x = np.mgrid[0:800, 0:1000]
    wave = 127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 55)
    pixels = np.stack([wave, 255 - wave, x * 255 / 1000], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    small = decode(tmp_path / "a.jpg", image_size=100)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = np.asarray(image.resize((125, 100), Image.Resampling.BICUBIC))
    assert small.shape == whole.shape
    assert np.abs(small.astype(int) - whole).max() <= 6


def test_shrinking_averages(tmp_path: Path) -> None:
    """Stripes too fine for the small image become grey, not other stripes."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = decode(tmp_path / "a.png", image_size=8)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 3


# --- Boxes


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 1, 3, 4), slice(1, 5), slice(2, 5)),
        ((2.4, 0.6, 2.2, 3.0), slice(0, 4), slice(2, 5)),  # every pixel that it touches
        ((-5, 3, 8, 100), slice(3, 6), slice(0, 3)),  # clipped
        ((0, 0, 9, 6), slice(0, 6), slice(0, 9)),
    ],
)
def test_crop_to_box(tmp_path: Path, box: Any, rows: slice, columns: slice) -> None:
    pixels = random_pixels(6, 9, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cropped = decode(tmp_path / "a.png", boxes=[box], crop_to_box=True)
    np.testing.assert_array_equal(cropped, pixels[rows, columns])
    np.testing.assert_array_equal(decode(tmp_path / "a.png", boxes=[box]), pixels)


def test_a_cropped_image_is_resized_by_its_own_shorter_side(tmp_path: Path) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[10:30, 50:60] = (3, 200, 90)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(pixels).save(path, **({"quality": 95} if suffix == "jpg" else {}))
        small = decode(path, boxes=[(50, 10, 10, 20)], crop_to_box=True, image_size=8)
        assert small.shape == (16, 8, 3)
    assert (
        decode(tmp_path / "a.png", boxes=[(50, 10, 10, 20)], crop_to_box=True) == (3, 200, 90)
    ).all()


def test_a_box_outside_the_image_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png")
    message = rf"a\.png: its box, left 9, top 1, 3 x 4, lies outside the image, 9 x 6\. {FIX}"
    with pytest.raises(DatasetCorruptError, match=message):
        decode(tmp_path / "a.png", boxes=[(9, 1, 3, 4)], crop_to_box=True)


def test_cropping_needs_boxes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop_to_box=True: the images have no bounding boxes"):
        DecodedImages(listed(tmp_path, "a.png"), crop_to_box=True)


def test_boxes_go_along_with_the_image(tmp_path: Path) -> None:
    for name, size in (("a.png", (40, 20)), ("b.png", (30, 60))):
        Image.new("RGB", size).save(tmp_path / name)
    boxes = [[4, 2, 10, 8], [3, 30, 15, 20]]
    for image_size, expected in (
        (10, [[2, 1, 5, 4], [1, 10, 5, 20 / 3]]),  # halved; a third
        (None, boxes),
    ):
        images = DecodedImages(listed(tmp_path, "a.png", "b.png", boxes=boxes), image_size)
        sizes = np.array([images.size(i) for i in range(2)])
        box = images.metadata(sizes)["box"]
        assert box.dtype == np.float32
        np.testing.assert_allclose(box, expected, rtol=1e-6)
    images = DecodedImages(listed(tmp_path, "a.png", "b.png", boxes=boxes), 16, crop_to_box=True)
    sizes = np.array([images.size(i) for i in range(2)])
    assert sizes.tolist() == [[16, 20], [21, 16]]  # boxes of 8 x 10 and 20 x 15
    assert images.metadata(sizes)["box"].tolist() == [[0, 0, 20, 16], [0, 0, 16, 21]]
    assert DecodedImages(listed(tmp_path, "a.png")).metadata(sizes) == {}


# --- Fingerprints


def test_a_fingerprint_is_of_files_options_and_boxes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    box = [[0, 0, 2, 2]]
    path = tmp_path / "a.png"
    prints = [
        DecodedImages(listed(tmp_path, "a.png")).fingerprint(),
        DecodedImages(listed(tmp_path, "b.png")).fingerprint(),
        DecodedImages(listed(tmp_path, "a.png"), 8).fingerprint(),
        DecodedImages(listed(tmp_path, "a.png", boxes=box)).fingerprint(),
        DecodedImages(listed(tmp_path, "a.png", boxes=[[0, 0, 2, 3]])).fingerprint(),
        DecodedImages(listed(tmp_path, "a.png", boxes=box), crop_to_box=True).fingerprint(),
    ]
    assert DecodedImages(listed(tmp_path, "a.png")).fingerprint() == prints[0]
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    prints.append(DecodedImages(listed(tmp_path, "a.png")).fingerprint())
    path.write_bytes(path.read_bytes() + b"x")
    prints.append(DecodedImages(listed(tmp_path, "a.png")).fingerprint())
    assert len({repr(value) for value in prints}) == len(prints)


# --- Damage


NO_IMAGE = rf"a\.png: damaged, or no image .* {FIX}"
GONE = rf"a\.png: no such file\. {FIX}"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (b"", DatasetCorruptError, NO_IMAGE),
        (b"<html>not found</html>", DatasetCorruptError, NO_IMAGE),
        (b"\x89PNG\r\n\x1a\n", DatasetCorruptError, NO_IMAGE),
        # Only a header: 40,000 x 40,000 pixels.
        (b"P6 40000 40000 255\n", ImageRefusedError, r"takes up to 25\.6 GB of memory"),
        # Opening a FIFO would wait for a writer.
        (os.mkfifo, DatasetCorruptError, r"a\.png: damaged, .*\(not a regular file\)"),
        (os.mkdir, DatasetCorruptError, r"a\.png: damaged, .*\(not a regular file\)"),
        (None, DatasetNotFoundError, GONE),
    ],
)
def test_what_is_no_image(tmp_path: Path, make: Any, error: type[Exception], message: str) -> None:
    path = tmp_path / "a.png"
    if callable(make):
        make(path)
    elif make is not None:
        path.write_bytes(make)
    images = DecodedImages(listed(tmp_path, "a.png"))
    for look in (images.size, images.pixels):
        with pytest.raises(error, match=message), pillow_limits():
            look(0)
    if make is None:
        with pytest.raises(error, match=message):
            images.fingerprint()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "gif", "webp"])
def test_half_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(random_pixels(40, 50, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    images = DecodedImages(listed(tmp_path, path.name), 32)
    if suffix != "webp":  # its header is whole
        assert images.size(0) == (32, 40)
    message = rf"^{re.escape(str(path))}: damaged, or no image \(.+\)\. {FIX}$"
    with pytest.raises(DatasetCorruptError, match=message):
        images.pixels(0)


@pytest.mark.parametrize(
    "error", [KeyError(274), struct.error("bad"), TypeError("x"), IndexError()]
)
def test_every_error_of_a_reader_names_the_file(tmp_path: Path, error: Exception) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    with (
        pytest.raises(DatasetCorruptError, match=rf"a\.png: damaged, or no image .* {FIX}"),
        opened(str(tmp_path / "a.png"), FIX),
    ):
        raise error


# --- Very large images


def test_the_number_of_pixels_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setenv("DTRAM_MAX_PIXELS", "1199")
    message = r"a\.png: 40 x 30 pixels, expected at most 1,199 .* set DTRAM_MAX_PIXELS=1200 to read"
    with pytest.raises(ImageRefusedError, match=message):
        decode(tmp_path / "a.png")
    monkeypatch.setenv("DTRAM_MAX_PIXELS", "1200")
    assert decode(tmp_path / "a.png").shape == (30, 40, 3)


@pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "none"])
def test_a_bad_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    monkeypatch.setenv("DTRAM_MAX_PIXELS", value)
    with pytest.raises(ValueError, match=f"DTRAM_MAX_PIXELS={value}: expected a number of pixels"):
        decode(tmp_path / "a.png")


def test_our_limits_replace_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pillow_limits():
        assert decode(tmp_path / "a.png").shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100 and PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20


def test_very_large_images_are_open_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_decode, "_ALONE", 50)
    for name, size in (("small.png", (7, 7)), ("large.png", (8, 8))):
        Image.new("L", size).save(tmp_path / name)
    opening = [threading.Event() for _ in range(2)]

    def look(name: str, event: threading.Event) -> None:
        with opened(str(tmp_path / name), FIX):
            event.set()

    with ThreadPoolExecutor(2) as pool:
        with opened(str(tmp_path / "large.png"), FIX):
            pool.submit(look, "small.png", opening[0])
            pool.submit(look, "large.png", opening[1])
            assert opening[0].wait(10) and not opening[1].wait(0.2)
        assert opening[1].wait(10)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1", "F"])
def test_bands_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    image = (
        Image.fromarray(random_pixels(9, 7, 4))
        .convert("L" if mode == "F" else "RGBA")
        .convert(mode)
    )
    image.save(tmp_path / "a.tif")
    whole = decode(tmp_path / "a.tif")
    monkeypatch.setattr(storage_decode, "_BAND", 15)  # two rows
    np.testing.assert_array_equal(decode(tmp_path / "a.tif"), whole)

"""Drawn datasets depend on their settings alone; species differ in discriminative parts alone."""

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dtram_env.datasets import drawn
from dtram_env.datasets.drawn import AUTOS, BIRDS, SCENES, SMALL_BIRDS, Drawing
from dtram_env.datasets.drawn.canvas import Canvas
from dtram_env.datasets.drawn.figures import Figures
from dtram_env.datasets.drawn.genera import Genera
from dtram_env.datasets.storage.thumbnails import box_resize

SMALL_AUTOS = replace(SMALL_BIRDS, plan="autos")
FEW = replace(SMALL_BIRDS, num_train=200, num_test=60)
PLAIN = (SMALL_BIRDS, SMALL_AUTOS, BIRDS, AUTOS)
ALL = (*PLAIN, SCENES)
PLANS_AND_PROFILES = pytest.mark.parametrize(
    "drawing", ALL, ids=lambda d: f"{d.plan}-{d.image_size}-{d.figure_size}"
)


def glimpse_side(drawing: Drawing) -> int:
    """Side of the glimpses and thumbnails of the drawing's environment, pixels."""
    return {(128, None): 32, (512, None): 224, (512, 128): 64}[
        drawing.image_size, drawing.figure_size
    ]


def table_of(drawing: Drawing) -> Genera:
    return drawing._genera


def siblings(drawing: Drawing, part: str, row: int) -> tuple[int, int]:
    """The image's class and another of its genus, as unlike as there is."""
    genus, label = table_of(drawing).genus, int(drawing.labels(part)[row])
    texture = table_of(drawing).texture
    unlike = np.where(genus == genus[label], (texture != texture[label]).sum(axis=1), -1)
    return label, int(unlike.argmax())


def test_profiles() -> None:
    assert (BIRDS.image_size, BIRDS.num_classes, BIRDS.num_train, BIRDS.num_test) == (
        (512, 200, 5994, 5794)
    )
    assert (AUTOS.image_size, AUTOS.num_classes, AUTOS.num_train, AUTOS.num_test) == (
        (512, 196, 8144, 8041)
    )
    assert (SMALL_BIRDS.image_size, SMALL_BIRDS.num_classes) == (128, 20)
    assert Drawing("birds", 512, 20, 8000, 2000, figure_size=128) == SCENES
    assert BIRDS.part_names == ("bill", "eye ring", "wing", "tail tip", "legs")


@PLANS_AND_PROFILES
def test_counts_and_balance(drawing: Drawing) -> None:
    for part, count in (("train", drawing.num_train), ("test", drawing.num_test)):
        labels = drawing.labels(part)
        assert labels.shape == (count,) and labels.dtype == np.int64
        counts = np.bincount(labels, minlength=drawing.num_classes)
        assert len(counts) == drawing.num_classes and np.ptp(counts) <= 1
    assert len(set(drawing.class_names)) == drawing.num_classes


def test_labels_are_shuffled_and_are_the_callers_own() -> None:
    labels = SMALL_BIRDS.labels("train")
    assert abs(np.corrcoef(labels[:-1], labels[1:])[0, 1]) < 0.1
    assert abs(np.corrcoef(labels[:-20], labels[20:])[0, 1]) < 0.05
    labels[:] = 0
    assert SMALL_BIRDS.labels("train").max() == 19


@PLANS_AND_PROFILES
def test_part_boxes(drawing: Drawing) -> None:
    """Inside the image, at least 6 pixels each way, and a glimpse covers the whole part."""
    for part in ("train", "test"):
        boxes = drawing.layout(part).part_boxes
        count = drawing.num_train if part == "train" else drawing.num_test
        assert boxes.shape == (count, 5, 4) and boxes.dtype == np.int32
        assert boxes[..., :2].min() >= 0
        assert (boxes[..., :2] + boxes[..., 2:]).max() <= drawing.image_size
        # At most a pixel and a half on each side is a smooth edge, the rest is texture.
        assert boxes[..., 2:].min() >= 6 + 3
        assert boxes[..., 2:].max() <= drawing._figure_size // 4 <= glimpse_side(drawing)


@pytest.mark.parametrize("plan", ["birds", "autos"])
@pytest.mark.parametrize("size", [96, 200, 399, 400, 1024, 2048])
def test_part_boxes_of_other_sizes(plan: str, size: int) -> None:
    boxes = Drawing(plan, size, num_classes=40, num_train=400).layout("train").part_boxes
    assert boxes[..., :2].min() >= 0 and (boxes[..., :2] + boxes[..., 2:]).max() <= size
    assert boxes[..., 2:].min() >= 8 and boxes[..., 2:].max() <= size // 4


@PLANS_AND_PROFILES
def test_two_discriminative_parts_never_fit_into_a_glimpse(drawing: Drawing) -> None:
    layout = drawing.layout("train")
    two = layout.discriminative.sum(axis=1) == 2
    assert abs(two.mean() - 0.3) < 0.01
    boxes = layout.part_boxes[two][layout.discriminative[two]].reshape(-1, 2, 4)
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    reach = (high.max(axis=1) - low.min(axis=1)).max(axis=1)
    assert reach.min() > drawing._figure_size / 4
    assert (reach < glimpse_side(drawing)).mean() < 0.005
    # Nor does one of a quarter of the figure's side show the middles of both.
    apart = np.abs(np.diff(low + high, axis=1) / 2).max(axis=(1, 2))
    assert apart.min() > drawing._figure_size / 4


@pytest.mark.parametrize("drawing", PLAIN, ids=lambda d: f"{d.plan}-{d.image_size}")
def test_pose_varies(drawing: Drawing) -> None:
    boxes = drawing.layout("train").part_boxes
    middle = boxes[..., :2] + boxes[..., 2:] / 2
    first, last = middle[:, 0], middle[:, 3 if drawing.plan == "birds" else 4]
    right = first[:, 0] > last[:, 0]
    assert abs(right.mean() - 0.5) < 0.03
    # Head and tail change sides, and everything is found over a good part of the height.
    assert np.std(first[:, 0]) > 0.25 * drawing.image_size
    assert np.std(middle[..., 1], axis=0).min() > 0.12 * drawing.image_size


def test_discriminative_parts_depend_on_the_genus() -> None:
    labels, discriminative = SMALL_BIRDS.labels("test"), SMALL_BIRDS.layout("test").discriminative
    genus = np.array([name.split(",")[0] for name in SMALL_BIRDS.class_names])[labels]
    for name in np.unique(genus):
        assert len(np.unique(discriminative[genus == name], axis=0)) == 1
    for label, row in zip(labels[:100], discriminative[:100], strict=True):
        marks = SMALL_BIRDS.class_names[label].split(", ")[1:]
        parts = [name for name, is_one in zip(SMALL_BIRDS.part_names, row, strict=True) if is_one]
        assert [mark.split(" ", 1)[1] for mark in marks] == parts


@pytest.mark.parametrize(
    "drawing",
    [FEW, replace(FEW, plan="autos"), replace(BIRDS, num_test=3), replace(SCENES, num_test=3)],
)
def test_an_image_is_a_function_of_its_index(drawing: Drawing) -> None:
    rows = [2, 0, 2, 1]
    images = drawing.draw_many("test", rows)
    size = drawing.image_size
    assert images.shape == (4, size, size, 3) and images.dtype == np.uint8
    for image, row in zip(images, rows, strict=True):
        assert np.array_equal(image, drawing.draw("test", row))
    assert not np.array_equal(images[0], images[1])
    # More images, or another number of them in the other part, change none.
    other = replace(drawing, num_test=drawing.num_test + 321, num_train=7)
    assert np.array_equal(other.draw("test", 2), images[0])
    assert np.array_equal(other.labels("test")[: drawing.num_test], drawing.labels("test"))
    assert np.array_equal(
        other.layout("test").part_boxes[: drawing.num_test], drawing.layout("test").part_boxes
    )


def test_seeds_and_parts_differ() -> None:
    image = FEW.draw("test", 0)
    assert not np.array_equal(image, FEW.draw("train", 0))
    assert not np.array_equal(image, replace(FEW, seed=1).draw("test", 0))
    assert FEW.class_names == replace(FEW, seed=1).class_names
    assert not np.array_equal(FEW.labels("test"), replace(FEW, seed=1).labels("test"))


def test_no_images() -> None:
    assert FEW.draw_many("test", []).shape == (0, 128, 128, 3)


def test_the_drawing_never_changes() -> None:
    """A changed digest means another dataset: raise the versions of its environments."""
    digest = hashlib.sha256()
    for drawing, rows in ((SMALL_BIRDS, range(20)), (SMALL_AUTOS, range(20)), (BIRDS, (0,))):
        digest.update(drawing.draw_many("test", rows).tobytes())
        digest.update(drawing.labels("test").astype("<i8").tobytes())
        digest.update(drawing.layout("test").part_boxes.astype("<i4").tobytes())
        digest.update("|".join(drawing.class_names).encode())
    assert digest.hexdigest()[:16] == "8dbd8915ef79cdee"


def test_a_scene_never_changes() -> None:
    """As above."""
    digest = hashlib.sha256()
    for size in (256, 512):
        scenes = replace(SCENES, image_size=size)
        digest.update(scenes.draw_many("test", range(3)).tobytes())
        digest.update(scenes.layout("test").part_boxes.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "173b3d7ae0a82e64"


def test_a_figure_of_the_images_size_is_the_default() -> None:
    for drawing in (FEW, replace(FEW, plan="autos")):
        same = replace(drawing, figure_size=128)
        assert np.array_equal(same.draw_many("test", range(4)), drawing.draw_many("test", range(4)))
        assert np.array_equal(same.layout("test").part_boxes, drawing.layout("test").part_boxes)


@pytest.mark.parametrize("size", [256, 512, 1024, 2048])
def test_a_bird_of_a_scene_is_as_large_as_in_a_small_image(size: int) -> None:
    """The same bird in another place: part boxes of equal sizes and distances, but for rounding."""
    small, scene = SMALL_BIRDS.layout("train"), replace(SCENES, image_size=size).layout("train")
    assert np.array_equal(SMALL_BIRDS.labels("train"), SCENES.labels("train"))
    assert np.array_equal(small.discriminative, scene.discriminative)
    assert np.abs(small.part_boxes[..., 2:] - scene.part_boxes[..., 2:]).max() <= 1
    corners = [layout.part_boxes[..., :2] for layout in (small, scene)]
    apart, expected = (corner - corner[:, :1] for corner in corners)
    assert np.abs(apart - expected).max() <= 1


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_birds_lie_anywhere_in_a_scene(size: int) -> None:
    """Inside, and uniform over the room left: mean 1/2 and variance 1/12, to 4 standard errors."""
    left, top, right, bottom = drawn._figures(
        replace(SCENES, image_size=size), "train"
    ).pieces.bounds()
    for low, high in ((left, right), (top, bottom)):
        low, high = low.min(axis=1), high.max(axis=1)
        assert low.min() >= 1.5 - 1e-9 and high.max() <= size - 1.5 + 1e-9
        share, n = (low - 1.5) / (size - 3 - (high - low)), len(low)
        assert abs(share.mean() - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
        assert abs(share.var() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
        assert share.min() < 0.002 and share.max() > 0.998


@pytest.mark.parametrize("plan", ["birds", "autos"])
def test_distractors_grow_with_the_side(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of the other plan, and the figure comes last; the first stay in larger scenes."""
    drawing = replace(SCENES, plan=plan)
    other = replace(drawing, plan={"birds": "autos", "autos": "birds"}[plan])
    painted: list[tuple[Genera, int]] = []

    def paint(canvas: Canvas, found: Figures, index: int, table: Genera, label: int) -> None:
        painted.append((table, label))

    monkeypatch.setattr(drawn, "_paint", paint)
    labels = []
    for size, count in ((128, 0), (255, 0), (256, 1), (512, 2), (1024, 4), (1792, 6)):
        painted.clear()
        replace(drawing, image_size=size).draw("test", 3)
        assert [table is table_of(other) for table, _ in painted] == [True] * count + [False]
        assert painted.pop() == (table_of(drawing), drawing.labels("test")[3])
        assert [label for _, label in painted][: len(labels)] == labels
        labels = [label for _, label in painted]
    assert len(set(labels)) > 2


def test_the_bird_hides_the_distractors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a bird covers a pixel, it is the same without distractors, to rounding."""
    scenes = replace(SCENES, image_size=256)
    rows, found = range(10), drawn._figures(scenes, "test")
    images = scenes.draw_many("test", rows).astype(int)
    monkeypatch.setattr(drawn, "_MOST_DISTRACTORS", 0)
    changes = np.abs(images - scenes.draw_many("test", rows)).max(axis=3)
    overlaps = 0
    for row, change in zip(rows, changes, strict=True):
        canvas = Canvas(np.zeros((3, 256, 256), np.float32))
        pieces = found.pieces.of(row)
        canvas.paint(pieces, np.ones((len(pieces.x), 3)))
        bird = canvas.planes[0] == 1
        assert bird.sum() > 1000 and change[bird].max() <= 1
        assert np.mean(change > 1) > 0.02  # a vehicle is seen
        (top, left), (bottom, right) = (
            edge(np.argwhere(bird), axis=0) for edge in (np.min, np.max)
        )
        overlaps += (change[top:bottom, left:right] > 1).any()
    assert overlaps > 1


@PLANS_AND_PROFILES
def test_species_differ_only_in_their_discriminative_boxes(drawing: Drawing) -> None:
    """Two species in one pose: outside the boxes every pixel is the same, inside it is texture."""
    layout, contrasts, means, kept = drawing.layout("test"), [], [], []
    small, side = drawing._figure_size == 128, glimpse_side(drawing)
    w, count = drawing.image_size / side, 40 if drawing.image_size == 128 else 6
    for row in np.flatnonzero(layout.discriminative.any(axis=1))[:count].tolist():
        label, other = siblings(drawing, "test", row)
        assert label != other
        image, twin = drawing._draw("test", row, label), drawing._draw("test", row, other)
        change = twin.astype(float) - image
        outside = np.ones(change.shape[:2], dtype=bool)
        near, far = (box_resize(i[None], side)[0].astype(float) for i in (image, twin))
        blurred = far - near
        for left, top, width, height in layout.part_boxes[row][layout.discriminative[row]].tolist():
            outside[top : top + height, left : left + width] = False
            inside = change[top : top + height, left : left + width]
            if not np.any(inside):  # of two parts, the one in which the two species are alike
                continue
            contrasts.append(inside.std())
            means.append(inside.mean())
            shrunk = blurred[
                math.floor(top / w) : math.ceil((top + height) / w),
                math.floor(left / w) : math.ceil((left + width) / w),
            ]
            kept.append((shrunk**2).mean() / (inside**2).mean())
        assert not np.any(change[outside])
    assert len(contrasts) >= count and min(contrasts) > 12  # grey levels
    # Rounding and what is drawn over a part (the pupil, say) leave less than a grey level.
    assert np.abs(means).mean() < 0.5 and np.abs(means).max() < 2.5
    # Of the texture's power the thumbnail keeps little, and that in other waves.
    assert np.mean(kept) < (1 / 30 if small else 1 / 8)


def test_other_parts_have_random_textures() -> None:
    """Species, and so genera, of one look: every texture is as frequent as another on each part."""
    found, table = drawn._figures(SMALL_BIRDS, "train"), table_of(SMALL_BIRDS)
    n = len(found.kinds)
    for part in range(5):
        counts = np.bincount(found.kinds[:, part], minlength=3)
        assert np.abs(counts - n / 3).max() < 4 * (n * 2 / 9) ** 0.5
    labels = SMALL_BIRDS.labels("train")
    for g in range(len(table.discriminative)):
        rows = table.genus[labels] == g
        share = np.bincount(found.kinds[rows, 0], minlength=3) / rows.sum()
        assert np.abs(share - 1 / 3).max() < 4 * (2 / 9 / rows.sum()) ** 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plan": "fish"}, "plan='fish': expected one of 'birds', 'autos'"),
        ({"image_size": 64}, "image_size=64: expected an integer from 96 to 2048"),
        ({"image_size": 128.0}, "image_size=128.0: expected an integer from 96 to 2048"),
        ({"num_classes": 9}, "num_classes=9: expected an integer from 10 to 400"),
        ({"num_train": 0}, "num_train=0: expected an integer from 1 to"),
        ({"num_test": -1}, "num_test=-1: expected an integer from 1 to"),
        ({"figure_size": 513}, "figure_size=513: expected an integer from 96 to 512"),
        ({"figure_size": 64}, "figure_size=64: expected an integer from 96 to 512"),
        ({"seed": -1}, "seed=-1: expected an integer from 0 to"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Drawing(**{"plan": "birds", **settings})


UNKNOWN_PART = "part='validation': expected one of 'train', 'test'"


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("labels", ["validation"], UNKNOWN_PART),
        ("layout", ["validation"], UNKNOWN_PART),
        ("draw", ["validation", 0], UNKNOWN_PART),
        ("draw", ["test", 60], "index 60: expected 0 to 59, as part 'test' has 60"),
        ("draw", ["train", -1], "index -1: expected 0 to 199"),
        ("draw_many", ["test", np.array([1, 60])], "index 60: expected 0 to 59"),
    ],
)
def test_bad_requests(method: str, arguments: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(FEW, method)(*arguments)


def test_numpy_integers_are_settings_too() -> None:
    size: Any = np.int64(128)
    assert Drawing("birds", image_size=size, num_classes=20) == Drawing("birds", 128, 20)
    assert type(Drawing("birds", image_size=size).image_size) is int

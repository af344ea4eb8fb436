"""Augmentation of images whose changed position or colour is known."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from agents import draws
from dtram_env.datasets.storage.tensors import TensorStore
from tests.train.conftest import SMALL
from train import classifier, one_look, reinforce
from train.common.augment import (
    LUMA,
    PCA_AXES,
    PCA_SPREADS,
    Augmentation,
    ChangedStore,
    Colours,
    crop_windows,
    random_affine,
    random_crop,
)
from train.common.training_task import Images, TrainingTask
from train.dtram.options import StopOff

STILL = {"shift": 0, "rotation": 0, "scale": 0, "shear": 0}
ALL: dict[str, Any] = {
    "affine": 1.0,
    "flip": True,
    "colour": 0.4,
    "lighting": 0.1,
    "scale_crop": (0.25, 1.0),
}


def noise_images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def padded(images: Tensor, sizes: Tensor) -> Tensor:
    """The images with zeros beyond their sizes."""
    kept = torch.zeros_like(images)
    for image, source, (height, width) in zip(kept, images, sizes.tolist(), strict=True):
        image[:height, :width] = source[:height, :width]
    return kept


def some_images(ragged: bool) -> tuple[Tensor, Tensor | None]:
    """Four images of at most 9x9 pixels, and their sizes unless all are that large."""
    images = noise_images(4, 9, 9, 3)
    sizes = torch.tensor([[9, 6], [8, 8], [6, 9], [9, 9]])
    return (padded(images, sizes), sizes) if ragged else (images, None)


def dot_images(count: int) -> torch.Tensor:
    """A bright 4x4 square in the middle of 28x28 pixels."""
    images = torch.zeros(count, 28, 28, 1, dtype=torch.uint8)
    images[:, 12:16, 12:16] = 255
    return images


def test_without_ranges_the_resampling_is_exact() -> None:
    images = torch.randint(0, 256, (5, 28, 28, 3), dtype=torch.uint8)
    assert torch.equal(random_affine(images, **STILL), images)


@pytest.mark.parametrize("shape", [(28, 28), (84, 28), (28, 84)])
@pytest.mark.parametrize("ragged", [False, True])
def test_shift_is_in_pixels_along_both_sides_of_an_oblong(
    shape: tuple[int, int], ragged: bool
) -> None:
    torch.manual_seed(0)
    height, width = shape
    images = torch.zeros(2000, height, width, 1, dtype=torch.uint8)
    down, across = height // 2, width // 2
    images[:, down - 2 : down + 2, across - 2 : across + 2] = 255
    sizes = torch.tensor(shape).expand(2000, 2) if ragged else None
    moved = random_affine(images, sizes, shift=3, rotation=0, scale=0, shear=0)[..., 0].double()
    for axis, side in ((1, height), (2, width)):
        place = torch.arange(side) - (side - 1) / 2
        centre = (moved.sum(3 - axis) * place).sum(1) / moved.sum((1, 2))
        assert centre.abs().max() < 3.05 and centre.mean().abs() < 0.15
        assert centre.std().item() == pytest.approx(3 / math.sqrt(3), rel=0.05)


def test_scale_changes_the_area_within_bounds() -> None:
    torch.manual_seed(0)
    area = (
        random_affine(dot_images(1000), shift=0, rotation=0, scale=0.2, shear=0)
        .double()
        .sum((1, 2, 3))
    )
    ratio = area / (16 * 255)
    assert 1 / 1.2**2 - 0.03 < ratio.min() < 0.75
    assert 1.45 < ratio.max() < 1 / 0.8**2 + 0.03


def test_rotation_keeps_area_and_turns_a_bar() -> None:
    torch.manual_seed(0)
    bar = torch.zeros(500, 28, 28, 1, dtype=torch.uint8)
    bar[:, 13:15, 4:24] = 255
    turned = random_affine(bar, shift=0, rotation=30, scale=0, shear=0)
    area = turned.double().sum((1, 2, 3)) / bar.double().sum((1, 2, 3))
    assert area.min() > 0.97 and area.max() < 1.03
    mass, place = turned[..., 0].double(), torch.arange(28).double() - 13.5
    xx = (mass.sum(1) * place**2).sum(1)
    yy = (mass.sum(2) * place**2).sum(1)
    xy = torch.einsum("bij,i,j->b", mass, place, place)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy) * 180 / math.pi
    assert angle.abs().max() < 31
    assert angle.std() == pytest.approx(30 / math.sqrt(3), rel=0.1)


def test_elastic_displacements_have_the_standard_deviation_asked_for() -> None:
    """Along a ramp of 8 grey values a pixel, 3 pixels of displacement are 24 grey values."""
    torch.manual_seed(0)
    ramp = (8 * torch.arange(32))[None, None, :, None].expand(400, 32, 32, 1).byte()
    moved = random_affine(ramp, strength=0.0, elastic=1.5).float()[:, 8:24, 8:24, 0]
    shift = (moved - ramp[:, 8:24, 8:24, 0]) / 8
    assert shift.mean().item() == pytest.approx(0, abs=0.1)
    assert shift.std().item() == pytest.approx(1.5, rel=0.05)
    # Neighbours move together: the field is smooth.
    assert (shift[:, :, 1:] - shift[:, :, :-1]).std().item() < 0.3 * 1.5


def test_affine_of_ragged_images_turns_about_each_ones_centre() -> None:
    # A bar of 20x2 in the middle of images of three aspects. As the same numbers are drawn, its
    # angle, length and position must not depend on the aspect.
    sizes = torch.tensor([[30, 30], [30, 60], [70, 40]])
    found = []
    for height, width in sizes.tolist():
        image = torch.zeros(1, 70, 60, 1, dtype=torch.uint8)
        image[0, height // 2 - 1 : height // 2 + 1, width // 2 - 10 : width // 2 + 10] = 255
        torch.manual_seed(11)
        turned = random_affine(image, torch.tensor([[height, width]]), shift=3, rotation=40)
        top, left = height // 2 - 15, width // 2 - 15
        found.append(turned[0, top : top + 30, left : left + 30, 0])
        assert turned.sum() == found[-1].sum()
    assert (found[0].float().std(dim=1) > 0).sum() > 5  # it was turned
    for other in found[1:]:
        assert (other.int() - found[0].int()).abs().max() <= 1


def test_affine_keeps_to_each_content_and_agrees_with_squares() -> None:
    images, sizes = noise_images(6, 40, 40, 3), torch.tensor([[40, 40], [20, 31], [13, 40]] * 2)
    images = padded(images, sizes)
    torch.manual_seed(0)
    ragged = random_affine(images, sizes)
    assert torch.equal(padded(ragged, sizes), ragged)
    torch.manual_seed(0)
    square = random_affine(images)
    assert (ragged[::3].int() - square[::3].int()).abs().max() <= 1
    assert (ragged[1::3, :20, :31] > 0).float().mean() > 0.8
    assert torch.equal(random_affine(images, sizes, **STILL), images)


# -- colour -------------------------------------------------------------------------------------


def recoloured(images: Tensor, colour: float = 0.0, lighting: float = 0.0) -> Tensor:
    """Whole images in other colours; a thumbnail of their own side has their mean exactly."""
    index, change = torch.arange(len(images)), Augmentation(0.0, colour=colour, lighting=lighting)
    return change.change_store(TensorStore(images, 0), index, images.shape[1]).whole(index)


def test_each_image_has_one_brightness() -> None:
    """Images of one grey have neither contrast nor saturation."""
    torch.manual_seed(0)
    images = torch.full((2000, 4, 4, 3), 150, dtype=torch.uint8)
    bright = recoloured(images, colour=0.4).double()
    assert torch.equal(bright.amax((1, 2, 3)), bright.amin((1, 2, 3)))
    factor = bright[:, 0, 0, 0] / 150
    assert 0.59 < factor.min() < 0.61 and 1.39 < factor.max() < 1.41
    assert factor.std() == pytest.approx(0.4 / math.sqrt(3), rel=0.05)


def test_single_channels_have_no_saturation_and_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise_images(4, 5, 5, 1)
    assert torch.equal(recoloured(images, lighting=0.5), images)
    drawn = iter([0.5, 0.5, 1.0])  # brightness and contrast stay
    monkeypatch.setattr(draws, "rand", lambda n, device: torch.full((n,), next(drawn)))
    assert torch.equal(recoloured(images, colour=1.0), images)


def test_the_three_together_are_the_three_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.75, 0.1, 0.9])  # factors 1.2, 0.68, 1.32
    monkeypatch.setattr(draws, "rand", lambda n, device: torch.full((n,), next(drawn)))
    images = noise_images(1, 6, 6, 3).clamp(100, 140)
    x, luma = images[0].double() * 1.2, torch.tensor(LUMA).double()
    x = 0.68 * x + 0.32 * (x @ luma).mean()
    x = 1.32 * x - 0.32 * (x @ luma)[..., None]
    changed = recoloured(images, colour=0.4)[0].double()
    assert (changed - x).abs().max() < 0.501


def test_lighting_moves_along_imagenets_colours() -> None:
    axes, spreads = torch.tensor(PCA_AXES).double(), torch.tensor(PCA_SPREADS).double()
    torch.testing.assert_close(axes.T @ axes, torch.eye(3).double(), rtol=0, atol=3e-4)
    torch.manual_seed(0)
    images = torch.full((20_000, 2, 2, 3), 128, dtype=torch.uint8)
    changed = recoloured(images, lighting=0.5).double()
    assert torch.equal(changed[:, :, 0], changed[:, :, 1])
    shift = changed[:, 0, 0] - 128
    covariance = (axes * (0.5 * 255 * spreads) ** 2) @ axes.T
    covariance += torch.eye(3) / 12  # rounding to whole numbers
    assert torch.allclose(torch.cov(shift.T), covariance, rtol=0.05, atol=0.3)
    assert shift.mean(0).abs().max() < 0.5


def test_colours_that_leave_the_range_are_cut_off() -> None:
    torch.manual_seed(0)
    changed = recoloured(torch.full((50, 2, 2, 3), 255, dtype=torch.uint8), colour=0.5)
    assert (changed.amax((1, 2, 3)) == 255).float().mean() == pytest.approx(0.5, abs=0.2)
    assert changed.min() > 125


# -- flip ---------------------------------------------------------------------------------------


def mirrored(images: Tensor, sizes: Tensor | None) -> Tensor:
    """Images turned left to right, each within its own width."""
    if sizes is None:
        return images.flip(2)
    turned = torch.zeros_like(images)
    for image, source, width in zip(turned, images, sizes[:, 1].tolist(), strict=True):
        image[:, :width] = source[:, :width].flip(1)
    return turned


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    images, index = torch.tensor([1, 2], dtype=torch.uint8).view(1, 1, 2, 1), torch.arange(4000)
    store = TensorStore(images.repeat(4000, 1, 1, 1), 0)
    turned = Augmentation(0.0, flip=True).change_store(store, index, 1).whole(index)[:, 0, :, 0]
    assert {tuple(row) for row in turned.tolist()} == {(1, 2), (2, 1)}
    assert (turned[:, 0] == 2).float().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_mirrored_store_shows_mirrored_images(ragged: bool) -> None:
    images, sizes = some_images(ragged)
    chosen, flipped = torch.tensor([2, 0, 3, 2]), torch.tensor([True, True, False, False])
    store = ChangedStore(TensorStore(images, 4, sizes), chosen, flipped)
    own = None if sizes is None else sizes[chosen]
    turned = mirrored(images[chosen], own)
    copies = torch.where(flipped[:, None, None, None], turned, images[chosen])
    expected = TensorStore(copies, 4, own)
    index = torch.tensor([3, 1, 0, 2, 1])
    top, left = torch.tensor([-2, 0, 3, 1, 4]), torch.tensor([3, -2, 2, 0, 4])
    assert torch.equal(store.crop(index, top, left, 4), expected.crop(index, top, left, 4))
    assert torch.equal(store.thumbnail(index, 3), expected.thumbnail(index, 3))
    for found, wanted in zip(store.size(index), expected.size(index), strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted))
    if not ragged:
        assert torch.equal(store.whole(index), expected.whole(index))
    assert len(store) == 4 and store.channels == 3


def test_what_lies_beyond_an_image_stays_black_if_it_gets_brighter() -> None:
    images, lift = torch.zeros(1, 9, 9, 1, dtype=torch.uint8), torch.full((1, 1), 50.0)
    store = ChangedStore(TensorStore(images, 4), torch.tensor([0]), None, Colours(lift[None], lift))
    top, left = torch.tensor([-1, 7]), torch.tensor([-2, 6])
    expected = torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    expected[0, 1:, 2:], expected[1, :2, :3] = 50, 50
    assert torch.equal(store.crop(torch.tensor([0, 0]), top, left, 4), expected)
    assert store.thumbnail(torch.tensor([0]), 3).unique().tolist() == [50]


# -- scale --------------------------------------------------------------------------------------


def resized(images: Tensor, side: int) -> Tensor:
    """Torch's own resampling, in float."""
    small = interpolate(images.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear")
    return small.permute(0, 2, 3, 1)


def test_windows_are_resampled_each_from_its_own_place() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[40, 60], [33, 20], [50, 50]])
    images = padded(noise_images(3, 50, 60, 3), sizes)
    state = torch.get_rng_state()
    windows = crop_windows(sizes, (0.08, 1.0))
    torch.set_rng_state(state)
    out = random_crop(images, sizes, 24, (0.08, 1.0))
    for k, (top, left, height, width) in enumerate(torch.cat(windows, dim=1).tolist()):
        window = images[k : k + 1, top : top + height, left : left + width]
        assert (out[k].float() - resized(window, 24)[0]).abs().max() < 0.51


def test_windows_have_the_ranges_asked_for() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[400, 500]]).repeat(20_000, 1)
    corner, window = crop_windows(sizes, (0.1, 0.5))
    top, left, height, width = torch.cat([corner, window], dim=1).double().unbind(dim=1)
    area, aspect = height * width / 200_000, width / height
    assert 0.099 < area.min() < 0.105 and 0.495 < area.max() < 0.502
    assert area.mean() == pytest.approx(0.3, abs=0.005)
    assert area.std() == pytest.approx(0.4 / math.sqrt(12), rel=0.02)
    assert 0.745 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.34
    assert aspect.log().mean() == pytest.approx(0, abs=0.005)
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() == 400 and (left + width).max() == 500
    assert (top / (400 - height)).mean() == pytest.approx(0.5, abs=0.01)
    assert (left / (500 - width)).mean() == pytest.approx(0.5, abs=0.01)


def test_a_window_that_does_not_fit_is_cut() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[10, 100], [100, 10], [1, 1]])
    corner, window = crop_windows(sizes, (1, 1))
    assert window[0, 0] == 10 and 27 <= window[0, 1] <= 37  # of 1000 pixels, aspect 3/4 to 4/3
    assert window[1, 1] == 10 and 27 <= window[1, 0] <= 37
    assert window[2].tolist() == [1, 1] and corner[2].tolist() == [0, 0]
    assert (corner >= 0).all() and (corner + window <= sizes).all()


# -- all of it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
def test_switched_off_it_returns_the_images_and_draws_nothing(ragged: bool) -> None:
    images, before = noise_images(3, 8, 8, 3), torch.get_rng_state()
    off = Augmentation(affine=0.0)
    assert off(images, torch.tensor([[8, 8]] * 3) if ragged else None) is images
    assert torch.equal(torch.get_rng_state(), before)
    assert not off.copies_images
    for name, value in ALL.items():
        on = Augmentation(**{"affine": 0.0, name: value})
        in_reading = name in ("flip", "colour", "lighting")
        assert on.copies_images != in_reading
        assert (on(images) is images) == (name == "flip")  # which is made in reading alone


def test_the_last_epochs_are_plain() -> None:
    augment = Augmentation(**ALL, elastic=0.5, compose=True, plain=0.25)
    found = [augment.at(epoch, 8) for epoch in range(8)]
    kept = Augmentation(affine=0.0, flip=True, compose=True)
    assert found == 6 * [Augmentation(**ALL, elastic=0.5, compose=True)] + 2 * [kept]
    assert Augmentation(plain=0.1).at(3, 4) == Augmentation(affine=0.0)  # rounded up
    assert Augmentation(plain=1.0).at(0, 8) == Augmentation(affine=0.0)
    assert Augmentation().at(7, 8) == Augmentation()
    assert not Augmentation(affine=0.0, plain=0.5).copies_images


@pytest.mark.parametrize("module", [reinforce, one_look, classifier])
def test_programs_train_on_plain_images_at_the_end(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Augmentation] = []
    augmented = TrainingTask.augmented

    def keep(task: TrainingTask, images: Images, indices: Tensor, augment: Augmentation) -> Any:
        asked.append(augment)
        return augmented(task, images, indices, augment)

    monkeypatch.setattr(TrainingTask, "augmented", keep)
    changes: dict[str, Any] = {"stop": StopOff()} if module is reinforce else {}
    changes |= {"epochs": 3, "batch_size": 2700, "augment": Augmentation(plain=0.3)}
    module.train(module.Options(**{**SMALL, **changes}, run_dir=tmp_path / "run"))
    assert asked == 4 * [Augmentation()] + 2 * [Augmentation(affine=0.0)]


def test_autocast_changes_nothing() -> None:
    """In bfloat16 a coordinate among 512 pixels would be wrong by up to two pixels."""
    images, draws = noise_images(1, 512, 512, 1), []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            draws.append(Augmentation(**ALL)(images))
    assert torch.equal(*draws)


def test_pixels_that_affine_moves_in_are_black_whatever_the_colours() -> None:
    torch.manual_seed(0)
    images = torch.full((20, 12, 12, 3), 200, dtype=torch.uint8)
    changed = Augmentation(affine=1.0, colour=0.5, lighting=0.5)(images)
    corners = changed[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all(dim=-1).any(dim=1).float().mean() > 0.5
    assert changed[:, 5, 5].float().std(dim=0).min() > 10


def test_augmentation_is_its_parts_in_order() -> None:
    sizes = torch.tensor([[20, 30], [24, 24], [24, 30], [7, 9]])
    images = padded(noise_images(4, 24, 30, 3), sizes)
    torch.manual_seed(1)
    changed = Augmentation(0.7, scale_crop=(0.5, 1.0))(images, sizes)
    torch.manual_seed(1)
    assert torch.equal(
        changed, random_affine(random_crop(images, sizes, 24, (0.5, 1.0)), None, 0.7)
    )


def test_augmentation_leaves_the_padding_black() -> None:
    sizes = torch.tensor([[20, 30], [24, 24], [24, 30], [7, 9]])
    images = padded(noise_images(4, 24, 30, 3), sizes)
    changed = Augmentation(**ALL | {"scale_crop": None})(images, sizes)
    assert torch.equal(changed, padded(changed, sizes))
    assert changed.dtype == torch.uint8 and not torch.equal(changed, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": 1.5}, "colour=1.5: expected from 0 to 1"),
        ({"colour": -0.1}, "colour=-0.1: expected from 0 to 1"),
        ({"lighting": -1}, "lighting=-1: expected from 0 to"),
        ({"affine": -1}, "affine=-1: expected from 0 to"),
        ({"plain": 1.1}, "plain=1.1: expected from 0 to 1"),
        ({"scale_crop": (0.0, 1.0)}, "scale_crop=(0.0, 1.0): expected 0 < lowest <= highest <= 1"),
        ({"scale_crop": (0.5, 0.2)}, "scale_crop=(0.5, 0.2): expected 0 < lowest <= highest <= 1"),
        ({"scale_crop": (0.5, 1.2)}, "scale_crop=(0.5, 1.2): expected 0 < lowest <= highest <= 1"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Augmentation(**settings)

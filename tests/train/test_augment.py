"""The affine augmentation against images whose changed place is known."""

from __future__ import annotations

import math

import pytest
import torch

from train.augment import Affine


def dot_images(count: int) -> torch.Tensor:
    """A bright 4x4 square in the middle of 28x28 pixels."""
    images = torch.zeros(count, 28, 28, 1, dtype=torch.uint8)
    images[:, 12:16, 12:16] = 255
    return images


def centres(images: torch.Tensor) -> torch.Tensor:
    """Centre of mass ``(B, 2)`` as (x, y), in pixels from the image's centre."""
    mass = images[..., 0].double()
    place = torch.arange(28).double() - 13.5
    total = mass.sum((1, 2))
    x, y = (mass.sum(1) * place).sum(1) / total, (mass.sum(2) * place).sum(1) / total
    return torch.stack([x, y], dim=1)


def test_strength_zero_changes_nothing() -> None:
    images = dot_images(3)
    assert Affine(0.0)(images) is images


def test_without_ranges_the_resampling_is_exact() -> None:
    images = torch.randint(0, 256, (5, 28, 28, 3), dtype=torch.uint8)
    still = Affine(1.0, shift=0, rotation=0, scale=0, shear=0)
    assert torch.equal(still(images), images)


def test_shift_is_uniform_and_bounded_in_pixels() -> None:
    torch.manual_seed(0)
    moved = centres(Affine(shift=3, rotation=0, scale=0, shear=0)(dot_images(4000)))
    assert moved.abs().max() < 3.05
    assert moved.std(0).tolist() == pytest.approx([3 / math.sqrt(3)] * 2, rel=0.05)
    assert moved.mean(0).abs().max() < 0.15


def test_scale_changes_the_area_within_bounds() -> None:
    torch.manual_seed(0)
    area = Affine(shift=0, rotation=0, scale=0.2, shear=0)(dot_images(1000)).double().sum((1, 2, 3))
    ratio = area / (16 * 255)
    assert 1 / 1.2**2 - 0.03 < ratio.min() < 0.75
    assert 1.45 < ratio.max() < 1 / 0.8**2 + 0.03


def test_rotation_keeps_area_and_turns_a_bar() -> None:
    torch.manual_seed(0)
    bar = torch.zeros(500, 28, 28, 1, dtype=torch.uint8)
    bar[:, 13:15, 4:24] = 255
    turned = Affine(shift=0, rotation=30, scale=0, shear=0)(bar)
    area = turned.double().sum((1, 2, 3)) / bar.double().sum((1, 2, 3))
    assert area.min() > 0.97 and area.max() < 1.03
    mass, place = turned[..., 0].double(), torch.arange(28).double() - 13.5
    xx = (mass.sum(1) * place**2).sum(1)
    yy = (mass.sum(2) * place**2).sum(1)
    xy = torch.einsum("bij,i,j->b", mass, place, place)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy) * 180 / math.pi
    assert angle.abs().max() < 31
    assert angle.std() == pytest.approx(30 / math.sqrt(3), rel=0.1)

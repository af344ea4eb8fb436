"""Composed digits: the rules of the dataset, with other random numbers."""

import pytest
import torch

from dtram_env.datasets.sources.cluttered import COMPOSITIONS, DIGIT
from train.common.augment import Augmentation
from train.common.clutter import Composer
from train.common.training_task import TrainingTask


def digits(count: int = 50) -> torch.Tensor:
    """Digit i has the value i + 1 at each of its pixels."""
    return (torch.arange(count) + 1).byte()[:, None, None, None].expand(-1, DIGIT, DIGIT, 1)


def unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


def test_a_translated_digit_lies_whole_at_every_place() -> None:
    torch.manual_seed(0)
    index = torch.arange(20).repeat(200)
    images = Composer("TranslatedMNIST", digits())(index, unchanged)
    assert images.shape == (4000, 60, 60, 1) and images.dtype == torch.uint8
    rows, columns = (images[..., 0] > 0).any(2), (images[..., 0] > 0).any(1)
    assert (rows.sum(1) == DIGIT).all() and (columns.sum(1) == DIGIT).all()
    assert (images.flatten(1).sum(1) == (index + 1) * DIGIT**2).all()
    for seen in (rows, columns):
        first = seen.float().argmax(1)
        assert first.unique().tolist() == list(range(60 - DIGIT + 1))
        assert first.float().mean().item() == pytest.approx((60 - DIGIT) / 2, abs=0.5)


@pytest.mark.parametrize("dataset", ["ClutteredMNIST", "ClutteredMNIST100"])
def test_patches_are_added_and_come_from_other_digits(dataset: str) -> None:
    torch.manual_seed(0)
    patches, side = COMPOSITIONS[dataset]
    black = torch.zeros(2, DIGIT, DIGIT, 1, dtype=torch.uint8)
    black[1] = 7
    compose = Composer(dataset, black)
    # The black digit gets the patches of the other one, and the other one gets black patches.
    without, other = compose(torch.zeros(300, dtype=torch.int64), unchanged), compose
    added = without.flatten(1).sum(1)
    assert (added == 7 * 64 * patches).all() and without.shape == (300, side, side, 1)
    overlapping = (without > 7).flatten(1).any(1).float().mean()
    assert 0.05 < overlapping < 0.95
    alone = other(torch.ones(300, dtype=torch.int64), unchanged)
    assert (alone.flatten(1).sum(1) == 7 * DIGIT**2).all()


def test_overlapping_pixels_add_up_to_white_at_most() -> None:
    torch.manual_seed(0)
    white = torch.full((2, DIGIT, DIGIT, 1), 255, dtype=torch.uint8)
    images = Composer("ClutteredMNIST", white)(torch.zeros(50, dtype=torch.int64), unchanged)
    assert set(images.unique().tolist()) == {0, 255}


def test_the_digit_alone_is_changed_before() -> None:
    images = Composer("TranslatedMNIST", digits())(torch.arange(5), lambda x: 2 * x)
    assert images.amax((1, 2, 3)).tolist() == [2, 4, 6, 8, 10]


def test_a_tasks_training_images_are_composed_of_its_own_digits() -> None:
    """Translated digits have the digit's ink; with each batch they lie elsewhere."""
    task = TrainingTask("DTRAM-TranslatedMNIST-v0", torch.device("cpu"), num_scales=1)
    images, index = task.images("train"), torch.tensor([3, 40_000])
    whole = images.store.whole(index)
    augment = Augmentation(affine=0.0, compose=True)
    first, second = (
        task.augmented(images, index, augment)[0].whole(torch.arange(2)) for _ in range(2)
    )
    assert not torch.equal(first, second)
    for composed in (first, second):
        assert torch.equal(composed.flatten(1).sum(1), whole.flatten(1).sum(1))
        assert composed.shape == whole.shape


def test_other_datasets_are_refused() -> None:
    with pytest.raises(ValueError, match="dataset='MNIST': expected one of TranslatedMNIST"):
        Composer("MNIST", digits())

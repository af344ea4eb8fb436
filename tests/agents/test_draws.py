"""Random numbers of shared batches: together, the shares are the whole batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agents import draws
from agents.draws import Share, sharing

SHARES = [(2, 8), (2, 7), (3, 8), (3, 3)]


def of_shares(draw: Callable[[int], Tensor], processes: int, images: int) -> list[Tensor]:
    """What each process draws, of so many images as it has, from one state of the generator."""
    found = []
    for process in range(processes):
        torch.manual_seed(0)
        with sharing(share := Share(process, processes, images)):
            found.append(draw(share.own(images)))
        found.append(torch.rand(2))  # what is drawn next
    torch.manual_seed(0)
    whole = draw(images)
    following = torch.rand(2)
    assert all(torch.equal(after, following) for after in found[1::2])
    return [whole, *found[::2]]


@pytest.mark.parametrize(("processes", "images"), SHARES)
@pytest.mark.parametrize(
    "draw",
    [
        lambda images: draws.rand(images, 3),
        lambda images: draws.randn(2 * images, 20),  # two rows for each image
        lambda images: draws.randn(4, 3 * images, 2, dim=1).transpose(0, 1),
        lambda images: draws.randint(50, images, 4),
        lambda images: draws.Dropout(0.5)(torch.ones(images, 20)),
    ],
)
def test_shares_are_rows_of_the_whole(
    draw: Callable[[int], Tensor], processes: int, images: int
) -> None:
    whole, *shares = of_shares(draw, processes, images)
    rows = len(whole) // images
    for process, share in enumerate(shares):
        own = whole.unflatten(0, (images, rows))[process::processes].flatten(0, 1)
        assert torch.equal(share, own)


@pytest.mark.parametrize(("processes", "images"), SHARES)
def test_the_first_images_may_be_of_other_processes(processes: int, images: int) -> None:
    def draw(_: int) -> Tensor:
        own = draws.own_images(2)
        with draws.first_images(2, rows=3):
            return draws.rand(3 * own)

    whole, *shares = of_shares(draw, processes, images)
    assert [len(share) for share in shares] == [3, 3, 0][:processes]
    assert torch.equal(torch.cat(shares), whole)


def test_a_batch_that_is_not_shared_is_torchs() -> None:
    torch.manual_seed(0)
    found = [draws.rand(3, 2), draws.randn(4), draws.randint(9, 5)]
    torch.manual_seed(0)
    expected = [torch.rand(3, 2), torch.randn(4), torch.randint(9, (5,))]
    assert all(map(torch.equal, found, expected))
    assert (draws.whole_batch(4), draws.own_images(3), draws.part_of_batch()) == (4, 3, 1.0)

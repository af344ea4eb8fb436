"""How cells are chosen: sampled from the softmax, or the best one but for a share at random."""

import math

import pytest
import torch

from agents.location_policy import FORBIDDEN, CellLocations

CENTRES = torch.zeros(4, 2)
SCORES = torch.tensor([0.5, 2.0, FORBIDDEN, -1.0])


@pytest.mark.parametrize("exploration", [None, 0.0, 0.3, 1.0])
def test_shares_of_the_cells(exploration: float | None) -> None:
    torch.manual_seed(0)
    policy, params = CellLocations(CENTRES, exploration), SCORES.expand(60_000, 4)
    choice = policy.choose(params, policy.noise(1, params)[0])
    found = torch.bincount(choice, minlength=4) / len(choice)
    expected = torch.softmax(SCORES, dim=0)
    if exploration is not None:  # three cells are allowed, and the second is the best
        third = exploration / 3
        expected = torch.tensor([third, third + 1 - exploration, 0.0, third])
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    assert found[2] == 0


def test_the_gradient_of_the_entropy_by_hand() -> None:
    """Two cells with probabilities 1/4 and 3/4: dH/dz = -p (log p + H)."""
    params = torch.tensor([0.0, math.log(3)], requires_grad=True)
    entropy = CellLocations(CENTRES[:2]).entropy(params)
    assert entropy is not None
    expected = math.log(4) / 4 + 3 * math.log(4 / 3) / 4
    assert entropy.item() == pytest.approx(expected)
    slope = (math.log(4) - expected) / 4
    assert torch.autograd.grad(entropy, params)[0].tolist() == pytest.approx([slope, -slope])

"""The scripted scan: it is learned, and it is where it says."""

from typing import Any

import pytest
import torch

from agents.objective import Objective, hybrid_loss
from agents.unroll import Unroll, score
from train.common.training_task import TrainingTask
from train.dtram.options import Cells
from train.dtram.warm_up import scripted_scan, warm_up_objective


def test_the_scan_is_learned_by_the_locator(signpost: TrainingTask) -> None:
    torch.manual_seed(0)
    config: dict[str, Any] = {"hidden_size": 32, "locator_grid": 6, "locator_input": "state"}
    agent = signpost.new_agent(**config)
    objective = warm_up_objective(Objective(location_reward="mean_log_prob", location_entropy=0.1))
    unroll = Unroll(agent, signpost.sensor, 0.1, stop=False)
    unroll.scripted_locations = scripted_scan(3)
    images, index = signpost.images("train"), torch.arange(50)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    policy = []
    for _ in range(200):
        trajectory = unroll(images.store, index, 4, 1)
        losses = hybrid_loss(trajectory, images.labels[:50], 1, objective, agent.scalar_baseline)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        policy.append(losses.policy.item())
    assert policy[-1] < 0.9 * policy[0]  # that of uniform choices
    locations = score(agent, signpost.sensor, images.store, images.labels).locations[1:]
    cells = agent.cell_centres
    wanted = torch.stack(
        [cells[(cells - goal).square().sum(-1).argsort()[:2]] for goal in scripted_scan(3)]
    )
    near = (locations[:, :, None] == wanted[:, None]).all(-1).any(-1)  # two cells may be as near
    assert near.float().mean() > 0.9


def test_a_scan_stays_within_the_image_and_may_be_long() -> None:
    path = scripted_scan(14)
    assert path.shape == (14, 2) and path.abs().max() == 0.5
    assert len({tuple(point) for point in path[:6].tolist()}) == 6
    with pytest.raises(ValueError, match="later=0"):
        scripted_scan(0)


def test_the_entropy_bonus_falls_by_equal_steps() -> None:
    falling, constant = Cells(entropy=0.04, entropy_last=0.0), Cells(entropy=0.04)
    found = [falling.entropy_at(k / 4) for k in range(5)]
    assert found == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.0])
    assert constant.entropy_at(1.0) == 0.04

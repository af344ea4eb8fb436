"""The warm-up: locations follow one scripted scan before the location policy chooses them.

From its first weights a location policy looks at the middle of the image again and again, and the
policy gradient moves it away more slowly than the rest of the network learns. During the first
epochs of a stage (``--scan-epochs``) every image is therefore seen near one path, with one
trajectory an image, and the locator learns to follow that path by maximum likelihood. Then the
policy gradient takes over from there.
"""

from dataclasses import replace

import torch
from torch import Tensor

from agents.checks import require
from agents.objective import Objective

REACH = 0.5  # distance of the scan's points from the middle along each axis, in image halves
_POINTS = ((0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (0, 1))  # top, four corners, bottom
LIKELIHOOD_WEIGHT = 0.1  # of the scan: the warm-up is mostly for the encoder and the core


def scripted_scan(later: int) -> Tensor:
    """Locations ``(later, 2)`` in [-1, 1] of glimpses 2, 3, ..., the first being at the centre.

    With it, seven windows of 8 pixels cover most of a digit of 20. Later ones repeat the six. It is
    not the path of ``--locator scan``.
    """
    require("later", later, later >= 1, "at least 1 glimpse after the first")
    return REACH * torch.tensor([_POINTS[k % len(_POINTS)] for k in range(later)]).float()


def warm_up_objective(objective: Objective) -> Objective:
    """The loss during the warm-up: cross-entropy, and the likelihood of the scan's locations."""
    return replace(
        objective,
        baseline="none",
        location_reward="imitation",
        location_entropy=0.0,
        policy_weight=LIKELIHOOD_WEIGHT * objective.policy_weight,
    )

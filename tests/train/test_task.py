"""What training takes from a registered environment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dtram_env.datasets import load
from train.task import Task


def test_a_new_agent_scales_pixels_as_the_training_split_has_them() -> None:
    agent = Task("DTRAM-Signpost-v0", torch.device("cpu")).new_agent(hidden_size=8)
    pixels = load("Signpost", "train").images
    assert agent.config.pixel_mean == pytest.approx(np.mean(pixels))
    assert agent.config.pixel_std == pytest.approx(np.std(pixels))

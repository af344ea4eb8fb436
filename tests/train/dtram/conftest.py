"""One task for all tests of the folder."""

import pytest
import torch

from train.common.training_task import TrainingTask


@pytest.fixture(scope="session")
def signpost() -> TrainingTask:
    return TrainingTask("DTRAM-Signpost-v0", torch.device("cpu"))

"""Batch norms after training: their statistics are those of unchanged training images."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.cores import MapOptions
from agents.spatial_map import MapDTRAM, MapUnroll
from agents.unroll import score
from train.common.augment import Augmentation
from train.common.training_task import Images, TrainingTask
from train.dtram.batch_norms import set_batch_norms


def make_unroll(task: TrainingTask) -> MapUnroll:
    torch.manual_seed(0)
    size = task.sensor.glimpse_size
    options = MapOptions(extent=size / 28, glimpse_cells=size, width=4, dropout=0.0)
    config: dict[str, Any] = {
        "core": "map",
        "encoder": "pixels",
        "hidden_size": 8,
        "locator_grid": 14,
    }
    agent = task.new_agent(**config, map=options)
    assert isinstance(agent, MapDTRAM)
    return MapUnroll(agent, task.sensor)


def test_they_answer_as_in_a_batch_of_all_unchanged_images(signpost: TrainingTask) -> None:
    unroll, images = make_unroll(signpost), signpost.images("train")
    norms = [module for module in unroll.modules() if isinstance(module, nn.BatchNorm2d)]
    whole = torch.arange(len(images))
    with torch.no_grad():
        as_a_batch = unroll.train()(images.store, whole, steps=1).logits
    for norm in norms:
        nn.init.constant_(norm.running_mean, 3.0)
    unroll.exploration, unroll.jitter = 1.0, 9.0

    set_batch_norms(unroll, signpost, Augmentation(), len(images), glimpses=1)

    after = score(unroll.agent, signpost.sensor, images.store, images.labels).logits[:1]
    torch.testing.assert_close(after, as_a_batch, rtol=0, atol=0.01)
    assert [norm.momentum for norm in norms] == [0.1] * len(norms)
    assert (unroll.exploration, unroll.jitter) == (1.0, 9.0)


def test_all_batches_count_alike_and_show_unchanged_images(
    signpost: TrainingTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    unroll, images = make_unroll(signpost), signpost.images("train")
    norm = next(module for module in unroll.modules() if isinstance(module, nn.BatchNorm2d))
    means: list[Tensor] = []
    asked: list[Augmentation] = []

    def keep_mean(norm: nn.Module, features: tuple[Tensor]) -> None:
        if norm.training:
            means.append(features[0].mean(dim=(0, 2, 3)))

    def unchanged(images: Images, indices: Tensor, augment: Augmentation) -> tuple[Any, Tensor]:
        asked.append(augment)
        return images.store, indices

    norm.register_forward_pre_hook(keep_mean)
    monkeypatch.setattr(signpost, "augmented", unchanged)
    augment = Augmentation(affine=1.0, elastic=1.0, compose=True)
    set_batch_norms(unroll, signpost, augment, len(images) // 4, glimpses=2)
    assert len(means) == 4 and norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(dim=0))
    assert asked == 4 * [Augmentation(affine=0.0, compose=True)]

"""How one-look networks are ranked on validation, and pictures of what SACT computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from agents.cost import count_flops
from train.common.evaluate_one_look import (
    draw_maps,
    halting_cost,
    logits_of,
    select_network,
    whole_map,
)
from train.common.one_look_networks import HaltingBlocks, NoHalting, new_network
from train.common.options import PlainEncoder, ResNetEncoder
from train.common.training_task import TrainingTask

RESNET = ResNetEncoder("resnet10", width=8, stem_stride=1)


@pytest.mark.parametrize("halts", [False, True])
def test_validation_ranks_by_error_or_by_acts_loss(signpost: TrainingTask, halts: bool) -> None:
    settings = {"side": 8, "bf16": False, "seed": 0}
    encoder, halting = (RESNET, HaltingBlocks()) if halts else (PlainEncoder(), NoHalting())
    network, _ = new_network(signpost, encoder, halting, **settings)
    images = signpost.images("validation")
    selection = select_network(network, images, ponder_cost=0.5)
    logits = logits_of(network, images)
    error = (logits.argmax(-1) != images.labels).double().mean().item()
    loss = cross_entropy(logits, images.labels).item()
    assert selection.metrics["eval/accuracy"] == pytest.approx(1 - error)
    assert selection.threshold == 1.0
    if not halts:
        assert selection.criterion == pytest.approx((error, loss))
        return
    cost = halting_cost(network, images)
    assert cost["ponder"] > 0 and selection.metrics["eval/ponder"] == cost["ponder"]
    assert selection.criterion == pytest.approx((loss + 0.5 * cost["ponder"], error))
    seen = images.store.thumbnail(torch.arange(len(images)), 8)
    assert cost["flops"] == round(count_flops(network, lambda: network(seen)) / len(images))


def test_whole_map_by_hand() -> None:
    fine = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    coarse = torch.tensor([[[10.0]]])
    expected = [[11, 11, 12, 12]] * 2 + [[13, 13, 14, 14]] * 2
    assert whole_map([fine, coarse], (4, 4))[0].tolist() == expected


def test_maps_as_pictures(tmp_path: Path) -> None:
    seen = torch.randint(256, (32, 32, 3), dtype=torch.uint8)
    maps = [2 + torch.rand(side, side) for side in (32, 16, 8, 4)]
    figure = draw_maps(seen.numpy(), maps)
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(shown[0], seen.numpy())
    for picture, one in zip(shown[1:5], maps, strict=True):
        np.testing.assert_allclose(picture, one.numpy())
    whole = whole_map([one[None] for one in maps], (32, 32))[0]
    np.testing.assert_allclose(shown[5], whole.numpy())
    figure.savefig(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        assert min(picture.size) > 200
    even = draw_maps(seen[..., :1].numpy(), [one * 0 + 2 for one in maps])  # grey
    limits = [axis.images[0].get_clim() for axis in even.axes if axis.images][1:]
    assert limits[0] == pytest.approx((2.0, 2.1))  # not the rounding's

"""How one-look networks are ranked on validation."""

import pytest
from torch.nn.functional import cross_entropy

from train.common.evaluate_one_look import halting_cost, logits_of, select_network
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
    ponder = halting_cost(network, images)["ponder"]
    assert ponder > 0 and selection.metrics["eval/ponder"] == ponder
    assert selection.criterion == pytest.approx((loss + 0.5 * ponder, error))

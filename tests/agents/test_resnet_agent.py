"""DT-RAM with residual encoders: weights of each step's own, two sizes of look, summed answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import dtram_env
from agents import precision
from agents.config import DTRAMConfig
from agents.cost import flops_of_first_glimpse, flops_per_glimpse, mean_flops
from agents.dtram import DTRAM
from agents.encoders import GlimpseCNN, GlimpseResNet, PixelScale
from agents.resnet import ResNetOptions
from agents.stopping import LearnedStop
from agents.unroll import GlimpseSensor, Unroll, classify, score
from dtram_env.datasets import Dataset
from dtram_env.datasets.storage.tensors import TensorStore
from dtram_env.datasets.storage.thumbnails import box_resize
from dtram_env.sensor import margin

SMALL = ResNetOptions("resnet10", width=4, stem_stride=1)
CONFIG = DTRAMConfig(
    3, (8, 8, 3), 3, encoder="resnet10", resnet=SMALL, hidden_size=32, location_embedding=False
)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 24, 20, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def make(seed: int = 0, **changes: object) -> DTRAM:
    torch.manual_seed(seed)
    agent = DTRAM(replace(CONFIG, **changes))  # type: ignore[arg-type]
    torch.nn.init.normal_(agent.stopper[-1].weight, std=2.0)
    torch.nn.init.normal_(agent.locator.weight, std=0.3)
    for encoder in agent.encoders():  # zeroed blocks would hide what they do
        for name, parameter in encoder.named_parameters():
            if "bn" in name:
                torch.nn.init.normal_(parameter, 0.5, 0.1)
    return agent.eval()


def observed(batch: int, seed: int = 1, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    glimpse = torch.randint(0, 256, (batch, side, side, 3), generator=generator).to(torch.uint8)
    return glimpse, torch.rand(batch, 2, generator=generator) * 2 - 1


def test_the_recurrence_of_the_original_code() -> None:
    agent = make()
    glimpse, location = observed(2)
    (encoder,) = agent.encoders()
    assert isinstance(encoder, GlimpseResNet) and encoder.where is None
    features = encoder.trunk(glimpse.permute(0, 3, 1, 2).float() / 255)
    first = agent.observe(glimpse, location, agent.initial(2))
    torch.testing.assert_close(first.h, features)  # h_1 = ReLU(ResNet(x)), which is not negative
    second = agent.observe(glimpse, location, first)
    recurrent = agent.core.recurrent(features)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(second.h, torch.relu(features + recurrent))


def test_only_the_location_embedding_reads_the_location() -> None:
    glimpse, location = observed(2)
    for embedding in (False, True):
        agent = make(location_embedding=embedding)
        here = agent.observe(glimpse, location, agent.initial(2)).h
        there = agent.observe(glimpse, -location, agent.initial(2)).h
        assert torch.equal(here, there) != embedding


def test_answers_of_the_first_plus_the_mean_of_the_rest() -> None:
    agent = make(answer="first_plus_mean")
    states = [agent.initial(4)]
    for t in range(3):
        states.append(agent.observe(*observed(4, seed=t), states[-1]))
    said = [agent.classifier(state.h) for state in states[1:]]
    expected = [said[0], said[0] + said[1], said[0] + (said[1] + said[2]) / 2]
    for state, logits in zip(states[1:], expected, strict=True):
        torch.testing.assert_close(agent.logits(state), logits)
    torch.testing.assert_close(agent.stacked_logits(states[1:]), torch.stack(expected))


def test_each_step_has_networks_of_its_own() -> None:
    agent = make(per_step=True)
    assert len(agent.encoders()) == len(agent.classifiers()) == 3
    glimpse, location = observed(2)
    state = agent.initial(2)
    for step in range(3):
        after = agent.observe(glimpse, location, state, step)
        code = agent.encoders()[step](glimpse, location)
        torch.testing.assert_close(after.h, agent.core(code, state.h))
        torch.testing.assert_close(agent.logits(after, step), agent.classifiers()[step](after.h))
        state = after
    with pytest.raises(ValueError, match="step=None: expected the step"):
        agent.observe(glimpse, location, agent.initial(2))


@pytest.mark.parametrize("changes", [{"per_step": True}, {"thumbnail_size": 12}])
def test_episodes_at_different_steps_act_as_each_alone(changes: dict) -> None:
    agent = make(**changes)
    glimpse, location = observed(5)
    thumbnail = observed(5, side=12)[0]
    views = {"thumbnail": thumbnail} if "thumbnail_size" in changes else {}
    state = agent.initial(5)
    for step in range(2):
        state = agent.observe(*observed(5, seed=step), state, step)
    state = state._replace(time=torch.tensor([1, 0, 2, 0, 1]))
    observation = {"glimpse": glimpse, "location": location, **views}
    action, after = agent.step(observation, state)
    for i in range(5):
        one = {name: part[i : i + 1] for name, part in observation.items()}
        alone, alone_after = agent.step(one, agent.select(state, torch.tensor([i])))
        for name, value in alone.items():
            torch.testing.assert_close(action[name][i : i + 1], value)
        for part, alone_part in zip(after, alone_after, strict=True):
            torch.testing.assert_close(part[i : i + 1], alone_part)


@pytest.mark.parametrize("own", [12, 8])
@pytest.mark.parametrize(
    "changes", [{}, {"per_step": True}, {"per_step": True, "answer": "first_plus_mean"}]
)
def test_three_evaluations_agree_with_a_thumbnail_first(changes: dict, own: int) -> None:
    agent = make(**changes, thumbnail_size=own if own != 8 else 0)
    agent.stopping = LearnedStop(0.5)
    store = TensorStore(torch.from_numpy(IMAGES), margin(8, 1))
    sensor = GlimpseSensor(8, 1, "thumbnail", own if own != 8 else 0)
    index, labels = torch.arange(12), torch.from_numpy(LABELS)
    scores = score(agent, sensor, store, labels)
    # Half stop at once, so that images do leave the batch.
    agent.stopping = LearnedStop(torch.sigmoid(scores.stop_logit[0]).median().item())
    taken, prediction = scores.apply(agent.stopping)
    answers = classify(agent, sensor, store, index)
    assert answers.prediction.tolist() == prediction.tolist()
    assert answers.num_glimpses.tolist() == taken.tolist() and len(set(taken.tolist())) > 1
    found = dtram_env.evaluate(
        agent,
        "DTRAM-Signpost-v0",
        dataset=Dataset("Toy", "test", IMAGES, LABELS, ("a", "b", "c")),
        num_envs=5,
        glimpse_size=8,
        max_glimpses=3,
        first_glimpse="thumbnail",
        thumbnail_size=own,
    )
    assert found.prediction.tolist() == prediction.tolist()
    assert found.num_glimpses.tolist() == taken.tolist()


def test_a_thumbnail_is_the_whole_image() -> None:
    store = TensorStore(torch.from_numpy(IMAGES), margin(8, 2))
    seen, location = GlimpseSensor(8, 2, "thumbnail").first(store, torch.arange(12))
    whole = box_resize(IMAGES, 8)
    np.testing.assert_array_equal(seen.numpy(), np.concatenate([whole, whole], axis=-1))
    assert (location == 0).all()
    own, _ = GlimpseSensor(8, 2, "thumbnail", 10).first(store, torch.arange(12))
    np.testing.assert_array_equal(own.numpy(), box_resize(IMAGES, 10))


def test_every_step_of_an_unroll_is_learned_from() -> None:
    agent = make(per_step=True, thumbnail_size=12).train()
    store = TensorStore(torch.from_numpy(IMAGES), margin(8, 1))
    trajectory = Unroll(agent, GlimpseSensor(8, 1, "thumbnail", 12), 0.3)(
        store, torch.arange(12), 3, m=2
    )
    trajectory.logits.sum().backward()
    for step in range(3):
        for module in (agent.encoders()[step], agent.classifiers()[step]):
            assert all(p.grad is not None for p in module.parameters())


def test_frozen_norms_stay_as_they_are() -> None:
    agent = make(frozen_norms=True).train()
    before = {k: v.clone() for k, v in agent.state_dict().items() if "running" in k}
    agent.observe(*observed(6), agent.initial(6))
    assert before and all(torch.equal(agent.state_dict()[k], v) for k, v in before.items())
    free = make().train()
    free.observe(*observed(6), free.initial(6))
    assert any(not torch.equal(free.state_dict()[k], v) for k, v in before.items())


def test_bf16_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device_type: True)
    agent = make()
    plain = agent.observe(*observed(4), agent.initial(4)).h
    for encoder in agent.encoders():
        assert isinstance(encoder, GlimpseResNet)
        encoder.bf16 = True
    rounded = agent.observe(*observed(4), agent.initial(4)).h
    assert rounded.dtype == torch.float32 and not torch.equal(plain, rounded)
    torch.testing.assert_close(rounded, plain, atol=0.05, rtol=0.05)


def test_flops_of_a_thumbnail_and_of_a_crop() -> None:
    agent, larger = make(), make(thumbnail_size=16)
    assert flops_of_first_glimpse(agent) == flops_per_glimpse(agent)
    # Convolutions cost four times as much on four times the pixels; the rest costs the same.
    trunk, rest = _trunk_flops(larger, 8), flops_per_glimpse(agent) - _trunk_flops(agent, 8)
    assert flops_per_glimpse(larger) == trunk + rest
    assert flops_of_first_glimpse(larger) == _trunk_flops(larger, 16) + rest
    assert _trunk_flops(larger, 16) == 4 * _trunk_flops(larger, 8)
    assert mean_flops(larger, 2.5) == flops_of_first_glimpse(larger) + 1.5 * (trunk + rest)


def _trunk_flops(agent: DTRAM, side: int) -> int:
    (encoder,) = agent.encoders()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.trunk(torch.zeros(1, 3, side, side))  # type: ignore[operator, union-attr]
    return int(counter.get_total_flops())


def test_pixels_are_scaled_by_channel() -> None:
    scale = PixelScale((1.0, 2.0), (2.0, 4.0))
    pixels = torch.tensor([[3, 6, 5, 10]], dtype=torch.uint8).view(1, 1, 1, 4)  # two scales
    assert scale(pixels, torch.float32).flatten().tolist() == [1.0, 1.0, 2.0, 2.0]


def test_cnn_pools_down_to_four_pixels() -> None:
    encoder = GlimpseCNN((32, 32, 3), 16)
    assert [conv.out_channels for conv in encoder.convs] == [16, 24, 32, 40]
    assert encoder.join.in_features == 40 * 4 * 4 + 128
    assert encoder(*observed(2, side=32)).shape == (2, 16)


PLAIN = DTRAMConfig(3, (8, 8, 3), 3)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (CONFIG, {"resnet": None}, "resnet=None: expected options of resnet10"),
        (CONFIG, {"encoder": "mlp"}, "resnet=.*: expected options of None"),
        (CONFIG, {"glimpse_shape": (4, 4, 3)}, "at least 8x8 pixels for encoder='resnet10'"),
        (CONFIG, {"thumbnail_size": 4}, "thumbnail_size=4: expected 0, or at least 8"),
        (CONFIG, {"pixel_std": (1.0, 2.0)}, "pixel_std=.*: expected a number, or 3, one a ch"),
        (PLAIN, {"thumbnail_size": 12}, "takes one size only; make the environment with"),
        (PLAIN, {"location_embedding": False}, "location_embedding=False: expected True, unless"),
        (PLAIN, {"frozen_norms": True}, "frozen_norms=True: expected False, unless"),
        (PLAIN, {"answer": "product"}, "answer='product': expected 'state' or 'first_plus_mean'"),
    ],
)
def test_bad_settings(config: DTRAMConfig, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)

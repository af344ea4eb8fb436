"""The stopper's data, and the loss of ACT's halting by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agents.dtram import DTRAM, DTRAMConfig
from agents.halting.act import ACTStop, HaltingRAM
from agents.objective import Objective, gains_to_come, hybrid_loss, trained_heads
from agents.unroll import Scores, score
from train.common.augment import Augmentation
from train.common.training import learn_only
from train.common.training_task import TrainingTask
from train.dtram.frozen_states import FrozenStates, frozen_states, learning_classifier
from train.dtram.validation import score_validation, select_halting

PLAIN = Augmentation(affine=0.0)
SCORE = 0.4  # after every glimpse: two leave 0.2, which the third takes


def test_states_are_those_of_the_deterministic_pass(signpost: TrainingTask) -> None:
    torch.manual_seed(0)
    agent = signpost.new_agent(hidden_size=16)
    states = frozen_states(signpost, agent, "train", PLAIN, seed=0)
    train = signpost.images("train")
    scores = score(agent, signpost.sensor, train.store, train.labels)
    torch.testing.assert_close(states.logits, scores.logits)
    torch.testing.assert_close(agent.classifier(states.h), scores.logits)
    assert states.env_steps == 4 * len(train)
    objective = Objective(stop="learned", location_reward="return", baseline="none")
    indices = torch.arange(100)
    trajectory = states.trajectory(agent, indices)
    losses = hybrid_loss(trajectory, states.labels[:100], 1, objective, agent.scalar_baseline)
    torch.testing.assert_close(losses.mean_return, _expected_return(scores, signpost.discount))


def test_a_classifier_that_learns_on_answers_anew(signpost: TrainingTask) -> None:
    torch.manual_seed(0)
    agent = signpost.new_agent(hidden_size=16)
    frozen = frozen_states(signpost, agent, "train", PLAIN, seed=0)
    learns, some = frozen._replace(answers_learn=True), torch.arange(5)
    parameters = learning_classifier(signpost, agent)
    with torch.no_grad():
        agent.classifier.bias += 1.0
    torch.testing.assert_close(learns.trajectory(agent, some).logits, frozen.logits[:, :5] + 1.0)
    torch.testing.assert_close(learns.scores(agent).logits, frozen.logits + 1.0)
    torch.testing.assert_close(frozen.trajectory(agent, some).logits, frozen.logits[:, :5])
    gradients = torch.autograd.grad(learns.trajectory(agent, some).logits.sum(), parameters)
    torch.testing.assert_close(gradients[1], torch.full_like(agent.classifier.bias, 4.0 * 5))


def test_a_classifier_for_each_glimpse_cannot_learn_on(signpost: TrainingTask) -> None:
    agent = signpost.new_agent(hidden_size=16, answer="first_plus_mean", per_step=True)
    with pytest.raises(ValueError, match="stop classifier learns: expected frozen"):
        learning_classifier(signpost, agent)


def _expected_return(scores: Scores, discount: float) -> Tensor:
    """Mean over the first 100 images, by the definition of survival."""
    p = torch.sigmoid(scores.stop_logit[:, :100]).clone()
    p[-1] = 1.0
    total, survive = torch.zeros(100), torch.ones(100)
    for t in range(len(p)):
        right = (scores.logits[t, :100].argmax(-1) == scores.labels[:100]).float()
        total += survive * p[t] * discount ** (t + 1) * right
        survive = survive * (1 - p[t])
    return total.mean()


def test_a_budget_takes_a_random_part_of_the_images(signpost: TrainingTask) -> None:
    agent = signpost.new_agent(hidden_size=16)
    some, others = (
        frozen_states(signpost, agent, "train", PLAIN, s, env_steps=402) for s in (0, 1)
    )
    assert some.h.shape[:2] == (4, 100) and len(some.labels) == 100
    assert not torch.equal(some.labels, others.labels)


def test_the_gain_to_come_by_hand() -> None:
    """The true class's probability goes 1/4, 1/2, 1/2; the stopper predicts 0.3 nats at first."""
    half, quarter = math.log(0.5), math.log(0.25)
    logits = torch.tensor([[[quarter, math.log(0.75)]], [[half, half]], [[half, half]]])
    assert gains_to_come(logits, torch.tensor([0]))[:, 0].tolist() == pytest.approx(
        [math.log(2), 0.0, 0.0]
    )
    falling = gains_to_come(logits.flip(0), torch.tensor([0]))[:, 0].tolist()
    assert falling == pytest.approx([-0.5 * math.log(2), -math.log(2), 0.0])
    agent = DTRAM(DTRAMConfig(2, (8, 8, 1), 3, hidden_size=1, stopper_hidden=0))
    torch.nn.init.constant_(agent.stopper[0].bias, -0.3)
    states = FrozenStates(torch.zeros(3, 1, 1), logits, torch.tensor([0]))
    losses = states.gain_losses(agent, torch.tensor([0]), 0.9)
    by_hand = (math.log(2) - 0.3) ** 2 + 0.3**2  # nothing is decided after the last glimpse
    assert losses.total.item() == pytest.approx(by_hand, rel=1e-5)
    assert losses.baseline.item() == pytest.approx(by_hand, rel=1e-5)
    assert losses.cross_entropy.item() == pytest.approx(math.log(2))
    losses.total.backward()
    assert agent.stopper[0].bias.grad.item() == pytest.approx(2 * (math.log(2) - 0.3) - 2 * 0.3)


@pytest.mark.parametrize("gradient", ["exact", "reinforce"])
@pytest.mark.parametrize("baseline", ["value", "leave_one_out", "scalar", "none"])
def test_every_parameter_that_learns_is_reached(
    signpost: TrainingTask, gradient: str, baseline: str
) -> None:
    torch.manual_seed(0)
    agent = signpost.new_agent(hidden_size=16)
    for parameter in agent.stopper.parameters():
        torch.nn.init.normal_(parameter)
    objective = Objective(
        stop="learned", location_reward="return", stop_gradient=gradient, baseline=baseline
    )
    learn_only(agent, trained_heads(agent, objective))
    states = frozen_states(signpost, agent, "train", PLAIN, 0, env_steps=400)
    trajectory = states.trajectory(agent, torch.arange(50).repeat_interleave(2))
    losses = hybrid_loss(trajectory, states.labels[:50], 2, objective, agent.scalar_baseline)
    losses.total.backward()
    reached = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in agent.named_parameters() if p.requires_grad}
    assert any(name.startswith("stopper") for name in reached)


def halting(task: TrainingTask) -> tuple[FrozenStates, HaltingRAM]:
    """An untrained network whose halting score is always `SCORE`, and its states."""
    torch.manual_seed(0)
    agent = HaltingRAM(task.new_agent(hidden_size=16).config)
    last = agent.stopper[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, math.log(SCORE / (1 - SCORE)))
    return frozen_states(task, agent, "train", PLAIN, 0, env_steps=400), agent


def mixed(each: Tensor) -> Tensor:
    """The logits after each glimpse, mixed by 0.4, 0.4 and what remains."""
    return 0.4 * each[0] + 0.4 * each[1] + 0.2 * each[2]


def test_acts_loss_is_cross_entropy_plus_the_ponder_cost(signpost: TrainingTask) -> None:
    states, agent = halting(signpost)
    losses = states.act_losses(agent, torch.arange(100), 0.5, signpost.discount)
    answer = mixed(states.logits)
    told = cross_entropy(answer, states.labels)
    torch.testing.assert_close(losses.cross_entropy, told)
    torch.testing.assert_close(losses.total, told + 0.5 * 3.2)  # N = 3, R = 0.2
    right = (answer.argmax(-1) == states.labels).float().mean()
    assert losses.mean_glimpses == 3.0
    torch.testing.assert_close(losses.mean_return, right * signpost.discount**3)


def test_the_ponder_cost_raises_the_scores_through_the_remainder(signpost: TrainingTask) -> None:
    """R = 1 - h - h, so a unit of cost has a slope of -2 h (1 - h) in the bias."""
    slopes = []
    for cost in (0.0, 1.0):
        states, agent = halting(signpost)
        states.act_losses(agent, torch.arange(100), cost, 1.0).total.backward()
        slopes.append(agent.stopper[-1].bias.grad.item())
    assert slopes[1] - slopes[0] == pytest.approx(-2 * SCORE * (1 - SCORE), abs=1e-5)


def test_validation_judges_act_by_whole_glimpses(signpost: TrainingTask) -> None:
    _, agent = halting(signpost)
    found = select_halting(score_validation(signpost, agent), signpost.discount, 0.5)
    images = signpost.images("validation")
    plain = signpost.new_agent(hidden_size=16)
    plain.load_state_dict(agent.state_dict())
    answer = mixed(score(plain.eval(), signpost.sensor, images.store, images.labels).logits)
    loss = cross_entropy(answer, images.labels).item() + 0.5 * 3
    assert found.criterion == (pytest.approx(loss, abs=1e-5), 3.0)
    assert found.threshold == ACTStop().threshold
    right = (answer.argmax(-1) == images.labels).double().mean().item()
    assert found.metrics["eval/accuracy"] == pytest.approx(right)
    assert found.metrics["eval/mean_return"] == pytest.approx(right * signpost.discount**3)

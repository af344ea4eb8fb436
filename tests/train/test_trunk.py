"""A stopper, or ACT's halting, learned on a trunk that another run trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from agents.dtram import DTRAM
from agents.halting.act import ACTStop, HaltingRAM
from agents.loading import load_agent
from train.common.training_task import Task
from train.dtram.options import Options
from train.evaluate import Options as EvaluateOptions
from train.evaluate import evaluate
from train.reinforce import agent_on_trunk, train

from .conftest import SMALL

HEADS = ("stopper", "baseline")


@pytest.fixture(scope="module")
def ram(tmp_path_factory: pytest.TempPathFactory, small_options) -> Path:
    """A RAM of two stages; its recurrent core is not the default one."""
    folder = tmp_path_factory.mktemp("ram") / "run"
    return train(small_options(run_dir=folder, stop="off", curriculum=(2, 4), core="gru"))


UNREAD = ("hidden_size", "epochs", "batch_size", "learning_rate")  # with a trunk


@pytest.fixture(scope="module")
def on_trunk():
    """Options of a run on a trunk, which says what the network is."""
    given = {name: value for name, value in SMALL.items() if name not in UNREAD}
    return lambda **changes: Options(**{**given, **changes})


def trunk_of(agent: DTRAM) -> dict[str, torch.Tensor]:
    return {k: v for k, v in agent.state_dict().items() if k.split(".")[0] not in HEADS}


def test_each_stage_leaves_its_model(ram: Path) -> None:
    names = sorted(path.name for path in (ram / "stages").iterdir())
    assert len(names) == 2 and names[0] == "trunk-2"
    early, late = (DTRAM.load(ram / "stages" / name) for name in names)
    assert any(not torch.equal(a, b) for a, b in zip(*map(_values, (early, late)), strict=True))
    final = DTRAM.load(ram)
    assert all(torch.equal(a, b) for a, b in zip(_values(late), _values(final), strict=True))


def _values(agent: DTRAM) -> list[torch.Tensor]:
    return list(agent.state_dict().values())


@pytest.mark.parametrize("stop", ["after", "act"])
def test_the_trunk_stays_and_the_stop_learns(
    tmp_path: Path, ram: Path, on_trunk, stop: str
) -> None:
    cost = {"ponder_cost": 0.2} if stop == "act" else {}
    run = train(on_trunk(run_dir=tmp_path / stop, trunk=ram, stop=stop, **cost))
    agent, given = load_agent(run), DTRAM.load(ram)
    assert isinstance(agent, HaltingRAM) == (stop == "act")
    assert agent.config.core == "gru"
    assert agent.config.stopper_prior == ("none" if stop == "act" else "confidence")
    before, after = trunk_of(given), trunk_of(agent)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    last = agent.stopper[-1].weight  # which is 0 before anything is learned
    assert (last != 0).any()
    results = json.loads((run / "results.json").read_text())
    assert results["backbone"] == "trunk"
    made = json.loads((ram / "results.json").read_text())
    assert results["trunk"]["command"] == made["command"]
    assert results["trunk"]["train_seconds"] == made["train_seconds"]
    found = evaluate(EvaluateOptions(run))
    assert found["differs_from_training"] == 0
    assert found["mean_glimpses"] == pytest.approx(results["mean_glimpses"], abs=1e-4)
    if stop == "act":
        assert agent.stopping == ACTStop()
        assert "ACT, sum of halting scores > 0.99" in (run / "results.txt").read_text()


def test_a_stop_on_a_stops_trunk_tells_where_the_trunk_is_from(
    tmp_path: Path, ram: Path, on_trunk
) -> None:
    first = train(on_trunk(run_dir=tmp_path / "first", trunk=ram))
    second = train(on_trunk(run_dir=tmp_path / "second", trunk=first, discount=0.9))
    origins = [json.loads((run / "results.json").read_text())["trunk"] for run in (first, second)]
    assert origins[0] == origins[1]
    assert origins[0]["options"]["stop"] == "off"
    made = json.loads((ram / "model.json").read_text())["weights_sha256"]
    assert origins[1]["weights_sha256"] == made


def test_dearer_glimpses_are_fewer(tmp_path: Path, ram: Path, on_trunk) -> None:
    means = []
    for cost in (0.0, 5.0):
        folder = tmp_path / f"{cost}"
        made = on_trunk(run_dir=folder, trunk=ram, stop="act", ponder_cost=cost, stop_epochs=30)
        results = json.loads((train(made) / "results.json").read_text())
        means.append(results["mean_glimpses"])
    assert means[1] < means[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": "act"}, "--stop act: expected with --trunk"),
        ({"trunk": Path("x"), "stop": "joint"}, "--stop joint: expected after or act"),
        ({"trunk": Path("x"), "core": "gru"}, "--core gru: expected not given"),
        ({"trunk": Path("x"), "curriculum": (2, 4)}, "--curriculum"),
        ({"trunk": Path("x"), "stop": "act", "ponder_cost": -1.0}, "--ponder-cost -1.0"),
        ({"ponder_cost": 0.5}, "--ponder-cost 0.5: expected not given: it is of --stop act"),
        ({"trunk": Path("x"), "epochs": 3}, "--epochs 3: expected not given: with --trunk"),
        ({"trunk": Path("x"), "stop": "act", "max_mean_glimpses": 2.0}, "nothing is bounded"),
        ({"stop": "off", "stopper_prior": "none"}, "--stopper-prior none: expected not given"),
        ({"glimpse_only_weight": -1.0}, "--lone-weight -1.0"),
        ({"glimpse_only_reward": 1.5}, "--lone-reward 1.5: expected 0 to 1"),
        (
            {"glimpse_only_reward": 0.5, "location_reward": "return"},
            "unless a location is paid anytime",
        ),
    ],
)
def test_impossible_options_are_errors(on_trunk, changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_trunk(**changes)


def test_a_trunk_that_is_not_there_or_does_not_fit(tmp_path: Path, ram: Path, on_trunk) -> None:
    with pytest.raises(FileNotFoundError, match="no saved model"):
        train(on_trunk(run_dir=tmp_path / "a", trunk=tmp_path / "nothing"))
    with pytest.raises(ValueError, match="--bf16 True: expected not given: the trunk's encoder"):
        train(on_trunk(run_dir=tmp_path / "c", trunk=ram, bf16=True))
    with pytest.raises(ValueError, match="was made for"):
        train(on_trunk(run_dir=tmp_path / "b", trunk=ram, glimpse_size=6))


def test_an_unfinished_trunk_or_one_of_another_task_is_refused(
    tmp_path: Path, ram: Path, on_trunk
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ram, copy)
    (copy / "results.json").unlink()
    with pytest.raises(ValueError, match="expected a finished run"):
        train(on_trunk(run_dir=tmp_path / "a", trunk=copy))
    header = json.loads((copy / "model.json").read_text())
    (copy / "options.json").unlink()
    (copy / "model.json").write_text(json.dumps(header | {"env_id": "DTRAM-MNIST-v0"}))
    with pytest.raises(ValueError, match="was made for DTRAM-MNIST-v0"):
        train(on_trunk(run_dir=tmp_path / "b", trunk=copy))


def test_a_trunks_batch_norms_stay_as_they_are(tmp_path: Path, small_options, on_trunk) -> None:
    """What the stopper learns from is what the network says when it is used."""
    made = small_options(
        run_dir=tmp_path / "ram",
        stop="off",
        encoder="resnet10",
        resnet_width=8,
        small_stem=True,
        hidden_size=None,
        epochs=1,
    )
    ram = train(made)
    options = on_trunk(run_dir=tmp_path / "run", trunk=ram, stop_epochs=1)
    agent = agent_on_trunk(options, Task("DTRAM-Signpost-v0", torch.device("cpu")))
    assert not agent.training
    run = train(options)
    before, after = trunk_of(DTRAM.load(ram)), trunk_of(DTRAM.load(run))
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)

"""A model or a run from a stranger runs no code and writes nothing where it says."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agents.backbone_weights import load_backbone
from agents.dtram import DTRAM
from agents.one_look import OneLook, OneLookConfig
from agents.policy_only import FrozenClassifier
from agents.resnet import ResNetBackbone, ResNetOptions
from train import predict, reinforce
from train.baselines.comparison_run import ComparisonRun
from train.common.files import read_json
from train.common.options import EnvOptions
from train.evaluate import Options, evaluate

RESNET = ResNetOptions("resnet10", width=4, stem_stride=1, channels=1)


class Touch:
    """What an unpickler would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """The file that exists once planted code has run."""
    return tmp_path / "ran"


@pytest.fixture
def plant(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Copies a folder, and adds modules and pickles to the copy that would write `ran`."""

    def copy(folder: Path, **changes: Any) -> Path:
        planted = shutil.copytree(folder, ran.with_name("planted"))
        code = f"from pathlib import Path; Path({str(ran)!r}).touch()"
        (planted / "notes.py").write_text(code)
        pickles = ("replay_buffer.pkl", "model.pkl", "model.pt", "model.pth", "weights.pt")
        for file in (*(planted / name for name in pickles), *planted.rglob("*.pt")):
            file.write_bytes(pickle.dumps(Touch(ran), protocol=2))
        for file in planted.rglob("model.json"):
            file.write_text(json.dumps(read_json(file) | changes))
        monkeypatch.syspath_prepend(planted.parent)
        monkeypatch.syspath_prepend(planted)
        monkeypatch.chdir(planted)
        return planted

    return copy


def test_planted_files_would_run(tmp_path: Path, ran: Path, plant: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    folder = plant(tmp_path / "empty")
    __import__("notes")
    assert ran.exists()
    ran.unlink()
    pickle.loads((folder / "model.pt").read_bytes())
    assert ran.exists()


CHANGES = [
    ({"env_id": "notes:DTRAM-Signpost-v0"}, "env_id: environment 'notes:DTRAM-Signpost-v0': expec"),
    ({"env_id": "planted.notes:DTRAM-Signpost-v0"}, "env_id: environment 'planted.notes:"),
    ({"env_id": "CartPole-v1"}, "env_id: environment 'CartPole-v1': expected one of this"),
    ({"env_id": ["DTRAM-Signpost-v0"]}, "env_id: environment ['DTRAM-Signpost-v0']: expected"),
    ({"env_options": {"data_dir": "here"}}, "env_options={'data_dir': 'here'}: expected an obj"),
    ({"env_options": {"render_mode": "human"}}, "env_options={'render_mode': 'human'}: expected"),
    ({"env_options": ["data"]}, "env_options=['data']: expected an object with keywords of the"),
    ({"env_options": {"image_size": 10**9}}, "env_options.image_size=1000000000: expected an in"),
    ({"env_options": {"max_glimpses": "7"}}, "env_options.max_glimpses='7': expected an integer"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_model_names_only_our_environments_and_keywords_of_the_task(
    finished_run: Path, ran: Path, plant, small_options, changes: dict[str, Any], message: str
) -> None:
    folder = plant(finished_run, **changes)
    for read in (
        lambda: evaluate(Options(folder, device="cpu")),
        lambda: reinforce.train(small_options(trunk=folder, run_dir=ran.with_name("run"))),
    ):
        with pytest.raises(ValueError) as error:
            read()
        assert str(error.value).startswith(f"{folder / 'model.json'}: ")
        assert message in str(error.value)
    assert not ran.exists() and not (folder / "here").exists()
    assert not ran.with_name("run").exists()


def test_the_comparison_shows_a_strangers_model_as_a_problem(
    finished_run: Path, ran: Path, plant: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant(finished_run, env_id="notes:DTRAM-Signpost-v0")
    monkeypatch.setattr("train.common.jobs.ProgramRun.check_options", lambda self: None)
    environment = EnvOptions("DTRAM-Signpost-v0")
    run = ComparisonRun("whole-task", "dtram", 0, 10, folder, environment)
    assert "environment 'notes:DTRAM-Signpost-v0'" in run.record()["problem"]
    assert not ran.exists()


def test_planted_files_are_not_read(finished_run: Path, ran: Path, plant, tmp_path: Path) -> None:
    """By the programs that need no environment, and by one that was named rightly."""
    folder = plant(finished_run)
    Image.fromarray(np.zeros((28, 28), dtype=np.uint8)).save(tmp_path / "image.png")
    found = predict.predict(predict.Options(folder, (tmp_path / "image.png",), device="cpu"))
    assert found["images"] == 1
    assert evaluate(Options(folder, device="cpu"))["images"] == 2000
    assert isinstance(FrozenClassifier.load(folder).network, DTRAM)
    assert not ran.exists()


def test_a_folder_of_encoder_weights(tmp_path: Path, ran: Path, plant) -> None:
    config = OneLookConfig(2, (8, 8, 1), "resnet10", RESNET, hidden_size=RESNET.out_features)
    OneLook(config).save(tmp_path / "look", env_id="notes:X")
    folder = plant(tmp_path / "look")
    load_backbone(ResNetBackbone(RESNET), folder)
    with pytest.raises(ValueError, match=r"weights\.pt: holds a pickled"):
        load_backbone(ResNetBackbone(RESNET), folder / "weights.pt")
    assert not ran.exists()


def test_a_checkpoint(ran: Path, plant, small_options, interrupted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    interrupted(lambda: reinforce.train(small_options(run_dir=run)), 5)
    folder = plant(run)
    assert list(folder.glob("checkpoint-*/*.pt"))
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        reinforce.train(small_options(run_dir=folder, resume=True))
    assert not ran.exists()

"""A model or a run from a stranger runs no code and writes nothing where it says."""

import base64
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agents.backbone_weights import load_backbone
from agents.dtram import DTRAM
from agents.one_look import OneLook, OneLookConfig
from agents.policy_only import FrozenClassifier
from agents.resnet import ResNetBackbone, ResNetOptions
from dtram_env.datasets import DatasetCorruptError
from dtram_env.datasets.storage.cache import build_cache, open_cache
from dtram_env.datasets.storage.mapped import describe
from dtram_env.files import sha256_of, write_json
from tests.dtram_env.datasets.images import Given
from train import predict, reinforce, sb3_baselines
from train.baselines.algorithms import ALGORITHMS
from train.baselines.comparison_run import ComparisonRun
from train.baselines.trained import load_baseline
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


def plant_zip(path: Path, planted: Touch) -> None:
    """Adds a pickle to a model of SB3, where SB3's `load` unpickles it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(parts["data"])
    data["policy_class"] = {":serialized:": base64.b64encode(pickle.dumps(planted)).decode()}
    parts["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def plant_arrays(path: Path, planted: Touch) -> None:
    """Replaces arrays by one of objects, which NumPy pickles."""
    objects = np.array([planted], dtype=object)
    if path.suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        with np.load(path) as saved:
            np.savez(path, **dict.fromkeys(saved, objects))


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
        for file in planted.rglob("*.zip"):
            plant_zip(file, Touch(ran))
        for file in planted.rglob("*.np[yz]"):
            plant_arrays(file, Touch(ran))
        for file in planted.rglob("checksums.json"):  # a stranger's are right
            write_json(file, {name: sha256_of(file.with_name(name)) for name in read_json(file)})
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
    ({"env_id": ["DTRAM-Signpost-v0"]}, "env_id: environment ['DTRAM-Signpost-v0']: expected"),
    ({"env_options": {"data_dir": "here"}}, "env_options={'data_dir': 'here'}: expected an obj"),
    ({"env_options": ["data"]}, "env_options=['data']: expected an object with keywords of the"),
    ({"env_options": {"image_size": 10**9}}, "env_options.image_size=1000000000: expected from"),
    ({"env_options": {"data": "auto"}}, "env_options.data='auto': expected one of 'real'"),
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
    monkeypatch.setattr("train.common.program_run.ProgramRun.check_options", lambda self: None)
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
    with pytest.raises(ValueError, match=r"training\.pt: damaged, or holds more than tensors"):
        reinforce.train(small_options(run_dir=folder, resume=True))
    assert not ran.exists()


SMALL_BASELINE = {
    "ppo": ("n_steps=4", "batch_size=64"),
    "dqn": ("buffer_size=512", "learning_starts=32", "batch_size=16"),
}


@pytest.mark.parametrize("algo", SMALL_BASELINE)
def test_a_checkpoint_of_a_baseline(
    tmp_path: Path, ran: Path, plant, policy_id: str, interrupted, algo: str
) -> None:
    """Weights are read by name, whatever else lies in SB3's files; a buffer only as arrays."""
    made = sb3_baselines.Options(
        algo=algo,
        env_id=policy_id,
        total_timesteps=128,
        num_envs=16,
        eval_points=1,
        set=("network.width=16", "network.what_features=8", *SMALL_BASELINE[algo]),
        run_dir=tmp_path / "run",
    )
    interrupted(lambda: sb3_baselines.train(made), 1, sb3_baselines)
    folder = plant(tmp_path / "run")
    with pytest.raises(TypeError):  # SB3's own reader runs the pickle, and then fails
        ALGORITHMS[algo].load().load(next(folder.glob("checkpoint-*/model.zip")))
    assert ran.exists()
    ran.unlink()
    load_baseline(folder, torch.device("cpu"))
    resumed = replace(made, run_dir=folder, resume=True)
    if algo == "dqn":
        with pytest.raises(ValueError, match=r"replay_buffer\.npz: missing or damaged \(Obj"):
            sb3_baselines.train(resumed)
    else:
        sb3_baselines.train(resumed)
    assert not ran.exists()


def test_a_cache_of_images(tmp_path: Path, ran: Path, plant) -> None:
    """Its index is a stranger's too, so the checksums are right."""
    source = Given([np.ones((3, 4, 1), np.uint8)], {"box": np.eye(1)})
    build_cache(tmp_path / "cache", source)
    folder = plant(tmp_path / "cache")
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"] = {name: describe(folder / name) for name in meta["files"]}
    write_json(folder / "meta.json", meta)
    with pytest.raises(DatasetCorruptError, match="Object arrays cannot be loaded"):
        open_cache(folder, source)
    assert not ran.exists()

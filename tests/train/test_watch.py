"""The program that shows what a DT-RAM looks at."""

import sys
import webbrowser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dtram_env
from agents.dtram import DTRAM
from agents.prediction import predict
from train import watch
from train.common.film import Episode
from train.common.run import run_program
from train.common.training_task import TrainingTask
from train.sb3_baselines import Options as BaselineOptions
from train.sb3_baselines import train as train_baseline
from train.watch import SHOWN, Options, hardest_images, main, own_episodes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model for drawn images, saved as training saves it."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    task = TrainingTask("DTRAM-Signpost-v0", torch.device("cpu"))
    torch.manual_seed(0)
    agent = task.new_agent(encoder="mlp", hidden_size=32)
    for parameter in [*agent.locator.parameters(), *agent.stopper.parameters()]:
        torch.nn.init.normal_(parameter)
    agent.save(folder, **task.metadata)
    return folder


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[Episode]]:
    """The episodes of each film; none is drawn."""
    films: list[list[Episode]] = []

    def write(folder: Path, title: str, episodes: list[Episode]) -> Path:
        films.append(episodes)
        return folder / "watch.html"

    monkeypatch.setattr(watch, "write_film", write)
    return films


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, [*range(SHOWN)]), ({"index": (9, 3)}, [9, 3]), ({"hardest": True}, [5, 7])],
)
def test_which_images_are_shown(
    model: Path,
    written: list[list[Episode]],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    expected: list[int],
) -> None:
    monkeypatch.setattr(watch, "hardest_images", lambda *given: (5, 7))
    page = watch.watch(Options(model, device="cpu", split="validation", **changes))
    assert page == Path("watch/watch.html")  # the model is no run, so here
    assert [episode.title for episode in written[0]] == [f"Signpost {i}" for i in expected]
    labels = dtram_env.datasets.load("signpost", "validation").labels
    assert [episode.label for episode in written[0]] == labels[expected].tolist()


def test_the_hardest_are_wrong_then_take_the_most_glimpses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(
        label=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        prediction=np.array([0, 0, 0, 1, 1, 1, 0, 1]),
        num_glimpses=np.array([2, 4, 3, 1, 4, 1, 3, 2]),
    )
    monkeypatch.setattr(dtram_env, "evaluate", lambda *given, **keywords: found)
    assert hardest_images(None, "ID", {}) == (6, 3, 1, 4, 2, 0)


def test_files_are_answered_as_by_predict(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{i}.png" for i in range(4))
    for path, size in zip(paths, [(28, 28), (60, 40), (28, 31), (100, 100)], strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    agent = DTRAM.load(model)
    answers = predict(agent, paths)
    for episode, answer in zip(own_episodes(agent, paths), answers, strict=True):
        assert (episode.prediction, episode.label) == (answer.class_index, None)
        locations = [look.location for look in episode.looks]
        np.testing.assert_allclose(locations, answer.locations, atol=1e-6)
        np.testing.assert_allclose(episode.looks[-1].belief, answer.probabilities, atol=1e-6)
    assert [episode.title for episode in own_episodes(agent, paths)] == [p.name for p in paths]


@pytest.mark.parametrize(
    ("words", "display", "opens"),
    [([], ":0", True), ([], None, False), (["--no-open"], ":0", False)],
)
def test_the_page_is_opened_where_there_is_a_display(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    display: str | None,
    opens: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    given = [str(model), "--index", "2", "--out", str(tmp_path), "--device", "cpu", *words]
    monkeypatch.setattr(sys, "argv", ["watch.py", *given])
    run_program(main)
    page = tmp_path / "watch.html"
    assert capsys.readouterr().out.split() == [str(tmp_path / "watch.gif"), str(page)]
    assert page.exists() and opened == [page.as_uri()] * opens


def test_only_one_way_to_choose_images() -> None:
    with pytest.raises(ValueError, match="FILE and --hardest: expected at most one"):
        Options(Path("run"), (Path("a.png"),), hardest=True)


def test_a_run_of_a_baseline_is_shown(tmp_path: Path, written: list[list[Episode]]) -> None:
    run = train_baseline(BaselineOptions("DTRAM-Signpost-v0", algo="scan", run_dir=tmp_path))
    page = watch.watch(Options(run, index=(9, 3), device="cpu"))
    assert page == tmp_path / "watch" / "watch.html"
    assert [episode.title for episode in written[0]] == ["Signpost 9", "Signpost 3"]
    assert all(episode.looks and episode.prediction is not None for episode in written[0])
    for given in ({"files": (Path("a.png"),)}, {"stop": "early"}):
        with pytest.raises(
            ValueError, match=r"a run of train/sb3_baselines.py; expected images of"
        ):
            watch.watch(Options(run, device="cpu", **given))

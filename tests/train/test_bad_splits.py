"""What is wrong with any split of the user's images stops a program before it trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dtram_env.datasets import DatasetCorruptError
from train import classifier, one_look, reinforce, sb3_baselines
from train.common.options import PlainEncoder

PROGRAMS: dict[str, Callable[..., object]] = {
    **{
        program.__name__.rpartition(".")[2]: lambda program=program, **keywords: program.train(
            program.Options(
                **keywords, encoder=PlainEncoder("cnn"), epochs=1, batch_size=8, device="cpu"
            )
        )
        for program in (reinforce, one_look, classifier)
    },
    "sb3_baselines": lambda **keywords: sb3_baselines.train(
        sb3_baselines.Options(**keywords, algo="ppo", observe="glimpse", total_timesteps=8)
    ),
    "scan": lambda **keywords: sb3_baselines.train(
        sb3_baselines.Options(**keywords, algo="scan", set=("stop_after=1",))
    ),
}


def write(root: Path, part: str, count: int) -> None:
    for name in "ab":
        for i in range(count):
            path = root / part / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bad_split_stops_a_program_before_it_trains(tmp_path: Path, program: str) -> None:
    root, run = tmp_path / "photos", tmp_path / "run"
    write(root, "train", 8)
    write(root, "test", 2)
    damaged = root / "test/a/1.png"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    keywords: dict[str, Any] = {"root": root, "data_dir": tmp_path / "data", "run_dir": run}
    env = ("image_size=none", "glimpse_size=8")
    with pytest.raises(DatasetCorruptError, match=r"test/a/1\.png: damaged, or no image .* remove"):
        PROGRAMS[program](env_id="DTRAM-ImageFolder-v0", env=env, **keywords)
    assert not run.exists()

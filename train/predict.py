"""Classifies your own images with a trained DT-RAM, and draws its glimpses.

    python train/predict.py pretrained/mnist digit.png          # one image, or several
    python train/predict.py runs/mine photos --out drawn        # a folder with its subfolders
    python train/predict.py runs/mine photos --json > answers.json

Images may have any format and size; the model sees them as its environment would show them. For
each image a picture with boxed and numbered glimpses is written. Files that cannot be read are
named on standard error and skipped, and the exit status is then 1.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import numpy as np
import tyro
from PIL import Image

from agents.loading import load_agent
from agents.prediction import Prediction, predict_each, preparation_of
from agents.stopping import LearnedStop
from dtram_env.datasets.sources.folder import SUFFIXES, find_images
from dtram_env.datasets.storage.decode import decode, opened, pillow_limits, upright_size
from dtram_env.files import replacing
from dtram_env.rendering import draw_episode
from train.common.options import Checked, Probability
from train.common.provenance import choose_device
from train.common.run import output_folder

CHUNK = 256  # images classified before their answers are printed
MIN_PICTURE = 280  # a small image is enlarged to this longer side, in pixels
MAX_PICTURE = 480  # a large image is shrunk to this shorter side


@dataclass(frozen=True)
class Options(Checked):
    """Classifies images with a trained DT-RAM."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """folder of a run or of a shipped model"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """image files, and folders that are searched with their subfolders"""
    out: Path | None = None
    """folder for the pictures; if not given, predictions/ in the run's folder, or for a shipped
    model in the current one"""
    pictures: bool = True
    """draw a picture of each image"""
    stop: str | None = None
    """name of one of the model's stops; its default one if not given"""
    threshold: Probability | None = None
    """stop when the stopper's probability exceeds this, in place of its own threshold"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    json: bool = False
    """print one JSON object in place of text"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.images:
            raise ValueError("IMAGES: expected at least one image or folder")
        if self.out is not None and not self.pictures:
            raise ValueError(f"--out {self.out}: expected with pictures, or without --no-pictures")


def predict(options: Options) -> dict[str, Any]:
    """Classifies the images; returns what ``--json`` prints, else prints each answer at once."""
    agent = load_agent(options.run_dir, choose_device(options.device), options.stop)
    try:
        preparation_of(agent)
    except ValueError as error:
        raise ValueError(f"{options.run_dir / 'model.json'}: {error}") from None
    if options.threshold is not None:
        agent.stopping = LearnedStop(options.threshold)
    paths = given_images(options.images)
    pictures: list[Path | None] = [None] * len(paths)
    if options.pictures:
        folder = options.out or output_folder(options.run_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        pictures = [folder / name for name in picture_names(options.images, paths)]
    answers, failures = [], []
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        failed: dict[int, Exception] = {}
        found = dict(predict_each(agent, chunk, failed.__setitem__))
        for i, (path, picture) in enumerate(zip(chunk, pictures[start:], strict=False)):
            if i in failed:
                failures.append({"image": str(path), "error": str(failed[i])})
                print(f"skipped: {failed[i]}", file=sys.stderr)
                continue
            if picture is not None:
                draw(path, found[i], picture)
            answer = {"image": str(path), **found[i].to_json()}
            answer["picture"] = None if picture is None else str(picture)
            answers.append(answer)
            if not options.json:
                print(describe(answer), flush=True)
    return {
        "model": str(options.run_dir),
        "env_id": agent.about.get("env_id"),
        "stopping": repr(agent.stopping),
        "class_names": list(agent.class_names),
        "images": len(answers),
        "mean_glimpses": fmean(a["num_glimpses"] for a in answers) if answers else None,
        "mean_flops": fmean(a["flops"] for a in answers) if answers else None,
        "answers": answers,
        "failed": failures,
    }


def describe(answer: dict[str, Any]) -> str:
    """An answer as a line of text."""
    count = answer["num_glimpses"]
    text = (
        f"{answer['image']}: {answer['class_name']}, {answer['probability']:.3f}, "
        f"{count} glimpse{'s' * (count > 1)}, {answer['flops'] / 1e6:,.2f} MFLOP"
    )
    return text if answer["picture"] is None else f"{text}, {answer['picture']}"


def given_images(given: Sequence[Path]) -> list[Path]:
    """The given files, and the images in given folders and their subfolders, sorted in each."""
    found: list[Path] = []
    for path in given:
        inside = [path]
        if path.is_dir():
            inside = [path / below for below in find_images(path)[""]]
        if not inside:
            raise ValueError(f"{path}: expected images in it, files in {', '.join(SUFFIXES)}")
        found += inside
    return found


def picture_names(given: Sequence[Path], paths: Sequence[Path]) -> list[Path]:
    """Each image's picture, with the image's subfolder; equal names but the first get a number."""
    folders = [path for path in given if path.is_dir()]
    names: dict[Path, None] = {}  # an ordered set
    for path in paths:
        above = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
        base = path.relative_to(above).with_suffix("")
        name, number = base.with_name(f"{base.name}.png"), 2
        while name in names:
            name, number = base.with_name(f"{base.name}-{number}.png"), number + 1
        names[name] = None
    return list(names)


def draw(path: Path, answer: Prediction, picture: Path) -> None:
    """Writes the picture of an answer: the image, its glimpses in boxes, and the class."""
    way_out = "Do not change it while this program runs."
    with pillow_limits(), opened(str(path), way_out) as file:
        height, width = upright_size(file)
        pixels = decode(file, min(height, width, MAX_PICTURE))
    y, x = pixels.shape[0] / height, pixels.shape[1] / width
    boxes = [
        (round(left * x), round(top * y), round(w * x), round(h * y))
        for left, top, w, h in answer.boxes
    ]
    caption = f"{answer.class_name}, {answer.probability:.2f}"
    drawn = draw_episode(pixels, boxes, caption, size=max(MIN_PICTURE, *pixels.shape[:2]))
    with replacing(picture) as aside:
        Image.fromarray(np.asarray(drawn)).save(aside, format="PNG")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    result = predict(options)
    if options.json:
        print(json.dumps(result))
    elif result["answers"]:
        print(
            f"{result['images']:,} image{'s' * (result['images'] > 1)}: "
            f"{result['mean_glimpses']:.2f} glimpses and {result['mean_flops'] / 1e6:,.2f} MFLOP "
            "an image"
        )
    if result["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    run_program(main)

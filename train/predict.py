"""Answers the user's own images with a trained DT-RAM, and draws where it looked.

    python train/predict.py pretrained/mnist digit.png          # one image, or several
    python train/predict.py runs/mine photos --out looked       # a folder and those below it
    python train/predict.py runs/mine photos --json > answers.json

Images may have any format and size: they are shown to the model as its environment shows them. A
picture of each, with its glimpses boxed and numbered, goes into a folder. Files that cannot be read
are named on standard error and left out; the exit status is 1 then.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.loading import load_agent
from agents.prediction import Prediction, predict_each
from agents.stopping import LearnedStop
from dtram_env.datasets.sources.folder import SUFFIXES
from dtram_env.datasets.storage.decode import decode, large_images_allowed, opened, upright_size
from dtram_env.rendering import draw_episode
from train.common.provenance import choose_device
from train.common.run import run_program

AT_ONCE = 256  # files that are answered before any of them is printed
ENLARGED = 280  # pixels of the longer side, up to which a small image's picture is enlarged
SHRUNK = 480  # pixels of the shorter side of a large one's


@dataclass(frozen=True)
class Options:
    """Answers images with a trained DT-RAM."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """a run's folder, or a shipped model's"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """image files, and folders: all images in them and below"""
    out: Path | None = None
    """folder for the pictures; predictions in RUN_DIR if not given"""
    pictures: bool = True
    """whether to draw them"""
    threshold: float | None = None
    """stop when the stopper's probability exceeds this; the model's own if not given"""
    device: str = "auto"
    """where the agent runs"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError("IMAGES: expected at least one image or folder")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold {self.threshold}: expected a probability, from 0 to 1")
        if self.out is not None and not self.pictures:
            raise ValueError(f"--out {self.out}: expected with pictures, or without --no-pictures")


def predict(options: Options) -> dict[str, Any]:
    """Answers the images; returns what ``--json`` prints.

    Without `json` each answer is printed when it is there. What cannot be read is named on standard
    error.
    """
    agent = load_agent(options.run_dir, choose_device(options.device))
    if options.threshold is not None:
        agent.stopping = LearnedStop(options.threshold)
    paths = find_images(options.images)
    places: list[Path | None] = [None] * len(paths)
    if options.pictures:
        folder = options.out or options.run_dir / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        places = [folder / name for name in picture_names(options.images, paths)]
    answers, failures = [], []
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        failed: dict[int, Exception] = {}
        found = dict(predict_each(agent, some, failed.__setitem__))
        for i, (path, place) in enumerate(zip(some, places[start:], strict=False)):
            if i in failed:
                failures.append({"image": str(path), "error": str(failed[i])})
                print(f"left out: {failed[i]}", file=sys.stderr)
                continue
            if place is not None:
                draw(path, found[i], place)
            row = {"image": str(path), **found[i].to_json()}
            row["picture"] = None if place is None else str(place)
            answers.append(row)
            if not options.json:
                print(line(row), flush=True)
    return {
        "model": str(options.run_dir),
        "env_id": agent.about.get("env_id"),
        "stopping": repr(agent.stopping),
        "class_names": list(agent.class_names),
        "images": len(answers),
        "mean_glimpses": mean(answers, "num_glimpses"),
        "mean_flops": mean(answers, "flops"),
        "answers": answers,
        "failed": failures,
    }


def mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Mean of a column; None of no rows."""
    return sum(row[name] for row in rows) / len(rows) if rows else None


def line(row: dict[str, Any]) -> str:
    """An answer as a line of text."""
    count = row["num_glimpses"]
    text = (
        f"{row['image']}: {row['class_name']}, {row['probability']:.3f}, "
        f"{count} glimpse{'s' * (count > 1)}, {row['flops'] / 1e6:,.2f} MFLOP"
    )
    return text if row["picture"] is None else f"{text}, {row['picture']}"


def find_images(given: Sequence[Path]) -> list[Path]:
    """The files that were named, and the images of the folders, sorted, in those below too.

    Raises:
        ValueError: a folder has none.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(_below(path))
        if not inside:
            raise ValueError(f"{path}: expected images in it, files in {', '.join(SUFFIXES)}")
        found += inside
    return found


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(here, name)


def picture_names(given: Sequence[Path], paths: Sequence[Path]) -> list[Path]:
    """Where each image's picture goes, relative to the pictures' folder; no two are the same.

    Folders below a folder that was named are kept; of equal names the later ones get a number.
    """
    folders = [path for path in given if path.is_dir()]
    taken: set[Path] = set()
    names = []
    for path in paths:
        above = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
        base = path.relative_to(above).with_suffix("")
        name, number = base, 2
        while name in taken:
            name, number = base.with_name(f"{base.name}-{number}"), number + 1
        taken.add(name)
        names.append(name.with_name(f"{name.name}.png"))
    return names


def draw(path: Path, answer: Prediction, place: Path) -> None:
    """Writes the picture of an answer: the image, its glimpses in boxes, what was said."""
    with large_images_allowed(), opened(str(path), "Leave it as it is meanwhile.") as file:
        height, width = upright_size(file)
        pixels = decode(file, min(height, width, SHRUNK))
    tall, wide = pixels.shape[0] / height, pixels.shape[1] / width
    boxes = [
        (round(left * wide), round(top * tall), round(w * wide), round(h * tall))
        for left, top, w, h in answer.boxes
    ]
    caption = f"{answer.class_name}, {answer.probability:.2f}"
    picture = draw_episode(pixels, boxes, caption, size=max(ENLARGED, *pixels.shape[:2]))
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.tmp")
    Image.fromarray(np.asarray(picture)).save(aside, format="PNG")
    os.replace(aside, place)


def main() -> None:
    """The command line."""
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

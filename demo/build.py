"""Builds the demo, a static page that runs the shipped models, and serves it.

    python demo/build.py                 # into demo/_build
    python demo/build.py --serve         # and serve it, on http://localhost:8000 if that is free

It needs the extra "export", and npm, which fetches onnxruntime-web.
"""

import argparse
import functools
import gzip
import http.server
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from agents.export import describe, export
from agents.loading import load_agent
from dtram_env.datasets import DatasetNotFoundError
from dtram_env.datasets.fetch.download import NpmPackage, RawFile, fetch_files
from dtram_env.datasets.paths import data_root
from dtram_env.files import replacing, write_text
from dtram_env.optional import MissingDependencyError

HERE = Path(__file__).resolve().parent
PRETRAINED = HERE.parent / "pretrained"
PAGE = ("index.html", "style.css", "main.js", "task.js", "agent.js", "drawing.js", "pictures.js")
PORT = 8000
ONNXRUNTIME = NpmPackage("onnxruntime-web", "1.30.0", "package/dist")
"""Runs the models in the browser; copied into the page, which loads nothing from elsewhere."""
ONNXRUNTIME_FILES = (
    RawFile("ort.wasm.min.mjs", 50_126, "29f125871d3623378a83f2bab346eebb"),
    RawFile("ort-wasm-simd-threaded.mjs", 24_381, "7f02cb35b3579ac0b155eed58fe17853"),
    RawFile("ort-wasm-simd-threaded.wasm", 14_239_897, "bf7105678a03865282d172dab08b1ac6"),
)


class Model(NamedTuple):
    """A shipped model in the demo."""

    title: str
    images: int  # the first ones of the test split
    draws: bool = False  # whether the user can draw an image


MODELS = {
    "mnist-conv": Model("digits", 200, draws=True),
    "translated": Model("digits anywhere", 200, draws=True),
    "cluttered": Model("digits in clutter", 200),
    "birds-small": Model("birds", 60),
}


def build(out: Path, models: tuple[str, ...] = tuple(MODELS)) -> Path:
    """Writes the page, its models and their images into a folder; returns it."""
    kept = data_root() / ONNXRUNTIME.package
    fetch_files(ONNXRUNTIME.package, ONNXRUNTIME_FILES, [ONNXRUNTIME], kept)
    (out / "ort").mkdir(parents=True, exist_ok=True)
    for file in ONNXRUNTIME_FILES:
        shutil.copyfile(kept / file.name, out / "ort" / file.name)
    for name in PAGE:
        shutil.copyfile(HERE / name, out / name)
    (out / "models").mkdir(exist_ok=True)
    for name in models:
        write_model(name, out / "models")
        print(f"{name}: done")
    titles = {name: MODELS[name].title for name in models}
    write_text(out / "models" / "tasks.json", json.dumps(titles))
    return out


def write_model(name: str, folder: Path) -> None:
    """Writes a model's graph, its first test images with an example of each class, and its JSON."""
    agent, model = load_agent(PRETRAINED / name), MODELS[name]
    export(agent, folder / f"{name}.onnx")
    about = describe(agent)
    results = json.loads((PRETRAINED / name / "results.json").read_text(encoding="utf-8"))

    def read(split: str, indices: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        env: Any = gym.make(about["env_id"], split=split, **about["env_options"]).unwrapped
        seen = [env.reset(options={"image_index": index})[0] for index in indices]
        thumbnails = [observation["thumbnail"] for observation in seen if about["first_size"]]
        return [env.data.image(index) for index in indices], thumbnails

    def labels(split: str) -> np.ndarray:
        env: Any = gym.make(about["env_id"], split=split, **about["env_options"]).unwrapped
        return np.asarray(env.data.labels)

    images, thumbnails = read("test", list(range(model.images)))
    classes = len(about["class_names"])
    examples = []
    if classes > 10:  # nobody knows their names
        of_class = labels("train")
        examples = [int(np.flatnonzero(of_class == label)[0]) for label in range(classes)]
        more = read("train", examples)
        images, thumbnails = images + more[0], thumbnails + more[1]
    with replacing(folder / f"{name}.images.bin") as aside:
        aside.write_bytes(gzip.compress(b"".join(part.tobytes() for part in images + thumbnails)))
    fixed = [results["fixed"][key] for key in sorted(results["fixed"], key=int)]
    curve = [{"threshold": float(key), **row} for key, row in results["learned"].items()]
    page = {
        "about": about,
        "image_shape": images[0].shape,
        "labels": labels("test")[: model.images].tolist(),
        "examples": len(examples),
        "draws": model.draws,
        "images": results["images"],
        "discount": results["discount"],
        "threshold": results["stop_threshold"],
        "curve": sorted(curve, key=lambda row: row["threshold"]),
        "fixed": fixed,
    }
    write_text(folder / f"{name}.json", json.dumps(page))


def serve(folder: Path, port: int = PORT) -> http.server.ThreadingHTTPServer:
    """A server of a folder on this machine, on a free port if `port` is taken; `serve_forever`
    starts it."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "_build", help="folder to write")
    parser.add_argument("--serve", action="store_true", help="serve it afterwards")
    options = parser.parse_args()
    try:
        folder = build(options.out)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{folder}: {size / 1e6:.1f} MB")
        if not options.serve:
            return
        with serve(folder) as server:
            print(f"http://localhost:{server.server_port} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print()
    except (DatasetNotFoundError, MissingDependencyError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

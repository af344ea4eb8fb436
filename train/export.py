"""Writes a trained DT-RAM as a graph that runs without this repository, and without torch.

    python train/export.py pretrained/mnist-conv      # agent.onnx, in the current folder
    python train/export.py runs/mine --format torch   # runs/mine/agent.pt2, for torch.export.load
    python examples/onnx_runner.py agent.onnx         # run it: NumPy, onnxruntime

The graph is one step, (glimpse, location, state) -> (class probabilities, next location, stop, next
state). What a runner needs beside it is in the file (agents/export.py).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import tyro

from agents.export import FORMATS, export
from agents.loading import load_agent
from train.common.run import output_folder


@dataclass(frozen=True)
class Options:
    """Writes a trained DT-RAM as a graph."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """folder of a run or of a shipped model"""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx, or torch: a program of torch.export"""
    out: Path | None = None
    """the file; if not given, agent.onnx or agent.pt2 in the run's folder, or for a shipped model
    in the current one"""
    stop: str | None = None
    """name of one of the model's stops; its default one if not given"""


def write(options: Options) -> Path:
    """Writes the file and returns its path."""
    path = options.out or output_folder(options.run_dir) / f"agent{FORMATS[options.format]}"
    written = export(load_agent(options.run_dir, stop=options.stop), path, options.format)
    print(f"{written}: {written.stat().st_size / 1e6:.2f} MB")
    return written


if __name__ == "__main__":
    run_program(lambda: write(tyro.cli(Options, description=__doc__)))

"""Evaluates a trained DT-RAM through the registered environment, every image once.

    python train/evaluate.py pretrained/mnist               # a shipped model, test split
    python train/evaluate.py pretrained/mnist --stop NAME   # another of its saved stops
    python train/evaluate.py runs/mine --json               # one JSON object on standard output
    python train/evaluate.py runs/mine --confidence 0.98    # another stopping rule

This is the reference: it plays the episodes step by step. On the test split with the model's own
stop, the answers are also compared, image by image, with those that training wrote.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not
from train.common.run import run_program  # isort: skip  # says what to install

import tyro

from agents.stopping import ConfidenceStop, FixedStop, LearnedStop, StoppingRule
from train.common.evaluate_agent import evaluate_agent
from train.common.options import AtLeast1, Checked, Probability


@dataclass(frozen=True)
class Options(Checked):
    """Evaluates a trained DT-RAM through the registered environment."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """a run's folder, or a shipped model's"""
    split: str = "test"
    """train, validation, test or train+validation"""
    stop: str | None = None
    """name of one of the model's stops, each a stopper with its threshold; its default one if not
    given"""
    threshold: Probability | None = None
    """stop when the stopper's probability exceeds this, in place of its own threshold"""
    fixed: AtLeast1 | None = None
    """stop after this many glimpses instead"""
    confidence: Probability | None = None
    """stop when a class's probability exceeds this instead"""
    num_envs: AtLeast1 = 1000
    """episodes side by side"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    json: bool = False
    """print one JSON object and nothing else on standard output"""

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = ("threshold", "fixed", "confidence")
        given = [f"--{name}" for name in rules if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: expected at most one stopping rule")

    def rule(self) -> StoppingRule | None:
        """The stopping rule that replaces the model's own; None: the model's own."""
        if self.threshold is not None:
            return LearnedStop(self.threshold)
        if self.fixed is not None:
            return FixedStop(self.fixed)
        return None if self.confidence is None else ConfidenceStop(self.confidence)


def evaluate(options: Options) -> dict[str, Any]:
    """Evaluates the model; returns what ``--json`` prints."""
    names = ("split", "stop", "num_envs", "data_dir", "device")
    keywords = {name: getattr(options, name) for name in names}
    return evaluate_agent(options.run_dir, rule=options.rule(), **keywords)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    result = evaluate(options)
    if options.json:
        print(json.dumps(result))
        return
    changed = "".join(f" {name}={value}" for name, value in result["env_options"].items())
    print(
        f"{result['env_id']}{changed}: {result['dataset']}, {result['split']} split, "
        f"{result['images']:,} images: error {100 * result['error']:.2f} % at "
        f"{result['mean_glimpses']:.2f} mean glimpses, {result['mean_flops'] / 1e6:.2f} MFLOP "
        f"({result['stopping']})"
    )
    if (different := result.get("differs_from_training")) is not None:
        print(f"images with another answer than the training program wrote: {different}")


if __name__ == "__main__":
    run_program(main)

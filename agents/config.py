"""What a DT-RAM is made of, and the JSON that keeps it beside its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .encoders import ENCODERS

CORES = ("rnn", "gru", "lstm")
FORMAT_VERSION = 1
# Settings that came after the format: models of before are made with their defaults.
LATER = {"locator_hidden", "locator_grid"}


@dataclass(frozen=True)
class DTRAMConfig:
    """What a DT-RAM is made of; saved beside its weights."""

    num_classes: int
    """number of classes K"""
    glimpse_shape: tuple[int, int, int]
    """(g, g, channels), channels counting every scale"""
    max_glimpses: int
    """the environment's budget T_max"""
    encoder: str = "mlp"
    """glimpse encoder: mlp (the paper's) or conv"""
    core: str = "rnn"
    """recurrent cell: rnn (ReLU, the paper's), gru or lstm"""
    hidden_size: int = 256
    """width of the recurrent state h_t"""
    pixel_mean: float = 0.0
    """subtracted from the pixels, 0 ... 255: the training images' mean"""
    pixel_std: float = 255.0
    """then divides them: the training images' standard deviation"""
    locator_input: str = "detached"
    """whether the location's policy gradient flows into the state: state or detached"""
    locator_hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    locator_grid: int = 0
    """the location policy chooses among the centres of G x G cells; 0: a Gaussian, the paper's"""
    stopper_input: str = "detached"
    """whether the stop's policy gradient flows into the state: state or detached"""
    stopper_hidden: int = 128
    """hidden units of the stopper; 0 makes it linear"""
    stopper_evidence: bool = True
    """the stopper also reads, detached, how sure the classifier is, and the time"""

    def __post_init__(self) -> None:
        side, width, channels = self.glimpse_shape
        _require("num_classes", self.num_classes, self.num_classes >= 2, "at least 2")
        _require(
            "glimpse_shape",
            self.glimpse_shape,
            side == width and side > 0 and channels > 0,
            "(g, g, channels), all positive",
        )
        _require("max_glimpses", self.max_glimpses, self.max_glimpses >= 1, "at least 1")
        _require("encoder", self.encoder, self.encoder in ENCODERS, f"one of {tuple(ENCODERS)}")
        _require("core", self.core, self.core in CORES, f"one of {CORES}")
        _require("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        for name in ("locator_input", "stopper_input"):
            value = getattr(self, name)
            _require(name, value, value in ("state", "detached"), "'state' or 'detached'")
        _require("pixel_std", self.pixel_std, self.pixel_std > 0, "a positive number")
        for name in ("locator_hidden", "locator_grid", "stopper_hidden"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def read_header(folder: Path) -> dict[str, Any]:
    """The JSON part of a saved model.

    Raises:
        FileNotFoundError: if there is no model in `folder`.
        ValueError: if it is not a model's, or another version's.
    """
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: no saved model, {name} is missing")
    path = folder / "model.json"
    try:
        header = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); copy the model again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: not a DT-RAM of format {FORMAT_VERSION}; is it from another version of dtram?"
        )
    settings = {field.name for field in fields(DTRAMConfig)}
    config = header.get("config", {})
    needed = {"config", "stop_threshold", "class_names", "weights_sha256"}
    problems = sorted(needed - header.keys()) + sorted((settings ^ config.keys()) - LATER)
    if problems:
        raise ValueError(f"{path}: missing or unknown settings {problems}; copy the model again")
    return header

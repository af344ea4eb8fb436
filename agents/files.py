"""Models on disk: ``model.safetensors``, and ``model.json`` beside it; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

FORMAT_VERSION = 1
DTRAM_KIND = "DT-RAM"  # which its files do not name: they were there first
ONE_LOOK_KIND = "one-look network"


def save_model(folder: str | Path, module: nn.Module, header: dict[str, Any]) -> None:
    """Writes a model into a folder, each of the two files by one rename.

    Args:
        folder: made if missing.
        module: whose weights are kept.
        header: JSON values; the format and the weights' SHA-256 are added.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "model.safetensors.tmp"
    save_file({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}, aside)
    header = {"format": FORMAT_VERSION, "weights_sha256": _sha256(aside), **header}
    os.replace(aside, folder / "model.safetensors")
    aside = folder / "model.json.tmp"
    aside.write_text(json.dumps(header, indent=2) + "\n")
    os.replace(aside, folder / "model.json")


def read_model_json(folder: str | Path, kind: str = DTRAM_KIND) -> dict[str, Any]:
    """The JSON part of a saved model.

    Args:
        folder: the model's.
        kind: what it must be.

    Raises:
        FileNotFoundError: if there is no model in `folder`.
        ValueError: if it is another kind of model, or another version's.
    """
    folder = Path(folder)
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: no saved model, {name} is missing{_why(folder)}")
    path = folder / "model.json"
    try:
        header = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); copy the model again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: not a {kind} of format {FORMAT_VERSION}; is it from another version of dtram?"
        )
    found = header.get("kind", DTRAM_KIND)
    if found != kind:
        raise ValueError(f"{path}: expected a {kind}, found a {found}; name another folder")
    return header


def _why(folder: Path) -> str:
    """Why there may be no model in `folder`, as the end of a message."""
    if not folder.exists():
        return ", there is no such folder"
    if not folder.is_dir():
        return "; expected the folder of a model, this is a file"
    inside = sorted(path.parent.name for path in folder.glob("*/model.json"))
    return f"; these folders in it have models: {', '.join(inside)}" if inside else ""


def kind_of(folder: str | Path) -> str:
    """The kind of a saved model; DT-RAM's where no model can be read, so that its reader says why.

    Args:
        folder: the model's.
    """
    try:
        return str(json.loads((Path(folder) / "model.json").read_text())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return DTRAM_KIND


def check_settings(
    folder: str | Path,
    header: dict[str, Any],
    needed: set[str],
    settings: set[str],
    later: set[str] | None = None,
) -> None:
    """Raises ValueError unless a header has all that is needed, and its settings are known.

    Args:
        folder: the model's.
        header: as `read_model_json` gives it.
        needed: keys of the header.
        settings: names of the settings under ``config``; an unknown one, or one that is missing,
            is an error.
        later: those that came after the format and may be missing.
    """
    config = header.get("config", {})
    wrong = (settings ^ config.keys()) - (later or set())
    problems = sorted(needed - header.keys()) + sorted(wrong)
    if problems:
        path = Path(folder) / "model.json"
        raise ValueError(f"{path}: missing or unknown settings {problems}; copy the model again")


def load_weights(folder: str | Path, header: dict[str, Any], module: nn.Module) -> None:
    """Puts a saved model's weights into a module.

    Args:
        folder: the model's.
        header: as `read_model_json` gives it.
        module: made from the header's settings.

    Raises:
        ValueError: if the files do not fit one another.
    """
    path = Path(folder) / "model.safetensors"
    if _sha256(path) != header["weights_sha256"]:
        raise ValueError(
            f"{path}: not the weights that model.json beside it was written for; copy both files "
            "of one model"
        )
    weights, expected = load_file(path), module.state_dict()
    wrong = sorted(
        name
        for name in weights.keys() | expected.keys()
        if name not in weights
        or name not in expected
        or weights[name].shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"{path}: does not fit model.json beside it; missing, unknown or of another shape: "
            f"{', '.join(wrong)}"
        )
    module.load_state_dict(weights)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

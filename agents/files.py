"""Models on disk: ``model.safetensors`` and ``model.json``; nothing is unpickled.

A DT-RAM's folder may hold further stops, learned one by one on the same trunk, each under a name:
``stop-NAME.safetensors`` has the tensors of the stopper and the baseline alone, and ``model.json``
lists it::

    "stops": {"2.4": {"threshold": 0.82, "weights_sha256": "...", "discount": 0.98}},
    "default_stop": "2.4"

`save_stop` writes them, and ``DTRAM.load(folder, stop="2.4")`` reads one. Without ``default_stop``
the default is the stop in ``model.safetensors``, with the ``stop_threshold`` of ``model.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FORMAT_VERSION = 1
DTRAM_KIND = "DT-RAM"
ONE_LOOK_KIND = "one-look network"


STOP_PARTS = ("stopper", "baseline", "scalar_baseline")
"""Modules and parameters of a DT-RAM that each of its stops has for itself."""


def save_model(folder: str | Path, module: nn.Module, header: dict[str, Any]) -> None:
    """Writes a model into a folder; each of its two files appears whole, by a rename.

    Args:
        folder: made if missing.
        module: its weights are saved.
        header: JSON values for ``model.json``; the format and the weights' SHA-256 are added.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = _write_weights(folder / "model.safetensors", module.state_dict())
    _write_json(
        folder / "model.json", {"format": FORMAT_VERSION, "weights_sha256": sha256, **header}
    )


def read_model_json(folder: str | Path, kind: str = DTRAM_KIND) -> dict[str, Any]:
    """Reads the ``model.json`` of a saved model.

    Args:
        folder: the model's.
        kind: the kind of model expected.

    Raises:
        FileNotFoundError: there is no model in `folder`.
        ValueError: it is a model of another kind or version.
    """
    folder = Path(folder)
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: no saved model, {name} is missing{_why(folder)}")
    path = folder / "model.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); copy the model again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: not a {kind} of format {FORMAT_VERSION}; is it from another version of dtram?"
        )
    if header.get("kind") != kind:
        raise ValueError(
            f"{path}: expected a {kind}, found a {header.get('kind')}; name another folder"
        )
    return header


def _why(folder: Path) -> str:
    """The end of an error message: why `folder` may hold no model."""
    if not folder.exists():
        return ", there is no such folder"
    if not folder.is_dir():
        return "; expected the folder of a model, this is a file"
    inside = sorted(path.parent.name for path in folder.glob("*/model.json"))
    return f"; these folders in it have models: {', '.join(inside)}" if inside else ""


def kind_of(folder: str | Path) -> str:
    """The kind of a saved model; DT-RAM's if none can be read, whose loader then says why."""
    try:
        return str(json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return DTRAM_KIND


def check_settings(
    folder: str | Path, header: dict[str, Any], needed: set[str], settings: set[str]
) -> None:
    """Raises ValueError unless a header is complete and has no unknown setting.

    Args:
        folder: the model's.
        header: as `read_model_json` returns it.
        needed: keys that the header must have.
        settings: the names expected under ``config``.
    """
    wrong = settings ^ header.get("config", {}).keys()
    problems = sorted(needed - header.keys()) + sorted(wrong)
    if problems:
        path = Path(folder) / "model.json"
        raise ValueError(f"{path}: missing or unknown settings {problems}; copy the model again")


def load_weights(folder: str | Path, header: dict[str, Any], module: nn.Module) -> None:
    """Loads a saved model's weights into a module.

    Args:
        folder: the model's.
        header: as `read_model_json` returns it.
        module: made from the header's settings.

    Raises:
        ValueError: the weights are not those of the header, or do not fit the module.
    """
    weights = _read_weights(Path(folder) / "model.safetensors", header["weights_sha256"])
    _check_fit(Path(folder) / "model.safetensors", weights, module.state_dict())
    module.load_state_dict(weights)


def save_stop(
    folder: str | Path, name: str, agent: nn.Module, default: bool = False, **metadata: Any
) -> None:
    """Adds a stop to a saved DT-RAM: a stopper and a threshold that were learned on its trunk.

    Args:
        folder: of the saved DT-RAM; its other files stay as they are.
        name: of the stop, as ``"2.4"``; a stop of that name is replaced.
        agent: the `DTRAM` whose stopper, baseline and threshold are saved.
        default: whether this stop is loaded if none is named.
        **metadata: JSON values to keep with it, as ``discount=0.98``.

    Raises:
        FileNotFoundError: there is no model in `folder`.
        ValueError: the name has other characters than letters, digits, ``.``, ``_`` and ``-``, or
            the agent's trunk is not the saved one.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[\w.-]+", name, flags=re.ASCII):
        raise ValueError(f"name={name!r}: expected letters, digits, '.', '_' and '-' only")
    header = read_model_json(folder, agent.KIND)  # type: ignore[arg-type]
    path = folder / "model.safetensors"
    saved, own = _read_weights(path, header["weights_sha256"]), agent.state_dict()
    _check_fit(path, saved, own)
    changed = [k for k, v in own.items() if not _of_stop(k) and not v.cpu().equal(saved[k])]
    if changed:
        raise ValueError(
            f"{folder}: the stop was learned on another trunk; {', '.join(changed)} differ"
        )
    sha256 = _write_weights(
        folder / f"stop-{name}.safetensors", {k: v for k, v in own.items() if _of_stop(k)}
    )
    threshold = agent.stopping.threshold  # type: ignore[union-attr]
    stop = {"threshold": threshold, "weights_sha256": sha256, **metadata}
    header["stops"] = header.get("stops", {}) | {name: stop}
    if default:
        header["default_stop"] = name
    _write_json(folder / "model.json", header)


def load_stop(
    folder: str | Path, header: dict[str, Any], module: nn.Module, name: str | None
) -> float:
    """Loads one of a saved model's stops into a module that has the model's weights.

    Args:
        folder: the model's.
        header: as `read_model_json` returns it.
        module: its stopper and baseline are replaced.
        name: of the stop; None for the default.

    Returns:
        The stop's threshold.

    Raises:
        ValueError: the name is unknown, or the stop's weights are not those of the header.
    """
    name = header.get("default_stop") if name is None else name
    if name is None:
        return header["stop_threshold"]
    stops = header.get("stops", {})
    if name not in stops:
        known = f"one of {', '.join(map(repr, stops))}" if stops else "None, as it has no others"
        raise ValueError(f"stop={name!r}: {folder} has no such stop; expected {known}")
    path = Path(folder) / f"stop-{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, but listed in model.json; copy the model again")
    weights = _read_weights(path, stops[name]["weights_sha256"])
    expected = {k: v for k, v in module.state_dict().items() if _of_stop(k)}
    _check_fit(path, weights, expected)
    module.load_state_dict(weights, strict=False)
    return stops[name]["threshold"]


def _of_stop(key: str) -> bool:
    return key.partition(".")[0] in STOP_PARTS


def _write_weights(path: Path, weights: dict[str, Tensor]) -> str:
    """Writes tensors by a rename; returns the file's SHA-256."""
    aside = path.with_name(path.name + ".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, aside)
    sha256 = _sha256(aside)
    os.replace(aside, path)
    return sha256


def _write_json(path: Path, values: dict[str, Any]) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    if _sha256(path) != sha256:
        raise ValueError(
            f"{path}: not the weights that model.json beside it was written for; copy both files "
            "of one model"
        )
    return load_file(path)


def _check_fit(path: Path, weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

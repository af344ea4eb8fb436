"""Models on disk: ``model.safetensors`` and ``model.json``; nothing is unpickled.

A DT-RAM's folder may hold further stops, learned one by one on the same trunk, each under a name:
``stop-NAME.safetensors`` has the tensors of the stopper and the baseline alone, and ``model.json``
lists it::

    "stops": {"at-most-2.4": {"threshold": 0.82, "weights_sha256": "...", "discount": 0.98}},
    "default_stop": "at-most-2.4"

`save_stop` writes them, and ``load_agent(folder, stop="at-most-2.4")`` reads one. Without
``default_stop`` the default is the stop in ``model.safetensors``, with the ``stop_threshold`` of
``model.json``.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .config import FirstLookOptions
from .cores import MapOptions
from .resnet import ResNetOptions

FORMAT_VERSION = 1
DTRAM_KIND = "DT-RAM"
STOP_PARTS = ("stopper", "baseline", "scalar_baseline")
"""Modules and parameters of a DT-RAM that each of its stops has for itself."""


class SavedNetwork(nn.Module):
    """A network with settings and class names that is saved without pickled code.

    A subclass is made from ``(config, class_names)``. Its classes are numbered if they have no
    names.
    """

    KIND: ClassVar[str]  # as ``model.json`` names it
    CONFIG: ClassVar[type[Any]]  # the settings' dataclass
    NEEDED: ClassVar[tuple[str, ...]] = ()  # further keys that ``model.json`` must have

    def __init__(self, config: Any, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = class_names or tuple(map(str, range(config.num_classes)))
        names, classes = len(self.class_names), config.num_classes
        if names != classes:
            raise ValueError(f"class_names: {names} names for {classes} classes")

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder, each by one rename.

        The values of `about` are kept in ``model.json`` (the environment's id, its options, ...).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header = {
            "format": FORMAT_VERSION,
            "weights_sha256": _write_weights(folder / "model.safetensors", self.state_dict()),
            "kind": self.KIND,
            "config": asdict(self.config),
            "class_names": list(self.class_names),
            **about,
        }
        _write_json(folder / "model.json", header)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Reads a saved model back; nothing is unpickled.

        Raises:
            FileNotFoundError: there is no model in `folder`.
            ValueError: it is a model of another kind, or its files do not fit one another.
        """
        return cls._load(folder, cls.read_header(folder)).to(device).eval()

    @classmethod
    def _load(cls, folder: str | Path, header: dict[str, Any]) -> Self:
        network = cls(cls.config_from(header), tuple(header["class_names"]))
        path = Path(folder, "model.safetensors")
        own = network.state_dict()
        network.load_state_dict(_read_weights(path, header["weights_sha256"], own))
        return network

    @classmethod
    def read_header(cls, folder: str | Path) -> dict[str, Any]:
        """Reads and checks the ``model.json`` of a saved model; raises as `load`."""
        path = Path(folder, "model.json")
        for name in ("model.json", "model.safetensors"):
            if not path.with_name(name).is_file():
                why = _why_no_model(path.parent)
                raise FileNotFoundError(f"{folder}: no saved model, {name} is missing{why}")
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON ({error}); copy the model again") from None
        found = header.get("format") if isinstance(header, dict) else None
        if found != FORMAT_VERSION:
            raise ValueError(
                f"{path}: has format {found}, expected {FORMAT_VERSION}, as dtram saves a "
                f"{cls.KIND}; train it again, or load it with the version that saved it"
            )
        kind = header.get("kind")
        if kind != cls.KIND:
            way_out = (
                "agents.load_agent loads any DT-RAM and RAM with ACT, "
                "agents.loading.load_one_look a network that looks once. The test error of that "
                "is in its results.json; --encoder ... weights=FOLDER starts from its weights"
            )
            raise ValueError(f"{path}: expected a {cls.KIND}, found a {kind}; {way_out}")
        needed = {"config", "class_names", "weights_sha256", *cls.NEEDED}
        config = header.get("config", {})
        problems = sorted(needed - header.keys()) + _unlike(config, cls.CONFIG)
        for name, options in _NESTED.items():
            if given := config.get(name):
                given = given if isinstance(given, dict) else {}
                problems += _unlike(given, options, f"{name}.")
        if problems:
            problem = f"missing or unknown settings {problems}"
            way_out = "another version of dtram made it: train it again, or copy the model again"
            raise ValueError(f"{path}: {problem}; {way_out}")
        return header

    @classmethod
    def config_from(cls, header: dict[str, Any]) -> Any:
        """The settings in a header that `read_header` returned."""
        kept = header["config"]
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()
        }
        if "scan" in values:
            values["scan"] = tuple(map(tuple, values["scan"]))
        for name, kind in _NESTED.items():
            if values.get(name):
                values[name] = kind(**values[name])
        return cls.CONFIG(**values)


_NESTED = {"resnet": ResNetOptions, "map": MapOptions, "first_look": FirstLookOptions}


def _unlike(settings: dict[str, Any], kind: type, prefix: str = "") -> list[str]:
    """Names of settings that are missing from, or unknown to, the dataclass `kind`."""
    return [prefix + k for k in sorted({field.name for field in fields(kind)} ^ settings.keys())]


def kind_of(folder: str | Path) -> str:
    """The kind of a saved model; DT-RAM's if unreadable, so that `DTRAM.load` raises the error."""
    try:
        return str(json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return DTRAM_KIND


def save_stop(
    folder: str | Path, name: str, agent: SavedNetwork, default: bool = False, **metadata: Any
) -> None:
    """Adds a stop to a saved DT-RAM: a stopper and a threshold that were learned on its trunk.

    Args:
        folder: of the saved DT-RAM; its other files stay as they are.
        name: of the stop, as ``"at-most-2.4"``; a stop of that name is replaced.
        agent: the `DTRAM` whose stopper, baseline and threshold are saved.
        default: whether this stop is loaded if none is named.
        **metadata: JSON values to keep with it. Its ``discount`` is used to evaluate it.

    Raises:
        FileNotFoundError: there is no model in `folder`.
        ValueError: the name has other characters than letters, digits, ``.``, ``_`` and ``-``, or
            the agent's trunk is not the saved one.
    """
    folder = Path(folder)
    if not re.fullmatch(r"[\w.-]+", name, flags=re.ASCII):
        raise ValueError(f"name={name!r}: expected letters, digits, '.', '_' and '-' only")
    header, own = agent.read_header(folder), agent.state_dict()
    saved = _read_weights(folder / "model.safetensors", header["weights_sha256"], own)
    changed = [k for k, v in own.items() if not _of_stop(k) and not v.cpu().equal(saved[k])]
    if changed:
        differ = ", ".join(changed)
        raise ValueError(f"{folder}: the stop was learned on another trunk; {differ} differ")
    weights = {k: v for k, v in own.items() if _of_stop(k)}
    sha256 = _write_weights(folder / f"stop-{name}.safetensors", weights)
    threshold = agent.stopping.threshold  # type: ignore[union-attr]
    stop = {"threshold": threshold, "weights_sha256": sha256, **metadata}
    header["stops"] = header.get("stops", {}) | {name: stop}
    if default:
        header["default_stop"] = name
    _write_json(folder / "model.json", header)


def load_stop(
    folder: str | Path, header: dict[str, Any], module: nn.Module, name: str | None
) -> float:
    """Replaces the stopper and baseline of a loaded model by those of one of its saved stops.

    If `name` is None, it is the default stop. Returns the stop's threshold.
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
    expected = {k: v for k, v in module.state_dict().items() if _of_stop(k)}
    weights = _read_weights(path, stops[name]["weights_sha256"], expected)
    module.load_state_dict(weights, strict=False)
    return stops[name]["threshold"]


def _why_no_model(folder: Path) -> str:
    """The end of an error message: why `folder` may hold no model."""
    if not folder.exists():
        return ", there is no such folder"
    if not folder.is_dir():
        return "; expected the folder of a model, this is a file"
    inside = sorted(path.parent.name for path in folder.glob("*/model.json"))
    return f"; these folders in it have models: {', '.join(inside)}" if inside else ""


def _of_stop(key: str) -> bool:
    return key.partition(".")[0] in STOP_PARTS


def _write_weights(path: Path, weights: dict[str, Tensor]) -> str:
    """Writes tensors by a rename; returns the file's SHA-256."""
    aside = path.with_name(path.name + ".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, aside)
    sha256 = sha256_of(aside)
    os.replace(aside, path)
    return sha256


def _write_json(path: Path, values: dict[str, Any]) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _read_weights(path: Path, sha256: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reads tensors; ValueError unless the file has this SHA-256 and the expected shapes."""
    if sha256_of(path) != sha256:
        problem = "not the weights that model.json beside it was written for"
        raise ValueError(f"{path}: {problem}; copy both files of one model")
    weights = load_file(path)
    shapes, wanted = ({k: v.shape for k, v in part.items()} for part in (weights, expected))
    wrong = sorted(k for k in shapes | wanted if shapes.get(k) != wanted.get(k))
    if wrong:
        problem = f"missing, unknown or of another shape: {', '.join(wrong)}"
        raise ValueError(f"{path}: does not fit model.json beside it; {problem}")
    return weights


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

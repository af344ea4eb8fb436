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

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, NotRequired, Self, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dtram_env.checks import misfit
from dtram_env.files import read_json, replacing, sha256_of, write_json

from .checks import require
from .config import FirstLookOptions
from .cores import MapOptions
from .resnet import ResNetOptions

FORMAT_VERSION = 1
DTRAM_KIND = "DT-RAM"
STOP_PARTS = ("stopper", "baseline", "scalar_baseline")
"""Modules and parameters of a DT-RAM that each of its stops has for itself."""
_MAX_LISTED = 20  # tensors in an error message
_STOP_NAME = re.compile(r"[\w.-]+", re.ASCII)
_STOP_NAME_EXPECTED = "letters, digits, '.', '_' and '-' only"


class Stop(TypedDict):
    """One of the ``stops`` in a header."""

    threshold: Annotated[float, 0, 1]
    weights_sha256: str
    discount: NotRequired[Annotated[float, 0, 1]]


class Header(TypedDict):
    """A ``model.json``, beside its format and kind; it may have further keys. Only a DT-RAM has
    stops."""

    config: dict[str, Any]
    class_names: list[str]
    weights_sha256: str
    stop_threshold: NotRequired[Annotated[float, 0, 1]]
    stops: NotRequired[dict[str, Stop]]
    default_stop: NotRequired[str | None]


class SavedNetwork(nn.Module):
    """A network with settings and class names that is saved without pickled code.

    A subclass is made from ``(config, class_names)``. Its classes are numbered if they have no
    names.
    """

    KIND: ClassVar[str]  # as ``model.json`` names it
    CONFIG: ClassVar[type[Any]]  # the settings' dataclass

    def __init__(self, config: Any, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = class_names or tuple(map(str, range(config.num_classes)))
        _check_names(self.class_names, config.num_classes)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def save(self, folder: str | Path, **about: Any) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into a folder, each by one rename.

        The values of `about` are kept in ``model.json`` (the environment's id, its options, ...).
        """
        weights = write_tensors(Path(folder, "model.safetensors"), self.state_dict())
        header = {
            "format": FORMAT_VERSION,
            "weights_sha256": sha256_of(weights),
            "kind": self.KIND,
            "config": asdict(self.config),
            "class_names": list(self.class_names),
            **about,
        }
        write_json(Path(folder, "model.json"), header)

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
        made_of = cls.config_from(header), tuple(header["class_names"])
        with torch.device("meta"):  # shapes without memory, so that absurd ones cost nothing
            expected = cls(*made_of).state_dict()
        path = Path(folder, "model.safetensors")
        weights = _read_weights(path, header["weights_sha256"], expected)
        network = cls(*made_of)
        network.load_state_dict(weights)
        return network

    @classmethod
    def read_header(cls, folder: str | Path) -> dict[str, Any]:
        """Reads and checks the ``model.json`` of a saved model; raises as `load`."""
        path = Path(folder, "model.json")
        for name in ("model.json", "model.safetensors"):
            if not path.with_name(name).is_file():
                why = _why_no_model(path.parent, name)
                raise FileNotFoundError(f"{folder}: no saved model, {why}")
        header = read_json(path, dict[str, Any], "copy the model again")
        found = header.get("format")
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
        way_out = "another version of dtram made it: train it again, or copy the model again"
        try:
            if problem := misfit(header, Header) or misfit(header["config"], cls.CONFIG, "config"):
                raise ValueError(problem)
            _check_names(header["class_names"], cls.config_from(header).num_classes)
            _check_stops(header)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; {way_out}") from None
        return header

    @classmethod
    def config_from(cls, header: dict[str, Any]) -> Any:
        """The settings in a header that `read_header` returned."""
        values = {name: _as_tuple(value) for name, value in header["config"].items()}
        for name, kind in _NESTED.items():
            if values.get(name):
                values[name] = kind(**values[name])
        return cls.CONFIG(**values)


_NESTED = {"resnet": ResNetOptions, "map": MapOptions, "first_look": FirstLookOptions}


def _as_tuple(value: Any) -> Any:
    """A list of JSON as a tuple, with the lists in it."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _check_names(names: Sequence[str], classes: int) -> None:
    """Raises ValueError unless there is one name for each class."""
    if len(names) != classes:
        raise ValueError(f"class_names: {len(names)} names for {classes} classes")


def _check_stops(header: dict[str, Any]) -> None:
    """Raises ValueError unless the names of stops in a header are as `save_stop` writes them."""
    stops, default = header.get("stops", {}), header.get("default_stop")
    known = default is None or default in stops
    require("default_stop", default, known, f"one of {list(stops)}")
    for name in stops:
        require("name of a stop", name, _STOP_NAME.fullmatch(name), _STOP_NAME_EXPECTED)


def kind_of(folder: str | Path) -> str:
    """The kind of a saved model; DT-RAM's if unreadable, so that `DTRAM.load` raises the error."""
    try:
        return str(json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
    require("name", name, _STOP_NAME.fullmatch(name), _STOP_NAME_EXPECTED)
    header, own = agent.read_header(folder), agent.state_dict()
    saved = _read_weights(folder / "model.safetensors", header["weights_sha256"], own)
    changed = [k for k, v in own.items() if not _of_stop(k) and not v.cpu().equal(saved[k])]
    if changed:
        differ = ", ".join(changed)
        raise ValueError(f"{folder}: the stop was learned on another trunk; {differ} differ")
    weights = {k: v for k, v in own.items() if _of_stop(k)}
    sha256 = sha256_of(write_tensors(folder / f"stop-{name}.safetensors", weights))
    threshold = agent.stopping.threshold  # type: ignore[union-attr]
    stop = {"threshold": threshold, "weights_sha256": sha256, **metadata}
    header["stops"] = header.get("stops", {}) | {name: stop}
    if default:
        header["default_stop"] = name
    write_json(folder / "model.json", header)


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


def _why_no_model(folder: Path, name: str) -> str:
    """The end of an error message: why `folder`, which lacks `name`, may hold no model."""
    if not folder.exists():
        return "there is no such folder"
    if not folder.is_dir():
        return "this is a file; expected the folder of a model"
    missing = f"{name} is missing"
    if inside := sorted(path.parent.name for path in folder.glob("*/model.json")):
        return f"{missing}; these folders in it have models: {', '.join(inside)}"
    with suppress(OSError, ValueError):
        made_by_sb3 = "algo" in read_json(folder / "options.json", dict[str, Any], "")
        if made_by_sb3 and (folder / "results.json").exists():
            its = "its test error is in its results.json, and train/watch.py shows what it looks at"
            return f"{missing}; it is a run of train/sb3_baselines.py: {its}"
        return f"{missing}; it is a run that has not been validated yet: continue it with --resume"
    return missing


def _of_stop(key: str) -> bool:
    return key.partition(".")[0] in STOP_PARTS


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Writes a safetensors file, see `replacing`; returns the path."""
    # Python's own writing says why it failed, and the file has the usual permissions.
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    with replacing(path) as aside:
        aside.write_bytes(content)
    return path


def _read_weights(path: Path, sha256: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reads tensors.

    The shapes in the file's header are compared before the tensors are read.

    Raises:
        ValueError: the file has another SHA-256, other shapes or types than those expected, or
            values that are not finite.
    """
    if sha256_of(path) != sha256:
        problem = "not the weights that model.json beside it was written for"
        raise ValueError(f"{path}: {problem}; copy both files of one model")
    try:
        with safe_open(path, "pt") as file:
            shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
        wanted = {k: tuple(v.shape) for k, v in expected.items()}
        unlike = [k for k in shapes | wanted if shapes.get(k) != wanted.get(k)]
        problem = "does not fit model.json beside it; missing, unknown or of another shape"
        _refuse(path, problem, unlike)
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); copy the model again") from None
    other = [f"{k} ({v.dtype})" for k, v in weights.items() if v.dtype != expected[k].dtype]
    _refuse(path, "copy the model again; these have another type than the network's", other)
    broken = [k for k, v in weights.items() if not v.isfinite().all()]
    _refuse(path, "train the model again; these have values that are not finite", broken)
    return weights


def _refuse(path: Path, problem: str, names: list[str]) -> None:
    """Raises ValueError if there are names of tensors with a problem."""
    if names:
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        raise ValueError(f"{path}: {problem}: {', '.join(sorted(names)[:_MAX_LISTED])}{more}")

"""Pretrained weights for a residual network, from torchvision or a file; no code is unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dtram_env.optional import require

from .resnet import RESNETS, ResNetOptions, ResNetTrunk

_MAX_LISTED = 20  # keys of one kind in an error message


def load_backbone(trunk: ResNetTrunk, weights: str | Path | None) -> str:
    """Loads weights into a network; if they do not fit, the network stays unchanged.

    A file's keys are torchvision's. They may lie under "state_dict" or "model" and have the prefix
    "module."; the classifier `fc` is ignored.

    Args:
        trunk: the network, on any device.
        weights: "DEFAULT" for torchvision's weights of the network's name, which expect RGB pixels
            in [0, 1] with mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225);
            or the path of a safetensors file or of a state dict that `torch.save` wrote; or "none"
            or None, which does nothing.

    Returns:
        The origin of the weights in one line: a name, and the SHA-256 of the file.

    Raises:
        FileNotFoundError: the file is missing, or torchvision's could not be downloaded.
        ValueError: the file is damaged, is not a state dict, holds pickled code, or does not fit.
    """
    if weights is None or weights == "none":
        return "none"
    if weights == "DEFAULT":
        path, source = _fetch_default(trunk.options)
    else:
        path = Path(weights)
        source = path.name
        if not path.is_file():
            raise FileNotFoundError(
                f"backbone weights {str(weights)!r}: no such file; expected DEFAULT, none, or the "
                "path of a .safetensors file or of a torch state dict (.pt, .pth)"
            )
    digest = _sha256(path)
    state = _unwrap(_read(path), path)
    _check_fit(trunk, state, path)
    trunk.load_state_dict(state, strict=False)
    return f"{source}, sha256 {digest}"


def _fetch_default(options: ResNetOptions) -> tuple[Path, str]:
    """Path of torchvision's weights, downloaded if missing, and their name."""
    _check_default(options)
    weights = require("torchvision.models", "train").get_model_weights(options.name).DEFAULT
    file = Path(urlparse(weights.url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    # Torch checks the hash in the name only after a download.
    expected = re.search(r"-([0-9a-f]{8,})\.", file)
    if path.exists() and expected and not _sha256(path).startswith(expected[1]):
        raise ValueError(
            f"{path}: damaged, its SHA-256 is {_sha256(path)}, expected one that begins with "
            f"{expected[1]}; delete the file, and it is downloaded again"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be another program's input
            weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise FileNotFoundError(
            f"backbone weights 'DEFAULT': {weights.url} could not be downloaded ({error}). "
            f"Download it elsewhere and put it here as {path}, or give its path instead of "
            "DEFAULT; 'none' starts from random weights"
        ) from error
    return path, f"torchvision {weights}"


def _check_default(options: ResNetOptions) -> None:
    """Raises ValueError unless torchvision has weights for a network with these options."""
    if options.name == "resnet10":
        raise ValueError(
            "backbone weights 'DEFAULT': torchvision has none for resnet10; expected another name, "
            "the path of a file, or none"
        )
    fields = ["order", "width", "small_stem", "channels"]
    if RESNETS[options.name].bottleneck:
        fields.append("stride_in")
    usual = ResNetOptions(options.name)
    other = [
        f"{field}={getattr(options, field)!r} instead of {getattr(usual, field)!r}"
        for field in fields
        if getattr(options, field) != getattr(usual, field)
    ]
    if other:
        raise ValueError(
            f"backbone weights 'DEFAULT': torchvision's {options.name} is another network than "
            f"this one, which has {', '.join(other)}; change that, or give the path of weights for "
            "this one, or none"
        )


def _read(path: Path) -> Any:
    """Reads a file whose format its first bytes tell, whatever its name."""
    with path.open("rb") as stream:
        head = stream.read(9)
    # A safetensors file begins with 8 bytes, the length of its JSON header. The marks of a ZIP or a
    # pickle, with which torch's files begin, would be a length beyond the file.
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and length < path.stat().st_size:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: a damaged safetensors file ({error})") from None
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_torch(path)
    raise ValueError(
        f"{path}: neither a safetensors file nor a state dict that torch.save wrote (.pt, .pth)"
    )


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which raise an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(
                f"{path}: holds a pickled {code[1]}, whose loading would run code; save the "
                "tensors alone: torch.save(model.state_dict(), path)"
            ) from None
        raise ValueError(
            f"{path}: cannot be read as a state dict that torch.save wrote; it is damaged or of "
            "another format"
        ) from error


def _unwrap(read: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in the file's content and gives its keys the network's names."""
    for key in ("state_dict", "model"):
        if isinstance(read, Mapping) and isinstance(read.get(key), Mapping):
            read = read[key]
    if not isinstance(read, Mapping) or not read:
        raise ValueError(
            f"{path}: expected a state dict, a mapping of names to tensors, got "
            f"{'an empty one' if isinstance(read, Mapping) else type(read).__name__}"
        )
    for key, value in read.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: expected a state dict, a mapping of names to tensors, but "
                f"{key!r} is of type {type(value).__name__}"
            )
    named = {key.removeprefix("module."): value for key, value in read.items()}
    return {key: value for key, value in named.items() if not key.startswith("fc.")}


def _check_fit(trunk: ResNetTrunk, state: Mapping[str, Tensor], path: Path) -> None:
    expected = trunk.state_dict()
    # Old files lack the count of batches, which is not used here.
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{kind}: {_listed(keys)}" for kind, keys in kinds.items() if keys]
    if problems:
        raise ValueError(
            f"{path}: does not fit {trunk.options}; {'; '.join(problems)}. Give weights of such a "
            "network, or the options of the weights' network"
        )


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
    return ", ".join(keys[:_MAX_LISTED]) + more


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Pretrained weights for a residual network, from torchvision or a file; no code is unpickled."""

import contextlib
import pickle
import re
import sys
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dtram_env.files import sha256_of
from dtram_env.optional import require

from .resnet import RESNETS, ResNetBackbone, ResNetOptions

_OWN = "encoder.trunk."  # prefix of an encoder's weights in a network that this package saved


def load_backbone(backbone: ResNetBackbone, weights: str | Path | None) -> str:
    """Loads weights into a network.

    A file's keys are torchvision's. They may lie under "state_dict" or "model" and have the prefix
    "module."; the classifier `fc` is ignored. Of a saved network's folder the encoder is taken.

    Args:
        backbone: the network, on any device.
        weights: "DEFAULT" for torchvision's weights of the network's name, which expect RGB pixels
            in [0, 1] with mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225);
            or the path of a safetensors file or of a state dict that `torch.save` wrote; or a
            folder with a saved one-look network; or "none" or None, which does nothing.

    Returns:
        The origin of the weights in one line: a name, and the SHA-256 of the file.

    Raises:
        FileNotFoundError: the file is missing, or torchvision's could not be downloaded.
        ValueError: the file is damaged, is not a state dict, holds pickled code, or does not fit.
    """
    if weights is None or weights == "none":
        return "none"
    if weights == "DEFAULT":
        path, source = _fetch_default(backbone.options)
    else:
        path = Path(weights)
        source = path.name
        if path.is_dir():
            path = path / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"backbone weights {str(weights)!r}: no such file; expected DEFAULT, none, or the "
                "path of a .safetensors file, of a torch state dict (.pt, .pth) or of a saved "
                "one-look network"
            )
    state = _unwrap(_read(path), path)
    if Path(weights).is_dir():
        own = {k.removeprefix(_OWN): v for k, v in state.items() if k.startswith(_OWN)}
        state = own or state
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        problems = textwrap.shorten(str(error).partition(":")[2], 1000, placeholder=" ...")
        way_out = "Give weights of such a network, or the options of the weights' network"
        raise ValueError(
            f"{path}: does not fit {backbone.options}; {problems}. {way_out}"
        ) from None
    return f"{source}, sha256 {sha256_of(path)}"


def _fetch_default(options: ResNetOptions) -> tuple[Path, str]:
    """Path of torchvision's weights, downloaded if missing, and their name."""
    _check_default(options)
    weights = require("torchvision.models", "train").get_model_weights(options.name).DEFAULT
    file = Path(urlparse(weights.url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    # Torch checks the hash in the name only after a download.
    expected = re.search(r"-([0-9a-f]{8,})\.", file)
    if path.exists() and expected and not (found := sha256_of(path)).startswith(expected[1]):
        problem = f"its SHA-256 is {found}, expected one that begins with {expected[1]}"
        raise ValueError(f"{path}: damaged, {problem}; delete the file, and it is downloaded again")
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
    name, way_out = options.name, "or give the path of weights for this network, or none"
    if name == "resnet10":
        problem = "torchvision has none for resnet10; name another network"
        raise ValueError(f"backbone weights 'DEFAULT': {problem}, {way_out}")
    usual, own = asdict(ResNetOptions(name)), asdict(options)
    fields = ["order", "width", "stem_stride", "channels"]
    fields += ["stride_in"] * RESNETS[name].bottleneck
    other = [f"{k}={own[k]!r} instead of {usual[k]!r}" for k in fields if own[k] != usual[k]]
    if other:
        problem = f"torchvision's {name} is not this network, which has {', '.join(other)}"
        raise ValueError(f"backbone weights 'DEFAULT': {problem}; change that, {way_out}")


def _read(path: Path) -> Any:
    """Reads a safetensors file or one of torch, whatever its name."""
    try:
        return load_file(path)
    except SafetensorError:
        problem = "damaged, or neither a safetensors file nor a state dict that torch.save wrote"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which raise an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            problem = f"holds a pickled {code[1]}, whose loading would run code; save the tensors "
            problem += "alone: torch.save(model.state_dict(), path)"
        raise ValueError(f"{path}: {problem}") from error


def _unwrap(read: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in the file's content and gives its keys the network's names."""
    for key in ("state_dict", "model"):
        if isinstance(read, Mapping) and isinstance(read.get(key), Mapping):
            read = read[key]
    expected = f"{path}: expected a state dict, a mapping of names to tensors"
    if not isinstance(read, Mapping) or not read:
        got = "an empty one" if isinstance(read, Mapping) else type(read).__name__
        raise ValueError(f"{expected}, got {got}")
    for key, value in read.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{expected}, but {key!r} is of type {type(value).__name__}")
    named = {key.removeprefix("module."): value for key, value in read.items()}
    return {key: value for key, value in named.items() if not key.startswith("fc.")}

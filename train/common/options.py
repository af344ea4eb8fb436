"""The options that training programs share, and the grammar of the command line.

tyro makes a flag of every field. An option with settings of its own is one flag that takes words:
``--locator cells grid=7 hidden=128``. The first word names the kind, the others set its fields, so
a setting that the kind does not have cannot be given.
"""

import argparse
import json
import math
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from agents.resnet import ResNetOptions
from dtram_env.settings import read_words
from train.common.augment import Augmentation

OptionsType = TypeVar("OptionsType")


# -- the grammar: KIND key=value ... ---------------------------------------------------------------


def words(*kinds: type) -> PrimitiveConstructorSpec[Any]:
    """Tells tyro how to read an option whose value is one of several dataclasses.

    The first word selects the one whose field ``name`` allows it. A dataclass without that field
    takes ``key=value`` words only.
    """
    named = _kinds_by_name(kinds)
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{{{','.join(named)}}} [KEY=VALUE ...]" if named else "KEY=VALUE ...",
        instance_from_str=lambda given: parse(kinds, given),
        is_instance=lambda value: isinstance(value, kinds),
        str_from_instance=to_words,
    )


def parse(kinds: Sequence[type], given: Sequence[str]) -> Any:
    """Makes a dataclass from words, see `words`; raises ValueError unless they are valid.

    >>> @dataclass
    ... class Cells:
    ...     name: Literal["cells"] = "cells"
    ...     grid: int = 7
    >>> parse([Cells], ["cells", "grid=4"]).grid
    4
    """
    named, given = _kinds_by_name(kinds), list(given)
    values: dict[str, Any] = {}
    if named:
        name = given.pop(0) if given else ""
        if name not in named:
            raise ValueError(f"{name!r}: expected one of {', '.join(named)}")
        kind, values["name"] = named[name], name
    else:
        (kind,) = kinds
    hints = typing.get_type_hints(kind)
    keys = [f.name for f in fields(kind) if f.name != "name"]
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or key not in keys:
            known = ", ".join(f"{k}=..." for k in keys) or "no further words"
            raise ValueError(f"{word!r}: {values.get('name', 'this option')} takes {known}")
        values[key] = _value(key, text, hints[key])
    return kind(**values)


def to_words(value: Any, full: bool = False) -> list[str]:
    """The words from which `parse` makes an equal dataclass; `full` names defaults, too."""
    found = [value.name] if hasattr(value, "name") else []
    for f in fields(value):
        setting = getattr(value, f.name)
        if f.name != "name" and (full or setting != f.default):
            parts = setting if isinstance(setting, tuple) else [setting]
            texts = [str(x).lower() if isinstance(x, bool | None) else str(x) for x in parts]
            found.append(f"{f.name}={','.join(texts)}")
    return found


def _kinds_by_name(kinds: Sequence[type]) -> dict[str, type]:
    return {
        name: kind
        for kind in kinds
        if "name" in (hints := typing.get_type_hints(kind))
        for name in typing.get_args(hints["name"])
    }


def _value(key: str, text: str, hint: Any) -> Any:
    """Converts a word's text to the type of its field."""
    if type(None) in typing.get_args(hint):  # a type, or none
        if text.lower() == "none":
            return None
        hint = typing.get_args(hint)[0]
    options, expected = typing.get_args(hint), getattr(hint, "__name__", "")
    try:
        if typing.get_origin(hint) is Literal:
            expected = f"one of {', '.join(options)}"
            return options[options.index(text)]
        if hint is bool:
            expected = "true or false"
            return {"true": True, "false": False}[text.lower()]
        if typing.get_origin(hint) is tuple:
            expected = f"{len(options)} numbers with commas between"
            return tuple(kind(x) for kind, x in zip(options, text.split(","), strict=True))
        return hint(text)
    except (KeyError, ValueError):
        raise ValueError(f"{key}={text}: expected {expected}") from None


# -- checks ----------------------------------------------------------------------------------------


def check(name: str, value: object, holds: bool, expected: str) -> None:
    """Raises ValueError unless `holds`; `name` is an option's, or as "optimizer weight_decay"."""
    if not holds:
        option, _, key = name.partition(" ")
        flag = f"{option.replace('_', '-')} {key}".rstrip()
        text = " ".join(to_words(value)) if is_dataclass(value) else value
        raise ValueError(f"--{flag} {text}: expected {expected}")


RANGES: Mapping[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "0 or more": lambda value: 0 <= value < math.inf,
    "0 or more, below 2**31": lambda value: 0 <= value < 2**31,
    "0 or more, less than 1": lambda value: 0 <= value < 1,
    "a positive number": lambda value: 0 < value < math.inf,
    "a number in (0, 1]": lambda value: 0 < value <= 1,
    "a probability, from 0 to 1": lambda value: 0 <= value <= 1,
}
AtLeast1 = Annotated[int, "at least 1"]
Count = Annotated[int, "0 or more"]
NotNegative = Annotated[float, "0 or more"]
Positive = Annotated[float, "a positive number"]
Probability = Annotated[float, "a probability, from 0 to 1"]
Seed = Annotated[int, "0 or more, below 2**31"]


class Checked:
    """A dataclass of options; ValueError unless its fields are in their annotated `RANGES`."""

    OPTION: ClassVar[str] = ""  # the option whose settings they are; empty: each is an option

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            for part in (hint, *typing.get_args(hint)):  # a range, or none
                for expected in getattr(part, "__metadata__", ()):
                    if isinstance(expected, str):
                        value = getattr(self, name)
                        holds = value is None or RANGES[expected](value)
                        check(f"{self.OPTION} {name}".strip(), value, holds, expected)


# -- options of several programs ------------------------------------------------------------------


@dataclass(frozen=True)
class PlainEncoder:
    """A glimpse encoder without settings."""

    name: Literal["mlp", "conv", "cnn", "pixels"] = "mlp"


@dataclass(frozen=True)
class ResNetEncoder:
    """A residual encoder and the switches of the talk's last slide (`agents.resnet`)."""

    name: Literal["resnet10", "resnet18", "resnet34", "resnet50"] = "resnet50"
    weights: str = "none"
    """weights to start from: DEFAULT (torchvision's), a file, the folder of a one-look run, or
    none. Of a run with the same classes the classifier is taken, too, unless per_step or halting"""
    width: int = 64
    """channels of the stem; torchvision's is 64. Under 8, training can end in a segmentation fault
    on processors without AVX512 (oneDNN 3.12)"""
    stem_stride: int = 4
    """stride of the stem: 4, 2 or 1; a glimpse's side must be at least 8 times this"""
    order: Literal["post", "pre"] = "post"
    """ReLU and batch norm after each convolution, or before"""
    stride_in: Literal["3x3", "1x1"] = "3x3"
    """the convolution of a bottleneck that carries the stride"""
    bn_momentum: float = 0.1
    """weight of a batch in batch norm's running statistics"""
    frozen_norms: bool = False
    """do not train batch norms: keep the statistics and scales of the given weights"""
    per_step: bool = False
    """the original's network on CUB: an encoder and a classifier for each glimpse, no location
    embedding, logits of glimpse 1 plus the mean of the later ones; a curriculum freezes the
    encoders and classifiers of earlier stages"""

    def resnet(self, channels: int) -> ResNetOptions:
        """The network's settings for inputs with some number of channels."""
        names = ("name", "order", "stride_in", "bn_momentum", "width", "stem_stride")
        return ResNetOptions(channels=channels, **{n: getattr(self, n) for n in names})


Encoder = Annotated[PlainEncoder | ResNetEncoder, words(PlainEncoder, ResNetEncoder)]


@dataclass(frozen=True)
class AdamW(Checked):
    """AdamW with betas 0.9 and 0.99."""

    OPTION = "optimizer"
    name: Literal["adamw"] = "adamw"
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 5.0
    """gradients are clipped to this norm"""


@dataclass(frozen=True)
class SGD(Checked):
    """SGD with momentum 0.9."""

    OPTION = "optimizer"
    name: Literal["sgd"] = "sgd"
    weight_decay: NotNegative = 1e-4
    max_grad_norm: Positive = 5.0
    nesterov: bool = True
    """Nesterov's momentum (the original on CUB), or the plain one (on MNIST)"""
    schedule: Literal["one_cycle", "linear", "steps"] = "one_cycle"
    """of the learning rate: linear, to a thousandth (the original on MNIST); steps, a tenth after
    each third of the training (on CUB)"""


@dataclass(frozen=True)
class Muon(Checked):
    """Muon for hidden matrices (Jordan et al. 2024), AdamW for all other weights."""

    OPTION = "optimizer"
    name: Literal["muon"] = "muon"
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 100.0  # a guard against explosions; Muon's steps have a fixed norm


Optimizer = Annotated[AdamW | SGD | Muon, words(AdamW, SGD, Muon)]


@dataclass(frozen=True)
class EnvOptions(Checked):
    """The environment of a program."""

    env_id: str = "DTRAM-MNIST-v0"
    """registered environment"""
    env: tuple[str, ...] = ()
    """keywords of the environment, as in max_glimpses=4 image_size=256; its docs page lists them"""
    root: Path | None = None
    """folder of your own images (DTRAM-ImageFolder-v0)"""
    data_dir: Path | None = None
    """folder of all datasets; $DTRAM_DATA or ~/.cache/dtram if not given"""

    def env_words(self) -> dict[str, Any]:
        """The keywords of ``--env``."""
        flags = ("root", "data_dir", "discount")
        found = read_words(self.env, [name for name in flags if hasattr(self, name)])
        for key in ("data", "split", "view", "num_envs", "backend", "order"):
            if key in found:
                flag = f"it is --{key.replace('_', '-')} here"
                way_out = flag if hasattr(self, key) else f"the program sets {key}; leave it out"
                if key == "data":
                    way_out += ", or take an id of drawn images: --env-id DTRAM-Birds-v0"
                raise ValueError(f"--env {key}={found[key]}: {way_out}")
        return found

    def env_folders(self) -> dict[str, str]:
        """The keywords that name folders, of those given."""
        found: dict[str, str] = {}
        if self.root is not None:
            found["root"] = str(self.root.expanduser().resolve())
        if self.data_dir is not None:
            found["data_dir"] = str(self.data_dir)
        return found

    def env_keywords(self) -> dict[str, Any]:
        """The keywords for `gym.make`."""
        return self.env_words() | self.env_folders()


@dataclass(frozen=True)
class LearningOptions(EnvOptions):
    """The environment, and how a network learns from its images."""

    encoder: Encoder = PlainEncoder()
    """network that turns an image or glimpse into a vector: mlp (the paper's on MNIST), conv, cnn,
    pixels (with --core map), or a resnet with settings, as in resnet50 weights=DEFAULT width=64"""
    bf16: bool = False
    """train under autocast to bfloat16 if the device supports it in hardware"""
    augment: Annotated[Augmentation, words(Augmentation)] = field(default_factory=Augmentation)
    """augmentation of training images: affine=0.5 elastic=0 flip=false colour=0
    lighting=0 scale_crop=none compose=false plain=0"""
    optimizer: Optimizer = AdamW()
    """adamw, sgd or muon, with weight_decay=... max_grad_norm=...; sgd also with
    nesterov=true|false schedule=one_cycle|linear|steps"""
    learning_rate: Positive = 2e-3
    """peak of the learning-rate schedule, a one-cycle unless sgd has another"""
    batch_size: AtLeast1 = 96
    """images in a batch"""
    seed: Seed = 0
    """seed of all random numbers"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


@dataclass(frozen=True)
class TrainingOptions(LearningOptions):
    """The options of a training run: how long it is, and where it is stored."""

    compile: bool = False
    """compile the training step by torch.compile, which takes a minute at the start; on a GPU its
    kernels are launched as CUDA graphs"""
    epochs: AtLeast1 = 30
    """passes over the training split, in each stage of the trunk; --stop has the stopper's"""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir, or start it if there is none; a finished run only prints its
    result"""
    save_minutes: Positive = 10.0
    """longest time between two checkpoints; there is one after every epoch, too"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def check_batch_size(self, images: int) -> None:
        """Raises ValueError if a batch needs more images than there are."""
        expected = f"at most {images}, the training images; try --batch-size 16"
        check("batch_size", self.batch_size, self.batch_size <= images, expected)


LOCATIONS_OF_A_RUN = (
    *("run_dir", "resume", "data_dir", "device", "compile", "recipe", "save_minutes"),
)
"""Options that say where a run is stored, what computes it or how it was called; they do not change
its result, but for rounding and the draws of a compiled step."""


def to_json(options: Any) -> dict[str, Any]:
    """The options that define a run, as JSON values."""
    return json_values({k: v for k, v in vars(options).items() if k not in LOCATIONS_OF_A_RUN})


def json_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name as JSON values; a group of settings is an object."""

    def as_json(value: Any) -> Any:
        is_group = is_dataclass(value) and not isinstance(value, type)
        return asdict(value) if is_group else str(value)

    return json.loads(json.dumps(dict(options), default=as_json))


def describe_options(options: Any) -> str:
    """All options in full, as words of a command that makes the same run."""
    defining = {k: v for k, v in vars(options).items() if k not in LOCATIONS_OF_A_RUN and v != ()}
    recipe = f"recipe {options.recipe}: " if getattr(options, "recipe", "") else ""
    return f"{recipe}{shlex.join(flags(defining, full=True))}"


def command_line(
    kind: type[OptionsType],
    description: str | None,
    recipes: Mapping[str, Mapping[str, Any]],
    args: Sequence[str] | None = None,
) -> OptionsType:
    """Reads a program's options; ``--recipe NAME`` replaces the defaults by a recipe's.

    `description` is the text of ``--help``; `args` are those of the process if not given.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default="")
    name = parser.parse_known_args(args)[0].recipe
    if name and name not in recipes:
        expected = f"one of {', '.join(recipes)}" if recipes else "none, there are no recipes"
        raise ValueError(f"--recipe {name}: expected {expected}")
    start = kind(**({"recipe": name, **recipes[name]} if name else {}))
    return tyro.cli(kind, description=description, default=start, args=args)


def flags(options: Mapping[str, Any], full: bool = False) -> list[str]:
    """Options as words of a command line, without those that are None; for `full` see `to_words`.

    >>> flags({"env_id": "X", "bf16": True, "curriculum": (1, 3), "root": None})
    ['--env-id', 'X', '--bf16', '--curriculum', '1', '3']
    """
    found: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{'' if value else 'no-'}{flag}")
        elif isinstance(value, tuple | list):
            found += [f"--{flag}", *map(str, value)]
        elif is_dataclass(value):
            found += [f"--{flag}", *to_words(value, full)]
        elif value is not None:
            found += [f"--{flag}", str(value)]
    return found

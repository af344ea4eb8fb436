"""The grammar of the command line, recipes, and the keywords of the environment."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.common.augment import Augmentation
from train.common.one_look_networks import HALTING, HaltingBlocks
from train.common.options import (
    SGD,
    AdamW,
    Muon,
    PlainEncoder,
    ResNetEncoder,
    TrainingOptions,
    check,
    command_line,
    describe_options,
    flags,
    parse,
    to_json,
    to_words,
    words,
)
from train.dtram.options import ACT, Cells, Gaussian, StopAfter, StopByValue, StopJoint, StopOff

GROUPS: dict[str, tuple[type, ...]] = {
    "encoder": (PlainEncoder, ResNetEncoder),
    "optimizer": (AdamW, SGD, Muon),
    "augment": (Augmentation,),
    "locator": (Gaussian, Cells),
    "stop": (StopAfter, StopJoint, StopByValue, StopOff, ACT),
    "halting": HALTING,
}
"""The dataclasses of each option that takes words."""

POSITIVE = st.floats(1e-6, 1e6)
SETTINGS: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    PlainEncoder: {"name": st.sampled_from(["mlp", "conv", "cnn"])},
    ResNetEncoder: {
        "name": st.sampled_from(["resnet10", "resnet50"]),
        "weights": st.sampled_from(["none", "DEFAULT", "a/b.pt"]),
        "width": st.integers(1, 512),
        "per_step": st.booleans(),
        "order": st.sampled_from(["post", "pre"]),
    },
    AdamW: {"weight_decay": POSITIVE},
    SGD: {"max_grad_norm": POSITIVE},
    Muon: {"weight_decay": POSITIVE, "max_grad_norm": POSITIVE},
    Augmentation: {
        "affine": POSITIVE,
        "flip": st.booleans(),
        "colour": st.floats(0, 1),
        "scale_crop": st.none() | st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
    },
    Gaussian: {
        "std": POSITIVE,
        "gradient": st.sampled_from(["detached", "state"]),
        "squash": st.sampled_from(["tanh", "hard_tanh"]),
        "bound": st.floats(0.01, 1),
    },
    Cells: {"grid": st.integers(1, 99), "entropy_last": st.none() | POSITIVE},
    StopAfter: {"max_mean_glimpses": st.none() | st.floats(1, 9), "epochs": st.integers(1, 99)},
    StopByValue: {"max_mean_glimpses": st.none() | st.floats(1, 9), "hidden": st.integers(0, 9)},
    StopJoint: {
        "gradient": st.sampled_from(["exact", "reinforce"]),
        "entropy": POSITIVE,
        "max_mean_glimpses": st.none(),
        "threshold": st.none() | st.floats(0, 1),
        "reads": st.sampled_from(["answer", "state"]),
        "into": st.sampled_from(["detached", "state"]),
        "ram_share": st.floats(0, 0.99),
        "learning_rate": st.none() | POSITIVE,
    },
    StopOff: {},
    ACT: {"ponder_cost": POSITIVE},
    HALTING[0]: {},
    HaltingBlocks: {"name": st.sampled_from(["act", "sact"]), "ponder_cost": POSITIVE},
}


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Options of a program with a recipe."""

    recipe: str = ""
    locator: Annotated[Gaussian | Cells, words(Gaussian, Cells)] = field(default_factory=Gaussian)


RECIPES: dict[str, dict[str, Any]] = {
    "a": {"locator": Cells(grid=3), "epochs": 7, "env": ("max_glimpses=2",)},
    "b": {"optimizer": Muon()},
}


def read(*args: str) -> Options:
    return command_line(Options, "Help.", RECIPES, args)


# -- KIND key=value ... ----------


def test_the_table_above_has_every_kind() -> None:
    assert {kind for kinds in GROUPS.values() for kind in kinds} == set(SETTINGS)


@pytest.mark.parametrize("option", GROUPS)
@given(st.data())
def test_words_make_the_value_that_they_were_made_from(option: str, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(GROUPS[option]))
    value = kind(**data.draw(st.fixed_dictionaries(SETTINGS[kind])))
    assert parse(GROUPS[option], to_words(value)) == value
    full = to_words(value, full=True)
    assert parse(GROUPS[option], full) == value
    named = {"name"} & {f.name for f in fields(kind)}
    assert len(full) == len(fields(kind))  # every setting, and the kind's name first
    assert not named or full[0] == value.name


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        ("locator", "cells grid=4 entropy_last=NONE", Cells(grid=4)),
        ("locator", "gaussian", Gaussian()),
        ("encoder", "resnet18 stem_stride=1", ResNetEncoder("resnet18", stem_stride=1)),
        ("augment", "", Augmentation()),
        ("augment", "scale_crop=0.25,1", Augmentation(scale_crop=(0.25, 1.0))),
        ("stop", "after max_mean_glimpses=none", StopAfter(max_mean_glimpses=None)),
    ],
)
def test_words_are_read(option: str, given: str, value: Any) -> None:
    assert parse(GROUPS[option], given.split()) == value


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        ("locator", "", "'': expected one of gaussian, cells"),
        ("locator", "cell", "'cell': expected one of gaussian, cells"),
        ("locator", "grid=3", "'grid=3': expected one of gaussian, cells"),
        ("locator", "cells gird=3", "'gird=3': cells takes grid=..., entropy=..., "),
        ("locator", "cells grid", "'grid': cells takes grid=..."),
        ("locator", "cells std=0.1", "'std=0.1': cells takes grid=..."),  # another kind's
        ("locator", "cells grid=three", "grid=three: expected int"),
        ("locator", "cells entropy=none", "entropy=none: expected float"),
        ("locator", "cells grid=0", "--locator grid 0: expected at least 1"),
        ("locator", "gaussian gradient=none", "gradient=none: expected one of detached, state"),
        ("stop", "off epochs=3", "'epochs=3': off takes no further words"),
        ("augment", "cells", "'cells': this option takes affine=..., elastic=..., "),
        ("augment", "flip=1", "flip=1: expected true or false"),
        ("augment", "scale_crop=0.5", "scale_crop=0.5: expected 2 numbers with commas between"),
        ("augment", "scale_crop=a,b", "scale_crop=a,b: expected 2 numbers with commas between"),
        ("augment", "affine=-1", "affine=-1.0: expected from 0 to"),
    ],
)
def test_wrong_words_are_named(option: str, given: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(GROUPS[option], given.split())


# -- the command line and its recipes ----------


def test_words_of_the_command_line_reach_their_options() -> None:
    options = read(
        *("--env", "max_glimpses=3", "image_size=64", "--encoder", "resnet18", "width=16"),
        *("--augment", "affine=0", "flip=true", "--bf16", "--seed", "4"),
    )
    assert options == Options(
        env=("max_glimpses=3", "image_size=64"),
        encoder=ResNetEncoder("resnet18", width=16),
        augment=Augmentation(affine=0.0, flip=True),
        bf16=True,
        seed=4,
    )


def test_a_recipe_replaces_defaults_and_other_flags_change_it() -> None:
    assert read() == Options()
    assert read("--recipe", "a") == Options(recipe="a", **RECIPES["a"])
    changed = read("--epochs", "9", "--recipe=a", "--locator", "gaussian")
    assert changed == Options(recipe="a", epochs=9, env=("max_glimpses=2",))
    with pytest.raises(ValueError, match="--recipe c: expected one of a, b"):
        read("--recipe", "c")


def test_the_printed_options_are_a_command_that_makes_the_same_run() -> None:
    options = read("--recipe", "a", "--optimizer", "muon", "--root", "my photos")
    text = describe_options(options)
    assert text.startswith("recipe a: --env-id DTRAM-MNIST-v0 --env max_glimpses=2 --root 'my ph")
    assert "--locator cells grid=3 entropy=0.0" in text and "--no-bf16" in text
    assert not any(flag in text for flag in ("--run-dir", "--device", "--resume", "--recipe"))
    given = flags({f.name: getattr(options, f.name) for f in fields(options) if f.name != "recipe"})
    assert to_json(command_line(Options, None, {}, given)) == to_json(options)


def test_saved_options_leave_out_where_a_run_is() -> None:
    saved = to_json(read("--run-dir", "runs/a", "--data-dir", "d", "--root", "photos", "--resume"))
    assert not {"run_dir", "resume", "data_dir", "device", "recipe"} & set(saved)
    assert saved["root"] == "photos"
    assert saved["locator"]["std"] == 0.1 and saved["optimizer"]["name"] == "adamw"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"env_id": "X", "root": None}, "--env-id X"),
        ({"bf16": True, "resume": False}, "--bf16 --no-resume"),
        ({"curriculum": (1, 3), "env": ["a=1"]}, "--curriculum 1 3 --env a=1"),
        ({"locator": Cells(grid=3), "stop": StopOff()}, "--locator cells grid=3 --stop off"),
        ({"run_dir": Path("runs/a"), "seed": 0}, "--run-dir runs/a --seed 0"),
    ],
)
def test_flags_of_options(options: dict[str, Any], expected: str) -> None:
    assert flags(options) == expected.split()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Options(epochs=0), "--epochs 0: expected at least 1"),
        (lambda: Options(batch_size=0), "--batch-size 0: expected at least 1"),
        (lambda: Options(learning_rate=0.0), "--learning-rate 0.0: expected a positive number"),
        (lambda: Options(learning_rate=float("inf")), "--learning-rate inf: expected a positive"),
        (lambda: Options(learning_rate=float("nan")), "--learning-rate nan: expected a positive"),
        (lambda: Options(seed=-1), "--seed -1: expected 0 or more, below 2**31"),
        (lambda: Options(seed=2**31), "--seed 2147483648: expected 0 or more, below 2**31"),
        (lambda: Options(resume=True), "--resume: expected with --run-dir"),
        (
            lambda: Options(optimizer=SGD(weight_decay=-1.0)),
            "--optimizer weight_decay -1.0: expected 0 or more",
        ),
        (
            lambda: Options(optimizer=AdamW(max_grad_norm=0.0)),
            "--optimizer max_grad_norm 0.0: expected a positive number",
        ),
        (
            lambda: check("location_std", Cells(grid=3), False, "another"),
            "--location-std cells grid=3: expected another",
        ),
    ],
)
def test_values_out_of_range_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# -- keywords of the environment ----------


def test_keywords_of_the_environment() -> None:
    assert Options().env_keywords() == {}
    options = Options(
        env=("max_glimpses=3", "image_size=null", "crop_to_box=true", "first_glimpse=thumbnail"),
        root=Path("photos"),
        data_dir=Path("data"),
    )
    assert options.env_keywords() == {
        "max_glimpses": 3,
        "image_size": None,
        "crop_to_box": True,
        "first_glimpse": "thumbnail",
        "root": str(Path("photos").resolve()),
        "data_dir": "data",
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("glimpse_size", "--env glimpse_size: expected KEY=VALUE"),
        ("=3", "--env =3: expected KEY=VALUE"),
        ("glimpse-size=3", "--env glimpse-size=3: expected KEY=VALUE"),
        *(
            (f"{key}=x", f"--env {key}=x: the program sets {key}; leave it out")
            for key in ("data", "split", "view", "num_envs", "backend", "order")
        ),
        ("data_dir=x", "--env data_dir=x: use --data-dir x"),
        ("root=x", "--env root=x: use --root x"),
    ],
)
def test_wrong_keywords_are_named(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Options(env=(word,)).env_keywords()

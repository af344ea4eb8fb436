"""Models on disk: what is written and checked, and several stops on one trunk."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import Field, asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from agents.config import DTRAMConfig, FirstLookOptions
from agents.cores import MapOptions
from agents.dtram import DTRAM
from agents.files import SavedNetwork, save_stop
from agents.loading import load_agent, load_one_look
from agents.one_look import OneLook, OneLookConfig
from agents.resnet import ResNetOptions
from agents.stopping import FixedStop, LearnedStop
from dtram_env.files import sha256_of

CONFIG = DTRAMConfig(num_classes=5, glimpse_shape=(8, 8, 2), max_glimpses=4, hidden_size=16)
STOP = {"threshold": 1, "weights_sha256": ""}
ONE_LOOK = OneLookConfig(num_classes=5, image_shape=(4, 4, 1), hidden_size=5)


def make_agent(**changes: Any) -> DTRAM:
    torch.manual_seed(0)
    return DTRAM(replace(CONFIG, **changes))


def change_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    header = json.loads((folder / "model.json").read_text())
    change(header)
    (folder / "model.json").write_text(json.dumps(header))


@pytest.fixture(params=[make_agent, lambda: OneLook(ONE_LOOK)], ids=["DTRAM", "OneLook"])
def network(request: pytest.FixtureRequest) -> SavedNetwork:
    return request.param()


# -- one model -------------------------------------------------------------------------------------


def test_model_json_lists_every_setting(tmp_path: Path, network: SavedNetwork) -> None:
    network.save(tmp_path)
    header = json.loads((tmp_path / "model.json").read_text())
    assert header["kind"] == network.KIND
    assert header["config"].keys() == {field.name for field in fields(network.CONFIG)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["config"].update(teleport=True), r"config\.teleport: missing or unknown"),
        (
            lambda h: h["config"].update(resnet={"nam": 1}),
            r"config\.resnet\.\w+: missing or unknown",
        ),
        (lambda h: h["config"].pop("encoder"), r"config\.encoder: missing or unknown"),
        (lambda h: h.pop("class_names"), "class_names: missing or unknown"),
        (lambda h: h.update(format=2), "has format 2, expected 1, as dtram saves"),
        (lambda h: h.update(kind="pump"), "found a pump; agents.load_agent loads any"),
        (lambda h: h["class_names"].pop(), "4 names for 5 classes"),
        (lambda h: h.update(weights_sha256="0"), r"model\.safetensors: not the weights"),
        (lambda h: h["config"].update(hidden_size=8), r"does not fit .* classifier\.weight"),
        (lambda h: h["config"].update(hidden_size=60_000), r"does not fit .* classifier\.weight"),
        (lambda h: h.update(config=[]), r"config=\[\]: expected an object"),
        (lambda h: h.update(class_names=5), "class_names=5: expected a list"),
        (lambda h: h.update(class_names=[0, 1, 2, 3, 4]), r"class_names\[0\]=0: expected a text"),
        (lambda h: h.update(stops=[1]), r"stops=\[1\]: expected an object"),
        (lambda h: h.update(stops={"a": {"threshold": 1}}), "stops.a.weights_sha256: missing"),
        (lambda h: h.update(stops={"../a": STOP}), "name of a stop='../a': expected letters"),
        (lambda h: h.update(default_stop="a"), r"default_stop='a': expected one of \[\]"),
        (lambda h: h.update(stop_threshold=float("nan")), "stop_threshold=nan: expected a finite"),
    ],
)
def test_bad_headers_are_named(
    tmp_path: Path, network: SavedNetwork, change: Any, message: str
) -> None:
    network.save(tmp_path)
    change_header(tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        type(network).load(tmp_path)
    assert str(error.value).startswith(str(tmp_path))


NOT_NUMBERS = (math.nan, math.inf, -math.inf, 10**400, "1", [], {}, [[1]])
ABSURD: dict[Any, tuple[Any, ...]] = {
    int: (*NOT_NUMBERS, 1.5, True, None, -1, 10**6 + 1, 10**9),
    float: (*NOT_NUMBERS, True, None, -(10**9), 10**9),
    str: (0, None, "", "teleport"),
    bool: (0, 1, None, "true"),
}
MORE: dict[str, tuple[Any, ...]] = {
    "num_classes": (1,),
    "max_glimpses": (0, 10_001),
    "glimpse_shape": ([8, 8], [8, 9, 1], [8, 8, 0], [8193, 8193, 1], [8, 8, 257], [8, 8, "1"], 8),
    "image_shape": ([8, 8], [8, 9, 1], [8, 8, 0], [8193, 8193, 1], [8, 8, 257], [8, 8, 1.5], None),
    "pixel_mean": (*NOT_NUMBERS, None, [0.0, math.nan], [0.0] * 4),
    "pixel_std": (*NOT_NUMBERS, None, 0, -1.0, [1.0, math.inf], [1.0] * 4),
    "hidden_size": (0,),
    "width": (0,),
    "channels": (0,),
    "bn_momentum": (0.0, 1.5),
    "stem_stride": (3,),
    "scan": ([0, 0], [[0, 2]], [["x", 0]], "scan", [[0, 0, 0]]),
    "resnet": ([], 0),
    "map": ([], 0),
    "first_look": ([], 0),
    "location_bound": (0, 1.1),
}


def kind_of(field: Field[Any]) -> Any:
    """The type of a setting's values; a range is annotated, and literals are texts."""
    if get_origin(field.type) is Literal:
        return str
    return get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type


@pytest.mark.parametrize("config", [CONFIG, ONE_LOOK], ids=["DTRAM", "OneLook"])
def test_every_setting_has_a_type_and_a_range(config: Any) -> None:
    networks = {DTRAMConfig: DTRAM, OneLookConfig: OneLook}
    saved = json.loads(json.dumps(asdict(config)))
    for field in fields(config):
        for value in MORE.get(field.name, ()) + ABSURD.get(kind_of(field), ()):
            header = {"config": saved | {field.name: value}}
            with pytest.raises((ValueError, TypeError)) as error:
                networks[type(config)].config_from(header)
            assert re.search(rf"{field.name}[=[]", str(error.value)), (field.name, value)


def test_few_glimpses_may_have_weights_of_their_own() -> None:
    replace(CONFIG, per_step=True, max_glimpses=32)
    with pytest.raises(ValueError, match="max_glimpses=33: expected at most 32 with per_step"):
        replace(CONFIG, per_step=True, max_glimpses=33)


@pytest.mark.parametrize(
    ("kind", "saved"),
    [
        (MapOptions, {"extent": 0.5, "glimpse_cells": 8}),
        (FirstLookOptions, {"extent": 0.5, "side": 8}),
        (ResNetOptions, {}),
    ],
)
def test_every_option_of_a_part_has_a_type_and_a_range(kind: Any, saved: dict[str, Any]) -> None:
    for field in fields(kind):
        for value in MORE.get(field.name, ()) + ABSURD[kind_of(field)]:
            with pytest.raises(ValueError, match=f"^{field.name}="):
                kind(**saved | {field.name: value})


def test_shapes_are_compared_before_a_network_is_built(
    tmp_path: Path, network: SavedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest settings need no memory: no tensor with values is made."""
    network.save(tmp_path)
    change_header(tmp_path, lambda h: h["config"].update(hidden_size=2**16))

    def load_file(path: Path) -> None:
        raise AssertionError("tensors were read")

    monkeypatch.setattr("agents.files.load_file", load_file)
    made = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: made.append(self.weight))
    with pytest.raises(ValueError, match="does not fit"):
        type(network).load(tmp_path)
    assert len(made) > 1 and all(weight.is_meta for weight in made)


def rewrite_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file({k: change(v) for k, v in load_file(path).items()}, path)
    change_header(folder, lambda h: h.update(weights_sha256=sha256_of(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v * torch.nan, "train the model again; .* not finite: .*classifier.bias"),
        (lambda v: v.fill_(-torch.inf), "train the model again; .* not finite: .*classifier.bias"),
        (
            lambda v: v.to(torch.int8),
            r"copy the model .* another type .*classifier.bias \(torch.int8\)",
        ),
        (
            lambda v: v.double(),
            r"copy the model .* another type .*classifier.bias \(torch.float64\)",
        ),
    ],
)
def test_weights_that_no_network_has_are_named(
    tmp_path: Path, network: SavedNetwork, change: Any, message: str
) -> None:
    network.save(tmp_path)
    rewrite_weights(tmp_path, change)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {message}"):
        type(network).load(tmp_path)


def test_a_weights_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    make_agent().save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff" * 100)
    change_header(tmp_path, lambda h: h.update(weights_sha256=sha256_of(path)))
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged .*copy the model again"):
        DTRAM.load(tmp_path)


def test_loading_draws_as_many_random_numbers_as_building(tmp_path: Path) -> None:
    """So what a run draws after it loaded a trunk stays the same."""
    make_agent().save(tmp_path)
    torch.manual_seed(0)
    DTRAM(CONFIG)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    DTRAM.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("text", [b'{"format": 1, "conf', b"\xff\xfe{", b"[" * 100_000, b""])
def test_a_header_that_is_not_json_is_named(tmp_path: Path, text: bytes) -> None:
    make_agent().save(tmp_path)
    (tmp_path / "model.json").write_bytes(text)
    for load in (DTRAM.load, OneLook.load, load_agent, load_one_look):
        with pytest.raises(ValueError, match=r"model\.json: not valid JSON"):
            load(tmp_path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for name in ("two", "one"):
        make_agent().save(tmp_path / "several" / name)
    runs = {"empty": None, "baseline": '{"algo": "ppo"}', "begun": "{}", "damaged": "{"}
    for name, options in runs.items():
        (tmp_path / name).mkdir()
        if options is not None:
            (tmp_path / name / "options.json").write_text(options)
    (tmp_path / "baseline" / "results.json").write_text("{}")
    for folder, message in (
        ("empty", r"no saved model, model\.json is missing$"),
        ("damaged", r"no saved model, model\.json is missing$"),
        ("baseline", r"a run of train/sb3_baselines\.py: .* train/watch\.py shows"),
        ("begun", r"a run that has not been validated yet: continue it with --resume$"),
        ("several", r"these folders in it have models: one, two$"),
        ("several/one/model.json", "this is a file; expected the folder of a model"),
        ("nowhere", "there is no such folder"),
    ):
        for load in (DTRAM.load, OneLook.load, load_agent, load_one_look):
            with pytest.raises(FileNotFoundError, match=message):
                load(tmp_path / folder)


def test_only_a_learned_stop_is_saved(tmp_path: Path) -> None:
    agent = make_agent()
    agent.stopping = FixedStop(2)
    with pytest.raises(ValueError, match=r"FixedStop\(glimpses=2\)"):
        agent.save(tmp_path)


def test_further_values_are_kept(tmp_path: Path) -> None:
    agent = make_agent()
    assert agent.about == {}
    agent.save(tmp_path / "a", env_id="X", sensor={"glimpse_size": 8})
    loaded = DTRAM.load(tmp_path / "a")
    assert loaded.about == {"env_id": "X", "sensor": {"glimpse_size": 8}}
    loaded.save(tmp_path / "b", note=1)
    assert DTRAM.load(tmp_path / "b").about == loaded.about | {"note": 1}
    files = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert files == ["model.json", "model.safetensors"]


# -- several stops on one trunk --------------------------------------------------------------------


@pytest.fixture
def with_stops(tmp_path: Path) -> Path:
    """The folder of a model with stops "1.5" and "2.5" beside its own, thresholds 0.3, 0.7, 0.5."""
    agent = make_agent()
    agent.save(tmp_path, env_id="X")
    for name, threshold in (("1.5", 0.3), ("2.5", 0.7)):
        relearn_stop(agent, threshold)
        save_stop(tmp_path, name, agent, discount=0.98)
    return tmp_path


def relearn_stop(agent: DTRAM, threshold: float) -> None:
    agent.stopping = LearnedStop(threshold)
    for parameter in (*agent.stopper.parameters(), *agent.baseline.parameters()):
        torch.nn.init.constant_(parameter, threshold)


def test_a_stop_is_loaded_by_name(with_stops: Path) -> None:
    first = make_agent()
    for name, threshold in ((None, 0.5), ("1.5", 0.3), ("2.5", 0.7)):
        loaded = DTRAM.load(with_stops, stop=name)
        assert loaded.stopping == LearnedStop(threshold) and loaded.about == {"env_id": "X"}
        if name is not None:
            relearn_stop(first, threshold)
        assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in first.state_dict().items())
    header = json.loads((with_stops / "model.json").read_text())
    assert list(header["stops"]) == ["1.5", "2.5"]
    assert (header["stops"]["2.5"]["threshold"], header["stops"]["2.5"]["discount"]) == (0.7, 0.98)
    kept = load_file(with_stops / "stop-2.5.safetensors")
    assert {key.split(".")[0] for key in kept} == {"stopper", "baseline", "scalar_baseline"}


def test_a_stop_may_be_the_default_and_be_replaced(with_stops: Path) -> None:
    agent = DTRAM.load(with_stops)
    relearn_stop(agent, 0.9)
    save_stop(with_stops, "2.5", agent, default=True)
    assert DTRAM.load(with_stops).stopping == LearnedStop(0.9)
    assert load_agent(with_stops, stop="1.5").stopping == LearnedStop(0.3)
    assert load_agent(with_stops).stopping == LearnedStop(0.9)
    DTRAM.load(with_stops, stop="1.5").save(with_stops / "copy")  # the one stop that it has
    copy = DTRAM.load(with_stops / "copy")
    assert copy.stopping == LearnedStop(0.3) and copy.about == {"env_id": "X"}


def test_bad_stops_are_named(with_stops: Path) -> None:
    agent = DTRAM.load(with_stops)
    with pytest.raises(ValueError, match=r"stop='3': .* expected one of '1.5', '2.5'$"):
        DTRAM.load(with_stops, stop="3")
    agent.save(with_stops / "copy")
    with pytest.raises(ValueError, match=r"stop='3': .* expected None, as it has no others"):
        DTRAM.load(with_stops / "copy", stop="3")
    with pytest.raises(ValueError, match=r"name='../x': expected letters"):
        save_stop(with_stops, "../x", agent)
    file = with_stops / "stop-1.5.safetensors"
    file.write_bytes((with_stops / "stop-2.5.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"stop-1.5.safetensors: not the weights"):
        DTRAM.load(with_stops, stop="1.5")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"stop-1.5.safetensors: missing"):
        DTRAM.load(with_stops, stop="1.5")
    with torch.no_grad():
        agent.classifier.bias += 1
    with pytest.raises(ValueError, match=r"another trunk; classifier.bias differ"):
        save_stop(with_stops, "4", agent)
    with pytest.raises(ValueError, match=r"does not fit"):
        save_stop(with_stops, "4", make_agent(hidden_size=8))

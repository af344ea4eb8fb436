"""Loading weights into residual networks: every source, and the message of each error."""

import argparse
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import Weights, WeightsEnum

from agents.backbone_weights import load_backbone
from agents.one_look import OneLook, OneLookConfig
from agents.resnet import ResNetBackbone, ResNetOptions
from train.common.backbone import pixel_scale
from train.common.options import ResNetEncoder


def network(seed: int = 0, **options: Any) -> ResNetBackbone:
    torch.manual_seed(seed)
    return ResNetBackbone(ResNetOptions(**{"name": "resnet10", "width": 4, **options}))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def wanted() -> dict[str, Tensor]:
    """The weights that the files of these tests hold."""
    state = network(1).state_dict()
    state["bn1.running_mean"] += 3
    return state


def test_none_does_nothing() -> None:
    trunk = network()
    assert load_backbone(trunk, None) == load_backbone(trunk, "none") == "none"
    assert same(trunk.state_dict(), network().state_dict())


def test_safetensors_round_trip(tmp_path: Path, wanted: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(wanted, path)
    trunk = network()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_backbone(trunk, str(path)) == f"weights.safetensors, sha256 {digest}"
    assert same(trunk.state_dict(), wanted)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files(
    tmp_path: Path, wanted: dict[str, Tensor], zipped: bool, key: str | None, prefix: str
) -> None:
    state: dict[str, Any] = {prefix + name: value for name, value in wanted.items()}
    state |= {f"{prefix}fc.weight": torch.zeros(7, 32), f"{prefix}fc.bias": torch.zeros(7)}
    content = {"epoch": 3, "arch": "resnet10", key: state} if key else state
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    trunk = network()
    assert load_backbone(trunk, tmp_path / "weights.pth").startswith("weights.pth, sha256 ")
    assert same(trunk.state_dict(), wanted)


def test_the_encoder_of_a_saved_one_look_network_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    options = ResNetOptions("resnet10", width=4)
    config = OneLookConfig(2, (32, 32, 3), "resnet10", options, hidden_size=options.out_features)
    saved = OneLook(config, ("a", "b"))
    saved.save(tmp_path / "look")
    trunk = network()
    assert load_backbone(trunk, tmp_path / "look").startswith("look, sha256 ")
    assert same(trunk.state_dict(), saved.encoder.trunk.state_dict())
    scale = pixel_scale(ResNetEncoder("resnet10", str(tmp_path / "look")), None)  # type: ignore[arg-type]
    assert scale == {"pixel_mean": 0.0, "pixel_std": 255.0}


def test_old_files_that_count_no_batches_are_taken(
    tmp_path: Path, wanted: dict[str, Tensor]
) -> None:
    uncounted = {k: v for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
    save_file(uncounted, tmp_path / "w.safetensors")
    trunk = network()
    load_backbone(trunk, tmp_path / "w.safetensors")
    assert same(trunk.state_dict(), wanted)


# -- what does not fit --------------------------------------------------------------------------


def test_a_mismatch_lists_every_key_and_loads_nothing(
    tmp_path: Path, wanted: dict[str, Tensor]
) -> None:
    del wanted["layer2.0.conv1.weight"], wanted["bn1.bias"]
    wanted["head.weight"] = torch.zeros(2)
    wanted["conv1.weight"] = torch.zeros(4, 1, 7, 7)
    save_file(wanted, tmp_path / "w.safetensors")
    trunk = network()
    with pytest.raises(ValueError) as error:
        load_backbone(trunk, tmp_path / "w.safetensors")
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'w.safetensors'}: does not fit ResNetOptions(name='resnet")
    assert "; missing: bn1.bias, layer2.0.conv1.weight;" in text
    assert "; unexpected: head.weight;" in text
    assert "; of another shape: conv1.weight (4, 1, 7, 7) instead of (4, 3, 7, 7). Give" in text
    assert same(trunk.state_dict(), network().state_dict())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((4, 3, 7, 7), torch.nan), "; not finite: conv1.weight. Give"),
        (torch.zeros(4, 3, 7, 7, dtype=torch.int8), "; integers: conv1.weight. Give"),
    ],
)
def test_weights_that_no_network_has(
    tmp_path: Path, wanted: dict[str, Tensor], value: Tensor, message: str
) -> None:
    save_file(wanted | {"conv1.weight": value}, tmp_path / "w.safetensors")
    trunk = network()
    with pytest.raises(ValueError, match=message):
        load_backbone(trunk, tmp_path / "w.safetensors")
    assert same(trunk.state_dict(), network().state_dict())


def test_long_lists_are_cut(tmp_path: Path) -> None:
    save_file({f"k{i:02}": torch.zeros(1) for i in range(25)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: k00, .*, k19 and 5 more\. Give"):
        load_backbone(network(), tmp_path / "w.safetensors")


@pytest.mark.parametrize(("order", "other"), [("pre", "post"), ("post", "pre")])
def test_the_orders_have_different_weights(tmp_path: Path, order: str, other: str) -> None:
    save_file(network(order=order).state_dict(), tmp_path / "w.safetensors")
    load_backbone(network(order=order), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"bn_last\.weight"):
        load_backbone(network(order=other), tmp_path / "w.safetensors")


# -- damaged and foreign files ------------------------------------------------------------------


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'default': no such file; expected DEFAULT, none"):
        load_backbone(network(), "default")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_backbone(network(), tmp_path)


class Runs:
    """What an unpickler would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was-run",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"conv1.weight": Runs()}, r"posix\.mkdir|nt\.mkdir"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        ({"state_dict": {}, "args": argparse.Namespace(lr=1)}, r"argparse\.Namespace"),
    ],
)
def test_pickled_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, named: str, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"w.pt: holds a pickled ({named}), whose loading"):
        load_backbone(network(), "w.pt")
    assert not Path("was-run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], r"expected a state dict, .* got list"),
        (torch.zeros(3), r"expected a state dict, .* got Tensor"),
        ({}, "got an empty one"),
        ({"epoch": 3}, "but 'epoch' is of type int"),
        ({3: torch.zeros(1)}, "but 3 is of type Tensor"),
        ({"state_dict": {"a": torch.zeros(1), "lr": 0.1}}, "but 'lr' is of type float"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        load_backbone(network(), tmp_path / "w.pt")


def test_damaged_and_foreign_files_are_named(tmp_path: Path, wanted: dict[str, Tensor]) -> None:
    path, contents = tmp_path / "w.pt", [b"", b"{}", b"<html>not found</html>"]
    for zipped in (True, False):
        torch.save(wanted, path, _use_new_zipfile_serialization=zipped)
        contents.append(path.read_bytes()[:-1000])
    save_file(wanted, path)
    for content in (*contents, pickle.dumps({"a": 1}), path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w.pt: damaged, or neither a safetensors file nor"):
            load_backbone(network(), path)


# -- torchvision's ------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torchvision's ResNet-18 weights, served from this folder; torch keeps files in another."""
    folder = tmp_path / "served"
    folder.mkdir()
    torch.manual_seed(2)
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, folder / "aside.pth")
    digest = hashlib.sha256((folder / "aside.pth").read_bytes()).hexdigest()
    path = (folder / "aside.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    class Local(WeightsEnum):
        LOCAL = Weights(path.as_uri(), transforms=nn.Identity, meta={})
        DEFAULT = LOCAL

    monkeypatch.setattr(torchvision.models, "get_model_weights", {"resnet18": Local}.get)
    return path


def test_default_fetches_torchvisions_once(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = torch.load(served, weights_only=True)
    expected = {key: value for key, value in read.items() if not key.startswith("fc.")}
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    for _ in range(2):
        trunk = ResNetBackbone(ResNetOptions("resnet18"))
        line = load_backbone(trunk, "DEFAULT")
        assert line == f"torchvision Local.LOCAL, sha256 {digest}"
        assert same(trunk.state_dict(), expected)
        served.unlink(missing_ok=True)  # the second time it comes from where torch keeps it
    assert capsys.readouterr().out == ""
    assert (tmp_path / "home/hub/checkpoints" / served.name).is_file()


def test_default_without_a_connection_names_the_alternatives(served: Path, tmp_path: Path) -> None:
    served.unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_backbone(ResNetBackbone(ResNetOptions("resnet18")), "DEFAULT")
    text = str(error.value)
    assert f"{served.as_uri()} could not be downloaded" in text
    assert f"put it here as {tmp_path / 'home/hub/checkpoints' / served.name}" in text
    assert "or give its path instead of DEFAULT" in text


def test_default_checks_what_it_fetched_and_what_was_there(served: Path, tmp_path: Path) -> None:
    served.write_bytes(served.read_bytes()[:-1] + b"x")
    trunk = ResNetBackbone(ResNetOptions("resnet18"))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded .*invalid hash value"):
        load_backbone(trunk, "DEFAULT")
    kept = tmp_path / "home/hub/checkpoints" / served.name
    kept.write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"pth: damaged, its SHA-256 is .*; delete the file"):
        load_backbone(trunk, "DEFAULT")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet10"}, "torchvision has none for resnet10"),
        ({"name": "resnet18", "width": 8}, "which has width=8 instead of 64;"),
        ({"name": "resnet18", "channels": 1}, "which has channels=1 instead of 3;"),
        (
            {"order": "pre", "stride_in": "1x1", "name": "resnet50"},
            "order='pre' instead of 'post', stride_in='1x1' instead of '3x3';",
        ),
    ],
)
def test_default_is_for_torchvisions_network_alone(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone(ResNetBackbone(ResNetOptions(**options)), "DEFAULT")


def test_default_fits_a_basic_network_whatever_stride_in_says(served: Path) -> None:
    trunk = ResNetBackbone(ResNetOptions("resnet18", stride_in="1x1"))
    assert load_backbone(trunk, "DEFAULT").startswith("torchvision ")

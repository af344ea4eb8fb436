"""Predictions of the user's own images equal those of the environment, image by image."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

import dtram_env
from agents import DTRAM, DTRAMConfig, FixedStop, LearnedStop
from agents.cost import flops_of_first_glimpse, flops_per_glimpse
from agents.prediction import Preparation, predict, predict_each, preparation_of
from agents.resnet import ResNetOptions
from agents.unroll import GlimpseSensor, Scores, score
from dtram_env.datasets import DatasetCorruptError
from dtram_env.datasets.storage.tensors import make_store

ENV_ID = "DTRAM-ImageFolder-v0"
SIZES = [(60, 60), (90, 64), (64, 133), (61, 62), (200, 40), (48, 48), (30, 37)]
RESNET: dict[str, Any] = {
    "encoder": "resnet10",
    "resnet": ResNetOptions("resnet10", width=8, stem_stride=1),
    "hidden_size": 32,
}


def draw(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """A few large patches of colour, so that glimpses differ."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (3, 4, channels), dtype=np.uint8)
    return np.kron(patches, np.ones((height // 3 + 1, width // 4 + 1, 1), np.uint8))[
        :height, :width
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes and modes, without loss, in the layout of the user's own folder."""
    root = tmp_path_factory.mktemp("images") / "own"
    for part in ("train", "test"):
        for label, name in enumerate(("heron", "owl", "wren")):
            (root / part / name).mkdir(parents=True)
            for i, (height, width) in enumerate(SIZES):
                channels = 4 if i == 3 else 3
                image = Image.fromarray(draw(100 * label + i, height, width, channels))
                image = image.convert("L") if i == 4 else image
                image.save(root / part / name / f"{i}.png")
    return root


def make_agent(env: Any, sensor: GlimpseSensor, **config: Any) -> tuple[DTRAM, Scores]:
    """A random agent whose answers and stops differ between the images of `env`, and its scores."""
    torch.manual_seed(1)
    agent = DTRAM.for_spaces(
        env.single_observation_space,
        env.single_action_space,
        env.max_glimpses,
        class_names=env.class_names,
        **{"pixel_mean": 128.0, "pixel_std": 64.0, "hidden_size": 32, **config},
    ).eval()
    torch.nn.init.normal_(agent.stopper[-1].weight)
    torch.nn.init.normal_(agent.locator.weight)
    store = make_store(env.data, 0, torch.device("cpu"))
    labels = torch.from_numpy(env.data.labels.copy())
    with torch.no_grad():
        agent.classifier.bias -= score(agent, sensor, store, labels).logits[0].mean(dim=0)
    scores = score(agent, sensor, store, labels)
    agent.stopping = LearnedStop(float(torch.sigmoid(halfway(scores.stop_logit[0]))))
    return agent, scores


def halfway(values: torch.Tensor) -> torch.Tensor:
    """The middle between the two values in the middle."""
    return values.sort().values[len(values) // 2 - 1 :][:2].mean()


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"image_size": 48, "glimpse_size": 16, "thumbnail_size": 24}, RESNET),
        ({"image_size": 48, "glimpse_size": 16}, {"encoder": "cnn"}),
        ({"image_size": None, "glimpse_size": 12, "num_scales": 2}, {"encoder": "conv"}),
        ({"image_size": 32, "glimpse_size": 12, "first_glimpse": "center"}, {}),
        ({"image_size": 32, "glimpse_size": 12, "first_glimpse": "choose"}, {}),
    ],
    ids=["resnet", "thumbnail", "native, scales", "center", "choose"],
)
def test_predictions_are_those_of_the_environment(
    root: Path, tmp_path: Path, options: dict[str, Any], config: dict[str, Any]
) -> None:
    options = {"root": str(root), "max_glimpses": 4, **options}
    env: Any = gym.make_vec(ENV_ID, split="test", data_dir=str(tmp_path), **options).unwrapped
    first = options.get("first_glimpse", "thumbnail")
    seen = GlimpseSensor(
        options["glimpse_size"],
        options.get("num_scales", 1),
        first,
        options.get("thumbnail_size", 0),
    )
    saved = {**seen._asdict(), "image_size": options["image_size"]}
    agent, scores = make_agent(env, seen, **config)
    agent.save(tmp_path, env_id=ENV_ID, env_options=options, sensor=saved)
    agent = DTRAM.load(tmp_path)
    expected = dtram_env.evaluate(agent, ENV_ID, "test", data_dir=str(tmp_path), **options)
    assert len(np.unique(expected.num_glimpses)) > 1
    assert len(np.unique(expected.prediction)) > 1

    paths = sorted((root / "test").rglob("*.png"))
    answers = predict(agent, paths)
    assert [a.class_index for a in answers] == expected.prediction.tolist()
    assert [a.num_glimpses for a in answers] == expected.num_glimpses.tolist()
    for n, answer in enumerate(answers):
        count = answer.num_glimpses
        np.testing.assert_allclose(answer.locations, scores.locations[:count, n], atol=1e-4)
        probabilities = scores.logits[count - 1, n].softmax(dim=-1)
        np.testing.assert_allclose(answer.probabilities, probabilities, atol=1e-4)
        assert answer.probability == answer.probabilities.max()
        assert answer.class_name == ("heron", "owl", "wren")[answer.class_index]
    assert preparation_of(agent) == Preparation(seen, 3, options["image_size"])


def grey_agent(**changes: Any) -> DTRAM:
    """Looks twice at 28x28 grey images, the second time at (tanh 1, tanh -1)."""
    torch.manual_seed(0)
    agent = DTRAM(DTRAMConfig(5, (8, 8, 1), 2, hidden_size=16), stopping=FixedStop(2), **changes)
    torch.nn.init.zeros_(agent.locator.weight)
    with torch.no_grad():
        agent.locator.bias.copy_(torch.tensor([1.0, -1.0]))
    agent.about = {"sensor": {**GlimpseSensor(8)._asdict(), "image_size": 28}}
    return agent


def test_boxes_by_hand() -> None:
    """Of 56x112 pixels shown as 28x56, so that a pixel shown is two of the image's."""
    (answer,) = predict(grey_agent(), [draw(0, 56, 112)])
    x, y = np.tanh(1.0), np.tanh(-1.0)
    left, top = int(np.floor((x + 1) * 28 - 3.5)), int(np.floor((y + 1) * 14 - 3.5))
    assert answer.boxes == ((48, 20, 16, 16), (2 * left, 2 * top, 16, 16))
    np.testing.assert_allclose(answer.locations, [[0, 0], [x, y]], rtol=1e-6)


def test_the_box_of_a_thumbnail_is_the_whole_image() -> None:
    agent = grey_agent()
    agent.about["sensor"]["first_glimpse"] = "thumbnail"
    (answer,) = predict(agent, [draw(0, 56, 112)])
    assert answer.boxes[0] == (0, 0, 112, 56)


def test_flops_are_those_of_the_glimpses_taken() -> None:
    agent = grey_agent()
    one, other = flops_of_first_glimpse(agent), flops_per_glimpse(agent)
    assert predict(agent, [draw(0, 28, 28)])[0].flops == one + other
    agent.stopping = FixedStop(1)
    assert predict(agent, [draw(0, 28, 28)])[0].flops == one


def test_files_arrays_and_pillow_images_give_equal_predictions(tmp_path: Path) -> None:
    pixels = draw(0, 40, 50)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png")
    answers = predict(grey_agent(), [tmp_path / "a.png", str(tmp_path / "a.png"), pixels, opened])
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.probabilities, answers[0].probabilities)
        assert answer.boxes == answers[0].boxes


def test_a_prediction_does_not_depend_on_the_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = grey_agent()
    agent.about["sensor"]["first_glimpse"] = "random"
    images = [draw(i, *size) for i, size in enumerate(SIZES)]
    alone = [predict(agent, [image])[0] for image in images]
    monkeypatch.setattr("agents.prediction._MAX_GLIMPSE_VALUES", 3 * 8 * 8)  # batches of three
    for one, among in zip(alone, predict(agent, images), strict=True):
        np.testing.assert_allclose(one.probabilities, among.probabilities, atol=1e-6)
        assert one.boxes == among.boxes


@pytest.mark.parametrize(
    ("pixels", "luminance"),
    [(np.full((28, 28), 93), 93), (np.full((28, 28, 3), 93), 93), ([[[255, 0, 0]]], 76)],
)
def test_a_grey_model_sees_the_luminance(pixels: Any, luminance: int) -> None:
    shown = preparation_of(grey_agent()).read("image", np.array(pixels, dtype=np.uint8))
    assert shown.shape == (28, 28, 1) and (shown == luminance).all()


def test_a_colour_model_sees_grey_and_transparent_images() -> None:
    shown = Preparation(GlimpseSensor(8), 3, None)
    grey = draw(0, 20, 30, 1)
    np.testing.assert_array_equal(shown.read("image", grey), grey.repeat(3, axis=2))
    clear = np.dstack([draw(0, 20, 30), np.zeros((20, 30), np.uint8)])
    assert (shown.read("image", clear) == 255).all()


def test_images_get_the_models_size() -> None:
    shown = preparation_of(grey_agent())
    image = draw(0, 28, 28, 1)
    np.testing.assert_array_equal(shown.read("image", image), image)
    larger = image.repeat(4, axis=0).repeat(4, axis=1)
    assert shown.read("image", larger).shape == (28, 28, 1)
    assert shown.read("image", draw(0, 300, 200, 1)).shape == (42, 28, 1)


TURNABLE = ("jpg", "png", "webp", "tif", *(["avif"] if features.check("avif") else []))


@pytest.mark.parametrize("suffix", TURNABLE)
def test_a_turned_image_is_upright_however_it_is_given(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(draw(0, 40, 80)).save(path, exif=exif)
    with Image.open(path) as file, Image.open(path) as loaded:
        upright = np.asarray(ImageOps.exif_transpose(file))
        loaded.load()
        with Image.open(path) as unloaded:
            first, *others = predict(grey_agent(), [upright, path, unloaded, loaded])
            again = predict(grey_agent(), [unloaded])
    assert upright.shape == (80, 40, 3)
    for answer in [*others, *again]:
        assert answer.boxes == first.boxes
        np.testing.assert_allclose(answer.probabilities, first.probabilities, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_a_turned_plain_tiff_is_upright_before_it_is_loaded(tmp_path: Path, mode: str) -> None:
    """Pillow maps it into memory with its sides swapped, so that all rows are cut off wrongly."""
    exif, path = Image.Exif(), tmp_path / "turned.tif"
    exif[0x0112] = 6
    pixels = draw(0, 40, 80)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 if ";" in mode else pixels)
    (image if ";" in mode else image.convert(mode)).save(path, exif=exif)
    with Image.open(path) as file:
        first, second = predict(grey_agent(), [path, file])
        assert file.filename == str(path)  # nothing of it was changed
    assert first.boxes == second.boxes
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_a_pillow_image_is_not_changed(tmp_path: Path) -> None:
    Image.fromarray(draw(0, 400, 600)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as file:
        predict(grey_agent(), [file])
        assert file.size == (600, 400)


def test_the_agents_mode_does_not_change() -> None:
    agent = grey_agent().train()
    predict(agent, [draw(0, 28, 28)])
    assert agent.training


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "at least one, got none"),
        ("a.png", ValueError, "in a list, got one str"),
        (draw(0, 28, 28), ValueError, "in a list, got one ndarray"),
        ([None], ValueError, r"images\[0\]: .* got NoneType"),
        ([draw(0, 8, 8), np.zeros((8, 8))], ValueError, r"images\[1\]: .* uint8, .* got float64"),
        ([np.zeros((3, 8, 8), np.uint8)], ValueError, r"\(H, W, C\), .* got \(3, 8, 8\)"),
        ([np.zeros((0, 8), np.uint8)], ValueError, r"got \(0, 8\)"),
        (["{tmp}/missing.png"], FileNotFoundError, "missing.png: no such file"),
        (["{tmp}"], DatasetCorruptError, "damaged, or no image"),
        (["{tmp}/fifo.png"], DatasetCorruptError, r"fifo\.png: .* \(not a regular file\)"),
        ([draw(0, 8, 8), draw(0, 2, 300)], ValueError, r"images\[1\]: 300 x 2 pixels, expected"),
        (["{tmp}/long.png"], ValueError, r"long\.png: 300 x 2 pixels, expected a longer side"),
        ([Image.new("F", (8, 8), -1)], ValueError, r"images\[0\]: grey values from -1 to -1"),
        (["{tmp}/text.png"], DatasetCorruptError, "text.png: damaged, or no image"),
        (["{tmp}/half.png"], DatasetCorruptError, "half.png: damaged"),
    ],
)
def test_bad_images_are_named(tmp_path: Path, images: Any, error: Any, message: str) -> None:
    damage(tmp_path)
    if isinstance(images, list):
        images = [i.format(tmp=tmp_path) if isinstance(i, str) else i for i in images]
    with pytest.raises(error, match=message):
        predict(grey_agent(), images)


def damage(folder: Path) -> None:
    os.mkfifo(folder / "fifo.png")
    Image.fromarray(draw(0, 2, 300)).save(folder / "long.png")
    (folder / "text.png").write_text("not an image")
    Image.fromarray(draw(0, 80, 80)).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "half.png").write_bytes(content[: len(content) * 2 // 3])


def test_images_that_cannot_be_read_are_reported_one_by_one(tmp_path: Path) -> None:
    damage(tmp_path)
    names = ["text.png", "whole.png", "half.png", "missing.png", "long.png", "fifo.png"]
    failed: dict[int, Exception] = {}
    paths = [tmp_path / name for name in names]
    answers = dict(predict_each(grey_agent(), paths, failed.__setitem__))
    assert sorted(answers) == [1] and sorted(failed) == [0, 2, 3, 4, 5]
    assert all(str(tmp_path / names[i]) in str(error) for i, error in failed.items())


def test_a_bad_limit_of_pixels_is_no_images_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(tmp_path)
    monkeypatch.setenv("DTRAM_MAX_PIXELS", "many")
    failed: dict[int, Exception] = {}
    with pytest.raises(ValueError, match=r"DTRAM_MAX_PIXELS=many: expected a number of pixels"):
        dict(predict_each(grey_agent(), [tmp_path / "whole.png"], failed.__setitem__))
    assert not failed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "about.'sensor'.=None: expected an object, as in a trained model"),
        ({"glimpse": 8}, "sensor'.*first_glimpse: missing"),
        ({**GlimpseSensor(9)._asdict(), "image_size": 28}, "does not fit this model"),
        ({**GlimpseSensor(8, 2)._asdict(), "image_size": 28}, "does not fit this model"),
        (
            {**GlimpseSensor(8)._asdict(), "image_size": 10**9},
            "image_size=1000000000: expected from",
        ),
        ({**GlimpseSensor(8)._asdict(), "image_size": 0}, "image_size=0: expected from 1 to 8,192"),
        ({**GlimpseSensor(8)._asdict(), "image_size": "28"}, "image_size='28': expected an integ"),
        ({**GlimpseSensor(8, 0)._asdict(), "image_size": 28}, "num_scales=0: expected from 1"),
        ({**GlimpseSensor(8, 12)._asdict(), "image_size": 28}, "num_scales=12: expected a coars"),
        ({**GlimpseSensor(8, 1, "x")._asdict(), "image_size": 28}, "first_glimpse='x': expected"),
        ({**GlimpseSensor(None)._asdict(), "image_size": 28}, "glimpse_size=None: expected an"),
    ],
)
def test_a_model_that_does_not_say_how_images_are_shown(given: Any, message: str) -> None:
    agent = grey_agent()
    agent.about = {"sensor": given}
    with pytest.raises(ValueError, match=message):
        predict(agent, [draw(0, 28, 28)])

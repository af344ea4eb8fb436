"""The benchmarks of images run, and their figures add up; on tiny settings, so not to be quoted."""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import dynamic_saving as saving
from benchmarks import image_cache as cache
from benchmarks import image_side as side
from benchmarks import scene_side
from benchmarks.timing import photograph, run_benchmark


def run_main(program: Any, monkeypatch: pytest.MonkeyPatch, json_file: Path, words: str) -> Any:
    """The figures that a command line writes."""
    command = [program.__file__, *words.split(), "--json", str(json_file)]
    monkeypatch.setattr(sys, "argv", command)
    run_benchmark(program.Options, program.run, None)
    return json.loads(json_file.read_text(encoding="utf-8"))


# -- dynamic_saving -------------------------------------------------------------------------------

TINY = (
    "--encoder resnet10 --width 8 --image-size 64 --glimpse-size 32 "
    "--images 16 --batch-size 8 --repeats 2"
)


@pytest.mark.parametrize("first_look", [32, 48])
def test_saving_is_time_over_operations(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first_look: int,
) -> None:
    words = f"{TINY} --first-look {first_look} --shares 0.5 0.25 0.25"
    result = run_main(saving, monkeypatch, tmp_path / "out.json", words)
    figures = result["figures"]
    assert figures["mean_glimpses"] == {"dynamic": 1.75, "fixed": 3.0}
    first, other = figures["flops_of_first_glimpse"], figures["flops_per_glimpse"]
    assert first == other if first_look == 32 else first > 1.8 * other
    assert figures["mean_flops"]["dynamic"] == pytest.approx(first + 0.75 * other, abs=1)
    assert figures["mean_flops"]["fixed"] == first + 2 * other
    assert figures["flop_ratio"] == pytest.approx(
        (first + 0.75 * other) / (first + 2 * other), abs=1e-4
    )
    assert figures["time_ratio"] > 0 and len(figures["quotients"]) == 2
    assert figures["quotient"] == pytest.approx(np.median(figures["quotients"]), abs=2e-3)
    assert result["options"]["first_look"] == first_look and "hardware" in result
    assert json.loads(capsys.readouterr().out)["figures"] == figures


# -- image_side -----------------------------------------------------------------------------------


@pytest.mark.slow  # starts four processes
def test_an_answer_costs_the_same_at_every_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "--sides 64 128 --encoders resnet10 --look 32 --looks 3 --repeats 1"
    figures = run_main(side, monkeypatch, tmp_path / "out.json", words)["figures"]["resnet10"]
    small, large = figures["64"], figures["128"]
    assert small["dtram"]["mflop"] == large["dtram"]["mflop"]
    assert large["one_look"]["mflop"] == pytest.approx(4 * small["one_look"]["mflop"], rel=0.01)
    for row in (small, large):
        look, decoding, end = row["dtram"]["ms"] / 3, row["decoding"], row["from_file"]
        draft, whole = decoding["draft_ms"], decoding["whole_ms"]
        assert end["stops_at_first_look_ms"] == pytest.approx(draft + look, abs=0.02)
        assert end["all_looks_ms"] == pytest.approx(draft + whole + 3 * look, abs=0.02)
        assert end["one_look_ms"] == pytest.approx(whole + row["one_look"]["ms"], abs=0.02)


def test_peak_memory_is_that_of_the_largest_array_since_the_start() -> None:
    device = torch.device("cpu")
    np.ones(60_000_000, dtype=np.uint8)  # before the start
    before = side.start_of_peak(device)
    np.ones(30_000_000, dtype=np.uint8)
    np.ones(20_000_000, dtype=np.uint8)
    assert side.peak_memory(device) - before == pytest.approx(30, abs=5)


# -- scene_side -----------------------------------------------------------------------------------


def test_looks_cost_the_same_in_every_scene(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = "--sides 256 320 --images 2 --batch-sizes 1 2 --repeats 1"
    figures = run_main(scene_side, monkeypatch, tmp_path / "out.json", words)["figures"]
    small, large = figures["256"], figures["320"]
    assert small["dtram_mflop"] == large["dtram_mflop"]
    growth = (320 / 256) ** 2
    assert large["one_look_mflop"] == pytest.approx(growth * small["one_look_mflop"], rel=0.01)
    share = small["dtram_mflop"] / small["one_look_mflop"]
    assert small["share_of_flops"] == pytest.approx(share, abs=1e-3)
    for row in (small, large):
        for times in (row["batches_of_1"], row["batches_of_2"]):
            share = times["dtram_ms"] / times["one_look_ms"]
            assert times["share_of_time"] == pytest.approx(share, rel=0.01)


# -- the rule of dynamic_saving -------------------------------------------------------------------


def test_the_rule_stops_the_given_shares() -> None:
    rule = saving.ShareStop((0.35, 0.4, 0.25))
    left, stopped = 64, []
    for t in (1, 2, 3):
        time = torch.full((left,), t)
        stops = rule.stops(time, torch.zeros(left, 5), torch.zeros(left))
        stopped.append(int(stops.sum()))
        left -= stopped[-1]
    assert stopped == [22, 26, 16] and left == 0  # a mean of 1.906


def test_those_that_stop_are_spread_over_the_batch() -> None:
    stops = saving.ShareStop((0.5, 0.5)).stops(torch.ones(8), torch.zeros(8, 5), torch.zeros(8))
    assert stops.tolist() == [True, False] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "mlp"}, "--encoder mlp: expected one of resnet10"),
        ({"shares": (0.5, 0.4)}, "--shares .*expected shares"),
        ({"shares": ()}, "--shares .*expected shares"),
        ({"shares": (1.5, -0.5)}, "--shares .*expected shares"),
    ],
)
def test_bad_options_of_saving_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saving.Options(**options)


# -- image_cache ----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_decoding_and_memory_are_measured(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    words = (
        "--files 4 --image-size 64 --glimpse-size 32 --repeats 1 --images 50 --glimpses 100 "
        f"--num-envs 8 --folder {place}"
    )
    result = run_main(cache, monkeypatch, tmp_path / "out.json", words)
    memory, decoding = result["figures"]["memory"], result["figures"]["decoding"]
    # A hundred crops and what surrounds them; 50 images are 0.8 MB.
    assert 0 <= memory["environment_private_mb"] < 100
    ratio = decoding["images_per_second"] / decoding["pillow_alone_per_second"]
    assert decoding["of_pillow_alone"] == pytest.approx(ratio, rel=0.02)
    assert result["options"]["files"] == 4 and "hardware" in result
    assert json.loads(capsys.readouterr().out)["figures"] == result["figures"]
    assert list(place.iterdir()) == []  # nothing is left


def test_private_memory_grows_by_what_is_written() -> None:
    gc.collect()  # what earlier tests left may be freed in between
    before = cache.private_memory()
    held = np.ones(500_000_000, dtype=np.uint8)
    assert cache.private_memory() - before == pytest.approx(len(held) / 1e6, abs=50)


def test_every_crop_is_counted_and_thumbnails_are_not(tmp_path: Path) -> None:
    """Of 3 glimpses the first is a thumbnail: two crops an episode, then its end, then the next."""
    options = cache.Options(images=6, image_size=40, glimpse_size=16, glimpses=20, num_envs=4)
    cache.make_empty_cache(tmp_path / "cache", options)
    # Four slots in step give eight crops an episode; the third episode's first four end it.
    assert cache.take_crops(tmp_path / "cache", options)[0] == 20


def test_photographs_are_files_of_a_photographs_size(tmp_path: Path) -> None:
    listing = cache.make_files(tmp_path / "files", cache.Options(files=2))
    for path in listing.paths:
        with Image.open(listing.root / path) as file:
            assert file.format == "JPEG" and file.size == (500, 375)
        assert 50_000 < (listing.root / path).stat().st_size < 150_000
    first, second = (photograph(seed, 375, 500) for seed in (0, 1))
    assert first == photograph(0, 375, 500) and first != second

"""``python -m dtram_env.datasets``: list, download, build; an error is its message, exit code 1."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dtram_env.datasets.__main__ as program
from dtram_env.datasets import DATASETS
from dtram_env.datasets.__main__ import main
from dtram_env.datasets.sources import cars, cub, mnist
from dtram_env.datasets.storage.mapped import read_meta
from dtram_env.output import READER_GONE
from tests.dtram_env.datasets.trees import Tree, make_cars, make_cub, make_folder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in `tmp_path`; returns exit code, output and errors."""

    def call(command: str) -> tuple[int, str, str]:
        code = main([*shlex.split(command), "--data-dir", str(tmp_path)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return call


@pytest.fixture
def cub_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = make_cub(tmp_path / "cub")
    tree.publish(monkeypatch, cub)
    return tree


def caches(folder: Path) -> list[str]:
    """The finished caches below a folder."""
    return sorted(path.parent.name for path in folder.rglob("meta.json"))


# --- list


def test_list(run: Callable, tmp_path: Path, cub_tree: Tree) -> None:
    code, shown, _ = run("list")
    assert code == 0
    lines = shown.splitlines()
    state = dict(zip(DATASETS, (line.strip() for line in lines[1::2]), strict=True))
    for (name, info), line in zip(DATASETS.items(), lines[::2], strict=True):
        assert line.split()[:2] == [name, info.env_id] and line.endswith(info.description)
    assert state["mnist"] == state["clutteredmnist"] == f"not fetched ({tmp_path / 'mnist'})"
    assert state["cub"] == f"files in {cub_tree.folder}"
    assert state["cars"] == f"not fetched ({tmp_path / 'cars'})"
    assert state["birds"] == state["signpost"] == "drawn, needs no files"
    assert state["imagefolder"] == "yours, needs no other files"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["list", "--help"])
def test_a_reader_that_stops_reading(command: str, unbuffered: str) -> None:
    """As ``| head``: no message. argparse ignores it itself where its text is not buffered."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "dtram_env.datasets", command]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=environment, cwd=ROOT)
    os.close(writer)
    assert done.stderr == b"" and done.returncode in (0, READER_GONE)
    assert done.returncode == READER_GONE or command == "--help"


# --- download


def test_download_of_what_has_no_files(run: Callable) -> None:
    assert run("download signpost") == (0, "signpost: drawn, needs no files\n", "")
    assert run("download imagefolder") == (0, "imagefolder: yours, needs no other files\n", "")


def test_download_that_fails(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mnist, "SOURCES", ())
    code, out, said = run("download mnist")
    assert (code, out) == (1, "")
    assert "train-images-idx3-ubyte" in said and str(tmp_path / "mnist") in said
    assert "DTRAM-Signpost-v0" in said


def test_download_of_what_is_there(run: Callable, cub_tree: Tree) -> None:
    assert run("download cub") == (0, f"cub: {cub_tree.folder}\n", "")


def test_an_unknown_name(run: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("download", "build"):
        with pytest.raises(SystemExit) as stopped:
            run(f"{command} mnits")
        assert stopped.value.code == 2
        assert "'mnits' (choose from" in capsys.readouterr().err


# --- build


def test_build_cub(run: Callable, tmp_path: Path, cub_tree: Tree) -> None:
    assert run("build cub") == (0, f"cub: {tmp_path / 'cub' / 'cache'}\n", "")
    # What DTRAM-CUB-v0 opens: the shorter side at 512, and thumbnails of the glimpse's 224 pixels.
    assert caches(tmp_path) == ["test-512", "train-512"]
    assert (tmp_path / "cub/cache/test-512/thumbnails-224.bin").stat().st_size == 3 * 224 * 224 * 3
    run("build cub --image-size native --crop-to-box --thumbnail-size 9 --thumbnail-size 7")
    run("build cub --image-size 20")
    native = ["test-native-box", "train-native-box"]
    assert caches(tmp_path) == sorted(["test-20", "test-512", "train-20", "train-512", *native])
    names = {path.name for path in (tmp_path / "cub/cache/train-native-box").iterdir()}
    made = {"sizes.npy", "pixels.bin", "metadata-box.npy", "meta.json"}
    assert names == made | {"thumbnails-7.bin", "thumbnails-9.bin"}


def test_verify(run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "photos")
    code, _, said = run("verify imagefolder")
    assert code == 1 and said.count("\n") == 1 and "there is no cache to verify; `python" in said
    assert run(f"build imagefolder --root {tmp_path / 'photos'} --image-size 16")[0] == 0
    code, out, _ = run("verify imagefolder")
    assert code == 0 and out.count(" is as it was made\n") == 2
    (pixels,) = tmp_path.rglob("test-16/pixels.bin")
    content = bytearray(pixels.read_bytes())
    content[7] ^= 1
    pixels.write_bytes(content)
    code, _, said = run("verify imagefolder")
    assert code == 1 and said.count("\n") == 1
    assert said.startswith(f"{pixels.parent}: damaged cache (pixels.bin was changed, expected SHA")
    code, _, said = run("verify mnist")
    assert (code, said) == (1, "dataset 'mnist': it is held in memory and has no cache\n")


def test_build_cars_without_scipy(run: Callable, tmp_path: Path, monkeypatch) -> None:
    make_cars(tmp_path / "cars").publish(monkeypatch, cars)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    code, _, said = run("build cars")
    assert code == 1 and said.startswith("scipy.io is not installed: run `pip install 'dtram[cars")
    assert said.count("\n") == 1


def test_build_a_folder(run: Callable, tmp_path: Path) -> None:
    make_folder(tmp_path / "my photos")
    code, out, _ = run(f"build imagefolder --root {shlex.quote(str(tmp_path / 'my photos'))}")
    place = Path(out.removeprefix("imagefolder: ").rstrip("\n"))
    assert code == 0 and place.parent.parent == tmp_path / "imagefolder"
    assert caches(place) == ["test-256", "train-256"]  # as DTRAM-ImageFolder-v0 has it
    assert (place / "test-256" / "thumbnails-96.bin").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("build mnist", "dataset 'mnist': it is held in memory and has no cache"),
        ("build cub", "cub: not all its files are in"),
        ("build imagefolder --root nowhere", "nowhere': no such folder"),
        ("build birds --crop-to-box", "crop_to_box=True: Birds (drawn) does not accept it"),
        ("build birds --num-classes 1", "num_classes=1: expected"),
    ],
)
def test_build_errors_are_one_line(run: Callable, command: str, words: str) -> None:
    code, out, said = run(command)
    assert (code, out) == (1, "") and words in said and said.count("\n") == 1


def test_build_names_a_damaged_image(run: Callable, cub_tree: Tree) -> None:
    path = cub_tree.root / cub_tree.paths["train"][3]
    path.write_bytes(path.read_bytes()[:-400])
    code, _, said = run("build cub --image-size 16")
    assert code == 1 and said.count("\n") == 1
    assert said.startswith(f"{path}: damaged, or no image")
    assert "Remove it and run `python -m dtram_env.datasets download cub --data-dir" in said


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--image-size 0", "expected a whole number above 0, got '0'"),
        ("--image-size small", "expected a whole number above 0, got 'small'"),
        ("--num-train -1", "expected a whole number above 0, got '-1'"),
        ("--thumbnail-size 2.5", "expected a whole number above 0, got '2.5'"),
    ],
)
def test_bad_options(
    run: Callable, capsys: pytest.CaptureFixture[str], option: str, words: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(f"build birds {option}")
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("words", ["build birds", "download cub"])
def test_ctrl_c_is_one_line(run: Callable, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, words.split()[0], interrupt)
    assert run(words) == (130, "", "\ninterrupted; the same command begins again\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_interrupted(tmp_path: Path, name: signal.Signals) -> None:
    """By Ctrl-C, which the terminal sends to all processes, or killed; no worker stays."""
    few = ["--num-train", "2000", "--num-test", "10", "--data-dir", str(tmp_path)]
    words = [sys.executable, "-m", "dtram_env.datasets", "build", "birds", *few]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, start_new_session=True, **streams) as process:
        try:
            while not list(tmp_path.rglob("pixels.bin")):
                assert process.poll() is None
                time.sleep(0.1)
            if name is signal.SIGKILL:
                process.kill()
            else:
                os.killpg(process.pid, name)
            said, errors = process.communicate(timeout=120)  # until nobody has the streams open
        finally:
            process.kill()
    assert said == "" and "Traceback" not in errors
    if name is signal.SIGINT:
        assert process.returncode == 130
        assert errors == "\ninterrupted; the same command begins again\n"


@pytest.mark.slow
def test_as_a_program(run_python: Callable[..., str], tmp_path: Path) -> None:
    """Draws in processes, so the program must be importable by them."""
    few = "--num-classes 10 --num-train 12 --num-test 6 --image-size 96"
    sides = "--thumbnail-size 8 --thumbnail-size 16"
    words = f"-m dtram_env.datasets build autos {few} {sides} --data-dir".split()
    folder = tmp_path / "autos" / "cache"
    assert run_python(*words, str(tmp_path)) == f"autos: {folder}\n"
    for part, count in (("train", 12), ("test", 6)):
        made = folder / f"{part}-96-10classes-{count}-seed0"
        assert read_meta(made)["images"] == count
        for side in (8, 16):
            assert (made / f"thumbnails-{side}.bin").stat().st_size == count * side * side * 3

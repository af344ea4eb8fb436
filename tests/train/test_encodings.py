"""Programs in a locale that lacks characters: files are UTF-8, and every name is answered."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dtram_env.output import for_any_reader

ROOT = Path(__file__).resolve().parents[2]
# Python's standard streams and names of files are then ASCII, on every machine.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
NAMES = [b"caf\xe9", "niño".encode(), "鳥".encode()]
PROGRAMS = """
import sys
from train import predict, reinforce
from train.common.options import command_line
from train.common.run import run_program

words = sys.argv[1:]
cut = words.index("--then")
sys.argv = ["train/reinforce.py", *words[:cut]]
run_program(lambda: reinforce.train(command_line(reinforce.Options, None, reinforce.RECIPES)))
sys.argv = ["train/predict.py", *words[cut + 1 :]]
run_program(predict.main)
"""


def test_a_run_in_a_locale_without_the_characters(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"photos\xe9")
    for k, name in enumerate(map(os.fsdecode, NAMES)):
        (root / name).mkdir(parents=True)
        for i in range(8):
            path = root / name / os.fsdecode(b"\xe9%d.png" % i)
            Image.new("RGB", (20, 20), (100 * k, 10 * i, 0)).save(path)
    run, env = tmp_path / "run", ("image_size=none", "glimpse_size=8", "max_glimpses=2")
    words = ["--env-id", "DTRAM-ImageFolder-v0", "--root", root, "--env", *env, "--stop", "off"]
    words += ["--data-dir", tmp_path / "data", "--epochs", "1", "--batch-size", "8"]
    words += ["--device", "cpu", "--run-dir", run]
    words += ["--then", run, root, "--out", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAMS, *words],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | ASCII | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    names = ["caf\\xe9", "niño", "鳥"]
    assert json.loads((run / "model.json").read_bytes())["class_names"] == names
    assert json.loads((run / "results.json").read_bytes())["dataset"] == "photos\\xe9"
    assert "photos\\xe9, test split" in (run / "results.txt").read_text(encoding="utf-8")
    lines = done.stdout.decode("ascii").splitlines()
    answered = [line for line in lines if ".png: " in line]
    assert len(answered) == 24 and lines[-1].startswith("24 images: 2.00 glimpses")
    shown = {name.encode("ascii", "backslashreplace").decode() for name in names}
    assert {line.split(".png: ")[1].split(",")[0] for line in answered} <= shown
    out = os.fsencode(tmp_path / "out")
    assert sorted(os.listdir(out)) == sorted(NAMES)
    assert sorted(os.listdir(out + b"/" + NAMES[0])) == [b"\xe9%d.png" % i for i in range(8)]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("encoding", "errors", "expected"),
    [
        ("ascii", "strict", b"\\u03b3 \\u9ce5 \\udce9"),
        ("ascii", "surrogateescape", b"\\u03b3 \\u9ce5 \\udce9"),
        ("cp1252", "strict", b"\\u03b3 \\u9ce5 \\udce9"),
        ("latin-1", "replace", b"\\u03b3 \\u9ce5 \\udce9"),
        ("euc-jp", "strict", b"\xa6\xc3 \xc4\xbb \\udce9"),
        ("utf-8", "strict", b"\xce\xb3 \xe9\xb3\xa5 \\udce9"),
    ],
)
def test_characters_that_a_stream_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, stream: str, encoding: str, errors: str, expected: bytes
) -> None:
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding, errors=errors)
    monkeypatch.setattr(sys, stream, file)
    with for_any_reader():
        print("γ 鳥 \udce9", file=file, flush=True)
    assert written.getvalue() == expected + b"\n"


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_streams_without_an_encoding(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    with for_any_reader():
        print("γ")
    if stream is None:
        sys.stdout.close()  # of the null device
    else:
        assert stream.getvalue() == "γ\n"

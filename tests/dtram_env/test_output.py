"""What programs print, to closed streams (tests/train/common/test_run.py has readers that stop)."""

import subprocess
import sys
from pathlib import Path

import pytest

OUTPUT = Path(__file__).resolve().parents[2] / "dtram_env/output.py"
PROGRAM = """
import os, runpy, sys
from tqdm import tqdm
output = runpy.run_path(sys.argv[1])
with output["for_any_reader"]():
    for _ in tqdm(range(3), disable=None):  # as in training
        print("a line")
    print("an error", file=sys.stderr)
    with open(sys.argv[2], "w") as file:
        os.write(2, b"a warning of a library")
        file.write(f"{sys.stdin.read()!r} {sys.stderr.isatty()}")
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed(tmp_path: Path, closed: str) -> None:
    """No error, and no file of the program gets what a library writes to number 2."""
    file = tmp_path / "file"
    words = [sys.executable, "-c", PROGRAM, str(OUTPUT), str(file)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *words], stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert file.read_text() == "'' False"

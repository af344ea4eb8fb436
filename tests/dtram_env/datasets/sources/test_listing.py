"""Lists of images: the command in their messages."""

from pathlib import Path

import pytest

from dtram_env.datasets.sources.listing import fetch_command


def test_fetch_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "`python -m dtram_env.datasets download cub`"
    monkeypatch.setenv("DTRAM_DATA", str(tmp_path))
    assert fetch_command("cub", tmp_path / "cub") == plain
    other = tmp_path / "two words" / "cub"
    assert fetch_command("cub", other) == f"{plain[:-1]} --data-dir '{other.parent}'`"
    # The command cannot fetch into a folder of another name.
    assert fetch_command("cub", tmp_path / "two words" / "birds") == plain

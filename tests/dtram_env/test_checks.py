"""The reader of our JSON files: whatever is damaged, the error names the file and the key."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

from dtram_env.checks import misfit
from dtram_env.files import read_json, replacing


class Small(TypedDict, total=False):
    count: Annotated[int, 0, 9]
    points: list[dict[str, float | None]]
    flag: bool
    pair: tuple[int, str]
    scan: tuple[tuple[float, float], ...]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, None),
        ({"count": 9, "points": [{"a": 1}, {"b": None}], "flag": False, "more": "x"}, None),
        ({"count": 10}, "count=10: expected from 0 to 9"),
        ({"count": -1}, "count=-1: expected from 0 to 9"),
        ({"count": 1.0}, "count=1.0: expected an integer"),
        ({"count": True}, "count=True: expected an integer"),
        ({"flag": 1}, "flag=1: expected true or false"),
        ({"points": {}}, "points={}: expected a list"),
        ({"points": [{"a": 1}, 2]}, "points[1]=2: expected an object"),
        ({"points": [{"a": "1"}]}, "points[0].a='1': expected a number"),
        ([], "the whole=[]: expected an object"),
        ({"pair": [1, "x"], "scan": ((0, 1.5), [1, 2])}, None),
        ({"pair": [1, 2]}, "pair[1]=2: expected a text"),
        ({"pair": [1]}, "pair=[1]: expected 2 values"),
        ({"scan": [[0]]}, "scan[0]=[0]: expected 2 values"),
    ],
)
def test_misfit(value: Any, problem: str | None) -> None:
    assert misfit(value, Small) == problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not valid JSON ("),
        (b'{"count": 1', "not valid JSON ("),
        (b'{"name": "\xff"}', "not valid JSON ("),
        (b"[" * 10**5, "not valid JSON ("),
        (b'{"a":' * 10**4 + b"1" + b"}" * 10**4, "not valid JSON ("),
        (b'{"a": [NaN]}', "not valid JSON (a[0]=nan: expected a finite number"),
        (b'{"a": {"b": -Infinity}}', "not valid JSON (a.b=-inf: expected a finite number"),
        (b'{"a": 1e999}', "not valid JSON (a=inf: expected a finite number"),
        (b'{"a": ' + b"9" * 30 + b"}", "not valid JSON (a=999"),
        (b'{"a": ' + b"9" * 9999 + b"}", "not valid JSON ("),
        (b"null", "the whole=None: expected an object"),
        (b'{"count": "1"}', "count='1': expected an integer"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(path, Small, "copy it again")
    assert str(error.value).startswith(f"{path}: {problem}")
    assert str(error.value).endswith("; copy it again")


def test_a_missing_key_is_named_with_its_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"rows": [{"x": {"y": 1}}]}')
    found = read_json(path, dict[str, Any], "run it again")
    assert found == {"rows": [{"x": {"y": 1}}]} and found.get("z") is None
    with pytest.raises(ValueError, match=r"a\.json: rows\[0\]\.x\.z: missing; run it again"):
        found["rows"][0]["x"]["z"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [None, OSError(28, "No space left on device"), ZeroDivisionError])
def test_replacing_is_whole_or_not_at_all(tmp_path: Path, folder: bool, error: Any) -> None:
    path = tmp_path / "a"
    for content in ("old", "new"):
        failed = content == "new" and error is not None
        try:
            with replacing(path) as aside:
                if folder:
                    aside.mkdir()
                (aside / "x" if folder else aside).write_text(content)
                if failed:
                    raise error
        except (OSError, ZeroDivisionError) as found:
            if isinstance(found, OSError):
                assert (found.filename, found.strerror) == (str(path), "No space left on device")
    kept = (path / "x" if folder else path).read_text()
    assert kept == ("new" if error is None else "old") and list(tmp_path.iterdir()) == [path]

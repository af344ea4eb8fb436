"""Text, JSON and tensors on disk; each file is written under another name, then renamed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

_WAY_OUT = "delete the run and start it again"


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 file whole or not at all; returns the path. Other bytes become escapes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(aside, path)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Writes JSON, one value on each line; see `write_text`."""
    return write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON; an error names a damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {_WAY_OUT}") from None


def markdown_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """A table in Markdown; all but the first columns are aligned to the right."""
    rule = "|" + "---|" * text_columns + "---:|" * (len(heads) - text_columns)
    first, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([first, rule, *lines]) + "\n"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Writes a safetensors file; see `write_text`."""
    aside = path.with_name(path.name + ".tmp")
    # Unlike `save_file`, which makes files that only their owner can read.
    aside.write_bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))
    os.replace(aside, path)
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; an error names a missing or damaged one."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path}: missing or damaged ({error}); {_WAY_OUT}") from None

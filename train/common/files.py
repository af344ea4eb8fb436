"""Text, JSON and tensors of runs; `dtram_env.files` says how they are written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agents.files import write_tensors
from dtram_env.files import write_json, write_text

__all__ = [
    "WAY_OUT",
    "markdown_table",
    "read_json",
    "read_tensors",
    "write_json",
    "write_tensors",
    "write_text",
]

WAY_OUT = "delete the run and start it again"


def read_json(path: Path) -> Any:
    """Reads JSON; an error names a damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {WAY_OUT}") from None


def markdown_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """A table in Markdown; all but the first columns are aligned to the right."""
    rule = "|" + "---|" * text_columns + "---:|" * (len(heads) - text_columns)
    first, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([first, rule, *lines]) + "\n"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; an error names a missing or damaged one."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path}: missing or damaged ({error}); {WAY_OUT}") from None

"""Reading the JSON and tensors of runs; `dtram_env.files` and `agents.files` write them. Tables and
pictures."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dtram_env import files
from dtram_env.files import Record, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAY_OUT = "delete the run and start it again"


Count = Annotated[int, 0, 10**15]
Share = Annotated[float, 0, 1]
Seconds = Annotated[float, 0, 10**12]


CurvePoint = TypedDict(  # "return" is a keyword of Python
    "CurvePoint",
    {
        "env_steps": Count,
        "return": Share,
        "error": Share,
        "mean_glimpses": Annotated[float, 0, 10**6],
        "seconds": Seconds,
    },
)
"""A point of a learning curve."""


class Results(TypedDict, total=False):
    """What programs read of results and records; a missing key is an error where it is read."""

    options: dict[str, Any]
    command: str
    commit: str
    date: str
    versions: dict[str, Any]
    hardware: dict[str, Any]
    python: str
    dataset: str
    test_error: Annotated[float, 0, 100]
    error: Annotated[float, 0, 100]
    mean_glimpses: Annotated[float, 0, 10**6]
    mean_return: Share
    env_steps: Count
    train_seconds: Seconds
    validation_seconds: Seconds
    flops_per_glimpse: Annotated[float, 0, 10**18]
    flops: Annotated[float, 0, 10**18]
    flops_per_image: Annotated[float, 0, 10**18]
    classifier: str | None
    hyperparameters: dict[str, Any]
    curve: list[CurvePoint]


class Step(TypedDict):
    """A line of ``metrics.jsonl``."""

    step: Annotated[int, -1, 10**15]


KINDS = {"results.json": Results, "evaluation.json": Results}


def read_json(path: Path, kind: Any = None) -> Record:
    """Reads a JSON object, by default of the kind in `KINDS`; see `dtram_env.files.read_json`."""
    return files.read_json(path, kind or KINDS.get(path.name, dict[str, Any]), WAY_OUT)


def read_json_lines(path: Path, kind: Any = dict[str, Any]) -> list[Record]:
    """Reads JSON Lines, each an object of a kind; an error names a damaged line."""
    lines = path.read_bytes().splitlines()
    places = (f"{path}, line {number}" for number in range(1, len(lines) + 1))
    return [files.parse_json(*pair, kind, WAY_OUT) for pair in zip(lines, places, strict=True)]


def markdown_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Collection[int] = (0,)
) -> str:
    """A table in Markdown; columns other than those of text are aligned to the right."""
    rule = "|" + "".join("---|" if n in text_columns else "---:|" for n in range(len(heads)))
    first, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return "\n".join([first, rule, *lines]) + "\n"


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG file, see `dtram_env.files.replacing`."""
    with replacing(path) as aside:
        figure.savefig(aside, format="png", dpi=110)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; an error names a missing or damaged one."""
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path}: missing or damaged ({error}); {WAY_OUT}") from None

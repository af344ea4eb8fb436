"""The generated pages: one an id, from docstrings, the registry and the live spaces."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium import spaces

import dtram_env
from agents import POLICY_IDS
from agents.policy_only import POLICY_TABLE
from dtram_env import GlimpseEnv, GlimpseVectorEnv, datasets
from dtram_env.observation_builder import OBSERVATIONS
from dtram_env.views import GRID_VIEWS, VIEWS

from . import samples
from .samples import Opener, dataset_of, make_id, registered

DOCS = Path(__file__).resolve().parent
PAGES = DOCS / "environments"
IMAGES = DOCS / "images"
CAPTIONS = IMAGES / "captions.json"  # what each picture shows, written with it

PICTURES = {".gif": "episodes", ".jpg": "images", ".png": "images"}

IDS: tuple[str, ...] = (*dtram_env.ENV_IDS, *POLICY_IDS)

NOTE = "<!-- Written by docs/build.py from the code: change the docstrings, not this page. -->"


def generate() -> dict[Path, str]:
    """The text of every generated page."""
    with samples.opener() as opened:
        return {PAGES / f"{env_id}.md": page(env_id, opened) for env_id in IDS}


def write_captions(texts: dict[str, str]) -> None:
    """Notes what some pictures show, by file name; pictures that are no more are forgotten."""
    known = json.loads(CAPTIONS.read_text()) if CAPTIONS.exists() else {}
    kept = {file: text for file, text in (known | texts).items() if (IMAGES / file).exists()}
    CAPTIONS.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n")


def stale(pages: dict[Path, str]) -> list[Path]:
    """Files that are not as generated: altered, missing, or of an id that is no more."""
    found = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    return found + sorted(set(PAGES.glob("*.md")) - pages.keys())


def page(env_id: str, opened: Opener) -> str:
    """The page of one id, in Markdown.

    Args:
        env_id: one of `IDS`.
        opened: makes its environment.
    """
    env = opened(env_id)
    parts = [NOTE, f"# {env_id}", _summary(env_id, env), *_stand_in(env_id), *_pictures(env_id)]
    parts += [_defaults(env_id), "## Example", _example(env_id, env)]
    sections = _sections(GlimpseEnv)
    if env.classifier is not None:  # what is different here comes first
        sections = {key: sections[key] for key in ("Description", "Policy-only", *sections)}
    for title, text in sections.items():
        if title == "Action Space":
            parts += [f"## {title}", _with_spaces(text, env.action_space), _actions(env_id, opened)]
        elif title == "Observation Space":
            text = _with_spaces(text, env.observation_space)
            parts += [f"## {title}", text, _observations(env_id, opened)]
        elif title == "Arguments":
            parts += [f"## {title}", _with_defaults(text, env_id)]
        elif title == "Vectorized environment":
            parts += [f"## {title}", text, _prose(GlimpseVectorEnv)]
        else:
            parts += [f"## {title}", text]
        if title == "Description":
            parts += ["## Data", _data(env_id, env)]
    return "\n\n".join(parts) + "\n"


def _summary(env_id: str, env: GlimpseEnv) -> str:
    name = dataset_of(env_id)
    title = "your own images" if name == "imagefolder" else datasets.DATASETS[name].title
    if env_id == "DTRAM-BirdsSmall-v0":
        title += f", {env.num_classes} species on {'x'.join(map(str, env.image_shape[:2]))} pixels"
    if env.classifier is None:
        return _wrap(f"The whole task on {title}: the agent looks, stops and answers.")
    return (
        f"The policy-only task on {title}: the agent looks and stops, a frozen classifier answers."
    )


def _stand_in(env_id: str) -> list[str]:
    name = dataset_of(env_id)
    return [_wrap(samples.stand_in_text(name))] if samples.stand_in(name) else []


def _pictures(env_id: str) -> list[str]:
    """The pictures that an id has, each with what it shows."""
    captions = json.loads(CAPTIONS.read_text()) if CAPTIONS.exists() else {}
    found = []
    for suffix, shown in PICTURES.items():
        file = f"{env_id}{suffix}"
        if file in captions:
            found += [f"![{env_id}, {shown}](../images/{file})", _wrap(f"*{captions[file]}*")]
    return found


def _defaults(env_id: str) -> str:
    rows = [("made by", f'gym.make("{make_id(env_id)}")')]
    rows += [(name, repr(value)) for name, value in registered(env_id).items()]
    table = _table(("Default", "Value"), [(name, f"`{value}`") for name, value in rows])
    if env_id not in POLICY_TABLE:
        return table
    shipped = f"../../pretrained/{POLICY_TABLE[env_id][1]}/results.json"
    return f"{table}\n\nThe classifier's own errors after random glimpses: [results]({shipped})."


def _example(env_id: str, env: GlimpseEnv) -> str:
    name, metadata = dataset_of(env_id), env.data.metadata
    if name == "fashionmnist":
        return _unfetched(env_id)
    # Of the drawn images, one that the first glimpse does not decide.
    row = (
        int(metadata["discriminative"].any(axis=1).argmax()) if "discriminative" in metadata else 0
    )
    looks = ['info["dataset"], info["label"], info["image_index"]'] if metadata else ["info"]
    looks += [f'info["{key}"].tolist()' for key in metadata]
    before, after, keywords = [], [], 'split="test"'
    if name == "imagefolder":
        before = list(samples.FOLDER)
        after = ["place.cleanup()"]
        keywords += ", root=photos, data_dir=place.name"
    elif samples.stand_in(name):
        keywords += ', data="builtin"'
    answer = "" if env.classifier is not None else ', "prediction": info["label"]'
    session = _session(
        *before,
        "import gymnasium as gym",
        f'env = gym.make("{make_id(env_id)}", {keywords})',
        f'observation, info = env.reset(options={{"image_index": {row}}})',
        "{key: value.shape for key, value in observation.items()}",
        *looks,
        f'action = {{"location": [0.5, 0.0], "stop": 0{answer}}}',
        "observation, reward, terminated, truncated, info = env.step(action)",
        'round(reward, 4), terminated, info["num_glimpses"]',
        'action["stop"] = 1',
        "observation, reward, terminated, truncated, info = env.step(action)",
        'round(reward, 4), terminated, info["num_glimpses"]',
        *after,
    )
    said = (
        "The answer is the classifier's."
        if env.classifier is not None
        else "The answer here is the label itself, to show what a right one pays."
    )
    return f"{session}\n\n{said}"


def _unfetched(env_id: str) -> str:
    """The example of an id whose data may not be there: read, not run."""
    lines = (
        "import gymnasium as gym",
        "",
        f'env = gym.make("{make_id(env_id)}", split="test")  # fetches the data, once',
        'observation, info = env.reset(options={"image_index": 0})',
        'action = {"location": [0.5, 0.0], "stop": 0, "prediction": info["label"]}',
        "observation, reward, terminated, truncated, info = env.step(action)",
    )
    code = "\n".join(["```python", *lines, "```"])
    same = "Shapes, rewards and infos are those of [DTRAM-MNIST-v0](DTRAM-MNIST-v0.md#example)."
    return f"{code}\n\n{same}"


def _session(*lines: str) -> str:
    """Lines as a doctest, each with what it prints now."""
    names: dict[str, Any] = {}
    out = ["```python"]
    for line in lines:
        first, *others = line.splitlines()
        out += [f">>> {first}", *(f"... {other}" for other in others)]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(ast.Interactive(ast.parse(line).body), "<page>", "single"), names)
        out += printed.getvalue().splitlines()
    return "\n".join([*out, "", "```"])  # a doctest's output ends at an empty line


def _sections(cls: type) -> dict[str, str]:
    """The sections of a class docstring, title -> text."""
    text = inspect.getdoc(cls) or ""
    parts = re.split(r"^## (.+)$", text, flags=re.M)[1:]
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def _prose(cls: type) -> str:
    """A class docstring up to its arguments, in Markdown."""
    text = (inspect.getdoc(cls) or "").partition("\nArgs:")[0]
    return text.replace("``", "`").strip()


def _with_spaces(text: str, space: spaces.Space[Any]) -> str:
    """A docstring's table of spaces: each key with its live space, without keys that are not."""
    assert isinstance(space, spaces.Dict)
    out, listed = [], set()
    for line in text.splitlines():
        row = re.match(r"\| `(\w+)` *\| `[^`]*` *\| (.*)\|$", line)
        if row is None:
            out.append(line)
        elif row[1] in space.spaces:
            listed.add(row[1])
            out.append(f"| `{row[1]}` | `{space_text(space[row[1]])}` | {row[2].strip()} |")
    if listed != space.spaces.keys():
        raise ValueError(f"the docstring lists {sorted(listed)}, the space is {space}")
    return "\n".join(out)


def _actions(env_id: str, opened: Opener) -> str:
    rows = []
    for view in _views(env_id):
        env = opened(env_id, view=view)
        said = f'`view="{view}"`'
        masks = ""
        if view in GRID_VIEWS:
            said += f", `grid={env.grid}` unless given"
            env.reset(seed=0)
            masks = f"`({len(env.action_masks())},)`"
        rows.append((said, f"`{space_text(env.action_space)}`", masks))
    table = _table(("Keyword", "Action space", "`action_masks()`"), rows)
    text = f"In every view:\n\n{table}"
    if not samples.of_one_size(opened(env_id)):
        text += "\n\n" + _wrap(
            "The default of `grid` follows the images' median size, so another set of images may "
            "have another: give `grid=` where spaces must be the same."
        )
    return text


def _observations(env_id: str, opened: Opener) -> str:
    one_size = samples.of_one_size(opened(env_id))
    observed = OBSERVATIONS if one_size else OBSERVATIONS[:1]
    found: dict[tuple[str, str], dict[str, str]] = {}
    default: dict[str, list[str]] = {"image": [], "flat": []}
    for view in _views(env_id):
        default[opened(env_id, view=view).task.glimpse_format or ""].append(view)
        for observe in observed:
            for shape in default:
                env = opened(env_id, view=view, observe=observe, glimpse_format=shape)
                assert isinstance(env.observation_space, spaces.Dict)
                texts = {key: space_text(part) for key, part in env.observation_space.items()}
                # A view changes actions only.
                assert found.setdefault((observe, shape), texts) == texts
    keys = dict.fromkeys(key for texts in found.values() for key in texts)
    rows = []
    for key in keys:
        shown = [observe for observe in observed if key in found[observe, "image"]]
        cells = [f"`{found[shown[0], shape][key]}`" for shape in default]
        with_ = "" if len(shown) == len(observed) else f'`observe="{shown[0]}"`'
        rows.append((f"`{key}`", with_, *cells))
    table = _table(
        ("Key", "Only with", '`glimpse_format="image"`', '`glimpse_format="flat"`'), rows
    )
    said = "; ".join(
        f'`"{shape}"` in the view{"s" if len(views) > 1 else ""} {", ".join(views)}'
        for shape, views in default.items()
        if views
    )
    said = _wrap(f"In every view (the default of `glimpse_format` is {said}):")
    text = f"{said}\n\n{table}"
    if not one_size:
        text += '\n\n`observe="canvas"` needs images of one size.'
    return text


def _views(env_id: str) -> list[str]:
    """The views that an id has: one choice for all only where no prediction is asked."""
    return [view for view in VIEWS if view != "single" or env_id in POLICY_IDS]


def _with_defaults(text: str, env_id: str) -> str:
    """The docstring's table of arguments, with this id's values."""
    values = registered(env_id)

    def put(row: re.Match[str]) -> str:
        names = re.findall(r"`(\w+)`", row[1])
        if "per id" not in row[3] and not any(name in values for name in names):
            return row[0]
        own = ", ".join(f"`{json.dumps(values[name])}`" for name in names if name in values)
        listed = ", ".join(f"`{name}`" for name in names)
        return f"| {listed} |{row[2]}| {own or 'None'} |{row[4]}"

    text = re.sub(r"^\| (`\w+`(?:, `\w+`)*) *\|([^|]*)\|([^|]*)\|(.*)$", put, text, flags=re.M)
    assert "per id" not in text
    return text


def _data(env_id: str, env: GlimpseEnv) -> str:
    text = "\n\n".join(
        part if "\n" in part else _wrap(part) for part in samples.data_text(env_id, env)
    )
    found = samples.counts(dataset_of(env_id), env)
    if not found:
        return text
    rows = [(f'`split="{split}"`', f"{found[split]:,}") for split in datasets.SPLITS]
    return f"{text}\n\n{_table(('Split', 'Images'), rows)}"


def space_text(space: spaces.Space[Any]) -> str:
    """A space in a line, its bounds as short as they can be written."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}={space_text(part)}' for key, part in space.items())})"
    if isinstance(space, spaces.Box):
        return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({space.nvec.tolist()})"
    return str(space)


def _wrap(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

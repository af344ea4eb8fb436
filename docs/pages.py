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

import gymnasium as gym
from gymnasium import spaces

import dtram_env
from agents import POLICY_IDS
from agents.policy_only import POLICY_TABLE
from dtram_env import GlimpseEnv, GlimpseVectorEnv, datasets
from dtram_env.observer import OBSERVATIONS
from dtram_env.views import GRID_VIEWS, VIEWS

DOCS = Path(__file__).resolve().parent
PAGES = DOCS / "environments"
IMAGES = DOCS / "images"
CAPTIONS = IMAGES / "gifs.json"  # what each GIF shows, written with it

IDS: tuple[str, ...] = (*dtram_env.ENV_IDS, *POLICY_IDS)

NOTE = "<!-- Written by docs/build.py from the code: change the docstrings, not this page. -->"


def make_id(env_id: str) -> str:
    """The id with the package that registers it, as `gym.make` takes it without an import."""
    return f"{'agents' if env_id in POLICY_IDS else 'dtram_env'}:{env_id}"


def generate() -> dict[Path, str]:
    """The text of every generated page."""
    return {PAGES / f"{env_id}.md": page(env_id) for env_id in IDS}


def stale(pages: dict[Path, str]) -> list[Path]:
    """Files that are not as generated: altered, missing, or of an id that is no more."""
    found = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    return found + sorted(set(PAGES.glob("*.md")) - pages.keys())


def page(env_id: str) -> str:
    """The page of one id, in Markdown."""
    env = _live(env_id)
    parts = [NOTE, f"# {env_id}", _summary(env), *_picture(env_id), _defaults(env_id)]
    parts += ["## Example", _example(env_id, env)]
    sections = _sections(GlimpseEnv)
    if env.classifier is not None:  # what is different here comes first
        sections = {key: sections[key] for key in ("Description", "Policy-only", *sections)}
    for title, text in sections.items():
        if title == "Action Space":
            parts += [f"## {title}", _with_spaces(text, env.action_space), _actions(env_id)]
        elif title == "Observation Space":
            text = _with_spaces(text, env.observation_space)
            parts += [f"## {title}", text, _observations(env_id)]
        elif title == "Arguments":
            parts += [f"## {title}", _with_defaults(text, env_id)]
        elif title == "Vectorized environment":
            parts += [f"## {title}", text, _prose(GlimpseVectorEnv)]
        else:
            parts += [f"## {title}", text]
        if title == "Description":
            parts += ["## Data", _data(env)]
    return "\n\n".join(parts) + "\n"


def _live(env_id: str, **keywords: Any) -> GlimpseEnv:
    env = gym.make(make_id(env_id), disable_env_checker=True, **keywords).unwrapped
    assert isinstance(env, GlimpseEnv)
    return env


def _registered(env_id: str) -> dict[str, Any]:
    return dict(gym.spec(env_id).kwargs)


def _summary(env: GlimpseEnv) -> str:
    if env.classifier is None:
        return f"The whole task on {env.dataset}: the agent looks, stops and answers."
    return (
        f"The policy-only task on {env.dataset}: the agent looks and stops, a frozen classifier "
        "answers."
    )


def _picture(env_id: str) -> list[str]:
    captions = json.loads(CAPTIONS.read_text()) if CAPTIONS.exists() else {}
    if env_id not in captions:
        return []
    text = captions[env_id]
    return [f"![{env_id}, episodes](../images/{env_id}.gif)", _wrap(f"*{text}*")]


def _defaults(env_id: str) -> str:
    rows = [("made by", f'gym.make("{make_id(env_id)}")')]
    rows += [(name, repr(value)) for name, value in _registered(env_id).items()]
    table = _table(("Default", "Value"), [(name, f"`{value}`") for name, value in rows])
    if env_id not in POLICY_TABLE:
        return table
    shipped = f"../../pretrained/{POLICY_TABLE[env_id][1]}/results.json"
    return f"{table}\n\nThe classifier's own errors after random glimpses: [results]({shipped})."


def _example(env_id: str, env: GlimpseEnv) -> str:
    answer = "" if env.classifier is not None else ', "prediction": info["label"]'
    session = _session(
        "import gymnasium as gym",
        f'env = gym.make("{make_id(env_id)}", split="test")',
        'observation, info = env.reset(options={"image_index": 0})',
        "{key: value.shape for key, value in observation.items()}",
        "info",
        f'action = {{"location": [0.5, 0.0], "stop": 0{answer}}}',
        "observation, reward, terminated, truncated, info = env.step(action)",
        'round(reward, 4), terminated, info["num_glimpses"]',
        'action["stop"] = 1',
        "observation, reward, terminated, truncated, info = env.step(action)",
        'round(reward, 4), terminated, info["num_glimpses"]',
    )
    said = (
        "The answer is the classifier's."
        if env.classifier is not None
        else "The answer here is the label itself, to show what a right one pays."
    )
    return f"{session}\n\n{said}"


def _session(*lines: str) -> str:
    """Lines as a doctest, each with what it prints now."""
    names: dict[str, Any] = {}
    out = ["```python"]
    for line in lines:
        out.append(f">>> {line}")
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


def _actions(env_id: str) -> str:
    rows = []
    for view in _views(env_id):
        env = _live(env_id, view=view)
        said = f'`view="{view}"`'
        masks = ""
        if view in GRID_VIEWS:
            said += f", `grid={env.grid}` unless given"
            env.reset(seed=0)
            masks = f"`({len(env.action_masks())},)`"
        rows.append((said, f"`{space_text(env.action_space)}`", masks))
    table = _table(("Keyword", "Action space", "`action_masks()`"), rows)
    return f"In every view:\n\n{table}"


def _observations(env_id: str) -> str:
    found: dict[tuple[str, str], dict[str, str]] = {}
    default: dict[str, list[str]] = {"image": [], "flat": []}
    for view in _views(env_id):
        default[_live(env_id, view=view).task.glimpse_format or ""].append(view)
        for observe in OBSERVATIONS:
            for shape in default:
                env = _live(env_id, view=view, observe=observe, glimpse_format=shape)
                assert isinstance(env.observation_space, spaces.Dict)
                texts = {key: space_text(part) for key, part in env.observation_space.items()}
                # A view changes actions only.
                assert found.setdefault((observe, shape), texts) == texts
    keys = dict.fromkeys(key for texts in found.values() for key in texts)
    rows = []
    for key in keys:
        shown = [observe for observe in OBSERVATIONS if key in found[observe, "image"]]
        cells = [f"`{found[shown[0], shape][key]}`" for shape in default]
        with_ = "" if len(shown) == len(OBSERVATIONS) else f'`observe="{shown[0]}"`'
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
    return f"{said}\n\n{table}"


def _views(env_id: str) -> list[str]:
    """The views that an id has: one choice for all only where no prediction is asked."""
    return [view for view in VIEWS if view != "single" or env_id in POLICY_IDS]


def _with_defaults(text: str, env_id: str) -> str:
    """The docstring's table of arguments, with this id's values."""
    values = _registered(env_id)

    def put(row: re.Match[str]) -> str:
        name = row[1]
        if name not in values:
            return row[0]
        return f"| `{name}` |{row[2]}| `{json.dumps(values[name])}` |{row[4]}"

    text = re.sub(r"^\| `(\w+)` *\|([^|]*)\|([^|]*)\|(.*)$", put, text, flags=re.M)
    assert "per id" not in text
    return text


def _data(env: GlimpseEnv) -> str:
    info = datasets.DATASETS[env.dataset.lower()]
    counts = {split: len(datasets.load(env.dataset, split)) for split in datasets.SPLITS}
    height, width, channels = env.image_shape
    text = _wrap(
        f"{info.title}: {info.description}. Images are {height}x{width}x{channels}; the "
        f"{env.num_classes} classes are {', '.join(env.class_names)}."
    )
    if not info.needs_data:
        module = getattr(datasets, env.dataset.lower())
        story = inspect.getdoc(module) or ""
        text += "\n\n" + "\n\n".join(story.split("\n\n")[1:])
    rows = [(f'`split="{split}"`', f"{count:,}") for split, count in counts.items()]
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

"""The direction of imports: train -> agents -> dtram_env, no circles, no program imported."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A package may import itself and the packages after it.
LAYERS = ("train", "agents", "dtram_env")
OUTSIDE = (
    "benchmarks",
    "demo",
    "docs",
    "examples",
    "tests",
)  # they import the packages, never the reverse
DATASETS, STORAGE = "dtram_env.datasets", "dtram_env.datasets.storage"

Graph = Mapping[str, set[str]]


def read_imports(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules of some packages, each with the modules below `root` that it imports.

    Imports in functions count, those under ``if TYPE_CHECKING:`` do not. An import of a submodule
    is an edge to the submodule, not to the packages around it.
    """
    paths = {
        _name(path, root): path for package in packages for path in (root / package).rglob("*.py")
    }
    outside = {name for name in OUTSIDE if (root / name).is_dir()}
    return {name: set(_imported(name, path, {*paths, *outside})) for name, path in paths.items()}


def violations(graph: Graph) -> list[str]:
    """Every import that breaks a rule, as ``module -> module: rule``, and every circle."""
    found = []
    for module, imported in sorted(graph.items()):
        for target in sorted(imported):
            rule = _broken_rule(module, target, graph)
            if rule:
                found.append(f"{module} -> {target}: {rule}")
    return found + [f"circle: {' -> '.join(circle)}" for circle in circles(graph)]


def circles(graph: Graph) -> list[list[str]]:
    """Circles of imports, from module back to module; one for each edge that must go."""
    left = {module: set(imported) - {module} for module, imported in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # graphlib lists predecessors: reversed, each imports
            found.append(circle)
            left[circle[0]].discard(circle[1])
        else:
            return found


def _broken_rule(module: str, target: str, graph: Graph) -> str | None:
    layer, target_layer = module.split(".")[0], target.split(".")[0]
    if target_layer in OUTSIDE:
        return "a package imports nothing of benchmarks, demo, docs, examples or tests"
    if LAYERS.index(target_layer) < LAYERS.index(layer):
        return "imports go train -> agents -> dtram_env"
    if module != target and _is_program(target, graph):
        return "no module imports a program"
    inside_datasets = target == DATASETS or target.startswith(f"{DATASETS}.")
    allowed = (
        target == f"{DATASETS}.errors" or target == STORAGE or target.startswith(f"{STORAGE}.")
    )
    if layer == "agents" and inside_datasets and not allowed:
        return f"agents imports only {STORAGE} and the errors of the datasets"
    return None


def _is_program(module: str, graph: Graph) -> bool:
    """Whether a module is a file directly in train/."""
    return module.startswith("train.") and module.count(".") == 1 and not _is_package(module, graph)


def _is_package(module: str, graph: Graph) -> bool:
    return any(other.startswith(f"{module}.") for other in graph)


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module: str, path: Path, known: set[str]) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        else:
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names = [(source, alias.name) for alias in node.names]
        for source, name in names:
            target = f"{source}.{name}"
            if target not in known:
                target = source
            while target and target not in known:  # benchmarks.x -> benchmarks
                target = target.rpartition(".")[0]
            if target:
                yield target


def _statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _statements(ast.Module([other], []))
        else:
            yield from _statements(node)


def test_imports_go_one_way() -> None:
    graph = read_imports(ROOT, LAYERS)
    assert len(graph) > 50
    assert violations(graph) == []


def test_the_modules_of_train_are_programs_and_what_they_share_lies_in_folders() -> None:
    for path in (ROOT / "train").glob("*.py"):
        is_program = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert is_program or path.name == "__init__.py", path


def plant(root: Path, files: Mapping[str, str]) -> Graph:
    """Writes a small tree of modules and reads its imports."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_imports(root, LAYERS)


CLEAN = {
    "dtram_env/__init__.py": "from .env import Env",
    "dtram_env/env.py": "import numpy\nfrom . import rules",
    "dtram_env/rules.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .env import Env\n"
    ),
    "dtram_env/datasets/__init__.py": "from .storage.store import Store",
    "dtram_env/datasets/storage/__init__.py": "",
    "dtram_env/datasets/storage/store.py": "",
    "agents/__init__.py": "from .dtram import DTRAM",
    "agents/dtram.py": "from dtram_env.datasets.storage.store import Store\nimport dtram_env.env",
    "train/__init__.py": "",
    "train/common/__init__.py": "",
    "train/common/run.py": "from agents import DTRAM",
    "train/reinforce.py": "from train.common import run\nfrom train.common.run import DTRAM",
    "train/search.py": "import train.common.run",
    "benchmarks/speed.py": "import train.reinforce",
}


def test_a_clean_tree_has_no_violations(tmp_path: Path) -> None:
    graph = plant(tmp_path, CLEAN)
    assert violations(graph) == []
    assert graph["dtram_env.env"] == {"dtram_env.rules"}
    assert graph["train.reinforce"] == {"train.common.run"}
    assert graph["agents.dtram"] == {"dtram_env.datasets.storage.store", "dtram_env.env"}


def violations_with(root: Path, module: str, text: str) -> list[str]:
    """The violations of a clean tree in which one module has the given text."""
    return violations(plant(root, CLEAN | {f"{module.replace('.', '/')}.py": text}))


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("dtram_env.rules", "import agents.dtram", "agents.dtram: imports go"),
        ("dtram_env.rules", "def f():\n    from agents import DTRAM", "agents"),
        ("agents.dtram", "from train.common.run import x", "train.common.run"),
        ("agents.dtram", "import benchmarks.speed", "benchmarks: a package"),
        ("agents.dtram", "from dtram_env import datasets", "dtram_env.datasets:"),
        ("train.search", "from train import reinforce", "train.reinforce: no mod"),
        ("train.search", "from .reinforce import main", "train.reinforce: no mod"),
        ("train.common.run", "import train.search", "train.search: no mod"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, module: str, text: str, expected: str) -> None:
    found = violations_with(tmp_path, module, text)
    start = f"{module} -> {expected}"
    (line,) = [line for line in found if line.startswith(start.partition(": ")[0])]
    assert line.startswith(start)


@pytest.mark.parametrize(
    ("module", "text", "back"),
    [
        ("dtram_env.rules", "def late():\n    from .env import Env", "dtram_env.env"),
        ("dtram_env.datasets.storage.store", "from ... import datasets", "dtram_env.datasets"),
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, module: str, text: str, back: str) -> None:
    found = violations_with(tmp_path, module, text)
    (circle,) = [line for line in found if line.startswith("circle: ")]
    assert set(circle.removeprefix("circle: ").split(" -> ")) == {module, back}

"""What is installed: the wheel's content, the editable install, and what an import costs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dtram_env

ROOT = Path(__file__).parents[1]


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Runs this interpreter in another folder, with `path` before everything installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked as an installer would."""
    top = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(top), str(ROOT), cwd=top)
    (archive,) = top.glob("dtram-*.whl")
    with zipfile.ZipFile(archive) as content:
        content.extractall(top / "site")
    return top / "site"


def modules(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*.py")}


def test_wheel_content(wheel: Path) -> None:
    tops = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"dtram_env", "dtram_agents"}  # no agents, train, tests or pretrained
    assert modules(wheel / "dtram_env") == modules(ROOT / "dtram_env")
    assert modules(wheel / "dtram_agents") == modules(ROOT / "agents")
    shipped = wheel / "dtram_agents" / "pretrained"
    for path in (ROOT / "pretrained").rglob("*"):
        if path.is_file():
            assert (
                shipped / path.relative_to(ROOT / "pretrained")
            ).read_bytes() == path.read_bytes()
    assert (wheel / "dtram_env" / "py.typed").exists()
    (about,) = wheel.glob("*.dist-info")
    assert about.name == f"dtram-{dtram_env.__version__}.dist-info"
    assert "MIT License" in (about / "licenses" / "LICENSE").read_text()


def test_every_module_of_the_wheel_imports_under_its_name_there(
    wheel: Path, tmp_path: Path
) -> None:
    """None reaches for the clone's names: `agents` and `train` cannot be imported there."""
    program = """
import importlib, pathlib, sys
sys.modules["agents"] = sys.modules["train"] = None
import dtram_env, dtram_agents
for package in (dtram_env, dtram_agents):
    folder = pathlib.Path(package.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
print(dtram_env.__file__)
print(dtram_agents.__file__)
"""
    assert python("-c", program, cwd=tmp_path, path=wheel).splitlines() == [
        str(wheel / "dtram_env" / "__init__.py"),
        str(wheel / "dtram_agents" / "__init__.py"),
    ]


def test_editable_install_serves_any_folder(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom hatchling.build import build_editable\nprint(build_editable(sys.argv[1]))"
    )
    name = python("-c", program, str(tmp_path), cwd=ROOT)
    with zipfile.ZipFile(tmp_path / name) as content:
        content.extractall(tmp_path / "site")
    program = (
        "import site, sys\nsite.addsitedir(sys.argv[1])\n"
        "from importlib.util import find_spec\n"
        "print(*(find_spec(name).origin for name in ('dtram_env', 'agents', 'train')))"
    )
    assert python("-c", program, str(tmp_path / "site"), cwd=tmp_path).split() == [
        str(ROOT / name / "__init__.py") for name in ("dtram_env", "agents", "train")
    ]


def test_importing_the_environments_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, dtram_env, dtram_env.datasets\n"
        "heavy = ('torch', 'torchvision', 'scipy', 'PIL', 'stable_baselines3', 'matplotlib',\n"
        "         'pygame')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert python("-c", program, cwd=tmp_path, path=ROOT) == "[]"

"""The wheel: its content, its imports, and what runs without the extras."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dtram_env

ROOT = Path(__file__).parents[1]


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Runs this interpreter in another folder, with `path` before the installed packages."""
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
    """The built wheel, unpacked as an installer does it."""
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
            copy = shipped / path.relative_to(ROOT / "pretrained")
            assert copy.read_bytes() == path.read_bytes()
    assert (wheel / "dtram_env" / "py.typed").exists()
    (metadata,) = wheel.glob("*.dist-info")
    assert metadata.name == f"dtram-{dtram_env.__version__}.dist-info"
    assert "MIT License" in (metadata / "licenses" / "LICENSE").read_text(encoding="utf-8")


def test_every_module_of_the_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    """None imports `agents` or `train`, which exist in a clone only."""
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


# Blocks the import of every distribution that `pip install dtram` does not install.
ONLY_BASE_DEPENDENCIES = """
import re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def normal(name):
    return re.sub("[-_.]+", "-", name).lower()

installed, pending = set(), ["dtram"]
while pending:
    name = pending.pop()
    try:
        found = requires(name) or []
    except PackageNotFoundError:  # needed by another version of Python
        continue
    installed.add(normal(name))
    wanted = (re.match(r"[\\w.-]+", text)[0] for text in found if "extra ==" not in text)
    pending += [name for name in wanted if normal(name) not in installed]

class Missing:
    blocked = {
        top for top, names in packages_distributions().items()
        if installed.isdisjoint(map(normal, names))
    }

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
assert "torch" in Missing.blocked and "numpy" not in Missing.blocked
"""


def test_the_environments_run_on_the_base_dependencies(wheel: Path, tmp_path: Path) -> None:
    program = f"""{ONLY_BASE_DEPENDENCIES}
import gymnasium as gym, dtram_env
env = gym.make("DTRAM-Signpost-v0", render_mode="rgb_array")
env.reset(seed=0)
env.step(env.action_space.sample())
env.render()
envs = gym.make_vec("DTRAM-Birds-v0", num_envs=2)
envs.reset(seed=0)
envs.step(envs.action_space.sample())
result = dtram_env.evaluate(dtram_env.CenterPolicy(4, stop_after=1), "DTRAM-Signpost-v0")
print(dtram_env.__file__, result.images)
"""
    path, _images = python("-c", program, cwd=tmp_path, path=wheel).split()
    assert path == str(wheel / "dtram_env" / "__init__.py")


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("import dtram_agents", "train"),
        ("gym.make_vec('DTRAM-Signpost-v0', num_envs=2, backend='torch')", "train"),
        ("import dtram_env.sb3", "train"),
        ("gym.make('DTRAM-Signpost-v0', render_mode='human').reset()", "render"),
    ],
)
def test_a_missing_extra_is_an_error_with_the_install_line(
    wheel: Path, tmp_path: Path, code: str, extra: str
) -> None:
    program = f"""{ONLY_BASE_DEPENDENCIES}
import gymnasium as gym, dtram_env
try:
    {code}
except ImportError as error:
    assert isinstance(error, gym.error.DependencyNotInstalled)
    print(error)
"""
    message = python("-c", program, cwd=tmp_path, path=wheel)
    told = rf"\w+ is not installed: run `pip install 'dtram\[{extra}\]'`"
    clone = "" if "dtram_agents" in code else rf", or in a clone `pip install -e '\.\[{extra}\]'`"
    assert re.fullmatch(told + clone, message)


def test_an_editable_install_works_from_any_folder(tmp_path: Path) -> None:
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
    # -S leaves out what is installed where the tests run.
    assert python("-S", "-c", program, str(tmp_path / "site"), cwd=tmp_path).split() == [
        str(ROOT / name / "__init__.py") for name in ("dtram_env", "agents", "train")
    ]

"""The examples: the recurrent PPO learns; the others use existing ids, and run if installed."""

import ast
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Normal

import agents  # noqa: F401 - registers the policy-only ids
import dtram_env

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
RECURRENT = EXAMPLES / "recurrent_ppo.py"
RUNNER = EXAMPLES / "onnx_runner.py"
PROGRAMS = sorted(set(EXAMPLES.glob("*.py")) - {RUNNER})
ZOO = EXAMPLES / "rl_zoo3/ppo.yml"
LIBRARIES = {
    "torchrl_ppo.py": "torchrl",
    "rllib_ppo.py": "ray[rllib]",
    "tianshou_ppo.py": "tianshou",
}
IDS = r"(?:(?:agents|dtram_env):)?DTRAM-\w+(?:-Policy)?-v\d+"
# Arguments of `make_vec` and of the libraries, which are no keywords of the scalar environment.
OTHER_ARGUMENTS = {"num_envs", "autoreset_mode", "backend", "device", "categorical_action_encoding"}


def name(path: Path) -> str:
    return path.name


def installed(library: str) -> bool:
    """Whether a library is there; only RLlib, and not Ray alone, brings ormsgpack."""
    return importlib.util.find_spec(library.replace("ray[rllib]", "ormsgpack")) is not None


@pytest.mark.parametrize("path", [*PROGRAMS, ZOO], ids=name)
def test_the_head_says_how_to_install_and_run_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8")[:1500]
    install = re.search(
        r"Install: +python3 -m venv (\S+) && (\S+)/bin/pip install -e '\.\[train\]' ?.*$",
        head,
        re.M,
    )
    assert install and install[1] == install[2]
    library = LIBRARIES.get(path.name, "" if path == RECURRENT else "rl_zoo3")
    assert library in install[0]
    commands = re.findall(rf"Run: +OMP_NUM_THREADS=1 {install[1]}/bin/python (.*)$", head, re.M)
    assert commands
    for command in commands:
        assert str(path.relative_to(ROOT)) in command


@pytest.mark.parametrize("path", [*PROGRAMS, ZOO], ids=name)
def test_ids_exist(path: Path) -> None:
    found = re.findall(IDS, path.read_text(encoding="utf-8"))
    assert found
    for env_id in found:
        assert env_id.split(":")[-1] in gym.registry


def keywords_of(program: ast.AST) -> list[dict[str, Any]]:
    """Keywords of each call that makes an environment: constants, or `...` for other values."""

    def value(node: ast.expr) -> Any:
        return node.value if isinstance(node, ast.Constant) else ...

    found: list[dict[str, Any]] = []
    for node in ast.walk(program):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("gym.make", "gym.make_vec", "GymEnv"):
            found.append({k.arg: value(k.value) for k in node.keywords if k.arg})
        for keyword in node.keywords:
            if keyword.arg == "env_config" and isinstance(keyword.value, ast.Dict):
                names = [str(value(key)) for key in keyword.value.keys if key is not None]
                found.append(dict(zip(names, map(value, keyword.value.values), strict=True)))
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=name)
def test_compiles_and_its_environments_can_be_made(path: Path, mnist_folder: Path) -> None:
    text = path.read_text(encoding="utf-8")
    program = ast.parse(text)
    compile(text, str(path), "exec", dont_inherit=True)
    env_id = next(
        node.value
        for node in ast.walk(program)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(IDS, node.value)
    )
    calls = keywords_of(program)
    assert calls
    for keywords in calls:
        given = {k: v for k, v in keywords.items() if v is not ... and k not in OTHER_ARGUMENTS}
        observation, _ = gym.make(env_id, **given).reset(seed=0)
        assert "glimpse" in observation or "canvas" in observation
    for line in text.splitlines():
        if "gamma" in line and "=" in line and not line.lstrip().startswith("#"):
            assert re.search(r"gamma=1\.0", line), line


def test_environments_of_the_zoo_can_be_made(mnist_folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    table = yaml.safe_load(ZOO.read_text(encoding="utf-8"))
    assert table
    for env_id, settings in table.items():
        assert settings["gamma"] == 1.0
        env = gym.make(env_id, **settings["env_kwargs"])
        assert isinstance(env.action_space, gym.spaces.MultiDiscrete)
        observation, _ = env.reset(seed=0)
        assert "canvas" in observation


@pytest.mark.slow
@pytest.mark.parametrize("program", LIBRARIES)
def test_runs_if_its_library_is_installed(
    program: str, mnist_folder: Path, run_python: Callable[..., str]
) -> None:
    if not installed(LIBRARIES[program]):
        pytest.skip(f"{LIBRARIES[program]} is not installed")
    run_python(f"examples/{program}", "--total-timesteps", "1000", "--num-envs", "4")


@pytest.mark.slow
def test_rllib_samples_on_two_machines(
    mnist_folder: Path, cluster: Any, run_python: Callable[..., str]
) -> None:
    """Each runner needs a CPU, and each machine has one."""
    if not installed(LIBRARIES["rllib_ppo.py"]):
        pytest.skip("RLlib is not installed")
    cluster.add_node(num_cpus=1)
    where = ["--ray", cluster.address, "--num-env-runners", "2"]
    said = run_python("examples/rllib_ppo.py", *where, "--total-timesteps", "8192")
    assert len(re.findall(r"^ *[\d,]+ steps  return [-\d.]+  glimpses [\d.]+$", said, re.M)) == 2


@pytest.mark.slow
def test_the_zoo_runs_if_it_is_installed(
    mnist_folder: Path, tmp_path: Path, run_python: Callable[..., str]
) -> None:
    if not installed("rl_zoo3"):
        pytest.skip("rl_zoo3 is not installed")
    words = "--algo ppo --env DTRAM-MNIST-v0 --gym-packages dtram_env --eval-freq -1 -n 4096"
    run_python("-m", "rl_zoo3.train", *words.split(), "--conf-file", str(ZOO), "-f", str(tmp_path))


def test_the_runner_of_exported_agents_needs_no_torch() -> None:
    tree = ast.parse(RUNNER.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or node.names[0].name for node in found]
    assert not {name.split(".")[0] for name in names} & {"torch", "agents", "train"}


# --- recurrent_ppo.py


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recurrent_ppo", RECURRENT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_it_learns_and_evaluates_every_test_image(
    tmp_path: Path, run_python: Callable[..., str]
) -> None:
    """A guess errs on 75 % of Signpost's images, the best use of the centre glimpse on 37.5 %."""
    words = ["--env-id", "DTRAM-Signpost-v0", "--total-timesteps", "40960", "--num-envs", "256"]
    run_python("-W", "error", str(RECURRENT), *words, "--run-dir", str(tmp_path))
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (found["split"], found["images"]) == ("test", 2000)
    assert found["error"] < 0.5
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_new_episode_starts_from_a_zero_state(program: ModuleType) -> None:
    torch.manual_seed(0)
    env = gym.make_vec("DTRAM-Signpost-v0", num_envs=1).unwrapped
    agent = program.Agent(env, program.Options(hidden=8))
    features = torch.randn(5, 3, 8)
    start = torch.zeros(5, 3)
    start[2, 1] = 1  # the second slot begins an episode at step 2
    states, last = agent.unroll(features, torch.randn(3, 8), start)
    torch.testing.assert_close(states[-1], last)
    alone, _ = agent.unroll(features[2:, 1:2], agent.reset(1), torch.zeros(3, 1))
    torch.testing.assert_close(states[2:, 1:2], alone)


def test_log_prob_counts_only_what_the_environment_reads(program: ModuleType) -> None:
    """Steps: goes on, stops, and two at the last glimpse, where `stop` is not read."""
    heads = (
        Normal(torch.zeros(4, 2), torch.ones(2)),
        Bernoulli(probs=torch.full((4,), 0.2)),
        Categorical(probs=torch.tensor([0.3, 0.7]).expand(4, 2)),
    )
    action = {
        "location": torch.tensor([[1.0, 2.0]]).expand(4, 2),
        "stop": torch.tensor([0, 1, 0, 1]),
        "prediction": torch.ones(4, dtype=torch.int64),
    }
    last = torch.tensor([False, False, True, True])
    log_location = -0.5 * (1 + 4) - math.log(2 * math.pi)
    expected = [math.log(0.8) + log_location, math.log(0.2) + math.log(0.7), *[math.log(0.7)] * 2]
    torch.testing.assert_close(program.log_prob(heads, action, last), torch.tensor(expected))


def test_bad_options(program: ModuleType) -> None:
    with pytest.raises(ValueError, match="--first-stop 1"):
        program.Options(first_stop=1)
    env = gym.make_vec("DTRAM-MNIST-Policy-v0", num_envs=1).unwrapped
    with pytest.raises(ValueError, match="expected predictions"):
        program.Agent(env, program.Options())


def test_its_agent_is_a_policy(program: ModuleType) -> None:
    env = gym.make_vec("DTRAM-Signpost-v0", num_envs=1).unwrapped
    agent = program.Agent(env, program.Options(hidden=8))
    keywords: dict[str, Any] = {"backend": "torch", "split": "validation"}
    one = dtram_env.evaluate(agent, "DTRAM-Signpost-v0", num_envs=7, **keywords)
    many = dtram_env.evaluate(agent, "DTRAM-Signpost-v0", num_envs=600, **keywords)
    assert one.images == many.images == 600
    assert (one.prediction == many.prediction).mean() > 0.99  # ties of an untrained network

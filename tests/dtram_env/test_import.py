"""What `import dtram_env` imports and registers (tests/test_package.py has missing packages)."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest

import dtram_env
from dtram_env.optional import MissingDependencyError, require

HEAVY = ("torch", "torchvision", "scipy", "PIL", "stable_baselines3", "pygame", "matplotlib")


def test_importing_and_stepping_on_numpy_loads_nothing_heavy(
    run_python: Callable[..., str],
) -> None:
    program = f"""
import sys, gymnasium as gym, dtram_env
env = gym.make("DTRAM-Signpost-v0"); env.reset(seed=0); env.step(env.action_space.sample())
env = gym.make_vec("DTRAM-Signpost-v0", num_envs=2); env.reset(seed=0)
dtram_env.evaluate(dtram_env.CenterPolicy(4, stop_after=1), "DTRAM-Signpost-v0")
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run_python("-c", program).strip() == "[]"


def test_every_id_is_registered_with_both_entry_points() -> None:
    for env_id in dtram_env.ENV_IDS:
        spec = gym.spec(env_id)
        assert spec.entry_point == "dtram_env.env:GlimpseEnv"
        assert spec.vector_entry_point == "dtram_env.vector_env:GlimpseVectorEnv"
        assert spec.max_episode_steps is None
        assert all(isinstance(value, (str, int, float)) for value in spec.kwargs.values())


def test_public_names_exist() -> None:
    for name in dtram_env.__all__:
        assert getattr(dtram_env, name) is not None


def test_a_package_that_fails_to_import_shows_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_there", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(ModuleNotFoundError, match="not_there") as caught:
            require("broken", "train")
    assert not isinstance(caught.value, MissingDependencyError)

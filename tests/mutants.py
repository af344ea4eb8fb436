"""Small changes to the code, each of which a test must notice::

    python tests/mutants.py                                         # all; a minute or two
    python tests/mutants.py agents/objective.py agents/stopping.py  # those in some files

Each change is made in a copy of the tree, where the tests that hold its rule then run. A change
that they pass is a survivor: no test holds that rule.

Not in the list, because no test can notice it: ``episodes.ends`` with ``t == max_glimpses``, as t
never exceeds the budget; the sensors without their clip where a view has clipped the location
before; ``act.Halt`` that counts its steps as floats.
"""

import compileall
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import NamedTuple

# Imported before the forks, so that no run of tests has to do it again.
import gymnasium  # noqa: F401
import hypothesis  # noqa: F401
import pytest
import stable_baselines3  # noqa: F401
import torch  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("agents", "dtram_env", "train", "tests", "pyproject.toml")
SAID = "said.txt"  # what pytest prints
LONGEST = 600.0  # seconds of a run of tests; a change may make a loop endless


class Mutant(NamedTuple):
    """A change to the code, and the tests of which one must fail."""

    file: str
    old: str  # occurs once in the file
    new: str
    tests: str  # file in tests/
    names: str  # of the tests, as pytest's -k reads them


OBJECTIVE, STOPPING = "agents/test_objective.py", "agents/test_stopping.py"
UNROLL, ACT = "agents/test_unroll.py", "agents/halting/test_act.py"
EPISODES, VECTOR = "dtram_env/test_episodes.py", "dtram_env/test_vector_env.py"
VIEWS = "dtram_env/test_views.py"
SENSOR, AUGMENT = "dtram_env/test_sensor.py", "train/common/test_augment.py"
OPTIMIZERS, CELLS = "train/common/test_optimizers.py", "agents/test_location_policy.py"
MNIST, CLAIMS = "dtram_env/datasets/sources/test_mnist.py", "train/paper/test_claims.py"
FACTS, BOARD = "train/baselines/test_facts.py", "train/test_leaderboard.py"
RESNET, MAP = "agents/test_resnet_agent.py", "agents/test_spatial_map.py"

CHOSEN = "that_is_chosen or (exact_one and choose)"
CLAMP = "location = location.clamp(-1.0, 1.0)\n            code"

CHANGES: dict[str, list[tuple[str, str, str, str]]] = {
    "dtram_env/episodes.py": [
        ("(t >= max_glimpses)", "(t > max_glimpses)", EPISODES, "ends_on"),
        (" & (t >= 1)", "", EPISODES, "ends_on"),
        ("return discount**t", "return discount ** (t - 1)", EPISODES, "grade_is"),
        ("max(0, i - (n - extra))", "min(i, extra)", EPISODES, "shards_are"),
        ("self._position >= self._size", "self._position > self._size", EPISODES, "sequential"),
        ("or generator is not self._generator", "", EPISODES, "new_generator"),
        ("self._b.select(moving, location", "self._b.select(active, location", VECTOR, "equals"),
        ("right = ended & (", "right = (", VECTOR, "rewards_are_discounts"),
    ],
    "dtram_env/sensor.py": [
        ("* size / 2 - side / 2 + 0.5\n", "* size / 2 - side / 2\n", SENSOR, "odd_side"),
        ("(coordinate, dtype=np.float64)", "(coordinate, dtype=np.float32)", SENSOR, "float64"),
        ("min(max(x, -1.0), 1.0)", "x", SENSOR, "last_corner"),
        ("location = np.clip(location, -1.0, 1.0)", "pass", SENSOR, "agree_bit_for_bit"),
        ("dtype=np.int64) + n // 2)", "dtype=np.int64))", SENSOR, "scales_are"),
        ("top = corner(location[:, 1]", "top = corner(location[:, 0]", SENSOR, "agree_bit_for_bit"),
    ],
    "dtram_env/sensor_torch.py": [
        ("edge(coordinate.double(), size", "edge(coordinate, size", SENSOR, "float64"),
        (".nan_to_num(nan=0.0)", "", SENSOR, "nan_on_tensors"),
        (".clamp(-1.0, 1.0)", "", SENSOR, "agree_bit_for_bit"),
        ("dtype=torch.int64) + n // 2)", "dtype=torch.int64))", SENSOR, "agree_bit_for_bit"),
    ],
    "dtram_env/views.py": [
        ("Decision(_clip(b, action[:, :2])", "Decision(action[:, :2]", VIEWS, "are_clipped_in"),
        ("None if check else self._cells - 1", "None", VIEWS, "cells_are_clipped_in"),
        ("int(action[2] > 0)", "int(action[2] >= 0)", VIEWS, "continuous_actions_by_hand"),
        ("action[:, 2] > 0", "action[:, 2] >= 0", VECTOR, "stop_above_zero"),
        ("t >= min_glimpses", "t > min_glimpses", VIEWS, "early_stops"),
        (" | visited.all(-1)[:, None]", "", VIEWS, "early_stops"),
        ('indexing="ij"', 'indexing="xy"', VIEWS, "row_by_row"),
    ],
    "dtram_env/datasets/sources/mnist.py": [
        ("if not find(", "if find(", MNIST, "some_of_the_files"),
        (' + FILES["test"] if not', " if not", MNIST, "some_of_the_files"),
    ],
    "agents/stopping.py": [
        ("stop_logit > _logit", "stop_logit >= _logit", STOPPING, "tie"),
        (".amax(dim=-1) > self.threshold", ".amax(dim=-1) >= self.threshold", STOPPING, "tie"),
        ("time >= self.glimpses", "time > self.glimpses", STOPPING, "fixed_stop"),
        (".argmax(dim=0) + 1", ".argmax(dim=0)", STOPPING, "without_a_stop"),
    ],
    "agents/location_policy.py": [
        ("-(log_p.exp() * log_p)", "-(log_p.exp() * log_p).detach()", CELLS, "entropy_by_hand"),
        ("-(log_p.exp() * log_p)", "-(log_p.exp().detach() * log_p)", CELLS, "entropy_by_hand"),
        ("- normaliser", "", UNROLL, "log_density_by_hand"),
        (".masked_fill(params <= FORBIDDEN, -torch.inf)", "", CELLS, "shares_of"),
    ],
    "agents/spatial_map.py": [
        ("state.time[:, None].sqrt()", "state.time[:, None]", MAP, "product_of_readings"),
    ],
    "agents/unroll.py": [
        (CLAMP, "code", UNROLL, "of_the_recorded"),
        (CLAMP, CLAMP.replace("-1.0", "-2.0"), UNROLL, "of_the_recorded"),
        ("(params[t].detach())", "(params[t])", OBJECTIVE, "exact_one and reinforce-value"),
        ("entropy(location_params)", "entropy(location_params.detach())", UNROLL, "has_a_gradient"),
        ("agent.heads(state, t - 1)", "agent.heads(state, t - 2)", RESNET, "three_evaluations"),
        ("at_stop = (taken - 1)", "at_stop = (0 * taken)", UNROLL, "classify_agrees or counts"),
        ("stops = ends(t, stops, budget)", "", UNROLL, "classify_agrees"),
        ("index[running], location)", "index[: len(running)], location)", UNROLL, "agrees"),
        ("probability[ended] = torch", "probability[running[: len(ended)]] = torch", UNROLL, "agr"),
    ],
    "agents/objective.py": [
        ("first_target - b.first", "first_target", OBJECTIVE, "mean_log_prob_by_hand"),
        (" reward.mean(dim=0)", " reward[0]", OBJECTIVE, "mean_log_prob_by_hand"),
        ("values[0].detach() - b.first", "values[0].detach()", OBJECTIVE, CHOSEN),
        ("squared_error = squared_error + (b", "(b", OBJECTIVE, CHOSEN),
        (", torch.zeros_like(first_advantage)", ", first_advantage", OBJECTIVE, "look_first"),
        ("-(p * logsigmoid(logit) + ", "-(", OBJECTIVE, "stop_entropy_by_hand"),
        (" + (1 - p) * logsigmoid(-logit))", ")", OBJECTIVE, "stop_entropy_by_hand"),
        ("(taken[:-1] * entropy)", "entropy", OBJECTIVE, "stop_entropy_by_hand"),
        ("trajectory.stop_logit[:-1]\n", "trajectory.stop_logit\n", OBJECTIVE, "stop_entropy_by"),
        (".location_entropy)", ".location_entropy.detach())", OBJECTIVE, "location_entropy"),
        ("- objective.stop_entropy *", "+ objective.stop_entropy *", OBJECTIVE, "stop_entropy_by"),
        ("accuracy * discount**glimpses", "accuracy", OBJECTIVE, "cross_entropy_alone"),
        ("(time < num_glimpses) * adv", "(time <= num_glimpses) * adv", OBJECTIVE, "were_made"),
        ("reached * (time < steps) * adv", "reached * adv", OBJECTIVE, "were_made"),
        ("target = paid.expand", "target = 0 * paid.expand", OBJECTIVE, "that_were_made"),
        ("(1 - p) * values[-1]", "values[-1]", OBJECTIVE, "expected_return_by"),
        ("keepdim=True) - groups", "keepdim=True)", OBJECTIVE, "leave_one_out_by"),
        ("count > 0, after / count", "count >= 0, after / count", OBJECTIVE, "mean_prob_by"),
        ("+ DROP_DISCOUNT * gains[-1]", "+ gains[-1]", OBJECTIVE, "drops_in"),
        ("(score + log_stop * credit", "(score * log_stop * credit", OBJECTIVE, "reinforce-value"),
        ("prediction, labels, discount)", "prediction, labels, 1.0)", OBJECTIVE, "return_by_hand"),
        ("survives * (after.detach()", "(after.detach()", OBJECTIVE, "exact_one and exact-value"),
    ],
    "agents/halting/act.py": [
        ("(cumulative < 1 - epsilon)", "(cumulative <= 1 - epsilon)", ACT, "sum_to_one"),
        ("self.taken + self.active", "self.taken + goes_on", ACT, "halting_by_hand"),
        ("torch.where(goes_on, score, self.remainder)", "score", ACT, "halting_by_hand"),
        ("self.taken + self.remainder", "self.taken", ACT, "halting_by_hand"),
        ("(1 - state.score_sum) * state.logits", "0 * state.logits", ACT, "step_by_step"),
    ],
    "train/common/optimizers.py": [
        ('"weight_decay": settings.weight_decay}', '"weight_decay": 0}', OPTIMIZERS, "muon_decays"),
        ('fn="original"', 'fn="original", nesterov=False', OPTIMIZERS, "looks_ahead"),
        ("nesterov=settings.nesterov", "nesterov=True", OPTIMIZERS, "original_codes"),
    ],
    "train/common/augment.py": [
        ("draw(2 * shift / height)", "draw(2 * shift / width)", AUGMENT, "oblong"),
        ("if epoch < math.floor", "if epoch <= math.floor", AUGMENT, "last_epochs"),
    ],
    "train/baselines/facts.py": [
        (
            "low, high = right * discount**budget, right * discount",
            "low, high = 0.0, right",
            FACTS,
            "contradicts_its_id",
        ),
        ("if key in needed:", "if key in needed and key not in record:", FACTS, "bad_record"),
    ],
    "train/leaderboard.py": [
        ("            standing.append(entry)\n", "", BOARD, "all_or_none"),
    ],
    "train/paper/claims.py": [
        ("confidences(scores)), whole]", "confidences(scores))]", CLAIMS, "whole_budget"),
    ],
}
MUTANTS = [Mutant(file, *change) for file, changes in CHANGES.items() for change in changes]


def changed(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the changed file; ValueError unless the old text occurs in it once."""
    text = (root / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file}: {mutant.old!r} occurs {count} times, expected once")
    return text.replace(mutant.old, mutant.new)


def run_tests(root: Path, tests: str, names: str) -> int | None:
    """Exit status of pytest in a tree, 0 if all tests passed and 1 if one failed; None if it took
    longer than `LONGEST`."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(root, tests, names))
    process.start()
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _test(root: Path, tests: str, names: str) -> None:
    os.chdir(root)
    sys.path.insert(0, str(root))
    with open(root / SAID, "wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which takes a while
    words = ["-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}", "-k", names]
    status = 3  # pytest's for an internal error
    try:
        status = int(pytest.main(words))
    finally:
        os._exit(status)


def survivors(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Makes each change and runs its tests; the changes that they pass."""
    alive = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source, copy = ROOT / name, root / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        # Time stamps are too coarse for files that change so often.
        compileall.compile_dir(root, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        sys.dont_write_bytecode = True
        by_file = defaultdict(set)
        for mutant in mutants:
            by_file[mutant.tests].add(mutant.names)
        for tests, names in by_file.items():
            if (status := run_tests(root, tests, " or ".join(sorted(names)))) != 0:
                said = (root / SAID).read_text(encoding="utf-8")
                raise ValueError(f"tests/{tests}: status {status} without any change:\n{said}")
        for mutant in mutants:
            path = root / mutant.file
            text = changed(mutant, root)
            before = path.read_text(encoding="utf-8")
            path.write_text(text, encoding="utf-8")
            status = run_tests(root, mutant.tests, mutant.names)
            path.write_text(before, encoding="utf-8")
            if status not in (0, 1, None):
                said = (root / SAID).read_text(encoding="utf-8")
                raise ValueError(f"{mutant}: status {status}:\n{said}")
            outcome = {0: "SURVIVED", 1: "noticed"}.get(status, "too long")
            print(f"{outcome}: {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
            alive += [mutant] if status == 0 else []
    return alive


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - CHANGES.keys():
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(CHANGES)}")
    chosen = [m for m in MUTANTS if m.file in (sys.argv[1:] or CHANGES)]
    found = survivors(chosen)
    print(f"{len(found)} of {len(chosen)} changes survived")
    sys.exit(bool(found))

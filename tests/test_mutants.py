"""Small changes to the code: the list fits the code, and a test notices every one."""

from collections.abc import Callable

import pytest

from tests.mutants import MUTANTS, changed


def test_each_change_can_be_made() -> None:
    for mutant in MUTANTS:
        compile(changed(mutant), mutant.file, "exec")


@pytest.mark.slow
def test_every_change_is_noticed(run_python: Callable[..., str]) -> None:
    said = run_python("tests/mutants.py", timeout=3600)
    assert said.endswith(f"\n0 of {len(MUTANTS)} changes survived\n")

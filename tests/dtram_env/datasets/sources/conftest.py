"""Trees in the official layouts, for `test_cub` and `test_cars`."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.dtram_env.datasets.trees import PHOTOGRAPHS, Tree


@pytest.fixture(scope="module")
def photographs(request: pytest.FixtureRequest) -> tuple[ModuleType, Callable[..., Tree]]:
    """The reader that a module tests, and what writes its tree."""
    return PHOTOGRAPHS[request.module.__name__.rpartition("_")[2]]


@pytest.fixture(scope="module")
def published(
    photographs: tuple[ModuleType, Callable[..., Tree]], tmp_path_factory: pytest.TempPathFactory
) -> Tree:
    """Three classes with two training images and one test image each; tests only read it."""
    reader, make = photographs
    return make(tmp_path_factory.mktemp("published") / reader.NAME)


@pytest.fixture
def whole(
    photographs: tuple[ModuleType, object], published: Tree, monkeypatch: pytest.MonkeyPatch
) -> Tree:
    published.publish(monkeypatch, photographs[0])
    return published


@pytest.fixture
def tree(whole: Tree, tmp_path: Path) -> Tree:
    """A copy that the test may change."""
    return whole.copy(tmp_path / whole.folder.name)

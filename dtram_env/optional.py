"""Optional dependencies: one clear error when a package of an extra is missing."""

import importlib
from typing import Any

from gymnasium.error import DependencyNotInstalled


class MissingDependencyError(ImportError, DependencyNotInstalled):
    """A package that only one feature needs is not installed; Gymnasium's error and Python's."""


def require(module: str, extra: str) -> Any:
    """Imports and returns a module, such as "torch", of an extra of this project, such as "train".

    Raises `MissingDependencyError`, whose message holds the install line, if it is not installed.
    If it is installed but fails to import, its own error passes through.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"{module} is not installed: run `pip install 'dtram[{extra}]'`, "
            f"or in a clone `pip install -e '.[{extra}]'`",
            name=module,
        ) from error

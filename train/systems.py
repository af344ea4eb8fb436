"""The systems of the talk's tables as runs: which program, with which options, on which data.

A protocol is an environment with its settings and the recipes of the systems that are compared on
it. What is not named in a recipe is the program's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .runner import ProgramRun


@dataclass(frozen=True)
class System:
    """How one system is trained.

    Attributes:
        program: of this folder, as in ``"reinforce.py"``.
        options: of it, by name.
        trunk: the system whose trained trunk it takes, if any.
        like: the system whose mean cost it is to have, if any.
    """

    program: str
    options: Mapping[str, Any] = field(default_factory=dict)
    trunk: str | None = None
    like: str | None = None


@dataclass(frozen=True)
class Protocol:
    """One setting of data and glimpses, and the systems that are compared in it.

    Attributes:
        name: of its folder of runs.
        env_id: the environment.
        env_options: keywords of it, as options of the programs.
        systems: by name.
        max_glimpses: the budget.
        boxed: whether its images come with ground-truth boxes to crop to.
    """

    name: str
    env_id: str
    max_glimpses: int
    systems: Mapping[str, System]
    env_options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, runs: Path, system: str, seed: int, data_dir: Path | None = None) -> ProgramRun:
        """The run of a system with a seed, in its folder under `runs`."""
        made = self.systems[system]
        options = {"env_id": self.env_id, "seed": seed, **self.env_options, **made.options}
        for name, other in (("trunk", made.trunk), ("like", made.like)):
            if other is not None:
                options[name] = self.folder(runs, other, seed)
        if data_dir is not None:
            options["data_dir"] = data_dir
        label = f"{self.name} {system} seed {seed}"
        return ProgramRun(label, made.program, self.folder(runs, system, seed), options)

    def folder(self, runs: Path, system: str, seed: int) -> Path:
        """Where the run of a system with a seed is."""
        return runs / self.name / system / f"seed-{seed}"

    def needed(self, system: str) -> list[str]:
        """The systems to be trained for one, in order, itself last."""
        made = self.systems[system]
        before = [name for other in (made.trunk, made.like) if other for name in self.needed(other)]
        return [*dict.fromkeys(before), system]

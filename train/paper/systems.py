"""The systems of the talk's tables: which program trains each one, with which recipe and options.

A protocol is an environment with its settings, and the systems that are compared on it. Options
that a system does not name have its recipe's value, else the program's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from train.common import one_look_networks
from train.common.augment import Augmentation
from train.common.one_look_networks import BIRDS_LOOK, SCENES_LOOK, HaltingBlocks
from train.common.options import PlainEncoder, ResNetEncoder
from train.common.program_run import ProgramRun
from train.dtram import recipes
from train.dtram.options import (
    ACT,
    AfterTrunk,
    Gaussian,
    Scan,
    StopAfter,
    StopByValue,
    StopOff,
    Values,
)
from train.dtram.recipes import BIRD_STOP

REINFORCE, ONE_LOOK = "reinforce.py", "one_look.py"
RECIPES = {REINFORCE: recipes.RECIPES, ONE_LOOK: one_look_networks.RECIPES}  # by program


@dataclass(frozen=True)
class System:
    """How one system is trained."""

    program: str  # file name in train/
    recipe: str = ""  # the program's --recipe; none if empty
    options: Mapping[str, Any] = field(default_factory=dict)  # by name; they change the recipe
    trunk: str | None = None  # system whose trained trunk it takes (--trunk)

    def option(self, name: str) -> Any:
        """The value of an option; None where neither system nor recipe names it."""
        return {**self.values, **self.options}.get(name)

    @property
    def values(self) -> Mapping[str, Any]:
        """The options of its recipe."""
        return RECIPES[self.program][self.recipe] if self.recipe else {}


@dataclass(frozen=True)
class Protocol:
    """One setting of data and glimpses, and the systems that are compared in it."""

    name: str  # and folder of its runs
    env_id: str
    max_glimpses: int  # the budget
    systems: Mapping[str, System]
    env: tuple[str, ...] = ()  # keywords of the environment, as words of --env

    def run(self, runs: Path, system: str, seed: int, data_dir: Path | None = None) -> ProgramRun:
        """The run of a system with a seed, in its folder under `runs`."""
        made = self.systems[system]
        options: dict[str, Any] = {"recipe": made.recipe or None, "env_id": self.env_id}
        options |= {"env": self.env or None, "seed": seed, **made.options, "data_dir": data_dir}
        trunk = self.folder(runs, made.trunk, seed) if made.trunk else None
        label, folder = f"{self.name} {system} seed {seed}", self.folder(runs, system, seed)
        after = (trunk,) if trunk else ()
        return ProgramRun(
            label, made.program, folder, options | {"trunk": trunk}, after, made.values
        )

    def folder(self, runs: Path, system: str, seed: int) -> Path:
        """Where the run of a system with a seed is."""
        return runs / self.name / system / f"seed-{seed}"

    @property
    def looks(self) -> list[str]:
        """The systems that look once, without those that halt."""
        looks = [n for n, s in self.systems.items() if s.program == ONE_LOOK or n == "one-look"]
        return [n for n in looks if not self.systems[n].option("halting")]

    def needed(self, system: str) -> list[str]:
        """The systems to be trained for one, in order, itself last."""
        before = self.systems[system].trunk
        return [*(self.needed(before) if before else ()), system]


def _stopper(trunk: str, stop: AfterTrunk, **options: Any) -> System:
    """A system that only learns when to stop, on the trunk of another."""
    return System(REINFORCE, options={"stop": stop, **options}, trunk=trunk)


PONDER_COSTS = (0.003, 0.01, 0.03, 0.1)
WAYS_TO_STOP = {
    "learned, exact gradient": ("discount-0.98",),
    "learned, sampled gradient": ("sampled",),
    "value of going on": ("value",),
    "ACT": tuple(f"act-{cost:g}" for cost in PONDER_COSTS),
}
"""Ways to stop that are compared on the trunk "ram", and the systems that learned them. Each ACT
has its own cost of a glimpse."""


def _other_ways(after: StopAfter, **options: Any) -> dict[str, System]:
    """The systems of `WAYS_TO_STOP` but the first, for as many epochs as `after`."""
    learns: Any = {"epochs": after.epochs, "batch_size": after.batch_size}
    stops: list[AfterTrunk] = [
        replace(after, gradient="reinforce"),
        StopByValue(max_mean_glimpses=after.max_mean_glimpses, **learns),
        *(ACT(ponder_cost=cost, **learns) for cost in PONDER_COSTS),
    ]
    names = [name for systems in list(WAYS_TO_STOP.values())[1:] for name in systems]
    return {name: _stopper("ram", stop, **options) for name, stop in zip(names, stops, strict=True)}


# -- MNIST -----------------------------------------------------------------------------------------

BOUNDS = (2.4, 3.6)
"""Bounds on validation's mean glimpses of our DT-RAMs."""
TRUNKS = {
    "ram": "",
    "ram-conv": ", cells and convolutional encoder (ours)",
    "ram-map": ", a map along a fixed scan (ours)",
}
"""The trunks on MNIST, and what their labels add to the paper's network."""
_MAP_BOUNDS = (2.4, 3.0)
STOP_BOUNDS = {
    trunk: {
        f"dt{trunk}-{k}": b for k, b in enumerate(_MAP_BOUNDS if trunk == "ram-map" else BOUNDS)
    }
    for trunk in TRUNKS
}
"""For each trunk the DT-RAMs on it, and their bounds on mean glimpses."""
_STOPPER_OPTIONS = {"ram-map": {"augment": recipes.RECIPES["mnist-map"]["augment"]}}
"""Options of the stoppers on a trunk."""
PUBLISHED_MEANS = {"1": 3.6, "2": 5.2}
"""Mean glimpses of the talk's DT-RAM-1 and DT-RAM-2: the bounds of the talk's algorithm."""
_TALKS_DISCOUNTS = {"1": 0.98, "2": 0.99}  # a port's; the talk does not give its own


def _published() -> dict[str, System]:
    """The talk's algorithm, and that of its code, with both discounts."""
    talk, original = recipes.RECIPES["talk"], recipes.RECIPES["original"]
    found = {"original-ram": System(REINFORCE, "original", {"stop": StopOff()})}
    learns = {name: original[name] for name in ("env", "augment", "baseline", "m")}
    for name, discount in _TALKS_DISCOUNTS.items():
        stop = replace(talk["stop"], max_mean_glimpses=PUBLISHED_MEANS[name])
        options = {"stop": stop, "discount": discount}
        found[f"talk-{name}"] = System(REINFORCE, "talk", options)
        options = {"discount": discount, **learns}
        found[f"original-{name}"] = _stopper("original-ram", original["stop"], **options)
    return found


MNIST = Protocol(
    "mnist",
    "DTRAM-MNIST-v0",
    7,
    {
        "fc": System(ONE_LOOK, options={"encoder": PlainEncoder("mlp")}),
        "conv": System(ONE_LOOK, options={"encoder": PlainEncoder("conv")}),
        "ram": System(REINFORCE, "mnist", {"stop": StopOff()}),
        "ram-conv": System(REINFORCE, "mnist-conv", {"stop": StopOff()}),
        "ram-map": System(REINFORCE, "mnist-map", {"stop": StopOff()}),
        **{
            name: _stopper(
                trunk,
                StopAfter(max_mean_glimpses=bound),
                discount=0.98,
                **_STOPPER_OPTIONS.get(trunk, {}),
            )
            for trunk, bounds in STOP_BOUNDS.items()
            for name, bound in bounds.items()
        },
        **_published(),
        "discount-0.98": _stopper("ram", StopAfter(max_mean_glimpses=None), discount=0.98),
        **_other_ways(StopAfter(max_mean_glimpses=None)),
    },
)

# -- from the talk's algorithm to ours, on MNIST ---------------------------------------------------


class Rung(NamedTuple):
    """A row of the ladder: what it changes, beside the changes kept in the rows before."""

    name: str
    change: str  # in words
    options: Mapping[str, Any]
    kept: bool = True  # whether it stays in the rows after
    recipe: str = "talk"  # with another recipe, none of the changes before stay
    on_trunk: bool = False  # whether it only learns to stop, on the trunk that such rungs share


def _rungs(epochs: int) -> tuple[Rung, ...]:
    """The rungs, each trained for so many epochs, the last one included."""
    bound, talk = BOUNDS[1], recipes.RECIPES["talk"]
    wide = Gaussian(std=0.2, learning_rate=1e-3)
    joint = replace(talk["stop"], max_mean_glimpses=bound, ram_share=0.75)
    at_once = replace(joint, ram_share=0.0)
    after = StopAfter(
        gradient="reinforce", reads="state", prior="none", entropy=0.0, max_mean_glimpses=bound
    )
    on_trunk = {"stop": after, "location_reward": "return"}  # as with a joint stop
    exact = replace(after, gradient="exact")
    answer = replace(exact, reads="answer")
    prior = replace(answer, prior="confidence")
    center = {"env": ("first_glimpse=center",)}
    scan = {**center, "location_reward": "mean_log_prob", "scan_epochs": epochs // 4}
    by_probability = {"location_reward": "mean_prob"}
    ours = recipes.RECIPES["mnist"]
    muon = {name: ours[name] for name in ("optimizer", "learning_rate")}
    on_map = {
        "epochs": epochs,
        "stop": StopAfter(max_mean_glimpses=bound),
        "augment": Augmentation(affine=1.0, elastic=0.5),
    }
    return (
        Rung(
            "talk",
            "the talk's algorithm, locations of std 0.2",
            {"epochs": epochs, "stop": at_once, "locator": wide},
        ),
        Rung(
            "ram-first",
            f"no stops in the first {joint.ram_share:.0%} of the epochs",
            {"stop": joint},
        ),
        Rung("all", "cross-entropy at every glimpse, taken or not", {"supervision": "all"}),
        Rung("leave-one-out", "leave-one-out baseline", {"baseline": "leave_one_out"}),
        Rung("after", "stopper after the trunk, not joint", on_trunk, on_trunk=True),
        Rung("exact", "exact stop gradient", {"stop": exact}, on_trunk=True),
        Rung("answer", "stopper reads class probabilities", {"stop": answer}, on_trunk=True),
        Rung("prior", "stopper begins as confidence", {"stop": prior}, on_trunk=True),
        Rung(
            "state",
            "std 0.12, the locator's gradient into the state",
            {"locator": talk["locator"]},
            kept=False,
        ),
        Rung("probability", "locations paid by probability", by_probability, kept=False),
        Rung("center", "the first glimpse at the centre", center, kept=False),
        Rung(
            "scan",
            "the first glimpse at the centre, a scripted warm-up, log-probability",
            scan,
            kept=False,
        ),
        Rung(
            "narrow",
            "narrow, slow and detached locations",
            {"locator": ours["locator"]},
            kept=False,
        ),
        Rung("augment", "affine augmentation", {"augment": ours["augment"]}),
        Rung("muon", "Muon", muon, kept=False),
        Rung(
            "map", "a map along a scan, in place of vector and locator", on_map, recipe="mnist-map"
        ),
    )


def _ladder(epochs: int) -> Protocol:
    systems, options = {}, dict[str, Any]()
    for rung in _rungs(epochs):
        own = {**(options if rung.recipe == "talk" else {}), **rung.options}
        options = own if rung.kept else options
        if not rung.on_trunk:
            systems[rung.name] = System(REINFORCE, rung.recipe, own)
            continue
        systems.setdefault("trunk", System(REINFORCE, rung.recipe, {**own, "stop": StopOff()}))
        names = ("env", "augment", "baseline", "m")
        shared = {name: systems["trunk"].option(name) for name in names}
        systems[rung.name] = _stopper("trunk", own["stop"], **shared)
    return Protocol("ladder", "DTRAM-MNIST-v0", 7, systems)


LADDER_EPOCHS = 12
RUNGS = _rungs(LADDER_EPOCHS)
LADDER = _ladder(LADDER_EPOCHS)

# -- digits at random places, in clutter -----------------------------------------------------------


def _digits_anywhere(name: str, env_id: str, side: int, bound: float) -> Protocol:
    """A task of the RAM paper, with images of `side` pixels and a bound on mean glimpses."""
    recipe = recipes.RECIPES[name]
    epochs = recipe["epochs"]
    whole = {"env": ("max_glimpses=1", "num_scales=1", f"glimpse_size={side}"), "epochs": epochs}
    stop = StopAfter(max_mean_glimpses=bound)
    augment = {"augment": recipe["augment"]}
    look = {"encoder": PlainEncoder("conv"), "side": 0, "epochs": epochs, **augment}
    return Protocol(
        name,
        env_id,
        8,
        {
            "one-look-conv": System(ONE_LOOK, options=look),
            # The network that reads DT-RAM's map, on a map that the first glimpse fills.
            "one-look": System(
                REINFORCE,
                name,
                {"core": replace(recipe["core"], window=0), "locator": Scan(), "stop": StopOff()}
                | whole,
            ),
            "ram": System(REINFORCE, name, {"stop": StopOff()}),
            "dtram": _stopper("ram", stop, **augment),
        },
    )


TRANSLATED = _digits_anywhere("translated", "DTRAM-TranslatedMNIST-v0", 60, 4.0)
CLUTTERED = _digits_anywhere("cluttered", "DTRAM-ClutteredMNIST-v0", 60, 4.0)
CLUTTERED_100 = _digits_anywhere("cluttered-100", "DTRAM-ClutteredMNIST100-v0", 100, 5.0)
ANYWHERE = (TRANSLATED, CLUTTERED, CLUTTERED_100)

# -- small drawn birds, and the same birds in large scenes -----------------------------------------

_FLIP = Augmentation(affine=0.0, flip=True)


def _looks(*sides: int, weights: str) -> dict[str, System]:
    """Networks that look once, at images shrunk to `sides`, from the weights of another."""
    encoder = ResNetEncoder("resnet18", weights=weights, width=8)
    names = {f"one-look-{side}": side for side in sides}
    return {
        name: System(ONE_LOOK, "scenes", {"side": side, "encoder": encoder})
        for name, side in names.items()
    }


def _bird_ram(recipe: str, **options: Any) -> System:
    """The trunk of small birds or scenes."""
    return System(REINFORCE, recipe, {"stop": StopOff(), **options})


def _bird_dtram(recipe: str) -> System:
    """The stopper of small birds or scenes."""
    return _stopper("ram", recipes.RECIPES[recipe]["stop"], augment=_FLIP, bf16=True)


def _halting_look(name: Any, ponder_cost: float) -> System:
    """The network that looks once at small birds, with blocks that halt."""
    halting = HaltingBlocks(name, ponder_cost=ponder_cost)
    return System(ONE_LOOK, "birds-small", {"halting": halting, "bf16": False})


BIRDS = Protocol(
    "birds-small",
    "DTRAM-BirdsSmall-v0",
    3,
    {
        **_looks(32, 64, weights=BIRDS_LOOK),
        "one-look-128": System(ONE_LOOK, "birds-small"),  # from random weights, as `BIRDS_LOOK`
        "ram": _bird_ram("birds-small"),
        # About as many glimpses in all as RAM: 14 x (2 + 3) against 24 x 3.
        "ram-curriculum": _bird_ram("birds-small", curriculum=(2, 3), epochs=14),
        "ram-last": _bird_ram("birds-small", supervision="last"),
        "dtram": _bird_dtram("birds-small"),
        "discount-0.98": _stopper("ram", BIRD_STOP, discount=0.98, augment=_FLIP, bf16=True),
        **_other_ways(BIRD_STOP, augment=_FLIP, bf16=True),
        "act-resnet": _halting_look("act", 0.02),
        "sact-resnet": _halting_look("sact", 0.005),
    },
    recipes.RECIPES["birds-small"]["env"],
)


def _scenes(side: int) -> Protocol:
    """Scenes of `side` pixels: one look at each side down to the thumbnail's, RAM and DT-RAM.

    At 256 and 512 pixels, more test images than the environment's own make the claims' intervals
    narrow.
    """
    # Cells of at most half a crop, so that some crop shows any part whole.
    finer = {"locator": Values(grid=32, learning_rate=4e-3)} if side > 512 else {}
    return Protocol(
        f"scenes-{side}",
        "DTRAM-Scenes-v0",
        6,
        {
            **_looks(*(s for s in (64, 128, 256, 512, 1024) if s <= side), weights=SCENES_LOOK),
            "ram": _bird_ram("scenes", **finer),
            "dtram": _bird_dtram("scenes"),
        },
        (f"image_size={side}", *(("num_test=10000",) if side <= 512 else ())),
    )


SCENES = tuple(_scenes(side) for side in (256, 512, 1024))

# -- photographs -----------------------------------------------------------------------------------


def _photographs(name: str, env_id: str, resnet: Any, sizes: tuple[int, int, int]) -> Protocol:
    """The talk's protocol on photographs."""
    image, thumbnail, crop = sizes  # sides in pixels
    budget, batch_size = (3, 24) if image > 256 else (6, 96)
    env = {"image_size": image, "thumbnail_size": thumbnail, "glimpse_size": crop}
    env["max_glimpses"] = budget
    curriculum = tuple(range(1, budget + 1))
    encoder = ResNetEncoder(resnet, weights="DEFAULT")

    def ram(**options: Any) -> System:
        own = {"encoder": replace(encoder, per_step=True), "batch_size": batch_size}
        own |= {"curriculum": curriculum, "stop": StopOff()}
        return System(REINFORCE, "original-cub", {**own, **options})

    def look(**options: Any) -> System:
        own = {"encoder": encoder, "side": thumbnail, "batch_size": batch_size}
        return System(ONE_LOOK, "original-cub", {**own, **options})

    stop: dict[str, Any] = {"augment": _FLIP, "bf16": True}
    act = ACT(epochs=BIRD_STOP.epochs, batch_size=BIRD_STOP.batch_size)
    return Protocol(
        name,
        env_id,
        budget,
        {
            "one-look": look(),
            "ram": ram(),
            # As many glimpses as all stages of the curriculum.
            "ram-no-curriculum": ram(curriculum=(), epochs=90 * sum(curriculum) // budget),
            "ram-last": ram(supervision="last"),
            "dtram": _stopper("ram", BIRD_STOP, **stop),
            "act": _stopper("ram", act, **stop),
            # Halting networks do not train in bfloat16.
            "act-resnet": look(halting=HaltingBlocks("act"), bf16=False),
            "sact-resnet": look(halting=HaltingBlocks("sact"), bf16=False),
        },
        tuple(f"{name}={value}" for name, value in env.items()),
    )


LARGE, MEDIUM = (512, 448, 224), (256, 224, 100)
CUB_LARGE = _photographs("cub-512", "DTRAM-CUB-v0", "resnet50", LARGE)
CUB_MEDIUM = _photographs("cub-256", "DTRAM-CUB-v0", "resnet34", MEDIUM)
CUB_MEDIUM_DEEP = _photographs("cub-256-deep", "DTRAM-CUB-v0", "resnet50", MEDIUM)
CARS_LARGE = _photographs("cars-512", "DTRAM-Cars-v0", "resnet50", LARGE)
PHOTOGRAPHS = (CUB_LARGE, CUB_MEDIUM, CUB_MEDIUM_DEEP, CARS_LARGE)
PROTOCOLS = {
    protocol.name: protocol for protocol in (MNIST, LADDER, *ANYWHERE, BIRDS, *SCENES, *PHOTOGRAPHS)
}

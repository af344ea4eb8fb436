"""The options of `reinforce`: what can be chosen of DT-RAM's network and of how it learns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from train.common.options import (
    AugmentOptions,
    NetworkOptions,
    OptimizerOptions,
    TaskOptions,
    check,
    check_ranges,
)

NOT_NEGATIVE = (
    "weight_decay",
    "augment",
    "elastic",
    "colour",
    "lighting",
    "stop_entropy",
    "locator_hidden",
    "locator_grid",
    "replay",
    "location_entropy",
    "glimpse_only_weight",
    "ponder_cost",
)

OF_THE_TRUNK = (
    *(field.name for field in fields(NetworkOptions) if field.name != "bf16"),
    "core",
    "hidden_size",
    "location_embedding",
    "per_step",
    "answer",
    "locator_input",
    "locator_hidden",
    "locator_grid",
    "stopper_input",
)
"""Options that a trunk has settled."""
OF_ITS_TRAINING = (
    "epochs",
    "batch_size",
    "learning_rate",
    "locator_learning_rate",
    "supervision",
    "location_reward",
    "location_std",
    "location_std_first",
    "location_entropy",
    "location_entropy_last",
    "scan_epochs",
    "glimpse_only_weight",
    "glimpse_only_reward",
    "replay",
)
"""Options that a stopper on a given trunk does not read."""


@dataclass(frozen=True)
class Options(OptimizerOptions, AugmentOptions, NetworkOptions, TaskOptions):
    """Trains DT-RAM on a registered environment."""

    core: Literal["rnn", "gru", "lstm"] = "rnn"
    """recurrent cell: rnn (ReLU) is the paper's"""
    hidden_size: int | None = None
    """width of the recurrent state; 256, or a resnet's own width, if not given"""
    location_embedding: bool = True
    """whether a resnet is told where a glimpse was taken; the original's is not"""
    per_step: bool = False
    """an encoder and a classifier of its own for each glimpse, as the original on CUB"""
    answer: Literal["state", "first_plus_mean"] = "state"
    """answers from the state, or as the original on CUB: logits of glimpse 1 plus the mean of the
    later ones"""
    locator_input: Literal["detached", "state"] = "detached"
    """whether the location's policy gradient reaches the state"""
    locator_hidden: int = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    locator_grid: int = 0
    """the location policy chooses among the centres of G x G cells; 0: a Gaussian, the paper's"""
    stopper_input: Literal["detached", "state"] = "detached"
    """whether the stop's policy gradient reaches the state"""
    stopper_prior: Literal["confidence", "none"] | None = None
    """what the learned stop begins as: a threshold on the classifier's confidence, or even odds
    (none); confidence where the stopper learns after the trunk, none with --stop joint"""

    trunk: Path | None = None
    """folder of a trained DT-RAM or RAM, or of one of its stages (RUN/stages/trunk-4): its trunk is
    taken as it is and only the stopper learns. The network's options are its own and not to be
    given; --env-id and the task's options are"""
    stop: Literal["after", "joint", "off", "act"] = "after"
    """the stopper learns after the trunk, jointly with it, or not at all (RAM); act: on a --trunk,
    Adaptive Computation Time in place of DT-RAM's stop"""
    ponder_cost: float = 0.01
    """with --stop act: what a glimpse costs, in nats"""
    stop_gradient: Literal["exact", "reinforce"] = "exact"
    """gradient of the stop decisions: expectation over the stopping time, or sampled"""
    baseline: Literal["leave_one_out", "value", "scalar", "none"] = "leave_one_out"
    """b_t of the policy gradient"""
    supervision: Literal["all", "taken", "last"] = "all"
    """cross-entropy at every glimpse up to the limit, at those taken, or at the last one"""
    location_reward: Literal["mean_prob", "mean_log_prob", "return"] | None = None
    """what pays a location: the true class's mean later probability (anytime; the default while the
    trunk learns with stop off), its mean log-probability (information), or the return R (the
    default, and all there is, with stop joint)"""
    stop_entropy: float = 5e-4
    """weight of the entropy bonus on stop decisions"""
    location_entropy: float = 0.0
    """weight of the entropy bonus on the choice of a cell; with --locator-grid"""
    location_entropy_last: float | None = None
    """the same in a stage's last epoch, to which it falls by equal steps; constant if not given"""
    scan_epochs: int = 0
    """epochs, at the start of each trunk stage, in which locations follow one scan over the middle
    of the image, with one trajectory an image, and the location policy learns to do so itself"""
    glimpse_only_weight: float = 0.0
    """weight of the cross-entropy of each later glimpse answered by itself, the state empty before
    it, while the trunk learns"""
    glimpse_only_reward: float = 0.0
    """share of a location's pay that is what its glimpse says of the true class by itself, while
    the trunk learns with stop off; leads crops to the object where the thumbnail says most"""
    max_mean_glimpses: float = 3.5
    """bound on validation's mean glimpses when the stop threshold is chosen"""
    choose: Literal["error", "bound", "return"] = "error"
    """the stop threshold is the one with the lowest validation error within that bound; or, where
    validation is too small to tell thresholds apart, the one that comes nearest to the bound; or
    the one with the highest return, whatever the bound"""

    curriculum: tuple[int, ...] = ()
    """glimpses of each trunk stage, as in 1 2 4 7; one stage with the whole budget if not given"""
    freeze_earlier: bool = False
    """with --curriculum and --per-step: encoders and classifiers of earlier stages stay fixed"""
    epochs: int = 30
    """passes over the training split in each trunk (or joint) stage"""
    batch_size: int = 96
    """images a batch"""
    m: int = 2
    """trajectories sampled for each image, M"""
    location_std: float = 0.1
    """standard deviation of a sampled location, where the image is 2 wide"""
    location_std_first: float | None = None
    """the same in a stage's first epoch, from where it shrinks by the same factor each epoch to
    --location-std in the last; constant if not given"""
    learning_rate: float = 2e-3
    """peak of the one-cycle schedule"""
    locator_learning_rate: float | None = None
    """the location policy's own peak; --learning-rate if not given"""
    stop_epochs: int = 20
    """passes over the training split in the stopper's stage"""
    stop_batch_size: int = 1000
    """images a batch in the stopper's stage"""
    stop_learning_rate: float = 2e-3
    """peak of the stopper's schedule"""
    replay: int = 0
    """earlier batches whose cross-entropy the trunk learns again beside each new one; takes no env
    steps; with --augment 0. The memory is empty again after an interruption"""
    env_steps: int | None = None
    """glimpses to learn from in all, in place of whole epochs: a quarter of them for the stopper
    with --stop after; validation's are not counted"""

    seed: int = 0
    """of everything random"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    run_dir: Path | None = None
    """folder of this run; runs/ENV_ID/DATE_TIME_seedN if not given"""
    resume: bool = False
    """continue the run in --run-dir if there is one; a finished run prints its result"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "m", "stop_epochs", "stop_batch_size"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        if self.hidden_size is not None:
            check("hidden_size", self.hidden_size, self.hidden_size >= 1, "at least 1")
        check_ranges(
            self,
            ("location_std", "learning_rate", "stop_learning_rate", "max_grad_norm"),
            NOT_NEGATIVE,
        )
        if self.location_std_first is not None:
            check_ranges(self, ("location_std_first",), ())
        if self.trunk is None:
            self.check_network()
        check("seed", self.seed, 0 <= self.seed < 2**31, "0 or more, below 2**31")
        check("max_mean_glimpses", self.max_mean_glimpses, self.max_mean_glimpses >= 1, "1 or more")
        rising = all(a < b for a, b in zip(self.curriculum, self.curriculum[1:], strict=False))
        check(
            "curriculum",
            self.curriculum,
            rising and all(t >= 1 for t in self.curriculum),
            "rising numbers of glimpses, from 1",
        )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.trunk is not None:
            stops = self.stop in ("after", "act")
            check("stop", self.stop, stops, "after or act, beside --trunk")
            check("curriculum", self.curriculum, not self.curriculum, "none beside --trunk")
            for name in OF_THE_TRUNK:
                self._not_given(name, "--trunk says what it is")
            for name in OF_ITS_TRAINING:
                self._not_given(name, "with --trunk only the stopper learns")
        elif self.stop == "act":
            raise ValueError("--stop act: expected with --trunk, a trained RAM or DT-RAM")
        if self.stop in ("act", "off"):
            self._not_given("stopper_prior", "it is of a learned stop")
        if self.stop != "act":
            self._not_given("ponder_cost", "it is of --stop act")
        else:
            self._not_given("max_mean_glimpses", "with --stop act nothing is bounded")
        if self.freeze_earlier:
            both = self.per_step and len(self.curriculum) > 1
            check("freeze_earlier", True, both, "with --per-step and a --curriculum of stages")
        if self.baseline == "leave_one_out":
            check("m", self.m, self.m >= 2, "at least 2 with --baseline leave_one_out")
        if self.stop == "joint":
            check(
                "location_reward",
                self.location_reward,
                self.location_reward in (None, "return"),
                "return with --stop joint",
            )
        if self.location_entropy:
            check(
                "location_entropy",
                self.location_entropy,
                self.locator_grid > 0,
                "0, unless --locator-grid is given",
            )
        if self.locator_learning_rate is not None:
            check_ranges(self, ("locator_learning_rate",), ())
        self._check_scan()
        anytime = self.stop != "joint" and self.location_reward in (None, "mean_prob")
        alone = f"0 to 1{'' if anytime else '; 0 unless a location is paid anytime'}"
        check(
            "glimpse_only_reward",
            self.glimpse_only_reward,
            0 <= self.glimpse_only_reward <= anytime,
            alone,
        )
        if self.replay:
            check("replay", self.replay, not self.changes_images, "0, unless --augment is 0")
        if self.env_steps is not None:
            check("env_steps", self.env_steps, self.env_steps >= 1, "at least 1")
        if self.resume and self.run_dir is None:
            raise ValueError("--resume: expected with --run-dir, the run to continue")

    def _check_scan(self) -> None:
        if self.location_entropy_last is not None:
            check_ranges(self, (), ("location_entropy_last",))
            begins, needed = self.location_entropy > 0, "with a --location-entropy to start from"
            check("location_entropy_last", self.location_entropy_last, begins, needed)
        if self.scan_epochs:
            alone = self.stop != "joint" and self.env_steps is None
            check("scan_epochs", self.scan_epochs, alone, "0 with --stop joint or --env-steps")
            fits = 0 < self.scan_epochs < self.epochs
            check("scan_epochs", self.scan_epochs, fits, f"0 to {self.epochs - 1}, of --epochs")

    def _not_given(self, name: str, why: str) -> None:
        """Raises ValueError if an option that is not read differs from its default."""
        value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
        check(name, value, value == default, f"not given: {why}")

    @property
    def stop_prior(self) -> str:
        """`stopper_prior`, or what it is where it was not given."""
        return self.stopper_prior or ("confidence" if self.stop == "after" else "none")

    def share(self, stopper: bool) -> int | None:
        """Env steps of the stopper's stage, or of each other one; None if they are not limited."""
        if self.env_steps is None:
            return None
        last = self.env_steps // 4 if self.stop in ("after", "act") else 0
        if self.trunk is not None:
            last = self.env_steps
        return last if stopper else (self.env_steps - last) // max(1, len(self.curriculum))

    def to_json(self) -> dict[str, Any]:
        """The options that define the run: all but where it lies and how it was called."""
        values = asdict(self) | {"curriculum": list(self.curriculum)}
        for name in ("classifier", "root", "trunk"):
            if values[name] is not None:
                values[name] = str(values[name])
        if self.scale_crop is not None:
            values["scale_crop"] = list(self.scale_crop)
        for name in OF_THE_TRUNK if self.trunk is not None else ():
            del values[name]
        del values["run_dir"], values["resume"], values["data_dir"], values["device"]
        return values

"""The options that only DT-RAM has: where it looks next, and how it learns to stop."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from train.common.options import (
    AtLeast1,
    Checked,
    Count,
    NotNegative,
    Positive,
    Probability,
    check,
    words,
)


@dataclass(frozen=True)
class Gaussian(Checked):
    """The paper's location policy: a Gaussian about the locator's output."""

    OPTION = "locator"
    name: Literal["gaussian"] = "gaussian"
    std: Positive = 0.1
    """standard deviation, where the image is 2 wide"""
    gradient: Literal["detached", "state"] = "detached"
    """whether the policy gradient stops at the recurrent state or flows into it"""
    hidden: Count = 0
    """hidden units of the locator; 0 makes it linear, the paper's"""
    squash: Literal["tanh", "hard_tanh"] = "tanh"
    """brings the mean into [-1, 1]; hard_tanh clips, as the original code does"""
    bound: Annotated[float, "a number in (0, 1]"] = 1.0
    """largest |x| and |y| of the mean, in image halves (13/14 in the original code)"""
    learning_rate: Positive | None = None
    """the locator's own peak; that of all other weights if none"""


@dataclass(frozen=True)
class Cells(Checked):
    """A location policy that chooses among the centres of grid x grid cells of the image."""

    OPTION = "locator"
    name: Literal["cells"] = "cells"
    grid: AtLeast1 | None = None
    """cells along a side; half of a map's if none, or 7"""
    entropy: NotNegative = 0.0
    """weight of the entropy bonus, in a stage's first epoch"""
    entropy_last: NotNegative | None = None
    """the same in its last epoch, with equal steps between; constant if none"""
    gradient: Literal["detached", "state"] = "detached"
    """whether the policy gradient stops at the recurrent state or flows into it"""
    hidden: Count = 0
    """hidden units of the locator; 0 makes it linear"""
    learning_rate: Positive | None = None
    """the locator's own peak; that of all other weights if none"""

    def entropy_at(self, progress: float) -> float:
        """The weight of the entropy bonus after a share of the stage's epochs, in [0, 1]."""
        last = self.entropy if self.entropy_last is None else self.entropy_last
        return self.entropy + progress * (last - self.entropy)


@dataclass(frozen=True)
class Values(Checked):
    """A location policy for a map or a thumbnail: predicts each cell's reward, takes the best."""

    OPTION = "locator"
    name: Literal["values"] = "values"
    grid: AtLeast1 | None = None
    """cells along a side of the map or image, among which the next location is chosen; half of the
    map's, or of the thumbnail's pixels, if none"""
    hidden: Count = 64
    """hidden units of the locator; 0 makes it linear"""
    exploration: Probability = 0.1
    """share of random cells in training; it falls to this from 1 in the first quarter"""
    learning_rate: Positive | None = None
    """the locator's own peak; that of all other weights if none"""
    gradient: ClassVar[str] = "detached"

    def exploration_at(self, progress: float) -> float:
        """The share of random cells after a share of the stage's epochs, in [0, 1]."""
        return max(self.exploration, 1 - 4 * progress)


@dataclass(frozen=True)
class Scan(Checked):
    """No location policy: a map's glimpses follow one scan of centred digits on every image."""

    OPTION = "locator"
    name: Literal["scan"] = "scan"
    jitter: NotNegative = 1.0
    """standard deviation about the scan's locations in training, in pixels"""
    gradient: ClassVar[str] = "detached"
    hidden: ClassVar[int] = 0
    learning_rate: ClassVar[None] = None


DIGIT_SCAN = (
    (0.25, -0.464),
    (-0.357, 0.321),
    (0.286, 0.429),
    (0.5, -0.071),
    (-0.429, -0.214),
    (-0.036, 0.536),
)
"""The scan: upper right, lower left, lower right, right, left, bottom. A learned policy looked at
these places of MNIST's digits most often."""

Locator = Annotated[Gaussian | Cells | Values | Scan, words(Gaussian, Cells, Values, Scan)]


@dataclass(frozen=True)
class RNN(Checked):
    """The paper's core: one vector, which a matrix and a ReLU update."""

    OPTION = "core"
    name: Literal["rnn"] = "rnn"
    init: Positive | None = None
    """the trunk's weights begin at random within ±init (0.1 in the original code on MNIST); if
    none, each layer within its own range"""


@dataclass(frozen=True)
class Map(Checked):
    """A spatial memory, see `agents.spatial_map`; with --locator cells, values or scan."""

    OPTION = "core"
    name: Literal["map"] = "map"
    cells: AtLeast1 | None = None
    """cells along a side of the map, whose middle is the image's; as many as cover it if none"""
    cell: AtLeast1 | None = None
    """pixels of the image along a side of a cell; if none, the fewest that divide the glimpse and
    give at most 64 cells"""

    def sides(self, image: int, glimpse: int) -> tuple[int, int]:
        """`cells` and `cell`, for the sides of an image and a glimpse in pixels.

        >>> Map().sides(28, 8), Map(cell=2).sides(60, 12), Map().sides(100, 12)
        ((28, 1), (32, 2), (52, 2))
        """
        divisors = (n for n in range(1, glimpse + 1) if glimpse % n == 0)
        cell = self.cell or next((n for n in divisors if image <= 64 * n), glimpse)
        return self.cells or 4 * math.ceil(image / (4 * cell)), cell  # pooled twice

    window: int = 0
    """the classifier reads so many cells along a side, about the last glimpse; 0: the whole map"""
    width: int = 16
    """channels of the first convolution that reads it"""
    pool: Literal["none", "max_and_mean"] = "none"
    """max_and_mean: what was read is pooled over the map, for objects at any place"""
    dropout: float = 0.2
    """share of the features left out in training"""
    answer: Literal["state", "product"] = "state"
    """state: the classifier's answer after the last glimpse; product: the product of its
    probabilities after each glimpse, to the power 1/sqrt(t). Training supervises each answer of the
    classifier by itself"""


Core = Annotated[RNN | Map, words(RNN, Map)]


@dataclass(frozen=True)
class _Stopper(Checked):
    """The options of a stop that DT-RAM learns."""

    OPTION = "stop"
    name: str = ""
    max_mean_glimpses: Annotated[float, "at least 1"] | None = 3.5
    """validation chooses the stop threshold: within this bound the most glimpses, unless more raise
    the cross-entropy clearly; with none, the one with the highest return"""
    reads: Literal["answer", "state"] = "answer"
    """the stopper reads the state, and the class probabilities and the time; or the state alone"""
    hidden: Count = 128
    """hidden units of the stopper; 0 makes it linear"""


@dataclass(frozen=True)
class _StopByReturn(_Stopper):
    """A stop that learns from the return."""

    gradient: Literal["exact", "reinforce"] = "exact"
    """expectation over the stopping time, or sampled"""
    entropy: NotNegative = 5e-4
    """weight of the entropy bonus on stop decisions"""
    prior: Literal["confidence", "none"] = "confidence"
    """it begins as a threshold on the classifier's confidence, or at even odds"""
    threshold: Probability | None = None
    """stop at a probability beyond this, in place of one that validation chooses"""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.threshold is None or self.max_mean_glimpses is None
        check("stop threshold", self.threshold, fits, "none, unless max_mean_glimpses=none")


@dataclass(frozen=True)
class _StopperAfter(_Stopper):
    """A stopper that learns after the trunk, which stays as it is."""

    epochs: AtLeast1 = 20
    """passes over the training split"""
    batch_size: AtLeast1 = 1000
    """images in a batch"""


@dataclass(frozen=True)
class StopJoint(_StopByReturn):
    """Encoder, core and all heads learn together."""

    name: Literal["joint"] = "joint"
    prior: Literal["confidence", "none"] = "none"
    into: Literal["detached", "state"] = "detached"
    """whether the gradient of the stop decisions ends at the recurrent state or flows into it"""
    ram_share: Annotated[float, "0 or more, less than 1"] = 0.0
    """share of the epochs, the first ones, that are without stops: every trajectory takes the whole
    budget. A one-cycle learning rate falls to its end there, then has a second cycle at a third"""
    learning_rate: Positive | None = None
    """peak of the stopper's learning rate; none: as the rest"""

    def ram_epochs(self, epochs: int) -> int:
        """The number of epochs without stops; at least one has them."""
        return min(math.ceil(self.ram_share * epochs), epochs - 1)


@dataclass(frozen=True)
class StopAfter(_StopperAfter, _StopByReturn):
    """The stopper learns from the return, after the trunk."""

    name: Literal["after"] = "after"
    classifier: Literal["frozen", "learns"] = "frozen"
    """whether the classifier stays as it is, or goes on learning at the glimpse where the agent
    stops"""


@dataclass(frozen=True)
class StopByValue(_StopperAfter):
    """After the trunk, the stopper learns the drop in cross-entropy still to come; it stops where
    little is left (Wang et al. 2025, AdaptiveNN)."""

    name: Literal["value"] = "value"


@dataclass(frozen=True)
class StopOff:
    """RAM: every image gets the whole budget."""

    name: Literal["off"] = "off"


@dataclass(frozen=True)
class ACT(Checked):
    """Adaptive Computation Time in place of DT-RAM's stop, on a given trunk."""

    OPTION = "stop"
    name: Literal["act"] = "act"
    ponder_cost: NotNegative = 0.01
    """cost of a glimpse, in nats"""
    epochs: AtLeast1 = 20
    """passes over the training split"""
    batch_size: AtLeast1 = 1000
    """images in a batch"""


AfterTrunk = StopAfter | StopByValue | ACT
"""Stops that are learned after the trunk, on its states."""

Stop = Annotated[
    StopAfter | StopJoint | StopByValue | StopOff | ACT,
    words(StopAfter, StopJoint, StopByValue, StopOff, ACT),
]

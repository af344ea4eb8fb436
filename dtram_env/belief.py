"""The classifier in the loop: it answers in the policy-only environments."""

from typing import Any, Protocol

from .backends import Backend
from .observation_builder import ObservationBuilder


class Classifier(Protocol):
    """Reads an episode's glimpses one by one and returns class probabilities after each.

    It must not change its inputs or its earlier outputs in place: it returns new arrays. Its state
    is a tuple of arrays with the batch first; the environment resets single rows of it when an
    episode starts. Arrays are numpy's with the numpy backend, and tensors on the environment's
    device with the torch backend; `step` returns the kind that it was given.

    A classifier may also define ``check_spaces(observation_space, num_classes)``. An environment
    calls it when it is made, and it raises `ValueError` if the classifier was made for other
    glimpses or classes.

    Attributes:
        name: name with a hash of the weights; results report it.
    """

    name: str

    def initial(self, batch: int) -> tuple[Any, ...]:
        """The state before the first glimpse: arrays ``(batch, ...)``."""

    def step(
        self, observation: dict[str, Any], state: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Reads one more glimpse of every episode.

        Args:
            observation: the native observation, batched: ``glimpse`` uint8, ``location``, ``time``.
            state: state of the batch.

        Returns:
            Probabilities ``(batch, num_classes)`` float32, and the next state.
        """


class Belief:
    """The classifier's probabilities and state for the episode in each slot.

    Arrays are replaced, never changed in place, so results that were returned stay as they were.
    """

    def __init__(
        self,
        b: Backend,
        classifier: Classifier,
        builder: ObservationBuilder,
        num_envs: int,
        num_classes: int,
    ) -> None:
        self._b, self._classifier, self._builder = b, classifier, builder
        if hasattr(classifier, "check_spaces"):
            classifier.check_spaces(builder.space, num_classes)
        uniform = b.full((num_envs, num_classes), 1 / num_classes, b.xp.float32)
        self._initial = (uniform, *map(b.asarray, classifier.initial(num_envs)))
        self._parts = self._initial  # the probabilities, then the classifier's state

    @property
    def probs(self) -> Any:
        """``(n, K)`` float32; uniform before the first glimpse."""
        return self._parts[0]

    @property
    def prediction(self) -> Any:
        """``(n,)`` int64, the most probable class; the first of equals."""
        return self.probs.argmax(-1)

    def start(self, mask: Any) -> None:
        """Resets the slots in `mask` ``(n,)`` bool."""
        self._parts = self._replace(mask, self._initial)

    def update(self, mask: Any, index: Any, location: Any, t: Any) -> None:
        """Reads the new glimpses of the slots in `mask` ``(n,)`` bool, except where `t` is 0."""
        mask = mask & (t > 0)
        if not self._b.on_host:  # reading all glimpses is cheaper than waiting for the device
            self._parts = self._replace(mask, self._read(index, location, t, self._parts))
        elif mask.any():
            chosen = tuple(part[mask] for part in self._parts)
            new = self._read(index[mask], location[mask], t[mask], chosen)
            self._parts = tuple(part.copy() for part in self._parts)
            for part, values in zip(self._parts, new, strict=True):
                part[mask] = values

    def _read(self, index: Any, location: Any, t: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        observation = self._builder.build(self._b, index, location, t)
        probs, state = self._classifier.step(observation, parts[1:])
        expected = tuple(parts[0].shape)
        if tuple(probs.shape) != expected:
            name, found = self._classifier.name, tuple(probs.shape)
            raise ValueError(
                f"classifier {name!r} gave probabilities of shape {found}: expected {expected}"
            )
        # Without gradients, which would keep every step of the episode in memory.
        return tuple(map(self._b.asarray, (self._b.cast(probs, self._b.xp.float32), *state)))

    def _replace(self, mask: Any, new: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(self._b.select, [mask] * len(new), new, self._parts))

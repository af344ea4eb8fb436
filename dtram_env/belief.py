"""A classifier in the loop: what the policy-only environments answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .backends import Backend

if TYPE_CHECKING:
    from .observation_builder import Observer


class Classifier(Protocol):
    """Reads an episode's glimpses one by one, and says after each how probable every class is.

    What it is given and what it gave are not its to change: it answers with new arrays.
    Its state is a tuple of arrays, the batch first; the environment puts a new episode's rows into
    it. Arrays are numpy's in the numpy backend and tensors on the environment's device in torch's,
    and `step` answers in the kind that it was given.

    A classifier may also have ``check_spaces(observation_space, num_classes)``, which raises
    `ValueError` if it was made for other glimpses or classes; an environment calls it when made.

    Attributes:
        name: what it is, hash included: results state it.
    """

    name: str

    def initial(self, batch: int) -> tuple[Any, ...]:
        """The state before the first glimpse, of arrays ``(batch, ...)``."""
        ...

    def step(
        self, observation: dict[str, Any], state: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Reads one more glimpse of every episode.

        Args:
            observation: the native one, ``glimpse`` uint8, ``location``, ``time``, batched.
            state: of the batch.

        Returns:
            Probabilities ``(batch, num_classes)`` float32, and the next state.
        """
        ...


class Belief:
    """What a classifier makes of the episode in each slot.

    No array is changed in place: what was handed out stays as it was.

    Args:
        b: the backend.
        classifier: asked once for every glimpse.
        observer: makes its observations.
        num_envs: number of slots n.
        num_classes: K.

    Attributes:
        probs: ``(n, K)`` float32; equal shares before the first glimpse.

    Raises:
        ValueError: the classifier was made for other glimpses or classes.
    """

    def __init__(
        self,
        b: Backend,
        classifier: Classifier,
        observer: Observer,
        num_envs: int,
        num_classes: int,
    ) -> None:
        self._b, self._classifier, self._observer = b, classifier, observer
        check = getattr(classifier, "check_spaces", None)
        if check is not None:
            check(observer.space, num_classes)
        self._fresh = tuple(b.asarray(part) for part in classifier.initial(num_envs))
        self._state = self._fresh
        self._unknown = b.full((num_envs, num_classes), 1 / num_classes, b.xp.float32)
        self.probs = self._unknown

    @property
    def prediction(self) -> Any:
        """``(n,)`` int64, the first most probable class."""
        return self.probs.argmax(-1)

    def start(self, mask: Any | None) -> None:
        """Forgets the slots in `mask` ``(n,)`` bool, or all of them (None)."""
        if mask is None:
            self._state, self.probs = self._fresh, self._unknown
        else:
            self._state = self._merge(mask, self._fresh, self._state)
            (self.probs,) = self._merge(mask, (self._unknown,), (self.probs,))

    def look(self, mask: Any, index: Any, location: Any, t: Any) -> None:
        """Reads the glimpses of the slots in `mask`.

        Args:
            mask: ``(n,)`` bool, the slots that have a new one.
            index: ``(n,)`` int64, the images.
            location: ``(n, 2)`` float32.
            t: ``(n,)`` int64, glimpses taken; where it is 0 there is none to read.
        """
        mask = mask & (t > 0)
        if not isinstance(mask, np.ndarray):  # a device reads them all rather than be asked
            probs, state = self._read(index, location, t, self._state)
            self._state = self._merge(mask, state, self._state)
            (self.probs,) = self._merge(mask, (probs,), (self.probs,))
            return
        rows = np.flatnonzero(mask)
        if len(rows) == len(mask):
            self.probs, self._state = self._read(index, location, t, self._state)
        elif len(rows):
            old = tuple(part[rows] for part in self._state)
            probs, state = self._read(index[rows], location[rows], t[rows], old)
            self._state = tuple(map(_put, self._state, (rows,) * len(state), state))
            self.probs = _put(self.probs, rows, probs)

    def _read(self, index: Any, location: Any, t: Any, state: tuple[Any, ...]) -> Any:
        observation = self._observer.observe(self._b, index, location, t, None)
        probs, state = self._classifier.step(observation, state)
        expected = (len(t), self._unknown.shape[1])
        if tuple(probs.shape) != expected:
            raise ValueError(
                f"classifier {self._classifier.name!r} gave probabilities of shape "
                f"{tuple(probs.shape)}: expected {expected}"
            )
        return self._b.cast(probs, self._b.xp.float32), state

    def _merge(self, mask: Any, new: tuple[Any, ...], old: tuple[Any, ...]) -> tuple[Any, ...]:
        def put(a: Any, b: Any) -> Any:
            return self._b.xp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return tuple(map(put, new, old))


def _put(values: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[rows] = new
    return values

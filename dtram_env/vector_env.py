"""The task as a Gymnasium vector environment: all slots in one step, on numpy or on tensors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from .backends import make_backend, read_array
from .datasets import Dataset
from .env import RENDER_FPS, check_masks_asked, check_options, draw_slot
from .episodes import RandomImages, RandomLocations, SequentialImages
from .task import TaskAttributes, check_image_index, check_integer, read_task
from .trackers import Path
from .views import action_masks


class GlimpseVectorEnv(TaskAttributes, gym.vector.VectorEnv[Any, Any, Any]):
    """Many episodes of `GlimpseEnv` side by side, each ending on its own.

    A *slot* is one environment of the batch, 0 to ``num_envs - 1``, and shows one episode after
    another. Spaces, rewards and information are those of `GlimpseEnv`, batched: every array has the
    slots first. Infos are arrays, each with a mask ``_key`` of the slots that have it, as
    Gymnasium's own vector environments give them.

    What happens to a slot whose episode ended (``metadata["autoreset_mode"]``):

    - ``"NextStep"``: the next `step` starts it anew; its action is ignored, its reward 0.
    - ``"SameStep"``: the step that ends it starts it anew. The observation and infos are those of
      the new episode; the old one's are in ``infos["final_obs"]`` (an object array of single
      observations) and ``infos["final_info"]`` (arrays with masks).
    - ``"Disabled"``: it rests. Steps ignore its action, pay 0 and repeat its terminal observation
      with terminated True, until ``reset(options={"reset_mask": mask})`` starts the slots in the
      mask. (Gymnasium's own `SyncVectorEnv` refuses such steps instead.) `prediction` and
      `is_success` are in the infos of the step that ended it only.

    In sequential order slot i of n goes through block i of the split, ``(N + i) // n`` images, then
    again with ``infos["repeat"]`` True; a `reset` of all slots starts the pass over.

    With ``backend="torch"`` observations, rewards (float32), terminations and infos are tensors on
    `device`, and neither `step` nor `reset` waits for the device. For that: `prediction` and
    `is_success` are always there (read them under their masks), ``infos["dataset"]`` is given by
    `reset` only, and ``infos["final_obs"]`` is one batched observation of all slots, to be read
    where ``_final_obs`` is True. Actions may be tensors or arrays. Both backends visit the same
    images.

    Args:
        dataset: as `GlimpseEnv`, like every other keyword of the task.
        num_envs: number of slots.
        autoreset_mode: a `gymnasium.vector.AutoresetMode`, or its value.
        backend: "numpy" or "torch".
        device: of the torch backend, such as "cuda".
        validate_actions: whether the values of actions are checked; None: on numpy only. On the
            torch backend checking waits for the device: one sync a step (and one in a `reset` that
            is given images as a tensor). Unchecked there, a NaN location shows the centre.
        render_mode: "rgb_array": `render` gives the frames of the first 16 slots.

    Raises:
        ValueError: an argument is not what it must be.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own convention
        "render_modes": ["rgb_array"],
        "render_fps": RENDER_FPS,
    }
    max_rendered = 16

    def __init__(
        self,
        dataset: str | Dataset = "MNIST",
        *,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        backend: str = "numpy",
        device: Any = "cpu",
        validate_actions: bool | None = None,
        render_mode: str | None = None,
        **task: Any,
    ) -> None:
        num_envs = check_integer("num_envs", num_envs, 1)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.autoreset_mode = _read_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.backend = backend
        self.validate_actions = backend == "numpy" if validate_actions is None else validate_actions
        self._adopt(read_task(type(self), {"dataset": dataset, **task}))
        b = self._b = make_backend(backend, *self.task.backend_arguments(), device)
        self.device = getattr(b, "device", "cpu")
        self._on_host = backend == "numpy"

        self.single_observation_space = self.task.observer.space
        self.single_action_space = self.task.codec.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._images: RandomImages | SequentialImages
        if self.order == "sequential":
            shards = [(i, num_envs) for i in range(num_envs)]
            self._images = SequentialImages(b, self.num_images, shards)
        else:
            self._images = RandomImages(b, self.num_images, num_envs)
        random_first = self.first_glimpse == "random"
        self._first_locations = RandomLocations(b, num_envs) if random_first else None
        self._seen, self._cells = self.task.memories(b, num_envs)
        self._path = Path(b, num_envs, self.max_glimpses) if render_mode else None
        memories = (self._seen, self._cells, self._path)
        trackers = [memory for memory in memories if memory is not None]
        self._episodes = self.task.episodes(b, num_envs, trackers)
        self._belief = self.task.belief(b, num_envs)
        self._started = False
        self._answers: Any = None  # what the last step predicted, for pictures

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes in all slots, or in those of a mask.

        Args:
            seed: of the images and first locations from now on.
            options: ``image_index``: images ``(num_envs,)`` to show this once (or one for all);
                ``reset_mask``: ``(num_envs,)`` bool, the slots to start. A reset without a mask
                starts a sequential pass over.

        Raises:
            ValueError: an unknown option, or one of the wrong shape, type or range.
            ResetNeeded: a mask was given before all slots were started once.
        """
        super().reset(seed=seed)
        options = options or {}
        check_options(options, ("image_index", "reset_mask"))
        mask = self._read_mask(options)
        fixed = self._read_index(options)
        if mask is None:
            self._images.restart()
        self._start(mask, fixed)
        self._started = True
        if mask is None:
            self._answers = None
        infos = self._describe(mask)
        self._add_dataset(infos, mask)
        return self._observe(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Acts in all slots; see the class for slots whose episode has ended.

        Raises:
            ResetNeeded: before the first `reset`.
            ValueError: an action is not one; the message names the field, slot and value.
        """
        if not self._started:
            raise ResetNeeded("step() before reset(): call reset() to start the episodes")
        b, state, mode = self._b, self._episodes, self.autoreset_mode
        idle = None if mode is AutoresetMode.SAME_STEP else state.ended
        active = None if idle is None else ~idle
        location, stop, prediction = self.task.codec.decode(
            b, actions, self.num_envs, active, self.validate_actions
        )
        if self._belief is not None:
            prediction = self._belief.prediction
        rewards, finished = state.advance(location, stop, prediction, active)
        answers = {
            "prediction": b.xp.where(finished, prediction, 0),
            "is_success": finished & (prediction == state.label),
        }
        if self._path is not None:
            idle_answers = active is not None and self._answers is not None
            self._answers = (
                b.xp.where(active, prediction, self._answers) if idle_answers else prediction
            )
        infos: dict[str, Any] = {}
        terminations, restarted = finished, None
        if mode is AutoresetMode.SAME_STEP:
            restarted = finished
            if not self._on_host or finished.any():
                self._add_final(infos, finished, answers)
        elif not self._on_host or finished.any():
            for key, values in answers.items():
                _add(infos, key, values, b.copy(finished))
        if mode is AutoresetMode.NEXT_STEP:
            restarted = idle
        elif mode is AutoresetMode.DISABLED:
            terminations = b.copy(state.ended)
        if self._belief is not None:  # before a new episode's glimpses, which _start reads
            moved = ~finished if active is None else active & ~finished
            self._belief.look(moved, state.index, state.location, state.t)
        if restarted is not None:
            self._start(restarted, None)
            if self._on_host and restarted.any():  # else the device would be asked
                self._add_dataset(infos, restarted)
        infos |= self._describe(None)
        truncations = b.full(self.num_envs, False, b.boolean)
        return self._observe(), rewards, terminations, truncations, infos

    def action_masks(self) -> Any:
        """Allowed choices ``(num_envs, …)`` of a grid's view, bool; see `views.action_masks`.

        Raises:
            ValueError: the view has no grid.
            ResetNeeded: no episode was started.
        """
        check_masks_asked(self.view, self._started)
        cells = None if self._cells is None else self._cells.mask
        return action_masks(
            self._b,
            cells,
            self._episodes.t,
            self.task.grid_cells,
            self.task.min_glimpses,
            self.task.answer_classes or 0,
            self.view == "single",
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Frames ``(h, w, 3)`` uint8 of the first slots, at most `max_rendered`.

        Raises:
            ResetNeeded: before the first `reset`.
        """
        if self._path is None:
            gym.logger.warn('render() does nothing: make it with render_mode="rgb_array"')
            return None
        if not self._started:
            raise ResetNeeded("render() before reset()")
        n = min(self.num_envs, self.max_rendered)
        state = self._episodes

        def host(values: Any) -> np.ndarray:
            return values[:n] if self._on_host else values[:n].cpu().numpy()

        t, label, over = host(state.t), host(state.label), host(state.ended)
        index, points = host(state.index).tolist(), host(self._path.points)
        counts = host(self._path.count)
        answers = None if self._answers is None else host(self._answers)
        frames = []
        for i in range(n):
            # A slot that was just started has answered nothing yet in this episode.
            answered = answers is not None and (over[i] or t[i] > 1)
            prediction = int(answers[i]) if answered and answers is not None else None
            path = points[i, : counts[i]]
            frames.append(
                draw_slot(
                    self.task,
                    self.data.image(index[i]),
                    path,
                    int(t[i]),
                    prediction,
                    int(label[i]),
                    bool(over[i]),
                )
            )
        return tuple(frames)

    def _start(self, mask: Any | None, fixed: Any | None) -> None:
        """Starts the slots in `mask`. Numbers are drawn whether or not there are any."""
        index = self._images.next(self.np_random, mask, fixed)
        first = None
        if self._first_locations is not None:
            first = self._first_locations.next(self.np_random)
        if mask is not None and self._on_host and not mask.any():
            return
        state = self._episodes
        state.start(mask, index, first)
        if self._belief is not None:
            self._belief.start(mask)
            new = self._b.full(self.num_envs, True, self._b.boolean) if mask is None else mask
            self._belief.look(new, state.index, state.location, state.t)

    def _observe(self) -> Any:
        state = self._episodes
        seen = None if self._seen is None else self._seen.mask
        probs = None if self._belief is None else self._belief.probs
        return self.task.observer.observe(
            self._b, state.index, state.location, state.t, seen, probs
        )

    def _describe(self, mask: Any | None) -> dict[str, Any]:
        """Infos that every slot in `mask` (None: all) has; zeros elsewhere."""
        b, state = self._b, self._episodes
        metadata = {"label": state.label, "image_index": state.index, "num_glimpses": state.t}
        if self._images.repeat is not None:
            metadata["repeat"] = self._images.repeat
        metadata |= {name: values[state.index] for name, values in b.metadata.items()}
        infos: dict[str, Any] = {}
        for key, values in metadata.items():
            if mask is None:
                _add(infos, key, b.copy(values), b.full(self.num_envs, True, b.boolean))
            else:
                rows = mask.reshape(-1, *[1] * (values.ndim - 1))
                _add(infos, key, b.xp.where(rows, values, 0), b.copy(mask))
        for key, values in metadata.items():  # where() made numbers of booleans
            infos[key] = b.cast(infos[key], values.dtype)
        return infos

    def _add_dataset(self, infos: dict[str, Any], mask: Any | None) -> None:
        names = np.full(self.num_envs, None, dtype=object)
        names[mask if mask is not None and self._on_host else slice(None)] = self.dataset
        if mask is None:
            mask = self._b.full(self.num_envs, True, self._b.boolean)
        _add(infos, "dataset", names, self._b.copy(mask))

    def _add_final(self, infos: dict[str, Any], finished: Any, answers: dict[str, Any]) -> None:
        """The last observations and infos of the episodes that are about to be replaced."""
        b = self._b
        final = self._describe(finished)
        for key, values in answers.items():
            _add(final, key, values, b.copy(finished))
        _add(infos, "final_info", final, b.copy(finished))
        if not self._on_host:
            _add(infos, "final_obs", self._observe(), b.copy(finished))
            return
        state, rows = self._episodes, np.flatnonzero(finished)
        seen = None if self._seen is None else self._seen.mask[rows]
        probs = None if self._belief is None else self._belief.probs[rows]
        batch = self.task.observer.observe(
            b, state.index[rows], state.location[rows], state.t[rows], seen, probs
        )
        observations = np.full(self.num_envs, None, dtype=object)
        keys = list(batch)
        observations[rows] = [
            dict(zip(keys, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        _add(infos, "final_obs", observations, b.copy(finished))

    def _read_mask(self, options: dict[str, Any]) -> Any | None:
        if "reset_mask" not in options:
            return None
        expected = f"bool of shape ({self.num_envs},)"
        mask = read_array(self._b, options["reset_mask"], "options['reset_mask']", "b", expected)
        if tuple(mask.shape) != (self.num_envs,):
            raise ValueError(
                f"options['reset_mask'] has shape {tuple(mask.shape)}: expected {expected}"
            )
        if not self._started:
            raise ResetNeeded("options['reset_mask']: reset() all slots once before some of them")
        return mask

    def _read_index(self, options: dict[str, Any]) -> Any | None:
        if "image_index" not in options:
            return None
        given = options["image_index"]
        expected = f"integers of shape ({self.num_envs},), or one for all slots"
        index = read_array(self._b, given, "options['image_index']", "iu", expected)
        if tuple(index.shape) not in ((), (self.num_envs,)):
            raise ValueError(
                f"options['image_index'] has shape {tuple(index.shape)}: expected {expected}"
            )
        on_device = not self._on_host and isinstance(given, self._b.xp.Tensor)
        if not on_device or self.validate_actions:  # a tensor would have to be waited for
            check_image_index(index if on_device else np.asarray(given), self.num_images)
        return self._b.cast(index, self._b.xp.int64) + self._b.full(
            self.num_envs, 0, self._b.xp.int64
        )


def _add(infos: dict[str, Any], key: str, values: Any, mask: Any) -> None:
    infos[key], infos[f"_{key}"] = values, mask


def _read_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        expected = ", ".join(repr(m.value) for m in AutoresetMode)
        raise ValueError(f"autoreset_mode={mode!r}: expected one of {expected}") from None

"""The vector environment: all slots in one step, on numpy or on torch tensors."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from .backends import BACKENDS, read_array, to_host
from .base import EnvBase
from .checks import check_choice, check_integer, check_options
from .datasets import Dataset
from .episodes import Episodes
from .settings import read_settings
from .trackers import CropLocations


class GlimpseVectorEnv(EnvBase, gym.vector.VectorEnv[Any, Any, Any]):
    """Many episodes of `GlimpseEnv` side by side, each ending on its own.

    A *slot* is one environment of the batch, 0 to ``num_envs - 1``, and shows one episode after
    another. Spaces, rewards and infos are those of `GlimpseEnv`, batched: every array has the slots
    first. As in Gymnasium's own vector environments, infos are arrays, each with a mask ``_key`` of
    the slots that have a value. All are numbers; the name of the data is the attribute `dataset`.

    `autoreset_mode` (kept in ``metadata["autoreset_mode"]``) decides how a slot goes on after its
    episode has ended:

    - ``"NextStep"``: the next `step` starts the next episode. It ignores the slot's action and its
      reward is 0.
    - ``"SameStep"``: the same step starts the next episode. Observation and infos describe the new
      episode; ``infos["final_obs"]`` (an object array of single observations) and
      ``infos["final_info"]`` (arrays with masks) describe the old one.
    - ``"Disabled"``: the slot rests until ``reset(options={"reset_mask": mask})`` starts the slots
      in the mask. Until then steps ignore its action, give reward 0 and repeat its last observation
      with terminated True. (Gymnasium's own `SyncVectorEnv` refuses such steps.) `prediction` and
      `is_success` are in the infos of the step that ended the episode only.

    In sequential order slot i of n shows block i of the split, ``(N + i) // n`` images, then shows
    it again with ``infos["repeat"]`` True. A `reset` of all slots starts the pass over.

    With ``backend="torch"`` observations, rewards (float32), terminations and infos are tensors on
    `device`, and actions may be tensors or arrays. Neither `step` nor `reset` waits for the device.
    Two things therefore differ: `prediction` and `is_success` are always present (read them under
    their masks); and ``infos["final_obs"]`` is one batched observation of all slots, valid where
    ``_final_obs`` is True. Both backends show the same images.

    Wrappers that compute with numpy, as Gymnasium's vector `RecordEpisodeStatistics`, raise a
    `TypeError` on tensors. They are not needed for returns and lengths: the reward at the end of an
    episode is its return, and ``infos["num_glimpses"]`` its length. Where they are wanted, put
    ``gymnasium.wrappers.vector.ArrayConversion(env, env_xp=torch, target_xp=numpy)`` between.
    Gymnasium's `NumpyToTorch` cannot convert ``infos["final_obs"]`` of "SameStep", whoever made it.

    Args:
        dataset: name or `datasets.Dataset`; this and all other keywords are those of `GlimpseEnv`.
        num_envs: number of slots.
        autoreset_mode: a `gymnasium.vector.AutoresetMode`, or its value.
        backend: "numpy" or "torch".
        device: device of the torch backend, such as "cuda".
        validate_actions: whether the values of actions are checked; None: with numpy only. With
            torch the check waits for the device, once per step (and once in a `reset` with images
            given as a tensor). Without it a NaN location counts as 0, the centre.
        render_mode: None, or "rgb_array": `render` returns the frames of the first 16 slots
            (`max_rendered`). Gymnasium's vector `RecordVideo` and `HumanRendering` need them all.

    Raises:
        ValueError: an argument has a wrong value; the message names it.
        MissingDependencyError: ``backend="torch"`` without torch.
    """

    metadata: Any = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012
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
        **settings: Any,
    ) -> None:
        n = self.num_envs = check_integer("num_envs", num_envs, 1)
        check_choice("render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        check_choice("backend", backend, BACKENDS)
        if backend == "numpy" and str(device) != "cpu":
            raise ValueError(f"device={str(device)!r}: backend='numpy' runs on 'cpu' only")
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        check_choice("autoreset_mode", mode, [mode.value for mode in AutoresetMode])
        self.autoreset_mode = AutoresetMode(mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        read = read_settings(type(self), {"dataset": dataset, **settings})
        b = BACKENDS[backend](read.source, read.glimpse_size, read.num_scales, device)
        self.backend, self.device = backend, b.device
        self.validate_actions = b.on_host if validate_actions is None else validate_actions
        self._set_up(read, b, n, [(i, n) for i in range(n)])
        self.single_observation_space = read.builder.space
        self.single_action_space = read.codec.space
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)

        self._crops = CropLocations(b, n, self.max_glimpses) if render_mode else None
        if self._crops is not None:
            self._trackers.append(self._crops)
        self._episodes = Episodes(b, n, read, self._trackers)
        self._started = False
        self._all = b.full(n, True, b.boolean)
        self._predictions = b.full(n, 0, b.xp.int64)  # the last ones, for pictures

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes in all slots, or in those of a mask.

        Args:
            seed: seed of the images and first locations from now on.
            options: ``image_index``: ``(num_envs,)`` images to show for this episode only, or one
                for all slots; ``reset_mask``: ``(num_envs,)`` bool, the slots to start. A reset
                without a mask starts a sequential pass over.

        Raises:
            ValueError: an unknown option, or one of the wrong shape, type or range.
            ResetNeeded: a mask was given before all slots were started once.
        """
        super().reset(seed=seed)
        mask, fixed = self._read_options(options or {})
        if mask is None:
            self._images.restart()
            mask = self._all
        self._start(mask, fixed)
        self._started = True
        return self._observe(), self._describe(mask)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Acts in all slots; the class docstring describes slots whose episode has ended.

        Raises:
            ResetNeeded: before the first `reset`.
            ValueError: an action is invalid; the message names the field, the slot and the value.
        """
        if not self._started:
            raise ResetNeeded("step() before reset(): call reset() to start the episodes")
        b, state, mode = self._b, self._episodes, self.autoreset_mode
        active = self._all if mode is AutoresetMode.SAME_STEP else ~state.ended
        location, stop, prediction = self.settings.codec.decode(
            b, actions, self.num_envs, active, self.validate_actions
        )
        if self._belief is not None:
            prediction = self._belief.prediction
        rewards, finished = state.advance(location, stop, prediction, active)
        if self._crops is not None:
            self._predictions = b.select(active, prediction, self._predictions)

        infos: dict[str, Any] = {}
        if not b.on_host or finished.any():  # torch: always, to not wait for the device
            answers = {
                "prediction": b.select(finished, prediction, 0),
                "is_success": finished & (prediction == state.label),
            }
            if mode is AutoresetMode.SAME_STEP:
                self._add_final(infos, finished, answers)
            else:
                for key, values in answers.items():
                    self._add(infos, key, values, finished)
        terminations = b.copy(state.ended) if mode is AutoresetMode.DISABLED else finished

        if self._belief is not None:  # before new episodes start: `_start` reads their glimpses
            self._belief.update(active & ~finished, state.index, state.location, state.t)
        if mode is not AutoresetMode.DISABLED:
            restarted = finished if mode is AutoresetMode.SAME_STEP else ~active
            self._start(restarted, None)
        infos |= self._describe(self._all)
        truncations = b.full(self.num_envs, False, b.boolean)
        return self._observe(), rewards, terminations, truncations, infos

    @property
    def location(self) -> Any:
        """Location ``(num_envs, 2)`` float32 of each slot's last glimpse, x and y in [-1, 1]; the
        centre, (0, 0), of a thumbnail and before the first `reset`."""
        return self._b.copy(self._episodes.location)

    def action_masks(self) -> Any:
        """The masks ``(n, …)`` bool of a grid view; see `GlimpseEnv.action_masks`."""
        return self._masks(self._episodes.t if self._started else None)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Frames ``(h, w, 3)`` uint8 of the first slots, at most `max_rendered`.

        Raises:
            ResetNeeded: before the first `reset`.
        """
        if self._crops is None:
            gym.logger.warn('render() does nothing: make it with render_mode="rgb_array"')
            return None
        if not self._started:
            raise ResetNeeded("render() before reset()")
        state, crops = self._episodes, self._crops
        parts = (state.index, crops.locations, crops.count, state.t, self._predictions, state.ended)
        columns = [to_host(values[: self.max_rendered]) for values in parts]
        frames = []
        for index, locations, count, t, prediction, ended in zip(*columns, strict=True):
            # An episode that was just started has no prediction yet.
            shown = int(prediction) if ended or t > 1 else None
            frames.append(self._frame(int(index), locations[:count], int(t), shown, bool(ended)))
        return tuple(frames)

    def _start(self, mask: Any, fixed: Any | None) -> None:
        """Starts the slots in `mask`. Random numbers are drawn even if the mask is empty."""
        index = self._images.next(self.np_random, mask, fixed)
        first = None
        if self._first_locations is not None:
            first = self._first_locations.next_row(self.np_random)
        if self._b.on_host and not mask.any():
            return
        state = self._episodes
        state.start(mask, index, first)
        if self._belief is not None:
            self._belief.start(mask)
            self._belief.update(mask, state.index, state.location, state.t)

    def _observe(self, slots: Any = ...) -> dict[str, Any]:
        """The observations of some slots, by default of all."""
        state = self._episodes
        seen = None if self._seen is None else self._seen.mask[slots]
        probs = None if self._belief is None else self._belief.probs[slots]
        return self.settings.builder.build(
            self._b, state.index[slots], state.location[slots], state.t[slots], seen, probs
        )

    def _describe(self, mask: Any) -> dict[str, Any]:
        """The infos of every step for the slots in `mask`; 0 in the others."""
        b, state = self._b, self._episodes
        values = {"label": state.label, "image_index": state.index, "num_glimpses": state.t}
        if self._images.repeat is not None:
            values["repeat"] = self._images.repeat
        values |= {name: column[state.index] for name, column in b.metadata.items()}
        infos: dict[str, Any] = {}
        for key, column in values.items():
            if mask is self._all:
                column = b.copy(column)
            else:  # `select` turns booleans into integers
                column = b.cast(b.select(mask, column, 0), column.dtype)
            self._add(infos, key, column, mask)
        return infos

    def _add_final(self, infos: dict[str, Any], finished: Any, answers: dict[str, Any]) -> None:
        """Adds the last observations and infos of episodes that are about to be replaced."""
        b = self._b
        final = self._describe(finished)
        for key, values in answers.items():
            self._add(final, key, values, finished)
        self._add(infos, "final_info", final, finished)
        observations: Any = self._observe(finished if b.on_host else ...)
        if b.on_host:  # an array of single observations
            rows = zip(*observations.values(), strict=True)
            singles = [dict(zip(observations, row, strict=True)) for row in rows]
            observations = np.full(self.num_envs, None, dtype=object)
            observations[finished] = singles
        self._add(infos, "final_obs", observations, finished)

    def _add(self, infos: dict[str, Any], key: str, values: Any, mask: Any) -> None:
        infos[key], infos[f"_{key}"] = values, self._b.copy(mask)

    def _read_options(self, options: dict[str, Any]) -> tuple[Any | None, Any | None]:
        """The mask ``(n,)`` bool and the images ``(n,)`` int64 for `reset`; None if not given."""
        check_options(options, "image_index", "reset_mask")
        b, n = self._b, self.num_envs
        mask, fixed = None, None
        if "reset_mask" in options:
            mask = read_array(b, options["reset_mask"], "options['reset_mask']", "b", (n,))
            if not self._started:
                raise ResetNeeded("options['reset_mask']: reset() all slots once before some")
        if "image_index" in options:
            given = options["image_index"]
            fixed = read_array(b, given, "options['image_index']", "iu", (n,), ())
            on_device = not b.on_host and isinstance(given, b.xp.Tensor)
            if not on_device or self.validate_actions:  # checking a tensor waits for the device
                values = fixed if on_device else np.asarray(given)
                wrong = (values < 0) | (values >= self.num_images)
                if wrong.any():
                    raise ValueError(
                        f"options['image_index']: {int(values[wrong][0])} is out of range; the "
                        f"split has images 0 to {self.num_images - 1}"
                    )
            fixed = b.cast(fixed, b.xp.int64) + b.full(n, 0, b.xp.int64)
        return mask, fixed

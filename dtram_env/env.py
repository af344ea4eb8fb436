"""The scalar environment: one episode at a time. `vector_env` runs many side by side."""

import operator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from .backends import Backend
from .base import EnvBase
from .checks import check_choice, check_integer, check_options
from .datasets import Dataset
from .episodes import FIRST_CROPS, ends, grade
from .settings import read_settings

_ONLY = np.ones(1, np.bool_)  # mask of the only slot


class GlimpseEnv(EnvBase, gym.Env[dict[str, np.ndarray], Any]):
    """
    ## Description

    The agent classifies an image that it sees one small crop, a *glimpse*, at a time. After each
    glimpse it chooses the location of the next one, whether to stop, and a class (in policy-only
    environments a frozen classifier chooses the class). The only reward comes at the end, for the
    right class, and it shrinks with every glimpse taken. A good agent therefore takes few glimpses
    of easy images and more of hard ones. The task is that of "Dynamic Computational Time for Visual
    Attention" (Li et al., 2017).

    ## Action Space

    A `Dict`, given after every glimpse:

    | Key          | Space                         | Meaning                                           |
    |--------------|-------------------------------|---------------------------------------------------|
    | `location`   | `Box(-1, 1, (2,), float32)`   | centre (x, y) of the next glimpse: (-1, -1) is the image's top left corner, (1, 1) its bottom right corner; values outside are clipped |
    | `stop`       | `Discrete(2)`                 | 1: stop now and be graded; 0: take another glimpse |
    | `prediction` | `Discrete(num_classes)`       | the predicted class; it counts only when the episode ends |

    ## Observation Space

    A `Dict`:

    | Key         | Space                                                | Meaning                     |
    |-------------|------------------------------------------------------|-----------------------------|
    | `glimpse`   | `Box(0, 255, (g, g, C * num_scales), uint8)`         | the crop; pixels outside the image are 0. Several scales are crops of side g, 2g, 4g, … around the same centre, each shrunk to g, the finest first |
    | `location`  | `Box(-1, 1, (2,), float32)`                          | centre of the glimpse       |
    | `time`      | `Box(0, 1, (1,), float32)`                           | glimpses taken / `max_glimpses` |
    | `probs`     | `Box(0, 1, (num_classes,), float32)`                 | policy-only: the classifier's class probabilities |
    | `thumbnail` | `Box(0, 255, (n, n, C), uint8)`                      | only if `thumbnail_size` differs from `glimpse_size`: the whole image, shrunk, at the first glimpse (where `glimpse` is 0), and 0 after it. With equal sizes the first `glimpse` is the thumbnail, once per scale |

    ## Rewards

    `discount ** T` if the prediction is right when the episode ends after T glimpses; 0 if it is
    wrong, and 0 on every step before. The discount is part of the reward, so an RL library's own
    gamma should be 1.

    ## Starting State

    An image is drawn at random from the split (or comes next in order, see `order`). Then
    `first_glimpse` decides what `reset` returns:

    - `"center"`: a glimpse at (0, 0).
    - `"random"`: a glimpse at a uniformly random location.
    - `"thumbnail"`: the whole image, shrunk to `thumbnail_size`, with location (0, 0). It counts as
      a glimpse.
    - `"choose"`: a glimpse of zeros at time 0. The first action's `stop` and `prediction` are
      ignored. Only real glimpses count for discount, time and budget.

    ## Episode End

    The episode terminates when `stop` is 1 or `max_glimpses` glimpses were taken. No glimpse is
    taken after the end, so the last observation is repeated. Episodes are never truncated.

    ## Policy-only

    With a classifier in the loop the agent only chooses locations and when to stop. Its action has
    no `prediction`; the prediction is the most probable class of `probs`. The classifier is frozen
    and was trained on uniformly random locations, so no policy's glimpse distribution is favoured.
    `agents:DTRAM-MNIST-Policy-v0` is such an environment, with the classifier of this project.

    ## Information

    | Key            | When         | Meaning                                                        |
    |----------------|--------------|----------------------------------------------------------------|
    | `label`        | always       | the true class; for supervised losses and logs, never for the policy |
    | `image_index`  | always       | index of the image within the split                            |
    | `num_glimpses` | always       | glimpses taken                                                 |
    | `repeat`       | sequential   | whether this image was shown before in this pass; do not count it again |
    | `dataset`      | at reset, not vectorized | name of the data (also an attribute); names of drawn data end in "(drawn)" |
    | `box`          | CUB, Cars    | left, top, width, height of the object, in pixels of the image |
    | `part_boxes`   | Birds, Autos, Scenes | the same for each part, `(P, 4)`; `env.data.metadata` holds them for all images |
    | `discriminative` | Birds, Autos, Scenes | which parts distinguish the species from similar ones, `(P,)` bool |
    | `prediction`   | at the end   | the predicted class                                            |
    | `is_success`   | at the end   | whether it is right                                            |

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import dtram_env
    >>> env = gym.make("DTRAM-Signpost-v0", split="test", max_glimpses=4)
    >>> observation, info = env.reset(seed=0, options={"image_index": 3})
    >>> observation["glimpse"].shape, info["image_index"], info["num_glimpses"]
    ((8, 8, 1), 3, 1)
    >>> action = {"location": [0.0, -0.5], "stop": 1, "prediction": info["label"]}
    >>> observation, reward, terminated, truncated, info = env.step(action)
    >>> reward, terminated, info["is_success"]
    (0.98, True, True)

    ```

    | Parameter        | Type            | Default    | Description                                      |
    |------------------|-----------------|------------|--------------------------------------------------|
    | `dataset`        | str             | per id     | name of the data, or a `datasets.Dataset` of your own |
    | `split`          | str             | `"train"`  | `"train"`, `"validation"`, `"test"`, `"train+validation"` |
    | `max_glimpses`   | int             | per id     | the budget: the most glimpses of an episode      |
    | `glimpse_size`   | int             | per id     | side g of a glimpse, in pixels                   |
    | `num_scales`     | int             | per id     | number of crops in a glimpse                     |
    | `first_glimpse`  | str             | per id     | see Starting State                               |
    | `thumbnail_size` | int             | `glimpse_size` | side of the thumbnail, in pixels             |
    | `discount`       | float           | per id     | in (0, 1]                                        |
    | `order`          | str             | `"random"` | `"sequential"`: every image once, in order, then again with `repeat` set; `reset(seed=…)` starts over |
    | `shard`          | (int, int)      | `(0, 1)`   | (i, n): sequential order shows part i of n only, `(N + i) // n` images |
    | `image_size`     | int             | per id     | images are resized once, to this shorter side in pixels, with their aspect kept; None: not resized |
    | `crop_to_box`    | bool            | False      | crop images to the object's bounding box (CUB, Cars) |
    | `root`           | str             | None       | folder of your own images, one folder per class (`DTRAM-ImageFolder-v0`) |
    | `num_classes`, `num_train`, `num_test` | int | per id | how many classes and images of drawn birds, autos and scenes |
    | `data_dir`       | str             | None       | folder of all data; else `$DTRAM_DATA`, else `~/.cache/dtram` |
    | `data`           | str             | `"auto"`   | where CUB or Cars is missing, `"auto"` shows drawn images instead, with a `BuiltinDataWarning`; `"real"` raises an error; `"builtin"` always shows the drawn images |
    | `download`       | bool            | True       | fetch missing data (not CUB: `python -m dtram_env.datasets download cub`) |
    | `classifier`     | object          | None       | a `dtram_env.Classifier`, see Policy-only; the Policy ids accept a folder too |
    | `view`, `grid`, `observe`, `glimpse_format`, `mask_seen`, `min_glimpses` | | | see Views        |
    | `render_mode`    | str             | None       | `"rgb_array"` or `"human"`                       |

    `reset(options={"image_index": i})` shows image i for this episode only. In sequential order it
    is marked `repeat`, and the pass goes on after it.

    ## Views

    Views offer the same task to libraries that cannot use the spaces above:

    | Keyword                       | Effect                                                          |
    |-------------------------------|-----------------------------------------------------------------|
    | `view="continuous"`           | actions `Box(-1, 1, (3 + num_classes,))`: x, y, stop if > 0, then one score per class; the first largest score is the prediction |
    | `view="discrete"`, `grid=G`   | actions `MultiDiscrete([G * G, 2, num_classes])`: grid cell, stop, prediction. Cells are numbered row by row from the top left, and a cell's centre is the location. With the default G the crops of all cells cover the image |
    | `view="single"`, `grid=G`     | policy-only, for DQN: actions `Discrete(G * G + 1)`, a grid cell, or the last value to stop |
    | `mask_seen=True`              | `action_masks()` of a grid view forbids cells at whose centre a glimpse was taken in this episode, unless that holds for all cells |
    | `min_glimpses=m`              | `action_masks()` forbids stopping before m glimpses             |
    | `observe="canvas"`            | `canvas: Box(0, 255, (H, W, C + 1), uint8)` replaces `glimpse`: the pixels that the finest crops have covered so far; the last channel is 255 where they have. A first thumbnail has its own key |
    | `glimpse_format="flat"`       | every image as a vector of float32 in [0, 1]. It is the default of the views above if an observed image has a side under 36 pixels, so that stock policies run |

    ## Vectorized environment

    `gym.make_vec(id, num_envs=1024)` makes a `GlimpseVectorEnv`, which steps all slots at once.

    ## Version History

    * v0: Initial version.
    """  # noqa: E501 - Markdown has no line breaks in tables

    metadata: Any = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        dataset: str | Dataset = "MNIST",
        *,
        shard: tuple[int, int] | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        check_choice("render_mode", render_mode, (None, "human", "rgb_array"))
        self.render_mode = render_mode
        read = read_settings(type(self), {"dataset": dataset, **settings})
        if shard is not None and read.order != "sequential":
            raise ValueError(f"shard={shard!r}: only order='sequential' uses it")
        b = Backend(read.source, read.glimpse_size, read.num_scales)
        self._set_up(read, b, 1, [_check_shard((0, 1) if shard is None else shard)])
        self.observation_space: spaces.Space[Any] = read.builder.space
        self.action_space = read.codec.space
        self._ended: bool | None = None  # None: never reset
        self._window: Any = None
        if render_mode == "human":
            from .rendering import Window  # imports Pillow

            self._window = Window(self.metadata["render_fps"])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: seed of the images and first locations from now on; it also restarts a sequential
                pass.
            options: ``{"image_index": i}`` shows image i for this episode only.

        Raises:
            ValueError: an unknown option, or an image that is not in the split.
        """
        super().reset(seed=seed)
        options = options or {}
        check_options(options, "image_index")
        fixed = None
        if "image_index" in options:
            given, last = options["image_index"], self.num_images - 1
            fixed = np.array([check_integer("options['image_index']", given, 0, last)])
        if seed is not None:
            self._images.restart()
        self._index = self._images.next(self.np_random, _ONLY, fixed)
        self._label = int(self._b.labels[self._index[0]])
        self._location = np.zeros((1, 2), dtype=np.float32)
        if self._first_locations is not None:
            self._location = self._first_locations.next_row(self.np_random)
        self._t = int(self.first_glimpse != "choose")
        self._ended = False
        self._prediction: int | None = None
        self._crops: list[np.ndarray] = []
        for tracker in self._trackers:
            tracker.start(_ONLY)
        if self._belief is not None:
            self._belief.start(_ONLY)
        self._record(crop=self.first_glimpse in FIRST_CROPS)
        if self.render_mode == "human":
            self.render()
        return self._observe(), self._info() | {"dataset": self.dataset}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Ends the episode with a prediction, or takes the next glimpse.

        Raises:
            ResetNeeded: no episode is running.
            ValueError: the action is invalid; the message names the field and the value.
        """
        if self._ended is not False:
            when = "step() before reset()" if self._ended is None else "step() after the end"
            raise ResetNeeded(f"{when}: call reset() to start an episode")
        location, stop, prediction = self.settings.codec.decode_one(self._b, action)
        if self._belief is not None:
            prediction = int(self._belief.prediction[0])
        self._ended = bool(ends(self._t, stop, self.max_glimpses))
        if self._t:
            self._prediction = prediction
        reward = 0.0
        if self._ended:
            reward = float(grade(self._t, prediction, self._label, self.discount))
        else:
            self._t += 1
            self._location = location[None]
            self._record(crop=True)
        if self.render_mode == "human":
            self.render()
        info = self._info()
        if self._ended:
            info["prediction"] = prediction
            info["is_success"] = prediction == self._label
        return self._observe(), reward, self._ended, False, info

    def action_masks(self) -> np.ndarray:
        """The allowed choices of a grid view, bool; see `views.GridActions.masks`.

        Raises:
            ValueError: the view has no grid.
            ResetNeeded: no episode was started.
        """
        return self._masks(None if self._ended is None else np.array([self._t]))[0]

    def render(self) -> np.ndarray | None:
        """Draws the image with the glimpses so far.

        Returns:
            The frame ``(h, w, 3)`` uint8 in mode "rgb_array"; None in mode "human", which shows it
            in a window.

        Raises:
            ResetNeeded: no episode was started.
            MissingDependencyError: mode "human" needs pygame, and it is not installed.
        """
        if self.render_mode is None:
            gym.logger.warn('render() does nothing: make it with render_mode="rgb_array"')
            return None
        if self._ended is None:
            raise ResetNeeded("render() before reset()")
        crops = np.array(self._crops).reshape(-1, 2)
        frame = self._frame(int(self._index[0]), crops, self._t, self._prediction, self._ended)
        if self._window is None:
            return frame
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            self._window.close()

    def _record(self, crop: bool) -> None:
        """Reports the new glimpse to trackers and classifier; `crop`: it is not a thumbnail."""
        if crop:
            self._crops.append(self._location[0])
            for tracker in self._trackers:
                tracker.update(_ONLY, self._location)
        if self._belief is not None:
            self._belief.update(_ONLY, self._index, self._location, np.array([self._t]))

    def _observe(self) -> dict[str, np.ndarray]:
        seen = None if self._seen is None else self._seen.mask
        probs = None if self._belief is None else self._belief.probs
        t = np.array([self._t])
        batch = self.settings.builder.build(self._b, self._index, self._location, t, seen, probs)
        return {key: values[0] for key, values in batch.items()}

    def _info(self) -> dict[str, Any]:
        index = int(self._index[0])
        info: dict[str, Any] = {"label": self._label, "image_index": index, "num_glimpses": self._t}
        if self._images.repeat is not None:
            info["repeat"] = bool(self._images.repeat[0])
        return info | {name: values[index].copy() for name, values in self._b.metadata.items()}


def _check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    try:
        i, n = map(operator.index, shard)
        if 0 <= i < n:
            return i, n
    except (TypeError, ValueError):  # not two values, or not integers
        pass
    raise ValueError(f"shard={shard!r}: expected integers (i, n) with 0 <= i < n")

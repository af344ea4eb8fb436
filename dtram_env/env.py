"""The task as a Gymnasium environment, one episode at a time; `vector_env` runs many."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from .backends import NumpyBackend
from .datasets import Dataset
from .episodes import RandomImages, RandomLocations, SequentialImages, ends, grade
from .task import Task, TaskAttributes, check_image_index, read_task
from .views import GRID_VIEWS, action_masks

if TYPE_CHECKING:
    from .rendering import Window

RENDER_FPS = 4


class GlimpseEnv(TaskAttributes, gym.Env[dict[str, np.ndarray], Any]):
    """
    ## Description

    An image is shown one small crop, a *glimpse*, at a time. After each glimpse the agent says
    where it wants to look next, whether it has seen enough, and what it thinks the image is (if
    policy-only, a frozen classifier says that). It is paid once, at the end, and less for every
    glimpse it took. Easy images should take few glimpses and hard ones more: the task of "Dynamic
    Computational Time for Visual Attention" (Li et al., 2017).

    ## Action Space

    A `Dict`, given after every glimpse:

    | Key          | Space                         | Meaning                                           |
    |--------------|-------------------------------|---------------------------------------------------|
    | `location`   | `Box(-1, 1, (2,), float32)`   | centre (x, y) of the next glimpse; (-1, -1) is the top left corner of the image, (1, 1) the bottom right; clipped |
    | `stop`       | `Discrete(2)`                 | 1: stop now and be graded; 0: keep looking        |
    | `prediction` | `Discrete(num_classes)`       | what the image is                                 |

    ## Observation Space

    A `Dict`:

    | Key         | Space                                                | Meaning                     |
    |-------------|------------------------------------------------------|-----------------------------|
    | `glimpse`   | `Box(0, 255, (g, g, C * num_scales), uint8)`         | the crop, 0 outside the image, images of any size; with several scales, crops of side g, 2g, 4g, … about the same centre, each shrunk to g, finest first |
    | `location`  | `Box(-1, 1, (2,), float32)`                          | where it was taken          |
    | `time`      | `Box(0, 1, (1,), float32)`                           | glimpses taken / `max_glimpses` |
    | `probs`     | `Box(0, 1, (num_classes,), float32)`                 | policy-only: what the classifier in the loop believes |
    | `thumbnail` | `Box(0, 255, (n, n, C), uint8)`                      | only if `thumbnail_size` differs from `glimpse_size`: the whole image, shrunk, at the first glimpse (when `glimpse` is 0), and 0 after |

    ## Rewards

    `discount ** T` if the prediction is right when the episode ends after T glimpses; 0 if it is
    wrong, and 0 before. This discount belongs to the reward: a learner's own should be 1.

    ## Starting State

    An image is drawn at random from the split (or comes in order, see `order`), and the first
    glimpse is taken as `first_glimpse` says:

    - `"center"`: at (0, 0).
    - `"random"`: at a uniformly random location.
    - `"thumbnail"`: the whole image, shrunk to `thumbnail_size`; its location is (0, 0).
    - `"choose"`: none is taken; `reset` returns a zero glimpse at time 0, and the first action's
      `stop` and `prediction` are ignored. Discount, time and budget count glimpses only.

    ## Episode End

    Termination: `stop` is 1, or `max_glimpses` were taken. No glimpse is taken after the end, so
    the last observation is repeated. Episodes are never truncated.

    ## Policy-only

    With a classifier in the loop the agent only looks and stops: the action has no `prediction`, and
    the answer is the most probable class of `probs`. The classifier is frozen and was trained on
    uniformly random locations, so it favours nobody's. `agents:DTRAM-MNIST-Policy-v0` is such an
    environment, with the one that this project ships.

    ## Information

    | Key            | When         | Meaning                                                        |
    |----------------|--------------|----------------------------------------------------------------|
    | `label`        | always       | the true class; for supervised losses and logs, not for policies |
    | `image_index`  | always       | the image's row within the split                               |
    | `num_glimpses` | always       | glimpses taken                                                 |
    | `repeat`       | sequential   | whether this image was shown before in this pass: do not count it again |
    | `dataset`      | at reset     | the data's name (also an attribute); a drawn one says so       |
    | `box`          | CUB, Cars    | left, top, width, height of the object, in pixels of the image |
    | `part_boxes`   | drawn birds, autos | the same of each part, `(P, 4)`; `env.data.metadata` has all images' |
    | `discriminative`      | drawn birds, autos | which parts tell the species from its like, `(P,)` bool  |
    | `prediction`   | at the end   | the class answered                                             |
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
    | `dataset`        | str             | per id     | name of the data; a `datasets.Dataset` for your own |
    | `split`          | str             | `"train"`  | `"train"`, `"validation"`, `"test"`, `"train+validation"` |
    | `max_glimpses`   | int             | per id     | the budget                                       |
    | `glimpse_size`   | int             | per id     | side g of a glimpse, in pixels                   |
    | `num_scales`     | int             | per id     | crops in a glimpse                               |
    | `first_glimpse`  | str             | per id     | see Starting State                               |
    | `thumbnail_size` | int             | `glimpse_size` | side of the thumbnail, in pixels             |
    | `discount`       | float           | per id     | in (0, 1]                                        |
    | `order`          | str             | `"random"` | `"sequential"`: every image once, in order, then again with `repeat` set; `reset(seed=…)` starts over |
    | `shard`          | (int, int)      | `(0, 1)`   | (i, n): sequential order goes through part i of n only, `(N + i) // n` images |
    | `image_size`     | int             | per id     | shorter side that images are resized to, the aspect kept, decoded once; None: as they are |
    | `crop_to_box`    | bool            | False      | cut images to the object's bounding box (CUB, Cars) |
    | `root`           | str             | None       | folder of your own images, one folder a class (`DTRAM-ImageFolder-v0`) |
    | `num_classes`, `num_train`, `num_test` | int | per id | of drawn birds and autos: fewer or more of them |
    | `data_dir`       | str             | None       | where data is kept; else `$DTRAM_DATA`, else `~/.cache/dtram` |
    | `data`           | str             | `"auto"`   | CUB and Cars that are not on the machine are replaced by drawn images, with a `BuiltinDataWarning`; `"real"`: never, that is an error; `"builtin"`: always |
    | `download`       | bool            | True       | fetch data that is missing (not CUB: `python -m dtram_env.datasets download cub`) |
    | `classifier`     | object          | None       | a `dtram_env.Classifier`: see Policy-only; the Policy ids take a folder too |
    | `view`, `grid`, `observe`, `glimpse_format`, `mask_seen`, `min_glimpses` | | | see Views        |
    | `render_mode`    | str             | None       | `"rgb_array"` or `"human"`                       |

    `reset(options={"image_index": i})` shows image i this once; in sequential order it is marked
    `repeat` and the pass goes on after it.

    ## Views

    The same task for libraries that cannot take the spaces above:

    | Keyword                       | Gives                                                           |
    |-------------------------------|-----------------------------------------------------------------|
    | `view="continuous"`           | actions `Box(-1, 1, (3 + num_classes,))`: x, y, stop if > 0, then a score for each class, of which the first largest is the prediction |
    | `view="discrete"`, `grid=G`   | actions `MultiDiscrete([G * G, 2, num_classes])`: a cell, row by row from the top left, whose centre is the location; stop; prediction. By default the cells' crops about tile the image |
    | `view="single"`, `grid=G`     | policy-only, actions `Discrete(G * G + 1)`: a cell, or the last one to stop; for DQN |
    | `mask_seen=True`              | `action_masks()` of a grid's view forbids cells at whose exact location a glimpse was taken in this episode (unless that is all of them) |
    | `min_glimpses=m`              | `action_masks()` forbids to stop before m glimpses              |
    | `observe="canvas"`            | in place of `glimpse`, `canvas: Box(0, 255, (H, W, C + 1), uint8)`: the pixels that the finest crops have covered so far, and 255 in the last channel where they have; a first thumbnail has its own key |
    | `glimpse_format="flat"`       | every image as a vector of float32 in [0, 1]; the default of the views above if a side shown is under 36 pixels, so that stock policies run |

    ## Vectorized environment

    `gym.make_vec(id, num_envs=1024)` gives a `GlimpseVectorEnv`, which steps all slots at once.

    ## Version History

    * v0: Initial version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - Gymnasium's own convention
        "render_modes": ["human", "rgb_array"],
        "render_fps": RENDER_FPS,
    }

    def __init__(
        self,
        dataset: str | Dataset = "MNIST",
        *,
        shard: tuple[int, int] | None = None,
        render_mode: str | None = None,
        **task: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode={render_mode!r}: expected None, "
                + ", ".join(map(repr, self.metadata["render_modes"]))
            )
        self.render_mode = render_mode
        self._adopt(read_task(type(self), {"dataset": dataset, **task}))
        self.observation_space: spaces.Space[Any] = self.task.observer.space
        self.action_space = self.task.codec.space
        b = self._backend = NumpyBackend(*self.task.backend_arguments())
        self._images: RandomImages | SequentialImages
        if self.order == "sequential":
            self._images = SequentialImages(b, self.num_images, [_check_shard(shard)])
        elif shard is not None:
            raise ValueError(f"shard={shard!r}: only order='sequential' reads it")
        else:
            self._images = RandomImages(b, self.num_images, 1)
        self._first_locations = RandomLocations(b, 1) if self.first_glimpse == "random" else None
        self._seen, self._cells = self.task.memories(b, 1)
        self._trackers = [memory for memory in (self._seen, self._cells) if memory is not None]
        self._belief = self.task.belief(b, 1)
        self._over: bool | None = None  # None: never reset
        self._window: Window | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: of the images and first locations from now on; restarts a sequential pass.
            options: ``{"image_index": i}`` shows image i this once.

        Raises:
            ValueError: an unknown option, or an image that is not in the split.
        """
        super().reset(seed=seed)
        fixed = self._read_options(options)
        if seed is not None:
            self._images.restart()
        self._index = self._images.next(self.np_random, None, fixed)
        self._label = int(self._backend.labels[self._index[0]])
        if self._first_locations is None:
            self._location = np.zeros((1, 2), dtype=np.float32)
        else:
            self._location = self._first_locations.next(self.np_random)
        self._t = int(self.first_glimpse != "choose")
        self._over = False
        self._prediction: int | None = None
        self._path: list[np.ndarray] = []
        for tracker in self._trackers:
            tracker.start(None)
        if self.first_glimpse in ("center", "random"):
            self._note_crop()
        if self._belief is not None:
            self._belief.start(None)
            self._note_glimpse()
        if self.render_mode == "human":
            self.render()
        info = self._describe()
        info["dataset"] = self.dataset
        return self._observe(), info

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Answers, and looks again or ends.

        Raises:
            ResetNeeded: no episode runs.
            ValueError: the action is not one; the message names the field and the value.
        """
        if self._over is not False:
            what = "step() before reset()" if self._over is None else "step() after the end"
            raise ResetNeeded(f"{what}: call reset() to start an episode")
        location, stop, prediction = self.task.codec.decode_one(action)
        if self._belief is not None:
            prediction = int(self._belief.prediction[0])
        self._over = bool(ends(self._t, stop, self.max_glimpses))
        if self._t:
            self._prediction = prediction
        reward = 0.0
        if self._over:
            reward = float(grade(self._t, prediction, self._label, self.discount))
        else:
            self._t += 1
            self._location = location[None]
            self._note_crop()
            self._note_glimpse()
        if self.render_mode == "human":
            self.render()
        info = self._describe()
        if self._over:
            info["prediction"] = prediction
            info["is_success"] = prediction == self._label
        return self._observe(), reward, self._over, False, info

    def action_masks(self) -> np.ndarray:
        """Allowed choices of a grid's view, bool; for the layout see `views.action_masks`.

        Raises:
            ValueError: the view has no grid.
            ResetNeeded: no episode was started.
        """
        check_masks_asked(self.view, started=self._over is not None)
        cells = None if self._cells is None else self._cells.mask
        return action_masks(
            self._backend,
            cells,
            np.array([self._t]),
            self.task.grid_cells,
            self.task.min_glimpses,
            self.task.answer_classes or 0,
            self.view == "single",
        )[0]

    def render(self) -> np.ndarray | None:
        """The image with the glimpses so far: a frame ``(h, w, 3)`` uint8, or a window.

        Raises:
            ResetNeeded: no episode was started.
        """
        if self.render_mode is None:
            gym.logger.warn('render() does nothing: make it with render_mode="rgb_array"')
            return None
        if self._over is None:
            raise ResetNeeded("render() before reset()")
        frame = draw_slot(
            self.task,
            self.data.image(int(self._index[0])),
            np.array(self._path).reshape(-1, 2),
            self._t,
            self._prediction,
            self._label,
            self._over,
        )
        if self.render_mode == "rgb_array":
            return frame
        if self._window is None:
            from .rendering import Window

            self._window = Window(self.metadata["render_fps"])
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _read_options(self, options: dict[str, Any] | None) -> np.ndarray | None:
        options = options or {}
        check_options(options, ("image_index",))
        if "image_index" not in options:
            return None
        given = options["image_index"]
        try:
            index = np.asarray(given)
        except ValueError:  # a ragged list
            index = np.array(None)
        if index.shape != () or index.dtype.kind not in "iu":
            raise ValueError(f"options['image_index'] = {given!r}: expected one integer")
        check_image_index(index, self.num_images)
        return index.astype(np.int64)[None]

    def _note_crop(self) -> None:
        self._path.append(self._location[0])
        for tracker in self._trackers:
            tracker.look(None, self._location)

    def _note_glimpse(self) -> None:
        if self._belief is not None:
            one = np.ones(1, dtype=np.bool_)
            self._belief.look(one, self._index, self._location, np.array([self._t]))

    def _observe(self) -> dict[str, np.ndarray]:
        seen = None if self._seen is None else self._seen.mask
        probs = None if self._belief is None else self._belief.probs
        batch = self.task.observer.observe(
            self._backend, self._index, self._location, np.array([self._t]), seen, probs
        )
        return {key: values[0] for key, values in batch.items()}

    def _describe(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "label": self._label,
            "image_index": int(self._index[0]),
            "num_glimpses": self._t,
        }
        if self._images.repeat is not None:
            info["repeat"] = bool(self._images.repeat[0])
        return info | self.data.facts_of(info["image_index"])


def draw_slot(
    task: Task,
    image: np.ndarray,
    path: np.ndarray,
    t: int,
    prediction: int | None,
    label: int,
    over: bool,
) -> np.ndarray:
    """The frame of one episode: `rendering.draw_episode` of its state."""
    from .rendering import crop_boxes, draw_episode, episode_caption  # Pillow only when drawn

    whole_first = task.first_glimpse == "thumbnail"
    boxes = crop_boxes(path, image.shape, task.glimpse_size, whole_first)
    caption = episode_caption(t, prediction, label, task.source.class_names, over)
    if task.source.stands_in_for is not None:
        caption = f"drawn, not {task.source.stands_in_for}! {caption}"
    return draw_episode(image, boxes, caption)


def check_options(options: dict[str, Any], known: Sequence[str]) -> None:
    """Raises `ValueError` for a reset option that nothing reads."""
    for key in options:
        if key not in known:
            raise ValueError(f"options[{key!r}]: unknown; expected {' or '.join(map(repr, known))}")


def check_masks_asked(view: str, started: bool) -> None:
    """Raises if there are no action masks to be had."""
    if view not in GRID_VIEWS:
        raise ValueError(
            f"action_masks() belongs to view='discrete' and 'single'; this environment has "
            f"view={view!r}"
        )
    if not started:
        raise ResetNeeded("action_masks() before reset()")


def _check_shard(shard: tuple[int, int] | None) -> tuple[int, int]:
    try:
        i, n = (operator.index(part) for part in ((0, 1) if shard is None else shard))
        sound = 0 <= i < n
    except (TypeError, ValueError):  # not two of them, or not integers
        sound = False
    if not sound:
        raise ValueError(f"shard={shard!r}: expected integers (i, n) with 0 <= i < n")
    return i, n

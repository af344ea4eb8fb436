"""DT-RAM with a spatial memory: a map of what was seen, where it was seen.

Its core has in place of one vector a map of the image: the pixels of each scale of the glimpses,
and a mask that tells which cells were seen. After each glimpse a small convolutional network reads
the map, or a window of it about the glimpse: the classifier and the stopper see its output as a
vector h_t. A smaller one, the locator, reads the whole map at half its resolution and scores cells,
so that "the tail, wherever it is" is one filter. Nothing but glimpses enters the map.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, pixel_unshuffle

from dtram_env.sensor_torch import TorchStore, corner

from . import draws
from .cells import cell_scorer, convolution
from .config import DTRAMConfig
from .cores import cells_of_scales, features_of_scales
from .dtram import DTRAM
from .encoders import PixelScale
from .location_policy import FORBIDDEN, CellLocations
from .precision import autocast, to_bf16
from .unroll import GlimpseSensor, Trajectory


class MapState(NamedTuple):
    """State of a batch: the fields of `dtram.State` that a map needs, the map, and what a product
    of answers needs."""

    h: Tensor  # (B, H) h_t, read from the map
    time: Tensor  # (B,) int64, glimpses taken so far
    map: Tensor  # (B, F, R, R) of each scale: a cell's pixels, and whether it was seen
    log_probs: Tensor  # (B, K) sum over glimpses 1 ... t; (B, 0) unless answer="product"


class Code(NamedTuple):
    """An encoded glimpse, as the core takes it."""

    patches: list[Tensor]  # of each scale (B, F, c, c), the pixels of its cells
    location: Tensor  # (B, 2) of its centre, in [-1, 1] over the map


class MapEncoder(nn.Module):
    """Normalises a glimpse; the pixels within one cell of the map become channels."""

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        self.options, self.cells_of_scales = config.map, cells_of_scales(config)
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)

    def forward(self, glimpse: Tensor, location: Tensor) -> Code:
        """Glimpses ``(B, g, g, scales)`` at their locations ``(B, 2)`` in the image."""
        crops = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2).split(1, dim=1)
        patches = [
            pixel_unshuffle(crop, max(1, crop.shape[-1] // cells))
            for crop, cells in zip(crops, self.cells_of_scales, strict=True)
        ]
        return Code(patches, location * (self.options.image_cells / self.options.cells))


class MapCore(nn.Module):
    """Writes a glimpse where it lies in the map, and reads the map.

    At each scale a cell holds all the pixels that it covers, or the one in which it lies.
    """

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        width, options = config.map.width, config.map
        self.levels, self.window = features_of_scales(config), options.window
        self.cells_of_scales = cells_of_scales(config)
        fixed = options.pool == "none"
        out = 4 * width * ((options.window or options.cells) // 4) ** 2 if fixed else 8 * width
        self.reader = nn.Sequential(
            *(convolution(sum(self.levels), width), convolution(width, width), nn.MaxPool2d(2)),
            *(convolution(width, 2 * width), convolution(2 * width, 2 * width), nn.MaxPool2d(2)),
            *(convolution(2 * width, 4 * width), convolution(4 * width, 4 * width)),
            *(nn.Flatten() if fixed else MaxAndMean(), draws.Dropout(options.dropout)),
            *(nn.Linear(out, config.hidden_size), nn.ReLU()),
        ).to(memory_format=torch.channels_last)

    def forward(self, code: Code, before: Tensor) -> Tensor:
        """The map after a glimpse ``(B, F, R, R)``; at each scale, cells already seen stay."""
        after: list[Tensor] = []
        cells = torch.arange(before.shape[-1], device=before.device)
        levels = before.split(self.levels, dim=1)
        for patch, side, old in zip(code.patches, self.cells_of_scales, levels, strict=True):
            first = corner(code.location, len(cells), side)  # (B, 2): x, y
            source = (cells - first[..., None]) // (side // patch.shape[-1])
            found, inside = _shifted(patch.to(old.dtype), source)
            unseen = old[:, -1:] == 0
            after.append(torch.where(inside & unseen, found, old[:, :-1]))
            after.append((inside | ~unseen).to(old.dtype))
        return torch.cat(after, dim=1)

    def read(self, memory: Tensor, location: Tensor) -> Tensor:
        """h_t ``(B, H)`` of maps whose last glimpse is at `location` in them, see `Code`."""
        if self.window:
            first = corner(location, memory.shape[-1], self.window)
            cells = torch.arange(self.window, device=memory.device)
            found, inside = _shifted(memory, cells + first[..., None])
            memory = found * inside
        return self.reader(memory)


def _shifted(planes: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Columns `source[:, 0]` and rows `source[:, 1]` ``(B, 2, n)`` of planes ``(B, F, m, m)``, and
    a mask ``(B, 1, n, n)`` of the indices inside the plane."""
    features, side, new = *planes.shape[1:3], source.shape[-1]
    inside = (source >= 0) & (source < side)
    x, y = source.clamp(0, side - 1).unbind(1)
    rows = planes.gather(2, y[:, None, :, None].expand(-1, features, new, side))
    found = rows.gather(3, x[:, None, None, :].expand(-1, features, new, new))
    return found, (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]


class MaxAndMean(nn.Module):
    """The largest and the mean value of each feature: ``(B, C, h, w)`` to ``(B, 2 C)``."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1)


class MapDTRAM(DTRAM):
    """A DT-RAM whose core is a map, see the module; arguments and results as `DTRAM`'s.

    Images are grey: the channels of a glimpse are its scales.
    """

    KIND = "DT-RAM with a map"
    core: MapCore
    outside: Tensor  # (R, R) 1 for cells of the map outside the image, else 0
    scan: Tensor  # (T - 1, 2) locations of glimpses 2 ... T, unless the locator chooses them

    def __init__(self, config: DTRAMConfig, *args: Any, **kw: Any) -> None:
        super().__init__(config, *args, **kw)
        assert config.map is not None
        cells, image = config.map.cells, config.map.image_cells
        self.cell_centres *= cells / image  # the grid lies over the map
        outside = (torch.arange(cells) + 0.5 - cells / 2).abs() > image / 2
        outside = (outside[:, None] | outside).float()
        self.register_buffer("outside", outside, persistent=False)
        self.register_buffer("scan", torch.tensor(config.scan or ((0.0, 0.0),)), persistent=False)

    def _make_encoder_and_core(self) -> tuple[nn.Module, nn.Module]:
        return MapEncoder(self.config), MapCore(self.config)

    def _make_locator(self) -> nn.Module:
        """Convolutions that score the cells of maps at half their resolution."""
        if not self.config.locator_grid:
            return nn.Flatten()
        assert self.config.map is not None
        options, hidden = self.config.map, self.config.locator_hidden
        finer = 4 * self.config.locator_grid // options.cells
        return cell_scorer(sum(self.core.levels), options.width // 2, hidden, finer)

    def initial(self, batch: int) -> Any:
        """The `MapState` before the first glimpse: an empty map."""
        new, config = self.scalar_baseline.new_zeros, self.config
        assert config.map is not None
        return MapState(
            h=new(batch, config.hidden_size),
            time=new(batch, dtype=torch.int64),
            map=new(batch, sum(self.core.levels), config.map.cells, config.map.cells),
            log_probs=new(batch, config.num_classes if config.answer == "product" else 0),
        )

    def update(self, code: Any, state: Any, step: int | None = None) -> Any:
        memory = self.core(code, state.map)
        h, log_probs = self.core.read(memory, code.location), state.log_probs
        if self.config.answer == "product":
            log_probs = log_probs + torch.log_softmax(self.classifier(h), dim=-1)
        return MapState(h, state.time + 1, memory, log_probs)

    def logits(self, state: Any, step: int | None = None) -> Tensor:
        if self.config.answer == "product":
            return state.log_probs / state.time[:, None].sqrt()
        return super().logits(state, step)

    def score_cells(self, memory: Tensor) -> Tensor:
        """Scores ``(B, G * G)`` of the cells of maps, by which the next location is chosen."""
        scores = self.locator(memory).float()
        return scores.masked_fill(self._shows_nothing_new(memory), FORBIDDEN)

    def _shows_nothing_new(self, memory: Tensor) -> Tensor:
        """Cells ``(B, G * G)`` bool outside the image, or about which all of a glimpse was seen."""
        options, grid = self.config.map, self.config.locator_grid
        assert options is not None
        side, pitch = options.glimpse_cells, options.cells // grid
        before = (side - pitch) // 2  # cells of the first window outside the map
        new = (memory[:, self.core.levels[0] - 1, None] == 0) & (self.outside == 0)
        after = (grid - 1) * pitch + side - before - options.cells
        new = max_pool2d(pad(new.float(), (before, after, before, after)), side, pitch) > 0
        return ~new.flatten(1) | (self.cell_centres.abs() > 1).any(dim=1)

    def location_params(self, state: Any) -> Tensor:
        """The scores of all cells ``(B, G * G)``."""
        return self.score_cells(state.map)

    def locate(self, state: Any) -> Tensor:
        if not self.config.locator_grid:
            # After the last glimpse no location is needed.
            return self.scan[(state.time - 1).clamp(max=len(self.scan) - 1)]
        return super().locate(state)


class MapUnroll(nn.Module):
    """Trajectories of a `MapDTRAM` to learn from; used as `unroll.Unroll`.

    What a map holds does not depend on how it was read before, so no gradient has to pass from
    glimpse to glimpse. A share (1 - t/T)^p of the trajectories has more than t glimpses: p = 1
    along a scan, where all lengths are as frequent, else 1.5, as in use most images need few.
    Glimpses are taken without gradients, in evaluation mode. Then the reader reads each
    trajectory's last map with gradients, in one batch, so that batch norms see few and many
    glimpses mixed. The locator scores again every map that was followed by a glimpse. The first
    images of a batch get the longest trajectories, so batches must be shuffled.

    Attributes:
        exploration: share of random cells; None: cells are sampled from the softmax of the scores.
        jitter: standard deviation of locations about those of a scan, in image halves.
    """

    def __init__(self, agent: MapDTRAM, sensor: GlimpseSensor, bf16: bool = False) -> None:
        super().__init__()
        self.agent, self.sensor, self.bf16 = agent, sensor, bf16
        self.exploration: float | Tensor | None = None
        self.jitter = 0.0

    def mean_length(self, steps: int) -> float:
        """Mean number of glimpses of a trajectory, in a large batch."""
        return sum(self._going_on(steps))

    def _going_on(self, steps: int) -> list[float]:
        """Shares of the trajectories that have more than 0, 1 ... T - 1 glimpses."""
        power = 1.5 if self.agent.config.locator_grid else 1.0
        return [(1 - t / steps) ** power for t in range(steps)]

    def forward(self, store: TorchStore, index: Tensor, steps: int, m: int = 1) -> Trajectory:
        """Samples `m` trajectories of up to `steps` glimpses for each image; the fields are those
        of `Unroll.forward`, where entries after a trajectory's end repeat its last answer. The
        logits are the classifier's after each glimpse, with answer="product", too."""
        agent, training, images = self.agent, self.agent.training, len(index)
        scan = not agent.config.locator_grid
        policy = CellLocations(agent.cell_centres, self.exploration)
        # So many images, and trajectories of those here, have more than 0, 1 ... glimpses.
        shares, whole = self._going_on(steps), draws.whole_batch(images)
        further = [max(1, round(whole * share)) for share in shares]
        going_on = [m * draws.own_images(count) for count in further] + [0]
        index = index.repeat_interleave(m)
        memory = agent.initial(len(index)).map
        noise = policy.noise(steps, memory.new_zeros(len(index), len(agent.cell_centres)))
        memory = to_bf16(memory, self.bf16)
        seen, location = self.sensor.first(store, index)
        path: list[tuple[Tensor, Tensor]] = []  # the map after a glimpse, and its place there
        read: list[_Read] = []
        agent.eval()
        with torch.no_grad(), autocast(location.device.type, self.bf16):
            for t in range(steps):
                count = going_on[t]
                if t:
                    if scan:
                        with draws.first_images(further[t - 1], m):
                            shift = draws.randn(*location.shape, device=location.device)
                        location = agent.scan[t - 1] + self.jitter * shift
                    else:
                        location = policy.location(read[-1].choice)
                    location = location[:count]
                    seen = self.sensor(store, index[:count], location)
                code: Any = agent.encode(seen, location)
                memory = agent.core(code, memory[:count])
                path.append((memory, code.location))
                if scan:
                    continue
                h = agent.core.read(*path[-1]).float()
                scores = agent.score_cells(memory)
                with draws.first_images(further[t], m):
                    choice = policy.choose(scores, noise[t, :count])
                read.append(_Read(location, h, agent.classifier(h), scores, choice))
        agent.train(training)

        # The first images have the longest trajectories.
        ends = [
            (memory[more:], where[more:], torch.full_like(index[more:count], t))
            for t, (memory, where), (count, more) in zip(
                range(1, steps + 1), path, pairwise(going_on), strict=True
            )
        ]
        maps, where, length = (torch.cat(column[::-1]) for column in zip(*ends, strict=True))
        with autocast(location.device.type, self.bf16):
            h = agent.core.read(maps, where).float()
        at_end = torch.arange(1, steps + 1, device=h.device)[:, None] == length
        if scan:
            return _scanned(agent, h, at_end)
        read = self._score_again(path, read)
        dense = _Read(*(_filled(list(column)) for column in zip(*read, strict=True)))
        return Trajectory(
            locations=dense.location,
            logits=torch.where(at_end[..., None], agent.classifier(h), dense.logits),
            sampled_locations=policy.location(dense.choice),
            location_log_prob=policy.log_prob(dense.choice, dense.scores),
            stop_logit=torch.zeros_like(dense.logits[..., 0]),
            stop=at_end,
            value=agent.value(dense.h),
            location_entropy=policy.entropy(dense.scores),
            location_score=dense.scores.gather(-1, dense.choice[..., None]).squeeze(-1),
            supervised=at_end,
        )

    def _score_again(self, path: list[tuple[Tensor, Tensor]], read: list["_Read"]) -> list["_Read"]:
        """The same with gradients to the scores, where a further glimpse was taken."""
        counts = [len(memory) for memory, _ in path[1:]]
        if not counts:
            return read
        maps = torch.cat([path[t][0][:count] for t, count in enumerate(counts)])
        with autocast(maps.device.type, self.bf16):
            again = self.agent.locator(maps).float().split(counts)
        for t, scores in enumerate(again):
            before = read[t].scores
            scores = torch.where(before[: counts[t]] > FORBIDDEN, scores, FORBIDDEN)
            read[t] = read[t]._replace(scores=torch.cat([scores, before[counts[t] :]]))
        return read


class _Read(NamedTuple):
    """What was read of the maps after one glimpse, or after each."""

    location: Tensor  # (B, 2)
    h: Tensor  # (B, H)
    logits: Tensor  # (B, K)
    scores: Tensor  # (B, G * G)
    choice: Tensor  # (B,)


def _scanned(agent: MapDTRAM, h: Tensor, at_end: Tensor) -> Trajectory:
    """Trajectories along a scan, of which only the last answer was read."""
    zeros = torch.zeros_like(at_end, dtype=h.dtype)
    centre = zeros[..., None].expand(*zeros.shape, 2)
    logits = agent.classifier(h).expand(*zeros.shape, -1)
    return Trajectory(centre, logits, centre, zeros, zeros, at_end, zeros, supervised=at_end)


def _filled(column: list[Tensor]) -> Tensor:
    """Stacks tensors ``(n, ...)`` of each glimpse as ``(T, B, ...)``, where n falls from B; what
    has ended keeps its last values."""
    rows = [column[0]]
    for new in column[1:]:
        rows.append(torch.cat([new, rows[-1][len(new) :]]))
    return torch.stack(rows)

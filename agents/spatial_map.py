"""DT-RAM with a spatial memory: a map of what was seen, where it was seen.

Its core has in place of one vector a map of the image: the pixels of each scale of the glimpses,
and a mask that tells which cells were seen. A small convolutional network reads the map after each
glimpse: the classifier and the stopper see its output as a vector h_t, and the locator scores cells
with a 1x1 convolution, so that "the tail, wherever it is" is one filter. Nothing but glimpses
enters the map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, pixel_unshuffle

from dtram_env.sensor_torch import TorchStore, corner

from .config import DTRAMConfig
from .cores import cells_of_scales, features_of_scales
from .dtram import DTRAM
from .encoders import PixelScale
from .location_policy import FORBIDDEN, CellLocations
from .precision import autocast
from .unroll import GlimpseSensor, Trajectory


class MapState(NamedTuple):
    """State of a batch: the fields of `dtram.State` that a map needs, and the map."""

    h: Tensor  # (B, H) h_t, read from the map
    time: Tensor  # (B,) int64, glimpses taken so far
    map: Tensor  # (B, F, R, R) of each scale: a cell's pixels, and whether it was seen
    scores: Tensor  # (B, G * G) of the cells, from which the next location is chosen


class MapEncoder(nn.Module):
    """Puts the pixels of a glimpse where they lie in the map.

    At each scale a cell holds all the pixels that it covers, or the one in which it lies.
    """

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        self.options, self.cells_of_scales = config.map, cells_of_scales(config)
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        """The map ``(B, F, R, R)`` of this glimpse alone, zeros where it shows nothing."""
        pixels = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2)
        where = location * (self.options.image_cells / self.options.cells)
        placed = []
        for crop, side in zip(pixels.split(1, dim=1), self.cells_of_scales, strict=True):
            if side < crop.shape[-1]:
                patch = pixel_unshuffle(crop, crop.shape[-1] // side)
            else:
                repeat = side // crop.shape[-1]
                patch = crop.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
            placed.append(_place(patch, where, self.options.cells))
        return torch.cat(placed, dim=1)


def _place(patch: Tensor, location: Tensor, cells: int) -> Tensor:
    """Puts patches ``(B, F, c, c)`` on empty maps ``(B, F + 1, R, R)``, centred at `location`, for
    which the map is 2 wide. The last channel is 1 where the patch is."""
    side = patch.shape[-1]
    patch = torch.cat([patch, torch.ones_like(patch[:, :1])], dim=1)
    first = corner(location, cells, side)  # (B, 2): x, y
    offset = torch.arange(cells, device=patch.device) - first[..., None]  # (B, 2, R)
    inside = (offset >= 0) & (offset < side)
    x, y = offset.clamp(0, side - 1).unbind(1)
    features = patch.shape[1]
    rows = patch.gather(2, y[:, None, :, None].expand(-1, features, cells, side))
    placed = rows.gather(3, x[:, None, None, :].expand(-1, features, cells, cells))
    return placed * (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]


class MapCore(nn.Module):
    """Writes a glimpse into the map, and reads the map."""

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        width, options = config.map.width, config.map
        self.levels = features_of_scales(config)
        self.read = nn.Sequential(
            *(_conv(sum(self.levels), width), _conv(width, width), nn.MaxPool2d(2)),
            *(_conv(width, 2 * width), _conv(2 * width, 2 * width), nn.MaxPool2d(2)),
            *(_conv(2 * width, 4 * width), _conv(4 * width, 4 * width)),
        ).to(memory_format=torch.channels_last)
        self.out_channels, self.side = 4 * width, options.cells // 4
        fixed = options.pool == "none"
        out = self.out_channels * self.side**2 if fixed else 2 * self.out_channels
        pool = nn.Flatten() if fixed else MaxAndMean()
        hidden = nn.Linear(out, config.hidden_size)
        self.pool = nn.Sequential(pool, nn.Dropout(options.dropout), hidden, nn.ReLU())

    def forward(self, placed: Tensor, before: Tensor) -> Tensor:
        """The map after a glimpse ``(B, F, R, R)``, which adds what was not seen at its scale."""
        parts = zip(placed.split(self.levels, 1), before.split(self.levels, 1), strict=True)
        return torch.cat([torch.where(old[:, -1:] > 0, old, new) for new, old in parts], dim=1)


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
    scan: Tensor  # (T - 1, 2) locations of glimpses 2 ... T; (0) if the locator chooses them

    def __init__(self, config: DTRAMConfig, *args: Any, **kw: Any) -> None:
        super().__init__(config, *args, **kw)
        assert config.map is not None
        cells, image = config.map.cells, config.map.image_cells
        self.cell_centres *= cells / image  # the grid lies over the map
        outside = (torch.arange(cells) + 0.5 - cells / 2).abs() > image / 2
        outside = (outside[:, None] | outside).float()
        self.register_buffer("outside", outside, persistent=False)
        self.register_buffer("scan", torch.tensor(config.scan), persistent=False)

    def _make_encoder_and_core(self) -> tuple[nn.Module, nn.Module]:
        return MapEncoder(self.config), MapCore(self.config)

    def _make_locator(self) -> nn.Module:
        """1x1 convolutions: each position of what was read scores its cells by itself."""
        width, hidden = self.core.out_channels, self.config.locator_hidden
        if self.config.scan:
            return nn.Flatten()
        finer = self.config.locator_grid // self.core.side
        layers = [nn.Conv2d(width, hidden, 1), nn.ReLU()] if hidden else []
        last = nn.Conv2d(hidden or width, finer**2, 1)
        nn.init.zeros_(last.weight)  # until something is learned, all cells score the same
        return nn.Sequential(*layers, last, nn.PixelShuffle(finer), nn.Flatten())

    def initial(self, batch: int) -> Any:
        """The `MapState` before the first glimpse: an empty map."""
        new, config = self.scalar_baseline.new_zeros, self.config
        assert config.map is not None
        return MapState(
            h=new(batch, config.hidden_size),
            time=new(batch, dtype=torch.int64),
            map=new(batch, sum(self.core.levels), config.map.cells, config.map.cells),
            scores=new(batch, config.locator_grid**2),
        )

    def update(self, code: Tensor, state: Any, step: int | None = None) -> Any:
        memory = self.core(code, state.map)
        features = self.core.read(memory)
        scores = self.score_cells(features, memory)
        return MapState(self.core.pool(features), state.time + 1, memory, scores)

    def score_cells(self, features: Tensor, memory: Tensor) -> Tensor:
        """Scores ``(B, G * G)`` of the cells, from what was read of a map and the map itself."""
        if self.config.scan:
            return features.new_zeros(len(features), 0)
        scores = self.locator(features.detach())
        return scores.masked_fill(self._shows_nothing_new(memory), FORBIDDEN)

    def _shows_nothing_new(self, memory: Tensor) -> Tensor:
        """Cells ``(B, G * G)`` bool outside the image, or about which all of a glimpse was seen."""
        options, grid = self.config.map, self.config.locator_grid
        assert options is not None
        side, pitch = options.glimpse_cells, options.cells // grid
        before = (side - pitch) // 2  # of the window of the first cell, outside the map
        seen = torch.maximum(memory[:, self.core.levels[0] - 1, None], self.outside)
        after = (grid - 1) * pitch + side - before - options.cells
        seen = pad(seen, (before, after, before, after), value=1.0)
        seen = avg_pool2d(seen, side, pitch) > 1 - 0.5 / side**2
        return seen.flatten(1) | (self.cell_centres.abs() > 1).any(dim=1)

    def location_params(self, state: Any) -> Tensor:
        """The scores of all cells ``(B, G * G)``."""
        return state.scores

    def locate(self, state: Any) -> Tensor:
        if self.config.scan:
            # After the last glimpse no location is needed.
            return self.scan[(state.time - 1).clamp(max=len(self.scan) - 1)]
        return super().locate(state)


def _conv(channels: int, out: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class MapUnroll(nn.Module):
    """Trajectories of a `MapDTRAM` to learn from; used as `unroll.Unroll`.

    What a map holds does not depend on how it was read before, so no gradient has to pass from
    glimpse to glimpse. The trajectories of a batch have all lengths from 1 to T, in equal shares.
    Their paths are read without gradients, in evaluation mode. Then the map of each trajectory is
    read once more, with gradients, after its last glimpse: `hybrid_loss` takes T times its
    cross-entropy, whose mean is that of the sum over all glimpses. The batch norms see maps with
    few and with many glimpses mixed, as their averages later serve all. Images must come in random
    order, because the first ones of a batch are looked at longest.

    Attributes:
        exploration: share of random cells; None: cells are sampled from the softmax of the scores.
        jitter: standard deviation of locations about those of a scan, in image halves.
    """

    def __init__(self, agent: MapDTRAM, sensor: GlimpseSensor, bf16: bool = False) -> None:
        super().__init__()
        self.agent, self.sensor, self.bf16 = agent, sensor, bf16
        self.exploration: float | None = None
        self.jitter = 0.0

    def mean_length(self, steps: int) -> float:
        """Mean number of glimpses of a trajectory."""
        return (steps + 1) / 2

    def forward(self, store: TorchStore, index: Tensor, steps: int, m: int = 1) -> Trajectory:
        """Samples `m` trajectories of up to `steps` glimpses for each image; the fields are those
        of `Unroll.forward`, where entries after a trajectory's end repeat its last answer."""
        agent, training, images = self.agent, self.agent.training, len(index)
        scan, policy = bool(agent.config.scan), CellLocations(agent.cell_centres, self.exploration)
        # Of N images so many get more than 0, 1 ... glimpses.
        going_on = [m * (images - images * t // steps) for t in range(steps)] + [0]
        index = index.repeat_interleave(m)
        state = agent.initial(len(index))
        memory = state.map.bfloat16() if self.bf16 else state.map
        noise = policy.noise(steps, state.scores)
        seen, location = self.sensor.first(store, index)
        path: list[_Read] = []
        ends: list[Tensor] = []
        agent.eval()
        with torch.no_grad(), autocast(location.device.type, self.bf16):
            for t in range(steps):
                count, more = going_on[t : t + 2]
                if t:
                    if scan:
                        location = agent.scan[t - 1] + self.jitter * torch.randn_like(location)
                    else:
                        location = policy.location(path[-1].choice)
                    location = location[:count]
                    seen = self.sensor(store, index[:count], location)
                memory = agent.core(agent.encode(seen, location), memory[:count])
                ends.append(memory[more:])
                if scan:
                    continue
                features = agent.core.read(memory)
                scores = agent.score_cells(features, memory).float()
                h = agent.core.pool(features).float()
                choice = policy.choose(scores, noise[t, :count])
                logits, features = agent.classifier(h), features.float()
                path.append(_Read(location, h, logits, features, scores, choice))
        agent.train(training)

        with autocast(location.device.type, self.bf16):
            h = agent.core.pool(agent.core.read(torch.cat(ends[::-1]))).float()
        time = torch.arange(1, steps + 1, device=h.device)[:, None]
        length = torch.cat([t.expand(len(end)) for t, end in zip(time, ends, strict=True)][::-1])
        at_end = time == length
        if scan:
            return _scanned(agent, h, at_end)
        dense = _Read(*(_filled(list(column)) for column in zip(*path, strict=True)))
        logits = torch.where(at_end[..., None], agent.classifier(h), dense.logits)
        scores = agent.locator(dense.features.flatten(0, 1)).unflatten(0, (steps, -1))
        scores = torch.where(dense.scores > FORBIDDEN, scores, FORBIDDEN)
        return Trajectory(
            locations=dense.location,
            logits=logits,
            location_mean=agent.best_location(scores),
            sampled_locations=policy.location(dense.choice),
            location_log_prob=policy.log_prob(dense.choice, scores),
            stop_logit=torch.zeros_like(scores[..., 0]),
            stop=at_end,
            value=agent.value(dense.h),
            location_entropy=policy.entropy(scores),
            location_score=scores.gather(-1, dense.choice[..., None]).squeeze(-1),
            supervised=at_end,
        )


class _Read(NamedTuple):
    """What was read of the maps after one glimpse, or after each."""

    location: Tensor  # (B, 2)
    h: Tensor  # (B, H)
    logits: Tensor  # (B, K)
    features: Tensor  # (B, 4 W, R / 4, R / 4)
    scores: Tensor  # (B, G * G)
    choice: Tensor  # (B,)


def _scanned(agent: MapDTRAM, h: Tensor, at_end: Tensor) -> Trajectory:
    """Trajectories along a scan, of which only the last answer was read."""
    zeros = torch.zeros_like(at_end, dtype=h.dtype)
    centre = zeros[..., None].expand(*zeros.shape, 2)
    logits = agent.classifier(h).expand(*zeros.shape, -1)
    return Trajectory(
        centre, logits, centre, centre, zeros, zeros, at_end, zeros, supervised=at_end
    )


def _filled(column: list[Tensor]) -> Tensor:
    """Stacks tensors ``(n, ...)`` of each glimpse as ``(T, B, ...)``, where n falls from B; what
    has ended keeps its last values."""
    rows = [column[0]]
    for new in column[1:]:
        rows.append(torch.cat([new, rows[-1][len(new) :]]))
    return torch.stack(rows)

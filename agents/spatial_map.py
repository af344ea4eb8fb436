"""DT-RAM with a spatial memory: a map of what was seen, where it was seen.

Its core has in place of one vector a map of pixels, each with a mask that tells whether it was
seen. A small convolutional network reads the map after each glimpse: the classifier and the stopper
see its output as a vector h_t, and the locator scores places with a 1x1 convolution, so that "the
tail, wherever it is" is one filter. Nothing but glimpses enters the map.

In the frame of the image, the map is as large as the image. In the frame of the gaze, it lies about
the last glimpse and moves with it: one part for each scale of a glimpse, with pixels of that scale.
So what a glimpse costs does not depend on the image's size, and an object that is looked at lies in
the middle, wherever it is in the image.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from dtram_env.sensor_torch import TorchStore, corner

from .config import DTRAMConfig
from .cores import MapOptions
from .dtram import DTRAM
from .encoders import PixelScale
from .location_policy import FORBIDDEN, CellLocations
from .precision import autocast
from .unroll import GlimpseSensor, Trajectory

MOVE = 4
"""Side of the cells among which the next location is chosen in the frame of the gaze, in pixels."""


class MapState(NamedTuple):
    """State of a batch: the fields of `dtram.State` that a map needs, and the map."""

    h: Tensor  # (B, H) h_t, read from the map
    time: Tensor  # (B,) int64, glimpses taken so far
    map: Tensor  # (B, L, 2, R, R) of each scale: pixels, and whether they were seen
    gaze: Tensor  # (B, 2) location of the last glimpse
    scores: Tensor  # (B, G * G) of the cells, from which the next location is chosen


class Shown(NamedTuple):
    """A glimpse's normalised pixels ``(B, L, g, g)``, and its location ``(B, 2)``."""

    pixels: Tensor
    location: Tensor


class MapEncoder(nn.Module):
    """Normalises a glimpse; the map holds pixels as they are."""

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)

    def forward(self, glimpse: Tensor, location: Tensor) -> Shown:
        return Shown(self.scale(glimpse, location.dtype).permute(0, 3, 1, 2), location)


class MapCore(nn.Module):
    """Writes a glimpse into the map, and reads the map.

    Six 3x3 convolutions with batch norm; the first two read each scale by itself, with the same
    weights.
    """

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        self.options, width, scales = config.map, config.map.width, config.glimpse_shape[2]
        self.read_scale = _layers([2, width, width]).append(nn.MaxPool2d(2))
        joined = _layers([scales * width, 2 * width, 2 * width]).append(nn.MaxPool2d(2))
        self.read_joined = joined.extend(_layers([2 * width, 4 * width, 4 * width]))
        self.to(memory_format=torch.channels_last)
        self.out_channels, self.side = 4 * width, config.map.cells // 4
        hidden = nn.Linear(self.out_channels * self.side**2, config.hidden_size)
        dropout = nn.Dropout(config.map.dropout)
        self.pool = nn.Sequential(nn.Flatten(), dropout, hidden, nn.ReLU())

    def read(self, memory: Tensor) -> Tensor:
        """Features ``(B, 4 W, R / 4, R / 4)`` of maps ``(B, L, 2, R, R)``."""
        each = self.read_scale(memory.flatten(0, 1))
        return self.read_joined(each.unflatten(0, memory.shape[:2]).flatten(1, 2))

    def forward(self, shown: Shown, memory: Tensor, gaze: Tensor) -> Tensor:
        """The map after a glimpse, from the map before it and the location of the gaze there."""
        pixels, cells = shown.pixels.to(memory.dtype), self.options.cells
        if self.options.frame == "gaze":
            memory = self._moved(memory, gaze, shown.location)
            first = (cells - pixels.shape[-1]) // 2
            window = slice(first, first + pixels.shape[-1])
            memory[:, :, 0, window, window] = pixels
            memory[:, :, 1, window, window] = 1
            return memory
        placed = _place(pixels, shown.location, cells)[:, None]
        return torch.where(placed[:, :, 1:] > 0, placed, memory)

    def _moved(self, memory: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """A map about another gaze: what leaves it is forgotten, what is new was not seen."""
        cells, batch = self.options.cells, len(memory)
        scale = 2 ** torch.arange(memory.shape[1], device=memory.device)[:, None]
        # Whole cells of each scale, rounded from where the gaze is, so that errors do not add up.
        start, end = (
            torch.floor(gaze.double() * (self.options.image_side / 2) + 0.5)[:, None] // scale
            for gaze in (before, after)
        )
        place = torch.arange(cells, device=memory.device) + (end - start).long()[..., None]
        inside = (place >= 0) & (place < cells)  # (B, L, 2, R)
        x, y = place.clamp(0, cells - 1).flatten(0, 1).unbind(1)
        kept = (inside[:, :, 1, :, None] & inside[:, :, 0, None, :])[:, :, None]
        rows = memory.flatten(0, 1).gather(2, y[:, None, :, None].expand(-1, 2, cells, cells))
        moved = rows.gather(3, x[:, None, None, :].expand(-1, 2, cells, cells))
        return moved.unflatten(0, (batch, -1)) * kept


class MapDTRAM(DTRAM):
    """A DT-RAM whose core is a map, see the module; arguments and results as `DTRAM`'s."""

    KIND = "DT-RAM with a map"
    core: MapCore
    options: MapOptions
    scan: Tensor  # (T - 1, 2) locations of glimpses 2 ... T; (0) if the locator chooses them

    def __init__(self, config: DTRAMConfig, *args: Any, **kw: Any) -> None:
        super().__init__(config, *args, **kw)
        assert config.map is not None
        self.options = config.map
        if self.options.frame == "gaze":
            # The cells' distances from the gaze; there is one at 0.
            steps = torch.arange(config.locator_grid) - config.locator_grid // 2
            y, x = torch.meshgrid(steps, steps, indexing="ij")
            moves = torch.stack([x, y], dim=-1).flatten(0, 1).float()
            self.cell_centres = moves * (MOVE * 2 / self.options.image_side)
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
        cells, scales = self.options.cells, config.glimpse_shape[2]
        return MapState(
            h=new(batch, config.hidden_size),
            time=new(batch, dtype=torch.int64),
            map=new(batch, scales, 2, cells, cells),
            gaze=new(batch, 2),
            scores=new(batch, config.locator_grid**2),
        )

    def update(self, code: Any, state: Any, step: int | None = None) -> Any:
        memory = self.core(code, state.map, state.gaze)
        features = self.core.read(memory)
        scores = self.score_cells(features, memory, code.location)
        return MapState(self.core.pool(features), state.time + 1, memory, code.location, scores)

    def score_cells(self, features: Tensor, memory: Tensor, gaze: Tensor) -> Tensor:
        """Scores ``(B, G * G)`` of the cells, from what was read of a map and the map itself."""
        if self.config.scan:
            return features.new_zeros(len(features), 0)
        scores = self.locator(features.detach())
        outside = (self.locations_of(None, gaze).abs() > 1).any(dim=-1)
        return scores.masked_fill(outside | self._shows_nothing_new(memory), FORBIDDEN)

    def _shows_nothing_new(self, memory: Tensor) -> Tensor:
        """Cells ``(B, G * G)`` bool about which a glimpse's whole window was seen."""
        cells, grid, side = (
            self.options.cells,
            self.config.locator_grid,
            self.config.glimpse_shape[0],
        )
        seen = memory[:, 0, 1:].float()
        if self.options.frame == "gaze":
            pitch, known = MOVE, 0.0
            before = MOVE * (grid // 2) + side // 2 - cells // 2  # of the first cell's window
        else:
            pitch, known = cells // grid, 1.0  # outside the image there is nothing to see
            before = (side - pitch) // 2
        after = (grid - 1) * pitch + side - before - cells
        seen = avg_pool2d(pad(seen, (before, after, before, after), value=known), side, pitch)
        return (seen > 1 - 0.5 / side**2).flatten(1)

    def locations_of(self, choice: Tensor | None, gaze: Tensor) -> Tensor:
        """Locations ``(B, 2)`` of chosen cells ``(B,)``, or of all ``(B, G * G, 2)``, from the gaze
        ``(B, 2)``."""
        centres = self.cell_centres if choice is None else self.cell_centres[choice]
        if self.options.frame == "image":
            return centres if choice is not None else centres[None]
        return centres + (gaze[:, None] if choice is None else gaze)

    def location_params(self, state: Any) -> Tensor:
        """The scores of all cells ``(B, G * G)``."""
        return state.scores

    def locate(self, state: Any) -> Tensor:
        if self.config.scan:
            # After the last glimpse no location is needed.
            return self.scan[(state.time - 1).clamp(max=len(self.scan) - 1)]
        return self.locations_of(state.scores.argmax(dim=-1), state.gaze)


def _place(pixels: Tensor, location: Tensor, cells: int) -> Tensor:
    """Puts glimpses ``(B, 1, g, g)`` on empty maps ``(B, 2, R, R)`` of images of R pixels."""
    side = pixels.shape[-1]
    pixels = torch.cat([pixels, torch.ones_like(pixels)], dim=1)
    first = corner(location, cells, side)  # (B, 2): x, y
    offset = torch.arange(cells, device=pixels.device) - first[..., None]  # (B, 2, R)
    inside = (offset >= 0) & (offset < side)
    x, y = offset.clamp(0, side - 1).unbind(1)
    rows = pixels.gather(2, y[:, None, :, None].expand(-1, 2, cells, side))
    placed = rows.gather(3, x[:, None, None, :].expand(-1, 2, cells, cells))
    return placed * (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]


def _layers(channels: list[int]) -> nn.Sequential:
    """3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


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
        memory, gaze = state.map.bfloat16() if self.bf16 else state.map, state.gaze
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
                        location = path[-1].next_location
                    location = location[:count]
                    seen = self.sensor(store, index[:count], location)
                memory = agent.core(agent.encode(seen, location), memory[:count], gaze[:count])
                gaze = location
                ends.append(memory[more:])
                if scan:
                    continue
                features = agent.core.read(memory)
                scores = agent.score_cells(features, memory, gaze).float()
                h = agent.core.pool(features).float()
                choice = policy.choose(scores, noise[t, :count])
                after = agent.locations_of(choice, gaze)
                logits, features = agent.classifier(h), features.float()
                path.append(_Read(location, h, logits, features, scores, choice, after))
        agent.train(training)

        with autocast(location.device.type, self.bf16):
            h = agent.core.pool(agent.core.read(torch.cat(ends[::-1]))).float()
        length = torch.cat([torch.full((len(end),), t + 1) for t, end in enumerate(ends)][::-1])
        at_end = (torch.arange(1, steps + 1)[:, None] == length).to(h.device)
        if scan:
            return _scanned(agent, h, at_end)
        dense = _Read(*(_filled(list(column)) for column in zip(*path, strict=True)))
        logits = torch.where(at_end[..., None], agent.classifier(h), dense.logits)
        scores = agent.locator(dense.features.flatten(0, 1)).unflatten(0, (steps, -1))
        scores = torch.where(dense.scores > FORBIDDEN, scores, FORBIDDEN)
        return Trajectory(
            locations=dense.location,
            logits=logits,
            location_mean=dense.next_location,
            sampled_locations=dense.next_location,
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
    next_location: Tensor  # (B, 2)


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

"""DT-RAM with a spatial memory: a map of the image that keeps what was seen, where it was seen.

Its core has in place of one vector a grid of cells over the image. Each glimpse is written at the
cells that it covers, and a mask tells which cells were seen. A small convolutional network reads
the map after each glimpse: the classifier and the stopper see its output as a vector h_t, and the
locator scores the cells with a convolution, so that "the tail, wherever it is" is one filter.
Nothing but glimpses enters the map, so the cost of a glimpse does not depend on the image's size.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad

from dtram_env.sensor_torch import TorchStore, corner

from .config import DTRAMConfig
from .dtram import DTRAM
from .encoders import PixelScale
from .location_policy import CellLocations
from .precision import autocast
from .unroll import GlimpseSensor, Trajectory

SEEN_SCORE = -1e4
"""Score of a cell at which a glimpse would show nothing new: its probability is 0, and finite
numbers keep the entropy's gradient finite."""


class MapState(NamedTuple):
    """State of a batch: the fields of `dtram.State` that a map needs, and the map."""

    h: Tensor  # (B, H) h_t, read from the map
    time: Tensor  # (B,) int64, glimpses taken so far
    map: Tensor  # (B, L * (F + 1), R, R): for each of L scales F features and whether it was seen
    scores: Tensor  # (B, G * G) of the cells, from which the next location is chosen


class MapEncoder(nn.Module):
    """Turns a glimpse into what it adds to the map."""

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.map is not None
        self.options, self.thumbnail_size = config.map, config.thumbnail_size
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)
        channels = config.glimpse_shape[2] // self.options.num_scales
        self.features, self.what = _patch_encoder(config.encoder, channels)
        self.channels = (self.features + 1) * _levels(config)

    def forward(self, glimpse: Tensor, location: Tensor) -> Tensor:
        """The map's new cells ``(B, L * (F + 1), R, R)``, zeros where nothing was seen."""
        pixels = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2)
        options, whole = self.options, glimpse.shape[1] == self.thumbnail_size
        crops = [pixels] if whole else pixels.chunk(options.num_scales, dim=1)
        sides = [options.cells] if whole else options.cells_of_scales()
        shown = [
            _place(adaptive_avg_pool2d(self.what(crop), side), location, options.cells)
            for crop, side in zip(crops, sides, strict=True)
        ]
        placed = torch.cat(shown, dim=1)
        # A thumbnail has a level of its own, the last, as it shows less than crops do.
        missing = self.channels - placed.shape[1]
        return pad(placed, (0, 0, 0, 0, *((missing, 0) if whole else (0, missing))))


def _levels(config: DTRAMConfig) -> int:
    """Parts of the map: one for each scale, and one for a thumbnail."""
    assert config.map is not None
    return config.map.num_scales + (config.thumbnail_size > 0)


def _patch_encoder(name: str, channels: int) -> tuple[int, nn.Module]:
    """Number of features, and the network that makes them from a crop's normalised pixels."""
    if name == "pixels":
        return channels, nn.Identity()
    layers = _conv(channels, 16), _conv(16, 32), nn.MaxPool2d(2), _conv(32, 32)
    return 32, nn.Sequential(*layers)


def _place(patch: Tensor, location: Tensor, cells: int) -> Tensor:
    """Puts patches ``(B, F, p, p)`` on empty maps ``(B, F + 1, R, R)``, centred at `location`.

    The last channel is 1 where the patch is. At R = the image's side it lies as in the image.
    """
    side = patch.shape[-1]
    patch = torch.cat([patch, torch.ones_like(patch[:, :1])], dim=1)
    first = corner(location, cells, side)  # (B, 2): x, y
    offset = torch.arange(cells, device=patch.device) - first[..., None]  # (B, 2, R)
    inside = (offset >= 0) & (offset < side)
    x, y = offset.clamp(0, side - 1).unbind(1)
    batch, channels = patch.shape[:2]
    rows = patch.gather(2, y[:, None, :, None].expand(batch, channels, cells, side))
    placed = rows.gather(3, x[:, None, None, :].expand(batch, channels, cells, cells))
    return placed * (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]


class MapCore(nn.Module):
    """Writes what a glimpse adds over what the map had, and reads the map."""

    def __init__(self, config: DTRAMConfig, channels: int) -> None:
        super().__init__()
        assert config.map is not None
        width, options = config.map.width, config.map
        self.per_level = channels // _levels(config)
        self.read = nn.Sequential(
            *(_conv(channels, width), _conv(width, width), nn.MaxPool2d(2)),
            *(_conv(width, 2 * width), _conv(2 * width, 2 * width), nn.MaxPool2d(2)),
            *(_conv(2 * width, 4 * width), _conv(4 * width, 4 * width)),
        ).to(memory_format=torch.channels_last)
        self.out_channels, self.side = 4 * width, options.cells // 4
        hidden = nn.Linear(self.out_channels * self.side**2, config.hidden_size)
        self.pool = nn.Sequential(nn.Flatten(), nn.Dropout(options.dropout), hidden, nn.ReLU())

    def forward(self, placed: Tensor, before: Tensor) -> Tensor:
        """The map after a glimpse ``(B, L * (F + 1), R, R)``, from what it adds and the old map."""
        new, old = (part.unflatten(1, (-1, self.per_level)) for part in (placed, before))
        return torch.where(new[:, :, -1:] > 0, new, old).flatten(1, 2)


class MapDTRAM(DTRAM):
    """A DT-RAM whose core is a map, see the module; arguments and results as `DTRAM`'s."""

    KIND = "DT-RAM with a map"
    encoder: MapEncoder
    core: MapCore

    def _make_encoder_and_core(self) -> tuple[nn.Module, nn.Module]:
        encoder = MapEncoder(self.config)
        return encoder, MapCore(self.config, encoder.channels)

    def _make_locator(self) -> nn.Module:
        """1x1 convolutions: each position of what was read scores its cells by itself."""
        width, hidden = self.core.out_channels, self.config.locator_hidden
        finer = self.config.locator_grid // self.core.side
        layers = [nn.Conv2d(width, hidden, 1), nn.ReLU()] if hidden else []
        last = nn.Conv2d(hidden or width, finer**2, 1)
        return nn.Sequential(*layers, last, nn.PixelShuffle(finer), nn.Flatten())

    def initial(self, batch: int) -> Any:
        """The `MapState` before the first glimpse: an empty map."""
        new, config = self.scalar_baseline.new_zeros, self.config
        assert config.map is not None
        cells = config.map.cells
        memory = new(batch, self.encoder.channels, cells, cells)
        scores = new(batch, config.locator_grid**2)
        return MapState(
            new(batch, config.hidden_size), new(batch, dtype=torch.int64), memory, scores
        )

    def update(self, code: Tensor, state: Any, step: int | None = None) -> Any:
        memory = self.core(code, state.map)
        features = self.core.read(memory)
        scores = self.score_cells(features, memory)
        return MapState(self.core.pool(features), state.time + 1, memory, scores)

    def score_cells(self, features: Tensor, memory: Tensor) -> Tensor:
        """Scores ``(B, G * G)`` of the cells, from what was read of a map and the map itself."""
        read = features if self.config.locator_input == "state" else features.detach()
        return self.locator(read).masked_fill(self._shows_nothing_new(memory), SEEN_SCORE)

    def _shows_nothing_new(self, memory: Tensor) -> Tensor:
        """Cells ``(B, G * G)`` bool about which the whole window of a glimpse was seen."""
        options, grid = self.config.map, self.config.locator_grid
        assert options is not None
        side, pitch = options.cells_of_scales()[0], options.cells // grid
        before = (side - pitch) // 2  # of the window of the first cell, outside the map
        seen = memory[:, self.encoder.features, None]
        after = (grid - 1) * pitch + side - before - options.cells
        seen = pad(seen, (before, after, before, after), value=1.0)
        return (avg_pool2d(seen, side, pitch) > 1 - 0.5 / side**2).flatten(1)

    def location_params(self, state: Any) -> Tensor:
        """The scores of all cells ``(B, G * G)``."""
        return state.scores


def _conv(channels: int, out: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class MapUnroll(nn.Module):
    """Trajectories of a `MapDTRAM` to learn from; used as `unroll.Unroll`.

    What a map holds does not depend on how it was read before, so no gradient has to pass from
    glimpse to glimpse. The path is read without gradients, in evaluation mode. Then the map of each
    trajectory is read once more, with gradients, after a glimpse drawn at random: `hybrid_loss`
    takes T times its cross-entropy, whose mean is that of the sum over all glimpses. Scripted paths
    are not read before that at all. The batch norms see maps with few and with many glimpses mixed,
    as their averages later serve all.
    """

    agent: MapDTRAM
    scripted_locations: Tensor | None

    def __init__(self, agent: MapDTRAM, sensor: GlimpseSensor, bf16: bool = False) -> None:
        super().__init__()
        self.agent, self.sensor, self.bf16 = agent, sensor, bf16
        self.register_buffer("scripted_locations", None, persistent=False)

    def forward(self, store: TorchStore, index: Tensor, steps: int, m: int = 1) -> Trajectory:
        """Samples `m` trajectories of `steps` glimpses for each image; see `Unroll.forward`."""
        agent, script, batch = self.agent, self.scripted_locations, len(index) * m
        policy, training = CellLocations(agent.cell_centres), agent.training
        seen, location = self.sensor.first(store, index)
        index, location = index.repeat_interleave(m), location.repeat_interleave(m, dim=0)
        seen, memory = seen.repeat_interleave(m, dim=0), agent.initial(batch).map
        noise = policy.noise(steps, agent.initial(batch).scores)
        maps, locations, features, path = [], [], [], []
        choices: list[Tensor] = []
        agent.eval()
        for t in range(steps):
            if t:
                location = policy.location(choices[-1])
                seen = self.sensor(store, index, location)
            memory = agent.core(agent.encode(seen, location), memory)
            if script is None:
                with torch.no_grad(), autocast(memory.device.type, self.bf16):
                    features.append(agent.core.read(memory).float())
                    path.append(agent.core.pool(features[-1]).float())
                    params = agent.score_cells(features[-1], memory)
            else:
                target = script[min(t, len(script) - 1)]
                params = policy.about(target, noise[t])
            choices.append(policy.choose(params.float(), noise[t]))
            maps.append(memory)
            locations.append(location)
        agent.train(training)
        pick = torch.randint(steps, (batch,), device=memory.device)
        supervised = torch.arange(steps, device=pick.device)[:, None] == pick
        memory = torch.stack(maps)[pick, torch.arange(batch, device=pick.device)]
        with autocast(memory.device.type, self.bf16):
            read = agent.core.read(memory)
            h = agent.core.pool(read).float()
        logits, choice = agent.classifier(h).expand(steps, -1, -1), torch.stack(choices)
        if script is None:
            h = torch.where(supervised[..., None], h, torch.stack(path))
            with torch.no_grad():
                path_logits = agent.classifier(h)
            logits = torch.where(supervised[..., None], logits, path_logits)
            scores = [agent.score_cells(*part) for part in zip(features, maps, strict=True)]
            params = torch.stack(scores)
            log_prob = policy.log_prob(choice, params)
        else:
            h = h.expand(steps, -1, -1)
            params = agent.score_cells(read.float(), memory).expand(steps, -1, -1)
            targets = [script[min(t, len(script) - 1)] for t in range(steps)]
            wanted = torch.stack([policy.about(target, params[0]) for target in targets])
            wanted = torch.where(params > SEEN_SCORE, wanted, SEEN_SCORE)
            log_prob = steps * supervised * policy.mean_log_prob(wanted, params)
        time = torch.arange(1, steps + 1, device=h.device)[:, None].expand(steps, batch)
        stop_logit = agent.stop_logit(h, logits, time)
        return Trajectory(
            locations=torch.stack(locations),
            logits=logits,
            location_mean=agent.best_location(params),
            sampled_locations=policy.location(choice),
            location_log_prob=log_prob,
            stop_logit=stop_logit,
            stop=torch.rand_like(stop_logit) < torch.sigmoid(stop_logit.detach()),
            value=agent.value(h),
            location_entropy=policy.entropy(params),
            supervised=supervised,
        )

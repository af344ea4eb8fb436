"""DT-RAM that chooses its locations on its first look, a thumbnail of the whole image.

The talk's locator reads h_t, a vector, in which a place of the thumbnail is hard to find again.
This one is a convolutional network in two parts. The first reads the thumbnail, once. The second
reads its features after each glimpse, with a mask of what later glimpses have shown, and a few
numbers made of h_t, which tell what to look for. It scores cells of the image, so one filter finds
a part at any place. It sees no pixels but those of glimpses. Encoder, core and the other heads are
those of `DTRAM`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from .cells import group_norm, plane_reader, position_scorer
from .config import DTRAMConfig
from .dtram import DTRAM
from .encoders import PixelScale
from .location_policy import FORBIDDEN

CONTEXT = 4  # numbers made of h_t that the locator reads at every position
CLOSE = 0.5
"""A cell is not chosen if its centre lies within this many half-crops of the location of a glimpse
2...t, along both axes."""


class FirstLookState(NamedTuple):
    """State of a batch: the fields of `dtram.State`, and what the locator reads."""

    h: Tensor  # (B, H) h_t
    time: Tensor  # (B,) int64, glimpses taken so far
    first_logits: Tensor
    later_logits: Tensor
    features: Tensor  # (B, F, s, s) of the thumbnail, at a quarter of `FirstLookOptions.side`
    # (B, 1, s, s) 1 where a later glimpse showed the image, else 0; of an image that is not square
    # it marks somewhat more along the longer side
    seen: Tensor
    taken: Tensor  # (B, G * G) 1 for cells close to an earlier location, else 0


class Code(NamedTuple):
    """An encoded glimpse, with what the locator will read."""

    code: Tensor  # (B, H) φ(x, l_{t-1})
    pixels: Tensor  # (B, C, g, g) normalised
    location: Tensor  # (B, 2)


class FirstLookLocator(nn.Module):
    """Scores ``(B, G * G)`` of cells, of the thumbnail's features, the mask and the state.

    `reader` makes the features ``(B, F, s, s)`` of the pixels ``(B, C, 4 * s, 4 * s)``.
    """

    def __init__(self, config: DTRAMConfig) -> None:
        super().__init__()
        assert config.first_look is not None
        width = config.first_look.width
        self.context = nn.Linear(config.hidden_size, CONTEXT)
        # Masks before and after glimpses differ; batch norms would learn them apart and use a mean.
        self.reader = plane_reader(config.glimpse_shape[2], width, group_norm)
        finer = 4 * config.locator_grid // config.first_look.side
        channels = 2 * width + 1 + CONTEXT
        self.scorer = position_scorer(channels, 2 * width, config.locator_hidden, finer, group_norm)

    def forward(self, features: Tensor, seen: Tensor, h: Tensor) -> Tensor:
        context = self.context(h)[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        return self.scorer(torch.cat([features, seen, context], dim=1))


class FirstLookDTRAM(DTRAM):
    """A DT-RAM whose locator reads its first look, see the module; else as `DTRAM`."""

    KIND = "DT-RAM with a locator on its first look"

    def __init__(self, config: DTRAMConfig, *args: Any, **kw: Any) -> None:
        super().__init__(config, *args, **kw)
        assert config.first_look is not None
        side = config.first_look.side // 4
        centre = (torch.arange(side) + 0.5) * (2 / side) - 1  # of the positions of its features
        self.register_buffer("position", centre, persistent=False)
        self.position: Tensor
        self.scale = PixelScale(config.pixel_mean, config.pixel_std)

    def _make_locator(self) -> nn.Module:
        return FirstLookLocator(self.config)

    def initial(self, batch: int) -> Any:
        """The `FirstLookState` before the first glimpse."""
        assert self.config.first_look is not None
        new, side = self.scalar_baseline.new_zeros, self.config.first_look.side // 4
        return FirstLookState(
            *super().initial(batch),
            features=new(batch, 2 * self.config.first_look.width, side, side),
            seen=new(batch, 1, side, side),
            taken=new(batch, len(self.cell_centres)),
        )

    def encode(self, glimpse: Tensor, location: Tensor, step: int | None = None) -> Any:
        pixels = self.scale(glimpse, location.dtype).permute(0, 3, 1, 2)
        return Code(super().encode(glimpse, location, step), pixels, location)

    def update(self, code: Any, state: Any, step: int | None = None) -> Any:
        if step is None and self.config.thumbnail_size:
            raise ValueError("step=None: expected the step, as the first look has another size")
        after: Any = super().update(code.code, state, step)
        features, later = state.features, (state.time > 0)[:, None]
        assert self.config.first_look is not None
        side, extent = self.config.first_look.side, self.config.first_look.extent
        reach = max(extent, 1 / len(self.position))  # so that every glimpse marks a position
        if not step:  # only glimpse 1 is a thumbnail
            assert isinstance(self.locator, FirstLookLocator)
            read = self.locator.reader(adaptive_avg_pool2d(code.pixels, side)).to(features.dtype)
            features = torch.where(later[..., None, None], features, read)
        across, down = ((self.position - x[:, None]).abs() < reach for x in code.location.T)
        shown = (down[:, :, None] & across[:, None, :] & later[..., None])[:, None]
        near = (self.cell_centres - code.location[:, None]).abs() < CLOSE * extent
        return after._replace(
            features=features,
            seen=torch.maximum(state.seen, shown.to(state.seen.dtype)),
            taken=torch.maximum(state.taken, (near.all(dim=-1) & later).to(state.taken.dtype)),
        )

    def location_params(self, state: Any) -> Tensor:
        """The scores of all cells ``(B, G * G)``."""
        scores = self.locator(state.features, state.seen, state.h.detach()).float()
        return scores.masked_fill(state.taken > 0, FORBIDDEN)

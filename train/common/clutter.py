"""Translated and cluttered digits composed anew in each batch, on the device.

The rules are those of `dtram_env.datasets.sources.cluttered`; only the random numbers differ. The
RAM paper trains so, too: its training images are never the same twice.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from agents import draws
from agents.checks import require
from dtram_env.datasets.sources.cluttered import COMPOSITIONS, DIGIT, PATCH


class Composer:
    """Composes images of one of the datasets `COMPOSITIONS`.

    Args:
        dataset: its title.
        digits: ``(N, 28, 28, 1)`` uint8, all digits of the training split.

    Raises:
        ValueError: the dataset is not composed of digits.
    """

    def __init__(self, dataset: str, digits: Tensor) -> None:
        known = ", ".join(COMPOSITIONS)
        require("augment compose, dataset", dataset, dataset in COMPOSITIONS, f"one of {known}")
        self.patches, self.side = COMPOSITIONS[dataset]
        self.digits = digits

    def __call__(self, index: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Images ``(B, side, side, 1)`` uint8 of the digits at `index` ``(B,)``, each of which
        `change` has augmented before."""
        batch, device = len(index), index.device

        def draw(end: int, count: int) -> Tensor:
            return draws.randint(end, batch, count, device=device)

        canvas = torch.zeros(batch, self.side * self.side, dtype=torch.int16, device=device)
        digit = change(self.digits[index]).view(batch, 1, DIGIT, DIGIT)
        places = self.side - DIGIT + 1
        self._add(canvas, digit, draw(places, 1), draw(places, 1))
        if self.patches:
            other = draw(len(self.digits) - 1, self.patches)
            other += other >= index[:, None]  # skips the image's own digit
            cuts, places, window = DIGIT - PATCH + 1, self.side - PATCH + 1, torch.arange(PATCH)
            row, column = (draw(cuts, self.patches)[..., None] + window.to(device) for _ in "yx")
            patch = self.digits[other[..., None, None], row[..., None], column[..., None, :], 0]
            self._add(canvas, patch, draw(places, self.patches), draw(places, self.patches))
        return canvas.clamp(max=255).byte().view(batch, self.side, self.side, 1)

    def _add(self, canvas: Tensor, pieces: Tensor, top: Tensor, left: Tensor) -> None:
        """Adds pieces ``(B, P, n, n)`` to the pixels of images at corners ``(B, P)``."""
        window = torch.arange(pieces.shape[-1], device=canvas.device)
        row, column = top[..., None] + window, left[..., None] + window
        pixel = row[..., None] * self.side + column[..., None, :]
        canvas.scatter_add_(1, pixel.flatten(1), pieces.flatten(1).to(canvas.dtype))

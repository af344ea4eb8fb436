"""Pieces: the ellipses and tapering bars of figures and clutter."""

from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np

from .textures import cosine, sine

Number = np.ndarray | float  # one value for each of N figures (N,), or one for all
Pair = tuple[Number, Number]


@dataclass(frozen=True)
class Pieces:
    """Shapes on images, float64 ``(..., Q)`` in image pixels, Q per image; y grows downwards."""

    x: np.ndarray  # the centre
    y: np.ndarray
    ux: np.ndarray  # unit vector along the piece's axis
    uy: np.ndarray
    vx: np.ndarray  # unit vector across the axis; mirrored if the figure is mirrored
    vy: np.ndarray
    a: np.ndarray  # half the length along the axis
    b: np.ndarray  # half the width across it; of a bar: at its back
    taper: np.ndarray  # ratio of a bar's width at its front to that at its back
    bar: np.ndarray  # (Q,) bool, whether it is a bar; else an ellipse

    def of(self, index: int) -> Self:
        """The pieces ``(Q,)`` of one image of N."""
        varying = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "bar"}
        return replace(self, **varying)

    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Left, top, right and bottom of every piece, each ``(..., Q)`` float64."""
        left, right = self._reach(self.x, self.ux, self.vx)
        top, bottom = self._reach(self.y, self.uy, self.vy)
        return left, top, right, bottom

    def pixels(self, size: int) -> np.ndarray:
        """Boxes ``(..., Q, 4)`` int32 in the image: left, top, exclusive right and bottom."""
        left, top, right, bottom = self.bounds()
        low = np.floor(np.stack([left, top], axis=-1) - 0.5)  # smooth edges add half a pixel
        high = np.ceil(np.stack([right, bottom], axis=-1) + 0.5)
        return np.clip(np.concatenate([low, high], axis=-1), 0, size).astype(np.int32)

    def _reach(
        self, centre: np.ndarray, u: np.ndarray, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinate on one axis, from the unit vectors' components on it."""
        along, back = self.a * u, np.abs(self.b * v)
        front, round_ = back * self.taper, np.sqrt(along * along + back * back)
        low = np.where(self.bar, np.maximum(front - along, back + along), round_)
        high = np.where(self.bar, np.maximum(front + along, back - along), round_)
        return centre - low, centre + high


@dataclass
class Figure:
    """Collects the pieces of N upright figures, back to front; x is forward, y is down."""

    inks: list[str] = field(default_factory=list)  # colours of the pieces, names in `genera.INKS`
    parts: list[int] = field(default_factory=list)  # parts of the pieces; -1: none
    _bars: list[bool] = field(default_factory=list)
    _rows: list[tuple[Number, ...]] = field(default_factory=list)

    def ellipse(
        self, ink: str, centre: Pair, half: Pair, *, angle: Number = 0.0, part: int = -1
    ) -> None:
        """Adds an ellipse in the plan's units; `angle` in turns, clockwise from x; see `Pieces`."""
        self._add(False, ink, part, (*centre, angle, *half, 1.0))

    def bar(
        self,
        ink: str,
        centre: Pair,
        half: Pair,
        *,
        angle: Number = 0.0,
        taper: Number = 1.0,
        part: int = -1,
    ) -> None:
        """Adds a bar; see `ellipse`."""
        self._add(True, ink, part, (*centre, angle, *half, taper))

    def _add(self, bar: bool, ink: str, part: int, row: tuple[Number, ...]) -> None:
        self._bars.append(bar)
        self.inks.append(ink)
        self.parts.append(part)
        self._rows.append(row)

    def place(
        self,
        tilt: np.ndarray,
        facing: np.ndarray,
        unit: np.ndarray,
        spot: tuple[np.ndarray, np.ndarray],
        size: int,
        margin: float,
    ) -> Pieces:
        """Places N figures on their images; returns the pieces ``(N, Q)``.

        `tilt` ``(N,)`` is in turns, clockwise before mirroring, `facing` 1 (right) or -1 (mirrored)
        and `unit` image pixels per unit. `spot` are fractions of the free width and height, in an
        image of side `size` with `margin` free pixels along every edge.
        """
        n = len(tilt)
        table = np.array([[np.broadcast_to(v, n) for v in row] for row in self._rows], np.float64)
        x, y, angle, a, b, taper = table.transpose(1, 2, 0)
        unit, facing = unit[:, None], facing[:, None]
        c, s = cosine(tilt)[:, None], sine(tilt)[:, None]
        turned = angle + tilt[:, None]
        ux, uy = cosine(turned), sine(turned)
        axes = {"ux": ux * facing, "uy": uy, "vx": -uy * facing, "vy": ux}
        x, y = unit * (x * c - y * s) * facing, unit * (x * s + y * c)
        bars = np.array(self._bars)
        loose = Pieces(x, y, **axes, a=unit * a, b=unit * b, taper=taper, bar=bars)
        left, top, right, bottom = loose.bounds()

        def shift(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
            low, high = low.min(axis=1), high.max(axis=1)
            room = np.maximum(size - 2 * margin - (high - low), 0.0)
            return (margin - low + share * room)[:, None]

        dx, dy = shift(left, right, spot[0]), shift(top, bottom, spot[1])
        return replace(loose, x=loose.x + dx, y=loose.y + dy)

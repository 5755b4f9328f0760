"""Products with C, whose zeros are known: psis enter later nodes only.

With the psis of the last node first, and the outputs before all of them, the columns of a node have
entries only above its own rows: C is a staircase of panels,

    C = [ panel_1 | panel_2 | ... ],    panel_k is zero from row `height_k` on,              (1)

heights ascending. Products skip the zeros, and symmetric ones their lower half. Where the nodes are
many and alike, of 2 n^3 operations Z C takes n^3, and C'Z C and C diag(g) C' take n^3/3 each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

_BLOCK = 128  #: rows that are mirrored at a time
_NARROWEST = 48  #: columns; narrower nodes share a panel


@dataclass(frozen=True, slots=True)
class Panel:
    """Consecutive columns of C."""

    start: int
    stop: int
    height: int  #: rows from here on are zero

    @property
    def columns(self) -> slice:
        """Which columns."""
        return slice(self.start, self.stop)


def panels_of(nodes: Sequence[int], outputs: int) -> tuple[Panel, ...]:
    """The panels of (1).

    Args:
        nodes: how many psis each node has, the last node first.
        outputs: the rows before those of the psis.
    """
    panels: list[Panel] = []
    start = first = 0
    for position, count in enumerate(nodes):
        stop = first + count
        # The panel's last node is the highest: it enters what comes before itself.
        if _NARROWEST <= stop - start or position == len(nodes) - 1:
            panels.append(Panel(start, stop, outputs + first))
            start = stop
        first = stop
    return tuple(panels)


def times(
    matrix: Float64[Tensor, "*batch m rows"],
    spread: Float64[Tensor, "*batch rows psis"],
    panels: Sequence[Panel],
) -> Float64[Tensor, "*batch m psis"]:
    """Z C."""
    if len(panels) == 1:
        high = panels[0].height
        return matrix[..., :high] @ spread[..., :high, :]
    out = matrix.new_empty(*matrix.shape[:-1], spread.shape[-1])
    for panel in panels:
        above = slice(0, panel.height)
        out[..., panel.columns] = matrix[..., above] @ spread[..., above, panel.columns]
    return out


def upper_gram(
    spread: Float64[Tensor, "*batch rows psis"],
    image: Float64[Tensor, "*batch rows psis"],
    panels: Sequence[Panel],
) -> Float64[Tensor, "*batch psis psis"]:
    """The upper triangle of C'Z C, from Z C; below it nothing is said."""
    if len(panels) == 1:
        high = panels[0].height
        return spread[..., :high, :].mT @ image[..., :high, :]
    out = spread.new_zeros(*spread.shape[:-2], spread.shape[-1], spread.shape[-1])
    for panel in panels:
        above = slice(0, panel.height)
        left = spread[..., above, panel.columns].mT
        out[..., panel.columns, panel.start :] = left @ image[..., above, panel.start :]
    return out


def upper_outer(
    spread: Float64[Tensor, "*batch rows psis"],
    scaled: Float64[Tensor, "*batch rows psis"],
    panels: Sequence[Panel],
) -> Float64[Tensor, "*batch rows rows"]:
    """The upper triangle of C diag(g) C', from C diag(g); below it nothing is said."""
    rows = spread.shape[-2]
    out = spread.new_zeros(*spread.shape[:-2], rows, rows)
    for band, first in _bands(panels):
        above = slice(0, band.stop)
        right = spread[..., band, first:].mT
        out[..., above, band] = scaled[..., above, first:] @ right
    return out


def upper_product(
    left: Float64[Tensor, "*batch n k"], right: Float64[Tensor, "*batch k n"]
) -> Float64[Tensor, "*batch n n"]:
    """The upper triangle of a product that is symmetric; below it nothing is said."""
    size = left.shape[-2]
    if size <= 2 * _BLOCK:
        return left @ right
    out = left.new_zeros(*left.shape[:-1], size)
    for start in range(0, size, _BLOCK):
        band = slice(start, start + _BLOCK)
        out[..., band, start:] = left[..., band, :] @ right[..., start:]
    return out


def outer(
    spread: Float64[Tensor, "*batch rows psis"],
    image: Float64[Tensor, "*batch psis m"],
    panels: Sequence[Panel],
) -> Float64[Tensor, "*batch rows m"]:
    """C Z."""
    out = spread.new_zeros(*spread.shape[:-1], image.shape[-1])
    for band, first in _bands(panels):
        out[..., band, :] = spread[..., band, first:] @ image[..., first:, :]
    return out


def _bands(panels: Sequence[Panel]) -> list[tuple[slice, int]]:
    """Rows, and the first column that has an entry in one of them; the others have none."""
    bands: list[tuple[slice, int]] = []
    done = 0
    for panel in panels:
        if done < panel.height:
            bands.append((slice(done, panel.height), panel.start))
            done = panel.height
    return bands


def mirrored(matrix: Float64[Tensor, "*batch n n"]) -> Float64[Tensor, "*batch n n"]:
    """The same matrix, its upper triangle copied to the lower one."""
    size = matrix.shape[-1]
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        corner = matrix[..., start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).mT)
        matrix[..., stop:, start:stop] = matrix[..., start:stop, stop:].mT
    return matrix


def symmetric(matrix: Float64[Tensor, "*batch n n"]) -> Float64[Tensor, "*batch n n"]:
    """The mean of a matrix and its transpose, in its place."""
    size = matrix.shape[-1]
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        row = matrix[..., start:stop, start:]
        below = matrix[..., start:, start:stop].mT.clone(memory_format=torch.contiguous_format)
        row.add_(below).mul_(0.5)
        matrix[..., stop:, start:stop] = row[..., stop - start :].mT
    return matrix

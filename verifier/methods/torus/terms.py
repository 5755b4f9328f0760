"""From flat linear maps to taps: which of the network's maps act alike at every place.

A signal before the crop is a tensor (channels, *spatial), flat in row-major order. A map is read
piece by piece; a piece that treats places differently (a border that is averaged over fewer
entries, a flattened layer) has no taps, and there the torus ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Int64
from torch import Tensor

from verifier.methods.torus.taps import Taps, of_convolution, pointwise
from verifier.network.linear_map import (
    Adjoint,
    Composed,
    Convolution,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
)


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Taps and the spatial shape that leaves them."""

    taps: Taps
    spatial: tuple[int, ...]
    sides: tuple[int, ...]  #: the least sides of a torus that hold this map, at its input


def moved(linear: LinearMap, shape: tuple[int, ...]) -> Moved | None:
    """The taps of a map of a tensor of this shape; None where it has none."""
    axes = len(shape) - 1
    whole = pointwise(torch.eye(shape[0], dtype=torch.float64), axes)
    spatial, sides = shape[1:], shape[1:]
    for piece in pieces(linear):
        channels = whole.weights.shape[1]
        step = _of_piece(piece, (channels, *spatial))
        if step is None or not (step.taps.is_pointwise or whole.is_pointwise):
            return None
        if not step.taps.is_pointwise:
            sides = step.sides
        whole, spatial = whole.then(step.taps), step.spatial
    return Moved(whole, spatial, sides)


def pieces(linear: LinearMap) -> Iterator[LinearMap]:
    """The elementary maps of a composition, first to last."""
    match linear:
        case Identity():
            return
        case Composed():
            yield from pieces(linear.first)
            yield from pieces(linear.second)
        case Adjoint(of=Composed() as of):
            yield from pieces(Adjoint(of.second))
            yield from pieces(Adjoint(of.first))
        case Adjoint(of=Adjoint() as of):
            yield from pieces(of.of)
        case Adjoint(of=Identity() | Diagonal() as of):
            yield from pieces(of)
        case _:
            yield linear


def _of_piece(piece: LinearMap, shape: tuple[int, ...]) -> Moved | None:
    channels, spatial = shape[0], shape[1:]
    places = prod(spatial)
    match piece:
        case Convolution():
            return _of_convolution(piece) if piece.in_shape == shape else None
        case Diagonal():
            scale = piece.scale.reshape(channels, places)
            if (scale != scale[:, :1]).any():
                return None
            matrix = torch.diag(scale[:, 0])
        case Gather():
            matrix = _channels_of(piece.index, channels, places)
            if matrix is None:
                return _subsampled(piece, shape)
        case Adjoint(of=Gather() as of):
            owners = of.in_size // places if of.in_size % places == 0 else 0
            turned = _channels_of(of.index, owners, places)
            if turned is None:
                return None
            matrix = turned.T.contiguous()
        case _:
            return None
    return Moved(pointwise(matrix, len(spatial)), spatial, spatial)


def _of_convolution(conv: Convolution) -> Moved:
    """A circular wrap must not bring an entry of the window to where padding is read."""
    spatial = conv.out_shape[1:]
    sides = tuple(
        max(
            size + max(pads),
            size + sum(pads) - dilation * (width - 1),
            dilation * (width - 1) + 1,
            stride * count,
        )
        for size, pads, dilation, width, stride, count in zip(
            conv.in_shape[1:],
            conv.pads,
            conv.dilation,
            conv.kernel.shape[2:],
            conv.stride,
            spatial,
            strict=True,
        )
    )
    return Moved(of_convolution(conv), spatial, sides)


def _channels_of(index: Int64[Tensor, " n"], channels: int, places: int) -> Tensor | None:
    """The 0-1 matrix of a gather that moves whole channels; None if it is none."""
    if len(index) % places:
        return None
    rows = index.reshape(-1, places)
    source = torch.div(rows[:, 0], places, rounding_mode="floor")
    whole = source[:, None] * places + torch.arange(places)
    if not torch.where(rows[:, :1] < 0, rows == -1, rows == whole).all():
        return None
    matrix = torch.zeros(len(rows), channels, dtype=torch.float64)
    kept = torch.nonzero(0 <= source).flatten()
    matrix[kept, source[kept]] = 1.0
    return matrix


def _subsampled(piece: Gather, shape: tuple[int, ...]) -> Moved | None:
    """A gather of every s-th place from o on: slices, and what enters comparisons of windows."""
    index, spatial = piece.index, shape[1:]
    if (index < 0).any() or not len(index):
        return None
    places = prod(spatial)
    channel = index // places
    count = int((channel == channel[0]).long().cumprod(0).sum())
    if len(index) % count:
        return None
    grid = _grid(index[:count] % places, spatial)
    if grid is None:
        return None
    starts, strides, counts = grid
    first = _positions(starts, strides, counts, spatial)
    source = channel.reshape(-1, count)[:, 0]
    if not torch.equal(index.reshape(-1, count), source[:, None] * places + first):
        return None
    matrix = torch.zeros(len(source), shape[0], dtype=torch.float64)
    matrix[torch.arange(len(source)), source] = 1.0
    taps = Taps(strides, torch.tensor([starts]), matrix[None])
    sides = tuple(
        max(size, stride * number)
        for size, stride, number in zip(spatial, strides, counts, strict=True)
    )
    return Moved(taps, counts, sides)


def _grid(
    places: Int64[Tensor, " n"], spatial: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
    """Starts, strides and counts by axis of the grid that these places may be."""
    coordinates = torch.unravel_index(places, spatial)
    starts, strides, counts = [], [], []
    for line in coordinates:
        values = line.unique()
        starts.append(int(values[0]))
        strides.append(int(values[1] - values[0]) if 1 < len(values) else 1)
        counts.append(len(values))
    if prod(counts) != len(places):
        return None
    # One place has no stride of its own: that of a pool which leaves one place is its whole width.
    strides = [
        stride if 1 < count else size
        for stride, count, size in zip(strides, counts, spatial, strict=True)
    ]
    return tuple(starts), tuple(strides), tuple(counts)


def _positions(
    starts: tuple[int, ...],
    strides: tuple[int, ...],
    counts: tuple[int, ...],
    spatial: tuple[int, ...],
) -> Int64[Tensor, " n"]:
    flat = torch.zeros(1, dtype=torch.int64)
    for start, stride, count, size in zip(starts, strides, counts, spatial, strict=True):
        line = start + stride * torch.arange(count)
        flat = (flat[:, None] * size + line).flatten()
    return flat

"""Linear maps of tensors that act alike at every place: shifts, each with a matrix of channels.

    y[i] = sum_k W_k x[s i + o_k]                                                           (1)

with zeros outside of x's window, s the stride and o_k the offsets, axis by axis. A convolution has
one term for every tap of its kernel; what moves, adds or scales whole channels has the one offset
0. Signals are flat, channels first. The errors of the weights are those of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Sparse, stages
from verifier.checker.maps import Convolution, Diagonal, Gather

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

    from verifier.checker.network import Map

    Shape = tuple[int, ...]  #: channels, then the spatial axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """Equation (1)."""

    stride: tuple[int, ...]
    offsets: Int64[np.ndarray, "taps axes"]
    weights: Float64[np.ndarray, "taps out in"]
    errors: Float64[np.ndarray, "taps out in"] | None = None
    leaving: tuple[int, ...]  #: the spatial shape of what leaves


def taps_of(linear: Map, entering: Shape, leaving: Shape) -> tuple[Taps, ...] | None:
    """The maps of form (1) that a map is, one after the other; None where it is none.

    Args:
        linear: from one tensor to another.
        entering: the shape of the tensor that enters.
        leaving: the shape of the tensor that leaves.
    """
    found: list[Taps] = []
    shape = entering
    *before, last = stages(linear)
    for stage in before:
        spatial = stage.out_spatial if isinstance(stage, Convolution) else shape[1:]
        if stage.out_size % math.prod(spatial):
            return None
        step = _of_stage(stage, shape, (stage.out_size // math.prod(spatial), *spatial))
        if step is None:
            return None
        found.append(step)
        shape = (step.weights.shape[1], *step.leaving)
    step = _of_stage(last, shape, leaving)
    return None if step is None else (*found, step)


def _of_stage(linear: Map, entering: Shape, leaving: Shape) -> Taps | None:
    if (linear.in_size, linear.out_size) != (math.prod(entering), math.prod(leaving)):
        return None
    match linear:
        case Convolution():
            fits = (linear.in_shape, linear.out_shape) == (entering, leaving)
            return _of_convolution(linear) if fits else None
        case Diagonal():
            return _of_diagonal(linear, entering) if entering == leaving else None
        case Gather():
            ones = np.ones((linear.out_size, 1))
            return _of_sparse(linear.index[:, None], ones, None, entering, leaving)
        case Sparse():
            return _of_sparse(linear.index, linear.weight, linear.error, entering, leaving)
        case _:
            return None


def _of_convolution(linear: Convolution) -> Taps:
    """Offsets are dilation times place, less the padding before; groups become one matrix."""
    window = linear.kernel.shape[2:]
    places = np.stack(np.unravel_index(np.arange(math.prod(window)), window), axis=1)
    before = np.array([pad for pad, _ in linear.pads])
    offsets = places * np.array(linear.dilations) - before
    error = linear.error
    return Taps(
        stride=linear.strides,
        offsets=offsets.astype(np.int64),
        weights=_ungrouped(linear.kernel, linear.groups, linear.in_shape[0]),
        errors=None if error is None else _ungrouped(error, linear.groups, linear.in_shape[0]),
        leaving=linear.out_spatial,
    )


def _ungrouped(
    kernel: Float64[np.ndarray, "out in_of_group *window"], groups: int, channels: int
) -> Float64[np.ndarray, "taps out in"]:
    out, inner = kernel.shape[:2]
    flat = kernel.reshape(out, inner, -1).transpose(2, 0, 1)
    weights = np.zeros((len(flat), out, channels))
    for group in range(groups):
        rows = slice(group * (out // groups), (group + 1) * (out // groups))
        weights[:, rows, group * inner : (group + 1) * inner] = flat[:, rows]
    return weights


def _of_diagonal(linear: Diagonal, shape: Shape) -> Taps | None:
    scale = linear.scale.reshape(shape[0], -1)
    if np.any(scale != scale[:, :1]):
        return None
    errors = None
    if linear.error is not None:
        errors = np.diag(linear.error.reshape(shape[0], -1).max(axis=1))[None]
    axes = len(shape) - 1
    return Taps(
        stride=(1,) * axes,
        offsets=np.zeros((1, axes), np.int64),
        weights=np.diag(scale[:, 0])[None],
        errors=errors,
        leaving=shape[1:],
    )


def _of_sparse(
    index: Int64[np.ndarray, "out k"],
    weight: Float64[np.ndarray, "out k"],
    error: Float64[np.ndarray, "out k"] | None,
    entering: Shape,
    leaving: Shape,
) -> Taps | None:
    """One tap for every column that reads whole channels at a fixed stride and offset."""
    strides: set[tuple[int, ...]] = set()
    offsets: list[tuple[int, ...]] = []
    weights = np.zeros((index.shape[1], leaving[0], entering[0]))
    errors = np.zeros_like(weights)
    for k in range(index.shape[1]):
        used = index[:, k].reshape(leaving[0], -1) >= 0
        kept = np.flatnonzero(used[:, 0])
        # Whole channels are read, or not at all.
        if np.any(used != used[:, :1]):
            return None
        if not len(kept):
            offsets.append((0,) * (len(entering) - 1))
            continue
        rows = index[:, k].reshape(leaving)[kept]
        channels = rows.reshape(len(kept), -1)[:, 0] // math.prod(entering[1:])
        grid = _grid(rows, channels, entering)
        scale = weight[:, k].reshape(leaving[0], -1)[kept]
        if grid is None or np.any(scale != scale[:, :1]):
            return None
        strides.add(grid[0])
        offsets.append(grid[1])
        weights[k, kept, channels] = scale[:, 0]
        if error is not None:
            errors[k, kept, channels] = error[:, k].reshape(leaving[0], -1)[kept].max(axis=1)
    if len(strides) > 1:
        return None
    return Taps(
        stride=strides.pop() if strides else (1,) * (len(entering) - 1),
        offsets=np.array(offsets, np.int64).reshape(len(offsets), len(entering) - 1),
        weights=weights,
        errors=None if error is None else errors,
        leaving=leaving[1:],
    )


def _grid(
    rows: Int64[np.ndarray, "*places"],
    channels: Int64[np.ndarray, "#kept"],
    entering: Shape,
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(stride, offset) with rows[c, i] = the place of stride i + offset in channel channels[c].

    An axis with one place has no stride of its own: it strides over all that it reads from.
    """
    spatial, counts = entering[1:], tuple(int(count) for count in rows.shape[1:])
    base = math.prod(spatial)
    first = rows[0] % base
    stride: list[int] = []
    offset: list[int] = []
    for axis, size in enumerate(spatial):
        # Along one axis, from the first place of all others.
        line = np.moveaxis(first, axis, 0).reshape(counts[axis], -1)[:, 0]
        along = line // math.prod(spatial[axis + 1 :]) % size
        offset.append(int(along[0]))
        stride.append(int(along[1] - along[0]) if len(along) > 1 else size)
    if min(stride) < 1:
        return None
    places = np.zeros(counts, np.int64)
    for axis, size in enumerate(spatial):
        line = np.arange(counts[axis]) * stride[axis] + offset[axis]
        if int(line[-1]) >= size:
            return None
        form = tuple(-1 if other == axis else 1 for other in range(len(spatial)))
        places = places * size + line.reshape(form)
    expected = channels.reshape(-1, *(1,) * len(spatial)) * base + places
    return (tuple(stride), tuple(offset)) if np.array_equal(expected, rows) else None


def unmoved(channels: int, spatial: tuple[int, ...]) -> Taps:
    """The identity."""
    return Taps(
        stride=(1,) * len(spatial),
        offsets=np.zeros((1, len(spatial)), np.int64),
        weights=np.eye(channels)[None],
        leaving=spatial,
    )


def read_places(taps: Taps, axis: int, count: int) -> Int64[np.ndarray, "places offsets"]:
    """What each of the first places of an axis reads: s i + o."""
    offsets = np.unique(taps.offsets[:, axis])
    return np.arange(count)[:, None] * taps.stride[axis] + offsets


def spread(
    taps: Taps, supports: tuple[Bool[np.ndarray, " side"], ...]
) -> tuple[Bool[np.ndarray, " side"], ...]:
    """Where (1) on a torus may be other than 0, axis by axis, from where x may be."""

    def reached(axis: int) -> Bool[np.ndarray, " side"]:
        side = len(supports[axis])
        reads = read_places(taps, axis, side // taps.stride[axis]) % side
        return np.asarray(np.any(supports[axis][reads], axis=1), dtype=np.bool_)

    return tuple(reached(axis) for axis in range(len(supports)))


def wraps_badly(
    taps: Taps, window: tuple[int, ...], supports: tuple[Bool[np.ndarray, " side"], ...]
) -> bool:
    """Whether a place within the result's window may read on the torus what (1) does not.

    A place outside of x's window is read as 0 in (1), and on the torus as what is at that place
    modulo the side: that has to be 0. A torus has to hold both windows.
    """
    for axis, support in enumerate(supports):
        side, stride, count = len(support), taps.stride[axis], taps.leaving[axis]
        if side % stride or side // stride < count or side < window[axis]:
            return True
        reads = read_places(taps, axis, count)
        outside = (reads < 0) | (window[axis] <= reads)
        if np.any(support[reads % side] & outside):
            return True
    return False

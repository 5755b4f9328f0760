"""Which entries a linear map adds up, and with which weights: the map as a `Sparse`.

    (A_2 A_1)_o = sum over j of A_2(o, j) A_1(j, .)

row by row; a weight is a pair (w, e) like every other number. Maps with too many entries have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Sparse
from verifier.checker.enclosures import TINY, U
from verifier.checker.maps import Adjoint, Composed, Convolution, Dense, Diagonal, Gather

if TYPE_CHECKING:
    from verifier.checker.network import Map

MOST = 2**22  #: entries of a support, padding included
_UP = 1 + 16 * U


def support(linear: Map) -> Sparse | None:
    """The map's rows; None where they have too many entries."""
    match linear:
        case Gather():
            return _pairs(linear.index[:, None], np.ones((linear.out_size, 1)), linear.in_size)
        case Diagonal():
            places = np.arange(linear.in_size)[:, None]
            error = None if linear.error is None else linear.error[:, None]
            return _pairs(places, linear.scale[:, None], linear.in_size, error)
        case Dense():
            return _of_matrix(linear)
        case Convolution():
            return _of_kernel(linear)
        case Adjoint():
            found = support(linear.of)
            return None if found is None else _transposed(found)
        case Composed():
            first, second = support(linear.first), support(linear.second)
            return None if first is None or second is None else after(first, second)
        case Sparse():
            return _pairs(linear.index, linear.weight, linear.in_size, linear.error)
        case _:
            return None


def after(first: Sparse, second: Sparse) -> Sparse | None:
    """Second after first."""
    size, width = second.out_size, second.index.shape[1] * first.index.shape[1]
    if size * width > MOST:
        return None
    outer = second.index[:, :, None]
    index = first.index[np.maximum(second.index, 0)]
    weight, error = _product(_pair(second, outer), _pair(first, second.index))
    gone = (outer < 0) | (index < 0)
    form = (size, width)
    return Sparse(
        np.where(gone, -1, index).reshape(form),
        np.where(gone, 0.0, weight).reshape(form),
        first.in_size,
        np.where(gone, 0.0, error).reshape(form),
    )


def beside(one: Sparse, other: Sparse) -> Sparse:
    """The sum of two maps of one signal."""
    return Sparse(
        np.concatenate([one.index, other.index], axis=1),
        np.concatenate([one.weight, other.weight], axis=1),
        one.in_size,
        np.concatenate([spread(one), spread(other)], axis=1),
    )


def spread(rows: Sparse) -> np.ndarray:
    """The errors of the weights."""
    return np.zeros(rows.weight.shape) if rows.error is None else rows.error


def _pair(rows: Sparse, picked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and errors, for a row's own places or of the rows that are picked."""
    if picked.ndim == 3:
        return rows.weight[:, :, None], spread(rows)[:, :, None]
    return rows.weight[np.maximum(picked, 0)], spread(rows)[np.maximum(picked, 0)]


def _product(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    (a, d), (b, e) = one, other
    value = a * b
    exact = (a == 1) | (b == 1) | (a == 0) | (b == 0)
    error = (np.abs(a) * e + np.abs(b) * d + d * e) * _UP
    return value, error + np.where(exact & (d == 0) & (e == 0), 0.0, np.abs(value) * U + 4 * TINY)


def _pairs(
    index: np.ndarray, weight: np.ndarray, in_size: int, error: np.ndarray | None = None
) -> Sparse | None:
    return None if index.size > MOST else Sparse(index, weight, in_size, error)


def _of_matrix(linear: Dense) -> Sparse | None:
    height, width = linear.weight.shape
    if linear.rows * height * width > MOST:
        return None
    places = np.arange(linear.in_size).reshape(linear.rows, 1, width)
    index = np.broadcast_to(places, (linear.rows, height, width)).reshape(-1, width)
    weight = np.tile(linear.weight, (linear.rows, 1))
    error = None if linear.error is None else np.tile(linear.error, (linear.rows, 1))
    return Sparse(index, weight, linear.in_size, error)


def _of_kernel(linear: Convolution) -> Sparse | None:
    channels, inner, *window = linear.kernel.shape
    width = inner * int(np.prod(window))
    if linear.out_size * width > MOST:
        return None
    places = np.arange(linear.in_size).reshape(linear.in_shape)
    padded = np.pad(places, [(0, 0), *linear.pads], constant_values=-1)
    taps = [padded[(slice(None), *linear.window(tap))] for tap in linear.taps]
    seen = np.stack(taps, axis=1).reshape(linear.groups, inner, len(taps), -1)
    each = channels // linear.groups
    # [group, position, channel of the group and tap], the same for all outputs of a group
    index = seen.reshape(linear.groups, width, -1).transpose(0, 2, 1)
    index = np.repeat(index, each, axis=0).reshape(linear.out_size, width)
    positions = linear.out_size // channels

    def repeated(kernel: np.ndarray) -> np.ndarray:
        return np.repeat(kernel.reshape(channels, width), positions, axis=0)

    error = None if linear.error is None else repeated(linear.error)
    return Sparse(index, repeated(linear.kernel), linear.in_size, error)


def _transposed(rows: Sparse) -> Sparse | None:
    """Columns as rows."""
    owner, place = np.nonzero(rows.index >= 0)
    target = rows.index[owner, place]
    order = np.argsort(target, kind="stable")
    owner, place, target = owner[order], place[order], target[order]
    counts = np.bincount(target, minlength=rows.in_size)
    width = int(counts.max(initial=0))
    if rows.in_size * width > MOST:
        return None
    rank = np.arange(target.size) - np.repeat(np.cumsum(counts) - counts, counts)
    index = np.full((rows.in_size, width), -1)
    weight, error = np.zeros(index.shape), np.zeros(index.shape)
    index[target, rank] = owner
    weight[target, rank] = rows.weight[owner, place]
    error[target, rank] = spread(rows)[owner, place]
    return Sparse(index, weight, rows.out_size, error)

"""Entries of an array by constant indices: movements, and where scatters put their updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from verifier.checker.operands import Call

    Arrays: TypeAlias = "Sequence[np.ndarray]"


def triangle(call: Call, arrays: Arrays, fill: int) -> list[np.ndarray]:
    """Trilu."""
    call.arity(1, 2)
    if arrays[0].ndim < 2:
        call.invalid("its operand is no matrix")
    shift = 0 if call.optional(1) is None else int(call.scalar(1))
    rows, columns = arrays[0].shape[-2:]
    # As far as this, every entry is on one side.
    shift = min(max(shift, -rows - 1), columns + 1)
    is_upper = call.integer("upper", 1) != 0
    below = np.tri(rows, columns, k=shift - 1 if is_upper else shift, dtype=np.bool_)
    keeps = ~below if is_upper else below
    return [np.where(keeps, arrays[0], np.asarray(fill).astype(arrays[0].dtype))]


def gather_elements(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    """GatherElements."""
    call.arity(2, 2)
    return [elements_at(call, arrays[0], call.axis(call.integer("axis", 0), arrays[0].ndim))]


def elements_at(call: Call, array: np.ndarray, axis: int) -> np.ndarray:
    """The entry for every entry of operand 1, which says where it is along the axis."""
    index = places_of(call)
    shape = index.shape
    fits = index.ndim == array.ndim and all(
        size <= array.shape[a] for a, size in enumerate(shape) if a != axis
    )
    if not fits:
        call.mismatch(f"indices of shape {shape[:8]} for {array.shape[:8]}")
    grid: list[np.ndarray] = list(np.indices(shape, sparse=True))
    grid[axis] = counted(call, index, array.shape[axis])
    return np.asarray(array[tuple(grid)])


def gather_nd(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    """GatherND."""
    call.arity(2, 2)
    return [slices_at(call, arrays[0], call.integer("batch_dims", 0))]


def slices_at(call: Call, array: np.ndarray, batch: int) -> np.ndarray:
    """The slice for every vector of operand 1, which says where it is along axes after `batch`."""
    index = places_of(call)
    count = index.shape[-1] if index.ndim else 0
    outer, rank = index.shape[:-1], array.ndim
    if not (0 < count and 0 <= batch <= len(outer) and batch + count <= rank):
        call.mismatch(f"indices of shape {index.shape[:8]} for {array.shape[:8]}")
    if outer[:batch] != array.shape[:batch]:
        call.mismatch(f"batches {outer[:batch]} of {array.shape[:batch]}")
    call.allowed([*outer, *array.shape[batch + count :]])
    every: tuple[np.ndarray, ...] = np.indices(outer, sparse=True)
    own = [counted(call, index[..., i], array.shape[batch + i]) for i in range(count)]
    return np.asarray(array[(*every[:batch], *own)])


def places_of(call: Call) -> np.ndarray:
    """Operand 1, which is of integers."""
    found = call.constant(1)
    if found.dtype not in ("int64", "int32"):
        call.invalid("indices are no integers")
    return found.value


def counted(call: Call, index: np.ndarray, size: int) -> np.ndarray:
    """Places counted from the front."""
    if np.any((index < -size) | (index >= size)):
        call.invalid(f"an index outside {size} entries")
    return np.asarray(index % max(size, 1))

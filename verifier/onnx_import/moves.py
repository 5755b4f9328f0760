"""Operators that only move entries: one rule for constants and signals alike.

A rule gets an array and returns the arrays that leave. Given a constant it moves the numbers;
given the indices 0, 1, 2, ... of a signal it says where each entry comes from. FILL stands for an
entry that comes from nowhere (zero padding).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import InvalidAttribute, ShapeMismatch, TrainingModeOp
from verifier.onnx_import.values import MAX_ENTRIES, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Move: TypeAlias = Callable[["Call", Array], tuple[Array, ...]]

FILL: Final = -1


def axis_of(call: Call, axis: int, rank: int) -> int:
    """An axis counted from the front; refused where it is out of range."""
    if not -rank <= axis < rank:
        raise call.attributes.invalid("axis", f"is {axis}; the operand has {rank} axes")
    return axis % rank


def axes_of(call: Call, place: int, rank: int, since: int) -> tuple[int, ...] | None:
    """The axes: an attribute before opset `since`, an operand from then on; None: not given."""
    axes = call.integers(place) if since <= call.opset else call.attributes.integers("axes")
    if axes is None:
        return None
    found = tuple(axis_of(call, axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        raise call.attributes.invalid("axes", f"repeats an axis: {axes}")
    return found


def _identity(call: Call, x: Array) -> tuple[Array, ...]:
    del call
    return (x,)


def _dropout(call: Call, x: Array) -> tuple[Array, ...]:
    """The identity in inference; the mask that may leave as well is all true."""
    call.attributes.ignore("seed", "ratio")
    training = call.optional_array(2) if 12 <= call.opset else None
    ratio = call.optional_array(1) if 12 <= call.opset else None
    if training is not None and bool(training.any()) and (ratio is None or bool(ratio.any())):
        raise TrainingModeOp(
            f"node {call.name!r} (Dropout) is in training mode",
            node=call.name,
            fix="export the model in evaluation mode (model.eval())",
        )
    return (x,)


def _reshape(call: Call, x: Array) -> tuple[Array, ...]:
    wanted = call.integers(1)
    if wanted is None or sum(size == -1 for size in wanted) > 1 or min(wanted, default=0) < -1:
        raise call.attributes.invalid("shape", f"is {wanted}; at most one -1 is allowed")
    keep_zero = call.attributes.integer("allowzero", 0) if 14 <= call.opset else 0
    if not keep_zero:
        wanted = tuple(x.shape[i] if size == 0 else size for i, size in enumerate(wanted))
    return (x.reshape(wanted),)


def _flatten(call: Call, x: Array) -> tuple[Array, ...]:
    axis = call.attributes.integer("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise call.attributes.invalid("axis", f"is {axis}; the operand has {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return (x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:])),)


def _squeeze(call: Call, x: Array) -> tuple[Array, ...]:
    axes = axes_of(call, 1, x.ndim, since=13)
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    return (np.squeeze(x, axes),)


def _unsqueeze(call: Call, x: Array) -> tuple[Array, ...]:
    axes = call.integers(1) if 13 <= call.opset else call.attributes.integers("axes")
    if axes is None:
        raise call.attributes.invalid("axes", "is missing")
    return (np.expand_dims(x, axes),)


def _transpose(call: Call, x: Array) -> tuple[Array, ...]:
    order = call.attributes.integers("perm")
    if order is not None and sorted(order) != list(range(x.ndim)):
        raise call.attributes.invalid("perm", f"is {order}; the operand has {x.ndim} axes")
    return (np.transpose(x, order),)


def _slice(call: Call, x: Array) -> tuple[Array, ...]:
    if call.opset < 10:
        starts, ends = call.attributes.integers("starts"), call.attributes.integers("ends")
        axes, steps = call.attributes.integers("axes"), None
    else:
        starts, ends, axes, steps = (call.integers(place) for place in (1, 2, 3, 4))
    if starts is None or ends is None:
        raise call.attributes.invalid("starts", "is missing, or ends")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    picked = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise call.attributes.invalid("steps", "has a 0")
        picked[axis_of(call, axis, x.ndim)] = _section(
            start, end, step, x.shape[axis_of(call, axis, x.ndim)]
        )
    return (x[tuple(picked)],)


def _section(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice of one axis; ONNX clamps a backward end to -1, which is None."""
    start = min(max(start + size if start < 0 else start, 0), size - (step < 0))
    end = min(max(end + size if end < 0 else end, -1 if step < 0 else 0), size)
    return slice(start, None if end < 0 else end, step)


def _gather(call: Call, x: Array) -> tuple[Array, ...]:
    axis = axis_of(call, call.attributes.integer("axis", 0), x.ndim)
    index = call.array(1)
    index = _places(call, index, x.shape[axis])
    checked_size((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), call.name)
    return (np.asarray(np.take(x, index, axis)),)


def _split(call: Call, x: Array) -> tuple[Array, ...]:
    axis = axis_of(call, call.attributes.integer("axis", 0), x.ndim)
    sizes = call.attributes.integers("split") if call.opset < 13 else call.integers(1)
    count = len(call.operator.outputs)
    if 18 <= call.opset and sizes is None:
        count = call.attributes.integer("num_outputs")
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = tuple(min(part, x.shape[axis] - part * i) for i in range(count))
    if sum(sizes) != x.shape[axis] or min(sizes) < 0 or len(sizes) != len(call.operator.outputs):
        raise ShapeMismatch(
            f"node {call.name!r} (Split): parts {sizes} of an axis of {x.shape[axis]} entries",
            node=call.name,
            fix="export the model again",
        )
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def _expand(call: Call, x: Array) -> tuple[Array, ...]:
    wanted = call.integers(1) or ()
    shape = checked_size(broadcast_shape(call, x.shape, wanted), call.name)
    return (np.broadcast_to(x, shape),)


def broadcast_shape(call: Call, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape, of sizes that numpy itself would not dare to compute."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    sizes = [{size for size in column if size != 1} for column in zip(*padded, strict=True)]
    if any(1 < len(column) for column in sizes):
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): shapes {[list(shape) for shape in shapes]} do not "
            "broadcast",
            node=call.name,
            fix="export the model again",
        )
    return tuple(column.pop() if column else 1 for column in sizes)


def _tile(call: Call, x: Array) -> tuple[Array, ...]:
    repeats = call.integers(1)
    if repeats is None or len(repeats) != x.ndim or min(repeats, default=0) < 0:
        raise call.attributes.invalid("repeats", f"are {repeats}; the operand has {x.ndim} axes")
    checked_size(tuple(a * b for a, b in zip(x.shape, repeats, strict=True)), call.name)
    return (np.tile(x, repeats),)


def _pad(call: Call, x: Array) -> tuple[Array, ...]:
    mode = call.attributes.text("mode", "constant")
    pads = call.attributes.integers("pads") if call.opset < 11 else call.integers(1)
    axes = call.integers(3) if 18 <= call.opset else None
    axes = tuple(range(x.ndim)) if axes is None else axes
    if pads is None or len(pads) != 2 * len(axes):
        raise call.attributes.invalid("pads", f"are {pads} for {len(axes)} axes")
    widths = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        widths[axis_of(call, axis, x.ndim)] = (pads[place], pads[place + len(axes)])
    checked_size(
        tuple(max(n + b + e, 0) for n, (b, e) in zip(x.shape, widths, strict=True)), call.name
    )
    if any(max(-b, 0) + max(-e, 0) > n for n, (b, e) in zip(x.shape, widths, strict=True)):
        raise call.unsupported("its pads cut more than there is")
    cropped = x[
        tuple(slice(max(-b, 0), n + min(e, 0)) for n, (b, e) in zip(x.shape, widths, strict=True))
    ]
    grown = [(max(b, 0), max(e, 0)) for b, e in widths]
    if mode == "constant":
        return (np.pad(cropped, grown, constant_values=FILL),)
    if mode == "edge":
        return (np.pad(cropped, grown, mode="edge"),)
    if mode == "reflect":
        return (np.pad(cropped, grown, mode="reflect"),)
    if mode == "wrap":
        return (np.pad(cropped, grown, mode="wrap"),)
    raise call.attributes.invalid("mode", f"is {mode!r}")


def _depth_to_space(call: Call, x: Array) -> tuple[Array, ...]:
    block = _block_size(call)
    batch, channels, height, width = x.shape
    rest = channels // (block * block)
    if call.attributes.text("mode", "DCR") == "CRD":
        split = x.reshape(batch, rest, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        split = x.reshape(batch, block, block, rest, height, width).transpose(0, 3, 4, 1, 5, 2)
    return (split.reshape(batch, rest, height * block, width * block),)


def _space_to_depth(call: Call, x: Array) -> tuple[Array, ...]:
    block = _block_size(call)
    batch, channels, height, width = x.shape
    split = x.reshape(batch, channels, height // block, block, width // block, block)
    moved = split.transpose(0, 3, 5, 1, 2, 4)
    return (moved.reshape(batch, channels * block * block, height // block, width // block),)


def _block_size(call: Call) -> int:
    block = call.attributes.integer("blocksize")
    if not 1 <= block <= MAX_ENTRIES:
        raise call.attributes.invalid("blocksize", f"is {block}")
    return block


def _trilu(call: Call, x: Array) -> tuple[Array, ...]:
    shift = call.integers(1) or (0,)
    if x.ndim < 2:
        raise call.attributes.invalid("k", "is of no matrix")
    below = np.tri(*x.shape[-2:], k=shift[0] - 1, dtype=np.bool_)
    upper = call.attributes.integer("upper", 1)
    keeps = ~below if upper else np.tri(*x.shape[-2:], k=shift[0], dtype=np.bool_)
    return (np.where(keeps, x, FILL),)


def _gather_elements(call: Call, x: Array) -> tuple[Array, ...]:
    return (elements_at(call, x, axis_of(call, call.attributes.integer("axis", 0), x.ndim)),)


def elements_at(call: Call, x: Array, axis: int) -> Array:
    """The entry of x for every entry of operand 1: at that place along the axis."""
    index = _places(call, call.array(1), x.shape[axis])
    if index.ndim != x.ndim:
        raise call.attributes.invalid("indices", f"have {index.ndim} axes, the operand {x.ndim}")
    part = x[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(index.shape))]
    return np.asarray(np.take_along_axis(part, index, axis))


def _gather_nd(call: Call, x: Array) -> tuple[Array, ...]:
    return (slices_at(call, x, call.attributes.integer("batch_dims", 0)),)


def slices_at(call: Call, x: Array, batch: int) -> Array:
    """The slice of x for every vector of operand 1: at those places of the axes after `batch`."""
    index = call.array(1)
    outer = index.shape[:-1]
    count = index.shape[-1] if index.ndim else 0
    if not count or x.ndim < batch + count or outer[:batch] != x.shape[:batch]:
        raise call.attributes.invalid("indices", f"have shape {index.shape} for {x.shape}")
    checked_size((*outer, *x.shape[batch + count :]), call.name)
    grid = np.indices(outer)[:batch]
    own = [_places(call, index[..., i], x.shape[batch + i]) for i in range(count)]
    return np.asarray(x[(*grid, *own)])


def _places(call: Call, index: Array, size: int) -> Array:
    """Indices counted from the front."""
    if index.size and not (-size <= int(index.min()) and int(index.max()) < size):
        raise InvalidAttribute(
            f"node {call.name!r} ({call.op}): an index is outside [-{size}, {size})",
            node=call.name,
            fix="export the model again",
        )
    return np.asarray(index % max(size, 1))


MOVES: Final[Mapping[str, Move]] = {
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}

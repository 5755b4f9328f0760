"""Operators that only move entries: each is written once, for arrays of anything.

The same function moves a constant's numbers, its errors, the flat indices that become a `Gather`,
and the symbols by which patterns are verified. `fill` is what a padded place receives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.indexed import counted, gather_elements, gather_nd, places_of, triangle
from verifier.checker.operands import Constant
from verifier.errors import TrainingModeOp

if TYPE_CHECKING:
    from verifier.checker.operands import Call

    Arrays: TypeAlias = "Sequence[np.ndarray]"

#: (the node, its moved operands, what padded places receive) -> its results
Movement: TypeAlias = "Callable[[Call, Arrays, int], list[np.ndarray]]"


def _identity(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 1)
    return [arrays[0]]


def _dropout(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 3)
    call.integer("seed", 0)
    ratio = call.number("ratio", 0.5)
    training = call.optional(2)
    if call.optional(1) is not None:
        ratio = call.scalar(1)
    if training is not None and call.scalar(2) != 0 and ratio > 0:
        raise TrainingModeOp("Dropout", fix="export for inference", node=call.node.name)
    return [arrays[0]]


def _reshape(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(2, 2)
    keeps_zero = call.integer("allowzero", 0) != 0
    wanted = list(call.integers(1))
    shape = arrays[0].shape
    for place, size in enumerate(wanted):
        if size == 0 and not keeps_zero:
            if place >= len(shape):
                call.invalid("a 0 beyond the input's axes")
            wanted[place] = shape[place]
    if any(size < -1 for size in wanted) or wanted.count(-1) > 1:
        call.invalid(f"shape {tuple(wanted)[:8]}")
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        if rest == 0 or arrays[0].size % rest:
            call.mismatch(f"shape {tuple(wanted)[:8]} for {arrays[0].size} entries")
        wanted[wanted.index(-1)] = arrays[0].size // rest
    if math.prod(wanted) != arrays[0].size:
        call.mismatch(f"shape {tuple(wanted)[:8]} for {arrays[0].size} entries")
    return [arrays[0].reshape(call.allowed(wanted))]


def _flatten(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 1)
    shape = arrays[0].shape
    axis = call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape) or (axis < 0 and call.opset < 11):
        call.invalid(f"axis {axis}")
    axis = axis + len(shape) if axis < 0 else axis
    return [arrays[0].reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def _squeeze(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 2)
    shape = arrays[0].shape
    given = call.moved_to_operand("axes", 1, since=13)
    chosen = (
        tuple(axis for axis, size in enumerate(shape) if size == 1)
        if given is None
        else call.axes(given, len(shape))
    )
    if any(shape[axis] != 1 for axis in chosen):
        call.mismatch(f"axes {chosen} of {shape}")
    return [arrays[0].reshape([size for axis, size in enumerate(shape) if axis not in chosen])]


def _unsqueeze(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 2)
    given = call.moved_to_operand("axes", 1, since=13)
    if given is None:
        call.invalid("no axes")
    rank = arrays[0].ndim + len(given)
    if rank > 32:
        call.invalid(f"{rank} axes")
    chosen = call.axes(given, rank)
    rest = iter(arrays[0].shape)
    return [arrays[0].reshape([1 if axis in chosen else next(rest) for axis in range(rank)])]


def _transpose(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 1)
    rank = arrays[0].ndim
    order = call.list_of_integers("perm")
    order = tuple(range(rank))[::-1] if order is None else order
    if sorted(order) != list(range(rank)):
        call.invalid(f"perm {order[:8]} of {rank} axes")
    return [arrays[0].transpose(order)]


def _slice(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    old = call.opset < 10
    call.arity(1, 1 if old else 5)
    if old:
        starts, ends = call.list_of_integers("starts"), call.list_of_integers("ends")
        axes = call.list_of_integers("axes")
        steps = None
    else:
        starts, ends = call.integers(1), call.integers(2)
        axes = call.integers(3) if call.optional(3) is not None else None
        steps = call.integers(4) if call.optional(4) is not None else None
    if starts is None or ends is None:
        call.invalid("no starts or no ends")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        call.invalid("starts, ends, axes and steps do not fit together")
    window = [slice(None)] * arrays[0].ndim
    for start, end, axis, step in zip(
        starts, ends, call.axes(axes, arrays[0].ndim), steps, strict=True
    ):
        window[axis] = _clamped(start, end, step, arrays[0].shape[axis])
    return [np.asarray(arrays[0][tuple(window)])]


def _clamped(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's clamping, which is that of Python but for what a negative end means."""
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, None if end < 0 else end, step)


def _split(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 2)
    axis = call.axis(call.integer("axis", 0), arrays[0].ndim)
    count, size = len(call.node.outputs), arrays[0].shape[axis]
    if call.has("num_outputs") and (call.opset < 18 or call.integer("num_outputs", 0) != count):
        call.invalid("num_outputs")
    given = call.moved_to_operand("split", 1, since=13)
    if given is None:
        part = -(-size // count)
        given = (*(part for _ in range(count - 1)), size - part * (count - 1))
        # Before opset 18 only equal parts could be asked for without their sizes.
        if call.opset < 18 and size % count:
            call.mismatch(f"{size} entries in {count} parts")
    if len(given) != count or sum(given) != size or any(part < 0 for part in given):
        call.mismatch(f"parts {given[:8]} of {size}")
    ends = np.cumsum(given)[:-1]
    return list(np.split(arrays[0], ends, axis=axis))


def _concat(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    if not arrays or not call.has("axis"):
        call.invalid("no operands or no axis")
    rank = arrays[0].ndim
    axis = call.axis(call.integer("axis", 0), rank)
    shapes = {(array.ndim, *np.delete(array.shape, axis % max(array.ndim, 1))) for array in arrays}
    if len(shapes) != 1:
        call.mismatch("the operands' shapes differ")
    total = sum(array.shape[axis] for array in arrays)
    call.allowed([*arrays[0].shape[:axis], total, *arrays[0].shape[axis + 1 :]])
    return [np.concatenate(arrays, axis=axis)]


def _gather(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(2, 2)
    axis = call.axis(call.integer("axis", 0), arrays[0].ndim)
    shape = arrays[0].shape
    found = counted(call, places_of(call), shape[axis])
    call.allowed([*shape[:axis], *found.shape, *shape[axis + 1 :]])
    return [np.asarray(np.take(arrays[0], found, axis=axis))]


def _expand(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(2, 2)
    shape = call.broadcast(arrays[0].shape, tuple(call.integers(1)))
    return [np.broadcast_to(arrays[0], shape)]


def _tile(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(2, 2)
    repeats = call.integers(1)
    if len(repeats) != arrays[0].ndim or any(count < 0 for count in repeats):
        call.invalid(f"repeats {repeats[:8]}")
    call.allowed([size * count for size, count in zip(arrays[0].shape, repeats, strict=True)])
    return [np.tile(arrays[0], repeats)]


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pad(call: Call, arrays: Arrays, fill: int) -> list[np.ndarray]:
    call.arity(1, 4)
    rank = arrays[0].ndim
    mode = _PAD_MODES.get(call.string("mode", "constant"))
    if mode is None or (mode == "wrap" and call.opset < 19):
        call.invalid("its mode")
    pads = call.moved_to_operand("pads", 1, since=11)
    pad_value(call)
    axes = tuple(range(rank)) if call.optional(3) is None else call.axes(call.integers(3), rank)
    if pads is None or len(pads) != 2 * len(axes):
        call.invalid("its pads")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    return [_padded(call, arrays[0], before, after, mode, fill)]


def pad_value(call: Call) -> float:
    """What Pad writes into the places that it adds in constant mode."""
    if call.opset < 11:
        return call.number("value", 0.0)
    return 0.0 if call.optional(2) is None else call.scalar(2)


def _padded(
    call: Call, array: np.ndarray, before: list[int], after: list[int], mode: str, fill: int
) -> np.ndarray:
    shape = [
        size + start + end for size, start, end in zip(array.shape, before, after, strict=True)
    ]
    call.allowed(shape)
    if any(
        max(0, -start) + max(0, -end) > size
        for size, start, end in zip(array.shape, before, after, strict=True)
    ):
        call.not_checkable("pads that cut more than there is")
    # Negative pads cut: first cut, then pad what is left to pad.
    window = tuple(
        slice(max(0, -start), size - max(0, -end))
        for size, start, end in zip(array.shape, before, after, strict=True)
    )
    cut = array[window]
    pads = [(max(0, start), max(0, end)) for start, end in zip(before, after, strict=True)]
    if mode == "constant":
        return np.pad(cut, pads, constant_values=fill)
    for axis, (start, end) in enumerate(pads):
        size = cut.shape[axis]
        # Beyond one reflection or one turn the specification and its run times differ.
        if max(start, end) > {"reflect": size - 1, "wrap": size, "edge": start + end}[mode] or (
            size == 0 and start + end
        ):
            call.not_checkable(f"{mode} pads {(start, end)} of {size} entries")
        cut = np.take(cut, _turned(mode, size, start, end), axis=axis)
    return cut


def _turned(mode: str, size: int, start: int, end: int) -> np.ndarray:
    """Which entry of an axis each padded place repeats."""
    places = np.arange(-start, size + end)
    if mode == "wrap":
        return places % max(size, 1)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    mirrored = np.abs(places)
    return np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)


def _depth_to_space(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 1)
    block, mode = call.integer("blocksize", 0), call.string("mode", "DCR")
    if arrays[0].ndim != 4 or block < 1 or mode not in ("DCR", "CRD"):
        call.invalid("its blocksize, mode or input")
    batch, depth, height, width = arrays[0].shape
    if depth % block**2:
        call.mismatch(f"{depth} channels in blocks of {block}")
    rest = depth // block**2
    if mode == "DCR":
        parts = arrays[0].reshape(batch, block, block, rest, height, width)
        moved = parts.transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = arrays[0].reshape(batch, rest, block, block, height, width)
        moved = parts.transpose(0, 1, 4, 2, 5, 3)
    return [moved.reshape(batch, rest, height * block, width * block)]


def _space_to_depth(call: Call, arrays: Arrays, _fill: int) -> list[np.ndarray]:
    call.arity(1, 1)
    block = call.integer("blocksize", 0)
    if arrays[0].ndim != 4 or block < 1:
        call.invalid("its blocksize or input")
    batch, depth, height, width = arrays[0].shape
    if height % block or width % block:
        call.mismatch(f"{height} x {width} in blocks of {block}")
    parts = arrays[0].reshape(batch, depth, height // block, block, width // block, block)
    moved = parts.transpose(0, 3, 5, 1, 2, 4)
    return [moved.reshape(batch, depth * block**2, height // block, width // block)]


#: Operators all of whose operands are moved; of the others only the first one is.
MOVES_ALL = frozenset({"Concat"})

MOVEMENTS: Mapping[str, Movement] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": triangle,
    "Unsqueeze": _unsqueeze,
}


def moved_constants(call: Call) -> list[Constant]:
    """The results of a movement of constants."""
    count = len(call.operands) if call.node.op in MOVES_ALL else 1
    operands = [call.constant(place) for place in range(count)]
    move = MOVEMENTS[call.node.op]
    fill = pad_value(call) if call.node.op == "Pad" else 0
    if fill != int(fill):
        call.not_checkable(f"pads a constant with {fill}")
    values = move(call, [operand.value for operand in operands], int(fill))
    if len({operand.dtype for operand in operands}) > 1:
        call.invalid("operands of several types")
    dtype = operands[0].dtype
    if all(operand.error is None for operand in operands):
        return [Constant(value, dtype) for value in values]
    errors = move(call, [operand.spread for operand in operands], 0)
    return [Constant(value, dtype, error) for value, error in zip(values, errors, strict=True)]

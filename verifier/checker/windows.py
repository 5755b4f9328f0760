"""Sliding windows: Conv, AveragePool, MaxPool, and maxima over axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, indices
from verifier.checker.enclosures import U
from verifier.checker.linear import flat
from verifier.checker.maps import Adjoint, Composed, Convolution, Diagonal
from verifier.checker.network import Maximum, Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.reductions import reduced_axes

if TYPE_CHECKING:
    from jaxtyping import Int64

_MAX_PAD = 2**20
_UP = 1 + 16 * U


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """Windows along the spatial axes."""

    sizes: tuple[int, ...]  #: of the input
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]  #: the pads as given
    counts: tuple[int, ...]  #: of windows

    def places(self, axis: int) -> Int64[np.ndarray, "windows taps"]:
        """Where each tap of each window lies in the input, also outside of it."""
        starts = np.arange(self.counts[axis]) * self.strides[axis] - self.before[axis]
        return starts[:, None] + np.arange(self.widths[axis]) * self.dilations[axis]

    @property
    def cover(self) -> tuple[tuple[int, int], ...]:
        """Pads with which the last window ends within."""
        ends = (int(self.places(axis)[-1, -1]) + 1 for axis in range(len(self.sizes)))
        return tuple(
            (before, max(end - size, 0))
            for before, end, size in zip(self.before, ends, self.sizes, strict=True)
        )


def sliding(call: Call, sizes: tuple[int, ...], widths: tuple[int, ...], ceil: bool) -> Sliding:
    """The windows that the node's attributes describe, all of them checked."""
    rank = len(sizes)
    strides = _positive(call, "strides", rank)
    dilations = _positive(call, "dilations", rank)
    pads = call.list_of_integers("pads")
    mode = call.string("auto_pad", "NOTSET")
    if pads is not None and (len(pads) != 2 * rank or any(pad < 0 for pad in pads)):
        call.invalid(f"pads {pads[:8]}")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        call.invalid("auto_pad")
    if mode != "NOTSET" and pads is not None and any(pads):
        call.invalid("auto_pad and pads")
    if len(widths) != rank or any(width < 1 for width in widths):
        call.invalid(f"kernel {widths[:8]}")
    before, after = [0] * rank, [0] * rank
    counts: list[int] = []
    for axis, size in enumerate(sizes):
        reach = dilations[axis] * (widths[axis] - 1) + 1
        if pads is not None:
            before[axis], after[axis] = pads[axis], pads[axis + rank]
        if mode.startswith("SAME"):
            count = -(-size // strides[axis])
            missing = max((count - 1) * strides[axis] + reach - size, 0)
            small, large = missing // 2, missing - missing // 2
            before[axis], after[axis] = (small, large) if mode == "SAME_UPPER" else (large, small)
        room = size + before[axis] + after[axis] - reach
        counts.append(_count(call, room, strides[axis], size + before[axis], ceil))
    # Every index is computed below: nothing may be large before it is checked.
    call.allowed(counts)
    return Sliding(
        sizes=sizes, widths=widths, strides=strides, dilations=dilations,
        before=tuple(before), after=tuple(after), counts=tuple(counts),
    )  # fmt: skip


def _count(call: Call, room: int, stride: int, inside: int, ceil: bool) -> int:
    if room < 0:
        call.mismatch("a window is larger than the input")
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= inside:
        call.not_checkable("ceil_mode with a window that starts beyond the input")
    return count


def _positive(call: Call, name: str, rank: int) -> tuple[int, ...]:
    found = call.list_of_integers(name)
    if found is None:
        return (1,) * rank
    if len(found) != rank or any(size < 1 for size in found):
        call.invalid(f"{name} {found[:8]}")
    return found


def _image(call: Call) -> tuple[Signal, int, tuple[int, ...]]:
    """(the operand, its channels, its spatial sizes); one image only."""
    signal = call.signal(0)
    if len(signal.shape) < 3:
        call.mismatch(f"an image of shape {signal.shape}")
    if signal.shape[0] != 1:
        call.not_checkable(f"{signal.shape[0]} images at once")
    return signal, signal.shape[1], signal.shape[2:]


def convolution(builder: Builder, call: Call) -> Signal:
    """Conv with constant weights."""
    call.arity(2, 3)
    call.one_float_type()
    signal, channels, sizes = _image(call)
    weight = call.constant(1)
    widths = call.list_of_integers("kernel_shape")
    groups = call.integer("group", 1)
    if groups < 1 or weight.value.ndim != len(signal.shape):
        call.invalid(f"group {groups}, weight of shape {weight.shape}")
    if widths is not None and widths != weight.shape[2:]:
        call.invalid(f"kernel_shape {widths[:8]}, weight of shape {weight.shape}")
    if weight.shape[1] * groups != channels or weight.shape[0] % groups:
        call.mismatch(f"weight of shape {weight.shape}, {groups} groups, {channels} channels")
    window = sliding(call, sizes, weight.shape[2:], ceil=False)
    shape = call.allowed([1, weight.shape[0], *window.counts])
    to = Convolution(
        kernel=weight.value,
        error=weight.error,
        in_shape=(channels, *sizes),
        pads=tuple(zip(window.before, window.after, strict=True)),
        strides=window.strides,
        dilations=window.dilations,
        groups=groups,
    )
    bias = None
    if call.optional(2) is not None:
        given = call.constant(2)
        if given.shape != weight.shape[:1]:
            call.mismatch(f"a bias of shape {given.shape}")
        bias = flat(_per_channel(given, len(sizes)), shape)
    return builder.linear(call, shape, [Term(signal.source, to)], bias)


def transposed_convolution(builder: Builder, call: Call) -> Signal:
    """ConvTranspose with constant weights: the adjoint of a convolution."""
    call.arity(2, 3)
    call.one_float_type()
    signal, channels, sizes = _image(call)
    weight = call.constant(1)
    groups = call.integer("group", 1)
    if groups < 1 or weight.value.ndim != len(signal.shape) or weight.shape[0] != channels:
        call.invalid(f"group {groups}, weight of shape {weight.shape}")
    widths = call.list_of_integers("kernel_shape")
    if channels % groups or (widths is not None and widths != weight.shape[2:]):
        call.invalid(f"group {groups}, kernel_shape {widths}, weight of shape {weight.shape}")
    if call.has("output_shape") or call.string("auto_pad", "NOTSET") != "NOTSET":
        call.not_checkable("output_shape or auto_pad")
    forward = _transposed(call, sizes, weight, groups)
    shape = (1, *forward.in_shape)
    bias = None
    if call.optional(2) is not None:
        given = call.constant(2)
        if given.shape != (shape[1],):
            call.mismatch(f"a bias of shape {given.shape}")
        bias = flat(_per_channel(given, len(sizes)), shape)
    return builder.linear(call, shape, [Term(signal.source, Adjoint(forward))], bias)


def _transposed(call: Call, sizes: tuple[int, ...], weight: Constant, groups: int) -> Convolution:
    """The convolution from the result's shape to the operand's."""
    rank = len(sizes)
    strides, dilations = _positive(call, "strides", rank), _positive(call, "dilations", rank)
    pads = call.list_of_integers("pads") or (0,) * (2 * rank)
    extra = call.list_of_integers("output_padding") or (0,) * rank
    if len(pads) != 2 * rank or len(extra) != rank or min((*pads, *extra)) < 0:
        call.invalid("pads or output_padding")
    before, after = pads[:rank], pads[rank:]
    spatial = tuple(
        strides[a] * (sizes[a] - 1)
        + dilations[a] * (weight.shape[2 + a] - 1)
        + 1
        + extra[a]
        - before[a]
        - after[a]
        for a in range(rank)
    )
    if min(spatial) < 1:
        call.mismatch("nothing is left of the output")
    call.allowed([weight.shape[1] * groups, *spatial])
    forward = Convolution(
        kernel=weight.value,
        error=weight.error,
        in_shape=(weight.shape[1] * groups, *spatial),
        # What output_padding adds beyond the pads lies behind the last window: no tap reaches it.
        pads=tuple((before[a], max(after[a] - extra[a], 0)) for a in range(rank)),
        strides=strides,
        dilations=dilations,
        groups=groups,
    )
    if forward.out_spatial != sizes:
        call.not_checkable("output_padding of a whole stride")
    return forward


def _per_channel(constant: Constant, spatial: int) -> Constant:
    form = (constant.value.size, *(1,) * spatial)
    error = None if constant.error is None else constant.error.reshape(form)
    return Constant(constant.value.reshape(form), constant.dtype, error)


def pooling(call: Call) -> tuple[Signal, int, Sliding]:
    """(the operand, its channels, the windows) of a pool."""
    call.arity(1, 1)
    signal, channels, sizes = _image(call)
    widths = call.list_of_integers("kernel_shape")
    if widths is None:
        call.invalid("no kernel_shape")
    ceil = call.integer("ceil_mode", 0) != 0
    window = sliding(call, sizes, widths, ceil)
    call.allowed([channels, *window.counts])
    call.allowed([channels * math.prod(window.counts), math.prod(window.widths)])
    return signal, channels, window


def average_pool(builder: Builder, call: Call) -> Signal:
    """AveragePool: the sum over a window divided by how many of its entries count."""
    signal, channels, window = pooling(call)
    pads_count = call.integer("count_include_pad", 0) != 0
    valid = np.ones(window.counts)
    for axis, size in enumerate(window.sizes):
        places = window.places(axis)
        if pads_count:
            if places[-1, -1] >= size + window.after[axis]:
                call.not_checkable("ceil_mode with count_include_pad beyond the pads")
            continue
        number = np.sum((places >= 0) & (places < size), axis=1)
        form = [1] * len(window.counts)
        form[axis] = -1
        valid = valid * number.reshape(form)
    if pads_count:
        valid = valid * math.prod(window.widths)
    if np.any(valid == 0):
        call.mismatch("a window without entries")
    one = np.ones((channels, 1, *window.widths))
    share = 1.0 / valid
    uneven = bool(np.any(valid != valid.flat[0]))
    exact = bool(np.all(np.frexp(valid)[0] == 0.5))
    to = Convolution(
        kernel=one if uneven else one * share.flat[0],
        error=None if uneven or exact else one * (share.flat[0] * U * _UP),
        in_shape=(channels, *window.sizes),
        pads=window.cover,
        strides=window.strides,
        dilations=window.dilations,
        groups=channels,
    )
    shape = (1, channels, *window.counts)
    term = Term(signal.source, to)
    if uneven:
        scale = np.broadcast_to(share, shape).reshape(-1)
        error = None if exact else scale * (U * _UP)
        term = Term(signal.source, Composed(to, Diagonal(scale, error)))
    return builder.linear(call, shape, [term])


def max_pool(builder: Builder, call: Call) -> Signal:
    """MaxPool: the greatest entry of each window, pads excluded."""
    call.integer("storage_order", 0)
    signal, channels, window = pooling(call)
    if any(call.node.outputs[1:]):
        call.not_checkable("its indices are used")
    rank = len(window.sizes)
    index = np.zeros((*window.counts, *window.widths), dtype=np.int64)
    inside = np.ones(index.shape, dtype=np.bool_)
    for axis, size in enumerate(window.sizes):
        places = window.places(axis)
        form = [1] * (2 * rank)
        form[axis], form[rank + axis] = places.shape
        places = places.reshape(form)
        index = index * size + np.clip(places, 0, size - 1)
        inside = inside & (places >= 0) & (places < size)
    flat_index = index.reshape(math.prod(window.counts), -1)
    within = inside.reshape(flat_index.shape)
    if not np.all(within.any(axis=1)):
        call.mismatch("a window without entries")
    first = flat_index[np.arange(len(flat_index)), within.argmax(axis=1)]
    one_channel = np.where(within, flat_index, first[:, None])
    offsets = np.arange(channels) * math.prod(window.sizes)
    windows = (offsets[:, None, None] + one_channel).reshape(-1, one_channel.shape[1])
    return _maximum(builder, call, signal, windows, (1, channels, *window.counts), 1)


def _maximum(
    builder: Builder,
    call: Call,
    signal: Signal,
    windows: Int64[np.ndarray, "size k"],
    shape: tuple[int, ...],
    sign: int,
) -> Signal:
    builder.add(
        Maximum(
            name=call.node.name,
            size=len(windows),
            source=signal.source,
            windows=windows,
            sign=sign,
            overlap=_overlap(windows, signal.size),
        )
    )
    return Signal(call.node.name, shape, signal.dtype)


def _overlap(windows: Int64[np.ndarray, "size k"], size: int) -> int:
    """The most windows that share an entry, each window counted once."""
    ordered = np.sort(windows, axis=1)
    is_new = np.ones(windows.shape, dtype=np.bool_)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return int(np.bincount(ordered[is_new], minlength=size).max()) if windows.size else 0


def reduce_max(builder: Builder, call: Call) -> Signal:
    """ReduceMax."""
    return _reduce_extreme(builder, call, 1)


def reduce_min(builder: Builder, call: Call) -> Signal:
    """ReduceMin."""
    return _reduce_extreme(builder, call, -1)


def global_max_pool(builder: Builder, call: Call) -> Signal:
    """GlobalMaxPool: the greatest entry of every channel."""
    call.arity(1, 1)
    signal = call.signal(0)
    rank = len(signal.shape)
    if rank < 3:
        call.mismatch(f"{rank} axes")
    windows = indices(signal.shape).reshape(math.prod(signal.shape[:2]), -1)
    shape = (*signal.shape[:2], *(1 for _ in range(rank - 2)))
    return _maximum(builder, call, signal, windows, shape, 1)


def _reduce_extreme(builder: Builder, call: Call, sign: int) -> Signal:
    signal = call.signal(0)
    rank = len(signal.shape)
    axes, keeps = reduced_axes(call, rank, since=18)
    rest = tuple(axis for axis in range(rank) if axis not in axes)
    count = math.prod(signal.shape[axis] for axis in axes)
    if count == 0:
        call.mismatch("nothing to reduce")
    windows = indices(signal.shape).transpose((*rest, *axes)).reshape(-1, count)
    if keeps:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(signal.shape))
    else:
        shape = tuple(signal.shape[axis] for axis in rest)
    return _maximum(builder, call, signal, windows, shape, sign)

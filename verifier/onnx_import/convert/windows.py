"""Convolutions and pooling: operators that slide a window over the spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch

from verifier.errors import ShapeMismatch
from verifier.network.linear_map import Adjoint, Convolution, Diagonal
from verifier.onnx_import.convert.emitted import Emitted, affine, indices, maximum, tensor, then
from verifier.onnx_import.values import Shape, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]

MAX_PAD: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a window slides: every attribute by spatial axis, padding already decided."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    pads: tuple[tuple[int, int], ...]  #: (begin, end), as the attributes say
    out: Shape  #: the number of positions

    @property
    def reach(self) -> Shape:
        """The extent of the dilated window."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def grown_pads(self, spatial: Shape) -> tuple[tuple[int, int], ...]:
        """Padding that lets exactly `out` windows fit; less than the attributes where rounded."""
        ends = (
            max(0, (positions - 1) * stride + reach - size - begin)
            for positions, stride, reach, size, (begin, _) in zip(
                self.out, self.stride, self.reach, spatial, self.pads, strict=True
            )
        )
        return tuple((begin, end) for (begin, _), end in zip(self.pads, ends, strict=True))


def _window(call: Call, kernel: Shape, spatial: Shape) -> Window:
    """The window of Conv and the pools over these spatial sizes."""
    rank = len(spatial)
    stride = _positive(call, "strides", rank)
    dilation = _positive(call, "dilations", rank)
    given = call.attributes.integers("pads")
    mode = call.attributes.text("auto_pad", "NOTSET")
    ceil = bool(call.attributes.integer("ceil_mode", 0)) if call.op != "Conv" else False
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        out = tuple(-(-n // s) for n, s in zip(spatial, stride, strict=True))
        total = (
            max((o - 1) * s + r - n, 0)
            for o, s, r, n in zip(out, stride, reach, spatial, strict=True)
        )
        pads = tuple(
            (t // 2, t - t // 2) if mode == "SAME_UPPER" else (t - t // 2, t // 2) for t in total
        )
        return Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads, out=out)
    if mode not in {"NOTSET", "VALID"}:
        raise call.attributes.invalid("auto_pad", f"is {mode!r}")
    given = (0,) * (2 * rank) if given is None or mode == "VALID" else given
    if len(given) != 2 * rank or any(not 0 <= pad <= MAX_PAD for pad in given):
        raise call.attributes.invalid("pads", f"are {given} for {rank} spatial axes")
    pads = tuple((given[axis], given[axis + rank]) for axis in range(rank))
    out = tuple(
        _positions(n, pad, r, s, ceil=ceil)
        for n, pad, r, s in zip(spatial, pads, reach, stride, strict=True)
    )
    if min(out, default=1) < 1:
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): a window of {list(kernel)} does not fit into "
            f"{list(spatial)}",
            node=call.name,
            fix="export the model again",
        )
    return Window(kernel=kernel, stride=stride, dilation=dilation, pads=pads, out=out)


def _positions(size: int, pad: tuple[int, int], reach: int, stride: int, *, ceil: bool) -> int:
    room = size + sum(pad) - reach
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    # A window that would start in the padding behind the data is left out.
    return count - 1 if size + pad[0] <= (count - 1) * stride else count


def _positive(call: Call, name: str, rank: int) -> Shape:
    values = call.attributes.integers(name)
    values = (1,) * rank if values is None else values
    if len(values) != rank or any(not 1 <= value <= MAX_PAD for value in values):
        raise call.attributes.invalid(name, f"is {values} for {rank} spatial axes")
    return values


def _kernel_shape(call: Call, rank: int) -> Shape:
    kernel = call.attributes.integers("kernel_shape")
    if kernel is None or len(kernel) != rank or any(not 1 <= k <= MAX_PAD for k in kernel):
        raise call.attributes.invalid("kernel_shape", f"is {kernel} for {rank} spatial axes")
    return kernel


def _groups(call: Call, channels: int, weight: Array, channel_axis: int) -> int:
    """The group attribute, which has to divide the channels of data and weight."""
    groups = call.attributes.integer("group", 1)
    if groups < 1 or channels % groups or weight.shape[0] % groups:
        raise call.attributes.invalid("group", f"is {groups} for {channels} channels")
    if channel_axis == 1 and weight.shape[1] * groups != channels:
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): weight {list(weight.shape)} with {groups} groups "
            f"does not fit {channels} channels",
            node=call.name,
            fix="export the model again",
        )
    kernel = call.attributes.integers("kernel_shape")
    if kernel is not None and kernel != weight.shape[2:]:
        raise call.attributes.invalid("kernel_shape", f"is {kernel}; weight {weight.shape}")
    return groups


def _rank_checked(call: Call, shape: Shape, weight: Array | None = None) -> None:
    spatial = len(shape) - 2
    if spatial not in {1, 2, 3} or (weight is not None and weight.ndim != len(shape)):
        raise call.unsupported(f"its data have shape {list(shape)}")


def _conv(call: Call) -> Emitted:
    x, weight = call.signal(0), call.array(1)
    _rank_checked(call, x.shape, weight)
    batch, channels, *spatial = x.shape
    groups = _groups(call, channels, weight, channel_axis=1)
    window = _window(call, weight.shape[2:], tuple(spatial))
    shape = checked_size((batch, weight.shape[0], *window.out), call.name)
    linear = Convolution(
        # A batch of images is one image with as many groups of channels.
        tensor(np.tile(weight, (batch, *(1,) * (weight.ndim - 1)))),
        (batch * channels, *spatial),
        window.stride,
        window.pads,
        window.dilation,
        batch * groups,
    )
    bias = call.optional_array(2)
    by_channel = None if bias is None else bias.reshape(-1, *(1,) * len(spatial))
    return affine(call, shape, [(x, linear)], by_channel)


def _conv_transpose(call: Call) -> Emitted:
    """The adjoint of the convolution that leads from the output's shape back to the input's."""
    x, weight = call.signal(0), call.array(1)
    _rank_checked(call, x.shape, weight)
    batch, channels, *spatial = x.shape
    rank = len(spatial)
    groups = _groups(call, channels, weight, channel_axis=0)
    stride, dilation = _positive(call, "strides", rank), _positive(call, "dilations", rank)
    out, pads = _transposed_window(call, tuple(spatial), weight.shape[2:], stride, dilation)
    shape = checked_size((batch, weight.shape[1] * groups, *out), call.name)
    back = Convolution(
        tensor(np.tile(weight, (batch, *(1,) * (weight.ndim - 1)))),
        (batch * shape[1], *out),
        stride,
        pads,
        dilation,
        batch * groups,
    )
    if back.out_shape != (batch * channels, *spatial):
        raise call.unsupported(f"the output {list(out)} is larger than its windows reach")
    bias = call.optional_array(2)
    by_channel = None if bias is None else bias.reshape(-1, *(1,) * rank)
    return affine(call, shape, [(x, Adjoint(back))], by_channel)


def _transposed_window(
    call: Call, spatial: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[Shape, tuple[tuple[int, int], ...]]:
    """Output sizes and padding of ConvTranspose."""
    rank = len(spatial)
    if call.attributes.text("auto_pad", "NOTSET") != "NOTSET" or call.attributes.integers(
        "output_shape"
    ):
        raise call.unsupported("it has auto_pad or output_shape")
    given = call.attributes.integers("pads") or (0,) * (2 * rank)
    extra = call.attributes.integers("output_padding") or (0,) * rank
    if len(given) != 2 * rank or any(not 0 <= pad <= MAX_PAD for pad in (*given, *extra)):
        raise call.attributes.invalid("pads", f"are {given}, with output_padding {extra}")
    pads = tuple((given[axis], given[axis + rank]) for axis in range(rank))
    out = tuple(
        s * (n - 1) + more + d * (k - 1) + 1 - sum(pad)
        for s, n, more, d, k, pad in zip(
            stride, spatial, extra, dilation, kernel, pads, strict=True
        )
    )
    return out, pads


def _average_pool(call: Call) -> Emitted:
    """Window sums, each divided by the number of entries that count."""
    x = call.signal(0)
    _rank_checked(call, x.shape)
    images, spatial = prod(x.shape[:2]), x.shape[2:]
    window = _window(call, _kernel_shape(call, len(spatial)), spatial)
    shape = checked_size((*x.shape[:2], *window.out), call.name)
    pads = window.grown_pads(spatial)
    ones = torch.ones(images, 1, *window.kernel, dtype=torch.float64)
    sums = Convolution(ones, (images, *spatial), window.stride, pads, window.dilation, images)
    counted = np.ones(spatial)
    if call.attributes.integer("count_include_pad", 0):
        # Padding by attribute counts; what ceil_mode adds behind it does not.
        inside = [(b, min(e, g)) for (b, e), (_, g) in zip(window.pads, pads, strict=True)]
        counted = np.pad(counted, inside, constant_values=1.0)
        pads = tuple((0, g - i) for (_, g), (_, i) in zip(pads, inside, strict=True))
    single = Convolution(ones[:1], (1, *counted.shape), window.stride, pads, window.dilation, 1)
    count = single.apply(tensor(counted).reshape(1, -1)).reshape(-1).repeat(images)
    return affine(call, shape, [(x, then(sums, Diagonal(1.0 / count)))])


def _max_pool(call: Call) -> Emitted:
    x = call.signal(0)
    _rank_checked(call, x.shape)
    call.attributes.ignore("storage_order")
    if any(call.operator.outputs[1:]):
        raise call.unsupported("its indices leave as well")
    spatial = x.shape[2:]
    window = _window(call, _kernel_shape(call, len(spatial)), spatial)
    shape = (*x.shape[:2], *window.out)
    checked_size((*shape, prod(window.kernel)), call.name)
    places = window_places(window, spatial)
    if (places < 0).all(axis=1).any():
        raise call.unsupported("a window lies in the padding alone")
    # In its place: the certificate numbers comparisons by the places of the kernel.
    first = np.take_along_axis(places, np.argmax(0 <= places, axis=1)[:, None], axis=1)
    places = np.where(places < 0, first, places)
    index = indices((prod(x.shape[:2]), prod(spatial)))
    return maximum(call, x, index[:, places].reshape(*shape, -1), shape, sign=1)


def image_window(call: Call) -> Window:
    """How the window of a pool slides."""
    x = call.signal(0)
    _rank_checked(call, x.shape)
    spatial = x.shape[2:]
    return _window(call, _kernel_shape(call, len(spatial)), spatial)


def window_places(window: Window, spatial: Shape) -> Array:
    """[positions, k]: flat spatial indices in kernel order; -1 in the padding."""
    rows: list[Array] = []
    for axis, size in enumerate(spatial):
        start = np.arange(window.out[axis])[:, None] * window.stride[axis] - window.pads[axis][0]
        place = start + np.arange(window.kernel[axis])[None, :] * window.dilation[axis]
        rows.append(np.where((0 <= place) & (place < size), place, -1))
    flat = np.zeros((1, 1), np.int64)
    for row, size in zip(rows, spatial, strict=True):
        whole = flat[:, None, :, None] * size + row[None, :, None, :]
        gone = (flat[:, None, :, None] < 0) | (row[None, :, None, :] < 0)
        joined = np.where(gone, -1, whole)
        flat = joined.reshape(len(flat) * len(row), -1)
    return flat


def _global_max_pool(call: Call) -> Emitted:
    x = call.signal(0)
    shape = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    return maximum(call, x, indices(x.shape).reshape(*shape, -1), shape, sign=1)


RULES: Final[Mapping[str, Rule]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
}

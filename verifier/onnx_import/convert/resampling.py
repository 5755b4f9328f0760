"""Resize and Upsample: nearest entries, or weighted ones around, axis by axis.

Coordinates are exact rationals of the file's scales: entry i of an axis lies at x(i) of the input,
and takes the entry nearest to it, or those within a radius by their distance: 1 for lines, 2 for
cubics, both stretched by 1/scale where antialias shrinks an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.network.linear_map import Dense, LinearMap
from verifier.onnx_import.convert.emitted import Emitted, affine, gather, indices, tensor, then
from verifier.onnx_import.moves import axis_of
from verifier.onnx_import.values import Shape, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Rule: TypeAlias = Callable[["Call"], Emitted]
Scales: TypeAlias = tuple[Fraction, ...]

HALF: Final = Fraction(1, 2)
_EXCLUDE: Final = "exclude_outside"
LONGEST: Final = 2**14  #: entries of an axis
NEAREST: Final[Mapping[str, Callable[[Fraction], int]]] = {
    "ceil": ceil,
    "floor": floor,
    "round_prefer_ceil": lambda x: floor(x + HALF),
    "round_prefer_floor": lambda x: ceil(x - HALF),
}


def coordinate(mode: str, place: int, scale: Fraction, size: int, out: int) -> Fraction | None:
    """x(i) of entry `place` of `out`, along an axis of `size` entries; None: no such mode."""
    middle = place + HALF
    match mode:
        case "half_pixel":
            return middle / scale - HALF
        case "pytorch_half_pixel":
            return middle / scale - HALF if 1 < out else Fraction(0)
        case "align_corners":
            return Fraction(place * (size - 1), out - 1) if 1 < out else Fraction(0)
        case "asymmetric":
            return place / scale
        case "tf_half_pixel_for_nn":
            return middle / scale
        case "half_pixel_symmetric":
            share = Fraction(out) / (scale * size)
            return Fraction(size, 2) * (1 - share) + middle / scale - HALF
        case _:
            return None


def _resize(call: Call) -> Emitted:
    x = call.signal(0)
    if call.op == "Upsample" and 10 <= call.opset:
        raise call.unsupported(f"opset {call.opset} has no such operator")
    axes, scales, out = _sizes(call, x.shape)
    checked_size(out, call.name)
    if LONGEST < max(out, default=0):
        raise call.unsupported(f"an axis becomes {max(out)} long")
    mode = call.attributes.text("mode", "nearest")
    where, rounding = ("asymmetric", "floor") if call.opset < 11 else _modes(call)
    if coordinate(where, 0, Fraction(1), 1, 1) is None:
        raise call.unsupported(f"its coordinate_transformation_mode is {where!r}")
    places = [
        [
            coordinate(where if axis in axes else "asymmetric", i, scale, size, n) or Fraction(0)
            for i in range(n)
        ]
        for axis, (size, n, scale) in enumerate(zip(x.shape, out, scales, strict=True))
    ]
    if call.opset < 11 and min(scales, default=Fraction(1)) < 1 and mode == "nearest":
        # Not said in the specification, whose examples are rounded otherwise than larger scales.
        raise call.unsupported(f"opset {call.opset} does not say which entry is nearest")
    plain = not (call.attributes.integer("antialias", 0) or call.attributes.integer(_EXCLUDE, 0))
    if mode == "nearest" and rounding in NEAREST and plain:
        picked = [
            [min(max(NEAREST[rounding](p), 0), size - 1) for p in axis]
            for axis, size in zip(places, x.shape, strict=True)
        ]
        return affine(call, out, [(x, gather(indices(x.shape)[np.ix_(*picked)], x.size))])
    if mode == "nearest" or (mode == "cubic" and call.opset < 11):
        raise call.unsupported(f"its mode is {mode!r} ({rounding})")
    kernel = _kernel(call, mode)
    matrices = [
        _matrix(call, kernel, row, scale, size)
        for row, scale, size in zip(places, scales, x.shape, strict=True)
    ]
    return affine(call, out, [(x, _by_axis(x.shape, matrices))])


@dataclass(frozen=True, slots=True)
class _Kernel:
    """The weight of an entry by its distance."""

    weight: Callable[[Fraction], Fraction]
    radius: int
    antialias: bool
    excludes: bool  #: entries beyond the ends, instead of repeating those


def _kernel(call: Call, mode: str) -> _Kernel:
    antialias = bool(call.attributes.integer("antialias", 0))
    excludes = bool(call.attributes.integer(_EXCLUDE, 0))
    a = Fraction(call.attributes.number("cubic_coeff_a", -0.75))
    if antialias and call.opset < 18:
        raise call.attributes.invalid("antialias", "comes with opset 18")
    match mode:
        case "linear" if antialias or not excludes:
            return _Kernel(lambda d: max(1 - abs(d), Fraction(0)), 1, antialias, excludes)
        case "cubic":
            return _Kernel(lambda d: _cubic(a, abs(d)), 2, antialias, excludes)
        case _:
            raise call.unsupported(f"its mode is {mode!r}, with {_EXCLUDE} {excludes}")


def _cubic(a: Fraction, d: Fraction) -> Fraction:
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else Fraction(0)


def _matrix(
    call: Call, kernel: _Kernel, row: list[Fraction], scale: Fraction, size: int
) -> Array | None:
    """The weights of one axis; None where nothing changes."""
    if row == list(range(size)):
        return None
    checked_size((len(row), size), call.name)
    matrix = np.zeros((len(row), size))
    stretch = max(1 / scale, Fraction(1)) if kernel.antialias else Fraction(1)
    for i, x in enumerate(row):
        first, last = ceil(x - kernel.radius * stretch), floor(x + kernel.radius * stretch)
        if kernel.excludes:
            first, last = max(first, 0), min(last, size - 1)
        weights = {k: kernel.weight((x - k) / stretch) for k in range(first, last + 1)}
        total = sum(weights.values())
        if total <= 0:
            raise call.unsupported("its weights do not add up to a positive number")
        for k, weight in weights.items():
            matrix[i, min(max(k, 0), size - 1)] += float(weight / total)
    return matrix


def _by_axis(shape: Shape, matrices: Sequence[Array | None]) -> LinearMap:
    """One matrix for each axis that changes."""
    linear: LinearMap = gather(indices(shape), prod(shape))
    current = list(shape)
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        order = np.moveaxis(indices(tuple(current)), axis, -1)
        linear = then(linear, gather(order, prod(current)))
        linear = then(linear, Dense(tensor(matrix), prod(current) // shape[axis]))
        current[axis] = len(matrix)
        back = (*order.shape[:-1], len(matrix))
        linear = then(linear, gather(np.moveaxis(indices(back), -1, axis), prod(back)))
    return linear


def _modes(call: Call) -> tuple[str, str]:
    """(where entries lie, how they are rounded), with no kept ratio."""
    call.attributes.ignore("cubic_coeff_a", "extrapolation_value")
    policy = call.attributes.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise call.unsupported(f"its keep_aspect_ratio_policy is {policy!r}")
    where = call.attributes.text("coordinate_transformation_mode", "half_pixel")
    return where, call.attributes.text("nearest_mode", "round_prefer_floor")


def _sizes(call: Call, shape: Shape) -> tuple[tuple[int, ...], Scales, Shape]:
    """The axes that are resized; the scale and the new size of every axis."""
    scales, sizes = _given(call)
    axes = call.attributes.integers("axes") if 18 <= call.opset else None
    axes = tuple(range(len(shape))) if axes is None else axes
    axes = tuple(axis_of(call, axis, len(shape)) for axis in axes)
    found, out = [Fraction(1)] * len(shape), list(shape)
    numbers = scales if sizes is None else sizes
    if len(numbers) != len(axes):
        raise call.attributes.invalid("scales", f"are {len(numbers)} for {len(axes)} axes")
    for axis, number in zip(axes, numbers, strict=True):
        if number <= 0:
            raise call.attributes.invalid("scales", f"have {float(number)}")
        out[axis] = floor(shape[axis] * number) if sizes is None else int(number)
        found[axis] = number if sizes is None else Fraction(int(number), shape[axis])
    if min(out, default=1) < 1:
        raise call.unsupported("an axis becomes empty")
    return axes, tuple(found), tuple(out)


def _given(call: Call) -> tuple[Scales, Scales | None]:
    """(scales, sizes): operands or an attribute, by opset."""
    if call.op == "Upsample" and call.opset < 9:
        return tuple(map(Fraction, call.attributes.floats("scales") or ())), None
    place = 2 if call.op == "Resize" and 11 <= call.opset else 1
    array = call.optional_array(place)
    scales = () if array is None else tuple(Fraction(float(s)) for s in array.reshape(-1))
    sizes = call.integers(3) if place == 2 else None
    return scales, None if not sizes else tuple(map(Fraction, sizes))


RULES: Final[Mapping[str, Rule]] = {"Resize": _resize, "Upsample": _resize}

"""Resize and Upsample: the nearest entry, or a filter over those around, along every axis in turn.

Output i of an axis of n entries that becomes m, with scale s, lies at

    half_pixel             (i + 1/2)/s - 1/2
    pytorch_half_pixel     the same, and 0 if m = 1
    half_pixel_symmetric   the same, and n/2 (1 - m/(s n)) more
    tf_half_pixel_for_nn   (i + 1/2)/s
    asymmetric             i/s
    align_corners          i (n - 1)/(m - 1), and 0 if m = 1

in exact rationals, for a scale is the number that its bits denote. At x, entry k has the weight

    h((x - k) f) / sum_j h((x - j) f)    f = min(1, s) with antialias, else 1
    linear   h(d) = 1 - |d|                                      up to |d| = 1
    cubic    h(d) = (a + 2)|d|^3 - (a + 3)|d|^2 + 1              up to |d| = 1
             h(d) = a |d|^3 - 5a |d|^2 + 8a |d| - 4a             up to |d| = 2

where entries beyond an end are the end's, or left out (exclude_outside). Weights are rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, indices, rearranged
from verifier.checker.enclosures import TINY, U
from verifier.checker.maps import Composed, Dense, Gather, composed, identity
from verifier.checker.network import Term
from verifier.checker.operands import Call, Signal

if TYPE_CHECKING:
    from verifier.checker.network import Map

_HALF = Fraction(1, 2)
_LONGEST = 2**14  #: entries of an axis

_ROUNDINGS: Mapping[str, Callable[[Fraction], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round_prefer_ceil": lambda x: math.floor(x + _HALF),
    "round_prefer_floor": lambda x: math.ceil(x - _HALF),
}


def _half_pixel(i: int, s: Fraction, _n: int, _m: int) -> Fraction:
    return (i + _HALF) / s - _HALF


def _by_pytorch(i: int, s: Fraction, n: int, m: int) -> Fraction:
    return Fraction(0) if m == 1 else _half_pixel(i, s, n, m)


def _by_corners(i: int, _s: Fraction, n: int, m: int) -> Fraction:
    return Fraction(0) if m == 1 else Fraction(i * (n - 1), m - 1)


def _asymmetric(i: int, s: Fraction, _n: int, _m: int) -> Fraction:
    return i / s


def _for_nearest(i: int, s: Fraction, _n: int, _m: int) -> Fraction:
    return (i + _HALF) / s


def _symmetric(i: int, s: Fraction, n: int, m: int) -> Fraction:
    return Fraction(n, 2) * (1 - m / (s * n)) + _half_pixel(i, s, n, m)


_COORDINATES: Mapping[str, Callable[[int, Fraction, int, int], Fraction]] = {
    "align_corners": _by_corners,
    "asymmetric": _asymmetric,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _by_pytorch,
    "tf_half_pixel_for_nn": _for_nearest,
}


def resize(builder: Builder, call: Call) -> Signal:
    """Both operators, as their opsets define them."""
    signal = call.signal(0)
    if call.node.op == "Upsample" and call.opset >= 10:
        call.not_checkable(f"opset {call.opset} has no such operator")
    axes, scales, shape = _scales(call, signal.shape)
    call.allowed(shape)
    if any(size > _LONGEST for size in shape):
        call.not_checkable(f"axes of lengths {shape[:8]}")
    modern = call.node.op == "Resize" and call.opset >= 11
    where, rounding = _written(call) if modern else ("asymmetric", "floor")
    mode = call.string("mode", "nearest")
    if where not in _COORDINATES or rounding not in _ROUNDINGS:
        call.not_checkable(f"mode {mode!r}, {where!r}, {rounding!r}")
    places = [
        [_COORDINATES[where if axis in axes else "asymmetric"](i, s, n, m) for i in range(m)]
        for axis, (s, n, m) in enumerate(zip(scales, signal.shape, shape, strict=True))
    ]
    if mode == "nearest" and not (
        call.integer("antialias", 0) or call.integer("exclude_outside", 0)
    ):
        # Before opset 11 it is not said to which side; examples and run times differ by scale.
        if not modern and any(
            x.denominator > 1 for s, row in zip(scales, places, strict=True) for x in row if s < 1
        ):
            call.not_checkable(f"opset {call.opset} for scales below 1")
        picked = [
            [min(max(_ROUNDINGS[rounding](x), 0), n - 1) for x in row]
            for row, n in zip(places, signal.shape, strict=True)
        ]
        index = indices(signal.shape)[np.ix_(*picked)]
        to: Map = Gather(np.ascontiguousarray(index).reshape(-1), signal.size)
    else:
        to = _filtered(call, signal.shape, scales, places, _filter(call, mode, modern=modern))
    return builder.linear(call, shape, [Term(signal.source, to)])


@dataclass(frozen=True, slots=True)
class _Filter:
    """What an entry counts, by its distance."""

    reach: int  #: 1 linear, 2 cubic
    bend: Fraction  #: a
    antialias: bool
    excludes: bool

    def height(self, distance: Fraction) -> Fraction:
        """h."""
        d, a = abs(distance), self.bend
        if self.reach == 1:
            return max(1 - d, Fraction(0))
        if d <= 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else Fraction(0)

    def shares(self, x: Fraction, scale: Fraction, size: int) -> Mapping[int, Fraction] | None:
        """The weights at x of an axis, by entry; None where they have no positive sum."""
        narrow = min(scale, Fraction(1)) if self.antialias else Fraction(1)
        around = range(math.ceil(x - self.reach / narrow), math.floor(x + self.reach / narrow) + 1)
        found: dict[int, Fraction] = {}
        for k in around:
            inside = min(max(k, 0), size - 1)
            if inside == k or not self.excludes:
                found[inside] = found.get(inside, Fraction(0)) + self.height((x - k) * narrow)
        total = sum(found.values(), Fraction(0))
        return {k: share / total for k, share in found.items()} if 0 < total else None


def _filter(call: Call, mode: str, *, modern: bool) -> _Filter:
    reach = {"linear": 1, "cubic": 2}.get(mode, 0)
    antialias, excludes = call.integer("antialias", 0) != 0, call.integer("exclude_outside", 0) != 0
    if not reach or (reach == 2 and not modern) or (antialias and call.opset < 18):
        call.not_checkable(f"mode {mode!r} at opset {call.opset}")
    if reach == 1 and excludes and not antialias:
        call.not_checkable("exclude_outside of lines")
    return _Filter(reach, Fraction(call.number("cubic_coeff_a", -0.75)), antialias, excludes)


def _filtered(
    call: Call,
    shape: tuple[int, ...],
    scales: tuple[Fraction, ...],
    places: list[list[Fraction]],
    of: _Filter,
) -> Map:
    to: Map = identity(math.prod(shape))
    current = list(shape)
    rank = len(shape)
    for axis, row in enumerate(places):
        if row == list(range(shape[axis])):
            continue
        call.allowed((len(row), shape[axis]))
        shares = [of.shares(x, scales[axis], shape[axis]) for x in row]
        weight, error = _weights(call, shares, shape[axis])
        order = (*(a for a in range(rank) if a != axis), axis)
        last = rearranged(tuple(current), order)
        dense = Dense(weight, error, math.prod(current) // shape[axis])
        current[axis] = len(row)
        turned = tuple(current[a] for a in order)
        back = rearranged(turned, tuple(order.index(a) for a in range(rank)))
        to = Composed(Composed(composed(to, last), dense), back)
    return to


def _weights(
    call: Call, rows: list[Mapping[int, Fraction] | None], size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The shares as float64 numbers, and how far these may be off."""
    weight, error = np.zeros((len(rows), size)), np.zeros((len(rows), size))
    for i, shares in enumerate(rows):
        if shares is None:
            call.not_checkable("weights without a positive sum")
        for place, share in shares.items():
            weight[i, place] = float(share)
            if Fraction(weight[i, place]) != share:
                error[i, place] = abs(weight[i, place]) * (2 * U) + TINY
    return weight, error if np.any(error) else None


def _written(call: Call) -> tuple[str, str]:
    """(where entries lie, how they are rounded): stretched, with no value beyond the ends."""
    call.number("cubic_coeff_a", -0.75)
    call.number("extrapolation_value", 0.0)
    if call.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        call.not_checkable("kept aspect ratios")
    where = call.string("coordinate_transformation_mode", "half_pixel")
    return where, call.string("nearest_mode", "round_prefer_floor")


def _scales(
    call: Call, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[Fraction, ...], tuple[int, ...]]:
    """The axes that are resized; the scale and the new size of every axis."""
    given, are_sizes = _given(call)
    axes = call.list_of_integers("axes") if call.opset >= 18 else None
    axes = tuple(range(len(shape))) if axes is None else call.axes(axes, len(shape))
    if len(given) != len(axes) or any(number <= 0 for number in given):
        call.invalid(f"scales {[float(number) for number in given[:8]]}")
    scales, sizes = [Fraction(1)] * len(shape), list(shape)
    for axis, number in zip(axes, given, strict=True):
        sizes[axis] = int(number) if are_sizes else math.floor(number * shape[axis])
        scales[axis] = Fraction(sizes[axis], shape[axis]) if are_sizes else number
    if 0 in sizes:
        call.mismatch("an axis becomes empty")
    return axes, tuple(scales), tuple(sizes)


def _given(call: Call) -> tuple[tuple[Fraction, ...], bool]:
    """The numbers of the file, and whether they are sizes."""
    if call.node.op == "Upsample" and call.opset < 9:
        call.arity(1, 1)
        return tuple(map(Fraction, call.list_of_numbers("scales") or ())), False
    place = 2 if call.node.op == "Resize" and call.opset >= 11 else 1
    call.arity(1, 4 if place == 2 else 2)
    given = call.optional(place)
    scales = () if given is None else call.exact(place).value.reshape(-1)
    if given is not None and given.dtype != "float32":
        call.invalid(f"its scales are {given.dtype}")
    sizes = call.integers(3) if place == 2 and call.optional(3) is not None else ()
    if len(sizes) and len(scales):
        call.invalid("scales and sizes")
    if len(sizes):
        return tuple(map(Fraction, sizes)), True
    return tuple(Fraction(float(number)) for number in scales), False

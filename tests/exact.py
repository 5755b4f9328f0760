"""ONNX operators and norms over the rationals, on numpy arrays of `Fraction`: nothing is rounded.

Transcendental functions, roots and quotients of two signals are the exception: they are right to
`BITS` bits after the point, where bounds and secants of tests differ by 1e-9 at least.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt

Exact: TypeAlias = npt.NDArray[np.object_]  #: of Fractions
Floats: TypeAlias = npt.NDArray[np.floating]
Digits: TypeAlias = Any  #: a number of mpmath, which ships no types
Size: TypeAlias = Literal["l1", "l2", "linf"]
Pair: TypeAlias = tuple[Size, Size]

BITS = 200
mpmath.mp.prec = 2 * BITS


def fractions(numbers: Floats | Sequence[float]) -> Exact:
    """The numbers as they are in binary."""
    array = np.asarray(numbers, dtype=np.float64)
    return _each(lambda x: Fraction(float(x)), array)


def floats(numbers: Exact) -> npt.NDArray[np.float64]:
    """The nearest float64 of every entry."""
    return numbers.astype(np.float64)


def _each(function: Callable[[Any], Fraction], x: npt.NDArray[Any]) -> Exact:
    out = np.empty(x.shape, dtype=object)
    for place in np.ndindex(*x.shape):
        out[place] = function(x[place])
    return out


def _digits(function: Callable[[Digits], Digits]) -> Callable[[Fraction], Fraction]:
    def rounded(x: Fraction) -> Fraction:
        value = function(mpmath.mpf(x.numerator) / x.denominator)
        return Fraction(int(mpmath.nint(mpmath.ldexp(value, BITS))), 2**BITS)

    return rounded


def _sigmoid(x: Digits) -> Digits:
    return 1 / (1 + mpmath.exp(-x))


def _softplus(x: Digits) -> Digits:
    return mpmath.log1p(mpmath.exp(x))


def _silu(x: Digits) -> Digits:
    return x * _sigmoid(x)


def _mish(x: Digits) -> Digits:
    return x * mpmath.tanh(_softplus(x))


def _gelu(x: Digits) -> Digits:
    return x * mpmath.ncdf(x)


def _gelu_tanh(x: Digits) -> Digits:
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x * (1 + mpmath.tanh(inner)) / 2


def _clamped(x: Fraction, lower: Fraction, upper: Fraction) -> Fraction:
    return min(max(x, lower), upper)


def _single(value: float) -> Fraction:
    """What an attribute of an ONNX file holds."""
    return Fraction(float(np.float32(value)))


def leaky(slope: float) -> Callable[[Fraction], Fraction]:
    """X, times the slope where it is negative."""
    return lambda x: x if 0 < x else _single(slope) * x


def elu(alpha: float) -> Callable[[Fraction], Fraction]:
    """X, or alpha (e^x - 1) where it is negative."""
    return lambda x: x if 0 < x else _single(alpha) * _digits(mpmath.expm1)(x)


#: by ONNX operator, with that operator's default attributes
SCALAR: Mapping[str, Callable[[Fraction], Fraction]] = {
    "Abs": abs,
    "Asinh": _digits(mpmath.asinh),
    "Atan": _digits(mpmath.atan),
    "Cos": _digits(mpmath.cos),
    "Elu": elu(1.0),
    "Erf": _digits(mpmath.erf),
    "Gelu": _digits(_gelu),
    "GeluTanh": _digits(_gelu_tanh),
    "HardSigmoid": lambda x: _clamped(_single(0.2) * x + Fraction(1, 2), Fraction(0), Fraction(1)),
    "HardSwish": lambda x: x * _clamped(x / 6 + Fraction(1, 2), Fraction(0), Fraction(1)),
    "LeakyRelu": leaky(0.01),
    "Mish": _digits(_mish),
    "Relu": lambda x: max(x, Fraction(0)),
    "Selu": lambda x: _single(1.05070102214813232421875) * elu(1.67326319217681884765625)(x),
    "Sigmoid": _digits(_sigmoid),
    "Silu": _digits(_silu),
    "Sin": _digits(mpmath.sin),
    "Softplus": _digits(_softplus),
    "Softsign": _digits(lambda x: x / (1 + abs(x))),
    "Tanh": _digits(mpmath.tanh),
}

#: The same of those that have no bound on their slopes, or on their domain.
STEEP: Mapping[str, Callable[[Fraction], Fraction]] = {
    "Exp": _digits(mpmath.exp),
    "Log": _digits(mpmath.log),
    "Sqrt": _digits(mpmath.sqrt),
}


def entrywise(function: Callable[[Fraction], Fraction]) -> Callable[[Exact], Exact]:
    """The function of every entry."""
    return lambda x: _each(function, x)


def quotients(dividend: Exact, divisor: Exact) -> Exact:
    """Entry by entry, broadcast; rounded, or the digits would double at every step."""
    return _each(_digits(lambda x: x), dividend / divisor)


def batch_norm(x: Exact, parameters: Sequence[Exact], epsilon: Fraction) -> Exact:
    """(x - mean) scale / sqrt(variance + epsilon) + bias, by channel.

    `parameters` are scale, bias, mean and variance, as in ONNX.
    """
    scale, bias, average, variance = parameters
    root = _each(_digits(mpmath.sqrt), variance + epsilon)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    factor = (scale / root).reshape(shape)
    return (x - average.reshape(shape)) * factor + bias.reshape(shape)


def _windows(
    x: Exact, window: tuple[int, int], stride: int, pad: int
) -> list[list[list[tuple[int, int]]]]:
    """For each output place the places of the image in its window, padding left out."""
    height, width = x.shape[2:]
    rows, columns = (
        range(-pad, size + pad - side + 1, stride)
        for size, side in zip((height, width), window, strict=True)
    )
    return [
        [
            [
                (i, j)
                for i in range(top, top + window[0])
                for j in range(left, left + window[1])
                if 0 <= i < height and 0 <= j < width
            ]
            for left in columns
        ]
        for top in rows
    ]


def pooled(
    x: Exact,
    window: tuple[int, int],
    stride: int,
    pad: int,
    reduce: Callable[[list[Fraction]], Fraction],
) -> Exact:
    """The reduction of the valid entries of every window, channel by channel."""
    places = _windows(x, window, stride, pad)
    out = [
        [[reduce([channel[p] for p in cell]) for cell in row] for row in places] for channel in x[0]
    ]
    return np.array(out, dtype=object)[None]


def mean(numbers: list[Fraction]) -> Fraction:
    """The average."""
    return sum(numbers, Fraction(0)) / len(numbers)


def convolved(x: Exact, kernel: Exact, bias: Exact, stride: int, pad: int, groups: int) -> Exact:
    """Cross-correlation of one image, as ONNX's Conv."""
    axes = x.ndim - 2
    return correlated(x, kernel, bias, (stride,) * axes, ((pad, pad),) * axes, groups)


def correlated(
    x: Exact,
    kernel: Exact,
    bias: Exact,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    groups: int = 1,
) -> Exact:
    """Cross-correlation of one signal with any number of axes, as ONNX's Conv."""
    channels, per_group, *window = kernel.shape
    sizes = [size + begin + end for size, (begin, end) in zip(x.shape[2:], pads, strict=True)]
    padded = np.full((x.shape[1], *sizes), Fraction(0), dtype=object)
    inner = (slice(begin, begin + size) for size, (begin, _) in zip(x.shape[2:], pads, strict=True))
    padded[(slice(None), *inner)] = x[0]
    starts = [
        range(0, size - side + 1, stride)
        for size, side, stride in zip(sizes, window, strides, strict=True)
    ]
    out = np.empty((1, channels, *map(len, starts)), dtype=object)
    for o, *place in np.ndindex(*out.shape[1:]):
        first = o // (channels // groups) * per_group
        corner = [axis[k] for axis, k in zip(starts, place, strict=True)]
        patch = padded[
            (
                slice(first, first + per_group),
                *(slice(c, c + side) for c, side in zip(corner, window, strict=True)),
            )
        ]
        out[(0, o, *place)] = (patch * kernel[o]).sum() + bias[o]
    return out


def transposed(x: Exact, kernel: Exact, bias: Exact, strides: Sequence[int]) -> Exact:
    """Every entry times the kernel, put down stride by stride, as ONNX's ConvTranspose."""
    channels, window = kernel.shape[1], kernel.shape[2:]
    sizes = [
        (size - 1) * stride + side
        for size, stride, side in zip(x.shape[2:], strides, window, strict=True)
    ]
    out = np.full((1, channels, *sizes), Fraction(0), dtype=object)
    out += bias.reshape(1, -1, *(1 for _ in sizes))
    for c, *place in np.ndindex(*x.shape[1:]):
        where = tuple(
            slice(k * stride, k * stride + side)
            for k, stride, side in zip(place, strides, window, strict=True)
        )
        out[(0, slice(None), *where)] += x[(0, c, *place)] * kernel[c]
    return out


def sqrt_below(value: Fraction) -> Fraction:
    """A number that the square root is not below, and nearly it."""
    shift = 2**200
    return Fraction(
        math.isqrt(value.numerator * value.denominator * shift**2), value.denominator * shift
    )


def sqrt_above(value: Fraction) -> Fraction:
    """A number that the square root is not above, and nearly it."""
    below = sqrt_below(value)
    return below if below * below == value else below + Fraction(1, 2**200 * value.denominator)


def size(vector: Exact, norm: Size, root: Callable[[Fraction], Fraction]) -> Fraction:
    """The norm of a vector; l2 by the root that is given."""
    entries = [abs(entry) for entry in vector.ravel()]
    match norm:
        case "l1":
            return sum(entries, Fraction(0))
        case "l2":
            return root(sum((entry * entry for entry in entries), Fraction(0)))
        case "linf":
            return max(entries, default=Fraction(0))


def growth_below(rise: Exact, run: Exact, norms: Pair) -> Fraction:
    """A number that |rise|_q / |run|_p is not below, with (p, q) = norms, and nearly it."""
    return size(rise, norms[1], sqrt_below) / size(run, norms[0], sqrt_above)


def norm_below(matrix: Exact, norms: Pair) -> Fraction:
    """A number that the operator norm |A|_{p -> q} is not below: the norm, up to l2's rounding."""
    if not matrix.any():
        return Fraction(0)
    direction = steepest(floats(matrix), norms)
    run = fractions(direction)
    return growth_below(matrix @ run, run, norms)


def steepest(matrix: npt.NDArray[np.float64], norms: Pair) -> npt.NDArray[np.float64]:
    """The direction d with the greatest |A d|_q / |d|_p: by enumeration, or by the SVD."""
    rows, columns = matrix.shape
    match norms:
        case ("l1", _):  # the unit ball's corners are the basis
            candidates = np.eye(columns)
        case ("linf", _):  # and here they are the signs
            candidates = _signs(columns)
        case ("l2", "l1"):  # |A d|_1 is the greatest s'A d over signs s
            candidates = _signs(rows) @ matrix
        case ("l2", "linf"):
            candidates = matrix
        case ("l2", "l2"):
            candidates = np.linalg.svd(matrix)[2][:1]
    candidates = candidates[candidates.any(axis=1)]
    order = {"l1": 1, "l2": 2, "linf": np.inf}
    growth = np.linalg.norm(candidates @ matrix.T, order[norms[1]], axis=1)
    growth /= np.linalg.norm(candidates, order[norms[0]], axis=1)
    return candidates[growth.argmax()]


def norms_about(matrices: npt.NDArray[np.float64], norms: Pair) -> npt.NDArray[np.float64]:
    """The operator norm of every matrix of a stack, rounded: to find the greatest of them."""
    order = {"l1": 1, "l2": 2, "linf": np.inf}
    rows, columns = matrices.shape[1:]
    match norms:
        case ("l1", output):
            return np.linalg.norm(matrices, order[output], axis=1).max(axis=1)
        case (given, "linf"):
            dual = {"l2": 2, "linf": 1}[given]
            return np.linalg.norm(matrices, dual, axis=2).max(axis=1)
        case ("linf", output):
            corners = matrices @ _signs(columns).T
            return np.linalg.norm(corners, order[output], axis=1).max(axis=1)
        case ("l2", "l1"):
            return np.linalg.norm(_signs(rows) @ matrices, axis=2).max(axis=1)
        case _:
            return np.linalg.norm(matrices, 2, axis=(1, 2))


def _signs(count: int) -> npt.NDArray[np.float64]:
    """All sign vectors up to a common sign."""
    return np.array([(1.0, *rest) for rest in itertools.product((-1.0, 1.0), repeat=count - 1)])

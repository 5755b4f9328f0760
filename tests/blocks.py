"""Softmax and normalisation over the rationals, and random networks that contain them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import mpmath
import numpy as np

from tests.exact import BITS, Digits, Exact, fractions, sqrt_below
from tests.random_networks import IMAGE, VECTOR, Block, Builder, RandomNetwork, relu


def _digits(x: Fraction) -> Digits:
    return mpmath.mpf(x.numerator) / x.denominator


def _rounded(value: Digits) -> Fraction:
    return Fraction(int(mpmath.nint(mpmath.ldexp(value, BITS))), 2**BITS)


def softmax(x: Exact) -> Exact:
    """Along the last axis, right to `BITS` bits."""
    return _along_last(x, lambda row: [_rounded(e / sum(_exps(row))) for e in _exps(row)])


def log_softmax(x: Exact) -> Exact:
    """Along the last axis, right to `BITS` bits."""
    return _along_last(x, lambda row: [v - _rounded(mpmath.log(sum(_exps(row)))) for v in row])


def _exps(row: Exact) -> list[Digits]:
    return [mpmath.exp(_digits(v)) for v in row]


def rooted(epsilon: Fraction, divisor: int) -> Callable[[Exact], Exact]:
    """v / sqrt(|v|^2 / divisor + epsilon) along the last axis; divisor 0 counts the entries."""

    def of_row(row: Exact) -> list[Fraction]:
        squares = sum((v * v for v in row), Fraction(0)) / (divisor or len(row))
        length = sqrt_below(squares + epsilon)
        return [v / length for v in row]

    return lambda x: _along_last(x, of_row)


def floored(epsilon: Fraction) -> Callable[[Exact], Exact]:
    """v / max(|v|, epsilon) along the last axis."""

    def of_row(row: Exact) -> list[Fraction]:
        length = max(sqrt_below(sum((v * v for v in row), Fraction(0))), epsilon)
        return [v / length for v in row]

    return lambda x: _along_last(x, of_row)


def length(x: Exact) -> Exact:
    """The length along the last axis, and zeros."""

    def of_row(row: Exact) -> list[Fraction]:
        squares = sum((v * v for v in row), Fraction(0))
        return [sqrt_below(squares), *(Fraction(0) for _ in row[1:])]

    return _along_last(x, of_row)


def _along_last(x: Exact, of_row: Callable[[Exact], list[Fraction]]) -> Exact:
    out = np.empty(x.shape, dtype=object)
    for place in np.ndindex(*x.shape[:-1]):
        out[place] = of_row(x[place])
    return out


# --- Blocks of random networks -------------------------------------------------------------------


def _softmax(b: Builder) -> None:
    b.node("Softmax", [b.last], softmax, axis=-1)


def _log_softmax(b: Builder) -> None:
    b.node("LogSoftmax", [b.last], log_softmax, axis=-1)


def _layer_norm(b: Builder) -> None:
    n = b.shape[-1]
    scale, bias = b.weights(n), b.weights(n)
    gamma, beta, core = fractions(scale), fractions(bias), rooted(_single(0.125), 0)

    def value(x: Exact) -> Exact:
        centred = x - x.sum(axis=-1, keepdims=True) / Fraction(n)
        return core(centred) * gamma + beta

    inputs = [b.last, b.constant(scale), b.constant(bias)]
    b.node("LayerNormalization", inputs, value, epsilon=0.125)


def _rms_norm(b: Builder) -> None:
    """x times the inverse root of a mean of squares, operator by operator, and scaled."""
    x, scale = b.last, b.weights(b.shape[-1])
    gamma, core = fractions(scale), rooted(_single(0.03125), 0)
    b.node("Pow", [x, b.constant(2.0)], lambda x: x * x)
    axes = b.constant([-1], np.int64)
    b.node("ReduceMean", [b.last, axes], lambda x: x.sum(axis=-1, keepdims=True))
    for op, constants in (("Add", [b.constant(0.03125)]), ("Sqrt", []), ("Reciprocal", [])):
        b.node(op, [b.last, *constants], lambda x: x)
    b.merge("Mul", x, b.last, lambda x, _: core(x))
    b.node("Mul", [b.last, b.constant(scale)], lambda x: x * gamma)


def _written_out(b: Builder) -> None:
    """x / max(|x|, 1/2), operator by operator."""
    x, axes = b.last, b.constant([-1], np.int64)
    b.node("ReduceL2", [x, axes], lambda x: x.sum(axis=-1, keepdims=True))
    b.node("Clip", [b.last, b.constant(0.5)], lambda x: x)
    whole = floored(Fraction(1, 2))
    b.merge("Div", x, b.last, lambda x, _: whole(x))


def _length(b: Builder) -> None:
    """x + |x|, the length as the root of a sum of squares."""
    x, axes = b.last, b.constant([-1], np.int64)
    b.node("Mul", [x, x], lambda x: x * x)
    b.node("ReduceSum", [b.last, axes], lambda x: x.sum(axis=-1, keepdims=True))
    b.node("Sqrt", [b.last], lambda x: _along_last(x, lambda row: [sqrt_below(v) for v in row]))
    b.merge("Add", x, b.last, lambda x, size: x + size)


def _instance_norm(b: Builder) -> None:
    channels = b.shape[1]
    scale, bias = b.weights(channels), b.weights(channels)
    core = rooted(_single(0.25), 0)

    def value(x: Exact) -> Exact:
        flat = x.reshape(channels, -1)
        flat = core(flat - flat.sum(axis=1, keepdims=True) / Fraction(flat.shape[1]))
        return (flat * fractions(scale)[:, None] + fractions(bias)[:, None]).reshape(x.shape)

    b.node(
        "InstanceNormalization", [b.last, b.constant(scale), b.constant(bias)], value, epsilon=0.25
    )


def _single(value: float) -> Fraction:
    return Fraction(float(np.float32(value)))


BLOCKS: Mapping[str, Block] = {
    "layer-norm": _layer_norm,
    "length": _length,
    "log-softmax": _log_softmax,
    "rms-norm": _rms_norm,
    "softmax": _softmax,
    "written-out": _written_out,
}
PLACES = ("first", "middle", "last", "residual", "twice", "image")


def network_with(block: str, place: str, seed: int) -> RandomNetwork:
    """A small network that has the block at this place."""
    rng = np.random.default_rng([seed, PLACES.index(place), sorted(BLOCKS).index(block)])
    is_image = place == "image"
    shape = (1, 2, 3, 2) if is_image else (1, int(rng.integers(3, 5)))
    b = Builder(rng, shape)
    b.block(f"{block} {place}")
    gemm = VECTOR["gemm"]
    if is_image:
        IMAGE["convolution"](b)
        _instance_norm(b)
        b.node("Flatten", [b.last], lambda x: x.reshape(1, -1), axis=1)
    elif place != "first":
        gemm(b)
    if place == "residual":
        skip = b.last
        BLOCKS[block](b)
        b.merge("Add", skip, b.last, lambda x, y: x + y)
    else:
        BLOCKS[block](b)
    if place != "last":
        gemm(b)
        relu(b) if place != "twice" else BLOCKS[block](b)
        gemm(b)
    return b.finished()

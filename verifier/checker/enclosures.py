"""Proved enclosures of exp, expm1, log1p, tanh, sigmoid, softplus and erf at float64 points.

Everything rests on IEEE addition, subtraction, multiplication and division rounded to nearest, and
on moving bits of the exponent: the mathematics library's accuracy is an observation, not a proof.
Each function returns (lower, upper) with lower <= f(x) <= upper in exact arithmetic. u is 2^-53.

exp. k is an integer near x / ln 2, r = x - k ln 2. ln 2 = HI + LO + d with HI of 32 bits, so that
k HI is exact for |k| < 2^20, and so is x - k HI: a multiple of 2^-54 below 1/2. With |d| < 2e-26,
|k LO| < 3e-7 and one rounding of r, |r| < 0.347, the error of r is below 2^-54, which is a relative
error of the result. Taylor's polynomial of degree 13 leaves 0.347^14 / 14! < 2^-57, and Horner's
rule with rounded coefficients at most (26 + 2) u e^0.347 / e^-0.347 < 57 u. Together below 2^-46;
the scaling by 2^k is exact except where it leaves the normal numbers, and then off by 2^-1074.

log1p on [0, 1]. log(1 + z) = 2 s (1 + s^2/3 + s^4/5 + ...), s = z / (2 + z) <= 1/3: all terms are
positive, s has the relative error 2.1 u, 20 terms leave 2^-68, and Horner's rule at most 42 u.

erf on |x| <= 6. erf(x) = 2/sqrt(pi) e^(-x^2) x (1 + t_1 + t_2 + ...), where every
t_n = t_(n-1) 2x^2 / (2n + 1) is positive: term n has the relative error 3.1 n u and the sum n u
more, n <= 150, together below 2^-43.6; rounding x^2 moves e^(-x^2) by 36.1 u. What is left out is
less than twice the next term, whose ratio to its predecessor is below 1/2.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    Points: TypeAlias = Float64[np.ndarray, "*any"]
    Enclosure: TypeAlias = tuple[Points, Points]

U = 2.0**-53
TINY = 2.0**-1074
BIG = float(np.finfo(np.float64).max)

LN2_HI = float.fromhex("0x1.62e42feep-1")
LN2_LO = float.fromhex("0x1.a39ef35793c76p-33")
_INVERSE_LN2 = float.fromhex("0x1.71547652b82fep0")
_EXP_RANGE = (-745.2, 709.78)
_EXP_COEFFICIENTS = [1.0 / factorial(n) for n in range(13, -1, -1)]
_EXPM1_COEFFICIENTS = [1.0 / factorial(n) for n in range(14, 0, -1)]
_LOG1P_COEFFICIENTS = [1.0 / (2 * n + 1) for n in range(19, -1, -1)]
_ERF_END = 6.0
_ERF_TERMS = 150

_RELATIVE = 2.0**-45  #: twice the 2^-46 of the module's text: the margin pays for its own rounding
_RELATIVE_ERF = 2.0**-42
_FEW = 8 * U  #: for formulas of up to four operations

# 2/sqrt(pi), rounded down; the next float is above.
TWO_BY_ROOT_PI = float.fromhex("0x1.20dd750429b6dp0")


def lower_of(value: Points, relative: float = _FEW) -> Points:
    """A number that value (1 - relative) is not below, whatever its sign."""
    return value - np.abs(value) * relative - TINY


def upper_of(value: Points, relative: float = _FEW) -> Points:
    """A number that value (1 + relative) does not exceed, whatever its sign."""
    return value + np.abs(value) * relative + TINY


def _horner(coefficients: list[float], x: Points) -> Points:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result


def _power_of_two(exponent: Points) -> Points:
    """2^k for integers -1022 <= k <= 1023, by its bits."""
    return ((exponent.astype(np.int64) + 1023) << 52).view(np.float64)


def exp(x: Points) -> Enclosure:
    """e^x; upper is inf beyond float64's range."""
    inside = np.clip(x, *_EXP_RANGE)
    k = np.rint(inside * _INVERSE_LN2)
    r = (inside - k * LN2_HI) - k * LN2_LO
    half = np.floor(k / 2)
    with np.errstate(over="ignore", under="ignore"):
        value = _horner(_EXP_COEFFICIENTS, r) * _power_of_two(half) * _power_of_two(k - half)
        lower = np.maximum(lower_of(value, _RELATIVE) - TINY, 0.0)
        upper = upper_of(value, _RELATIVE) + TINY
    # exp increases, so the end of the range bounds what lies beyond it on its own side.
    lower = np.where(x < _EXP_RANGE[0], 0.0, lower)
    upper = np.where(x > _EXP_RANGE[1], np.inf, upper)
    return np.minimum(lower, BIG), upper


def expm1(x: Points) -> Enclosure:
    """e^x - 1, to a small relative error also near 0."""
    near = np.abs(x) < 0.34
    inside = np.where(near, x, 0.0)
    series = _horner(_EXPM1_COEFFICIENTS, inside) * inside
    low, high = exp(x)
    with np.errstate(over="ignore"):
        lower = np.where(near, lower_of(series, _RELATIVE), lower_of(low - 1.0))
        upper = np.where(near, upper_of(series, _RELATIVE), upper_of(high - 1.0))
    # x <= e^x - 1: also the sign comes out right.
    return np.maximum(np.maximum(lower, x), -1.0), np.where(x <= 0, np.minimum(upper, 0.0), upper)


def _log1p(z: Points) -> Points:
    """log(1 + z) for 0 <= z <= 1 up to the relative error of the module's text."""
    s = z / (2.0 + z)
    return 2.0 * s * _horner(_LOG1P_COEFFICIENTS, s * s)


def tanh(x: Points) -> Enclosure:
    """Of tanh x = -m / (2 + m) with m = e^(-2x) - 1, for 0 <= x; odd."""
    size = np.minimum(np.abs(x), 400.0)
    low, high = expm1(-2.0 * size)
    lower = np.maximum(lower_of(-high / (2.0 + high)), 0.0)
    upper = np.minimum(np.minimum(upper_of(-low / (2.0 + low)), 1.0), np.abs(x))
    lower = np.minimum(lower, upper)
    return np.where(x < 0, -upper, lower), np.where(x < 0, -lower, upper)


def sigmoid(x: Points) -> Enclosure:
    """1 / (1 + e^-x), through e^-|x|, which does not overflow."""
    low, high = exp(-np.abs(x))
    high = np.minimum(high, 1.0)
    negative = x < 0
    with np.errstate(under="ignore"):
        lower = lower_of(np.where(negative, low / (1.0 + low), 1.0 / (1.0 + high)))
        upper = upper_of(np.where(negative, high / (1.0 + high), 1.0 / (1.0 + low)))
    return np.maximum(lower, 0.0), np.minimum(upper, 1.0)


def softplus(x: Points) -> Enclosure:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    low, high = exp(-np.abs(x))
    high = np.minimum(high, 1.0)
    with np.errstate(under="ignore", over="ignore"):
        lower = np.maximum(lower_of(_log1p(low), _RELATIVE) - TINY, 0.0)
        upper = upper_of(_log1p(high), _RELATIVE) + TINY
        base = np.maximum(x, 0.0)
        return np.maximum(lower_of(base + lower), base), upper_of(base + upper)


def gauss(x: Points) -> Enclosure:
    """e^(-x^2)."""
    size = np.minimum(np.abs(x), 1e6)
    square = size * size
    with np.errstate(under="ignore"):
        # The exact square lies between its float neighbours.
        lower, _ = exp(-upper_of(square, 2 * U))
        _, upper = exp(-np.maximum(lower_of(square, 2 * U), 0.0))
    return np.where(np.abs(x) > 1e6, 0.0, lower), np.minimum(upper, 1.0)


def erf(x: Points) -> Enclosure:
    """Of erf x by a series of positive terms; beyond 6 it differs from +-1 by less than 2^-53."""
    far = np.abs(x) > _ERF_END
    size = np.where(far, 0.0, np.abs(x))
    square = size * size
    largest = float(np.max(square, initial=0.0))
    term, total = np.ones_like(size), np.ones_like(size)
    for n in range(1, _ERF_TERMS):
        term = term * (2.0 * square) / (2.0 * n + 1.0)
        total = total + term
        if 4.0 * largest < 2.0 * n + 3.0 and np.all(term <= total * 2.0**-56):
            break
    low, high = exp(-square)
    factor = TWO_BY_ROOT_PI * size * total
    lower = np.maximum(lower_of(factor * low, _RELATIVE_ERF), 0.0)
    upper = np.minimum(upper_of(factor * high, _RELATIVE_ERF), 1.0)
    lower = np.where(far, 1.0 - 2 * U, lower)
    upper = np.where(far, 1.0, upper)
    return np.where(x < 0, -upper, lower), np.where(x < 0, -lower, upper)

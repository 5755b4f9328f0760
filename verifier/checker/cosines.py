"""Cosines of rational parts of a turn, proved: no mathematics library is trusted.

pi comes from Machin's formula and the cosine from its Taylor series, both in integers scaled by
2^BITS; every truncation costs less than one unit, so that 80 bits are right after some 40 terms.
The result is the nearest float64 to within u.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

BITS = 128  #: of the fixed point
_ONE = 1 << BITS


def cosine(turns: Fraction) -> float:
    """cos(2 pi turns), within u = 2^-53."""
    part = abs(turns) % 1
    part = min(part, 1 - part)
    if Fraction(1, 4) < part:
        return -_quarter(Fraction(1, 2) - part)
    return _quarter(part)


@cache
def cosine_table(count: int) -> Float64[np.ndarray, " count"]:
    """cos(2 pi k / count) for k = 0 .. count - 1, each within u."""
    half = [cosine(Fraction(k, count)) for k in range(count // 2 + 1)]
    return np.array([half[min(k, count - k)] for k in range(count)])


@cache
def sine_table(count: int) -> Float64[np.ndarray, " count"]:
    """sin(2 pi k / count) for k = 0 .. count - 1, each within u."""
    return np.array([cosine(Fraction(k, count) - Fraction(1, 4)) for k in range(count)])


def _quarter(part: Fraction) -> float:
    """The cosine for 0 <= turns <= 1/4, from the series that needs the smaller angle."""
    if part <= Fraction(1, 8):
        return _series(part, 0) / _ONE
    return _series(Fraction(1, 4) - part, 1) / _ONE


def _series(part: Fraction, first: int) -> int:
    """sum of (-1)^k x^(first + 2k) / (first + 2k)!, x = 2 pi part <= pi/4: cosine 0, sine 1."""
    angle = 2 * _pi() * part.numerator // part.denominator
    square = angle * angle >> BITS
    term = angle if first else _ONE
    total, order = 0, first
    while term:
        total += term
        term = -(term * square >> BITS) // ((order + 1) * (order + 2))
        order += 2
    return total


@cache
def _pi() -> int:
    """pi 2^BITS, within 2^20: 16 atan(1/5) - 4 atan(1/239)."""
    return 16 * _inverse_tangent(5) - 4 * _inverse_tangent(239)


def _inverse_tangent(inverse: int) -> int:
    """atan(1/inverse) 2^BITS, within one unit a term."""
    power, total, order = _ONE // inverse, 0, 1
    while power:
        total += power // order if order % 4 == 1 else -(power // order)
        power //= inverse * inverse
        order += 2
    return total

"""Float64 arithmetic with proved directions: the one place of the checker that knows rounding.

u = 2^-53 is the unit roundoff, eta = 2^-1074 the least subnormal, gamma_k = k u / (1 - k u). A sum
of k products, in any order, blocked, threaded, fused or not, obeys

    |fl(x.y) - x.y| <= gamma_k |x|.|y| + k eta.                                             (1)

For k non-negative terms (1) gives  sum <= fl(sum)(1 + 2 gamma_(k+2)) + k eta, the product that
enlarges included. `env_ok` tests the preconditions: gradual underflow, round to nearest, float64
kernels. Numbers beyond float64's range travel as `Magnitude`, mantissa times a power of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import log10_upper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float64

UNIT = 2.0**-53  #: u
LEAST = 2.0**-1074  #: eta


class BrokenArithmetic(RuntimeError):
    """This process does not compute as IEEE 754 binary64 says; no proof is possible in it."""


def gamma(count: int) -> float:
    """A number that gamma_k = k u / (1 - k u) does not exceed.

    Raises:
        ValueError: k u reaches 0.01, beyond which the error analysis is void.
    """
    share = count * UNIT
    if not share < 0.01:
        raise ValueError(f"a sum of {count} terms is too long for its error to be bounded")
    return share / (1 - share) * (1 + 8 * UNIT)


def enlarged(sums: Float64[np.ndarray, "*shape"], count: int) -> Float64[np.ndarray, "*shape"]:
    """Numbers that the exact sums of `count` non-negative products each do not exceed."""
    return sums * (1 + 2 * gamma(count + 2)) + (count + 1) * LEAST


def above(values: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """The next float64 up, entry by entry: covers one rounding to nearest."""
    return np.nextafter(values, np.inf)


def below(values: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """The next float64 down, entry by entry."""
    return np.nextafter(values, -np.inf)


def up(value: float) -> float:
    """The next float64 up."""
    return math.nextafter(value, math.inf)


def down(value: float) -> float:
    """The next float64 down."""
    return math.nextafter(value, -math.inf)


def sum_up(values: Float64[np.ndarray, "*shape"]) -> float:
    """A number that the exact sum of non-negative values does not exceed."""
    return float(enlarged(np.sum(values, keepdims=True), values.size).max())


def squares_up(values: Float64[np.ndarray, "*shape"]) -> float:
    """A number that the exact sum of squares does not exceed: |W|_F^2."""
    return float(enlarged(np.sum(np.square(values), keepdims=True), values.size).max())


def root_up(value: float) -> float:
    """A number that sqrt(value) does not exceed; exact roots stay exact."""
    root = math.sqrt(value)
    if not math.isfinite(root):
        return root
    return root if Fraction(value) <= Fraction(root) ** 2 else up(root)


def root_down(value: float) -> float:
    """A non-negative number that does not exceed sqrt(value)."""
    root = math.sqrt(value)
    if not math.isfinite(root):
        return root
    return root if Fraction(root) ** 2 <= Fraction(value) else max(0.0, down(root))


def norm_up(values: Float64[np.ndarray, " n"]) -> float:
    """A number that the exact |values|_2 does not exceed, at any scale."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    exponent = math.frexp(largest)[1]
    # Scaled to below 1; what underflows then is below eta each, and `squares_up` adds that much.
    scaled = np.abs(np.ldexp(values, -exponent)) + (LEAST if exponent > 0 else 0.0)
    return Magnitude.of(root_up(squares_up(scaled))).shifted(exponent).upper()


# --- Numbers beyond float64's range --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Magnitude:
    """A non-negative upper end, mantissa 2^exponent with mantissa 0 or in [1/2, 1].

    Every operation rounds up, so that what it holds is never below the exact result.
    """

    mantissa: float
    exponent: int

    @staticmethod
    def of(value: float) -> Magnitude:
        """The number itself.

        Raises:
            ValueError: the number is negative, nan or infinite.
        """
        if not 0 <= value < math.inf:
            raise ValueError(f"{value} is no finite magnitude")
        return Magnitude(*math.frexp(value))

    def __mul__(self, other: Magnitude) -> Magnitude:
        product = self.mantissa * other.mantissa
        exact = Fraction(self.mantissa) * Fraction(other.mantissa)
        mantissa, shift = math.frexp(product if exact <= Fraction(product) else up(product))
        return Magnitude(mantissa, self.exponent + other.exponent + shift if mantissa else 0)

    def __add__(self, other: Magnitude) -> Magnitude:
        if self.mantissa == 0 or other.mantissa == 0:
            return other if self.mantissa == 0 else self
        great, small = (self, other) if other.exponent <= self.exponent else (other, self)
        # Below 2^-200 of the greater one, any number stands for the smaller.
        moved = math.ldexp(small.mantissa, max(small.exponent - great.exponent, -200))
        total = great.mantissa + moved
        exact = Fraction(great.mantissa) + Fraction(moved)
        mantissa, shift = math.frexp(total if exact <= Fraction(total) else up(total))
        return Magnitude(mantissa, great.exponent + shift)

    def root(self) -> Magnitude:
        """The square root."""
        odd = self.exponent % 2
        mantissa, shift = math.frexp(root_up(math.ldexp(self.mantissa, odd)))
        return Magnitude(mantissa, (self.exponent - odd) // 2 + shift if mantissa else 0)

    def shifted(self, exponent: int) -> Magnitude:
        """This times 2^exponent."""
        return Magnitude(self.mantissa, self.exponent + exponent) if self.mantissa else self

    def order(self) -> tuple[int, float]:
        """A key that sorts magnitudes by size."""
        return (self.exponent, self.mantissa) if self.mantissa else (-(2**62), 0.0)

    def upper(self) -> float:
        """The least float64 that is not below; inf beyond float64's range."""
        if self.mantissa == 0:
            return 0.0
        if self.exponent > 1024:
            return math.inf
        value = (
            math.ldexp(self.mantissa, max(self.exponent, -1100))
            if self.exponent < 1024
            else (math.ldexp(self.mantissa, self.exponent - 1) * 2)
        )
        if not math.isfinite(value):
            return math.inf
        exact = Fraction(self.mantissa) * Fraction(2) ** max(self.exponent, -1100)
        return value if exact <= Fraction(value) else up(value)

    def log10(self) -> float | None:
        """log10 rounded up; None for 0."""
        return log10_upper(self.mantissa, self.exponent)


ZERO = Magnitude(0.0, 0)
ONE = Magnitude(0.5, 1)


def total(magnitudes: Iterable[Magnitude]) -> Magnitude:
    """The sum."""
    return sum(magnitudes, start=ZERO)


def product_of(magnitudes: Iterable[Magnitude]) -> Magnitude:
    """The product."""
    return math.prod(magnitudes, start=ONE)


def root_of_squares(magnitudes: Iterable[Magnitude]) -> Magnitude:
    """The root of the sum of squares."""
    return total(m * m for m in magnitudes).root()


def greatest(magnitudes: Iterable[Magnitude]) -> Magnitude:
    """The greatest; 0 of none."""
    return max(magnitudes, key=Magnitude.order, default=ZERO)


def least(first: Magnitude, *others: Magnitude) -> Magnitude:
    """The least."""
    return min((first, *others), key=Magnitude.order)


# --- The environment -----------------------------------------------------------------------------


def env_ok() -> bool:
    """Whether this process computes as section 2 of the error analysis assumes.

    Tests gradual underflow and rounding to nearest in scalars, in a matrix product and in a
    Cholesky factor with known exact results: reduced-precision kernels and flush-to-zero fail.
    """
    subnormal = np.array([2.0**-1060, 0.0])
    tie = np.array([UNIT, 3 * UNIT / 2, -UNIT, -3 * UNIT / 2])
    rounded = np.array([1.0, 1.0 + 2 * UNIT, -1.0, -1.0 - 2 * UNIT])
    ones = np.array([1.0, 1.0, -1.0, -1.0])
    wide = np.array([[1.0, 2.0**-30], [2.0**-30, 1.0]])
    # Each entry of the factor and of the product is a float64, so that any correct kernel finds it.
    factor = np.array([[1.0, 0.0, 0.0], [1 + 2.0**-25, 1.0, 0.0], [2.0**-26, 3.0, 1.0]])
    return bool(
        (subnormal * np.ones(2))[0] == 2.0**-1060
        and float(2.0**-1060) * 1.0 != 0.0
        and np.array_equal(ones + tie, rounded)
        and np.array_equal(wide @ wide, [[1 + 2.0**-60, 2.0**-29], [2.0**-29, 1 + 2.0**-60]])
        and np.array_equal((subnormal[:1] * np.ones((1, 1))) @ np.ones((1, 1)), [[2.0**-1060]])
        and np.array_equal(np.linalg.cholesky(factor @ factor.T), factor)
    )


def require_sound_arithmetic() -> None:
    """Refuses to go on where `env_ok` fails.

    Raises:
        BrokenArithmetic: flush-to-zero, another rounding mode, or kernels of less precision.
    """
    if not env_ok():
        raise BrokenArithmetic("float64 arithmetic in this process is not IEEE 754 with underflow")

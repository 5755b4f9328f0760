"""Increments on their way through linear maps, each with a proved error entry by entry.

A `Carried` is rows of float64 numbers with |true - value| <= error. Every step follows (1) of
`verifier.checker.network`,

    |fl(A x) - A_true x_true| <= |A|(dx + gamma_(terms+2) |x|) + E (|x| + dx),

with the right side rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, enlarged, gamma
from verifier.checker.definite import NotProved
from verifier.checker.maps import Adjoint, Composed, Convolution, Dense, Diagonal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map

SMALLEST_ERROR = 2.0**-980


@dataclass(frozen=True, slots=True)
class Carried:
    """Rows with |true - value| <= error; None: the rows are exact."""

    value: Float64[np.ndarray, "k n"]
    error: Float64[np.ndarray, "k n"] | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.value.shape[0]

    def magnitude(self) -> Float64[np.ndarray, "k n"]:
        """Numbers that |true| does not exceed."""
        size = np.abs(self.value)
        return size if self.error is None else np.nextafter(size + self.error, np.inf)

    def errors(self) -> Float64[np.ndarray, "k n"]:
        """The error as an array."""
        return np.zeros_like(self.value) if self.error is None else self.error

    def columns(self, index: Int64[np.ndarray, " m"]) -> Carried:
        """Some columns."""
        error = None if self.error is None else self.error[:, index]
        return Carried(self.value[:, index], error)

    def transposed(self) -> Carried:
        """Rows as columns."""
        return Carried(self.value.T, None if self.error is None else self.error.T)

    def required_finite(self) -> Carried:
        """The rows themselves.

        Raises:
            NotProved: a number is nan or infinite.
        """
        parts = (self.value,) if self.error is None else (self.value, self.error)
        if not all(np.all(np.isfinite(part)) for part in parts):
            raise NotProved("an increment exceeds float64")
        return self


@dataclass(frozen=True, slots=True)
class Sparse:
    """Out_o = sum_j weight_oj x_(index_oj), with an error on every weight. Index -1 adds nothing.

    What lowering is made of: differences, halves, and products with the vector of a reflection.
    """

    index: Int64[np.ndarray, "out k"]
    weight: Float64[np.ndarray, "out k"]
    in_size: int
    error: Float64[np.ndarray, "out k"] | None = None

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.index.shape[0]

    @property
    def terms(self) -> int:
        """The most terms of a sum of `forward`."""
        return max(1, self.index.shape[1])

    @property
    def adjoint_terms(self) -> int:
        """The most terms of a sum of `backward`."""
        used = self.index[0 <= self.index]
        return max(1, int(np.bincount(used, minlength=1).max(initial=0)))

    @property
    def is_exact(self) -> bool:
        """Whether it only moves entries, without copies."""
        if self.index.shape[1] != 1 or self.error is not None or self.adjoint_terms > 1:
            return False
        return bool(np.all(self.weight == 1))

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(A x) of every row."""
        return self._gathered(rows, self.weight)

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(A' y) of every row."""
        return self._scattered(rows, self.weight)

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|A| x) of every row."""
        return self._gathered(rows, np.abs(self.weight))

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|A|' y) of every row."""
        return self._scattered(rows, np.abs(self.weight))

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E x) of every row."""
        if self.error is None:
            return np.zeros((len(rows), self.out_size))
        return self._gathered(rows, self.error)

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(E' y) of every row."""
        if self.error is None:
            return np.zeros((len(rows), self.in_size))
        return self._scattered(rows, self.error)

    def _gathered(
        self, rows: Float64[np.ndarray, "k in"], weight: Float64[np.ndarray, "out k"]
    ) -> Float64[np.ndarray, "k out"]:
        result = np.zeros((len(rows), self.out_size))
        for place in range(self.index.shape[1]):
            column = self.index[:, place]
            result += rows[:, np.maximum(column, 0)] * np.where(column < 0, 0.0, weight[:, place])
        return result

    def _scattered(
        self, rows: Float64[np.ndarray, "k out"], weight: Float64[np.ndarray, "out k"]
    ) -> Float64[np.ndarray, "k in"]:
        result = np.zeros((self.in_size, len(rows)))
        for place in range(self.index.shape[1]):
            column = self.index[:, place]
            used = 0 <= column
            part = (rows[:, used] * weight[used, place]).T
            if len(np.unique(column[used])) == len(part):
                result[column[used]] += part
            else:
                np.add.at(result, column[used], part)
        return result.T


def push(linear: Map, rows: Carried) -> Carried:
    """A_true x_true of every row."""
    *before, linear = stages(linear)
    for stage in before:
        rows = push(stage, rows)
    value = linear.forward(rows.value)
    if rows.error is None and _reads_off(linear, rows.value):
        spread = linear.slack(rows.value)
        return Carried(value, spread if np.any(spread) else None)
    if linear.is_exact:
        return Carried(value, None if rows.error is None else linear.forward(rows.error))
    size = np.abs(rows.value)
    spread = size * gamma(linear.terms + 2)
    if rows.error is not None:
        spread = spread + rows.error
        size = size + rows.error
    # Each of the products above, and the sums in the two maps, is covered by 8 more terms.
    error = linear.magnitudes(spread) + linear.slack(size)
    return Carried(value, normal(enlarged(error, linear.terms + 8) + linear.terms * LEAST))


def normal(error: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k n"]:
    """The same or larger: products with subnormal numbers take a processor many times as long."""
    return np.maximum(error, SMALLEST_ERROR)


def stages(linear: Map) -> tuple[Map, ...]:
    """The maps that a composition applies, first to last.

    What underflows in one is a number that the next one multiplies: errors are bounded in between.
    """
    match linear:
        case Composed():
            return (*stages(linear.first), *stages(linear.second))
        case Adjoint(of=Composed() as whole):
            return (*stages(Adjoint(whole.second)), *stages(Adjoint(whole.first)))
        case _:
            return (linear,)


def _reads_off(linear: Map, rows: Float64[np.ndarray, "k n"]) -> bool:
    """Whether the rows are units, so that A x is a column of A: products with 0 and 1 are exact."""
    stored = linear.of if isinstance(linear, Adjoint) else linear
    if not isinstance(stored, Dense | Convolution | Diagonal | Sparse):
        return False
    used = rows != 0
    return bool(np.all(used.sum(axis=1) <= 1) and np.all(rows[used] == 1))


def summed(parts: Sequence[Carried]) -> Carried:
    """The sum of increments over one xi; shorter ones have zero rows below."""
    if len(parts) == 1:
        return parts[0]
    height = max(part.rows for part in parts)
    shape = (height, parts[0].value.shape[1])
    value, error, mass = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for part in parts:
        value[: part.rows] += part.value
        mass[: part.rows] += np.abs(part.value)
        if part.error is not None:
            error[: part.rows] += part.error
    return Carried(value, enlarged(error + gamma(len(parts)) * mass, len(parts) + 4))

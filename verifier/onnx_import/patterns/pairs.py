"""MaxMin, however it is written: every entry is the greater or the lesser of two entries.

An entry is described as alpha s_i + beta s_j + gamma |s_i - s_j| with i < j: two entries of the
base at most. The maximum of a pair is (1/2, 1/2, 1/2), the minimum (1/2, 1/2, -1/2); a tensor is
MaxMin of its base if its entries are exactly these, both of every pair, and the pairs use every
entry of the base once. All arithmetic on the coefficients is exact (halves and signs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from verifier.onnx_import.values import Shape

Array: TypeAlias = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PairForm:
    """Coefficients of every entry; `second` is -1 where one entry of the base suffices."""

    first: Array
    second: Array
    alpha: Array
    beta: Array
    gamma: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All five, in order."""
        return self.first, self.second, self.alpha, self.beta, self.gamma


class PairAlgebra:
    """Forms of at most two entries of the base."""

    def identity(self, shape: Shape) -> PairForm:
        """s_i."""
        zeros = np.zeros(shape)
        first = np.arange(prod(shape), dtype=np.int64).reshape(shape)
        return PairForm(first, np.full(shape, -1, np.int64), np.ones(shape), zeros, zeros)

    def moved(self, form: PairForm, index: Array) -> PairForm:
        """Entries picked by flat index."""
        return PairForm(*(array.reshape(-1)[index] for array in form.arrays))

    def joined(self, forms: Sequence[PairForm], axis: int) -> PairForm:
        """Concatenation."""
        columns = zip(*(form.arrays for form in forms), strict=True)
        return PairForm(*(np.concatenate(column, axis) for column in columns))

    def summed(self, left: PairForm, right: PairForm, sign: float) -> PairForm | None:
        """Left + sign right, where both speak of the same two entries."""
        whole = np.broadcast_arrays(*left.arrays, *right.arrays)
        a, b = PairForm(*whole[:5]), PairForm(*whole[5:])
        low = np.minimum(a.first, b.first)
        high = np.maximum(np.maximum(a.first, a.second), np.maximum(b.first, b.second))
        for part in (a, b):
            inside = (part.first == low) | (part.first == high)
            inside &= (part.second == high) | (part.second < 0)
            if not inside.all():
                return None
        alpha = np.where(a.first == low, a.alpha, 0.0) + sign * np.where(b.first == low, b.alpha, 0)
        beta = _at_high(a, low, high) + sign * _at_high(b, low, high)
        second = np.where(low == high, -1, high)
        return PairForm(low, second, alpha, beta, a.gamma + sign * b.gamma)

    def scaled(self, form: PairForm, factor: Array) -> PairForm:
        """The coefficients times a broadcast constant."""
        first, second, alpha, beta, gamma, times = np.broadcast_arrays(*form.arrays, factor)
        return PairForm(first, second, alpha * times, beta * times, gamma * times)

    def contracted(self, form: PairForm, vector: Array, keep: bool) -> None:
        """Sums of many entries have no such form."""
        del form, vector, keep

    def absolute(self, form: PairForm) -> PairForm | None:
        """|c (s_i - s_j)| = |c| |s_i - s_j|; |0| = 0."""
        is_difference = (form.alpha == -form.beta) & (form.gamma == 0)
        if not (is_difference & ((0 <= form.second) | (form.alpha == 0))).all():
            return None
        zeros = np.zeros_like(form.alpha)
        return PairForm(form.first, form.second, zeros, zeros, np.abs(form.alpha))

    def ratio(self, numerator: PairForm, denominator: PairForm) -> Array | None:
        """W with equal coefficients, where the denominator is a difference of two entries."""
        if (denominator.alpha == 0).any() or not np.array_equal(numerator.first, denominator.first):
            return None
        ratio = numerator.alpha / denominator.alpha
        back = self.scaled(denominator, ratio)
        same = (
            np.array_equal(numerator.second, denominator.second)
            and np.array_equal(back.beta, numerator.beta)
            and np.array_equal(back.gamma, numerator.gamma)
            and np.array_equal(back.alpha, numerator.alpha)
        )
        return ratio if same else None


def _at_high(part: PairForm, low: Array, high: Array) -> Array:
    """The coefficient of the higher entry of the common pair."""
    from_first = np.where((part.first == high) & (low != high), part.alpha, 0.0)
    return from_first + np.where(0 <= part.second, part.beta, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class MaxMin:
    """Pairs of flat base indices, ascending, and where their (least, greatest) stand."""

    pairs: Array
    places: Array


def max_min(form: PairForm, size: int) -> MaxMin | None:
    """The pairs, if the form is MaxMin of a whole base of `size` entries."""
    flat = PairForm(*(array.reshape(-1) for array in form.arrays))
    halves = (flat.alpha == 0.5) & (flat.beta == 0.5) & (np.abs(flat.gamma) == 0.5)
    if flat.first.size != size or size == 0 or not (halves & (0 <= flat.second)).all():
        return None
    greatest = np.flatnonzero(0 < flat.gamma)
    least = np.flatnonzero(flat.gamma < 0)
    greatest = greatest[np.argsort(flat.first[greatest], kind="stable")]
    least = least[np.argsort(flat.first[least], kind="stable")]
    pairs = np.stack([flat.first[least], flat.second[least]], axis=1)
    others = np.stack([flat.first[greatest], flat.second[greatest]], axis=1)
    if not np.array_equal(pairs, others):
        return None
    if not np.array_equal(np.sort(pairs.reshape(-1)), np.arange(size)):
        return None
    return MaxMin(pairs, np.stack([least, greatest], axis=1))


PAIRS = PairAlgebra()

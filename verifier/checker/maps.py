"""Linear maps as the file writes them: what they do to rows, to magnitudes, and to their errors.

Every class here is a `network.Map`. W is what is stored or was folded, `error` the entrywise bound
E of rigour's pairs (None: W is exact). `terms` counts what one sum of `forward` adds, in whatever
order numpy adds it: gamma_terms covers every order, with or without fused multiply-add.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.convolution import Convolution

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map


@dataclass(frozen=True)
class Gather:
    """Entry j of the result is entry index[j] of the input, or 0 where index[j] is -1."""

    index: Int64[np.ndarray, " out"]
    in_size: int

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.index.size

    @cached_property
    def multiplicity(self) -> int:
        """How often the most used entry is copied: the l2 norm is its root, the l1 norm itself."""
        used = self.index[self.index >= 0]
        return int(np.bincount(used).max()) if used.size else 0

    @property
    def terms(self) -> int:
        """Nothing is added."""
        return 1

    @property
    def adjoint_terms(self) -> int:
        """The adjoint adds the copies."""
        return max(1, self.multiplicity)

    @property
    def is_exact(self) -> bool:
        """Without copies nothing is added in either direction."""
        return self.multiplicity <= 1

    @cached_property
    def _is_identity(self) -> bool:
        return self.out_size == self.in_size and bool(
            np.array_equal(self.index, np.arange(self.in_size))
        )

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """A x of every row, exactly."""
        if self._is_identity:
            return rows
        taken = rows[:, np.maximum(self.index, 0)] if self.in_size else np.zeros((len(rows), 0))
        return np.where(self.index >= 0, taken, 0.0)

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(A' y) of every row."""
        if self._is_identity:
            return rows
        kept = np.flatnonzero(self.index >= 0)
        order = kept[np.argsort(self.index[kept], kind="stable")]
        result = np.zeros((len(rows), self.in_size))
        if order.size:
            targets, starts = np.unique(self.index[order], return_index=True)
            result[:, targets] = np.add.reduceat(rows[:, order], starts, axis=1)
        return result

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """|A| x: A itself, for no entry is negative."""
        return self.forward(rows)

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|A|' y)."""
        return self.backward(rows)

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """Zeros: an index is exact."""
        return np.zeros((len(rows), self.out_size))

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """Zeros: an index is exact."""
        return np.zeros((len(rows), self.in_size))


def identity(size: int) -> Gather:
    """The map that changes nothing."""
    return Gather(np.arange(size), size)


@dataclass(frozen=True)
class Dense:
    """W x, a matrix applied to each of `rows` consecutive parts of the signal.

    With `rows` 1 a plain matrix. MatMul and Gemm along the last axis of a tensor have one part for
    every index of the other axes.
    """

    weight: Float64[np.ndarray, "out in"]
    error: Float64[np.ndarray, "out in"] | None = None
    rows: int = 1

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.weight.shape[1] * self.rows

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.weight.shape[0] * self.rows

    @property
    def terms(self) -> int:
        """A row of W."""
        return max(1, self.weight.shape[1])

    @property
    def adjoint_terms(self) -> int:
        """A column of W."""
        return max(1, self.weight.shape[0])

    @property
    def is_exact(self) -> bool:
        """Never claimed: products are rounded."""
        return False

    def _apply(
        self, matrix: Float64[np.ndarray, "to from"], rows: Float64[np.ndarray, "k many"]
    ) -> Float64[np.ndarray, "k other"]:
        parts = rows.reshape(len(rows) * self.rows, matrix.shape[1])
        return (parts @ matrix.T).reshape(len(rows), matrix.shape[0] * self.rows)

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(W x)."""
        return self._apply(self.weight, rows)

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(W' y)."""
        return self._apply(self.weight.T, rows)

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|W| x)."""
        return self._apply(np.abs(self.weight), rows)

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|W|' y)."""
        return self._apply(np.abs(self.weight).T, rows)

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E x)."""
        if self.error is None:
            return np.zeros((len(rows), self.out_size))
        return self._apply(self.error, rows)

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(E' y)."""
        if self.error is None:
            return np.zeros((len(rows), self.in_size))
        return self._apply(self.error.T, rows)


@dataclass(frozen=True)
class Diagonal:
    """scale[j] x[j]."""

    scale: Float64[np.ndarray, " n"]
    error: Float64[np.ndarray, " n"] | None = None

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.scale.size

    @property
    def out_size(self) -> int:
        """The number of entries that leave: the same."""
        return self.scale.size

    @property
    def terms(self) -> int:
        """One product."""
        return 1

    @property
    def adjoint_terms(self) -> int:
        """One product."""
        return 1

    @property
    def is_exact(self) -> bool:
        """Only where every scale is 0 or 1."""
        return self.error is None and bool(np.all((self.scale == 0) | (self.scale == 1)))

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(D x)."""
        return rows * self.scale

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(D y)."""
        return rows * self.scale

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|D| x)."""
        return rows * np.abs(self.scale)

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|D| y)."""
        return rows * np.abs(self.scale)

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E x)."""
        return np.zeros_like(rows) if self.error is None else rows * self.error

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(E y)."""
        return self.slack(rows)


@dataclass(frozen=True)
class Adjoint:
    """The transpose of a map."""

    of: Map

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.of.out_size

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.of.in_size

    @property
    def terms(self) -> int:
        """Those of the other direction."""
        return self.of.adjoint_terms

    @property
    def adjoint_terms(self) -> int:
        """Those of the other direction."""
        return self.of.terms

    @property
    def is_exact(self) -> bool:
        """As the map is."""
        return self.of.is_exact

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(A' x)."""
        return self.of.backward(rows)

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(A y)."""
        return self.of.forward(rows)

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|A|' x)."""
        return self.of.adjoint_magnitudes(rows)

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|A| y)."""
        return self.of.magnitudes(rows)

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E' x)."""
        return self.of.adjoint_slack(rows)

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(E y)."""
        return self.of.slack(rows)


@dataclass(frozen=True)
class Composed:
    """second(first(x)).

    |A| here is |second| |first|, which no entry of the composition exceeds, and E is
    |second| E_1 + E_2 |first| + E_2 E_1. The rounding of both passes is that of one sum with the
    terms of both: (1 + gamma_a)(1 + gamma_b) <= 1 + gamma_(a + b).
    """

    first: Map
    second: Map

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.first.in_size

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.second.out_size

    @property
    def terms(self) -> int:
        """Of both, unless one rounds nothing. The 2 are for the slack, rounded twice."""
        return self.first.terms + self.second.terms + 2

    @property
    def adjoint_terms(self) -> int:
        """Of both, likewise."""
        return self.first.adjoint_terms + self.second.adjoint_terms + 2

    @property
    def is_exact(self) -> bool:
        """Where both are."""
        return self.first.is_exact and self.second.is_exact

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(A_2 fl(A_1 x))."""
        return self.second.forward(self.first.forward(rows))

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(A_1' fl(A_2' y))."""
        return self.first.backward(self.second.backward(rows))

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|A_2| fl(|A_1| x))."""
        return self.second.magnitudes(self.first.magnitudes(rows))

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|A_1|' fl(|A_2|' y))."""
        return self.first.adjoint_magnitudes(self.second.adjoint_magnitudes(rows))

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """What E_1, E_2 and both add."""
        loose = self.first.slack(rows)
        return self.second.magnitudes(loose) + self.second.slack(
            self.first.magnitudes(rows) + loose
        )

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """What E_1, E_2 and both add, backwards."""
        loose = self.second.adjoint_slack(rows)
        return self.first.adjoint_magnitudes(loose) + self.first.adjoint_slack(
            self.second.adjoint_magnitudes(rows) + loose
        )


def composed(first: Map, second: Map) -> Map:
    """Both, one after the other; two index maps become one."""
    if isinstance(first, Gather) and isinstance(second, Gather):
        index = np.where(second.index >= 0, first.index[np.maximum(second.index, 0)], -1)
        return Gather(index, first.in_size)
    return Composed(first, second)


__all__ = [
    "Adjoint",
    "Composed",
    "Convolution",
    "Dense",
    "Diagonal",
    "Gather",
    "composed",
    "identity",
]

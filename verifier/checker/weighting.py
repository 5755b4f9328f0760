"""Weighted input norms: the same claim about other coordinates, in a plain norm.

If T is invertible on the inputs that vary and

    |z|_p <= s |T z|    in the weighted norm, for all z,                                    (1)

then |f(T z) - f(T z')| <= L |z - z'|_p for all z, z' implies |f(x) - f(y)| <= s L |x - y|. So every
proof is about the network behind one more affine map, with the plain norm, and its bound is
multiplied by s. T is a float64 matrix, exact as such:

    |w o x|_p     T = diag(t), t_k at least 1/w_k: then |z_k| <= w_k |t_k z_k|, and s = 1;
    sqrt(x'Px)    T is about R^-1, P = R'R. With T'P T = I + D and |D|_2 <= d <= 1/2,
                  |z|^2 (1 - d) <= (T z)'P (T z), hence (1) for s = (1 - d)^-1/2 <= 1 + d.       (2)

Nothing here trusts the factorisation: D is measured, with all its rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, ONE, UNIT, Magnitude, enlarged, gamma, up
from verifier.checker.definite import NotProved
from verifier.checker.maps import Dense, Diagonal
from verifier.checker.network import (
    Affine,
    Blocks,
    Elementwise,
    Gated,
    Maximum,
    Network,
    Node,
    Product,
    Reflection,
    Sort,
    Term,
)
from verifier.errors import InvalidRequest
from verifier.norms import Metric, Norm, NormPair, Norms, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map

FRONT = "\0weighted"  #: the affine node in front; no tensor of a file has such a name
_POWER_STEPS = 8  #: towards the v of `_off_identity`
WEIGHT_EXPONENT = 400  #: weights lie in 2^-400 .. 2^400, so that their inverses are normal numbers


@dataclass(frozen=True, slots=True)
class Unweighted:
    """The claim about the coordinates z."""

    network: Network  #: z -> f(T z)
    pair: NormPair  #: the plain norms that it is measured in
    stretch: Magnitude  #: s

    def bounds(self, proved: Sequence[Magnitude]) -> tuple[Magnitude, ...]:
        """Bounds in the claim's norm from those in the plain one."""
        return tuple(self.stretch * bound for bound in proved)


def unweighted(network: Network, norms: Norms, inputs: Int64[np.ndarray, " varying"]) -> Unweighted:
    """What is to be proved in place of a claim in a weighted norm.

    Args:
        network: f.
        norms: the claim's.
        inputs: those in which x and y may differ; T moves no others.

    Raises:
        InvalidRequest: the weighting does not fit the network, or is no norm.
        NotProved: (2) has no d < 1.
    """
    if isinstance(norms, NormPair):
        return Unweighted(network, norms, ONE)
    match norms.weighting:
        case Weights(values):
            change = Diagonal(_inverses(values, network.input_size))
            return Unweighted(_behind(network, change), norms.plain, ONE)
        case Metric(rows):
            root, stretch = _root(rows, network.input_size, inputs)
            return Unweighted(_behind(network, Dense(root)), norms.plain, Magnitude.of(stretch))


def _inverses(values: Sequence[float], size: int) -> Float64[np.ndarray, " n"]:
    """The t of (1)."""
    if len(values) != size:
        raise _misfit(f"{len(values)} weights for {size} inputs")
    limit = 2.0**WEIGHT_EXPONENT
    if not all(1 / limit <= weight <= limit for weight in values):
        raise _misfit("a weight is not positive, or out of range")
    inverses = (1 / weight for weight in values)
    return np.array(
        [
            t if 1 <= Fraction(t) * Fraction(weight) else up(t)
            for t, weight in zip(inverses, values, strict=True)
        ]
    )


def _root(
    rows: Sequence[Sequence[float]], size: int, inputs: Int64[np.ndarray, " varying"]
) -> tuple[Float64[np.ndarray, "n n"], float]:
    """The T of (2), which is the identity on inputs that do not vary, and s."""
    if len(rows) != size or any(len(row) != size for row in rows):
        raise _misfit(f"a matrix of {len(rows)} rows for {size} inputs")
    matrix = np.array(rows)
    if not (np.all(np.isfinite(matrix)) and np.array_equal(matrix, matrix.T)):
        raise _misfit("the matrix is not symmetric")
    block = matrix[np.ix_(inputs, inputs)]
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(block)).T
    except np.linalg.LinAlgError as error:
        raise _misfit("the matrix is not positive definite") from error
    excess = _off_identity(block, inverse)
    if not excess < 0.5:
        raise NotProved("the matrix of the norm is too near to a singular one")
    whole = np.eye(size)
    whole[np.ix_(inputs, inputs)] = inverse
    # (1 + d)^2 (1 - d) = 1 + d - d^2 - d^3 is at least 1 for d <= 1/2.
    return whole, up(1 + excess)


def _off_identity(matrix: Float64[np.ndarray, "n n"], inverse: Float64[np.ndarray, "n n"]) -> float:
    """A number that |T'PT - I|_2 does not exceed.

    With A = fl(P T), |A - P T| <= gamma |P||T| =: B, and T'A errs by gamma |T|'|A| more, so that
    |T'PT - I| <= |fl(T'A) - I| + |T|'(B + gamma |A|) + u =: N entry by entry. What is measured is
    symmetric, so its 2-norm is at most the spectral radius of (N + N')/2, which for any v > 0 is
    at most the greatest (N + N')v / 2v (Collatz 1942).
    """
    size = len(matrix)
    if not np.all(np.isfinite(inverse)):
        return math.inf
    share = gamma(size + 2)
    magnitude = np.abs(inverse)
    middle = matrix @ inverse
    spread = enlarged(np.abs(matrix) @ magnitude, size) * share + np.abs(middle) * share
    error = enlarged(magnitude.T @ (enlarged(spread, 4) + size * LEAST), size) + size * LEAST
    product = inverse.T @ middle
    off = np.abs(product - np.eye(size)) + UNIT * (1 + np.abs(product)) + error
    off = enlarged(off / 2 + off.T / 2, 4)
    vector = np.ones(size)
    for _ in range(_POWER_STEPS):
        vector = off @ vector
        vector = np.maximum(vector / max(float(vector.max(initial=0.0)), LEAST), 1e-6)
    image = enlarged(off @ vector, size)
    excess = float(enlarged(image / vector, 4).max(initial=0.0))
    return excess if math.isfinite(excess) else math.inf


def _behind(network: Network, change: Map) -> Network:
    """The network with T in front of it."""
    size = network.input_size
    zero = np.zeros(size)
    front = Affine(name=FRONT, size=size, terms=(Term("", change),), bias=zero, bias_error=zero)
    return replace(
        network,
        nodes=(front, *(_moved(node) for node in network.nodes)),
        output=network.output or FRONT,
        tensors={**network.tensors, FRONT: size},
    )


def _moved(node: Node) -> Node:
    match node:
        case Affine():
            terms = (Term(term.source or FRONT, term.map) for term in node.terms)
            return replace(node, terms=tuple(terms))
        case Elementwise() | Sort() | Reflection() | Maximum() | Blocks() | Gated():
            return replace(node, source=node.source or FRONT)
        case Product():
            return replace(node, left=node.left or FRONT, right=node.right or FRONT)


def _misfit(detail: str) -> InvalidRequest:
    return InvalidRequest(
        detail, fix="correct the norm of the claim", pointer="/property/norm/input"
    )


# --- Exact lengths -------------------------------------------------------------------------------


def squared_length(steps: Sequence[Fraction], norms: Norms) -> Fraction:
    """|x|^2 in the norm of inputs, exactly."""
    if isinstance(norms, NormPair):
        return squared_norm(steps, norms.input)
    match norms.weighting:
        case Weights(values):
            weighted = [Fraction(w) * step for w, step in zip(values, steps, strict=True)]
            return squared_norm(weighted, norms.plain.input)
        case Metric(rows):
            return _quadratic(rows, steps)


def squared_norm(values: Sequence[Fraction], norm: Norm) -> Fraction:
    """|values|^2, exactly."""
    magnitudes = [abs(value) for value in values]
    match norm:
        case Norm.L1:
            return sum(magnitudes, Fraction(0)) ** 2
        case Norm.L2:
            return sum((m * m for m in magnitudes), Fraction(0))
        case Norm.LINF:
            return max(magnitudes, default=Fraction(0)) ** 2


def _quadratic(rows: Sequence[Sequence[float]], steps: Sequence[Fraction]) -> Fraction:
    """x'Px over one denominator: sums of integers, which are much faster than of fractions."""
    scale = math.lcm(*(step.denominator for step in steps))
    whole = {k: int(step * scale) for k, step in enumerate(steps) if step}
    entries = {(i, j): Fraction(rows[i][j]) for i in whole for j in whole if i <= j and rows[i][j]}
    common = math.lcm(*(entry.denominator for entry in entries.values()))
    total = 0
    for (i, j), entry in entries.items():
        part = entry.numerator * (common // entry.denominator) * whole[i] * whole[j]
        total += part if i == j else 2 * part
    return Fraction(total, common * scale * scale)

"""Weighted input norms: the same claim about other coordinates, in a plain norm.

If T is invertible on the inputs that vary and

    |z|_p <= |T z|    in the weighted norm, for all z,                                      (1)

then |f(T z) - f(T z')| <= L |z - z'|_p for all z, z' implies |f(x) - f(y)| <= L |x - y|. So every
proof is about the network behind one more affine map, with the plain norm. By kind,

    |w o x|_p     T = diag(t), t_k at least 1/w_k: then |z_k| <= w_k |t_k z_k|, and T is exact;
    sqrt(x'Px)    T = s R^-1 as float64 finds it, P = R'R: with R^-T P R^-1 = I + D, |D|_2 <= d < 1,
                  (s R^-1 z)'P(s R^-1 z) >= s^2 (1 - d)|z|^2, hence (1) for s = (1 - d)^-1/2.   (2)

No member here trusts the factorisation: D is measured, with all its rounding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, enlarged, gamma, up
from verifier.checker.definite import NotProved
from verifier.checker.maps import Dense, Diagonal
from verifier.checker.network import (
    Affine,
    Elementwise,
    Maximum,
    Network,
    Node,
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
WEIGHT_EXPONENT = 400  #: weights lie in 2^-400 .. 2^400, so that their inverses are normal numbers


def unweighted(
    network: Network, norms: Norms, inputs: Int64[np.ndarray, " varying"]
) -> tuple[Network, NormPair]:
    """Z -> f(T z) and the plain norms that it is to be measured in.

    Args:
        network: f.
        norms: the claim's.
        inputs: those in which x and y may differ; T moves no others.

    Raises:
        InvalidRequest: the weighting does not fit the network, or is no norm.
        NotProved: (2) has no d < 1.
    """
    if isinstance(norms, NormPair):
        return network, norms
    match norms.weighting:
        case Weights(values):
            change: Map = Diagonal(_inverses(values, network.input_size))
        case Metric(rows):
            change = _root(rows, network.input_size, inputs)
    return _behind(network, change), norms.plain


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
) -> Dense:
    """The T of (2): s R^-1 on the inputs that vary, the identity elsewhere."""
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
    # (1 - d)^-1/2 <= 1 + d for d <= 1/2: (1 + d)^2 (1 - d) = 1 + d - d^2 - d^3 >= 1 there.
    stretch = up(1 + excess)
    whole, error = np.eye(size), np.zeros((size, size))
    whole[np.ix_(inputs, inputs)] = stretch * inverse
    error[np.ix_(inputs, inputs)] = 2 * UNIT * np.abs(stretch * inverse) + LEAST
    return Dense(whole, error)


def _off_identity(matrix: Float64[np.ndarray, "n n"], inverse: Float64[np.ndarray, "n n"]) -> float:
    """A number that |T'PT - I|_2 does not exceed: the greatest row sum, the matrix is symmetric.

    With A = fl(P T), |A - P T| <= gamma |P||T| =: B, and T'A errs by gamma |T|'|A| more:
    |T'PT - I| <= |fl(T'A) - I| + |T|'(B + gamma |A|) + u.
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
    excess = float(enlarged(np.sum(enlarged(off, 4), axis=1), size).max(initial=0.0))
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
        case Elementwise() | Sort() | Reflection() | Maximum():
            return replace(node, source=node.source or FRONT)


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

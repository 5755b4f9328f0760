"""The root of a sum of squares is a length: |(sqrt(w_1) x_1, ..., sqrt(w_k) x_k, sqrt(c))|.

Wherever an operator takes the root of a signal, it is asked whether the signal is

    s_o = sum_j w_oj x_oj^2 + c_o,    0 <= w, 0 <= c,                                        (1)

along affine nodes back to squares. Of one entry each, the same weights and one 0 < c everywhere,
it is an elementwise function. Otherwise the root, of a tensor t, is "t:parts", the entries times
the roots of their weights, "t:length", and the lengths picked out, "t".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import compounds
from verifier.checker.builder import Builder, scaled
from verifier.checker.carry import Sparse
from verifier.checker.enclosures import TINY, U
from verifier.checker.length import Length
from verifier.checker.maps import Gather
from verifier.checker.network import Affine, Blocks, Elementwise, Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.rays import divides, over
from verifier.checker.supports import MOST, after, beside, spread, support

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.network import Node
    from verifier.checker.rays import Pair

    Vector = Float64[np.ndarray, " n"]

_UP = 1 + 16 * U
_DEEPEST = 12  #: affine nodes between a root and its squares
_WIDEST = 2**12  #: entries of one length


@dataclass(frozen=True, slots=True)
class Squares:
    """(1): rows of weights by the signal whose entries are squared, and c with its error."""

    parts: dict[str, Sparse]
    shift: Vector
    shift_error: Vector


def root_of_squares(builder: Builder, call: Call, signal: Signal) -> Signal | None:
    """The root of the signal, where it is a sum of squares."""
    found = _Search(builder, {}).squares(signal.source)
    if found is None:
        return None
    alike = _alike(found, builder)
    if alike is not None:
        source, weight, shift = alike
        # sqrt(c + a x^2) = sqrt(c) sqrt(1 + (x sqrt(a / c))^2)
        inner, outer = _root_of_pair(over(weight, shift)), _root_of_pair(shift)
        curve = compounds.Rescaled(
            compounds.RootOfSquare(), inner, outer, compounds.RootOfSquare.curvature
        )
        return builder.elementwise(call, Signal(source, signal.shape, signal.dtype), curve)
    return _length_of(builder, call, signal, found)


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks back from a root; what is found of a signal is found once."""

    builder: Builder
    known: dict[str, Squares | None]

    def squares(self, source: str, depth: int = _DEEPEST) -> Squares | None:
        """(1), where the signal is that."""
        if source not in self.known:
            node: Node | None = self.builder.nodes.get(source)
            found: Squares | None = None
            if isinstance(node, Elementwise) and isinstance(node.function, compounds.Square):
                places = np.arange(node.size)[:, None]
                unit = Sparse(places, np.ones(places.shape), node.size)
                found = Squares({node.source: unit}, np.zeros(node.size), np.zeros(node.size))
            elif isinstance(node, Affine) and depth > 0:
                found = self._sum(node, depth)
            self.known[source] = found
        return self.known[source]

    def _sum(self, node: Affine, depth: int) -> Squares | None:
        if np.any(node.bias < node.bias_error):
            return None
        parts: dict[str, Sparse] = {}
        shift, error = node.bias.copy(), node.bias_error.copy()
        for term in node.terms:
            inner = self.squares(term.source, depth - 1)
            rows = None if inner is None else support(term.map)
            if inner is None or rows is None or np.any(rows.weight < spread(rows)):
                return None
            shift, error = _plus((shift, error), _shifted(rows, inner))
            for name, weights in inner.parts.items():
                whole = after(weights, rows)
                if whole is None:
                    return None
                parts[name] = beside(parts[name], whole) if name in parts else whole
            if node.size * sum(rows.index.shape[1] for rows in parts.values()) > MOST:
                return None
        return Squares(parts, shift, error)


def _shifted(rows: Sparse, inner: Squares) -> tuple[Vector, Vector]:
    """What the weights make of c."""
    if not (np.any(inner.shift) or np.any(inner.shift_error)):
        return np.zeros(rows.out_size), np.zeros(rows.out_size)
    used = np.maximum(rows.index, 0)
    c, e = (np.where(rows.index < 0, 0.0, v[used]) for v in (inner.shift, inner.shift_error))
    value = (rows.weight * c).sum(axis=1)
    error = (rows.weight * e + spread(rows) * (c + e)).sum(axis=1)
    terms = rows.index.shape[1] + 4
    return value, (error + value * (terms * U)) * (1 + 4 * terms * U) + 2 * terms * TINY


def _plus(one: tuple[Vector, Vector], other: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    value = one[0] + other[0]
    exact = (one[0] == 0) | (other[0] == 0)
    return value, (one[1] + other[1]) * _UP + np.where(exact, 0.0, value * U)


def _alike(found: Squares, builder: Builder) -> tuple[str, Pair, Pair] | None:
    """(x, a, c) where every entry is a x^2 + c of its own x, for one a and one 0 < c."""
    if len(found.parts) != 1:
        return None
    ((source, rows),) = found.parts.items()
    own = np.arange(len(found.shift))[:, None]
    if not np.array_equal(rows.index, own) or builder.sizes[source] != len(own):
        return None
    numbers = [rows.weight, spread(rows), found.shift, found.shift_error]
    if any(np.any(array != array.flat[0]) for array in numbers):
        return None
    a, d, c, e = (float(array.flat[0]) for array in numbers)
    return (source, (a, d), (c, e)) if divides((a, d)) and divides((c, e)) else None


def _root_of_pair(value: Pair) -> Pair:
    root, error = _roots(np.array(value[:1]), np.array(value[1:]))
    return float(root[0]), float(error[0])


def _roots(value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of pairs of numbers that are not negative; 0 and 4^k are exact.

    |sqrt(w_true) - sqrt(w)| <= e / sqrt(w), or sqrt(e) where w is 0: of products that underflow.
    """
    root = np.sqrt(value)
    exact = (error == 0) & ((np.frexp(root)[0] == 0.5) & (root * root == value) | (value == 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(value == 0, np.sqrt(error), error / root)
    return root, np.where(exact, 0.0, (shift + root * U) * _UP + TINY)


def _length_of(builder: Builder, call: Call, signal: Signal, found: Squares) -> Signal | None:
    has_shift = bool(np.any(found.shift) or np.any(found.shift_error))
    width = sum(rows.index.shape[1] for rows in found.parts.values()) + has_shift
    if not 0 < width <= _WIDEST:
        return None
    places = np.arange(signal.size * width).reshape(signal.size, width)
    terms: list[tuple[str, Int64[np.ndarray, " n"], np.ndarray, np.ndarray]] = []
    start = 0
    for source, rows in found.parts.items():
        index = np.full((signal.size, width), -1)
        weight, error = np.zeros(index.shape), np.zeros(index.shape)
        end = start + rows.index.shape[1]
        index[:, start:end] = rows.index
        weight[:, start:end], error[:, start:end] = _roots(rows.weight, spread(rows))
        terms.append((source, index.reshape(-1), weight.reshape(-1), error.reshape(-1)))
        start = end
    bias = None
    if has_shift:
        value, error = np.zeros(places.shape), np.zeros(places.shape)
        value[:, -1], error[:, -1] = _roots(found.shift, found.shift_error)
        bias = Constant(value.reshape(-1), signal.dtype, error.reshape(-1))
    name = call.node.name
    builder.affine(
        f"{name}:parts",
        places.size,
        [
            Term(
                source,
                scaled(
                    Gather(index, builder.sizes[source]), weight, error if np.any(error) else None
                ),
            )
            for source, index, weight, error in terms
        ],
        bias,
    )
    return lengths(builder, call, f"{name}:parts", places, signal.shape)


def lengths(
    builder: Builder,
    call: Call,
    source: str,
    groups: Int64[np.ndarray, "groups n"],
    shape: tuple[int, ...],
) -> Signal:
    """The lengths of groups that cover a signal, picked out."""
    name = f"{call.node.name}:length"
    builder.add(
        Blocks(name=name, size=groups.size, source=source, groups=groups, function=Length())
    )
    to = Gather(np.ascontiguousarray(groups[:, 0]), groups.size)
    return builder.linear(call, call.allowed(shape), [Term(name, to)])

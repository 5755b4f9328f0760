"""Two-piece functions of a signal and of its negative share one gate.

With slopes p above 0 and q below, f(s v) = s (p + q)/2 v + (p - q)/2 |v| for s = 1 and s = -1. So
[f(v), f(-v)], of which [x+, x-] is the best known, has one gate |v|, and is measured jointly: for
ReLU it keeps the l2 norm, where two gates of slopes [0, 1] lose a factor sqrt(2).

Entries are followed back through maps that move or negate them, without biases, so that -v is the
negative of v as the file computes it, biases of v included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT
from verifier.checker.carry import Sparse, stages
from verifier.checker.lowering import Absolute
from verifier.checker.maps import Diagonal, Gather
from verifier.checker.network import Affine, Elementwise, Network, Node, Term
from verifier.checker.scalars import PiecewiseLinear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map


@dataclass(frozen=True, slots=True)
class _Roots:
    """Every entry of a signal is sign times an entry of a signal that is made of no others."""

    signals: tuple[str, ...]  #: the roots that occur
    owner: Int64[np.ndarray, " n"]  #: which of them, by entry
    index: Int64[np.ndarray, " n"]
    sign: Float64[np.ndarray, " n"]


def with_shared_gates(network: Network) -> Network:
    """The same function, with one gate |v| wherever functions of v and of -v stand."""
    affine = {node.name: node for node in network.nodes if isinstance(node, Affine)}
    roots = {
        node.name: found
        for node in network.nodes
        if isinstance(node, Elementwise)
        and _slopes(node) is not None
        and (found := _roots(node.source, network, affine)) is not None
    }
    mirrored = _mirrored(roots)
    chosen = {name for name, found in roots.items() if set(found.signals) <= mirrored}
    if not chosen:
        return network
    sizes = dict(network.tensors)
    nodes: list[Node] = []
    for node in network.nodes:
        if isinstance(node, Elementwise) and node.name in chosen:
            for signal in roots[node.name].signals:
                gate = _gate(signal)
                if gate not in sizes:
                    sizes[gate] = sizes[signal]
                    nodes.append(
                        Elementwise(
                            name=gate, size=sizes[signal], source=signal, function=Absolute()
                        )
                    )
            nodes.append(_shared(node, roots[node.name], sizes))
        else:
            nodes.append(node)
    return replace(network, nodes=tuple(nodes), tensors=sizes)


def _gate(signal: str) -> str:
    return f"{signal}\0|.|"


def _slopes(node: Elementwise) -> tuple[float, float] | None:
    """(p, q) of a function with one knot, at 0."""
    function = node.function
    if not isinstance(function, PiecewiseLinear) or function.knots != ((0.0, 0.0),):
        return None
    (below, left), (above, right) = function.pieces
    if not (isinstance(below, float) and isinstance(above, float)) or (left, right) != (0.0, 0.0):
        return None
    return above, below


def _mirrored(roots: Mapping[str, _Roots]) -> set[str]:
    """The root signals of which every entry that is read is read with both signs."""
    read: dict[str, tuple[set[int], set[int]]] = {}
    for found in roots.values():
        for place, signal in enumerate(found.signals):
            plus, minus = read.setdefault(signal, (set(), set()))
            mine = found.owner == place
            plus.update(found.index[mine & (0 < found.sign)].tolist())
            minus.update(found.index[mine & (found.sign < 0)].tolist())
    return {signal for signal, (plus, minus) in read.items() if plus == minus}


def _roots(signal: str, network: Network, affine: Mapping[str, Affine]) -> _Roots | None:
    """The roots of a signal; None where an entry is the constant 0."""
    size = network.tensors[signal]
    node = affine.get(signal)
    if node is None or np.any(node.bias) or np.any(node.bias_error):
        return _Roots((signal,), np.zeros(size, np.int64), np.arange(size), np.ones(size))
    names: list[str] = []
    owner, index, sign = np.full(size, -1), np.zeros(size, np.int64), np.zeros(size)
    for term in node.terms:
        moved = _moved(term.map)
        if moved is None or np.any(owner[moved[0] >= 0] >= 0):
            return _Roots((signal,), np.zeros(size, np.int64), np.arange(size), np.ones(size))
        places, signs = moved
        inner = _roots(term.source, network, affine)
        if inner is None:
            return None
        filled = np.flatnonzero(places >= 0)
        for place, name in enumerate(inner.signals):
            if name not in names:
                names.append(name)
            mine = filled[inner.owner[places[filled]] == place]
            owner[mine] = names.index(name)
            index[mine] = inner.index[places[mine]]
            sign[mine] = inner.sign[places[mine]] * signs[mine]
    return None if np.any(owner < 0) else _Roots(tuple(names), owner, index, sign)


def _moved(
    linear: Map,
) -> tuple[Int64[np.ndarray, " out"], Float64[np.ndarray, " out"]] | None:
    """(index, sign) of a map whose rows have one entry 1 or -1 at most; index -1 where none."""
    index, sign = np.arange(linear.in_size), np.ones(linear.in_size)
    for stage in stages(linear):
        match stage:
            case Gather():
                chosen = np.maximum(stage.index, 0)
                if linear.in_size == 0:
                    return None
                index = np.where(stage.index >= 0, index[chosen], -1)
                sign = sign[chosen]
            case Diagonal() if stage.error is None and np.all(np.abs(stage.scale) == 1):
                sign = sign * stage.scale
            case _:
                return None
    return index, sign


def _shared(node: Elementwise, roots: _Roots, sizes: Mapping[str, int]) -> Affine:
    """f(s v) = s (p + q)/2 v + (p - q)/2 |v|, entry by entry."""
    slopes = _slopes(node)
    assert slopes is not None  # noqa: S101 (it was chosen for its slopes)
    p, q = slopes
    terms: list[Term] = []
    for place, signal in enumerate(roots.signals):
        index = np.where(roots.owner == place, roots.index, -1)[:, None]
        for source, total, sign in (
            (signal, Fraction(p) + Fraction(q), roots.sign[:, None]),
            (_gate(signal), Fraction(p) - Fraction(q), np.ones((node.size, 1))),
        ):
            half = float(total / 2)
            spread = 0.0 if Fraction(half) == total / 2 else 2 * UNIT * abs(half)
            error = np.full((node.size, 1), spread) if spread else None
            terms.append(Term(source, Sparse(index, half * sign, sizes[signal], error)))
    zero = np.zeros(node.size)
    return Affine(name=node.name, size=node.size, terms=tuple(terms), bias=zero, bias_error=zero)

"""The product of absolute values: |J| <= |W_L| B_(L-1) |W_(L-1)| .. B_1 |W_1|, entry by entry.

f(x) - f(y) = J (x - y) where J is a product of the file's maps and of one matrix for each nonlinear
node: diagonal with |slope| <= b for an elementwise function, doubly stochastic within the groups of
a sort, rows of weights that sum to 1 for windows of a maximum, I - (1 - s) v v' with |s| <= 1 for a
reflection. Non-negative vectors pass such matrices from either side as

    node          forward, |N| u <=                     backward, |N|' w <=
    elementwise   b u                                   b w
    sort          greatest u of the group               greatest w of the group
    maximum       greatest u of the window              sum of w over the windows of an entry
    reflection    max(1, |1 - 2 v_i^2|) u_i + 2 |v_i| sum_(j != i) |v_j| u_j     the same

so that rows of outputs carried backwards bound the rows of |J|, and every norm that grows with the
entries follows. Where all D_l W_l D_(l-1) are non-negative for sign flips D_l, and the slopes b are
reached together, nothing is lost: the bound is the constant.

With more rows than are carried, |J|_2^2 <= max_i z_i / x_i for z = backward(forward(x)), any x > 0
(Schur's test, with weights x and forward(x)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, above, enlarged, norm_up, root_up, sum_up
from verifier.checker.carry import Carried, stages
from verifier.checker.definite import NotProved
from verifier.checker.lowering import entering
from verifier.checker.maps import Adjoint
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
)
from verifier.checker.operator_norms import matrix_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.carry import Sparse
    from verifier.checker.network import Map

CARRIED_ENTRIES = 2**23  #: of the widest signal, for all rows together
STEPS = 16  #: of the search for good weights of Schur's test
LEAST_WEIGHT = 1e-6  #: of the greatest weight


def prove_absolute(
    network: Network, pair: NormPair, rows: Sparse, inputs: Int64[np.ndarray, " k"]
) -> Magnitude:
    """The bound of one item.

    Raises:
        NotProved: a number is beyond float64.
        NotLipschitzGlobally: a node has no global constant.
    """
    passes = _Passes(network, rows, inputs)
    if pair.input is Norm.LINF:
        return _of_vector(passes.forward(np.ones((1, len(inputs)))), pair.output)
    if pair.output is Norm.L1:
        dual = {Norm.L1: Norm.LINF, Norm.L2: Norm.L2}[pair.input]
        return _of_vector(passes.backward(np.ones((1, len(rows.index)))), dual)
    count = len(rows.index)
    if count * max(network.tensors.values()) <= CARRIED_ENTRIES:
        return Magnitude.of(matrix_norm(Carried(passes.backward(np.eye(count))), pair))
    # |y|_inf <= |y|_2 and |x|_2 <= |x|_1: Schur's test serves all four pairs that are left.
    return _schur(passes, len(inputs))


def _of_vector(vector: Float64[np.ndarray, "1 n"], norm: Norm) -> Magnitude:
    match norm:
        case Norm.L1:
            return Magnitude.of(sum_up(vector))
        case Norm.L2:
            return Magnitude.of(norm_up(vector[0]))
        case Norm.LINF:
            return Magnitude.of(float(vector.max(initial=0.0)))


def _schur(passes: _Passes, size: int) -> Magnitude:
    """The best of a few steps of the power method, each a proof of its own."""
    weights = np.ones((1, size))
    found: list[float] = []
    for _ in range(STEPS):
        images = passes.backward(passes.forward(weights))
        greatest = float(images.max(initial=0.0))
        if greatest == 0:
            return Magnitude.of(0.0)
        found.append(root_up(float(above(images / weights).max())))
        weights = np.maximum(images / greatest, LEAST_WEIGHT)
    return Magnitude.of(min(found))


class _Passes:
    """Non-negative rows on their way through the network, every number rounded up."""

    def __init__(self, network: Network, rows: Sparse, inputs: Int64[np.ndarray, " k"]) -> None:
        self._network, self._rows, self._inputs = network, rows, inputs
        self._steep = {
            node.name: _steepest(node) for node in network.nodes if isinstance(node, Elementwise)
        }

    def forward(self, rows: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k m"]:
        """Bounds of the item's outputs for increments of the selected inputs within `rows`."""
        start = np.zeros((len(rows), self._network.input_size))
        start[:, self._inputs] = rows
        signals = {"": start}
        for node in self._network.nodes:
            if isinstance(node, Affine):
                parts = [_pushed(term.map, signals[term.source]) for term in node.terms]
                signals[node.name] = _added(parts, len(rows), node.size)
            else:
                signals[node.name] = self._through(node, signals[entering(node)])
        return _finite(_pushed(self._rows, signals[self._network.output]))

    def backward(self, rows: Float64[np.ndarray, "k m"]) -> Float64[np.ndarray, "k n"]:
        """Bounds of the rows' product with |J|, at the selected inputs."""
        arrived = {self._network.output: [_pushed(Adjoint(self._rows), rows)]}
        for node in reversed(self._network.nodes):
            if node.name not in arrived:
                continue
            whole = _added(arrived.pop(node.name), len(rows), node.size)
            if isinstance(node, Affine):
                for term in node.terms:
                    back = _pushed(Adjoint(term.map), whole)
                    arrived.setdefault(term.source, []).append(back)
            else:
                arrived.setdefault(entering(node), []).append(self._back(node, whole))
        whole = _added(arrived.pop("", []), len(rows), self._network.input_size)
        return _finite(whole[:, self._inputs])

    def _through(self, node: Node, rows: Float64[np.ndarray, "k n"]) -> np.ndarray:
        match node:
            case Elementwise():
                return above(rows * self._steep[node.name])
            case Sort():
                result = np.zeros((len(rows), node.size))
                result[:, node.places] = rows[:, node.groups].max(axis=2, keepdims=True)
                return result
            case Maximum():
                return rows[:, node.windows].max(axis=2)
            case Reflection():
                return _reflected(node, rows)
            case Blocks():
                raise NotProved(f"nothing is known of the derivatives of {node.name!r} everywhere")
            case Affine() | Product() | Gated():
                raise NotProved(f"node {node.name!r} is no function of one signal")

    def _back(self, node: Node, rows: Float64[np.ndarray, "k m"]) -> np.ndarray:
        size = self._network.tensors[entering(node)] if not isinstance(node, Affine) else 0
        match node:
            case Sort():
                result = np.zeros((len(rows), size))
                result[:, node.groups] = rows[:, node.places].max(axis=2, keepdims=True)
                return result
            case Maximum():
                result = np.zeros((size, len(rows)))
                ordered = np.sort(node.windows, axis=1)
                is_new = np.ones(ordered.shape, dtype=np.bool_)
                is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
                owner = np.broadcast_to(np.arange(len(ordered))[:, None], ordered.shape)
                np.add.at(result, ordered[is_new], rows.T[owner[is_new]])
                return enlarged(result.T, node.overlap + 2)
            case _:
                return self._through(node, rows)


def _steepest(node: Elementwise) -> Float64[np.ndarray, " n"]:
    lower, upper = node.function.slope_range(node.size)
    return np.maximum(np.abs(lower), np.abs(upper))


def _pushed(linear: Map, rows: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k m"]:
    """|A| applied to every row."""
    for stage in stages(linear):
        whole = stage.magnitudes(rows) + stage.slack(rows)
        rows = whole if stage.is_exact else enlarged(whole, stage.terms + 4)
    return rows


def _added(parts: list[np.ndarray], count: int, size: int) -> Float64[np.ndarray, "k n"]:
    whole = np.zeros((count, size))
    for part in parts:
        whole = above(whole + part) if np.any(whole) else part
    return whole


def _reflected(node: Reflection, rows: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k n"]:
    """max(1, |1 - 2 v_i^2|) x_i, convex in v_i^2, and 2 |v_i||v_j| x_j of the others."""
    high = above(np.abs(node.vectors) + node.vector_error)
    low = np.maximum(0.0, np.nextafter(np.abs(node.vectors) - node.vector_error, -np.inf))
    ends = np.maximum(np.abs(1 - 2 * low**2), np.abs(1 - 2 * high**2)) + 2.0**-50 * (1 + high**2)
    inner = rows[:, node.slices]
    along = inner * high
    whole = enlarged(np.sum(along, axis=2, keepdims=True), high.shape[1])
    others = np.maximum(0.0, above(whole - np.nextafter(along, -np.inf)))
    moved = enlarged(np.maximum(1.0, ends) * inner + 2 * high * others, 6)
    result = np.zeros_like(rows)
    result[:, node.slices] = moved
    return result


def _finite(rows: Float64[np.ndarray, "k n"]) -> Float64[np.ndarray, "k n"]:
    if not np.all(np.isfinite(rows)):
        raise NotProved("an absolute product exceeds float64")
    return rows

"""Every increment of a network as a linear map of xi = (dx, psi), and the gates' constraints.

A signal's increment is a matrix over xi with a proved error, and

    a gate with slopes in [a, b]:   phi = m v + r psi,   |psi| <= |v|,   [a, b] within [m-r, m+r]
    a sort of n >= 3:               phi = mean(v) + sum_k h_k psi_k,   k = 1 .. n-1,
                                    sum_k k(k+1) psi_k^2 <= sum_k (h_k.v)^2 / (k(k+1)),
    gated, of inputs w_1, w_2, ..:  phi = sum_k m_k w_k + psi,   psi^2 <= sum_k share_k w_k^2,

h_k = (1, .., 1, -k, 0, .., 0) with k ones: orthogonal, orthogonal to 1, with |h_k|^2 = k(k+1).
Sorting keeps the sum and is 1-Lipschitz, so its increment off the mean is not longer than v's.
A gate with r = 0 is linear on the region and has no psi. m and r are float64 numbers and exact as
such: only their products round. Only the rows that enter a psi are wanted, and the output's: each
is carried back through the lowered network, from its signal to xi.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, above, enlarged
from verifier.checker.carry import Carried, Sparse, normal, push, summed
from verifier.checker.definite import NotProved
from verifier.checker.maps import Adjoint
from verifier.checker.network import Affine, Elementwise, Gated, Sort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Map, Node

WORKING_ENTRIES = 2**22  #: the most coefficients of one signal at a time

Slopes = tuple["Float64[np.ndarray, ' n']", "Float64[np.ndarray, ' n']"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """For every gate j of a node: sum over its psi of weight psi^2 <= sum of share (V xi)^2.

    Column i of `entering` is the increment v that enters; `owner[i]` is the gate that it belongs
    to, and `coordinates[i]` the place in xi of a psi of the same gate.
    """

    name: str  #: what the proof calls the node
    gates: int  #: how many multipliers the node has, gates without psi included
    psis: int  #: of each gate that has any: 1, or n - 1 of a sort of n
    entering: Carried  #: xi by entries
    share: Float64[np.ndarray, " entries"]
    owner: Int64[np.ndarray, " entries"]
    coordinates: Int64[np.ndarray, " entries"]
    weight: Float64[np.ndarray, " entries"]
    has_vertices: bool = True  #: whether psi = T v for one T of a known hull; not of two inputs


@dataclass(slots=True)
class Increments:
    """What walking the network gives: the size of xi, the constraints, the output's increment."""

    size: int  #: of xi
    inputs: int  #: how many entries of xi are dx
    constraints: list[Constraint] = field(default_factory=list[Constraint])
    output: Carried = field(default_factory=lambda: Carried(np.zeros((0, 0))))


def increments(
    lowered: Lowered, inputs: Int64[np.ndarray, " selected"], slopes: Mapping[str, Slopes]
) -> Increments:
    """Every increment that a constraint reads, and the output's, over xi.

    Args:
        lowered: affine nodes, gates and sorts of three and more.
        inputs: the coordinates in which x and y may differ.
        slopes: for every Elementwise node, by its own name, ranges that hold all its secants.

    Raises:
        NotProved: an increment exceeds float64.
    """
    walk = _Walk(lowered, inputs, slopes)
    found = Increments(size=walk.size, inputs=len(inputs))
    for node in lowered.network.nodes:
        match node:
            case Elementwise():
                found.constraints.append(_of_gates(walk, lowered.gates[node.name], node))
            case Sort():
                found.constraints.append(_of_sorts(walk, node))
            case Gated():
                found.constraints.append(_of_gated(walk, node))
            case _:
                pass
    network = lowered.network
    found.output = walk.over_xi(network.output, np.eye(network.output_size)).transposed()
    return found


def _of_gates(walk: _Walk, name: str, node: Elementwise) -> Constraint:
    free, places = walk.free[node.name], walk.places[node.name]
    units = np.zeros((len(free), node.size))
    units[np.arange(len(free)), free] = 1.0
    ones = np.ones(len(free))
    return Constraint(
        name=name,
        gates=node.size,
        psis=1,
        entering=_before(walk.over_xi(node.source, units), places),
        share=ones,
        owner=free,
        coordinates=places,
        weight=ones,
    )


def _of_sorts(walk: _Walk, node: Sort) -> Constraint:
    count, width = node.groups.shape
    length = np.array([float(k * (k + 1)) for k in range(1, width)])
    size = walk.network.tensors[node.source]
    rows = _helmert(node.groups, size).backward(np.eye(count * (width - 1)))
    places = walk.places[node.name]
    return Constraint(
        name=node.name,
        gates=count,
        psis=width - 1,
        entering=_before(walk.over_xi(node.source, rows), places),
        share=np.tile(1 / length, count),
        owner=np.repeat(np.arange(count, dtype=np.int64), width - 1),
        coordinates=places,
        weight=np.tile(length, count),
    )


def _of_gated(walk: _Walk, node: Gated) -> Constraint:
    """All that enter a gate bound its psi."""
    places, ways = walk.places[node.name], len(node.middles)
    return Constraint(
        name=node.name,
        gates=node.size,
        psis=1,
        entering=_before(walk.over_xi(node.source, np.eye(ways * node.size)), places),
        share=node.shares,
        owner=np.tile(np.arange(node.size, dtype=np.int64), ways),
        coordinates=np.tile(places, ways),
        weight=np.ones(ways * node.size),
        has_vertices=False,
    )


def _before(rows: Carried, places: Int64[np.ndarray, " entries"]) -> Carried:
    """The increments as columns; those at `places` and later do not enter them."""
    end = int(places[0]) if len(places) else rows.value.shape[1]
    return Carried(rows.value[:, :end].T, rows.errors()[:, :end].T)


class _Walk:
    """Functions of signals carried back to xi, whose psis are laid out first."""

    def __init__(
        self, lowered: Lowered, inputs: Int64[np.ndarray, " selected"], slopes: Mapping[str, Slopes]
    ) -> None:
        self.network = lowered.network
        self._inputs = inputs
        self.size = len(inputs)  #: of xi
        self.free: dict[str, Int64[np.ndarray, " free"]] = {}  #: the entries of gates with a psi
        self.places: dict[str, Int64[np.ndarray, " entries"]] = {}  #: of a node's psis in xi
        self._centred: dict[str, Slopes] = {}
        for node in self.network.nodes:
            match node:
                case Elementwise():
                    middle, radius = _required(lowered.gates[node.name], *slopes[node.name])
                    self._centred[node.name] = middle, radius
                    self.free[node.name] = np.flatnonzero(radius > 0)
                    self._place(node.name, len(self.free[node.name]))
                case Sort():
                    count, width = node.groups.shape
                    self._place(node.name, count * (width - 1))
                case Gated():
                    self._place(node.name, node.size)
                case Affine():
                    pass
                case _:
                    raise NotProved(f"node {node.name!r} was not lowered")

    def _place(self, name: str, count: int) -> None:
        self.places[name] = self.size + np.arange(count)
        self.size += count

    def over_xi(self, signal: str, rows: Float64[np.ndarray, "k n"]) -> Carried:
        """Exact linear functions of a signal's increment, as functions of xi.

        Raises:
            NotProved: a coefficient exceeds float64.
        """
        value, error = np.zeros((2, len(rows), self.size))
        count = max(1, WORKING_ENTRIES // max(self.network.tensors.values()))
        for begin in range(0, len(rows), count):
            part = slice(begin, begin + count)
            self._carry(signal, Carried(rows[part]), value[part], error[part])
        return Carried(value, error)

    def _carry(
        self,
        signal: str,
        rows: Carried,
        value: Float64[np.ndarray, "k xi"],
        error: Float64[np.ndarray, "k xi"],
    ) -> None:
        """Back through the nodes, the last first; fills in the coefficients and their errors."""
        pending = {signal: [rows]}
        for node in reversed(self.network.nodes):
            parts = pending.pop(node.name, None)
            if parts is None:
                continue
            own = summed(parts).required_finite()
            for source, moved in self._sources(node, own):
                pending.setdefault(source, []).append(moved)
            if node.name in self.places:
                places, psis = self.places[node.name], self._psis(node, own)
                value[:, places], error[:, places] = psis.value, psis.errors()
        if "" in pending:
            last = summed(pending[""]).required_finite().columns(self._inputs)
            end = len(self._inputs)
            value[:, :end], error[:, :end] = last.value, last.errors()

    def _sources(self, node: Node, own: Carried) -> list[tuple[str, Carried]]:
        """What a function of the node's increment is of the increments that enter it."""
        match node:
            case Affine():
                return [(term.source, push(adjoint(term.map), own)) for term in node.terms]
            case Elementwise():
                return [(node.source, _scaled(own, self._centred[node.name][0]))]
            case Sort():
                means = Adjoint(_means(node, self.network.tensors[node.source]))
                return [(node.source, push(means, own))]
            case Gated():
                return [(node.source, _onto_ways(node, own))]
            case _:
                raise NotProved(f"node {node.name!r} was not lowered")

    def _psis(self, node: Node, own: Carried) -> Carried:
        """And of the node's psis."""
        if isinstance(node, Sort):
            return push(_helmert(node.places, node.size), own)
        if isinstance(node, Gated):
            return own
        free = self.free[node.name]
        return _scaled(own.columns(free), self._centred[node.name][1][free])


def _required(
    name: str, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
) -> Slopes:
    """The middles and radii of a gate's slopes."""
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)) and np.all(lower <= upper)):
        raise NotProved(f"node {name!r} has no finite slope range")
    return centred(lower, upper)


def adjoint(linear: Map) -> Map:
    """The transpose of a map."""
    return linear.of if isinstance(linear, Adjoint) else Adjoint(linear)


def _onto_ways(node: Gated, own: Carried) -> Carried:
    """A function of z as one of all that enters, but for psi; a middle may be one rounding off."""
    value = np.concatenate([own.value * middle for middle in node.middles], axis=1)
    errors = np.concatenate([own.errors() * abs(middle) for middle in node.middles], axis=1)
    return Carried(value, normal(enlarged(errors + (4 * UNIT) * np.abs(value), 4)))


def _scaled(rows: Carried, factor: Float64[np.ndarray, " n"]) -> Carried:
    """Columns times factors."""
    value = rows.value * factor
    spread = np.abs(value) * UNIT
    if rows.error is not None:
        spread = spread + rows.error * np.abs(factor)
    return Carried(value, normal(enlarged(spread, 4)))


def centred(
    lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """(m, r) with [lower, upper] within [m - r, m + r]; r = 0 exactly where the ends are equal."""
    middle = lower / 2 + upper / 2
    radius = np.maximum(_difference_up(upper, middle), _difference_up(middle, lower))
    same = lower == upper
    return np.where(same, lower, middle), np.where(same, 0.0, radius)


def _difference_up(
    one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """One - other rounded up; exact where it is a float64 (the error of a difference is one)."""
    difference = one - other
    back = difference - one
    lost = (one - (difference - back)) - (other + back)
    return np.where(lost > 0, above(difference), difference)


def _helmert(groups: Int64[np.ndarray, "groups n"], in_size: int) -> Sparse:
    """h_k.v of every group, k = 1 .. n-1; the weights are integers."""
    count, width = groups.shape
    index = np.repeat(groups[:, None, :], width - 1, axis=1)
    weight = np.zeros((width - 1, width))
    for k in range(1, width):
        weight[k - 1, :k], weight[k - 1, k] = 1.0, -float(k)
    whole = np.repeat(weight[None], count, axis=0)
    return Sparse(index.reshape(-1, width), whole.reshape(-1, width), in_size)


def _means(node: Sort, in_size: int) -> Sparse:
    """Every output's group mean; 1/n rounds by u/n."""
    width = node.groups.shape[1]
    index = np.zeros((node.size, width), np.int64)
    index[node.places] = node.groups[:, None, :]
    weight = np.full(index.shape, 1 / width)
    return Sparse(index, weight, in_size, weight * (2 * UNIT))

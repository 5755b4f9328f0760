"""One canonical form for every network: increments as matrices over xi = (dx, psi).

Let x, y be two points, dx the increment of the inputs that vary, and psi one free number for every
gate that is neither constant nor linear. The increment of every signal is a matrix times xi:

    v = V xi                                       enters a gate
    phi = m v + r psi,       |psi| <= |v|          leaves it: every secant's slope is in [a, b],
                                                   m = (a + b)/2, r = (b - a)/2            (1)
    phi = 1 1'v/n + Q psi,   |psi|_2 <= |Q'v|_2    leaves a sorted group of n, the columns of Q an
                                                   orthonormal basis of 1-perp             (2)
    phi = m'w + psi,    psi^2 <= sum_k a_k w_k^2   leaves a gate of several inputs: psis that
                                                   nothing reads stand beside it, one for each row
    dy = Y xi                                      leaves the network.

(1): phi - m v = (phi/v - m) v and |phi/v - m| <= r. A gate with a = b is linear and has no psi.
(2): sorting keeps the sum and is 1-Lipschitz. Affine maps are exact and add nothing.

Names: the rows v, or Q'v, of all psi together are `inflow`, Y is `outflow`; `owner[j]` is the
multiplier of psi_j, one for each gate and one for each sorted group. Only their rows are wanted,
and most gates of a region are linear: functions c'v are carried back to xi, those of many inputs
no further than they reach. Each has its noise: how far, entry by entry, its numbers may be from
what exact arithmetic would give,

    |fl(A'c) - A'c_true| <= |A|' (noise + gamma |c|).                                       (3)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import TooLarge
from verifier.methods.lipsdp.slopes import Slopes
from verifier.network.gated import Gated
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import GroupSort
from verifier.network.linear_map import (
    Composed,
    Convolution,
    Dense,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
)
from verifier.network.nodes import Affine, Elementwise, Product

UNIT = 2.0**-53  #: of rounding
_TOLD = 16.0  #: entries up to this multiple of their noise are taken for 0
_AT_ONCE = 2**22  #: entries of the functions that are carried at a time
LARGEST_XI = 6500  #: entries of xi beyond which dense matrices take hours, and many gigabytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GateArray:
    """The multipliers of one nonlinear node: which of its entries, or groups, have one."""

    gate: str  #: what proofs call the node
    size: int  #: the number of its entries, or groups
    active: Int64[Tensor, " active"]  #: those that have a psi
    psis: int  #: the psis of each


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Form:
    """The increments of a network as matrices over xi; psis in topological order."""

    inputs: int  #: the leading entries of xi
    inflow: Float64[Tensor, "psis xi"]
    outflow: Float64[Tensor, "outputs xi"]
    inflow_noise: Float64[Tensor, "psis xi"]
    outflow_noise: Float64[Tensor, "outputs xi"]
    owner: Int64[Tensor, " psis"]
    gates: tuple[GateArray, ...]

    @property
    def multipliers(self) -> int:
        """How many multipliers there are."""
        return sum(len(array.active) for array in self.gates)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The psis of each node: within one, none enters another."""
        ends = [0]
        for array in self.gates:
            ends.append(ends[-1] + len(array.active) * array.psis)
        return tuple(slice(*pair) for pair in pairwise(ends))

    def by_gate(self, multipliers: Float64[Tensor, " multipliers"]) -> dict[str, Tensor]:
        """Multipliers as proofs store them: full arrays by name, 0 where there is no psi."""
        arrays: dict[str, Tensor] = {}
        first = 0
        for array in self.gates:
            full = multipliers.new_zeros(array.size)
            full[array.active] = multipliers[first : first + len(array.active)]
            arrays[array.gate] = full
            first += len(array.active)
        return arrays

    def from_gates(
        self, arrays: Mapping[str, Float64[np.ndarray, " n"]]
    ) -> Float64[Tensor, " multipliers"]:
        """What `by_gate` takes apart; nan for a gate that has no array."""
        parts = [
            torch.as_tensor(arrays[array.gate], dtype=torch.float64)[array.active]
            if array.gate in arrays
            else torch.full((len(array.active),), torch.nan, dtype=torch.float64)
            for array in self.gates
        ]
        return torch.cat([torch.zeros(0, dtype=torch.float64), *parts])


def form_of(
    network: Network, inputs: Int64[Tensor, " selected"], slopes: Mapping[str, Slopes]
) -> Form:
    """The canonical form of a lowered network.

    Args:
        network: affine and elementwise nodes, and sorted groups.
        inputs: the inputs that vary.
        slopes: of every elementwise node, by gate.

    Raises:
        TooLarge: xi has more entries than dense matrices allow.
    """
    columns = columns_of(network, len(inputs), slopes)
    if LARGEST_XI < columns:
        raise TooLarge(
            f"the inequality has {columns} rows, about {8e-9 * 10 * columns**2:.0f} GB, "
            f"and at most {LARGEST_XI} are allowed",
            fix='ask for method "product", or "propagation" on a smaller region',
        )
    return _Walk(network, inputs, slopes).form()


def columns_of(network: Network, inputs: int, slopes: Mapping[str, Slopes]) -> int:
    """The entries of xi in the form of a lowered network."""
    return inputs + sum(_psis_of(node, slopes) for node in network.nodes)


def _psis_of(node: Node, slopes: Mapping[str, Slopes]) -> int:
    match node:
        case Affine():
            return 0
        case Elementwise():
            return len(_active(slopes[node.gate]))
        case Grouped(group=GroupSort(groups=groups)):
            return groups.shape[0] * (groups.shape[1] - 1)
        case Grouped(group=Gated(shares=shares)):
            return shares.numel()
        case Grouped() | Product():
            return 0


def _active(slopes: Slopes) -> Int64[Tensor, " active"]:
    return torch.nonzero(slopes.lower < slopes.upper).flatten()


def helmert(count: int) -> Float64[Tensor, "n n_minus_1"]:
    """Q: orthonormal columns (1, .., 1, -k, 0, ..)/sqrt(k (k + 1)), k = 1, ..., n - 1."""
    steps = torch.arange(1, count, dtype=torch.float64)
    columns = (
        torch.ones(count, count - 1, dtype=torch.float64).triu()
        - torch.diag(steps, -1)[:, : count - 1]
    )
    return columns / (steps * (steps + 1)).sqrt()


class _Columns:
    """Where the psis of each node stand in xi, and which multiplier each has."""

    def __init__(self, inputs: int) -> None:
        self.size = inputs
        self.owner: list[Tensor] = []
        self.gates: list[GateArray] = []
        self.of: dict[str, slice] = {}  #: by node
        self._multipliers = 0

    def add(self, node: Elementwise | Grouped, gate: GateArray) -> None:
        """The next psis."""
        count = len(gate.active)
        self.gates.append(gate)
        self.owner.append((self._multipliers + torch.arange(count)).repeat_interleave(gate.psis))
        self._multipliers += count
        self.of[node.name] = slice(self.size, self.size + count * gate.psis)
        self.size += count * gate.psis


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Linear functions of a signal, one each row, and their noise."""

    value: Float64[Tensor, "k n"]
    noise: Float64[Tensor, "k n"]
    is_read: bool = False  #: the rows are units: a product with them rounds nothing

    def __add__(self, other: _Rows) -> _Rows:
        value = self.value + other.value
        return _Rows(value, self.noise + other.noise + UNIT * value.abs())

    def scaled(self, factor: Float64[Tensor, " n"]) -> _Rows:
        """The columns by their factors."""
        noise = (self.noise + 2 * UNIT * self.value.abs()) * factor.abs()
        return _Rows(self.value * factor, noise)

    def pulled(self, linear: LinearMap) -> _Rows:
        """Equation (3)."""
        exact = self.is_read and not isinstance(linear, Composed)
        share = 0.0 if exact else UNIT * _roundings(linear)
        noise = self.noise + share * self.value.abs() if share else self.noise
        noise = linear.absolute().adjoint(noise) if bool(noise.any()) else None
        value = linear.adjoint(self.value)
        return _Rows(value, torch.zeros_like(value) if noise is None else noise)


class _Walk:
    """Functions of signals carried back to xi."""

    def __init__(
        self, network: Network, inputs: Int64[Tensor, " selected"], slopes: Mapping[str, Slopes]
    ) -> None:
        self._network, self._inputs, self._slopes = network, inputs, slopes
        self._columns = _Columns(len(inputs))
        for node in network.nodes:
            match node:
                case Affine():
                    pass
                case Elementwise():
                    active = _active(slopes[node.gate])
                    own = GateArray(gate=node.gate, size=node.size, active=active, psis=1)
                    self._columns.add(node, own)
                case Grouped(group=GroupSort(groups=groups)):
                    count, size = groups.shape
                    every = torch.arange(count)
                    own = GateArray(gate=node.name, size=count, active=every, psis=size - 1)
                    self._columns.add(node, own)
                case Grouped(group=Gated(shares=shares)):
                    ways, size = shares.shape
                    every = torch.arange(size)
                    own = GateArray(gate=node.name, size=size, active=every, psis=ways)
                    self._columns.add(node, own)
                case Grouped() | Product():
                    raise TypeError(f"node {node.name!r} is not lowered")

    def form(self) -> Form:
        """All that enters a psi, and the output."""
        found = [self._entering(node) for node in self._network.nodes]
        empty = torch.zeros(0, self._columns.size, dtype=torch.float64)
        inflow, inflow_noise = _told(
            torch.cat([empty, *(each.value for each in found if each is not None)]),
            torch.cat([empty, *(each.noise for each in found if each is not None)]),
        )
        units = torch.eye(self._network.output_size, dtype=torch.float64)
        outflow = self._over_xi(self._network.output, units)
        value, noise = _told(outflow.value, outflow.noise)
        return Form(
            inputs=len(self._inputs),
            inflow=inflow,
            outflow=value,
            inflow_noise=inflow_noise,
            outflow_noise=noise,
            owner=torch.cat([torch.arange(0), *self._columns.owner]),
            gates=tuple(self._columns.gates),
        )

    def _entering(self, node: Node) -> _Rows | None:
        """V of a node's psis; None for nodes that have none."""
        size = self._network.sizes[node.name]
        match node:
            case Elementwise():
                active = _active(self._slopes[node.gate])
                units = torch.zeros(len(active), size, dtype=torch.float64)
                units[torch.arange(len(active)), active] = 1.0
                return self._over_xi(node.source, units)
            case Grouped(group=GroupSort(groups=groups)):
                count, width = groups.shape
                rows = torch.zeros(count, width - 1, size, dtype=torch.float64)
                group = torch.arange(count)[:, None, None]
                psi = torch.arange(width - 1)[None, :, None]
                rows[group, psi, groups[:, None, :]] = helmert(width).T
                noise = 2 * UNIT * rows.flatten(0, 1).abs()
                return self._over_xi(node.source, rows.flatten(0, 1), noise)
            case Grouped(group=Gated(shares=shares)):
                ways, size = shares.shape
                # What enters a gate by all of its ways, gate after gate.
                rows = shares.sqrt().flatten().diag().view(ways, size, -1)
                rows = rows.transpose(0, 1).flatten(0, 1)
                return self._over_xi(node.source, rows, 2 * UNIT * rows.abs())
            case _:
                return None

    def _over_xi(
        self,
        signal: str,
        value: Float64[Tensor, "k n"],
        noise: Float64[Tensor, "k n"] | None = None,
    ) -> _Rows:
        """Functions of a signal's increment as functions of xi, some rows at a time."""
        count = max(1, _AT_ONCE // max(self._network.sizes.values()))
        parts: list[_Rows] = []
        for begin in range(0, len(value), count):
            some = value[begin : begin + count]
            if noise is None:
                rows = _Rows(some, torch.zeros_like(some), is_read=True)
            else:
                rows = _Rows(some, noise[begin : begin + count])
            parts.append(self._carried(signal, rows))
        empty = value.new_zeros(0, self._columns.size)
        return _Rows(
            torch.cat([empty, *(part.value for part in parts)]),
            torch.cat([empty, *(part.noise for part in parts)]),
        )

    def _carried(self, signal: str, rows: _Rows) -> _Rows:
        """The same of few rows: back through the nodes, the last first."""
        pending = {signal: rows}
        shape = (len(rows.value), self._columns.size)
        found = _Rows(rows.value.new_zeros(shape), rows.value.new_zeros(shape))
        for node in reversed(self._network.nodes):
            if (own := pending.pop(node.name, None)) is None:
                continue
            for source, part in self._through(node, own, found):
                pending[source] = pending[source] + part if source in pending else part
        if "" in pending:
            found.value[:, : len(self._inputs)] = pending[""].value[:, self._inputs]
            found.noise[:, : len(self._inputs)] = pending[""].noise[:, self._inputs]
        return found

    def _through(self, node: Node, own: _Rows, found: _Rows) -> list[tuple[str, _Rows]]:
        """Functions of a node's sources in the place of those of the node; psis join `found`."""
        match node:
            case Affine():
                return [(term.source, own.pulled(term.map)) for term in node.terms]
            case Elementwise():
                slopes, place = self._slopes[node.gate], self._columns.of[node.name]
                active = _active(slopes)
                psis = own.scaled((slopes.upper - slopes.lower) / 2)
                found.value[:, place] = psis.value[:, active]
                found.noise[:, place] = psis.noise[:, active]
                return [(node.source, own.scaled((slopes.lower + slopes.upper) / 2))]
            case Grouped(group=GroupSort() as sort):
                psis, means = _through_sort(sort, own)
                place = self._columns.of[node.name]
                found.value[:, place], found.noise[:, place] = psis.value, psis.noise
                return [(node.source, means)]
            case Grouped(group=Gated(middles=middles)):
                place = self._columns.of[node.name]
                psis = range(place.start, place.stop, len(middles))
                found.value[:, psis], found.noise[:, psis] = own.value, own.noise
                parts = [own.scaled(own.value.new_full((node.size,), m)) for m in middles]
                value = torch.cat([part.value for part in parts], dim=1)
                noise = torch.cat([part.noise for part in parts], dim=1)
                return [(node.source, _Rows(value, noise + 2 * UNIT * value.abs()))]
            case Grouped() | Product():
                raise TypeError(f"node {node.name!r} is not lowered")


def _through_sort(sort: GroupSort, own: _Rows) -> tuple[_Rows, _Rows]:
    """Equation (2): functions of the psis, and of what enters."""
    size = sort.groups.shape[1]
    basis = helmert(size).to(own.value)
    value = own.value[:, sort.places]
    noise = (own.noise + (size + 4) * UNIT * own.value.abs())[:, sort.places]
    means, rounded = torch.zeros_like(own.value), torch.zeros_like(own.value)
    means[:, sort.groups] = value.mean(dim=-1, keepdim=True).expand_as(value)
    rounded[:, sort.groups] = noise.mean(dim=-1, keepdim=True).expand_as(noise)
    psis = _Rows((value @ basis).flatten(1), (noise @ basis.abs()).flatten(1))
    return psis, _Rows(means, rounded)


def _roundings(linear: LinearMap) -> int:
    """How often one entry of a product with the map rounds, and some."""
    match linear:
        case Identity() | Gather():
            return 0
        case Diagonal():
            return 3
        case Dense():
            return linear.weight.shape[1] + 4
        case Convolution():
            return linear.kernel[0].numel() + 4
        case Composed():
            return _roundings(linear.first) + _roundings(linear.second) + 4
        case _:
            return linear.in_size + 4


def _told(
    values: Float64[Tensor, "n xi"], noise: Float64[Tensor, "n xi"]
) -> tuple[Float64[Tensor, "n xi"], Float64[Tensor, "n xi"]]:
    """The entries that can be told from their noise; the others are 0, and noise themselves."""
    is_noise = values.abs() <= _TOLD * noise
    return values.masked_fill(is_noise, 0.0), noise + torch.where(is_noise, values.abs(), 0.0)

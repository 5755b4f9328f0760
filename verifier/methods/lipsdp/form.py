"""One canonical form for every network: increments as matrices over xi = (dx, psi).

Let x, y be two points, dx the increment of the inputs that vary, and psi one free number for every
gate that is neither constant nor linear. Walking the graph in topological order, the increment of
every signal is a matrix times xi:

    v = V xi                                       enters a gate
    phi = m v + r psi,       |psi| <= |v|          leaves it: every secant's slope is in [a, b],
                                                   m = (a + b)/2, r = (b - a)/2            (1)
    phi = 1 1'v/n + Q psi,   |psi|_2 <= |Q'v|_2    leaves a sorted group of n, the columns of Q an
                                                   orthonormal basis of 1-perp             (2)
    dy = Y xi                                      leaves the network.

(1): phi - m v = (phi/v - m) v and |phi/v - m| <= r. A gate with a = b is linear and has no psi.
(2): sorting keeps the sum and is 1-Lipschitz. Affine maps are exact and add nothing.

Names: the rows v, or Q'v, of all psi together are `inflow`, Y is `outflow`; `owner[j]` is the
multiplier of psi_j, one for each gate and one for each sorted group. Each matrix is walked with
its noise: how far, entry by entry, its numbers may be from what exact arithmetic would give,

    |fl(A V) - A V_true| <= |A| (noise + gamma |V|).                                        (3)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch knows)
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import TooLarge
from verifier.methods.lipsdp.slopes import Slopes
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
    walk = _Walk(network.input_size, inputs)
    for node in network.nodes:
        match node:
            case Affine():
                walk.affine(node)
            case Elementwise():
                walk.elementwise(node, slopes[node.gate])
            case Grouped(group=GroupSort() as sort):
                walk.sort(node, sort)
            case Grouped() | Product():
                raise TypeError(f"node {node.name!r} is not lowered")
    return walk.form(network.output)


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


class _Walk:
    """The signals met so far, transposed: one row for each entry of xi that exists by then."""

    def __init__(self, input_size: int, inputs: Int64[Tensor, " selected"]) -> None:
        self._inputs = len(inputs)
        start = torch.zeros(len(inputs), input_size, dtype=torch.float64)
        start[torch.arange(len(inputs)), inputs] = 1.0
        self._signals: dict[str, Tensor] = {"": start}
        self._noise: dict[str, Tensor] = {"": torch.zeros_like(start)}
        self._inflow: list[Tensor] = []
        self._inflow_noise: list[Tensor] = []
        self._owner: list[Tensor] = []
        self._gates: list[GateArray] = []
        self._columns = len(inputs)
        self._multipliers = 0

    def affine(self, node: Affine) -> None:
        """The sum of the terms' matrices."""
        parts = [term.map.apply(self._signals[term.source]) for term in node.terms]
        noises = [self._pushed(term.source, term.map) for term in node.terms]
        if 1 < len(parts):
            share = (len(parts) + 2) * UNIT
            noises = [noise + share * part.abs() for noise, part in zip(noises, parts, strict=True)]
        self._signals[node.name] = _total(parts)
        self._noise[node.name] = _total(noises)

    def _pushed(self, source: str, linear: LinearMap) -> Float64[Tensor, "xi out"]:
        """Equation (3) for one map; unit vectors read its columns, and nothing rounds."""
        share = 0.0 if source == "" else UNIT * _roundings(linear)
        noise, absolute = self._noise[source], linear.absolute()
        return absolute.apply(noise + share * self._signals[source].abs() if share else noise)

    def elementwise(self, node: Elementwise, slopes: Slopes) -> None:
        """Equation (1)."""
        entering = self._signals[node.source]
        active = _active(slopes)
        middle = (slopes.lower + slopes.upper) / 2
        leaving = _grown(entering * middle, self._columns)
        fresh = entering.new_zeros(len(active), entering.shape[1])
        fresh[torch.arange(len(active)), active] = ((slopes.upper - slopes.lower) / 2)[active]
        self._signals[node.name] = torch.cat([leaving, fresh])
        noise = self._noise[node.source]
        rounded = _grown((noise + 2 * UNIT * entering.abs()) * middle.abs(), self._columns)
        self._noise[node.name] = _grown(rounded, self._columns + len(active))
        self._add(node.gate, node.size, active, entering[:, active], noise[:, active], 1)

    def sort(self, node: Grouped, sort: GroupSort) -> None:
        """Equation (2)."""
        entering = self._signals[node.source]
        count, size = sort.groups.shape
        grouped = entering[:, sort.groups]
        basis = helmert(size).to(entering)
        means = grouped.mean(dim=-1, keepdim=True).expand_as(grouped)
        leaving = torch.empty_like(entering)
        leaving[:, sort.places] = means
        fresh = entering.new_zeros(count, size - 1, entering.shape[1])
        group, psi = torch.arange(count)[:, None, None], torch.arange(size - 1)[None, :, None]
        fresh[group, psi, sort.places[:, None, :]] = basis.T
        self._signals[node.name] = torch.cat([_grown(leaving, self._columns), fresh.flatten(0, 1)])
        inflow = (grouped @ basis).flatten(1)
        noise = (self._noise[node.source] + (size + 4) * UNIT * entering.abs())[:, sort.groups]
        rounded = torch.empty_like(entering)
        rounded[:, sort.places] = noise.mean(dim=-1, keepdim=True).expand_as(noise)
        self._noise[node.name] = _grown(rounded, self._columns + inflow.shape[1])
        inflow_noise = (noise @ basis.abs()).flatten(1)
        self._add(node.name, count, torch.arange(count), inflow, inflow_noise, size - 1)

    def _add(
        self,
        gate: str,
        size: int,
        active: Tensor,
        inflow: Float64[Tensor, "xi psis"],
        noise: Float64[Tensor, "xi psis"],
        psis: int,
    ) -> None:
        self._gates.append(GateArray(gate=gate, size=size, active=active, psis=psis))
        self._inflow.append(inflow)
        self._inflow_noise.append(noise)
        count = len(active)
        self._owner.append((self._multipliers + torch.arange(count)).repeat_interleave(psis))
        self._multipliers += count
        self._columns += inflow.shape[1]

    def form(self, output: str) -> Form:
        """What the walk met, and the matrix of the output."""
        inflow, inflow_noise = _told(
            _stacked(self._inflow, self._columns), _stacked(self._inflow_noise, self._columns)
        )
        outflow, outflow_noise = _told(
            _grown(self._signals[output], self._columns), _grown(self._noise[output], self._columns)
        )
        return Form(
            inputs=self._inputs,
            inflow=inflow.T.contiguous(),
            outflow=outflow.T.contiguous(),
            inflow_noise=inflow_noise.T.contiguous(),
            outflow_noise=outflow_noise.T.contiguous(),
            owner=torch.cat([torch.arange(0), *self._owner]),
            gates=tuple(self._gates),
        )


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
    values: Float64[Tensor, "xi n"], noise: Float64[Tensor, "xi n"]
) -> tuple[Float64[Tensor, "xi n"], Float64[Tensor, "xi n"]]:
    """The entries that can be told from their noise; the others are 0, and noise themselves."""
    is_noise = values.abs() <= _TOLD * noise
    return values.masked_fill(is_noise, 0.0), noise + torch.where(is_noise, values.abs(), 0.0)


def _stacked(parts: list[Tensor], rows: int) -> Float64[Tensor, "rows n"]:
    empty = torch.zeros(rows, 0, dtype=torch.float64)
    return torch.cat([empty, *(_grown(part, rows) for part in parts)], dim=1)


def _total(parts: Sequence[Float64[Tensor, "_ n"]]) -> Float64[Tensor, "rows n"]:
    """The sum of matrices over xi of several lengths."""
    rows = max(part.shape[0] for part in parts)
    return sum((_grown(part, rows) for part in parts[1:]), _grown(parts[0], rows))


def _grown(part: Float64[Tensor, "some n"], rows: int) -> Float64[Tensor, "rows n"]:
    """The same matrix over a longer xi."""
    return F.pad(part, (0, 0, 0, rows - part.shape[0]))

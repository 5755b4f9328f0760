"""Every increment of a network as a linear map of xi = (dx, psi), and the gates' constraints.

Walking the lowered network, a signal's increment is a matrix over xi with a proved error, and

    a gate with slopes in [a, b]:   phi = m v + r psi,   |psi| <= |v|,   [a, b] within [m-r, m+r]
    a sort of n >= 3:               phi = mean(v) + sum_k h_k psi_k,   k = 1 .. n-1,
                                    sum_k k(k+1) psi_k^2 <= sum_k (h_k.v)^2 / (k(k+1)),

h_k = (1, .., 1, -k, 0, .., 0) with k ones: orthogonal, orthogonal to 1, with |h_k|^2 = k(k+1).
Sorting keeps the sum and is 1-Lipschitz, so its increment off the mean is not longer than v's.
A gate with r = 0 is linear on the region and has no psi. m and r are float64 numbers and exact as
such: only their products round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, above, enlarged
from verifier.checker.carry import Carried, Sparse, normal, push, summed
from verifier.checker.definite import NotProved
from verifier.checker.lowering import sources
from verifier.checker.network import Affine, Elementwise, Network, Sort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.lowering import Lowered

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
    """Every increment over xi.

    Args:
        lowered: affine nodes, gates and sorts of three and more.
        inputs: the coordinates in which x and y may differ.
        slopes: for every Elementwise node, by its own name, ranges that hold all its secants.

    Raises:
        NotProved: an increment exceeds float64.
    """
    network = lowered.network
    start = np.zeros((len(inputs), network.input_size))
    start[np.arange(len(inputs)), inputs] = 1.0
    signals = {"": Carried(start)}
    found = Increments(size=len(inputs), inputs=len(inputs))
    last = _last_uses(network)
    for place, node in enumerate(network.nodes):
        match node:
            case Affine():
                parts = [push(term.map, signals[term.source]) for term in node.terms]
                signals[node.name] = summed(parts).required_finite()
            case Elementwise():
                name = lowered.gates[node.name]
                signals[node.name] = _gate(found, name, signals[node.source], *slopes[node.name])
            case Sort():
                signals[node.name] = _sort(found, node, signals[node.source])
            case _:
                raise NotProved(f"node {node.name!r} was not lowered")
        for name in [name for name in signals if last.get(name, -1) <= place]:
            del signals[name]
    found.output = signals[network.output]
    return found


def _last_uses(network: Network) -> dict[str, int]:
    """The last node that reads a signal; the output is read after all."""
    last: dict[str, int] = {}
    for place, node in enumerate(network.nodes):
        last |= dict.fromkeys(sources(node), place)
    return last | {network.output: len(network.nodes)}


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


def _gate(
    found: Increments,
    name: str,
    entering: Carried,
    lower: Float64[np.ndarray, " n"],
    upper: Float64[np.ndarray, " n"],
) -> Carried:
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)) and np.all(lower <= upper)):
        raise NotProved(f"node {name!r} has no finite slope range")
    middle, radius = centred(lower, upper)
    free = np.flatnonzero(radius > 0)
    leaving = _scaled(entering, middle, found.size + len(free))
    places = found.size + np.arange(len(free))
    leaving.value[places, free] = radius[free]
    ones = np.ones(len(free))
    found.constraints.append(
        Constraint(
            name=name,
            gates=len(lower),
            psis=1,
            entering=entering.columns(free),
            share=ones,
            owner=free,
            coordinates=places,
            weight=ones,
        )
    )
    found.size += len(free)
    return leaving


def _scaled(entering: Carried, factor: Float64[np.ndarray, " n"], height: int) -> Carried:
    """Columns times factors, with zero rows below."""
    value = np.zeros((height, len(factor)))
    error = np.zeros_like(value)
    value[: entering.rows] = entering.value * factor
    spread = np.abs(value[: entering.rows]) * UNIT
    if entering.error is not None:
        spread = spread + entering.error * np.abs(factor)
    error[: entering.rows] = normal(enlarged(spread, 4))
    return Carried(value, error)


def _sort(found: Increments, node: Sort, entering: Carried) -> Carried:
    count, width = node.groups.shape
    end = found.size + count * (width - 1)
    places = np.arange(found.size, end, dtype=np.int64).reshape((count, width - 1))
    length = np.array([float(k * (k + 1)) for k in range(1, width)])
    contrasts = push(_helmert(node.groups, entering.value.shape[1]), entering)
    found.constraints.append(
        Constraint(
            name=node.name,
            gates=count,
            psis=width - 1,
            entering=contrasts,
            share=np.tile(1 / length, count),
            owner=np.repeat(np.arange(count, dtype=np.int64), width - 1),
            coordinates=places.ravel(),
            weight=np.tile(length, count),
        )
    )
    found.size += places.size
    mean = push(_means(node, entering.value.shape[1]), entering)
    leaving = _scaled(mean, np.ones(node.size), found.size)
    for k in range(1, width):
        for position in range(k):
            leaving.value[places[:, k - 1], node.places[:, position]] = 1.0
        leaving.value[places[:, k - 1], node.places[:, k]] = -float(k)
    return leaving


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

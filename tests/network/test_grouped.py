"""The facts of every group. Entries are small dyadic numbers, so nothing below is rounded."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network import grouped
from verifier.network.graph import Grouped, Network
from verifier.network.grouped import Group, GroupSort, Householder, Maximum
from verifier.network.nodes import Elementwise
from verifier.norms import Norm

Row = list[float]
Gates = Callable[[Row], Iterator[list[float]]]


@dataclass(frozen=True)
class Case:
    """A group, its function by naive loops, and |.| in its gates, one list for each gate."""

    name: str
    group: Group
    in_size: int
    value: Callable[[Row], Row]
    gates: Gates
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def network(self) -> Network:
        """The group alone, called "t"."""
        return Network(nodes=(Grouped("t", "", self.group),), input_size=self.in_size, output="t")


def _compare(columns: list[Row], low: int, high: int) -> Row:
    """Exchange two columns entry by entry where out of order; the distances."""
    distances = [abs(a - b) for a, b in zip(columns[low], columns[high], strict=True)]
    pairs = [sorted(pair) for pair in zip(columns[low], columns[high], strict=True)]
    columns[low], columns[high] = [a for a, _ in pairs], [b for _, b in pairs]
    return distances


def _sort_case(name: str, groups: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Case:
    n = len(groups[0])

    def value(x: Row) -> Row:
        out = [0.0] * len(x)
        for members, targets in zip(groups, places, strict=True):
            for place, entry in zip(targets, sorted(x[i] for i in members), strict=True):
                out[place] = entry
        return out

    def gates(x: Row) -> Iterator[list[float]]:
        columns = [[x[members[j]] for members in groups] for j in range(n)]
        for turn in range(n if 2 < n else 1):
            for low in range(turn % 2, n - 1, 2):
                yield _compare(columns, low, low + 1)

    # n rounds; an even round has n // 2 comparisons, an odd one (n - 1) // 2.
    count = ((n + 1) // 2) * (n // 2) + (n // 2) * ((n - 1) // 2)
    names = ("t",) if n == 2 else tuple(f"t#{k}" for k in range(count))
    group = GroupSort(torch.tensor(groups), torch.tensor(places))
    return Case(name, group, n * len(groups), value, gates, names)


def _mirror_case(name: str, slices: list[list[int]], vectors: list[list[float]]) -> Case:
    def along(x: Row) -> list[float]:
        return [
            sum(v * x[i] for v, i in zip(vector, members, strict=True))
            for vector, members in zip(vectors, slices, strict=True)
        ]

    def value(x: Row) -> Row:
        out = list(x)
        for vector, members, inner in zip(vectors, slices, along(x), strict=True):
            for v, i in zip(vector, members, strict=True):
                out[i] = x[i] - v * inner + v * abs(inner)
        return out

    def gates(x: Row) -> Iterator[list[float]]:
        yield [abs(inner) for inner in along(x)]

    group = Householder(torch.tensor(slices), torch.tensor(vectors, dtype=torch.float64))
    return Case(name, group, sum(map(len, slices)), value, gates, ("t",))


def _maximum_case(name: str, windows: list[list[int]], in_size: int, sign: int = 1) -> Case:
    choose = max if sign == 1 else min

    def value(x: Row) -> Row:
        return [choose(x[i] for i in window) for window in windows]

    def gates(x: Row) -> Iterator[list[float]]:
        queue = [[x[window[j]] for window in windows] for j in range(len(windows[0]))]
        while 1 < len(queue):
            following: list[Row] = []
            for a, b in zip(queue[::2], queue[1::2], strict=False):
                yield [abs(p - q) for p, q in zip(a, b, strict=True)]
                following.append([choose(pair) for pair in zip(a, b, strict=True)])
            queue = following + queue[2 * (len(queue) // 2) :]

    names = tuple(f"t#{k}" for k in range(len(windows[0]) - 1))
    return Case(name, Maximum(torch.tensor(windows), in_size, sign), in_size, value, gates, names)


STRIDED = ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))
CASES = (
    _sort_case("maxmin", [[0, 1], [2, 3], [4, 5]], [[0, 1], [2, 3], [4, 5]]),
    # Channels split in halves, maxima concatenated before minima.
    _sort_case("maxmin-split", [[0, 3], [1, 4], [2, 5]], [[3, 0], [4, 1], [5, 2]]),
    _sort_case("sort-3", [[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3, 4, 5]]),
    _sort_case("sort-4-descending", [[0, 1, 2, 3]], [[3, 2, 1, 0]]),
    _sort_case(
        "sort-5-strided", [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]], [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    ),
    _sort_case("sort-7", [[0, 1, 2, 3, 4, 5, 6]], [[6, 0, 5, 1, 4, 2, 3]]),
    _mirror_case("mirror-unit", [[0, 1], [2, 3]], [[1.0, 0.0], [0.0, 1.0]]),
    _mirror_case("mirror-long", [[0, 2], [1, 3]], [[1.0, 0.5], [-0.5, 1.5]]),
    _mirror_case("mirror-short", [[0, 1, 2]], [[0.25, -0.5, 0.125]]),
    _maximum_case("maximum-disjoint", [[0, 1, 2], [3, 4, 5]], 6),
    _maximum_case("maximum-overlapping", [[0, 1, 2], [1, 2, 3], [2, 3, 4]], 5),
    _maximum_case("minimum-of-5", [[0, 1, 2, 3, 4]], 5, sign=-1),
    # The border window has two valid places of four: its first one fills the rest.
    _maximum_case("maximum-padded", [[0, 0, 1, 0], [0, 1, 2, 3], [2, 2, 2, 3]], 4),
    _maximum_case("maximum-of-one", [[2], [0]], 3),
)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_norm = pytest.mark.parametrize("norm", Norm, ids=str)


def _points(case: Case, count: int) -> Float64[Tensor, "count n"]:
    """Multiples of 1/2 from few values, so that ties and kinks are common."""
    numbers = np.random.default_rng(5).integers(-6, 7, (count, case.in_size)) / 2
    return torch.from_numpy(numbers)


def test_every_group_is_in_the_battery() -> None:
    written = {
        kind
        for _, kind in inspect.getmembers(grouped, inspect.isclass)
        if kind.__module__ == grouped.__name__ and hasattr(kind, "norm_bound") and kind is not Group
    }
    assert written == {type(case.group) for case in CASES}


@every_case
@pytest.mark.parametrize("batch", [1, 2, 13])
def test_forward_equals_naive_loops(case: Case, batch: int) -> None:
    points = _points(case, batch)
    values = case.group.forward(points)
    assert values.tolist() == [case.value(row) for row in points.tolist()]
    assert values.shape == (batch, case.group.size)


@every_case
@pytest.mark.parametrize("sorts", ["keep", "compare"])
def test_lowered_equals_forward(case: Case, sorts: str) -> None:
    points = _points(case, 97)
    lowered = case.network.lowered("keep" if sorts == "keep" else "compare")
    assert torch.equal(lowered.forward(points), case.group.forward(points))


@every_case
def test_only_long_sorts_are_kept(case: Case) -> None:
    kept = [node for node in case.network.lowered("keep").nodes if isinstance(node, Grouped)]
    is_long = isinstance(case.group, GroupSort) and 2 < case.group.groups.shape[1]
    assert len(kept) == is_long
    lowered = case.network.lowered("compare").nodes
    assert not any(isinstance(node, Grouped) for node in lowered)


@every_case
def test_gates_are_named_and_numbered_as_certificates_say(case: Case) -> None:
    points = _points(case, 5)
    lowered = case.network.lowered("compare")
    gates = [node for node in lowered.nodes if isinstance(node, Elementwise)]
    assert tuple(gate.gate for gate in gates) == case.names
    signals = lowered.signals(points)
    for row, point in enumerate(points.tolist()):
        expected = list(case.gates(point))
        assert [signals[gate.name][row].tolist() for gate in gates] == expected


def _size(rows: Float64[Tensor, "rows n"], norm: Norm) -> Float64[Tensor, " rows"]:
    """The norm, or for l2 its square: exact on dyadic numbers."""
    match norm:
        case Norm.L1:
            return rows.abs().sum(dim=1)
        case Norm.L2:
            return rows.square().sum(dim=1)
        case Norm.LINF:
            return rows.abs().amax(dim=1)


def _increments(case: Case) -> tuple[Float64[Tensor, "rows n"], Float64[Tensor, "rows n"]]:
    """Pairs x, x + dx: from every kind of place along every direction of signs, and along v."""
    eye = 8 * torch.eye(case.in_size, dtype=torch.float64)
    # Far out on both sides of every mirror, and where one entry wins all its windows.
    places = torch.cat([eye, -eye, 8 * _points(case, 4)])
    signs = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=min(case.in_size, 6))))
    directions = torch.zeros(signs.shape[0], case.in_size, dtype=torch.float64)
    directions[:, : signs.shape[1]] = signs
    if isinstance(case.group, Householder):
        alone = torch.zeros(1, case.in_size, dtype=torch.float64)
        alone[0, case.group.slices[-1]] = case.group.vectors[-1]
        directions, places = torch.cat([directions, alone]), torch.cat([places, -8 * alone])
    directions = directions[directions.any(dim=1)]
    x = places.repeat_interleave(directions.shape[0], dim=0)
    return x, directions.repeat(places.shape[0], 1)


@every_case
@every_norm
def test_norm_bound_holds_and_is_attained(case: Case, norm: Norm) -> None:
    x, dx = _increments(case)
    rise = case.group.forward(x + dx) - case.group.forward(x)
    bound = case.group.norm_bound(norm)
    grown, run = _size(rise, norm), _size(dx, norm)
    limit = bound**2 if norm is Norm.L2 else bound
    # sqrt(overlap) is rounded: its square may lack one unit in the last place.
    limit = round(limit * 256) / 256 if abs(limit * 256 - round(limit * 256)) < 1e-12 else limit
    assert (grown <= limit * run).all()
    assert (grown == limit * run).any()

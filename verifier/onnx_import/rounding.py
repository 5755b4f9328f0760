"""The network itself run on a batch of inputs, as it is and with what a file's type may lose.

With u the unit roundoff of that type, every result is shaken by

    affine       u (2 + sqrt(terms)) (|A| |x| + |b|)        a sum of that many terms
    elementwise  u (|f(x)| + |x| + 1)                       (u |f(x)| where f is piecewise linear)
    log-sigmoid  u (|f(x)| + |x| + 1 + e^-x)                of a sigmoid right to u
    product      u |x y|
    grouped      0                                          a choice of entries

each with a random sign, the same for every input. How far the outputs then move says what
rounding can do to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch

from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.activations.restricted import LogSigmoid
from verifier.network.linear_map import (
    Adjoint,
    Composed,
    Convolution,
    Dense,
    Diagonal,
    Gather,
    Identity,
)
from verifier.network.nodes import Affine, Elementwise, Product

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor

    from verifier.network.graph import Network, Node
    from verifier.network.linear_map import LinearMap

CHUNK: Final = 2**23  #: entries of a signal that are held at once
_KINDS: Final = {  #: unit roundoff, the least positive number, the greatest
    "bfloat16": (2.0**-8, 2.0**-133, 2.0**127 * (2 - 2.0**-7)),
    "float16": (2.0**-11, 2.0**-24, 65504.0),
    "float32": (2.0**-24, 2.0**-149, float(np.finfo(np.float32).max)),
    "float64": (2.0**-53, 2.0**-1074, float(np.finfo(np.float64).max)),
}


@dataclass(frozen=True, slots=True)
class Precision:
    """The type in which a file computes."""

    roundoff: float
    least: float  #: the least positive number
    greatest: float

    @staticmethod
    def of(name: str) -> Precision:
        """That of a type's name."""
        return Precision(*_KINDS[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How a network is run."""

    shaken: Sequence[int]  #: the inputs that are also run with rounding
    times: int  #: how often each of them
    is_single: bool  #: matrices and convolutions in float32


@dataclass(frozen=True, slots=True, eq=False)
class Shaken:
    """What one signal is."""

    exact: Tensor  #: [inputs, entries]
    shaken: Tensor  #: [times, shaken inputs, entries]

    def changes(self, runs: Runs) -> Tensor:
        """[shaken inputs]: the largest change of any entry that rounding made."""
        if not self.exact.shape[1] or not runs.shaken:
            return torch.zeros(len(runs.shaken), dtype=torch.float64)
        return (self.shaken - self.exact[list(runs.shaken)]).abs().amax(dim=(0, 2))


@dataclass(frozen=True, slots=True)
class Steps:
    """Nodes after which the network goes on from other values: the run time's integers."""

    nodes: Collection[str] = ()
    begin: Callable[[int, int], Replacements] = lambda _start, _end: {}  #: for a range of inputs


#: By node: the values [inputs, entries] to go on from, given those that it has.
Replacements: TypeAlias = "Mapping[str, Callable[[Shaken], Tensor]]"


def outputs(
    network: Network, inputs: Tensor, precision: Precision, runs: Runs, steps: Steps
) -> Shaken:
    """The output for all inputs, in chunks of rows that memory holds."""
    held, sizes = CHUNK // (4 if runs.is_single else 1), network.sizes
    largest = max(*sizes.values(), sum(sizes[name] for name in steps.nodes))
    rows = max(1, held // ((1 + runs.times) * largest))
    parts: list[Shaken] = []
    for start in range(0, len(inputs), rows):
        part = inputs[start : start + rows]
        mine = [row - start for row in runs.shaken if start <= row < start + rows]
        found = signals(
            network,
            part,
            precision,
            replace(runs, shaken=mine),
            keep=(network.output,),
            replacements=steps.begin(start, start + len(part)),
        )
        parts.append(found[network.output])
    return Shaken(
        torch.cat([part.exact for part in parts]),
        torch.cat([part.shaken for part in parts], dim=1),
    )


def signals(
    network: Network,
    inputs: Tensor,
    precision: Precision,
    runs: Runs,
    keep: Sequence[str],
    replacements: Replacements,
) -> dict[str, Shaken]:
    """The signals named.

    What nothing reads any more is freed. All runs are rows of one evaluation, and share what may
    be lost at a node: that of the exact one.
    """
    finished = network.finished
    rows = _Rows(len(inputs), runs, precision, _Signs(max(network.sizes.values())))
    values = {"": rows.copied(inputs)}
    for node in network.nodes:
        maps = _maps(node, is_single=runs.is_single)
        value = _value(node, maps, values)
        if runs.shaken:
            exact = {source: rows.picked(values[source]) for source in node.sources}
            rows.shake(value, _loss(node, maps, exact, rows.picked(value)))
        if node.name in replacements:
            value = rows.copied(replacements[node.name](rows.parted(value)))
            rows.shake(value, rows.picked(value).abs())
        values[node.name] = value
        for source in set(finished[node.name]).difference(keep):
            del values[source]
    return {name: rows.parted(value) for name, value in values.items() if name in keep}


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of one evaluation: all inputs, then the shaken ones, as often as they are run."""

    count: int  #: of inputs
    runs: Runs
    precision: Precision
    signs: _Signs

    def copied(self, exact: Tensor) -> Tensor:
        """The rows of values that nothing has shaken."""
        return torch.cat([exact, self.picked(exact).repeat(self.runs.times, 1)])

    def picked(self, value: Tensor) -> Tensor:
        """The exact rows of those inputs that are shaken too."""
        return value[list(self.runs.shaken)]

    def parted(self, value: Tensor) -> Shaken:
        """Exact and shaken rows."""
        shaken = value[self.count :].unflatten(0, (self.runs.times, len(self.runs.shaken)))
        return Shaken(value[: self.count], shaken)

    def shake(self, value: Tensor, loss: Tensor | None) -> None:
        """Add what may be lost, with random signs, to the shaken rows."""
        if loss is not None:
            for run in self.parted(value).shaken:
                signs = self.signs.draw(value.shape[1])
                run.addcmul_(loss, signs, value=self.precision.roundoff)


class _Signs:
    """Random signs: parts, from random places on, of one vector that is drawn once."""

    def __init__(self, most: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        size = most + self._PLACES
        drawn = torch.randint(0, 2, (size,), generator=self._generator, dtype=torch.int8)
        self._signs = drawn.double().mul_(2).sub_(1)

    _PLACES: Final = 4096

    def draw(self, count: int) -> Tensor:
        """That many."""
        start = int(torch.randint(0, self._PLACES, (), generator=self._generator))
        return self._signs[start : start + count]


def _value(node: Node, maps: Sequence[_Applied], values: Mapping[str, Tensor]) -> Tensor:
    """A node's rows, in memory of their own."""
    match node:
        case Affine():
            return _sum(node, maps, values, node.bias, len(next(iter(values.values()))))
        case Elementwise():
            return _owned(node.function.forward(values[node.source]), values[node.source])
        case Product():
            return values[node.left] * values[node.right]
        case _:
            return _owned(node.group.forward(values[node.source]), values[node.source])


def _sum(
    node: Affine, maps: Sequence[_Applied], values: Mapping[str, Tensor], bias: Tensor, rows: int
) -> Tensor:
    """[rows, entries]: the sum of maps of signals and a bias, in memory of its own."""
    if not maps:
        return bias.repeat(rows, 1)
    total = maps[0].apply(values[node.terms[0].source]) + bias
    for term, linear in zip(node.terms[1:], maps[1:], strict=True):
        total += linear.apply(values[term.source])
    return total


def _owned(value: Tensor, source: Tensor) -> Tensor:
    """The value, copied where it is another signal's."""
    return value.clone() if value.data_ptr() == source.data_ptr() else value


@dataclass(frozen=True, slots=True)
class _InSingle:
    """A matrix or convolution whose numbers are float32, between signals of float64."""

    of: LinearMap

    def apply(self, x: Tensor) -> Tensor:
        """A x for every row."""
        return self.of.apply(x.float()).double()

    def absolute(self) -> _InSingle:
        """|A|."""
        return _InSingle(self.of.absolute())


@dataclass(frozen=True, slots=True)
class _Both:
    """first, then second."""

    first: _Applied
    second: _Applied

    def apply(self, x: Tensor) -> Tensor:
        """second(first(x)) for every row."""
        return self.second.apply(self.first.apply(x))

    def absolute(self) -> _Both:
        """|second| |first|."""
        return _Both(self.first.absolute(), self.second.absolute())


_Applied: TypeAlias = "LinearMap | _InSingle | _Both"


def _maps(node: Node, *, is_single: bool) -> Sequence[_Applied]:
    """Those of an affine node's terms, in the precision of the run."""
    if not isinstance(node, Affine):
        return ()
    return [_single(term.map) if is_single else term.map for term in node.terms]


def _single(linear: LinearMap) -> _Applied:
    """The map with its matrices and convolutions in float32."""
    match linear:
        case Composed():
            return _Both(_single(linear.first), _single(linear.second))
        case Dense():
            return _InSingle(replace(linear, weight=linear.weight.float()))
        case Convolution():
            return _InSingle(replace(linear, kernel=linear.kernel.float()))
        case Adjoint(of=Convolution(kernel=kernel) as of):
            return _InSingle(Adjoint(replace(of, kernel=kernel.float())))
        case _:
            return linear


def _loss(
    node: Node, maps: Sequence[_Applied], values: Mapping[str, Tensor], value: Tensor
) -> Tensor | None:
    """What the type may lose at one node, in units of its roundoff; None where it loses nothing."""
    match node:
        case Affine():
            magnitudes = {source: each.abs() for source, each in values.items()}
            absolute = [linear.absolute() for linear in maps]
            size = _sum(node, absolute, magnitudes, node.bias.abs(), len(value))
            return size.mul_(2 + sqrt(_terms(node)))
        case Elementwise():
            if isinstance(node.function, PiecewiseLinear):
                return value.abs()
            source = values[node.source]
            size = value.abs() + source.abs() + 1
            return size + (-source).exp() if isinstance(node.function, LogSigmoid) else size
        case Product():
            return value.abs()
        case _:
            return None


def _terms(node: Affine) -> float:
    """The number of terms of one sum."""
    return float(sum(_entries_of_a_row(term.map) for term in node.terms))


def _entries_of_a_row(linear: LinearMap) -> int:
    """How many terms a map adds up for one entry at most; more for what is not known here."""
    match linear:
        case Identity() | Diagonal() | Gather():
            return 1
        case Dense():
            return linear.weight.shape[1]
        case Convolution():
            return prod(linear.kernel.shape[1:])
        case Adjoint(of=Convolution(kernel=kernel)):
            return prod(kernel.shape) // kernel.shape[1]
        case Composed():
            return _entries_of_a_row(linear.first) + _entries_of_a_row(linear.second)
        case _:
            return min(linear.in_size, 4096)

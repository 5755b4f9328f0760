"""Linear maps along all paths between two signals, as matrices (W, E) with |W_true - W| <= E.

Between nonlinear nodes a network is linear up to constants, which increments do not see. The map
from what leaves a source to a later signal is found by carrying the identity through the affine
nodes between, backwards from the target or forwards from the source, whichever is smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Carried, push, summed
from verifier.checker.maps import Adjoint
from verifier.checker.network import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.checker.network import Network

DENSE_ENTRIES = 2**24  #: a matrix of more entries is not formed
DENSE_SIDE = 2048  #: nor is a spectral norm of a matrix whose shorter side is longer proved
WORKING_ENTRIES = 2**23  #: the most entries of one signal that are carried at a time


def is_formable(rows: int, columns: int) -> bool:
    """Whether the matrix is small enough to be formed and its spectral norm proved."""
    return rows * columns <= DENSE_ENTRIES and min(rows, columns) <= DENSE_SIDE


class Composites:
    """The linear maps of one network, found when they are asked for."""

    def __init__(self, network: Network) -> None:
        self._sizes = network.tensors
        self._affine = {node.name: node for node in network.nodes if isinstance(node, Affine)}
        self._order = {node.name: place for place, node in enumerate(network.nodes)}
        self._pulled: dict[str, dict[str, Carried]] = {}

    def node(self, name: str) -> Affine | None:
        """The affine node of a name."""
        return self._affine.get(name)

    def between(self, signal: str) -> tuple[Affine, ...]:
        """The affine nodes on which a signal depends linearly, last first."""
        found: dict[str, Affine] = {}
        waiting = [signal]
        while waiting:
            name = waiting.pop()
            node = self._affine.get(name)
            if node is not None and name not in found:
                found[name] = node
                waiting += [term.source for term in node.terms]
        return tuple(sorted(found.values(), key=lambda node: -self._order[node.name]))

    def sources(self, signal: str) -> tuple[str, ...]:
        """The nonlinear nodes, and the input, on which a signal depends linearly."""
        if signal not in self._affine:
            return (signal,)
        entering = {term.source: None for node in self.between(signal) for term in node.terms}
        return tuple(name for name in entering if name not in self._affine)

    def matrix(self, signal: str, source: str) -> Carried:
        """W of signal = W source + (what other sources add)."""
        height, width = self._sizes[signal], self._sizes[source]
        if signal in self._pulled or height <= width:
            if signal not in self._pulled:
                self._pulled[signal] = self.pulled(signal, Carried(np.eye(height)))
            return self._pulled[signal][source]
        parts = [self._pushed(signal, source, rows) for rows in self._chunks(signal, width)]
        return _stacked(parts).transposed()

    def pulled(self, signal: str, rows: Carried) -> dict[str, Carried]:
        """For every source of a signal, rows times the map from it."""
        chunk = max(1, WORKING_ENTRIES // self._widest(signal))
        parts: list[dict[str, Carried]] = []
        for start in range(0, rows.rows, chunk):
            end = start + chunk
            error = None if rows.error is None else rows.error[start:end]
            parts.append(self._pulled_once(signal, Carried(rows.value[start:end], error)))
        return {name: _stacked([part[name] for part in parts]) for name in parts[0]}

    def _pulled_once(self, signal: str, rows: Carried) -> dict[str, Carried]:
        arrived: dict[str, list[Carried]] = {signal: [rows]}
        for node in self.between(signal):
            whole = summed(arrived.pop(node.name))
            for term in node.terms:
                arrived.setdefault(term.source, []).append(push(Adjoint(term.map), whole))
        return {name: summed(parts).required_finite() for name, parts in arrived.items()}

    def _pushed(self, signal: str, source: str, rows: Carried) -> Carried:
        """The rows, carried from the source to the signal."""
        carried = {source: rows}
        for node in reversed(self.between(signal)):
            parts = [
                push(term.map, carried[term.source])
                for term in node.terms
                if term.source in carried
            ]
            if parts:
                carried[node.name] = summed(parts)
        return carried[signal].required_finite()

    def _chunks(self, signal: str, width: int) -> Iterator[Carried]:
        chunk = max(1, WORKING_ENTRIES // self._widest(signal))
        for start in range(0, width, chunk):
            count = min(chunk, width - start)
            rows = np.zeros((count, width))
            rows[np.arange(count), start + np.arange(count)] = 1.0
            yield Carried(rows)

    def _widest(self, signal: str) -> int:
        """The greatest size of a signal on the way."""
        names = {signal} | {t.source for node in self.between(signal) for t in node.terms}
        return max(self._sizes[name] for name in names)


def _stacked(parts: list[Carried]) -> Carried:
    """Rows below rows."""
    if len(parts) == 1:
        return parts[0]
    value = np.concatenate([part.value for part in parts])
    if all(part.error is None for part in parts):
        return Carried(value)
    return Carried(value, np.concatenate([part.errors() for part in parts]))

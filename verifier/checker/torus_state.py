"""The covariance of tensors on a torus, frequency by frequency, on its way through a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, gamma
from verifier.checker.batches import norm_up
from verifier.checker.definite import NotProved
from verifier.checker.flat import elementwise_step
from verifier.checker.hermitian import Covariance, Rows, identity, raised
from verifier.checker.phases import Frequencies
from verifier.checker.torus_masks import widened
from verifier.checker.torus_symbols import Symbol, symbol_of, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.frontier import Frontier
    from verifier.checker.network import Elementwise
    from verifier.checker.torus_structure import Torus

    Places = Mapping[str, Int64[np.ndarray, " channels"]]


class TorusState:
    """The covariance of the base's tensors, at the frequencies of their torus."""

    def __init__(self, torus: Torus) -> None:
        self._torus = torus
        start = torus.tensors[""]
        self.sides: tuple[int, ...] = start.sides
        self.frequencies = Frequencies.of(start.sides)
        count = len(self.frequencies.chosen)
        self.covariance = identity(count, np.ones(start.channels), real=False)

    def move(self, frontier: Frontier, cut: Sequence[str]) -> None:
        """From the frontier's base to a cut of tensors of one torus."""
        tensors = self._torus.tensors
        sides = {tensors[name].sides for name in cut}
        if len(sides) != 1:
            raise NotProved(f"node {cut[0]!r} meets signals of other resolutions")
        if tuple(cut) == frontier.base:
            return
        made = self.symbols(frontier, cut, self.frequencies.chosen)
        parts = [(tensors[name].channels, made[name]) for name in cut]
        self.covariance = self.covariance.carried(stacked(self.places(frontier.base), parts))
        leaving = sides.pop()
        if leaving != self.sides:
            coarse = Frequencies.of(leaving)
            self.covariance = folded(self.covariance, self.frequencies, coarse)
            self.sides, self.frequencies = leaving, coarse

    def pass_gate(
        self, node: Elementwise, cut: Sequence[str], stays: bool, scales: Float64[np.ndarray, " c"]
    ) -> None:
        """From the cut to the same with what leaves the gate last."""
        places = self.places(cut)
        entering = places[node.source]
        kept = [place for name, place in places.items() if stays or name != node.source]
        self.covariance = self.covariance.picked(np.concatenate([*kept, entering]))
        slopes = widened(node, len(entering))
        self.covariance = elementwise_step(self.covariance, node.name, slopes, scales)

    def symbols(
        self,
        frontier: Frontier,
        wanted: Sequence[str],
        frequencies: Int64[np.ndarray, "many axes"],
    ) -> dict[str, dict[str, Symbol]]:
        """What each tensor up to those wanted is, of the base's tensors."""
        tensors = self._torus.tensors
        made = {name: {name: unit(tensors[name].channels)} for name in frontier.base}
        for node in frontier.path(*wanted):
            if node.name not in tensors:
                continue
            sums: dict[str, Symbol] = {}
            for term, steps in zip(node.terms, self._torus.taps[node.name], strict=True):
                sides = tensors[term.source].sides
                acting = unit(tensors[term.source].channels)
                for step in steps:
                    acting = symbol_of(step, sides, frequencies).after(acting)
                    sides = tuple(n // s for n, s in zip(sides, step.stride, strict=True))
                for name, before in made[term.source].items():
                    whole = acting.after(before)
                    sums[name] = sums[name].plus(whole) if name in sums else whole
            made[node.name] = sums
        return made

    def places(self, names: Sequence[str]) -> Places:
        """Where each tensor's channels are."""
        places: dict[str, Int64[np.ndarray, " channels"]] = {}
        start = 0
        for name in names:
            end = start + self._torus.tensors[name].channels
            places[name] = np.arange(start, end)
            start = end
        return places


def stacked(places: Places, parts: Sequence[tuple[int, Mapping[str, Symbol]]]) -> Rows:
    """Blocks of rows, each with its height and its symbols by the base's tensors."""
    height, width = sum(rows for rows, _ in parts), sum(len(place) for place in places.values())
    symbols = [symbol for _, row in parts for symbol in row.values()]
    count = max((len(symbol.value) for symbol in symbols), default=1)
    is_complex = any(np.iscomplexobj(symbol.value) for symbol in symbols)
    value = np.zeros((count, height, width), np.complex128 if is_complex else np.float64)
    error = np.zeros((height, width))
    start = 0
    for rows, row in parts:
        for name, symbol in row.items():
            here, there = slice(start, start + rows), places[name]
            columns = slice(int(there[0]), int(there[-1]) + 1)
            value[:, here, columns] = symbol.value
            error[here, columns] = symbol.error
        start += rows
    return Rows(value, error if np.any(error) else None)


def folded(covariance: Covariance, fine: Frequencies, coarse: Frequencies) -> Covariance:
    """Behind a stride: the mean over the frequencies that fall on one."""
    turns = np.array(fine.sides) // np.array(coarse.sides)
    share = 1.0 / float(np.prod(turns))
    value = np.zeros((len(coarse.chosen), *covariance.value.shape[1:]), np.complex128)
    mass = np.zeros(len(coarse.chosen))
    sizes = norm_up(covariance.value)
    for turn in np.ndindex(*turns):
        place, is_opposite = fine.places_of(coarse.chosen + np.array(turn) * np.array(coarse.sides))
        part = covariance.value[place]
        part[is_opposite] = part[is_opposite].conj()
        value += part * share
        mass += sizes[place] * share
    # The share, the products and the sums round.
    error = gamma(int(np.prod(turns)) + 8) * mass * (1 + 8 * UNIT)
    return raised(value, error, covariance.exponent)

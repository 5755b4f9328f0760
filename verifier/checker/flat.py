"""One recursion's covariance on its way through flat signals: linear maps, gates, sorts.

    a gate with slopes in [a, b]:   phi = m v + r psi,  |psi| <= |v|,   one scale a gate;
    a sort of n >= 3:               phi = mean(v) + sum_k h_k psi_k,
                                    sum_k k(k+1) psi_k^2 <= sum_k (h_k.v)^2 / (k(k+1)),

h_k as in `verifier.checker.constraints`, one scale d a group: with the multiplier 1/d the contrasts
w_k = h_k.v meet D = d k(k+1), and psi_k has the variance d / (k(k+1)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, above, below
from verifier.checker.blocks import Block, Rows
from verifier.checker.carry import Carried, push, summed
from verifier.checker.constraints import centred
from verifier.checker.definite import NotProved
from verifier.checker.hermitian import Covariance
from verifier.checker.lowering import entering
from verifier.checker.maps import Adjoint
from verifier.checker.network import Affine, Elementwise, Sort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.constraints import Slopes
    from verifier.checker.frontier import Frontier
    from verifier.checker.network import Node

    Scales = Mapping[str, Float64[np.ndarray, " gates"]]

WORKING_ENTRIES = 2**24  #: of the rows that are carried back at a time
MAP_ENTRIES = 2**27  #: a map of more entries is not formed


class FlatState:
    """The covariance of the base's signals, one after the other."""

    def __init__(self, covariance: Covariance, sizes: Mapping[str, int]) -> None:
        self.covariance = covariance
        self._sizes = sizes

    def move(self, frontier: Frontier, cut: Sequence[str]) -> None:
        """From the frontier's base to a cut."""
        before = _places(frontier.base, self._sizes)
        if all(name in before for name in cut):
            if tuple(cut) != frontier.base:
                index = np.concatenate([before[name] for name in cut])
                self.covariance = self.covariance.picked(index)
            return
        height, width = sum(self._sizes[name] for name in cut), self.covariance.size
        if height * width > MAP_ENTRIES:
            raise NotProved(f"a map of {height} by {width} entries is too large")
        value, error = np.zeros((height, width)), np.zeros((height, width))
        blocks: list[Block] = []
        for name, rows in _places(cut, self._sizes).items():
            for source, part in pulled(frontier, name, self._sizes).items():
                here, there = _slice(rows), _slice(before[source])
                blocks.append(Block(here, there, is_unit=source == name))
                value[here, there] = part.value
                if part.error is not None:
                    error[here, there] = part.error
        loose = error if np.any(error) else None
        self.covariance = self.covariance.carried(Rows(value[None], loose, tuple(blocks)))

    def pass_gate(
        self, node: Node, cut: Sequence[str], stays: bool, scales: Float64[np.ndarray, " gates"]
    ) -> None:
        """From the cut to the same with what leaves the gate last, in place of what enters it."""
        places = _places(cut, self._sizes)
        match node:
            case Elementwise():
                entering = places[node.source]
                kept = [p for name, p in places.items() if stays or name != node.source]
                self.covariance = self.covariance.picked(np.concatenate([*kept, entering]))
                slopes = node.function.slope_range(node.size)
                self.covariance = elementwise_step(self.covariance, node.name, slopes, scales)
            case Sort():
                self._sort(node, places, stays, scales)
            case _:
                raise NotProved(f"node {node.name!r} was not lowered")

    def _sort(
        self,
        node: Sort,
        places: Mapping[str, np.ndarray],
        stays: bool,
        scales: Float64[np.ndarray, " gates"],
    ) -> None:
        count, width = node.groups.shape
        if scales.shape != (count,):
            raise NotProved(f"node {node.name!r} needs {count} scales")
        size, entering = self.covariance.size, places[node.source]
        psis = int(count * (width - 1))
        product = np.array([float(k * (k + 1)) for k in range(1, width)])
        contrasts = np.zeros((size + psis, size))
        contrasts[:size] = np.eye(size)
        leaving = np.zeros((node.size, size + 2 * psis))
        error = np.zeros_like(leaving)
        for group in range(count):
            here, there = entering[node.groups[group]], node.places[group]
            leaving[np.ix_(there, here)] = 1 / width
            error[np.ix_(there, here)] = 2 * UNIT / width
            for k in range(1, width):
                psi = group * (width - 1) + k - 1
                contrasts[size + psi, here[:k]] = 1.0
                contrasts[size + psi, here[k]] = -float(k)
                leaving[there[:k], size + psis + psi] = 1.0
                leaving[there[k], size + psis + psi] = -float(k)
        own = np.repeat(scales, width - 1)
        lengths = np.tile(product, count)
        state = self.covariance.carried(Rows(contrasts[None]))
        state = state.corrected(np.arange(size, size + psis), below(own * lengths))
        state = state.extended(above(own / lengths))
        kept = [p for name, p in places.items() if stays or name != node.source]
        rest = np.concatenate([*kept, np.zeros(0, np.int64)])
        unit = np.zeros((len(rest), size + 2 * psis))
        unit[np.arange(len(rest)), rest] = 1.0
        whole = np.concatenate([unit, leaving])
        spread = np.concatenate([np.zeros_like(unit), error])
        self.covariance = state.carried(Rows(whole[None], spread))


def elementwise_step(
    covariance: Covariance, name: str, slopes: Slopes, scales: Float64[np.ndarray, " gates"]
) -> Covariance:
    """The last entries v become phi = m v + r psi."""
    lower, upper = slopes
    if not (np.all(np.isfinite(lower)) and np.all(np.isfinite(upper)) and np.all(lower <= upper)):
        raise NotProved(f"node {name!r} has no finite slope range")
    if scales.shape != lower.shape:
        raise NotProved(f"node {name!r} needs {len(lower)} scales")
    middle, radius = centred(lower, upper)
    place = np.arange(covariance.size - len(lower), covariance.size)
    free = np.flatnonzero(radius > 0)
    noise = np.zeros(len(lower))
    if len(free):
        try:
            covariance = covariance.corrected(place[free], scales[free])
        except NotProved as error:
            raise NotProved(f"node {name!r}: {error}") from error
        noise[free] = above(above(np.square(radius[free])) * scales[free])
    return covariance.gated(place, middle, noise)


def run_flat(
    frontier: Frontier, state: FlatState, output: str, gates: Mapping[str, str], scales: Scales
) -> set[str]:
    """Pass every gate that is left, and move on to the output; the names of the scales used."""
    used: set[str] = set()
    while (node := frontier.next_gate()) is not None:
        name = gates[node.name]
        if name not in scales:
            raise NotProved(f"node {name!r} has no scales")
        used.add(name)
        if isinstance(node, Affine):
            raise TypeError("an affine node is no gate")
        cut = frontier.cut(entering(node))
        state.move(frontier, cut)
        frontier.move_to(cut)
        stays = frontier.pass_gate(node)
        state.pass_gate(node, cut, stays, scales[name])
    cut = frontier.cut(output)
    state.move(frontier, cut)
    frontier.move_to(cut)
    return used


def pulled(frontier: Frontier, signal: str, sizes: Mapping[str, int]) -> dict[str, Carried]:
    """The map to a signal from each of the base's signals that it depends on."""
    path = frontier.path(signal)
    widest = max([sizes[signal], *(sizes[term.source] for node in path for term in node.terms)])
    chunk = max(1, WORKING_ENTRIES // widest)
    found: dict[str, list[Carried]] = {}
    for start in range(0, sizes[signal], chunk):
        rows = np.zeros((min(chunk, sizes[signal] - start), sizes[signal]))
        rows[np.arange(len(rows)), start + np.arange(len(rows))] = 1.0
        for source, part in pulled_rows(path, signal, Carried(rows)).items():
            found.setdefault(source, []).append(part)
    return {source: _stacked(parts) for source, parts in found.items()}


def pulled_rows(path: Sequence[Affine], signal: str, rows: Carried) -> dict[str, Carried]:
    """The rows times the maps to a signal from where the path begins."""
    arrived: dict[str, list[Carried]] = {signal: [rows]}
    for node in reversed(path):
        whole = summed(arrived.pop(node.name))
        for term in node.terms:
            arrived.setdefault(term.source, []).append(push(Adjoint(term.map), whole))
    return {name: summed(parts).required_finite() for name, parts in arrived.items()}


def _slice(place: Int64[np.ndarray, " n"]) -> slice:
    return slice(int(place[0]), int(place[-1]) + 1) if len(place) else slice(0, 0)


def _stacked(parts: list[Carried]) -> Carried:
    value = np.concatenate([part.value for part in parts])
    if all(part.error is None for part in parts):
        return Carried(value)
    return Carried(value, np.concatenate([part.errors() for part in parts]))


def _places(names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Where each signal's entries are."""
    places: dict[str, np.ndarray] = {}
    start = 0
    for name in names:
        places[name] = np.arange(start, start + sizes[name])
        start += sizes[name]
    return places

"""Which signals of a network stand between what has been computed and what has not.

A recursion holds the increments of a few signals, the base. Everything affine in the base is known.
Before the next gate is passed the base moves on to a cut: the known signals that something not yet
known reads. Any such choice is exact; the narrowest of two is taken.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from verifier.checker.definite import NotProved
from verifier.checker.lowering import sources
from verifier.checker.network import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.checker.network import Node

FINEST = 1.0  #: the rank of signals at full resolution
CROPPED = math.inf  #: the rank of flat signals behind a crop


class Frontier:
    """The base of a recursion on its way through a network."""

    def __init__(
        self,
        nodes: Sequence[Node],
        output: str,
        widths: Mapping[str, int],
        ranks: Mapping[str, float] | None = None,
    ) -> None:
        """Start at the input.

        Args:
            nodes: in topological order.
            output: the signal that is wanted at last.
            widths: of every signal, what it costs to hold.
            ranks: of every signal; a base has one rank, and ranks grow on the way. None: all alike.
        """
        self.base: tuple[str, ...] = ("",)
        self._nodes = {node.name: node for node in nodes}
        self._output = output
        self._widths = widths
        self._ranks = dict.fromkeys((*self._nodes, ""), FINEST) if ranks is None else ranks
        self._passed: set[str] = set()
        self._readers: dict[str, list[str]] = {"": []}
        for node in nodes:
            self._readers.setdefault(node.name, [])
            for source in sources(node):
                self._readers.setdefault(source, []).append(node.name)

    def next_gate(self) -> Node | None:
        """The next gate to pass: the finest, the first of several; None after the last."""
        known = self._known(math.inf)
        waiting = [
            node
            for name, node in self._nodes.items()
            if not isinstance(node, Affine)
            and name not in self._passed
            and sources(node)[0] in known
        ]
        return min(waiting, key=lambda node: self._ranks[node.name], default=None)

    def cut(self, wanted: str) -> tuple[str, ...]:
        """The next base, which holds a signal that is wanted next.

        Raises:
            NotProved: signals of several ranks would stand in it.
        """
        rank = self._ranks[wanted]
        known = self._known(rank)
        options = [self._live(self._towards(wanted), wanted), self._live(known, wanted)]
        fitting = [names for names in options if all(self._ranks[n] == rank for n in names)]
        if not fitting:
            raise NotProved(f"node {wanted!r} meets signals of other resolutions")
        return min(fitting, key=lambda names: sum(self._widths[name] for name in names))

    def move_to(self, base: Sequence[str]) -> None:
        """Hold these signals from now on."""
        self.base = tuple(base)

    def pass_gate(self, gate: Node) -> bool:
        """Put what leaves a gate last in the base, and tell whether what enters it stays there."""
        self._passed.add(gate.name)
        (entering,) = sources(gate)
        stays = entering == self._output or self._is_read(entering, set(self.base), self._needed())
        kept = self.base if stays else tuple(name for name in self.base if name != entering)
        self.base = (*kept, gate.name)
        return stays

    def path(self, *wanted: str) -> tuple[Affine, ...]:
        """The affine nodes between the base and some signals, first to last."""
        found = self._towards(*wanted)
        return tuple(
            node
            for name, node in self._nodes.items()
            if name in found and name not in self.base and isinstance(node, Affine)
        )

    def _known(self, rank: float) -> set[str]:
        """The base, and what is affine in it, up to a rank."""
        known = set(self.base)
        for name, node in self._nodes.items():
            if (
                isinstance(node, Affine)
                and self._ranks[name] <= rank
                and all(source in known for source in sources(node))
            ):
                known.add(name)
        return known

    def _towards(self, *wanted: str) -> set[str]:
        """The base, and what lies between it and some signals."""
        found, waiting = set(self.base), list(wanted)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += sources(self._nodes[name])
        return found

    def _needed(self) -> set[str]:
        """The nodes outside of the base that have a part in what is still to be computed."""
        needed: set[str] = set()
        for name, node in reversed(self._nodes.items()):
            if isinstance(node, Affine):
                if name not in self.base and (
                    name == self._output or any(r in needed for r in self._readers[name])
                ):
                    needed.add(name)
            elif name not in self._passed:
                needed.add(name)
        return needed

    def _is_read(self, name: str, known: set[str], needed: set[str]) -> bool:
        return any(r in needed and r not in known for r in self._readers[name])

    def _live(self, known: set[str], wanted: str) -> tuple[str, ...]:
        """Those of the known signals that something else reads."""
        needed = self._needed()
        return tuple(
            name
            for name in ("", *self._nodes)
            if name in known
            and (name in (wanted, self._output) or self._is_read(name, known, needed))
        )

"""What the cuts of a tree divide: a proof names gates, and a part knows the signals that enter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.checker.definite import NotProved
from verifier.checker.network import Elementwise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.certificate import Tree
    from verifier.checker.lowering import Lowered
    from verifier.checker.tree_parts import Neuron


class Cuts:
    """The gates of one proof."""

    def __init__(self, small: Lowered, gates: Sequence[str]) -> None:
        """Raises NotProved where a name is of no gate."""
        self._small = small
        self._signals = [self._signal(name) for name in gates]

    def neurons(self, tree: Tree) -> list[Neuron]:
        """What each of the tree's cuts divides.

        Raises:
            NotProved: a gate or an entry is out of range.
        """
        return [self._neuron(*cut) for cut in zip(tree.gates, tree.entries, strict=False)]

    def _signal(self, name: str) -> str:
        """What enters the gate of this name; the input for the name of none."""
        if name == "":
            return ""
        for node in self._small.network.nodes:
            if isinstance(node, Elementwise) and self._small.gates[node.name] == name:
                return node.source
        raise NotProved(f"cuts of {name!r}, which is no gate of the network")

    def _neuron(self, gate: int, entry: int) -> Neuron:
        if not 0 <= gate < len(self._signals):
            raise NotProved(f"a cut of gate {gate}, of {len(self._signals)}")
        signal = self._signals[gate]
        if not 0 <= entry < self._small.network.tensors[signal]:
            raise NotProved(f"a cut of entry {entry}, which {signal!r} does not have")
        return signal, entry

"""What a network is to the methods: a graph of few kinds of node over flat vectors.

    Affine        a sum of linear maps of earlier signals, and a bias
    Elementwise   a scalar function of every entry
    Product       the products of two signals, entry by entry
    Grouped       a function of groups of entries: sorting, mirrors, maxima, which affine nodes and
                  gates can make; or a block (softmax, normalisation), which they cannot

Nodes stand in topological order and are named by the ONNX tensors that leave them; the network's
input is the signal "". Methods match on the kind and read facts; none names an operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from jaxtyping import Float64
from torch import Tensor

from verifier.errors import CapabilityBlocked
from verifier.network.blocks import Block
from verifier.network.grouped import Group, GroupSort, Householder, Maximum
from verifier.network.nodes import Affine, Elementwise, Lowered, Product

if TYPE_CHECKING:
    from verifier.certificate import Idealised, Pattern


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """A function of groups of entries."""

    name: str
    source: str
    group: Group | Block

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.group.size

    @property
    def sources(self) -> tuple[str, ...]:
        """The signal that enters."""
        return (self.source,)


Node: TypeAlias = Affine | Elementwise | Product | Grouped


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A function from R^input_size to R^output_size."""

    nodes: tuple[Node, ...]
    input_size: int
    output: str  #: the node whose signal is the output; "" where the network is the identity
    patterns: tuple[Pattern, ...] = ()  #: groups that were recognised, for the checker to verify
    idealised: tuple[Idealised, ...] = ()  #: nodes that stand for ones that jump, by name

    def __post_init__(self) -> None:
        known = {"": self.input_size}
        for node in self.nodes:
            missing = [source for source in node.sources if source not in known]
            if missing or node.name in known:
                raise ValueError(f"node {node.name!r}: sources {missing} or name out of order")
            known[node.name] = node.size
        if self.output not in known:
            raise ValueError(f"output {self.output!r} is no node")

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every signal by name, the input's included."""
        return {"": self.input_size} | {node.name: node.size for node in self.nodes}

    @property
    def output_size(self) -> int:
        """The number of entries of the output."""
        return self.sizes[self.output]

    def signals(self, x: Float64[Tensor, "batch inputs"]) -> dict[str, Float64[Tensor, "batch n"]]:
        """Every signal of every row, by name."""
        signals = {"": x}
        for node in self.nodes:
            signals[node.name] = _value(node, signals)
        return signals

    def forward(self, x: Float64[Tensor, "batch inputs"]) -> Float64[Tensor, "batch outputs"]:
        """The function of every row."""
        signals, finished = {"": x}, self.finished
        for node in self.nodes:
            signals[node.name] = _value(node, signals)
            for source in finished[node.name]:
                del signals[source]
        return signals[self.output]

    @property
    def finished(self) -> dict[str, list[str]]:
        """For each node the signals that no node after it reads, the output's not among them."""
        last = {source: node.name for node in self.nodes for source in node.sources}
        finished: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for source, name in last.items():
            if source != self.output:
                finished[name].append(source)
        return finished

    @property
    def has_blocks(self) -> bool:
        """Whether a node is not made of affine nodes and gates."""
        return any(isinstance(node, Grouped) and _is_block(node.group) for node in self.nodes)

    def lowered(self, sorts: Literal["keep", "compare"], *, keeps_blocks: bool = False) -> Network:
        """The same function with groups made of affine nodes and gates.

        Args:
            sorts: whether those of three and more are kept: as groups they have a tighter
                quadratic constraint than as comparisons.
            keeps_blocks: whether the method can do something with blocks, which stay as they are.

        Raises:
            CapabilityBlocked: it cannot, and there is one.
        """
        for node in self.nodes:
            if isinstance(node, Grouped) and _is_block(node.group) and not keeps_blocks:
                raise _no_gate(node)
        return replace(self, nodes=tuple(self._lowered_nodes(sorts)))

    def _lowered_nodes(self, sorts: Literal["keep", "compare"]) -> Iterator[Lowered | Grouped]:
        for node in self.nodes:
            match node:
                case Grouped(group=GroupSort() as sort) if (
                    sorts == "keep" and 2 < sort.groups.shape[1]
                ):
                    yield node
                case Grouped(group=GroupSort() | Householder() | Maximum() as group):
                    yield from group.lowered(node.name, node.source)
                case _:
                    yield node


def _value(node: Node, signals: Mapping[str, Tensor]) -> Float64[Tensor, "batch n"]:
    """What leaves a node."""
    match node:
        case Affine():
            parts = (term.map.apply(signals[term.source]) for term in node.terms)
            return sum(parts, node.bias.expand(len(next(iter(signals.values()))), -1))
        case Elementwise():
            return node.function.forward(signals[node.source])
        case Product():
            return signals[node.left] * signals[node.right]
        case Grouped():
            return node.group.forward(signals[node.source])


def _is_block(group: Group | Block) -> bool:
    return isinstance(group, Block)


def _no_gate(node: Grouped) -> CapabilityBlocked:
    return CapabilityBlocked(
        f"node {node.name!r} ({type(node.group).__name__}): inequalities, recursions and branch "
        "and bound know affine maps, elementwise functions, sorting, mirrors and maxima only",
        node=node.name,
        fix='ask for method "product", or over a region for "propagation"',
    )

"""The end of a network: one flat output, and the nodes that it needs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.errors import InvalidName
from verifier.network.nodes import Affine, Term
from verifier.onnx_import.convert.emitted import gather, tensor
from verifier.onnx_import.moves import FILL
from verifier.onnx_import.values import Constant, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.network.graph import Node
    from verifier.onnx_import.ports import Port
    from verifier.onnx_import.reader import Graph
    from verifier.onnx_import.values import Value

OUTPUTS: Final = ":outputs"  #: the node of the flat output, where the file has several


def joined(
    graph: Graph, values: Mapping[str, Value], nodes: dict[str, Node], outputs: Sequence[Port]
) -> str:
    """The node of the flat output; entries of outputs that are not read are 0."""
    only = values.get(outputs[0].name)
    if len(outputs) == 1 and isinstance(only, Signal):
        return only.node
    name = OUTPUTS if 1 < len(outputs) else outputs[0].name
    if OUTPUTS in nodes:
        raise InvalidName(
            f"a tensor is called {OUTPUTS!r}, as the vector of all outputs is",
            node=OUTPUTS,
            fix="rename the tensor",
        )
    size = outputs[-1].place[1]
    places: dict[str, np.ndarray] = {}
    bias = np.zeros(size)
    for port in outputs:
        value = values.get(port.name)
        part = slice(*port.place)
        if not port.is_read:
            continue
        if isinstance(value, Signal):
            index = places.setdefault(value.node, np.full(size, FILL))
            index[part] = np.arange(value.size)
        elif isinstance(value, Constant):
            bias[part] = value.array.reshape(-1)
    sizes = {"": sum(prod(d.shape or ()) for d in graph.inputs)}
    sizes |= {node.name: node.size for node in nodes.values()}
    terms = tuple(Term(node, gather(index, sizes[node])) for node, index in places.items())
    nodes[name] = Affine(name, terms, tensor(bias))
    return name


def live(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on."""
    wanted = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted |= set(node.sources)
    return tuple(reversed(kept))

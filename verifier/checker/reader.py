"""The checker's reader: an ONNX file's bytes as tensors, attributes and nodes, or a refusal.

Two steps: `wire.scan` has checked the wire format of the whole file; here the values are taken, and
the rules of tensors, attributes, names and the graph's structure are checked. What a node means is
for others to say.

    * a tensor states its data once, in exactly the size of its shape, and every number is finite;
    * float16, float32 and float64 are taken as the exact reals that their bits denote (in float64);
    * every value is made once; what a node reads is made somewhere; nodes are sorted here;
    * functions, training information, sparse tensors, subgraphs and random operators are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.ends import Ends, read_ends
from verifier.checker.messages import Parts, check_name, collect, integer, name_of, view
from verifier.checker.tensors import Tensor, read_tensor, unpack_floats, unpack_ints
from verifier.checker.wire import Value, scan, signed, text
from verifier.errors import (
    ControlFlow,
    CustomOp,
    DtypeUnsupported,
    DuplicateName,
    EmptyModel,
    GraphCycle,
    InvalidAttribute,
    InvalidName,
    NonDeterministicOp,
    NonFiniteWeights,
    NotCheckable,
    OpsetUnsupported,
    TrainingModeOp,
    UndefinedName,
)

if TYPE_CHECKING:
    from verifier.property import Reading

IR_VERSIONS = range(3, 14)
OPSETS = range(7, 25)
IR_WITH_FREE_INITIALISERS = 4  #: from here on, an initialiser that is an input may be replaced

Attribute: TypeAlias = (
    "int | float | str | Tensor | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
)

#: (field, tag in `type`) of the attribute types that are read.
_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS = 1, 2, 3, 4, 5, 6, 7, 8
_FIELD_OF_TYPE = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11} | {
    11: 22,
    12: 23,
    13: 14,
    14: 15,
}
_LIST_FIELDS = (7, 8, 9, 10, 11, 15, 23)
_VALUE_FIELDS = frozenset(_FIELD_OF_TYPE.values())
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
_SUBGRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of the file."""

    op: str
    inputs: tuple[str, ...]  #: "" where an optional operand is absent
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def name(self) -> str:
        """The tensor that leaves first: what messages and proofs call the node."""
        return next((name for name in self.outputs if name), self.op)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the file holds, in an order in which every value is made before it is read."""

    opset: int
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]  #: initialisers, and inputs that are held constant
    ends: Ends


def read_model(data: bytes, reading: Reading) -> Model:
    """The file's content.

    Args:
        data: the file.
        reading: what is bound, chosen and frozen.

    Raises:
        ModelRefused, NotCheckable: the file is not read.
        InvalidRequest: the reading does not fit the file.
    """
    root = scan(data)
    parts = collect(root)
    opset = _check_versions(parts)
    _refuse_foreign(parts)
    graphs = parts.get(7, [])
    if not graphs:
        raise EmptyModel("the file has no graph", fix="export the network again")
    ir_version = integer(parts, 1, -1)
    return _read_graph(collect(view(graphs[0])), opset, ir_version, reading)


# --- The model -----------------------------------------------------------------------------------


def _check_versions(parts: Parts) -> int:
    """The opset of the default domain."""
    ir_version = integer(parts, 1, -1)
    found: dict[str, int] = {}
    for item in parts.get(8, []):
        entry = collect(view(item))
        domain = name_of(entry, 1)
        domain = "" if domain == "ai.onnx" else domain
        if domain in found:
            raise OpsetUnsupported(f"domain {domain!r} is imported twice", fix="export again")
        found[domain] = integer(entry, 2, -1)
    opset = found.get("", -1)
    if ir_version not in IR_VERSIONS or opset not in OPSETS:
        raise OpsetUnsupported(
            f"IR version {ir_version} and opset {opset}; read are IR {IR_VERSIONS[0]} to "
            f"{IR_VERSIONS[-1]} and opset {OPSETS[0]} to {OPSETS[-1]}",
            fix="export with opset 20",
        )
    return opset


def _refuse_foreign(parts: Parts) -> None:
    if 25 in parts:
        raise NotCheckable("the file defines local functions", fix="export without functions")
    if 20 in parts:
        raise TrainingModeOp("the file has training information", fix="export for inference")


def _read_graph(parts: Parts, opset: int, ir_version: int, reading: Reading) -> Model:
    name_of(parts, 2)
    if 15 in parts:
        raise DtypeUnsupported("a sparse initialiser", fix="store dense weights")
    nodes = [_read_node(collect(view(item))) for item in parts.get(1, [])]
    initialisers = _read_initialisers(parts)
    ends = read_ends(parts, initialisers, reading, is_free=IR_WITH_FREE_INITIALISERS <= ir_version)
    constants = {**initialisers, **ends.held}
    _check_made(nodes, constants, ends.inputs, ends.outputs)
    return Model(opset=opset, nodes=_sorted(nodes), constants=constants, ends=ends)


def _read_initialisers(parts: Parts) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for item in parts.get(5, []):
        name, tensor = read_tensor(view(item))
        check_name(name)
        if name in found:
            raise DuplicateName(
                f"initialiser {name!r} appears twice", fix="export again", node=name
            )
        if not name:
            raise InvalidName("an initialiser has no name", fix="export again")
        found[name] = tensor
    return found


def _check_made(
    nodes: Sequence[Node],
    initialisers: Mapping[str, Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Every value is made once, and what is read is made."""
    made = {*initialisers, *inputs}
    for name in (name for node in nodes for name in node.outputs if name):
        if name in made:
            raise DuplicateName(f"{name!r} is made twice", fix="export again", node=name)
        made.add(name)
    read = [name for node in nodes for name in node.inputs if name]
    for name in (*read, *outputs):
        if name not in made:
            raise UndefinedName(f"{name!r} is read but not made", fix="export again", node=name)


def _sorted(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, makers first; in the file's order where that does not matter."""
    maker = {name: place for place, node in enumerate(nodes) for name in node.outputs if name}
    needs = [{maker[name] for name in node.inputs if name in maker} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, made in enumerate(needs):
        for other in made:
            readers[other].append(place)
    missing = [len(made) for made in needs]
    ready = [place for place in range(len(nodes) - 1, -1, -1) if missing[place] == 0]
    order: list[int] = []
    while ready:
        place = ready.pop()
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if len(order) < len(nodes):
        stuck = next(node for place, node in enumerate(nodes) if missing[place])
        raise GraphCycle(f"{stuck.name!r} needs itself", fix="export again", node=stuck.name)
    return tuple(nodes[place] for place in order)


# --- Nodes and their attributes ------------------------------------------------------------------


def _read_node(parts: Parts) -> Node:
    inputs = tuple(check_name(text(item)) for item in parts.get(1, []))
    outputs = tuple(check_name(text(item)) for item in parts.get(2, []))
    name_of(parts, 3)
    op, domain = name_of(parts, 4), name_of(parts, 7)
    first = next((name for name in outputs if name), op)
    if domain in ("com.microsoft", "ai.onnx.ml"):
        op = f"{domain}::{op}"
    elif domain not in ("", "ai.onnx"):
        raise CustomOp(f"operator {domain}::{op}", fix="export standard operators", node=first)
    if op in _RANDOM:
        raise NonDeterministicOp(f"operator {op}", fix="export without randomness", node=first)
    if op in _SUBGRAPHS:
        raise ControlFlow(f"operator {op}", fix="export one straight graph", node=first)
    attributes: dict[str, Attribute] = {}
    for item in parts.get(5, []):
        name, value = _read_attribute(view(item), first)
        if name in attributes:
            raise InvalidAttribute(f"{name!r} is given twice", fix="export again", node=first)
        attributes[name] = value
    return Node(op=op, inputs=inputs, outputs=outputs, attributes=attributes)


def _read_attribute(message: memoryview, node: str) -> tuple[str, Attribute]:
    parts = collect(message)
    name, kind = name_of(parts, 1), integer(parts, 20, 0)
    present = _VALUE_FIELDS & parts.keys()
    if 21 in parts:
        raise InvalidAttribute(f"{name!r} refers to a function", fix="export again", node=node)
    if 6 in present or 11 in present:
        raise ControlFlow(f"{name!r} holds a subgraph", fix="export one straight graph", node=node)
    if 22 in present or 23 in present:
        raise DtypeUnsupported(f"{name!r} is sparse", fix="store dense weights", node=node)
    expected = _FIELD_OF_TYPE.get(kind)
    # An empty list leaves no field behind; everything else has exactly its own.
    if expected is None or present - {expected} or (not present and expected not in _LIST_FIELDS):
        raise InvalidAttribute(
            f"{name!r} of type {kind} does not hold what its type says",
            fix="export again",
            node=node,
        )
    return name, _attribute_value(parts.get(expected, []), kind, name, node)


def _attribute_value(values: Sequence[Value], kind: int, name: str, node: str) -> Attribute:
    if kind == _INT and isinstance(values[0], int):
        return signed(values[0])
    if kind == _STRING:
        return text(values[0])
    if kind == _TENSOR:
        return read_tensor(view(values[0]))[1]
    if kind == _STRINGS:
        return tuple(text(item) for item in values)
    if kind == _INTS:
        return tuple(int(i) for i in unpack_ints(values))
    if kind in (_FLOAT, _FLOATS):
        numbers = unpack_floats(values, "<f4")
        if not np.all(np.isfinite(numbers)):
            raise NonFiniteWeights(f"{name!r} is not finite", fix="export finite ones", node=node)
        return float(numbers[0]) if kind == _FLOAT else tuple(float(i) for i in numbers)
    raise InvalidAttribute(f"{name!r} has type {kind}", fix="export plain attributes", node=node)

"""Nodes of a file: operands, attributes, the branches of an If, local functions written out.

What a node means is for others to say. Loops, sub-graphs in functions or in branches, and random
operators are refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from verifier.checker.messages import Parts, check_name, collect, integer, name_of, view
from verifier.checker.tensors import Gapped, Tensor, read_tensor, unpack_floats, unpack_ints
from verifier.checker.wire import MAX_NODES, Value, signed, text
from verifier.errors import (
    ControlFlow,
    CustomOp,
    DtypeUnsupported,
    DuplicateName,
    ExpansionTooLarge,
    InvalidAttribute,
    InvalidName,
    NonDeterministicOp,
    NonFiniteWeights,
    OpsetUnsupported,
    UndefinedName,
)

MAX_NESTING = 64  #: of calls

Functions: TypeAlias = "Mapping[tuple[str, str], Parts]"
Attribute: TypeAlias = (
    "int | float | str | Tensor | Gapped | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
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
    branches: tuple[Branch, ...] = ()  #: of an If: where its condition holds, and else

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value that it may need."""
        return (*self.inputs, *(name for branch in self.branches for name in branch.captured))

    @property
    def name(self) -> str:
        """The tensor that leaves first: what messages and proofs call the node."""
        return next((name for name in self.outputs if name), self.op)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A graph inside of a node, which reads values of the graph around it."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor | Gapped]
    outputs: tuple[str, ...]

    @property
    def made(self) -> tuple[str, ...]:
        """The values that it makes."""
        return (*self.constants, *(name for node in self.nodes for name in node.outputs if name))

    def within(self, tensor: str) -> Branch:
        """The same where it stands: what is v inside is "t/v", t the tensor that leaves the If."""
        names = {name: f"{tensor}/{name}" for name in self.made}
        nodes = (
            replace(
                node,
                inputs=tuple(names.get(name, name) for name in node.inputs),
                outputs=tuple(names.get(name, name) for name in node.outputs),
            )
            for node in self.nodes
        )
        return Branch(
            nodes=tuple(nodes),
            constants={names[name]: tensor for name, tensor in self.constants.items()},
            outputs=tuple(names.get(name, name) for name in self.outputs),
        )

    @property
    def captured(self) -> tuple[str, ...]:
        """The values of the graph around it that it reads."""
        read = {name for node in self.nodes for name in node.inputs if name} | {*self.outputs}
        return tuple(sorted(read - {*self.made}))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where nodes stand: in a graph, or in one call of a function."""

    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, "Attribute"])
    depth: int = 0
    is_inside: bool = False  #: of a function or a branch, where no branches are read

    def value(self, item: Value) -> str:
        """What a value is called in the graph."""
        name = check_name(text(item))
        return self.names.get(name, self.prefix + name) if name else ""


def read_nodes(items: Sequence[Value], functions: Functions) -> list[Node]:
    """The nodes of a graph, in the file's order, with local functions written out.

    A call is its function's nodes. With t the first tensor that leaves it, where it stands, what
    is v inside is "t/v" outside, but for the function's inputs and outputs, which are the call's.

    Raises:
        ModelRefused: a node is not as ONNX defines it, or they are too many.
    """
    return _limited(_written_out(items, functions, _Frame()))


def _limited(found: Iterator[Node]) -> list[Node]:
    nodes: list[Node] = []
    for node in found:
        nodes.append(node)
        if len(nodes) > MAX_NODES:
            raise ExpansionTooLarge(
                f"more than {MAX_NODES} nodes when functions are written out", fix="export less"
            )
    return nodes


def read_functions(items: Sequence[Value], opset: int) -> Functions:
    """The local functions of a file, by domain and name."""
    found: dict[tuple[str, str], Parts] = {}
    for item in items:
        parts = collect(view(item))
        key = name_of(parts, 10), name_of(parts, 1)
        if key in found or key[0] in ("", "ai.onnx") or 13 in parts:
            raise CustomOp(f"function {key}", fix="export without functions")
        for entry in (collect(view(used)) for used in parts.get(9, [])):
            if name_of(entry, 1) in ("", "ai.onnx") and integer(entry, 2, -1) != opset:
                raise OpsetUnsupported(f"function {key} uses another opset", fix="inline it")
        found[key] = parts
    return found


# --- Nodes and their attributes ------------------------------------------------------------------


def _written_out(items: Sequence[Value], functions: Functions, frame: _Frame) -> Iterator[Node]:
    for item in items:
        parts = collect(view(item))
        function = functions.get((name_of(parts, 7), name_of(parts, 4)))
        if function is None or 8 in parts:
            yield _read_node(parts, functions, frame)
        else:
            yield from _called(parts, function, functions, frame)


def _called(parts: Parts, function: Parts, functions: Functions, frame: _Frame) -> Iterator[Node]:
    if frame.depth >= MAX_NESTING:
        raise ExpansionTooLarge("calls are nested too deep", fix="inline the functions")
    inputs, outputs = ([frame.value(item) for item in parts.get(at, [])] for at in (1, 2))
    _check_own(function, inputs, outputs)
    # By the name inside: of two calls in one function, one may leave the function's output.
    label = frame.prefix + next((text(item) for item in parts.get(2, []) if len(view(item))), "")
    names = {text(item): "" for item in function.get(4, [])}
    names.update(zip((text(item) for item in function.get(4, [])), inputs, strict=False))
    copies = list[Node]()
    for item, outside in zip(function.get(5, []), outputs, strict=False):
        name = text(item)
        if name in names:
            one = Node(op="Identity", inputs=(names[name],), outputs=(outside,), attributes={})
            copies.append(one)
        elif outside:
            names[name] = outside
    attributes = _attributes_of_call(parts, function, label, frame)
    inner = _Frame(f"{label}/", names, attributes, frame.depth + 1, is_inside=True)
    yield from _written_out(function.get(7, []), functions, inner)
    yield from copies


def _check_own(function: Parts, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """A function reads what it makes, and is not given more than it takes."""
    name = name_of(function, 1)
    if len(inputs) > len(function.get(4, [])) or len(outputs) > len(function.get(5, [])):
        raise InvalidAttribute(f"function {name!r} is called with too much", fix="export again")
    nodes = [collect(view(item)) for item in function.get(7, [])]
    if not nodes:
        # Calls of nothing could be nested and repeated without an end that is counted.
        raise InvalidAttribute(f"function {name!r} holds no node", fix="export again")
    made = {text(item) for node in nodes for item in node.get(2, [])}
    made |= {text(item) for item in function.get(4, [])} | {""}
    for item in (*(one for node in nodes for one in node.get(1, [])), *function.get(5, [])):
        if text(item) not in made:
            raise UndefinedName(
                f"{text(item)!r} is read in function {name!r} but not made", fix="export again"
            )


def _attributes_of_call(
    parts: Parts, function: Parts, label: str, frame: _Frame
) -> dict[str, Attribute]:
    """Those of the call, and the function's own where the call leaves them out."""
    defaults = dict(_read_attribute(view(item), label) for item in function.get(11, []))
    given = _attributes(parts, label, frame)
    if given.keys() - defaults.keys() - {text(item) for item in function.get(6, [])}:
        raise InvalidAttribute("a function has no such attribute", fix="export again", node=label)
    return {**defaults, **given}


def _read_node(parts: Parts, functions: Functions, frame: _Frame) -> Node:
    inputs = tuple(frame.value(item) for item in parts.get(1, []))
    outputs = tuple(frame.value(item) for item in parts.get(2, []))
    name_of(parts, 3)
    op, domain = name_of(parts, 4), name_of(parts, 7)
    first = next((name for name in outputs if name), op)
    if domain in ("com.microsoft", "ai.onnx.ml"):
        op = f"{domain}::{op}"
    elif domain not in ("", "ai.onnx"):
        raise CustomOp(f"operator {domain}::{op}", fix="export standard operators", node=first)
    if op in _RANDOM:
        raise NonDeterministicOp(f"operator {op}", fix="export without randomness", node=first)
    if op in _SUBGRAPHS and (op != "If" or frame.is_inside):
        raise ControlFlow(f"operator {op}", fix="export one straight graph", node=first)
    return Node(
        op=op,
        inputs=inputs,
        outputs=outputs,
        attributes={} if op == "If" else _attributes(parts, first, frame),
        branches=_branches(parts, functions, first) if op == "If" else (),
    )


def _end(item: Value, node: str) -> str:
    name = name_of(collect(view(item)), 1)
    if not name:
        raise InvalidAttribute("a branch's output has no name", fix="export again", node=node)
    return name


def _branches(parts: Parts, functions: Functions, node: str) -> tuple[Branch, ...]:
    """The two branches of an If, which has no other attributes."""
    found: dict[str, Branch] = {}
    for item in parts.get(5, []):
        attribute = collect(view(item))
        graphs = attribute.get(6, [])
        if len(graphs) != 1 or set(attribute) & _VALUE_FIELDS != {6}:
            raise InvalidAttribute("an If holds two graphs", fix="export again", node=node)
        graph = collect(view(graphs[0]))
        if graph.get(11):
            raise InvalidAttribute("a branch has inputs", fix="export again", node=node)
        frame = _Frame(is_inside=True)
        found[name_of(attribute, 1)] = Branch(
            nodes=tuple(_limited(_written_out(graph.get(1, []), functions, frame))),
            constants=read_constants(graph),
            outputs=tuple(_end(end, node) for end in graph.get(12, [])),
        )
    fits = all(len(one.outputs) == len(parts.get(2, [])) for one in found.values())
    if found.keys() != {"then_branch", "else_branch"} or len(parts.get(5, [])) != 2 or not fits:
        raise InvalidAttribute("an If has two branches", fix="export again", node=node)
    return found["then_branch"], found["else_branch"]


def _attributes(parts: Parts, node: str, frame: _Frame) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    names: set[str] = set()
    for item in parts.get(5, []):
        field_parts = collect(view(item))
        name, reference = name_of(field_parts, 1), name_of(field_parts, 21)
        if name in names:
            raise InvalidAttribute(f"{name!r} is given twice", fix="export again", node=node)
        names.add(name)
        if not (reference and frame.depth):
            attributes[name] = _read_attribute(view(item), node)[1]
        elif _VALUE_FIELDS & field_parts.keys():
            raise InvalidAttribute(f"{name!r} is given twice", fix="export again", node=node)
        elif reference in frame.attributes:
            attributes[name] = frame.attributes[reference]
    return attributes


def read_constants(graph: Parts) -> dict[str, Tensor | Gapped]:
    """The initialisers of a graph."""
    if 15 in graph:
        raise DtypeUnsupported("a sparse initialiser", fix="store dense weights")
    found: dict[str, Tensor | Gapped] = {}
    for item in graph.get(5, []):
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

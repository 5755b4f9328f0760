"""The scanned file as a graph: operators in topological order, constants, inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from verifier.errors import (
    DuplicateName,
    EmptyModel,
    GraphCycle,
    InvalidAttribute,
    UndefinedName,
)
from verifier.onnx_import import tensors, wire
from verifier.onnx_import.ends import Declared, read_ends
from verifier.onnx_import.prescan import STANDARD_DOMAINS
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.certificate import Assumption
    from verifier.onnx_import.wire import Message
    from verifier.property import Reading

AttributeValue: TypeAlias = (
    int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Constant
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One node of the file."""

    op: str  #: with its domain in front where that is not the standard one
    name: str  #: for messages: the node's name, or its first output where it has none
    inputs: tuple[str, ...]  #: "" where an optional operand is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What the file says, of the outputs that are chosen."""

    operators: tuple[Operator, ...]  #: in topological order, those that the chosen outputs need
    constants: Mapping[str, Constant]
    inputs: tuple[Declared, ...]  #: that make up the flat input
    outputs: tuple[Declared, ...]  #: all of the file
    chosen: frozenset[str]  #: of the outputs
    fed: Mapping[str, Constant]  #: inputs that are held constant
    frozen: tuple[Assumption, ...]  #: weights that whoever runs the file may replace
    opset: int
    node_count: int


@dataclass(slots=True)
class _Names:
    """Every name that is defined once."""

    seen: set[str] = field(default_factory=set[str])

    def add(self, name: str) -> None:
        if name in self.seen:
            raise DuplicateName(
                f"{name!r} is defined twice", node=name, fix="give every value its own name"
            )
        self.seen.add(name)


def read(model: Message, reading: Reading) -> Graph:
    """The graph of a scanned model.

    Args:
        model: what the file holds.
        reading: what is bound, chosen and frozen.

    Raises:
        ModelRefused: names, inputs or outputs that make no graph.
        InvalidRequest: the reading names what the file does not have.
    """
    graph = model.one("graph")
    if graph is None:
        raise EmptyModel("the file has no graph", fix="export the model again")
    stored = {
        tensor.text("name"): Constant.of_tensor(tensor) for tensor in graph.each("initializer")
    }
    operators = [_operator(node) for node in graph.each("node")]
    ends = read_ends(model, graph, stored, reading)
    constants = {**stored, **ends.fed}
    _check_names(graph, operators, [value.name for value in ends.inputs], constants)
    known = constants.keys() | {value.name for value in ends.inputs}
    return Graph(
        operators=_needed(_sorted(operators, known), ends.chosen, known),
        constants=constants,
        inputs=ends.inputs,
        outputs=ends.outputs,
        chosen=ends.chosen,
        fed=ends.fed,
        frozen=ends.frozen,
        opset=next(
            entry.number("version")
            for entry in model.each("opset_import")
            if entry.text("domain") in STANDARD_DOMAINS
        ),
        node_count=len(operators),
    )


def _check_names(
    graph: Message,
    operators: Iterable[Operator],
    inputs: Iterable[str],
    constants: Mapping[str, Constant],
) -> None:
    names = _Names()
    for tensor in graph.each("initializer"):
        names.add(tensor.text("name"))
    for name in (*inputs, *(constants.keys() - names.seen)):
        names.add(name)
    for operator in operators:
        for name in operator.outputs:
            if name:
                names.add(name)
    used = [(operator.name, name) for operator in operators for name in operator.inputs if name]
    outputs = [("", value.text("name")) for value in graph.each("output")]
    for where, name in (*used, *outputs):
        if name not in names.seen:
            raise UndefinedName(
                f"{where or 'the graph output'!r} reads {name!r}, which nothing defines",
                node=where or name,
                fix="export the model again",
            )


def _sorted(operators: Sequence[Operator], known: Iterable[str]) -> list[Operator]:
    """Operators after those that they read; the file's order where that is free."""
    readers: dict[str, list[int]] = {}
    waiting: list[int] = []
    known = set(known)
    for index, operator in enumerate(operators):
        missing = {name for name in operator.inputs if name and name not in known}
        waiting.append(len(missing))
        for name in missing:
            readers.setdefault(name, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[Operator] = []
    for index in ready:  # grows while it is walked
        order.append(operators[index])
        for name in operators[index].outputs:
            for reader in readers.get(name, ()):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
    if len(order) < len(operators):
        stuck = next(op for op, count in zip(operators, waiting, strict=True) if count)
        raise GraphCycle(
            f"node {stuck.name!r} depends on its own result",
            node=stuck.name,
            fix="export the model again",
        )
    return order


def _needed(
    operators: Sequence[Operator], outputs: Iterable[str], known: Iterable[str]
) -> tuple[Operator, ...]:
    """Operators that the outputs depend on."""
    wanted = set(outputs) - set(known)
    kept: list[Operator] = []
    for operator in reversed(operators):
        if wanted & set(operator.outputs):
            kept.append(operator)
            wanted |= set(operator.inputs)
    return tuple(reversed(kept))


def _operator(node: Message) -> Operator:
    domain, op = node.text("domain"), node.text("op_type")
    outputs = tuple(node.texts("output"))
    name = node.text("name") or next((output for output in outputs if output), "")
    return Operator(
        op=op if domain in STANDARD_DOMAINS else f"{domain}::{op}",
        name=name,
        inputs=tuple(node.texts("input")),
        outputs=outputs,
        attributes={
            attribute.text("name"): _attribute(attribute, name)
            for attribute in node.each("attribute")
        },
    )


def _attribute(attribute: Message, node: str) -> AttributeValue:
    kind = attribute.number("type")
    if kind not in _ATTRIBUTES:
        raise InvalidAttribute(
            f"attribute {attribute.text('name')!r} of node {node!r} has a type that no supported "
            "operator takes",
            node=node,
            fix="export the model again",
        )
    return _ATTRIBUTES[kind](attribute)


def _float(attribute: Message) -> float:
    return next(iter(tensors.floats(attribute, "f")), 0.0)


def _integer(attribute: Message) -> int:
    return wire.signed(attribute.number("i"))


def _tensor(attribute: Message) -> AttributeValue:
    tensor = attribute.one("t")
    return () if tensor is None else Constant.of_tensor(tensor)


_ATTRIBUTES: Final[Mapping[int, Callable[[Message], AttributeValue]]] = {
    1: _float,
    2: _integer,
    3: lambda attribute: attribute.text("s"),
    4: _tensor,
    6: lambda attribute: tensors.floats(attribute, "floats"),
    7: lambda attribute: tensors.integers(attribute, "ints"),
    8: lambda attribute: tuple(attribute.texts("strings")),
}

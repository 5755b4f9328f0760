"""The scanned file as a graph: operators in topological order, constants, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifier.errors import (
    DuplicateName,
    EmptyModel,
    GraphCycle,
    UndefinedName,
)
from verifier.onnx_import.ends import Declared, read_ends
from verifier.onnx_import.inline import AttributeValue, Operator, operators_of
from verifier.onnx_import.prescan import STANDARD_DOMAINS, function_key
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.certificate import Assumption
    from verifier.onnx_import.wire import Message
    from verifier.property import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What the file says, of the outputs that are chosen."""

    operators: tuple[Operator, ...]  #: in topological order, those that the chosen outputs need
    constants: Mapping[str, Constant]
    inputs: tuple[Declared, ...]  #: that make up the flat input
    outputs: tuple[Declared, ...]  #: all of the file
    chosen: frozenset[str]  #: of the outputs
    counted: tuple[str, ...]  #: whose sizes the indices of chosen ones rest on
    fed: Mapping[str, Constant]  #: inputs that are held constant
    frozen: tuple[Assumption, ...]  #: weights that whoever runs the file may replace
    opset: int
    node_count: int  #: of the file's graph, its functions not written out
    idealises: bool = False  #: whether known functions that jump stand for continuous ones


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
    functions = {function_key(item, "name"): item for item in model.each("functions")}
    operators = operators_of(graph.each("node"), functions)
    ends = read_ends(model, graph, stored, reading)
    constants = {**stored, **ends.fed}
    _check_names(graph, operators, [value.name for value in ends.inputs], constants)
    known = constants.keys() | {value.name for value in ends.inputs}
    return Graph(
        operators=_needed(in_order(operators, known), {*ends.chosen, *ends.counted}, known),
        constants=constants,
        inputs=ends.inputs,
        outputs=ends.outputs,
        chosen=ends.chosen,
        counted=ends.counted,
        fed=ends.fed,
        frozen=ends.frozen,
        opset=next(
            entry.number("version")
            for entry in model.each("opset_import")
            if entry.text("domain") in STANDARD_DOMAINS
        ),
        node_count=len(graph.each("node")),
        idealises=reading.idealises,
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
    for name in (name for operator in operators for name in operator.outputs if name):
        names.add(name)
    for operator in operators:
        for branch in operator.branches:
            inside = _Names(set(names.seen))  # the two branches of one node may share names
            for name in (*branch.made, *branch.within(operator.outputs[0]).made):
                inside.add(name)
    used = [(operator.name, name) for operator in operators for name in operator.reads if name]
    _check_defined(names, (*used, *(("", value.text("name")) for value in graph.each("output"))))


def _check_defined(names: _Names, used: Iterable[tuple[str, str]]) -> None:
    for where, name in used:
        if name not in names.seen:
            raise UndefinedName(
                f"{where or 'the graph output'!r} reads {name!r}, which nothing defines",
                node=where or name,
                fix="export the model again",
            )


def in_order(operators: Sequence[Operator], known: Iterable[str]) -> list[Operator]:
    """Operators after those that they read; the file's order where that is free."""
    readers: dict[str, list[int]] = {}
    waiting: list[int] = []
    known = set(known)
    for index, operator in enumerate(operators):
        missing = {name for name in operator.reads if name and name not in known}
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
    """Operators that the outputs depend on, and all that stand in one function call with them."""
    places = reached(operators, set(outputs) - set(known))
    return tuple(operator for operator in operators if operator.place in places)


def reached(operators: Sequence[Operator], names: Iterable[str]) -> frozenset[int]:
    """The places of the nodes that tensors depend on. A call needs whatever it is given."""
    makers = {name: operator.place for operator in operators for name in operator.outputs if name}
    parts: dict[int, list[Operator]] = {}
    for operator in operators:
        parts.setdefault(operator.place, []).append(operator)
    found: set[int] = set()
    pending = [makers[name] for name in names if name in makers]
    while pending:
        place = pending.pop()
        if place not in found:
            found.add(place)
            reads = (name for operator in parts[place] for name in operator.reads)
            pending += [makers[name] for name in reads if name in makers]
    return frozenset(found)


__all__ = ["AttributeValue", "Graph", "Operator", "in_order", "reached", "read"]

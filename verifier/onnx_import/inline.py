"""Nodes as operators: local functions written out, the branches of an If read as graphs.

A call of a function becomes its nodes. With t the first tensor that leaves the call, where it
stands, what is v inside is "t/v" outside, except for the function's own inputs and outputs, which
are the call's; the checker names them alike. The pre-scan has counted what is written out, and
refused recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from verifier.errors import ControlFlow, ExpansionTooLarge, InvalidAttribute
from verifier.onnx_import import tensors, wire
from verifier.onnx_import.prescan import BRANCHES, STANDARD_DOMAINS, function_key
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.onnx_import.wire import Message

AttributeValue: TypeAlias = (
    int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Constant
)
Functions: TypeAlias = "Mapping[str, Message]"

MAX_NESTING: Final = 64  #: of calls


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One node of the file."""

    op: str  #: with its domain in front where that is not the standard one
    name: str  #: for messages: the node's name, or its first output where it has none
    inputs: tuple[str, ...]  #: "" where an optional operand is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    branches: tuple[Branch, ...] = ()  #: of an If: what is computed where the condition holds, else
    place: int = 0  #: among the graph's nodes, of the one that it is, or is a part of

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value that it may need."""
        captured = (name for branch in self.branches for name in branch.captured)
        return (*self.inputs, *captured)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """A graph inside of a node. It reads values of the graph around it."""

    operators: tuple[Operator, ...]
    constants: Mapping[str, Constant]
    outputs: tuple[str, ...]

    @property
    def made(self) -> tuple[str, ...]:
        """The values that it defines."""
        results = (name for operator in self.operators for name in operator.outputs if name)
        return (*self.constants, *results)

    def within(self, tensor: str) -> Branch:
        """The same, with what is v in it called "t/v": t is the tensor that leaves the If."""
        names = {name: f"{tensor}/{name}" for name in self.made}

        def renamed(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(names.get(value, value) for value in values)

        return Branch(
            operators=tuple(
                replace(one, inputs=renamed(one.inputs), outputs=renamed(one.outputs))
                for one in self.operators
            ),
            constants={names[name]: value for name, value in self.constants.items()},
            outputs=renamed(self.outputs),
        )

    @property
    def captured(self) -> tuple[str, ...]:
        """The values of the graph around it that it reads."""
        read = (name for operator in self.operators for name in operator.inputs if name)
        own = set(self.made)
        return tuple(name for name in dict.fromkeys((*read, *self.outputs)) if name not in own)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where nodes stand: in a graph, or in one call of a function."""

    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict[str, str])  #: of inputs and outputs
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, "AttributeValue"])
    depth: int = 0

    def outside(self, name: str) -> str:
        """What a value is called outside of the function."""
        return self.names.get(name, self.prefix + name) if name else ""


def operators_of(nodes: Sequence[Message], functions: Functions) -> list[Operator]:
    """The operators of a graph's nodes, in their order.

    Raises:
        ModelRefused: attributes that do not fit, calls that are nested too deep.
    """
    return [
        replace(operator, place=place)
        for place, node in enumerate(nodes)
        for operator in _written_out([node], functions, _Frame())
    ]


def _written_out(
    nodes: Sequence[Message], functions: Functions, frame: _Frame
) -> Iterator[Operator]:
    for node in nodes:
        function = functions.get(function_key(node))
        operator = _operator(node, functions, frame)
        if function is None:
            yield operator
        else:
            # By the name inside: of two calls in one function, one may leave the function's output.
            first = next((name for name in node.texts("output") if name), "")
            yield from _called(operator, function, functions, (frame.prefix + first, frame.depth))


def _called(
    call: Operator, function: Message, functions: Functions, place: tuple[str, int]
) -> Iterator[Operator]:
    """The nodes of a function in the place of a call: (its name, how many calls are around it)."""
    label, depth = place
    if MAX_NESTING <= depth:
        raise ExpansionTooLarge(
            f"node {call.name!r}: calls are nested more than {MAX_NESTING} deep",
            node=call.name,
            fix="export the model without local functions",
        )
    entered = function.texts("input")
    names = dict.fromkeys(entered, "") | dict(zip(entered, call.inputs, strict=False))
    copies: list[Operator] = []
    for name, outside in zip(function.texts("output"), call.outputs, strict=False):
        if name in names:  # passed on, or left twice: the call's result is a copy
            ends = (names[name],), (outside,)
            copies.append(Operator("Identity", outside, *ends, {}))
        elif outside:
            names[name] = outside
    attributes = _call_attributes(call, function)
    frame = _Frame(f"{label}/", names, attributes, depth + 1)
    yield from _written_out(function.each("node"), functions, frame)
    yield from copies


def _call_attributes(call: Operator, function: Message) -> Mapping[str, AttributeValue]:
    """The attributes of a call, and the function's own values of those that are left out."""
    defaults = {
        item.text("name"): _attribute(item, call.name) for item in function.each("attribute_proto")
    }
    unknown = sorted(call.attributes.keys() - defaults.keys() - set(function.texts("attribute")))
    if unknown:
        raise InvalidAttribute(
            f"node {call.name!r}: its function has no attribute {unknown[0]!r}",
            node=call.name,
            fix="export the model again",
        )
    return {**defaults, **call.attributes}


def _operator(node: Message, functions: Functions, frame: _Frame) -> Operator:
    domain, op = node.text("domain"), node.text("op_type")
    outputs = tuple(frame.outside(name) for name in node.texts("output"))
    own = node.text("name")
    name = frame.prefix + own if own else next((output for output in outputs if output), "")
    attributes: dict[str, AttributeValue] = {}
    graphs: dict[str, Message] = {}
    for item in node.each("attribute"):
        inside = item.one("g")
        reference = item.text("ref_attr_name")
        if inside is not None:
            graphs[item.text("name")] = inside
        elif not reference:
            attributes[item.text("name")] = _attribute(item, name)
        elif reference in frame.attributes:
            attributes[item.text("name")] = frame.attributes[reference]
    return Operator(
        op=op if domain in STANDARD_DOMAINS else f"{domain}::{op}",
        name=name,
        inputs=tuple(frame.outside(value) for value in node.texts("input")),
        outputs=outputs,
        attributes=attributes,
        branches=_branches(graphs, name, functions) if graphs else (),
    )


def _branches(graphs: Mapping[str, Message], node: str, functions: Functions) -> tuple[Branch, ...]:
    if set(graphs) != set(BRANCHES):
        raise ControlFlow(
            f"node {node!r} (If) needs two branches",
            node=node,
            fix="export with fixed control flow: trace the model on an example input",
        )
    return tuple(_branch(graphs[name], functions) for name in BRANCHES)


def _branch(graph: Message, functions: Functions) -> Branch:
    return Branch(
        operators=tuple(operators_of(graph.each("node"), functions)),
        constants={
            tensor.text("name"): Constant.of_tensor(tensor) for tensor in graph.each("initializer")
        },
        outputs=tuple(value.text("name") for value in graph.each("output")),
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

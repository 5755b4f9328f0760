"""The scanned file as a graph: operators in topological order, constants, one input, one output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from verifier.errors import (
    DtypeUnsupported,
    DuplicateName,
    DynamicShape,
    EmptyModel,
    GraphCycle,
    InvalidAttribute,
    OverridableInitializer,
    SeveralInputs,
    UndefinedName,
)
from verifier.onnx_import import tensors, wire
from verifier.onnx_import.prescan import STANDARD_DOMAINS
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.onnx_import.wire import Message

AttributeValue: TypeAlias = (
    int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Constant
)
Dimensions: TypeAlias = tuple[int | str, ...]  #: a string is a symbolic dimension


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One node of the file."""

    op: str  #: with its domain in front where that is not the standard one
    name: str  #: for messages: the node's name, or its first output where it has none
    inputs: tuple[str, ...]  #: "" where an optional operand is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Declared:
    """A graph input or output as the file declares it."""

    name: str
    dtype: str
    dims: Dimensions | None

    @property
    def has_open_batch(self) -> bool:
        """Whether the leading dimension is symbolic."""
        return bool(self.dims) and isinstance(self.dims[0], str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What the file says."""

    operators: tuple[Operator, ...]  #: in topological order, those that the output needs
    constants: Mapping[str, Constant]
    input: Declared
    output: Declared
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


def read(model: Message) -> Graph:
    """The graph of a scanned model.

    Raises:
        ModelRefused: names, inputs or outputs that do not make a graph with one of each.
    """
    graph = model.one("graph")
    if graph is None:
        raise EmptyModel("the file has no graph", fix="export the model again")
    constants = {
        tensor.text("name"): Constant.of_tensor(tensor) for tensor in graph.each("initializer")
    }
    operators = [_operator(node) for node in graph.each("node")]
    inputs = _data_inputs(model, graph, constants)
    _check_names(graph, operators, [value.text("name") for value in inputs])
    outputs = graph.each("output")
    if not inputs or not outputs:
        raise EmptyModel(
            "the graph has no input or no output", fix="export a model with an input and an output"
        )
    declared = [_declared(value) for value in (*inputs, *outputs)]
    if 2 < len(declared):
        names = [value.name for value in declared]
        raise SeveralInputs(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs ({names}); one input "
            "and one output are supported",
            node=names[1],
            fix="export a wrapper that concatenates them into one",
        )
    known = constants.keys() | {declared[0].name}
    return Graph(
        operators=_needed(_sorted(operators, known), declared[1].name, known),
        constants=constants,
        input=_checked_input(declared[0]),
        output=declared[1],
        opset=next(
            entry.number("version")
            for entry in model.each("opset_import")
            if entry.text("domain") in STANDARD_DOMAINS
        ),
        node_count=len(operators),
    )


def _data_inputs(
    model: Message, graph: Message, constants: Mapping[str, Constant]
) -> list[Message]:
    """Graph inputs without the initialisers that IR 3 lists there as well."""
    names = [value.text("name") for value in graph.each("input")]
    if len(set(names)) < len(names):
        twice = next(name for name in names if 1 < names.count(name))
        raise DuplicateName(f"input {twice!r} is listed twice", node=twice, fix="list it once")
    overridable = [name for name in names if name in constants]
    if overridable and 4 <= model.number("ir_version"):
        raise OverridableInitializer(
            f"weight {overridable[0]!r} is also a graph input: whoever runs the model may replace "
            "it",
            node=overridable[0],
            fix="export with keep_initializers_as_inputs=False",
        )
    return [value for value in graph.each("input") if value.text("name") not in constants]


def _check_names(
    graph: Message,
    operators: Iterable[Operator],
    inputs: Iterable[str],
) -> None:
    names = _Names()
    for tensor in graph.each("initializer"):
        names.add(tensor.text("name"))
    for name in inputs:
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
    operators: Sequence[Operator], output: str, known: Iterable[str]
) -> tuple[Operator, ...]:
    """Operators that the output depends on."""
    wanted = {output} - set(known)
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


def _declared(value: Message) -> Declared:
    name = value.text("name")
    kind = value.one("type")
    tensor = kind.one("tensor_type") if kind is not None else None
    if tensor is None:
        raise DtypeUnsupported(
            f"{name!r} is no tensor; tensors are supported",
            node=name,
            fix="export a model that takes and returns one tensor",
        )
    shape = tensor.one("shape")
    dims = None if shape is None else tuple(_dimension(dim) for dim in shape.each("dim"))
    return Declared(name, tensors.element_type(tensor.number("elem_type"), name).name, dims)


def _dimension(dim: Message) -> int | str:
    if dim.has("dim_value"):
        size = wire.signed(dim.number("dim_value"))
        return size if 0 <= size else "?"
    return dim.text("dim_param") or "?"


def _checked_input(declared: Declared) -> Declared:
    """A float tensor, with no symbolic dimension but a leading one."""
    if declared.dtype not in {"float16", "float32", "float64"}:
        raise DtypeUnsupported(
            f"input {declared.name!r} has type {declared.dtype}; float16, float32 and float64 are "
            "supported",
            node=declared.name,
            fix="export the model with a float input",
        )
    if declared.dims is None or any(isinstance(dim, str) for dim in declared.dims[1:]):
        raise DynamicShape(
            f"input {declared.name!r} has shape {_shown(declared.dims)}; only the leading "
            "dimension may be symbolic",
            node=declared.name,
            fix="export with fixed dimensions (no dynamic_axes beyond the batch)",
        )
    return declared


def _shown(dims: Dimensions | None) -> str:
    return "unknown" if dims is None else str(list(dims))


_ATTRIBUTES: Final[Mapping[int, Callable[[Message], AttributeValue]]] = {
    1: _float,
    2: _integer,
    3: lambda attribute: attribute.text("s"),
    4: _tensor,
    6: lambda attribute: tensors.floats(attribute, "floats"),
    7: lambda attribute: tensors.integers(attribute, "ints"),
    8: lambda attribute: tuple(attribute.texts("strings")),
}

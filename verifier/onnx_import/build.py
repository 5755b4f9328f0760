"""From the graph of the file to a network: each operator folded, recognised or converted."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Final

from verifier.certificate import Pattern
from verifier.errors import (
    DtypeUnsupported,
    LipcertError,
    OpUnsupported,
    ShapeMismatch,
)
from verifier.network.graph import Network, Node
from verifier.network.nodes import Affine
from verifier.onnx_import import fold, tensors
from verifier.onnx_import.call import Attributes, Call, Unrepresented
from verifier.onnx_import.convert import RULES, blocked, recurrent
from verifier.onnx_import.convert.affine import moved
from verifier.onnx_import.convert.emitted import Emitted, tensor
from verifier.onnx_import.moves import MOVES
from verifier.onnx_import.patterns import recognise, trace
from verifier.onnx_import.patterns.compounds import Written, compound
from verifier.onnx_import.patterns.jumps import known_jump
from verifier.onnx_import.patterns.normals import normal
from verifier.onnx_import.patterns.turns import turned
from verifier.onnx_import.values import (
    Blocked,
    Constant,
    Opaque,
    Shape,
    Signal,
    Value,
    checked_size,
)

if TYPE_CHECKING:
    from verifier.onnx_import.patterns.trace import Trace
    from verifier.onnx_import.reader import Declared, Graph, Operator

MAX_REASONS: Final = 64
MAX_BASES: Final = 24  #: earlier tensors that one is known as a function of


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The network, or what keeps the graph from being one."""

    network: Network | None
    blocked: Blocked | None
    input_shape: Shape
    output_shape: Shape | None
    parameters: int


@dataclass(slots=True)
class _Builder:
    graph: Graph
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    patterns: list[Pattern] = field(default_factory=list["Pattern"])
    producers: dict[str, Operator] = field(default_factory=dict[str, "Operator"])

    def run(self) -> None:
        """Every operator, in topological order."""
        self.values |= self.graph.constants
        declared = self.graph.input
        shape = checked_size(bound_shape(declared), declared.name)
        traces = trace.base(declared.name, shape)
        self.values[declared.name] = Signal("", shape, declared.dtype, traces)
        for operator in self.graph.operators:
            call = self._call(operator)
            self.producers |= dict.fromkeys(operator.outputs, operator)
            for name, value in zip(operator.outputs, self._results(call), strict=False):
                self.values[name] = value

    def _call(self, operator: Operator) -> Call:
        inputs = tuple(self.values[name] if name else None for name in operator.inputs)
        attributes = Attributes(operator.name, operator.attributes)
        return Call(operator, inputs, attributes, self.graph.opset)

    def _results(self, call: Call) -> list[Value]:
        try:
            results = self._evaluated(call)
        except Unrepresented as unrepresented:
            return [Opaque(None, "", (unrepresented.reason,)) for _ in call.operator.outputs]
        except LipcertError:
            raise
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            raise ShapeMismatch(
                f"node {call.name!r} ({call.op}): its operands and attributes do not fit together "
                f"({error})",
                node=call.name,
                fix="export the model again with a current exporter",
            ) from error
        call.attributes.check_all_known()
        extra = len(call.operator.outputs) - len(results)
        return [*results, *(Opaque(None, "", (_extra_output(call),)) for _ in range(extra))]

    def _evaluated(self, call: Call) -> list[Value]:
        if call.op in fold.SHAPE_FOLDERS and call.inputs:
            return [fold.SHAPE_FOLDERS[call.op](call)]
        if all(value is None or isinstance(value, Constant) for value in call.inputs):
            return list(fold.fold(call))
        traced = trace.traces(call)
        if len(traced) == 1:
            shape, found = traced[0]
            recognised = recognise(call, shape, found, self.values)
            if recognised is not None:
                self.patterns.append(recognised.pattern)
                return [self._emit(call, recognised.emitted, _dtype(call), {})]
        written = Written(self.producers, self.values, self.nodes)
        written_out = normal(call, written)
        if written_out is not None:
            pattern = Pattern(kind="normalise", input=written_out.source, output=call.output)
            self.patterns.append(pattern)
            return [self._emit(call, written_out.emitted, _dtype(call), {})]
        mirror = turned(call, written, self.graph.input.name)
        if mirror is not None:
            pattern = Pattern(kind="turned-mirror", input=mirror.source, output=call.output)
            self.patterns.append(pattern)
            call.attributes.ignore(*call.attributes.values)
            return [self._emit(call, mirror.emitted, self._dtype_of(mirror.emitted), {})]
        try:
            return self._converted(call, traced)
        except Unrepresented as unrepresented:
            reasons = (unrepresented.reason,)
            return [
                Opaque(shape, _dtype_or_none(call), reasons, found) for shape, found in traced
            ] or _raised(unrepresented)

    def _converted(self, call: Call, traced: list[tuple[Shape, dict[str, Trace]]]) -> list[Value]:
        """Operator by operator; a blocked operand blocks the result, and its trace goes on."""
        opaque = call.opaque_inputs()
        if opaque:
            return self._still_opaque(call, opaque, traced)
        dtype = _dtype(call)
        if call.op in MOVES:
            made = moved(call)
            found = [traces for _, traces in traced] or [{} for _ in made]
            return [
                self._emit(call, part, dtype, traces)
                for part, traces in zip(made, found, strict=True)
            ]
        if call.op in recurrent.RULES:
            return [self._emit(call, part, dtype, {}) for part in recurrent.RULES[call.op](call)]
        whole = compound(call, Written(self.producers, self.values, self.nodes))
        if whole is None:
            if call.op not in RULES or not call.output:
                raise blocked.reason(call)
            whole = RULES[call.op](call)
        if call.op == "TopK" and len(whole.nodes) == 1:
            self.patterns.append(
                Pattern(kind="groupsort", input=call.operator.inputs[0], output=call.output)
            )
        return [self._emit(call, whole, dtype, traced[0][1] if traced else {})]

    def _still_opaque(
        self, call: Call, opaque: list[Opaque], traced: list[tuple[Shape, dict[str, Trace]]]
    ) -> list[Value]:
        whole = compound(call, Written(self.producers, self.values, self.nodes))
        if whole is not None:
            call.attributes.ignore(*call.attributes.values)
            return [self._emit(call, whole, self._dtype_of(whole), {})]
        call.attributes.ignore(*call.attributes.values)
        reasons = [why for value in opaque for why in value.reasons]
        named = known_jump(call, Written(self.producers, self.values, self.nodes))
        if named is not None:
            # Before the comparison that it is made of, behind earlier ones of its kind.
            first = sum(why.op == call.op for why in reasons)
            reasons.insert(first, named.reason)
        elif call.op not in RULES and call.op not in MOVES:
            reasons.append(blocked.reason(call).reason)
        kept = tuple(dict.fromkeys(reasons))[:MAX_REASONS]
        if traced:
            return [Opaque(shape, opaque[0].dtype, kept, found) for shape, found in traced]
        return [Opaque(None, "", kept) for _ in call.operator.outputs]

    def _dtype_of(self, made: Emitted) -> str:
        """The type of the signal that a recognised function starts from."""
        source = made.nodes[0].sources[0]
        return next(
            value.dtype
            for value in self.values.values()
            if isinstance(value, Signal) and value.node == source
        )

    def _emit(self, call: Call, made: Emitted, dtype: str, traces: dict[str, Trace]) -> Signal:
        """Adds nodes; the result is a base of its own unless it only rearranges another."""
        self.nodes |= {node.name: node for node in made.nodes}
        name = made.nodes[-1].name
        rearranged = call.op in MOVES and any(
            prod(made.shape) == self._size(base) for base in traces
        )
        bases = traces if rearranged else traces | trace.base(name, made.shape)
        newest = dict(list(bases.items())[-MAX_BASES:])
        return Signal(name, made.shape, dtype, newest)

    def _size(self, name: str) -> int:
        value = self.values[name]
        return value.size if isinstance(value, Signal) else -1


def _raised(unrepresented: Unrepresented) -> list[Value]:
    raise unrepresented


def _dtype_or_none(call: Call) -> str:
    """The type of a blocked result; comparisons have none that matters."""
    return next((v.dtype for v in call.inputs if isinstance(v, Signal)), "")


def _dtype(call: Call) -> str:
    """The type of the result; float types do not mix."""
    if call.op == "Cast":
        kind = tensors.element_type(call.attributes.integer("to"), call.name)
        if not kind.is_float:
            raise blocked.reason(call)
        return kind.name
    floats = {
        value.dtype
        for value in call.inputs
        if value is not None and value.dtype.startswith("float")
    }
    if len(floats) != 1:
        raise DtypeUnsupported(
            f"node {call.name!r} ({call.op}) mixes {' and '.join(sorted(floats))}",
            node=call.name,
            fix="export the model in one float type",
        )
    return floats.pop()


def _extra_output(call: Call) -> Blocked:
    return call.blocked(
        "discontinuous-op",
        "its further outputs (indices, masks) jump",
        "use the values only",
    ).reason


def bound_shape(declared: Declared) -> Shape:
    """The declared shape of an input, with 1 for a symbolic batch."""
    return tuple(1 if isinstance(dim, str) else dim for dim in declared.dims or ())


def build(graph: Graph) -> Built:
    """The network of a graph.

    Raises:
        ModelRefused: an operator that no rule covers, shapes that do not fit, too much to compute.
    """
    builder = _Builder(graph)
    builder.run()
    value = builder.values[graph.output.name]
    input_shape = bound_shape(graph.input)
    if graph.input.has_open_batch:
        input_shape = input_shape[1:]
    parameters = sum(
        constant.array.size for constant in graph.constants.values() if constant.is_float
    )
    if isinstance(value, Opaque):
        reason = _foremost(value.reasons)
        if reason.code == "unsupported-op":
            raise OpUnsupported(reason.detail, node=reason.node, fix=reason.fix)
        return Built(
            network=None,
            blocked=reason,
            input_shape=input_shape,
            output_shape=_declared_shape(graph.output),
            parameters=parameters,
        )
    _check_output(graph, value)
    output_shape = value.shape
    if graph.output.has_open_batch and output_shape[:1] == (1,):
        output_shape = output_shape[1:]
    return Built(
        network=_network(builder, value),
        blocked=None,
        input_shape=input_shape,
        output_shape=output_shape,
        parameters=parameters,
    )


def _network(builder: _Builder, value: Signal | Constant) -> Network:
    size = prod(bound_shape(builder.graph.input))
    if isinstance(value, Constant):
        name = builder.graph.output.name
        node = Affine(name, (), tensor(value.array.reshape(-1)))
        return Network(nodes=(node,), input_size=size, output=name)
    kept = _live(list(builder.nodes.values()), value.node)
    names = {node.name for node in kept}
    return Network(
        nodes=kept,
        input_size=size,
        output=value.node,
        patterns=tuple(pattern for pattern in builder.patterns if pattern.output in names),
    )


def _live(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on."""
    wanted = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted |= set(node.sources)
    return tuple(reversed(kept))


def _foremost(reasons: tuple[Blocked, ...]) -> Blocked:
    """What is said of a blocked output.

    A jump decides, then what has no global bound.
    """
    for code in ("discontinuous-op", "not-lipschitz-globally"):
        for reason in reasons:
            if reason.code == code:
                return reason
    return reasons[0]


def _declared_shape(declared: Declared) -> Shape | None:
    dims = declared.dims
    if dims is None:
        return None
    dims = dims[1:] if declared.has_open_batch else dims
    fixed = tuple(dim for dim in dims if isinstance(dim, int))
    return fixed if len(fixed) == len(dims) else None


def _check_output(graph: Graph, value: Signal | Constant) -> None:
    declared = graph.output
    if declared.dtype != value.dtype:
        raise ShapeMismatch(
            f"output {declared.name!r} is declared as {declared.dtype} and is {value.dtype}",
            node=declared.name,
            fix="export the model again",
        )
    if not value.is_float if isinstance(value, Constant) else False:
        raise DtypeUnsupported(
            f"output {declared.name!r} has type {value.dtype}",
            node=declared.name,
            fix="export a model with a float output",
        )
    if declared.dims is None:
        return
    fits = len(declared.dims) == len(value.shape) and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(declared.dims, value.shape, strict=True)
    )
    if not fits:
        raise ShapeMismatch(
            f"output {declared.name!r} is declared as {list(declared.dims)} and has shape "
            f"{list(value.shape)}",
            node=declared.name,
            fix="export the model again with one fixed batch size, or a symbolic one",
        )


__all__ = ["Built", "bound_shape", "build"]

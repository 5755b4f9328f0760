"""From the graph of the file to a network: each operator folded, recognised or converted."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.certificate import Idealised, Pattern
from verifier.errors import (
    ControlFlow,
    DtypeUnsupported,
    ExpansionTooLarge,
    LipcertError,
    OpUnsupported,
    ShapeMismatch,
)
from verifier.network.graph import Network, Node
from verifier.network.nodes import Term, linear
from verifier.onnx_import import counted, fold, masks, tensors
from verifier.onnx_import.call import Attributes, Call, Unrepresented
from verifier.onnx_import.convert import RULES, blocked, integral, recurrent, steps
from verifier.onnx_import.convert.affine import moved
from verifier.onnx_import.convert.emitted import Emitted, gather
from verifier.onnx_import.joined import joined, live
from verifier.onnx_import.living import idle
from verifier.onnx_import.masks import opened
from verifier.onnx_import.moves import MOVES
from verifier.onnx_import.patterns import recognise, trace
from verifier.onnx_import.patterns.compounds import Written, compound
from verifier.onnx_import.patterns.idealised import idealised
from verifier.onnx_import.patterns.jumps import known_jump
from verifier.onnx_import.patterns.normals import normal
from verifier.onnx_import.patterns.seconds import second_order
from verifier.onnx_import.patterns.turns import turned
from verifier.onnx_import.ports import (
    Port,
    input_ports,
    output_ports,
    refuse_empty,
    refuse_unreadable,
)
from verifier.onnx_import.reader import in_order
from verifier.onnx_import.unread import shape_of
from verifier.onnx_import.values import (
    Blocked,
    Constant,
    Grid,
    Masked,
    Opaque,
    Shape,
    Signal,
    Stepped,
    Value,
    checked_size,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.onnx_import.patterns.trace import Trace
    from verifier.onnx_import.reader import Graph, Operator

MAX_REASONS: Final = 64
MAX_GROWTH: Final = 2**22  #: entries by which operators on constants may add to what they are given
MAX_BASES: Final = 24  #: earlier tensors that one is known as a function of


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The network of the outputs that can be read, and what blocks the others."""

    network: Network | None  #: None where no chosen output can be read
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: int
    grids: Mapping[str, Grid]  #: by node: what the file rounds there, and the network does not

    @property
    def blocked(self) -> Blocked | None:
        """Why a chosen output cannot be read; None where all can be."""
        return next((port.blocked for port in self.outputs if port.blocked is not None), None)


@dataclass(slots=True)
class _Builder:
    graph: Graph
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    patterns: list[Pattern] = field(default_factory=list["Pattern"])
    idealised: list[Idealised] = field(default_factory=list[Idealised])
    grids: dict[str, Grid] = field(default_factory=dict[str, Grid])
    grown: int = 0
    producers: dict[str, Operator] = field(default_factory=dict[str, "Operator"])
    unread: dict[str, Shape] = field(default_factory=dict[str, "Shape"])  #: of what is opaque

    def run(self) -> None:
        """Every operator, in topological order."""
        self.values |= {name: opened(one) for name, one in self.graph.constants.items()}
        self._enter()
        self._follow(self.graph.operators)

    def _follow(self, operators: Sequence[Operator]) -> None:
        for operator in operators:
            call = self._call(operator)
            self.producers |= dict.fromkeys(operator.outputs, operator)
            for name, value in zip(operator.outputs, self._results(call), strict=False):
                if value.shape is not None:
                    tensors.check_axes(value.shape, name)
                self.values[name] = value
            self._note_shape(call)

    def _note_shape(self, call: Call) -> None:
        """The shape of a first result that is opaque, where it is known all the same."""
        first = self.values.get(call.output)
        if isinstance(first, Opaque) and first.shape is None:
            names = [name for name in call.operator.inputs if name]
            shapes = [self.values[name].shape for name in names]
            found = shape_of(
                call,
                [
                    self.unread.get(name) if shape is None else shape
                    for name, shape in zip(names, shapes, strict=True)
                ],
            )
            self.unread |= {} if found is None else {call.output: found}

    def _enter(self) -> None:
        """The inputs: the network's own input, or parts of it where there are several."""
        sizes = [prod(declared.shape or ()) for declared in self.graph.inputs]
        start = 0
        for declared, size in zip(self.graph.inputs, sizes, strict=True):
            shape = checked_size(declared.shape or (), declared.name)
            node = "" if len(sizes) == 1 else declared.name
            if node:
                part = gather(np.arange(start, start + size), sum(sizes))
                self.nodes[node] = linear(node, [Term("", part)])
            traces = trace.base(declared.name, shape)
            self.values[declared.name] = Signal(node, shape, declared.dtype, traces)
            start += size

    def _call(self, operator: Operator) -> Call:
        inputs = tuple(self.values[name] if name else None for name in operator.inputs)
        attributes = Attributes(operator.name, operator.attributes)
        return Call(operator, inputs, attributes, self.graph.opset)

    def _results(self, call: Call) -> list[Value]:
        if call.operator.branches:
            return self._branched(call)
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

    def _branched(self, call: Call) -> list[Value]:
        """What leaves an If: the results of the branch that its condition, a constant, picks."""
        condition = call.input(0)
        if not isinstance(condition, Constant) or condition.array.size != 1:
            raise ControlFlow(
                f"node {call.name!r} (If): its condition depends on the input",
                node=call.name,
                fix="export with fixed control flow: trace the model on an example input",
            )
        first, second = call.operator.branches
        branch = (first if condition.array.reshape(-1)[0] else second).within(call.output)
        again = sorted(self.values.keys() & {*branch.made})
        if again:
            raise ControlFlow(
                f"node {call.name!r} (If): {again[0]!r}, as what it makes is called, is taken",
                node=call.name,
                fix="export without control flow, or with names that are used once",
            )
        self.values |= {name: opened(one) for name, one in branch.constants.items()}
        self._follow(in_order(branch.operators, (*branch.constants, *branch.captured)))
        return [self.values[name] for name in branch.outputs]

    def _without_signals(self, call: Call) -> list[Value] | None:
        """What leaves where constants decide it, or minus infinity; None elsewhere."""
        if call.op in fold.SHAPE_FOLDERS and call.inputs:
            return [fold.SHAPE_FOLDERS[call.op](call)]
        if call.op != "Attention" and any(isinstance(value, Masked) for value in call.inputs):
            softmax = masks.softmax_of(call)
            if softmax is None:
                return masks.passed(call, self._evaluated)
            return [self._emit(call, softmax, _dtype(call), {})]
        if all(value is None or isinstance(value, Constant) for value in call.inputs):
            return [opened(result) for result in self._folded(call)]
        false = masks.never_nan(call, self.nodes)
        return None if false is None else [false]

    def _evaluated(self, call: Call) -> list[Value]:
        known = self._without_signals(call)
        if known is not None:
            return known
        if not call.opaque_inputs() and steps.rounds(call):
            return self._stepped(call)
        return self._of_signals(call)

    def _of_signals(self, call: Call) -> list[Value]:
        """A pattern that ends here, or the operator by itself."""
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
        mirror = turned(call, written, self.graph.inputs[0].name)
        mirror = mirror or second_order(call, written, self.graph.inputs[0].name)
        if mirror is not None:
            pattern = Pattern(kind=mirror.kind, input=mirror.source, output=call.output)
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

    def _stepped(self, call: Call) -> list[Value]:
        """What leaves an operator that integers enter or leave."""
        if not self.graph.idealises:
            raise blocked.reason(call)
        if call.op in counted.QUANTISERS:
            return [self._rounded(call, steps.quantised(call))]
        if call.op in counted.DEQUANTISERS:
            return [steps.dequantised(call)]
        if call.op in integral.LAYOUTS:
            whole = integral.rounded(call)
            if isinstance(whole, steps.Rounded):
                return [self._rounded(call, whole)]
            return [self._emit(call, whole, _dtype(call), {})]
        moved, grid = steps.moved_operands(call)
        return [
            Stepped(value, grid) if isinstance(value, Signal) else value
            for value in self._converted(moved, [])
        ]

    def _rounded(self, call: Call, made: steps.Rounded) -> Stepped:
        """Integers, by the continuous function that stands for what they count."""
        signal = self._emit(call, made.emitted, _dtype(call), {})
        self.grids[signal.node] = made.grid
        self.idealised.append(
            Idealised(
                node=call.output,
                pattern="quantise-dequantise",
                absolute=made.deviation,
                relative=0.0,
            )
        )
        return Stepped(signal, made.grid)

    def _folded(self, call: Call) -> list[Constant]:
        """The constants that leave; what they have more than what entered counts, in all."""
        results = fold.fold(call)
        if call.op not in fold.DECLARED:
            entered = {id(value): value for value in call.inputs if isinstance(value, Constant)}
            before = sum(value.array.size for value in entered.values())
            self.grown += max(sum(result.array.size for result in results) - before, 0)
        if MAX_GROWTH < self.grown:
            raise ExpansionTooLarge(
                f"node {call.name!r} ({call.op}): constants grow by more than {MAX_GROWTH:,} "
                "entries while they are computed",
                node=call.name,
                fix="export a model with smaller tensors",
            )
        return results

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
        written = Written(self.producers, self.values, self.nodes)
        whole = compound(call, written) or self._ideal(call, written)
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

    def _ideal(self, call: Call, written: Written) -> Emitted | None:
        """A continuous function next to what jumps here, where the request asks for it."""
        if not self.graph.idealises:
            return None
        found = idealised(call, written, self.graph.inputs[0].name)
        if found is None:
            return None
        self.idealised.append(found.idealised)
        self.patterns += () if found.hint is None else (found.hint,)
        return found.emitted

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
    if call.op == "ai.onnx.ml::Scaler":
        return "float32"  # whatever enters
    floats = {
        value.dtype for value in call.inputs if value is not None and tensors.is_float(value.dtype)
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


def build(graph: Graph) -> Built:
    """The network of a graph.

    Raises:
        ModelRefused: an operator that no rule covers, shapes that do not fit, too much to compute.
    """
    builder = _Builder(graph)
    builder.run()
    outputs = tuple(output_ports(graph, builder.values, builder.unread))
    if not any(port.is_read for port in outputs):
        refuse_unreadable(outputs)
    refuse_empty(outputs)
    _refuse_idle(builder, [port.name for port in outputs if port.is_read])
    parameters = sum(
        constant.array.size for constant in graph.constants.values() if constant.is_float
    )
    network = _network(builder, outputs) if any(port.is_read for port in outputs) else None
    kept = set[str]() if network is None else network.sizes.keys()
    return Built(
        network=network,
        inputs=tuple(input_ports(graph)),
        outputs=outputs,
        parameters=parameters,
        grids={node: grid for node, grid in builder.grids.items() if node in kept},
    )


def _refuse_idle(builder: _Builder, names: Sequence[str]) -> None:
    """Raises where a run time would compute, for nothing, what has no rule here."""
    for operator in idle(builder.graph, names):
        values = (builder.values.get(name) for name in operator.outputs)
        for value in values:
            for reason in value.reasons if isinstance(value, Opaque) else ():
                if (reason.node, reason.code) == (operator.name, "unsupported-op"):
                    raise OpUnsupported(reason.detail, node=reason.node, fix=reason.fix)


def _network(builder: _Builder, outputs: Sequence[Port]) -> Network:
    inputs = sum(prod(declared.shape or ()) for declared in builder.graph.inputs)
    output = joined(builder.graph, builder.values, builder.nodes, outputs)
    kept = live(list(builder.nodes.values()), output)
    names = {node.name for node in kept}
    return Network(
        nodes=kept,
        input_size=inputs,
        output=output,
        patterns=tuple(pattern for pattern in builder.patterns if pattern.output in names),
        idealised=tuple(
            sorted(
                (one for one in builder.idealised if one.node in names), key=lambda one: one.node
            )
        ),
    )


__all__ = ["Built", "Port", "build"]

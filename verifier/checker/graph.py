"""The function that the file denotes, as the checker's own `Network`.

Only what the output needs is looked at. Constants are folded by `folding`, movements become index
maps or nothing at all, every other operator becomes the node that the tensor leaving it names. A
pattern that a proof hints at is verified and stands for everything between its two tensors. Shapes
are computed here; what the file declares has to agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import (
    activations,
    attention,
    block_operators,
    contractions,
    length_operators,
    linear,
    recurrent,
    resampling,
    selections,
    windows,
)
from verifier.checker.builder import Builder, indices
from verifier.checker.folding import FOLDS
from verifier.checker.identities import identities
from verifier.checker.lowering import sources
from verifier.checker.maps import Gather
from verifier.checker.movements import MOVEMENTS, MOVES_ALL, pad_value
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.operands import Call, Constant, Operand, Signal
from verifier.checker.patterns import recognised
from verifier.checker.reader import Declared, Model, Node, read_model
from verifier.checker.scalars import soft_shrink
from verifier.checker.shrinks import shrinks
from verifier.checker.tensors import FLOATS, Tensor
from verifier.errors import (
    DiscontinuousOp,
    DtypeUnsupported,
    DynamicShape,
    ExpansionTooLarge,
    NotCheckable,
    ShapeMismatch,
)

if TYPE_CHECKING:
    from verifier.certificate import Pattern
    from verifier.checker.network import Scalar

MAX_FOLDED = 2**26  #: entries of all folded constants together

Values: TypeAlias = "dict[str, Operand]"
Rule: TypeAlias = Callable[[Builder, Call], Signal]


def read_network(model: bytes, patterns: Sequence[Pattern] = ()) -> Network:
    """The network that the bytes denote.

    Args:
        model: the file.
        patterns: hints; each is verified, and refuted where it does not hold.

    Raises:
        ModelRefused: the bytes are no model that is read.
        CapabilityBlocked: a node that the output needs jumps, or is not read by the checker.
        PatternRefuted: a hint is false.
    """
    return _Reading(read_model(model), patterns).network()


class _Reading:
    """One pass over the nodes that the output needs."""

    def __init__(self, model: Model, patterns: Sequence[Pattern]) -> None:
        self.model = model
        self.hints = {pattern.output: pattern for pattern in patterns}
        self.makers = {name: node for node in model.nodes for name in node.outputs if name}
        #: By tensor, the earlier one that it is a function of, or that it is (None).
        self.direct: Mapping[str, tuple[str, Scalar | None]] = {
            name: (x, None) for name, x in identities(self.makers).items()
        } | {
            name: (x, soft_shrink(limit))
            for name, (x, limit) in shrinks(self.makers, self._number).items()
        }
        self.values: Values = {}
        shape = self._input_shape()
        self.builder = Builder(math.prod(shape))
        self.values[model.input] = Signal("", shape, model.declared[model.input].dtype)
        self.folded = 0

    def _input_shape(self) -> tuple[int, ...]:
        name = self.model.input
        declared = self.model.declared[name]
        if declared.dtype not in FLOATS:
            raise DtypeUnsupported(f"the input is {declared.dtype}", fix="use float32", node=name)
        if declared.shape is None or None in declared.shape[1:]:
            raise DynamicShape(
                "a dimension of the input other than the first is not fixed",
                fix="export with fixed shapes",
                node=name,
            )
        # A leading dimension that is a symbol is the batch: one.
        shape = tuple(1 if size is None else size for size in declared.shape)
        if 0 in shape or math.prod(shape) > MAX_FOLDED:
            raise ShapeMismatch(f"the input has shape {shape[:8]}", fix="export again", node=name)
        return shape

    def network(self) -> Network:
        """The nodes that the output needs, in order."""
        needed = self._needed()
        for name in needed & self.model.initialisers.keys():
            tensor = self.model.initialisers[name]
            self.values[name] = Constant(tensor.array, tensor.dtype)
            self._check_declared(name)
        for node in self.model.nodes:
            if any(name in needed for name in node.outputs):
                self._step(node, needed)
        return self._finished(self.values[self.model.output])

    def _needed(self) -> set[str]:
        """The tensors that the output depends on, not looking inside of patterns."""
        found: set[str] = set()
        pending = [self.model.output]
        while pending:
            name = pending.pop()
            if not name or name in found:
                continue
            found.add(name)
            if name in self.hints:
                pending.append(self.hints[name].input)
            elif name in self.direct:
                pending.append(self.direct[name][0])
            elif name in self.makers:
                pending.extend(self.makers[name].inputs)
        return found

    def _step(self, node: Node, needed: set[str]) -> None:
        wanted = [name for name in node.outputs if name in needed]
        for name in wanted:
            if name in self.hints:
                self._pattern(name)
            elif name in self.direct:
                self._direct(name)
        wanted = [name for name in wanted if name not in self.values]
        if not wanted:
            return
        call = Call(node, self.model.opset, [self._operand(name, node) for name in node.inputs])
        results = self.evaluate(call)
        call.check_all_asked()
        for name, value in zip(node.outputs, results, strict=False):
            if value is not None and name not in self.hints:
                self.values[name] = value
                self._check_declared(name)
        if not self.values.keys() >= set(wanted):
            call.not_checkable("its further results are used")

    def _operand(self, name: str, node: Node) -> Operand | None:
        if name and name not in self.values:
            raise NotCheckable(
                f"{name!r} is used inside and outside of a pattern",
                fix="drop the hint",
                node=node.name,
            )
        return self.values[name] if name else None

    def evaluate(self, call: Call) -> Sequence[Operand | None]:
        """What leaves the node."""
        op = call.node.op
        if op in ("Shape", "Size"):
            return [_measured(call)]
        if all(isinstance(item, Constant) for item in call.operands if item is not None):
            return self.fold(call)
        if op in DISCONTINUOUS:
            raise DiscontinuousOp(f"{op} jumps", fix="replace it", node=call.node.name)
        if op in MOVEMENTS:
            return _moved(self.builder, call)
        if op in recurrent.RULES:
            return recurrent.RULES[op](self.builder, call)
        rule = RULES.get(op)
        if rule is None:
            call.not_checkable("the checker does not read this operator")
        return [rule(self.builder, call)]

    def fold(self, call: Call) -> list[Constant]:
        """The constants that leave a node of constants."""
        fold = FOLDS.get(call.node.op)
        if fold is None:
            call.not_checkable("the checker does not fold this operator")
        results = fold(call)
        self.folded += sum(result.value.size for result in results)
        if self.folded > MAX_FOLDED:
            raise ExpansionTooLarge(
                "the folded constants are too large", fix="export folded", node=call.node.name
            )
        return results

    def _pattern(self, name: str) -> None:
        pattern = self.hints[name]
        source = self.values.get(pattern.input)
        found = recognised(pattern, source, self.model, self.makers, self.fold)
        self.builder.add(found.node)
        self.values[name] = Signal(name, found.shape, found.dtype)
        self._check_declared(name)

    def _number(self, name: str) -> float | None:
        """A stored number, of at most one axis."""
        maker = self.makers.get(name)
        stored = self.model.initialisers.get(name)
        if maker is not None and maker.op == "Constant":
            value = maker.attributes.get("value")
            stored = value if isinstance(value, Tensor) else None
        if stored is None or stored.dtype not in FLOATS or stored.array.shape not in ((), (1,)):
            return None
        return float(stored.array.reshape(-1)[0])

    def _direct(self, name: str) -> None:
        source, function = self.direct[name]
        signal = self.values[source]
        if not isinstance(signal, Signal) or not signal.shape:
            raise NotCheckable("a function of a constant", fix="fold it", node=name)
        if function is not None:
            self.builder.add(
                Elementwise(name=name, size=signal.size, source=signal.source, function=function)
            )
            signal = Signal(name, signal.shape, signal.dtype)
        self.values[name] = signal
        self._check_declared(name)

    def _check_declared(self, name: str) -> None:
        declared = self.model.declared.get(name)
        value = self.values[name]
        if declared is None:
            return
        if declared.dtype not in ("", value.dtype):
            raise ShapeMismatch(
                f"{name!r} is declared {declared.dtype}, and is {value.dtype}",
                fix="export again",
                node=name,
            )
        if declared.shape is not None and not _agrees(declared, value.shape):
            raise ShapeMismatch(
                f"{name!r} is declared with shape {declared.shape[:8]}, and has {value.shape[:8]}",
                fix="export again",
                node=name,
            )

    def _finished(self, output: Operand) -> Network:
        name = self.model.output
        if isinstance(output, Constant):
            bias = Constant(output.value.reshape(-1), output.dtype, output.spread.reshape(-1))
            self.builder.affine(name, output.value.size, [], bias)
            output = Signal(name, output.shape, output.dtype)
        nodes = self.builder.nodes
        shapes: dict[str, tuple[int, ...]] = {}
        for value in (*self.values.values(), output):
            if isinstance(value, Signal):
                # Later ones of the same source are reshaped.
                shapes.setdefault(value.source, value.shape)
        reached: set[str] = set()
        pending = [output.source]
        while pending:
            here = pending.pop()
            if here and here not in reached:
                reached.add(here)
                pending.extend(sources(nodes[here]))
        return Network(
            input_size=self.builder.sizes[""],
            output=output.source,
            output_size=output.size,
            nodes=tuple(node for node in nodes.values() if node.name in reached),
            tensors={
                key: size for key, size in self.builder.sizes.items() if not key or key in reached
            },
            shapes={key: shape for key, shape in shapes.items() if not key or key in reached},
        )


def _agrees(declared: Declared, shape: tuple[int, ...]) -> bool:
    return len(declared.shape or ()) == len(shape) and all(
        said in (None, size) for said, size in zip(declared.shape or (), shape, strict=True)
    )


def _measured(call: Call) -> Constant:
    call.arity(1, 1)
    shape = call.operand(0).shape
    if call.node.op == "Size":
        return Constant(np.array(math.prod(shape)), "int64")
    start, end = call.integer("start", 0), call.integer("end", len(shape))
    return Constant(np.array(shape[start:end], dtype=np.int64), "int64")


def _moved(builder: Builder, call: Call) -> list[Signal | None]:
    """The results of a movement of a signal, or of signals and constants."""
    count = len(call.operands) if call.node.op in MOVES_ALL else 1
    operands = [call.operand(place) for place in range(count)]
    if len({operand.dtype for operand in operands}) > 1:
        call.one_float_type()
    arrays: list[np.ndarray] = []
    starts = [0]
    for operand in operands:
        arrays.append(indices(operand.shape) + starts[-1])
        starts.append(starts[-1] + math.prod(operand.shape))
    fill = pad_value(call) if call.node.op == "Pad" else 0.0
    results = MOVEMENTS[call.node.op](call, arrays, -1)
    names = call.node.outputs
    return [
        _gathered(builder, name, operands, starts, moved, fill) if name else None
        for name, moved in zip(names, results, strict=False)
    ]


def _gathered(
    builder: Builder,
    name: str,
    operands: Sequence[Operand],
    starts: list[int],
    moved: np.ndarray,
    fill: float,
) -> Signal:
    """The result whose entries are those that `moved` points at."""
    shape, index = moved.shape, np.ascontiguousarray(moved).reshape(-1)
    first = operands[0]
    unmoved = np.array_equal(index, np.arange(math.prod(first.shape)))
    if len(operands) == 1 and isinstance(first, Signal) and unmoved:
        return Signal(first.source, shape, first.dtype)
    terms: dict[str, np.ndarray] = {}
    bias = np.where(index == -1, fill, 0.0)
    error = np.zeros(index.size)
    for operand, start in zip(operands, starts, strict=False):
        here = (index >= start) & (index < start + math.prod(operand.shape))
        local = np.where(here, index - start, 0)
        if isinstance(operand, Signal):
            so_far = terms.get(operand.source, np.full(index.size, -1))
            terms[operand.source] = np.where(here, local, so_far)
        elif operand.value.size:
            bias = np.where(here, operand.value.reshape(-1)[local], bias)
            error = np.where(here, operand.spread.reshape(-1)[local], error)
    is_linear = not (np.any(bias) or np.any(error))
    builder.affine(
        name,
        index.size,
        [Term(key, Gather(where, builder.sizes[key])) for key, where in terms.items()],
        None if is_linear else Constant(bias, first.dtype, error),
    )
    return Signal(name, shape, first.dtype)


DISCONTINUOUS = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "DequantizeLinear", "DynamicQuantizeLinear", "Floor", "Hardmax"}
    | {"IsInf", "IsNaN", "Mod", "NonZero", "OneHot", "QLinearConv", "QLinearMatMul"}
    | {"QuantizeLinear", "Round", "Sign", "Unique"}
)

RULES: Mapping[str, Rule] = {
    "Add": linear.add,
    "Attention": attention.attention,
    "AveragePool": windows.average_pool,
    "BatchNormalization": linear.batch_normalization,
    "Conv": windows.convolution,
    "ConvTranspose": windows.transposed_convolution,
    "DFT": contractions.fourier,
    "Einsum": contractions.einsum,
    "Gemm": linear.gemm,
    "GlobalAveragePool": linear.global_average_pool,
    "GlobalMaxPool": windows.global_max_pool,
    "MatMul": linear.matmul,
    "MaxPool": windows.max_pool,
    "Mean": linear.mean,
    "Neg": linear.negate,
    "ReduceMax": windows.reduce_max,
    "ReduceMean": linear.reduce_mean,
    "ReduceMin": windows.reduce_min,
    "ReduceSum": linear.reduce_sum,
    "Resize": resampling.resize,
    "Sub": linear.subtract,
    "Sum": linear.add,
    "TopK": selections.top_k,
    "Upsample": resampling.resize,
    **activations.RULES,
    **block_operators.RULES,
    **length_operators.RULES,
}

"""The function that the file denotes, as the checker's own `Network`.

Only what the output needs is looked at. Constants are folded by `folding`, movements become index
maps or nothing at all, every other operator becomes the node that the tensor leaving it names. A
pattern that a proof hints at is verified and stands for everything between its two tensors. Shapes
are computed here; what the file declares has to agree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.certificate import Idealised
from verifier.checker import integral, masks, recurrent, steps
from verifier.checker.arithmetic import root_up, up
from verifier.checker.builder import Builder
from verifier.checker.classical import ZIP_MAP
from verifier.checker.counted import DEQUANTISERS, QUANTISERS
from verifier.checker.direct import direct
from verifier.checker.ends import MAPPING
from verifier.checker.folding import FOLDS
from verifier.checker.joined import finished
from verifier.checker.maps import Gather
from verifier.checker.moved import moved_by
from verifier.checker.movements import MOVEMENTS
from verifier.checker.network import Elementwise, Network, Term
from verifier.checker.nodes import Node
from verifier.checker.operands import (
    MAX_FOLDED,
    Call,
    Constant,
    Masked,
    Signal,
    Stepped,
    Value,
)
from verifier.checker.patterns import recognised
from verifier.checker.reader import Model, in_order, read_model
from verifier.checker.rules import DISCONTINUOUS, RULES
from verifier.checker.tensors import FLOATS
from verifier.checker.unread import KNOWN, shape_of, unknown
from verifier.errors import (
    ControlFlow,
    DiscontinuousOp,
    DtypeUnsupported,
    DynamicShape,
    ExpansionTooLarge,
    NotCheckable,
    ShapeMismatch,
)
from verifier.property import Reading

if TYPE_CHECKING:
    from verifier.certificate import Idealisation, Pattern
    from verifier.checker.ends import Declared

Values: TypeAlias = "dict[str, Value]"


def read_network(
    model: bytes, patterns: Sequence[Pattern] = (), reading: Reading | None = None
) -> Network:
    """The network that the bytes denote.

    Args:
        model: the file.
        patterns: hints; each is verified, and refuted where it does not hold.
        reading: what is bound, chosen and frozen; None: nothing is, all outputs are meant.

    Raises:
        ModelRefused: the bytes are no model that is read.
        CapabilityBlocked: a node that the output needs jumps, or is not read by the checker.
        PatternRefuted: a hint is false.
    """
    return _Pass(read_model(model, reading or Reading()), patterns).network()


class _Pass:
    """One pass over the nodes that the output needs."""

    def __init__(self, model: Model, patterns: Sequence[Pattern]) -> None:
        self.model = model
        self.hints = {pattern.output: pattern for pattern in patterns}
        self.makers = {name: node for node in model.nodes for name in node.outputs if name}
        self.direct = direct(model, self.makers)
        self.idealised: list[Idealised] = []
        self.values: Values = {}
        shapes = [self._input_shape(name) for name in model.ends.inputs]
        self.builder = Builder(sum(math.prod(shape) for shape in shapes))
        self._enter(shapes)
        self.folded = 0

    def _input_shape(self, name: str) -> tuple[int, ...]:
        declared = self.model.ends.declared[name]
        if declared.dtype not in FLOATS:
            raise DtypeUnsupported(f"an input is {declared.dtype}", fix="use float32", node=name)
        shape = declared.fixed
        if shape is None:
            raise DynamicShape(
                "a dimension of an input other than the first is not fixed",
                fix="export with fixed shapes, or bind them",
                node=name,
            )
        if 0 in shape or math.prod(shape) > MAX_FOLDED:
            raise ShapeMismatch(f"an input has shape {shape[:8]}", fix="export again", node=name)
        return shape

    def _enter(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """The inputs: the flat one itself, or its parts one after another."""
        start, names = 0, self.model.ends.inputs
        total = self.builder.sizes[""]
        for name, shape in zip(names, shapes, strict=True):
            size = math.prod(shape)
            source = "" if len(names) == 1 else name
            if source:
                part = Gather(np.arange(start, start + size), total)
                self.builder.affine(source, size, [Term("", part)])
            self.values[name] = Signal(source, shape, self.model.ends.declared[name].dtype)
            start += size

    def network(self) -> Network:
        """The nodes that the output needs, in order."""
        needed = self._needed(self.model.ends.chosen)
        self._enter_constants(needed)
        for node in self.model.nodes:
            if any(name in needed for name in node.outputs):
                self._step(node, needed)
        self._check_counted()
        return finished(self.model.ends, self.builder, self.values, self.idealised)

    def _enter_constants(self, needed: set[str]) -> None:
        for name in needed & self.model.constants.keys():
            self.values[name] = masks.stored(self.model.constants[name])
            self._check_declared(name)

    def _check_counted(self) -> None:
        """Whether outputs that indices count have the shapes that the file declares of them."""
        needed = self._needed(self.model.ends.counted)
        self._enter_constants(needed)
        shapes: dict[str, tuple[int, ...]] = {}
        for node in self.model.nodes:
            if all(name in self.values or name not in needed for name in node.outputs):
                continue
            operands = [self.values.get(name) for name in node.inputs if name]
            if all(isinstance(operand, Constant) for operand in operands) or node.op not in KNOWN:
                self._step(node, needed)
                continue
            found = [
                shapes.get(name) if operand is None else operand.shape
                for name, operand in zip(filter(None, node.inputs), operands, strict=True)
            ]
            known = [shape for shape in found if shape is not None]
            if len(known) == len(found):
                shapes[node.name] = shape_of(Call(node, self.model.opset, []), known)
        for name in self.model.ends.counted:
            shape = self.values[name].shape if name in self.values else shapes.get(name)
            if shape is None:
                raise unknown(name)
            if shape != self.model.ends.declared[name].fixed:
                raise self._misdeclared(name, shape)

    def _needed(self, outputs: Collection[str]) -> set[str]:
        """The tensors that outputs depend on, not looking inside of patterns."""
        found: set[str] = set()
        pending = list(outputs)
        while pending:
            name = pending.pop()
            if not name or name in found:
                continue
            found.add(name)
            if name in self.hints:
                pending.append(self.hints[name].input)
            elif name in self.direct:
                pending.extend((self.direct[name].x, *self.direct[name].constants))
            elif name in self.makers:
                pending.extend(self.makers[name].reads)
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
        results = self._branched(call) if node.branches else self._evaluated(call)
        call.check_all_asked()
        for name, value in zip(node.outputs, results, strict=False):
            if value is not None and name not in self.hints:
                call.allowed(value.shape)
                self.values[name] = value
                self._check_declared(name)
        if not self.values.keys() >= set(wanted):
            call.not_checkable("its further results are used")

    def _evaluated(self, call: Call) -> Sequence[Value | None]:
        """What leaves the node, also where minus infinity enters it."""
        if call.node.op in ("Shape", "Size"):
            return [_measured(call)]
        if any(isinstance(item, Masked) for item in call.operands):
            return masks.passed(self.builder, call, self.evaluate)
        return masks.declared(call) or self.evaluate(call)

    def _operand(self, name: str, node: Node) -> Value | None:
        if name and name not in self.values:
            raise NotCheckable(
                f"{name!r} is used inside and outside of a pattern",
                fix="drop the hint",
                node=node.name,
            )
        return self.values[name] if name else None

    def _branched(self, call: Call) -> list[Value]:
        """What leaves an If: the results of the branch that its condition, a constant, picks."""
        holds, fails = call.node.branches
        branch = (holds if _condition(call) else fails).within(call.node.name)
        if not self.values.keys().isdisjoint(branch.made):
            call.not_checkable("names inside of it are taken")
        for name, tensor in branch.constants.items():
            self.values[name] = masks.stored(tensor)
        nodes, needed = in_order(branch.nodes), {*branch.outputs}
        for node in reversed(nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs)
        for node in nodes:
            self._step(node, needed)
        results = (self._operand(name, call.node) for name in branch.outputs)
        found = [result for result in results if result is not None]
        # What the graph around it may make under one of these names is another value.
        for name in branch.made:
            self.values.pop(name, None)
        return found

    def evaluate(self, call: Call) -> Sequence[Value | None]:
        """What leaves the node."""
        if all(isinstance(item, Constant) for item in call.operands if item is not None):
            return self.fold(call)
        never = masks.never_nan(self.builder, call)
        if never is not None:
            return never
        if steps.rounds(call):
            return self._stepped(call)
        return self._of_signals(call)

    def _stepped(self, call: Call) -> Sequence[Value | None]:
        """What leaves an operator that integers enter or leave."""
        name = call.node.name
        if not self.model.ends.idealises:
            raise DiscontinuousOp(
                f"{call.node.op} rounds", fix="ask for semantics real-idealised", node=name
            )
        if call.node.op in QUANTISERS:
            return [self._rounded(name, *steps.quantised(self.builder, call))]
        if call.node.op in DEQUANTISERS:
            return [steps.dequantised(call)]
        if call.node.op in integral.LAYOUTS:
            return [self._integral(call)]
        inner, grid = steps.placed(call)
        results = self._of_signals(inner)
        return [Stepped(item, grid) if isinstance(item, Signal) else item for item in results]

    def _integral(self, call: Call) -> Value:
        """An operator on numbers, and its result rounded to integers."""
        (made,) = self._of_signals(integral.on_numbers(call))
        if not isinstance(made, Signal):
            call.not_checkable("it makes no signal")
        grid = integral.grid_after(call, made.dtype)
        if grid is None:
            return made
        name = call.node.name
        return self._rounded(name, *steps.clipped(self.builder, name, made, grid))

    def _rounded(self, name: str, stepped: Stepped, deviation: float) -> Stepped:
        self._idealise(name, "quantise-dequantise", absolute=deviation)
        return stepped

    def _of_signals(self, call: Call) -> Sequence[Value | None]:
        op = call.node.op
        if op in DISCONTINUOUS:
            raise DiscontinuousOp(f"{op} jumps", fix="replace it", node=call.node.name)
        if op in MOVEMENTS:
            return moved_by(self.builder, call)
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
        if isinstance(source, Stepped | Masked):
            raise NotCheckable(
                "a pattern of integers or of minus infinity", fix="drop the hint", node=name
            )
        found = recognised(pattern, source, self.model, self.makers, self.fold)
        if pattern.kind in ("folded-mirror", "folded-second-order-mirror"):
            self._idealise(name, pattern.kind, relative=found.deviation)
        self.builder.add(found.node)
        self.values[name] = Signal(name, found.shape, found.dtype)
        self._check_declared(name)

    def _direct(self, name: str) -> None:
        found = self.direct[name]
        signal = self.values[found.x]
        if not isinstance(signal, Signal) or not signal.shape:
            raise NotCheckable("a function of a constant", fix="fold it", node=name)
        if not found.leaves_shape(signal, self.values):
            raise NotCheckable("constants spread it out", fix="use numbers", node=name)
        if found.step is not None:
            total = up(root_up(float(signal.size)) * found.step)
            self._idealise(name, "thresholded-softplus", absolute=total)
        if found.function is not None:
            self.builder.add(
                Elementwise(
                    name=name, size=signal.size, source=signal.source, function=found.function
                )
            )
            signal = Signal(name, signal.shape, signal.dtype)
        self.values[name] = signal
        self._check_declared(name)

    def _idealise(
        self, name: str, pattern: Idealisation, *, absolute: float = 0.0, relative: float = 0.0
    ) -> None:
        """Notes that the tensor is not quite what stands for it.

        Raises:
            DiscontinuousOp: the reading is of the file's own function.
        """
        if not self.model.ends.idealises:
            raise DiscontinuousOp(
                f"it jumps, as a {pattern}", fix="ask for semantics real-idealised", node=name
            )
        self.idealised.append(
            Idealised(node=name, pattern=pattern, absolute=absolute, relative=relative)
        )

    def _check_declared(self, name: str) -> None:
        declared = self.model.ends.declared.get(name)
        value = self.values[name]
        if declared is None:
            return
        maker = self.makers.get(name)
        if declared.dtype == MAPPING and maker is not None and maker.op == ZIP_MAP:
            return
        if declared.dtype not in ("", value.dtype):
            raise ShapeMismatch(
                f"{name!r} is declared {declared.dtype}, and is {value.dtype}",
                fix="export again",
                node=name,
            )
        if declared.shape is not None and not _agrees(declared, value.shape):
            raise self._misdeclared(name, value.shape)

    def _misdeclared(self, name: str, shape: tuple[int, ...]) -> ShapeMismatch:
        declared = self.model.ends.declared[name].shape or ()
        return ShapeMismatch(
            f"{name!r} is declared with shape {declared[:8]}, and has {shape[:8]}",
            fix="export again",
            node=name,
        )


def _condition(call: Call) -> bool:
    """The condition of an If."""
    call.arity(1, 1)
    condition = call.operand(0)
    if not isinstance(condition, Constant) or condition.value.size != 1:
        raise ControlFlow(
            "an If on the input", fix="export one straight graph", node=call.node.name
        )
    if condition.dtype != "bool":
        call.invalid("its condition is no truth value")
    return bool(condition.value.reshape(()))


def _agrees(declared: Declared, shape: tuple[int, ...]) -> bool:
    return len(declared.shape or ()) == len(shape) and all(
        said in (None, size) for said, size in zip(declared.shape or (), shape, strict=True)
    )


def _measured(call: Call) -> Constant:
    call.arity(1, 1)
    shape = call.any_operand(0).shape
    if call.node.op == "Size":
        return Constant(np.array(math.prod(shape)), "int64")
    start, end = call.integer("start", 0), call.integer("end", len(shape))
    return Constant(np.array(shape[start:end], dtype=np.int64), "int64")

"""Normalisation written out: x divided by its length along some axes, the length away from 0.

    x / sqrt(mean(x^2) + eps),    x / sqrt(sum(x^2) + eps),    x / max(|x|, eps)

with quotients as Div, or as Mul by a Reciprocal, a Div of 1 or a Pow of -1/2. Layers that centre x
before, or scale and shift after, do so by affine operators of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from verifier.errors import LipcertError
from verifier.network.blocks import Normalise
from verifier.network.graph import Grouped
from verifier.onnx_import.call import Attributes, Call, Unrepresented
from verifier.onnx_import.convert.blocks import along
from verifier.onnx_import.convert.emitted import Emitted
from verifier.onnx_import.moves import axes_of
from verifier.onnx_import.values import Constant, Signal

if TYPE_CHECKING:
    from verifier.onnx_import.patterns.compounds import Written
    from verifier.onnx_import.reader import Operator


@dataclass(frozen=True, slots=True)
class _Length:
    """What x is divided by."""

    axes: tuple[int, ...]
    form: Literal["root", "floor"]
    epsilon: float
    is_mean: bool


@dataclass(frozen=True, slots=True)
class Normal:
    """A normalisation of the tensor `source`, and the node that it becomes."""

    source: str
    emitted: Emitted


def normal(call: Call, written: Written) -> Normal | None:
    """The whole function, if this operator is the last of one."""
    if call.op not in {"Div", "Mul"} or len(call.operator.inputs) != 2:
        return None
    first, second = call.operator.inputs
    places = [(first, second)] if call.op == "Div" else [(first, second), (second, first)]
    for x, other in places:
        value = written.values.get(x)
        if not isinstance(value, Signal):
            continue
        search = _Search(x, value, written, call.opset)
        length = search.length(other) if call.op == "Div" else search.inverse(other)
        if length is not None:
            return Normal(x, _emitted(call, value, length))
    return None


def _emitted(call: Call, x: Signal, length: _Length) -> Emitted:
    divisor = float(prod(x.shape[axis] for axis in length.axes)) if length.is_mean else 1.0
    function = Normalise(
        groups=along(call, x, length.axes),
        epsilon=length.epsilon,
        form=length.form,
        divisor=divisor,
    )
    return Emitted((Grouped(call.output, x.node, function),), x.shape)


@dataclass(frozen=True, slots=True)
class _Search:
    """Looks back from a quotient to the tensor x that is divided."""

    x: str
    value: Signal
    written: Written
    opset: int

    def inverse(self, name: str) -> _Length | None:
        """1/s."""
        maker = self._maker(name)
        if maker is None:
            return None
        match maker.op:
            case "Reciprocal":
                return self.length(maker.inputs[0])
            case "Div" if self.written.scalar(maker.inputs[0]) == 1.0:
                return self.length(maker.inputs[1])
            case "Pow" if self.written.scalar(maker.inputs[1]) == -0.5:
                return self._root(maker.inputs[0])
            case _:
                return None

    def length(self, name: str) -> _Length | None:
        """s."""
        maker = self._maker(name)
        if maker is None:
            return None
        match maker.op:
            case "Sqrt":
                return self._root(maker.inputs[0])
            case "Pow" if self.written.scalar(maker.inputs[1]) == 0.5:
                return self._root(maker.inputs[0])
            case "Clip" | "Max":
                return self._floored(maker)
            case _:
                return None

    def _root(self, name: str) -> _Length | None:
        """The root of a sum of squares and eps."""
        maker = self.written.operator(name, "Add")
        for squares, eps in (maker.inputs, maker.inputs[::-1]) if maker is not None else ():
            epsilon = self.written.scalar(eps)
            if epsilon is not None and 0 < epsilon:
                found = self._squares(squares)
                if found is not None:
                    return _Length(found[0], "root", epsilon, found[1])
        return None

    def _floored(self, maker: Operator) -> _Length | None:
        """The greater of |x| and eps."""
        for size, eps in self._floors(maker):
            if eps is not None and 0 < eps:
                axes = self._size(size)
                if axes is not None:
                    return _Length(axes, "floor", eps, is_mean=False)
        return None

    def _floors(self, maker: Operator) -> list[tuple[str, float | None]]:
        inputs = maker.inputs
        if maker.op == "Max":
            pairs = (inputs, inputs[::-1]) if len(inputs) == 2 else ()
            return [(size, self.written.scalar(eps)) for size, eps in pairs]
        if self.opset < 11:
            least = maker.attributes.get("min")
            plain = isinstance(least, float) and "max" not in maker.attributes
            return [(inputs[0], least)] if plain and isinstance(least, float) else []
        plain = len(inputs) == 2 or (len(inputs) == 3 and not inputs[2])
        return [(inputs[0], self.written.scalar(inputs[1]))] if plain else []

    def _size(self, name: str) -> tuple[int, ...] | None:
        """The axes over which the tensor is |x|."""
        maker = self._maker(name)
        if maker is None:
            return None
        if maker.op == "ReduceL2" and maker.inputs[0] == self.x:
            return self._axes(maker, since=18)
        if maker.op == "Sqrt":
            found = self._squares(maker.inputs[0])
            return found[0] if found is not None and not found[1] else None
        return None

    def _squares(self, name: str) -> tuple[tuple[int, ...], bool] | None:
        """(axes, whether it is a mean) where the tensor is a sum of squares of x."""
        maker = self.written.producers.get(name)
        if maker is None:
            return None
        is_plain = maker.op in {"ReduceMean", "ReduceSum"} and self._is_square(maker.inputs[0])
        if not is_plain and (maker.op != "ReduceSumSquare" or maker.inputs[0] != self.x):
            return None
        axes = self._axes(maker, since=13 if maker.op == "ReduceSum" else 18)
        return None if axes is None else (axes, maker.op == "ReduceMean")

    def _is_square(self, name: str) -> bool:
        maker = self.written.producers.get(name)
        if maker is None:
            return False
        if maker.op == "Pow":
            return maker.inputs[0] == self.x and self.written.scalar(maker.inputs[1]) == 2.0
        return maker.op == "Mul" and maker.inputs == (self.x, self.x)

    def _axes(self, maker: Operator, since: int) -> tuple[int, ...] | None:
        """The axes that a reduction of x's shape sums over, where it keeps them."""
        values = tuple(self.written.values[name] if name else None for name in maker.inputs)
        attributes = Attributes(maker.name, maker.attributes)
        call = Call(maker, values, attributes, self.opset)
        try:
            axes = axes_of(call, 1, len(self.value.shape), since)
            if not attributes.integer("keepdims", 1):
                return None
        except (LipcertError, Unrepresented):
            return None
        return axes or None

    def _maker(self, name: str) -> Operator | None:
        """What made a tensor, looking through an Expand to x's own shape."""
        maker = self.written.producers.get(name)
        if maker is not None and maker.op == "Expand":
            shape = self.written.values.get(maker.inputs[1])
            same = isinstance(shape, Constant) and tuple(shape.array.tolist()) == self.value.shape
            return self.written.producers.get(maker.inputs[0]) if same else None
        return maker

"""Scalar functions that exporters write as several operators: GELU, SiLU, Mish, softsign, ...

    GELU           c x (1 + erf(k x))
    SiLU           c x sigmoid(k x)
    Mish           c x tanh(softplus(x))
    softsign       c x / (t + |k x|)
    log-sigmoid    log(sigmoid(x))
    x itself       sign(x) |x|             as pooling of powers guards its root
    soft shrinkage see `shrinks`
    ReLU, leaky    where(0 < x, x, c x)    see `bends`
    lengths        sqrt(c + sum a x^2)     see `squares`

A product is taken apart into a constant and the tensors that are multiplied, whatever the order;
neither c nor k is 0. The first is c' gelu(k' x) with k' = k sqrt 2, c' = 2 c/k'; k near 1/sqrt 2 is
that number rounded, and its rounding below the tolerance of every number computed from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verifier.network import elementwise as functions
from verifier.onnx_import.convert.emitted import Emitted, affine, elementwise, gather, indices
from verifier.onnx_import.patterns.bends import bent
from verifier.onnx_import.patterns.shrinks import shrunk
from verifier.onnx_import.patterns.squares import root
from verifier.onnx_import.values import Constant, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.network.activations.piecewise import Piecewise
    from verifier.network.elementwise import Activation
    from verifier.network.graph import Node
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.reader import Operator
    from verifier.onnx_import.values import Value

ROUNDED: Final = 1e-6  #: how far a float32 constant is from the number that it is named for


@dataclass(frozen=True, slots=True)
class Written:
    """The operators and values met so far, to look back at."""

    producers: Mapping[str, Operator]
    values: Mapping[str, Value]
    nodes: Mapping[str, Node]

    def operator(self, name: str, op: str) -> Operator | None:
        """What made a tensor, if it was this operator."""
        found = self.producers.get(name)
        return found if found is not None and found.op == op else None

    def scalar(self, name: str) -> float | None:
        """A constant that is one number, however often repeated."""
        value = self.values.get(name)
        if not isinstance(value, Constant) or value.array.size == 0:
            return None
        first = float(value.array.reshape(-1)[0])
        return first if (value.array == first).all() else None

    def factors(self, name: str, depth: int = 4) -> tuple[float, list[str]]:
        """(c, tensors): the tensor is c times the product of these."""
        found = self.producers.get(name)
        if found is None or found.op not in {"Mul", "Div", "Neg"} or depth == 0:
            return 1.0, [name]
        if found.op == "Neg":
            scale, rest = self.factors(found.inputs[0], depth - 1)
            return -scale, rest
        return self._product(found, name, depth)

    def _product(self, found: Operator, name: str, depth: int) -> tuple[float, list[str]]:
        left, right = found.inputs
        scale, rest = 1.0, list[str]()
        for side, is_divisor in ((left, False), (right, found.op == "Div")):
            number = self.scalar(side)
            if number is not None and not (is_divisor and number == 0):
                scale *= 1.0 / number if is_divisor else number
            elif is_divisor:
                return 1.0, [name]
            else:
                inner, more = self.factors(side, depth - 1)
                scale, rest = scale * inner, [*rest, *more]
        return scale, rest


def compound(call: Call, written: Written) -> Emitted | None:
    """The whole function, if this operator is the last of one."""
    if call.op == "Mul" and _are_signals(call, written):
        scale, names = written.factors(call.output)
        if len(names) == 2 and scale != 0:
            for x, gate in (names, names[::-1]):
                function = _gated(scale, x, gate, written)
                if function is not None:
                    return _emitted(call, x, function, written)
    found = _softsign(call, written) if call.op == "Div" else None
    return found or _of_one(call, written)


def _of_one(call: Call, written: Written) -> Emitted | None:
    """A function of a function: log-sigmoid, roots of squares, and x itself."""
    if call.op == "Log":
        sigmoid = written.operator(call.operator.inputs[0], "Sigmoid")
        if sigmoid is not None:
            return _emitted(call, sigmoid.inputs[0], functions.LogSigmoid(_size(call)), written)
    if call.op == "Mul" and len(call.operator.inputs) == 2:
        return _itself(call, written)
    if call.op in {"Add", "Where"}:
        found = shrunk(call, written)
        return _bending(call, written) if found is None else _shrinking(call, *found, written)
    x = call.input(0)
    if isinstance(x, Signal) and _is_root(call, written):
        return root(call, x, written.nodes)
    return None


def _is_root(call: Call, written: Written) -> bool:
    if call.op == "Pow":
        return written.scalar(call.operator.inputs[1]) == 0.5
    return call.op == "Sqrt"


def _shrinking(call: Call, x: str, limit: float, written: Written) -> Emitted | None:
    value = written.values.get(x)
    if not isinstance(value, Signal):
        return None
    return elementwise(call, value, functions.SoftShrink(value.size, limit))


def _bending(call: Call, written: Written) -> Emitted | None:
    found = bent(call, written) if call.op == "Where" else None
    return None if found is None else elementwise(call, found.x, found.function)


def _is_magnitude(name: str, x: str, written: Written) -> bool:
    """|x|, as it is or through a Relu."""
    relu = written.operator(name, "Relu")
    size = written.operator(name if relu is None else relu.inputs[0], "Abs")
    return size is not None and size.inputs[0] == x


def _itself(call: Call, written: Written) -> Emitted | None:
    """sign(x) |x| = x."""
    for first, second in (call.operator.inputs, call.operator.inputs[::-1]):
        sign = written.operator(first, "Sign")
        if sign is None or not _is_magnitude(second, sign.inputs[0], written):
            continue
        x = written.values.get(sign.inputs[0])
        if isinstance(x, Signal):
            return affine(call, x.shape, [(x, gather(indices(x.shape), x.size))])
    return None


def _are_signals(call: Call, written: Written) -> bool:
    """Whether two signals meet here; a constant that follows is an operator of its own."""
    return all(isinstance(written.values.get(name), Signal) for name in call.operator.inputs)


def _size(call: Call) -> int:
    value = call.input(0)
    return value.size if isinstance(value, Signal) else 0


def _emitted(call: Call, x: str, function: Activation, written: Written) -> Emitted | None:
    value = written.values[x]
    return elementwise(call, value, function) if isinstance(value, Signal) else None


def _gated(scale: float, x: str, gate: str, written: Written) -> Activation | None:
    """X times a gate that is itself a function of x."""
    value = written.values.get(x)
    if not isinstance(value, Signal):
        return None
    sigmoid = written.operator(gate, "Sigmoid")
    if sigmoid is not None:
        steepness, inner = written.factors(sigmoid.inputs[0])
        if inner == [x] and steepness != 0:
            return _silu(value.size, scale, steepness)
    if _is_tanh_softplus(gate, x, written):
        return _times(scale, functions.Mish(value.size))
    steepness = _shifted_erf(gate, x, written) * math.sqrt(2)
    if abs(steepness - 1) < ROUNDED:
        return _times(2 * scale, functions.Gelu(value.size))
    if steepness != 0:
        gelu = functions.Gelu(value.size)
        return functions.Scaled(value.size, gelu, 2 * scale / steepness, steepness)
    return None


def _silu(size: int, scale: float, steepness: float) -> Activation:
    """C x s(k x)."""
    if 0 < steepness:
        return _times(scale, functions.Silu(size, steepness))
    # c x s(k x) = -c y s(-k y) for y = -x
    return functions.Scaled(size, functions.Silu(size, -steepness), -scale, -1.0)


def _times(factor: float, function: Piecewise) -> Activation:
    return function if factor == 1.0 else functions.Scaled(function.size, function, factor)


def _is_tanh_softplus(gate: str, x: str, written: Written) -> bool:
    tanh = written.operator(gate, "Tanh")
    softplus = written.operator(tanh.inputs[0], "Softplus") if tanh is not None else None
    return softplus is not None and softplus.inputs[0] == x


def _shifted_erf(gate: str, x: str, written: Written) -> float:
    """The k of 1 + erf(k x); 0 where the gate is something else."""
    shifted = written.operator(gate, "Add")
    if shifted is None:
        return 0.0
    for one, rest in (shifted.inputs, shifted.inputs[::-1]):
        erf = written.operator(rest, "Erf")
        if written.scalar(one) == 1.0 and erf is not None:
            steepness, inner = written.factors(erf.inputs[0])
            return steepness if inner == [x] else 0.0
    return 0.0


def _softsign(call: Call, written: Written) -> Emitted | None:
    """a r / (t + k |c r|) = a/(k |c|) softsign(k |c| r / t), 0 < t and 0 < k."""
    above, below = call.operator.inputs
    scale, roots = written.factors(above)
    for shift, steepness, inner in _shifted_magnitudes(below, written):
        if inner == roots and len(roots) == 1 and 0 < shift and 0 < steepness and scale != 0:
            function = functions.Softsign(_size(call))
            if scale == steepness == shift:
                return _emitted(call, roots[0], function, written)
            function = functions.Scaled(
                function.size, function, scale / steepness, steepness / shift
            )
            return _emitted(call, roots[0], function, written)
    return None


def _shifted_magnitudes(name: str, written: Written) -> list[tuple[float, float, list[str]]]:
    """(t, k |c|, [r]) where the tensor is t + k |c r|."""
    whole, names = written.factors(name)
    shifted = written.operator(names[0], "Add") if len(names) == 1 else None
    if shifted is None:
        return []
    found: list[tuple[float, float, list[str]]] = []
    for one, rest in (shifted.inputs, shifted.inputs[::-1]):
        shift = written.scalar(one)
        outer, inside = written.factors(rest)
        size = written.operator(inside[0], "Abs") if len(inside) == 1 else None
        if shift is not None and size is not None:
            inner, roots = written.factors(size.inputs[0])
            found.append((whole * shift, whole * outer * abs(inner), roots))
    return found

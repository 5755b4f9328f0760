"""Scalar functions that exporters write as several operators: GELU, SiLU, Mish, softsign.

    GELU       c x (1 + erf(k x))      with 0 < c and k = 1/sqrt 2 (a float32 near it)
    SiLU       c x sigmoid(k x)        with 0 < c, 0 < k
    Mish       c x tanh(softplus(x))   with 0 < c
    softsign   x / (1 + |x|)

A product is taken apart into a constant and the tensors that are multiplied, whatever the order.
With k' = k sqrt 2 near 1 the first is gelu(k' x)/k', whose slopes are exactly those of gelu; the
rounding of k is below the tolerance of every number that is computed from the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verifier.network import elementwise as functions
from verifier.onnx_import.convert.emitted import Emitted, elementwise
from verifier.onnx_import.values import Constant, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.network.activations.piecewise import Piecewise
    from verifier.network.elementwise import Activation
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.reader import Operator
    from verifier.onnx_import.values import Value

ROUNDED: Final = 1e-6  #: how far a float32 constant is from the number that it is named for


@dataclass(frozen=True, slots=True)
class Written:
    """The operators and values met so far, to look back at."""

    producers: Mapping[str, Operator]
    values: Mapping[str, Value]

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
        if len(names) == 2 and 0 < scale:
            for x, gate in (names, names[::-1]):
                function = _gated(scale, x, gate, written)
                if function is not None:
                    return _emitted(call, x, function, written)
    if call.op == "Div" and _is_softsign(call, written):
        return _emitted(call, call.operator.inputs[0], functions.Softsign(_size(call)), written)
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
        if inner == [x] and 0 < steepness:
            return _times(scale, functions.Silu(value.size, steepness))
    if _is_tanh_softplus(gate, x, written):
        return _times(scale, functions.Mish(value.size))
    if _is_shifted_erf(gate, x, written):
        return _times(2 * scale, functions.Gelu(value.size))
    return None


def _times(factor: float, function: Piecewise) -> Activation:
    return function if factor == 1.0 else functions.Scaled(function.size, function, factor)


def _is_tanh_softplus(gate: str, x: str, written: Written) -> bool:
    tanh = written.operator(gate, "Tanh")
    softplus = written.operator(tanh.inputs[0], "Softplus") if tanh is not None else None
    return softplus is not None and softplus.inputs[0] == x


def _is_shifted_erf(gate: str, x: str, written: Written) -> bool:
    """1 + erf(x / sqrt 2)."""
    shifted = written.operator(gate, "Add")
    if shifted is None:
        return False
    for one, rest in (shifted.inputs, shifted.inputs[::-1]):
        erf = written.operator(rest, "Erf")
        if written.scalar(one) == 1.0 and erf is not None:
            steepness, inner = written.factors(erf.inputs[0])
            return inner == [x] and abs(steepness * math.sqrt(2) - 1) < ROUNDED
    return False


def _is_softsign(call: Call, written: Written) -> bool:
    """X / (1 + |x|)."""
    x, divisor = call.operator.inputs
    shifted = written.operator(divisor, "Add")
    if shifted is None:
        return False
    for one, rest in (shifted.inputs, shifted.inputs[::-1]):
        size = written.operator(rest, "Abs")
        if written.scalar(one) == 1.0 and size is not None:
            return size.inputs[0] == x
    return False

"""Elementwise operators, and products that are elementwise in truth: SiLU, GELU, softsign, ...

A compound is recognised backwards from its last operator, along `rays`. It is named by the tensor
that leaves the last operator of two signals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import arcs, compounds, scalars, tournaments, waves
from verifier.checker.builder import Builder
from verifier.checker.linear import divide_by, scale_by
from verifier.checker.network import Elementwise
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.products import divide, multiply
from verifier.checker.rays import ONE, Pair, Ray, curve_of, is_one, meeting, over, rays, times
from verifier.checker.restricted import Log, Power
from verifier.checker.roots import root_of_squares
from verifier.checker.tensors import FLOATS
from verifier.errors import DiscontinuousOp, DtypeUnsupported

if TYPE_CHECKING:
    from verifier.checker.curves import Curve
    from verifier.checker.network import Scalar

Rule: TypeAlias = Callable[[Builder, Call], Signal]

_FLOAT_NUMBERS = {1: "float32", 10: "float16", 11: "float64"}


def _float32(value: float) -> float:
    return float(np.float32(value))


# --- One operand ---------------------------------------------------------------------------------


def _unary(make: Callable[[Call], Curve]) -> Rule:
    """The rule of an operator with one operand and attributes."""

    def rule(builder: Builder, call: Call) -> Signal:
        call.arity(1, 1)
        return builder.elementwise(call, call.signal(0), make(call))

    return rule


def _elu(call: Call) -> Curve:
    return compounds.Elu(call.number("alpha", 1.0))


def _selu(call: Call) -> Curve:
    alpha = call.number("alpha", 1.67326319217681884765625)
    gamma = call.number("gamma", 1.05070102214813232421875)
    if gamma <= 0:
        call.invalid(f"gamma {gamma}")
    return compounds.selu(alpha, gamma)


def _celu(call: Call) -> Curve:
    alpha = call.number("alpha", 1.0)
    if alpha <= 0:
        call.invalid(f"alpha {alpha}")
    return compounds.celu(alpha)


def _hard_sigmoid(call: Call) -> Curve:
    alpha, beta = call.number("alpha", _float32(0.2)), call.number("beta", 0.5)
    if alpha <= 0:
        call.invalid(f"alpha {alpha}")
    return scalars.hard_sigmoid(alpha, beta)


def _leaky(call: Call) -> Curve:
    return scalars.leaky(call.number("alpha", _float32(0.01)))


def _thresholded(call: Call) -> Curve:
    alpha = call.number("alpha", 1.0)
    if alpha != 0:
        raise DiscontinuousOp(f"jumps at {alpha}", fix="use alpha 0", node=call.node.name)
    return scalars.relu()


def _shrink(builder: Builder, call: Call) -> Signal:
    call.arity(1, 1)
    limit, bias = call.number("lambd", 0.5), call.number("bias", 0.0)
    if bias != limit:
        raise DiscontinuousOp("bias is not lambd", fix="use bias = lambd", node=call.node.name)
    if limit < 0:
        call.invalid(f"lambd {limit}")
    if limit == 0:
        return call.signal(0)
    return builder.elementwise(call, call.signal(0), scalars.soft_shrink(limit))


def _gelu(call: Call) -> Curve:
    form = call.string("approximate", "none")
    if form not in ("none", "tanh"):
        call.invalid(f"approximate {form!r}")
    return compounds.gelu() if form == "none" else compounds.gelu_tanh()


def _swish(call: Call) -> Curve:
    alpha = call.number("alpha", 1.0)
    if alpha == 0:
        call.not_checkable("alpha 0")
    return _silu((1.0, 0.0), (alpha, 0.0))


def _prelu(builder: Builder, call: Call) -> Signal:
    call.arity(2, 2)
    call.one_float_type()
    signal, slope = call.signal(0), call.exact(1)
    if call.broadcast(signal.shape, slope.shape) != signal.shape:
        call.mismatch(f"a slope of shape {slope.shape}")
    values = np.broadcast_to(slope.value, signal.shape).reshape(-1)
    return builder.elementwise(call, signal, scalars.leaky(values))


def _clip(builder: Builder, call: Call) -> Signal:
    call.arity(1, 3)
    ends: list[float | None] = [None, None]
    if call.opset < 11:
        ends = [call.number(name, 0.0) if call.has(name) else None for name in ("min", "max")]
    else:
        ends = [
            call.scalar(place) if call.optional(place) is not None else None for place in (1, 2)
        ]
    least, greatest = ends
    if least is not None and greatest is not None and least > greatest:
        call.invalid("its limits are crossed")
    if least is None and greatest is None:
        return call.signal(0)
    return builder.elementwise(call, call.signal(0), scalars.clip(least, greatest))


def _cast(_builder: Builder, call: Call) -> Signal:
    call.arity(1, 1)
    call.integer("saturate", 1)
    call.string("round_mode", "up")
    signal, target = call.signal(0), _FLOAT_NUMBERS.get(call.integer("to", 0))
    if target is None:
        raise DiscontinuousOp("a Cast to integers", fix="remove it", node=call.node.name)
    if signal.dtype not in FLOATS:
        raise DtypeUnsupported("a Cast of no floats", fix="use floats", node=call.node.name)
    return Signal(signal.source, signal.shape, target)


def _unsupported_jump(_builder: Builder, call: Call) -> Signal:
    raise DiscontinuousOp(
        f"{call.node.op} outside of a pattern", fix="write it without comparisons",
        node=call.node.name,
    )  # fmt: skip


# --- Compounds -----------------------------------------------------------------------------------


def _silu(outer: Pair, inner: Pair) -> Curve:
    """Outer r s(inner r) = (outer / inner) silu(inner r)."""
    factor = over(outer, inner)
    if is_one(inner) and is_one(factor) and inner[0] == factor[0] == 1.0:
        return compounds.silu()
    return compounds.Rescaled(compounds.silu(), inner, factor, compounds.Gate.curvature)


def _product_with(builder: Builder, factor: Signal, gate: Signal) -> tuple[str, Curve] | None:
    """(r, f) where the product of two signals is f(r); `gate` is the one with the function."""
    multiples = rays(builder, factor.source)
    for ray in rays(builder, gate.source):
        found = _gated(builder, multiples, ray)
        if found is not None:
            return found
    return None


def _gated(builder: Builder, multiples: Sequence[Ray], ray: Ray) -> tuple[str, Curve] | None:
    if _is_tanh_of_softplus(builder, multiples, ray):
        return multiples[0].root, compounds.mish()
    sigmoid = curve_of(builder, ray, scalars.Sigmoid)
    erf = curve_of(builder, ray, scalars.Erf)
    node = sigmoid or erf
    if node is None:
        return None
    pair = meeting(multiples, rays(builder, node.source))
    if pair is None:
        return None
    outer, inner = times(pair[0].scale, ray.scale), pair[1].scale
    if sigmoid is not None and ray.shift == (0.0, 0.0):
        return pair[0].root, _silu(outer, inner)
    # Of numbers that are rounded, one value and one error do not say that they are one number.
    if erf is not None and ray.shift == ray.scale and ray.scale[1] == 0:
        return pair[0].root, compounds.erf_gate(inner, over(outer, inner))
    return None


def _is_tanh_of_softplus(builder: Builder, multiples: Sequence[Ray], ray: Ray) -> bool:
    """Whether the ray is tanh(softplus(r)) itself, for the r that it multiplies."""
    outer = curve_of(builder, ray, scalars.Tanh)
    if outer is None or (ray.scale, ray.shift) != (ONE, (0.0, 0.0)):
        return False
    inner = curve_of(builder, Ray(outer.source, ONE, (0.0, 0.0)), scalars.Softplus)
    return inner is not None and inner.source == multiples[0].root


def _multiply(builder: Builder, call: Call) -> Signal:
    """Mul: by a constant, or a compound."""
    call.arity(2, 2)
    call.one_float_type()
    first, second = call.operand(0), call.operand(1)
    if isinstance(first, Constant):
        return scale_by(builder, call, call.signal(1), first)
    if isinstance(second, Constant):
        return scale_by(builder, call, first, second)
    if first.shape != second.shape:
        return multiply(builder, call, first, second)
    if first.source == second.source:
        return builder.elementwise(call, first, compounds.Square())
    for factor, gate in ((first, second), (second, first)):
        found = _product_with(builder, factor, gate)
        if found is not None:
            root = Signal(found[0], first.shape, first.dtype)
            return builder.elementwise(call, root, found[1])
    return multiply(builder, call, first, second)


def _divide(builder: Builder, call: Call) -> Signal:
    """Div: by a constant, x / (1 + |x|), or by any signal."""
    call.arity(2, 2)
    call.one_float_type()
    first, second = call.operand(0), call.operand(1)
    if isinstance(second, Constant):
        return divide_by(builder, call, call.signal(0), second)
    if isinstance(first, Signal) and first.shape == second.shape:
        found = _softsign(builder, first, second)
        if found is not None:
            root = Signal(found[0], first.shape, first.dtype)
            return builder.elementwise(call, root, found[1])
    return divide(builder, call, first, call.signal(1))


def _is_absolute(function: Scalar) -> bool:
    return isinstance(function, scalars.PiecewiseLinear) and function.is_absolute


def _softsign(builder: Builder, first: Signal, second: Signal) -> tuple[str, Curve] | None:
    for ray in rays(builder, second.source):
        node = builder.nodes.get(ray.root)
        if not isinstance(node, Elementwise) or not _is_absolute(node.function):
            continue
        if ray.scale[0] <= 0 or ray.shift[0] <= 0:
            continue
        pair = meeting(rays(builder, first.source), rays(builder, node.source))
        if pair is None:
            continue
        # a r / (t + k |c r|) = (a / (k |c|)) softsign(k |c| r / t)
        size = (abs(pair[1].scale[0]), pair[1].scale[1])
        slope = times(ray.scale, size)
        inner, outer = over(slope, ray.shift), over(pair[0].scale, slope)
        if is_one(inner) and outer == ONE:
            return pair[0].root, compounds.Softsign()
        curve = compounds.Rescaled(compounds.Softsign(), inner, outer, compounds.Softsign.curvature)
        return pair[0].root, curve
    return None


def _root(builder: Builder, call: Call) -> Signal:
    """Sqrt: of a sum of squares, or of any signal."""
    call.arity(1, 1)
    return _rooted(builder, call, call.signal(0))


def _rooted(builder: Builder, call: Call, signal: Signal) -> Signal:
    found = root_of_squares(builder, call, signal)
    return builder.elementwise(call, signal, Power(0.5)) if found is None else found


def _power(builder: Builder, call: Call) -> Signal:
    """Pow with one exponent."""
    call.arity(2, 2)
    exponent, signal = call.scalar(1), call.signal(0)
    if call.broadcast(signal.shape, call.constant(1).shape) != signal.shape:
        call.mismatch("its exponent has more axes than what it is applied to")
    if exponent == 1.0:
        return signal
    if exponent == 0.0 or Fraction(exponent) - 1 != Fraction(exponent - 1.0):
        call.not_checkable(f"the power {exponent} of a signal")
    if exponent == 0.5:
        return _rooted(builder, call, signal)
    curve = compounds.Square() if exponent == 2.0 else Power(exponent)
    return builder.elementwise(call, signal, curve)


def _logarithm(builder: Builder, call: Call) -> Signal:
    """Log: of a sigmoid, log s(x) = -softplus(-x), or of any signal."""
    call.arity(1, 1)
    signal = call.signal(0)
    node = curve_of(builder, Ray(signal.source, ONE, (0.0, 0.0)), scalars.Sigmoid)
    if node is None:
        return builder.elementwise(call, signal, Log())
    curve = compounds.Rescaled(scalars.Softplus(), (-1.0, 0.0), (-1.0, 0.0), 0.25)
    return builder.elementwise(call, Signal(node.source, signal.shape, signal.dtype), curve)


RULES: Mapping[str, Rule] = {
    "Abs": _unary(lambda _: scalars.absolute()),
    "Asinh": _unary(lambda _: arcs.Asinh()),
    "Atan": _unary(lambda _: arcs.Atan()),
    "Cast": _cast,
    "Celu": _unary(_celu),
    "Clip": _clip,
    "Cos": _unary(lambda _: waves.cosine()),
    "Cosh": _unary(lambda _: arcs.Cosh()),
    "Div": _divide,
    "Elu": _unary(_elu),
    "Equal": _unsupported_jump,
    "Erf": _unary(lambda _: scalars.Erf()),
    "Exp": _unary(lambda _: compounds.Exp()),
    "Gelu": _unary(_gelu),
    "Greater": _unsupported_jump,
    "GreaterOrEqual": _unsupported_jump,
    "HardSigmoid": _unary(_hard_sigmoid),
    "HardSwish": _unary(lambda _: compounds.HardSwish()),
    "LeakyRelu": _unary(_leaky),
    "Less": _unsupported_jump,
    "LessOrEqual": _unsupported_jump,
    "Log": _logarithm,
    "Max": tournaments.maximum,
    "Min": tournaments.minimum,
    "Mish": _unary(lambda _: compounds.mish()),
    "Mul": _multiply,
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(lambda _: Power(-1.0)),
    "Relu": _unary(lambda _: scalars.relu()),
    "Selu": _unary(_selu),
    "Shrink": _shrink,
    "Sigmoid": _unary(lambda _: scalars.Sigmoid()),
    "Sin": _unary(lambda _: waves.sine()),
    "Sinh": _unary(lambda _: arcs.Sinh()),
    "Softplus": _unary(lambda _: scalars.Softplus()),
    "Softsign": _unary(lambda _: compounds.Softsign()),
    "Sqrt": _root,
    "Swish": _unary(_swish),
    "Tanh": _unary(lambda _: scalars.Tanh()),
    "ThresholdedRelu": _unary(_thresholded),
}

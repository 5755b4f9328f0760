"""What a tensor is as a function of an earlier one, its base, kept until somebody asks.

Recognition does not look at the names of operators: it evaluates, symbolically, what stands
between two tensors. A form is one description for each entry of a tensor; an algebra says how
forms add, scale, move, and what |.| makes of them. Everything piecewise linear follows:

    relu(d) = d/2 + |d|/2              max(a, b) = (a + b)/2 + |a - b|/2
    where(0 < d, b + w d, b) = b + w relu(d)      if the branches differ by w d, w constant

A form that an algebra cannot express is None, and so is all that is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from verifier.onnx_import.moves import FILL, MOVES, axes_of, axis_of, broadcast_shape
from verifier.onnx_import.values import Constant, Opaque, Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Form = TypeVar("Form")

MAX_DEPTH: Final = 40  #: operators between a tensor and its base


@runtime_checkable
class Algebra(Protocol[Form]):
    """How the entries of a tensor are described as functions of a base."""

    def identity(self, shape: Shape) -> Form | None:
        """The base itself."""
        ...

    def moved(self, form: Form, index: Array) -> Form | None:
        """Entries picked by flat index, in the index's shape."""
        ...

    def joined(self, forms: Sequence[Form], axis: int) -> Form | None:
        """Concatenation."""
        ...

    def summed(self, left: Form, right: Form, sign: float) -> Form | None:
        """Left + sign right, broadcast."""
        ...

    def scaled(self, form: Form, factor: Array) -> Form | None:
        """The entries times a broadcast constant."""
        ...

    def contracted(self, form: Form, vector: Array, keep: bool) -> Form | None:
        """The sum of the last axis against a vector."""
        ...

    def absolute(self, form: Form) -> Form | None:
        """|.| of every entry."""
        ...

    def ratio(self, numerator: Form, denominator: Form) -> Array | None:
        """W with numerator = w denominator, entry by entry."""
        ...


Evaluation: TypeAlias = Callable[[Any], Any]


@dataclass(slots=True, eq=False)
class Trace:
    """A tensor as a function of its base, evaluated in any algebra on demand."""

    evaluation: Evaluation
    depth: int
    is_gated: bool  #: whether anything but linear maps is in between
    known: dict[int, object] = field(default_factory=dict[int, object])

    def form(self, algebra: Algebra[Form]) -> Form | None:
        """The form, computed once for each algebra."""
        if id(algebra) not in self.known:
            self.known[id(algebra)] = self.evaluation(algebra)
        found: Any = self.known[id(algebra)]
        return found


Traces: TypeAlias = Mapping[str, Trace]


def base(name: str, shape: Shape) -> dict[str, Trace]:
    """A tensor as its own base."""
    return {name: Trace(lambda algebra: algebra.identity(shape), 0, is_gated=False)}


def traces(call: Call) -> list[tuple[Shape, dict[str, Trace]]]:
    """Shapes and traces of what leaves an operator; empty where it cannot be traced."""
    operands = [value for value in call.inputs if isinstance(value, (Signal, Opaque))]
    if not operands or any(value.shape is None for value in call.inputs if value is not None):
        return []
    shared = [
        name
        for name in operands[0].traces
        if all(name in value.traces for value in operands)
        and all(value.traces[name].depth < MAX_DEPTH for value in operands)
    ]
    if not shared:
        return []
    if call.op in MOVES:
        return _moves(call, operands[0], shared)
    if call.op not in _RULES:
        return []
    traced = _RULES[call.op](call)
    if traced is None:
        return []
    shape, combine, gated = traced
    depth = 1 + max(value.traces[name].depth for value in operands for name in shared)
    return [
        (
            shape,
            {
                name: Trace(
                    _evaluation(combine, [value.traces[name] for value in operands]),
                    depth,
                    gated or any(value.traces[name].is_gated for value in operands),
                )
                for name in shared
            },
        )
    ]


Combine: TypeAlias = Callable[[Any, Sequence[Any]], Any]
_Traced: TypeAlias = tuple[Shape, Combine, bool]


def _evaluation(combine: Combine, operands: Sequence[Trace]) -> Evaluation:
    def evaluate(algebra: Algebra[Any]) -> object:
        forms = [operand.form(algebra) for operand in operands]
        if any(form is None for form in forms):
            return None
        conditions = any(isinstance(form, _Condition) for form in forms)
        return None if conditions and combine is not _chosen else combine(algebra, forms)

    return evaluate


def _moving(index: Array, operand: Trace) -> Evaluation:
    """Entries picked, of a form or of the difference that a condition tests."""

    def evaluate(algebra: Algebra[Any]) -> object:
        form = operand.form(algebra)
        if isinstance(form, _Condition):
            difference = algebra.moved(form.difference, index)
            return None if difference is None else _Condition(difference)
        return None if form is None else algebra.moved(form, index)

    return evaluate


def _moves(
    call: Call, operand: Signal | Opaque, shared: Sequence[str]
) -> list[tuple[Shape, dict[str, Trace]]]:
    if any(not isinstance(value, Constant) for value in call.inputs[1:] if value is not None):
        return []
    shape = operand.shape or ()
    start = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    results: list[tuple[Shape, dict[str, Trace]]] = []
    for index in MOVES[call.op](call, start):
        if (index == FILL).any():
            return []
        results.append(
            (
                index.shape,
                {
                    name: Trace(
                        _moving(index, operand.traces[name]),
                        operand.traces[name].depth + 1,
                        operand.traces[name].is_gated,
                    )
                    for name in shared
                },
            )
        )
    return results


def _broadcast(call: Call) -> Shape:
    return checked_size(
        broadcast_shape(call, *(call.shape(place) for place in range(len(call.inputs)))), call.name
    )


def _linear_sum(call: Call, sign: float) -> _Traced | None:
    if any(isinstance(value, Constant) for value in call.inputs):
        return None
    return (
        _broadcast(call),
        lambda algebra, forms: algebra.summed(forms[0], forms[1], sign),
        False,
    )


def _add(call: Call) -> _Traced | None:
    return _linear_sum(call, 1.0)


def _sub(call: Call) -> _Traced | None:
    return _linear_sum(call, -1.0)


def _product(call: Call, *, inverse: bool) -> _Traced | None:
    constants = [value.array for value in call.inputs if isinstance(value, Constant)]
    if len(constants) != 1 or (inverse and not isinstance(call.inputs[1], Constant)):
        return None
    if inverse and not constants[0].all():
        return None
    factor = np.asarray(1.0 / constants[0]) if inverse else constants[0]
    return _broadcast(call), lambda algebra, forms: algebra.scaled(forms[0], factor), False


def _mul(call: Call) -> _Traced | None:
    return _product(call, inverse=False)


def _div(call: Call) -> _Traced | None:
    return _product(call, inverse=True)


def _neg(call: Call) -> _Traced | None:
    return (
        call.shape(0),
        lambda algebra, forms: algebra.scaled(forms[0], np.array(-1.0)),
        False,
    )


def _abs(call: Call) -> _Traced | None:
    return call.shape(0), lambda algebra, forms: algebra.absolute(forms[0]), True


def _relu(call: Call) -> _Traced | None:
    return call.shape(0), lambda algebra, forms: _rectified(algebra, forms[0]), True


def _rectified(algebra: Algebra[Form], form: Form) -> Form | None:
    """relu(d) = d/2 + |d|/2."""
    size = algebra.absolute(form)
    doubled = None if size is None else algebra.summed(form, size, 1.0)
    return None if doubled is None else algebra.scaled(doubled, np.array(0.5))


def _extreme(call: Call, sign: float) -> _Traced | None:
    if len(call.inputs) != 2 or any(isinstance(value, Constant) for value in call.inputs):
        return None
    return (
        _broadcast(call),
        lambda algebra, forms: _greater(algebra, forms[0], forms[1], sign),
        True,
    )


def _greater(algebra: Algebra[Form], a: Form, b: Form, sign: float) -> Form | None:
    """Max (sign 1) or min (sign -1): (a + b)/2 +- |a - b|/2."""
    total, difference = algebra.summed(a, b, 1.0), algebra.summed(a, b, -1.0)
    size = None if difference is None else algebra.absolute(difference)
    if total is None or size is None:
        return None
    doubled = algebra.summed(total, size, sign)
    return None if doubled is None else algebra.scaled(doubled, np.array(0.5))


def _max(call: Call) -> _Traced | None:
    return _extreme(call, 1.0)


def _min(call: Call) -> _Traced | None:
    return _extreme(call, -1.0)


def _reduce_extreme(call: Call, sign: float) -> _Traced | None:
    """Over one axis of two entries."""
    shape = call.shape(0)
    axes = axes_of(call, 1, len(shape), since=18)
    keep = bool(call.attributes.integer("keepdims", 1))
    if axes is None or len(axes) != 1 or shape[axes[0]] != 2:
        return None
    index = np.arange(prod(shape)).reshape(shape)
    first, second = (np.take(index, [place] if keep else place, axes[0]) for place in (0, 1))
    return (
        first.shape,
        lambda algebra, forms: _pair_extreme(algebra, forms[0], first, second, sign),
        True,
    )


def _pair_extreme(
    algebra: Algebra[Form], form: Form, first: Array, second: Array, sign: float
) -> Form | None:
    a, b = algebra.moved(form, first), algebra.moved(form, second)
    return None if a is None or b is None else _greater(algebra, a, b, sign)


def _reduce_max(call: Call) -> _Traced | None:
    return _reduce_extreme(call, 1.0)


def _reduce_min(call: Call) -> _Traced | None:
    return _reduce_extreme(call, -1.0)


def _reduce_sum(call: Call) -> _Traced | None:
    shape = call.shape(0)
    axes = axes_of(call, 1, len(shape), since=13)
    keep = bool(call.attributes.integer("keepdims", 1))
    if axes != (len(shape) - 1,):
        return None
    ones = np.ones(shape[-1])
    return (
        (*shape[:-1], 1) if keep else shape[:-1],
        lambda algebra, forms: algebra.contracted(forms[0], ones, keep),
        False,
    )


def _matmul(call: Call) -> _Traced | None:
    """By one vector: x v, or the outer product of a column and a row."""
    a, b = call.input(0), call.input(1)
    if not isinstance(b, Constant) or isinstance(a, Constant) or b.array.ndim > 2:
        return None
    shape, weight = call.shape(0), b.array
    if weight.ndim == 2 and weight.shape[0] == 1 and shape and shape[-1] == 1:
        row = weight[0]
        return (
            (*shape[:-1], len(row)),
            lambda algebra, forms: algebra.scaled(forms[0], row),
            False,
        )
    if weight.shape[1:] not in {(), (1,)} or not shape or shape[-1] != len(weight):
        return None
    keep = weight.ndim == 2
    return (
        (*shape[:-1], 1) if keep else shape[:-1],
        lambda algebra, forms: algebra.contracted(forms[0], weight.reshape(-1), keep),
        False,
    )


def _concat(call: Call) -> _Traced | None:
    if any(isinstance(value, Constant) for value in call.inputs):
        return None
    shapes = [call.shape(place) for place in range(len(call.inputs))]
    axis = axis_of(call, call.attributes.integer("axis"), len(shapes[0]))
    total = list(shapes[0])
    total[axis] = sum(shape[axis] for shape in shapes)
    return tuple(total), lambda algebra, forms: algebra.joined(forms, axis), False


@dataclass(frozen=True, slots=True)
class _Condition:
    """0 < d, or 0 <= d: where d = 0, continuous branches agree."""

    difference: object


def _comparison(call: Call, sign: float) -> _Traced | None:
    """A > b as 0 < sign (a - b); a constant side has to be 0."""
    a, b = call.inputs
    shape = _broadcast(call)
    if isinstance(a, Constant):
        return None if a.array.any() else (shape, _signed(-sign), True)
    if isinstance(b, Constant):
        return None if b.array.any() else (shape, _signed(sign), True)
    return shape, lambda algebra, forms: _difference(algebra, forms, sign), True


def _signed(sign: float) -> Combine:
    def combine(algebra: Algebra[Any], forms: Sequence[Any]) -> object:
        scaled = algebra.scaled(forms[0], np.array(sign))
        return None if scaled is None else _Condition(scaled)

    return combine


def _difference(algebra: Algebra[Any], forms: Sequence[Any], sign: float) -> object:
    left, right = forms if sign > 0 else (forms[1], forms[0])
    difference = algebra.summed(left, right, -1.0)
    return None if difference is None else _Condition(difference)


def _greater_than(call: Call) -> _Traced | None:
    return _comparison(call, 1.0)


def _less_than(call: Call) -> _Traced | None:
    return _comparison(call, -1.0)


def _where(call: Call) -> _Traced | None:
    if any(isinstance(value, Constant) for value in call.inputs):
        return None
    return _broadcast(call), _chosen, True


def _chosen(algebra: Algebra[Any], forms: Sequence[Any]) -> object:
    """B + w relu(d) where the branches a and b differ by w d."""
    condition, a, b = forms
    if not isinstance(condition, _Condition):
        return None
    gap = algebra.summed(a, b, -1.0)
    # Broadcast the condition to the branches' shape.
    d = (
        None
        if gap is None
        else algebra.summed(condition.difference, algebra.scaled(gap, np.array(0.0)), 1.0)
    )
    ratio = None if d is None else algebra.ratio(gap, d)
    step = None if ratio is None else _rectified(algebra, d)
    scaled = None if step is None or ratio is None else algebra.scaled(step, ratio)
    return None if scaled is None else algebra.summed(b, scaled, 1.0)


_RULES: Final[Mapping[str, Callable[[Call], _Traced | None]]] = {
    "Abs": _abs,
    "Add": _add,
    "Concat": _concat,
    "Div": _div,
    "Greater": _greater_than,
    "GreaterOrEqual": _greater_than,
    "Less": _less_than,
    "LessOrEqual": _less_than,
    "MatMul": _matmul,
    "Max": _max,
    "Min": _min,
    "Mul": _mul,
    "Neg": _neg,
    "ReduceMax": _reduce_max,
    "ReduceMin": _reduce_min,
    "ReduceSum": _reduce_sum,
    "Relu": _relu,
    "Sub": _sub,
    "Where": _where,
}

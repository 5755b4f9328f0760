"""Affine operators: sums, products with constants, matrices, normalisation, means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, composed, indices, rearranged, scaled, spread
from verifier.checker.enclosures import TINY, U
from verifier.checker.folded_arithmetic import product, quotient, square_root
from verifier.checker.maps import Composed, Dense, identity
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.products import matrix_product, summed_products
from verifier.checker.reductions import reduced_axes
from verifier.checker.stacks import stacked
from verifier.errors import TrainingModeOp

if TYPE_CHECKING:
    from verifier.checker.network import Map

_UP = 1 + 16 * U


def flat(constant: Constant, shape: tuple[int, ...]) -> Constant:
    """The constant, broadcast and flat."""
    value = np.broadcast_to(constant.value, shape).reshape(-1)
    if constant.error is None:
        return Constant(value, constant.dtype)
    return Constant(value, constant.dtype, np.broadcast_to(constant.error, shape).reshape(-1))


def added(first: Constant | None, second: Constant) -> Constant:
    """The sum; None is 0."""
    if first is None:
        return second
    value = first.value + second.value
    return Constant(value, first.dtype, (first.spread + second.spread + np.abs(value) * U) * _UP)


def negated(constant: Constant) -> Constant:
    """Minus the constant, exactly."""
    return Constant(-constant.value, constant.dtype, constant.error)


def _sum_of(builder: Builder, call: Call, signs: tuple[int, ...], name: str = "") -> Signal:
    """The sum, named as the call's first result or otherwise."""
    call.one_float_type()
    operands = [call.operand(place) for place in range(len(call.operands))]
    shape = call.broadcast(*(operand.shape for operand in operands))
    terms: list[Term] = []
    bias: Constant | None = None
    for operand, sign in zip(operands, signs, strict=True):
        if isinstance(operand, Constant):
            constant = flat(operand, shape)
            bias = added(bias, constant if sign > 0 else negated(constant))
        else:
            onto = spread(operand.shape, shape)
            minus = np.full(math.prod(shape), float(sign))
            terms.append(Term(operand.source, scaled(onto, minus, None)))
    if not name:
        return builder.linear(call, shape, terms, bias)
    builder.affine(name, math.prod(shape), terms, bias)
    return Signal(name, shape, call.one_float_type())


def add(builder: Builder, call: Call) -> Signal:
    """Add, and Sum of any number."""
    return _sum_of(builder, call, (1,) * len(call.operands))


def mean(builder: Builder, call: Call) -> Signal:
    """Mean of any number."""
    share = 1.0 / len(call.operands)
    total = f"{call.node.name}:total"
    signal = _sum_of(builder, call, (1,) * len(call.operands), total)
    error = np.full(signal.size, share * U * _UP)
    to = scaled(identity(signal.size), np.full(signal.size, share), error)
    return builder.linear(call, signal.shape, [Term(signal.source, to)])


def subtract(builder: Builder, call: Call) -> Signal:
    """Sub."""
    call.arity(2, 2)
    return _sum_of(builder, call, (1, -1))


def negate(builder: Builder, call: Call) -> Signal:
    """Neg."""
    call.arity(1, 1)
    return scale_by(builder, call, call.signal(0), Constant(np.array(-1.0), call.signal(0).dtype))


def scale_by(builder: Builder, call: Call, signal: Signal, constant: Constant) -> Signal:
    """The product of a signal and a constant, with broadcasting."""
    shape = call.broadcast(signal.shape, constant.shape)
    factor = flat(constant, shape)
    onto = spread(signal.shape, shape)
    return builder.linear(
        call, shape, [Term(signal.source, scaled(onto, factor.value, factor.error))]
    )


def divide_by(builder: Builder, call: Call, signal: Signal, constant: Constant) -> Signal:
    """The quotient of a signal and a constant."""
    one = Constant(np.array(1.0), constant.dtype)
    return scale_by(builder, call, signal, quotient(call, one, constant))


# --- Matrices ------------------------------------------------------------------------------------


def _transposed(constant: Constant) -> Constant:
    error = None if constant.error is None else constant.error.T
    return Constant(constant.value.T, constant.dtype, error)


def _times(constant: Constant, factor: float) -> Constant:
    if factor == 1.0:
        return constant
    value = constant.value * factor
    error = (constant.spread * abs(factor) + np.abs(value) * U) * _UP + TINY
    return Constant(value, constant.dtype, error)


def _dense(weight: Constant, rows: int) -> Dense:
    return Dense(weight.value, weight.error, rows)


def matmul(builder: Builder, call: Call) -> Signal:
    """MatMul of signals and constants."""
    call.arity(2, 2)
    call.one_float_type()
    first, second = call.operand(0), call.operand(1)
    for item in (first, second):
        if isinstance(item, Constant) and math.prod(item.shape[:-2]) > 1:
            return stacked(builder, call, first, second)
    if isinstance(first, Signal) and isinstance(second, Constant):
        return _signal_by_matrix(builder, call, first, _plain(call, second), len(second.shape))
    if isinstance(first, Constant) and isinstance(second, Signal):
        return _matrix_by_signal(builder, call, _plain(call, first), second, len(first.shape))
    return matrix_product(builder, call, call.signal(0), call.signal(1))


def _plain(call: Call, constant: Constant) -> Constant:
    """The constant as a matrix or vector: leading axes of length 1 are dropped."""
    extra = max(constant.value.ndim - 2, 0)
    if any(size != 1 for size in constant.shape[:extra]) or constant.value.ndim == 0:
        call.not_checkable(f"a constant of shape {constant.shape[:8]}")
    shape = constant.shape[extra:]
    error = None if constant.error is None else constant.error.reshape(shape)
    return Constant(constant.value.reshape(shape), constant.dtype, error)


def _leading(rank: int, signal: Signal) -> tuple[int, ...]:
    """The axes of length 1 that come back in the result: of a constant of so many axes."""
    return (1,) * max(rank - max(len(signal.shape), 2), 0)


def _signal_by_matrix(
    builder: Builder, call: Call, signal: Signal, weight: Constant, rank: int
) -> Signal:
    if not signal.shape or signal.shape[-1] != weight.shape[0]:
        call.mismatch(f"{signal.shape} times {weight.shape}")
    outer = signal.shape[:-1]
    outer = _leading(rank, signal) + outer
    matrix = weight.value.reshape(weight.shape[0], -1)
    error = None if weight.error is None else weight.error.reshape(matrix.shape)
    shape = call.allowed([*outer, *weight.shape[1:]])
    dense = Dense(matrix.T, None if error is None else error.T, math.prod(outer))
    return builder.linear(call, shape, [Term(signal.source, dense)])


def _matrix_by_signal(
    builder: Builder, call: Call, weight: Constant, signal: Signal, rank: int
) -> Signal:
    place = max(len(signal.shape) - 2, 0)
    if not signal.shape or signal.shape[place] != weight.shape[-1]:
        call.mismatch(f"{weight.shape} times {signal.shape}")
    outer, columns = signal.shape[:place], signal.shape[place + 1 :]
    matrix = weight.value.reshape(-1, weight.shape[-1])
    error = None if weight.error is None else weight.error.reshape(matrix.shape)
    shape = call.allowed([*_leading(rank, signal), *outer, *weight.shape[:-1], *columns])
    dense: Map = Dense(matrix, error, math.prod(outer) * math.prod(columns))
    if math.prod(columns) > 1:
        # Columns become rows, are multiplied, and become columns again.
        count, inner, width = math.prod(outer), weight.shape[-1], math.prod(columns)
        before = rearranged((count, inner, width), (0, 2, 1))
        after = rearranged((count, width, len(matrix)), (0, 2, 1))
        dense = Composed(Composed(before, dense), after)
    return builder.linear(call, shape, [Term(signal.source, dense)])


def gemm(builder: Builder, call: Call) -> Signal:
    """Gemm: alpha A B + beta C, with A or B a constant."""
    call.arity(2, 3)
    dtype = call.one_float_type()
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    swaps = call.integer("transA", 0) != 0, call.integer("transB", 0) != 0
    first, second = call.operand(0), call.operand(1)
    if len(first.shape) != 2 or len(second.shape) != 2:
        call.mismatch(f"{first.shape} times {second.shape}")
    left = first.shape[::-1] if swaps[0] else first.shape
    right = second.shape[::-1] if swaps[1] else second.shape
    if left[1] != right[0]:
        call.mismatch(f"{left} times {right}")
    shape = call.allowed([left[0], right[1]])
    if isinstance(first, Signal) and isinstance(second, Signal):
        terms, bias = [_gemm_of_signals(builder, call, first, second, swaps, alpha)], None
    else:
        terms, bias = _gemm_product(call, first, second, swaps, alpha, dtype)
    addend = call.optional(2)
    if addend is not None and call.broadcast(addend.shape, shape) != shape:
        call.mismatch(f"C has shape {addend.shape}")
    if isinstance(addend, Constant):
        bias = added(bias, _times(flat(addend, shape), beta))
    elif addend is not None:
        factor = np.full(math.prod(shape), beta)
        terms.append(Term(addend.source, scaled(spread(addend.shape, shape), factor, None)))
    return builder.linear(call, shape, terms, bias)


def _gemm_of_signals(
    builder: Builder,
    call: Call,
    first: Signal,
    second: Signal,
    swaps: tuple[bool, bool],
    alpha: float,
) -> Term:
    left, right = (
        places.T if swap else places
        for places, swap in zip((indices(first.shape), indices(second.shape)), swaps, strict=True)
    )
    shape, term = summed_products(builder, call, (first, left), (second, right))
    return Term(term.source, scaled(term.map, np.full(math.prod(shape), alpha), None))


def _gemm_product(
    call: Call,
    first: Constant | Signal,
    second: Constant | Signal,
    swaps: tuple[bool, bool],
    alpha: float,
    dtype: str,
) -> tuple[list[Term], Constant | None]:
    if isinstance(first, Constant) and isinstance(second, Constant):
        a = _transposed(first) if swaps[0] else first
        b = _transposed(second) if swaps[1] else second
        return [], flat(_times(product(call, a, b, dtype)[0], alpha), (a.shape[0], b.shape[1]))
    if isinstance(first, Signal) and isinstance(second, Constant):
        weight = _times(second if swaps[1] else _transposed(second), alpha)
        rows = first.shape[1 if swaps[0] else 0]
        dense: Map = _dense(weight, rows)
        if swaps[0] and 1 not in first.shape:
            dense = Composed(rearranged(first.shape, (1, 0)), dense)
        return [Term(first.source, dense)], None
    if isinstance(first, Constant) and isinstance(second, Signal):
        weight = _times(_transposed(first) if swaps[0] else first, alpha)
        columns = second.shape[0 if swaps[1] else 1]
        inner = weight.shape[1]
        # Y' = B' A': rows of B' are its columns.
        before = identity(inner * columns) if swaps[1] else rearranged((inner, columns), (1, 0))
        after = rearranged((columns, weight.shape[0]), (1, 0))
        return [
            Term(second.source, Composed(Composed(before, _dense(weight, columns)), after))
        ], None
    return call.not_checkable("both factors depend on the input")


# --- Normalisation and means ---------------------------------------------------------------------


def batch_normalization(builder: Builder, call: Call) -> Signal:
    """BatchNormalization for inference: gamma (x - mean) / sqrt(var + eps) + beta."""
    call.arity(5, 5)
    call.one_float_type()
    call.number("momentum", 0.9)
    epsilon = call.number("epsilon", float(np.float32(1e-5)))
    spatial = call.integer("spatial", 1)
    extra = [name for name in call.node.outputs[1:] if name]
    if call.integer("training_mode", 0) or extra:
        raise TrainingModeOp("BatchNormalization", fix="export for inference", node=call.node.name)
    signal = call.signal(0)
    gamma, beta, mean, variance = (call.constant(place) for place in range(1, 5))
    channels = signal.shape[1] if len(signal.shape) > 1 else 1
    if spatial != 1 or any(item.shape != (channels,) for item in (gamma, beta, mean, variance)):
        call.mismatch("its statistics do not fit the channels")
    eps = Constant(np.array(epsilon), gamma.dtype)
    scale = quotient(call, gamma, square_root(call, added(variance, eps)))
    shift = added(beta, negated(_product(mean, scale)))
    form = (channels, *(1 for _ in signal.shape[2:]))
    factor = flat(_reshaped(scale, form), signal.shape)
    bias = flat(_reshaped(shift, form), signal.shape)
    to = scaled(identity(signal.size), factor.value, factor.error)
    return builder.linear(call, signal.shape, [Term(signal.source, to)], bias)


def _reshaped(constant: Constant, shape: tuple[int, ...]) -> Constant:
    return Constant(
        constant.value.reshape(shape),
        constant.dtype,
        None if constant.error is None else constant.error.reshape(shape),
    )


def _product(first: Constant, second: Constant) -> Constant:
    value = first.value * second.value
    error = np.abs(first.value) * second.spread + np.abs(second.value) * first.spread
    error = (error + first.spread * second.spread + np.abs(value) * U) * _UP + 4 * TINY
    return Constant(value, first.dtype, error)


def _reduced(
    builder: Builder, call: Call, axes: tuple[int, ...], keeps: bool, is_mean: bool
) -> Signal:
    signal = call.signal(0)
    rest = tuple(axis for axis in range(len(signal.shape)) if axis not in axes)
    count = math.prod(signal.shape[axis] for axis in axes)
    kept = math.prod(signal.shape[axis] for axis in rest)
    if keeps:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(signal.shape))
    else:
        shape = tuple(signal.shape[axis] for axis in rest)
    if count == 0:
        call.mismatch("nothing to reduce")
    weight = 1.0 / count if is_mean else 1.0
    exact = not is_mean or count & (count - 1) == 0
    error = None if exact else np.full((1, count), weight * U * _UP)
    dense: Map = Dense(np.full((1, count), weight), error, kept)
    order = (*rest, *axes)
    if order != tuple(range(len(order))):
        dense = Composed(rearranged(signal.shape, order), dense)
    return builder.linear(call, call.allowed(shape), [Term(signal.source, dense)])


def reduce_sum(builder: Builder, call: Call) -> Signal:
    """ReduceSum."""
    axes, keeps = reduced_axes(call, len(call.signal(0).shape), since=13)
    return _reduced(builder, call, axes, keeps, is_mean=False)


def reduce_mean(builder: Builder, call: Call) -> Signal:
    """ReduceMean."""
    axes, keeps = reduced_axes(call, len(call.signal(0).shape), since=18)
    return _reduced(builder, call, axes, keeps, is_mean=True)


def global_average_pool(builder: Builder, call: Call) -> Signal:
    """GlobalAveragePool: the mean over the spatial axes."""
    call.arity(1, 1)
    rank = len(call.signal(0).shape)
    if rank < 3:
        call.mismatch(f"{rank} axes")
    return _reduced(builder, call, tuple(range(2, rank)), keeps=True, is_mean=True)


__all__ = [
    "add",
    "added",
    "batch_normalization",
    "composed",
    "divide_by",
    "flat",
    "gemm",
    "global_average_pool",
    "matmul",
    "negate",
    "reduce_mean",
    "reduce_sum",
    "scale_by",
    "subtract",
]

"""Einsum of one signal, with a constant or without, or of two; and the DFT, a matrix on an axis.

    y[o] = sum over s of a[..] b[..]

over the grid of output labels o, then summed labels s, each operand read at its own labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.network.linear_map import Adjoint, Dense, Diagonal
from verifier.network.nodes import linear
from verifier.onnx_import.convert.emitted import (
    Emitted,
    affine,
    gather,
    indices,
    tensor,
    then,
)
from verifier.onnx_import.convert.products import product_of, sum_of
from verifier.onnx_import.moves import axis_of
from verifier.onnx_import.values import Constant, Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
Labels: TypeAlias = tuple[str, ...]

MOST: Final = 2**22  #: products of entries


@dataclass(frozen=True, slots=True)
class _Sum:
    """The labels of every operand, of the output, and the size of each label."""

    operands: tuple[Labels, ...]
    output: Labels
    summed: Labels
    sizes: Mapping[str, int]

    def shape(self, labels: Sequence[str]) -> Shape:
        """Their sizes."""
        return tuple(self.sizes[label] for label in labels)

    def read(self, values: Array, place: int) -> Array:
        """An operand's entries over the whole grid."""
        whole = (*self.output, *self.summed)
        grid = dict(zip(whole, np.ogrid[tuple(slice(n) for n in self.shape(whole))], strict=True))
        at = (
            grid[label] if 1 < size else np.int64(0)
            for label, size in zip(self.operands[place], values.shape, strict=True)
        )
        return np.broadcast_to(values[tuple(at)], self.shape(whole))


def _einsum(call: Call) -> Emitted:
    found = _parsed(call)
    checked_size(found.shape(found.output), call.name)
    match [call.input(place) for place in range(len(call.inputs))]:
        case [Signal() as x]:
            return _weighted(call, found, x, 0, None)
        case [Signal() as x, Constant() as weight]:
            return _weighted(call, found, x, 0, weight.array)
        case [Constant() as weight, Signal() as x]:
            return _weighted(call, found, x, 1, weight.array)
        case [Signal() as x, Signal() as y]:
            return _multiplied(call, found, x, y)
        case _:
            raise call.unsupported(f"it has {len(call.inputs)} operands")


def _weighted(call: Call, found: _Sum, x: Signal, place: int, weight: Array | None) -> Emitted:
    """Sums of entries of x, times those of the constant."""
    if weight is not None and (made := _as_matrix(call, found, x, place, weight)) is not None:
        return made
    shape, inner = found.shape(found.output), math.prod(found.shape(found.summed))
    _limit(call, math.prod(shape) * inner)
    terms = gather(found.read(indices(x.shape), place), x.size)
    if weight is not None:
        factors = found.read(weight, 1 - place)
        terms = then(terms, Diagonal(tensor(factors.reshape(-1))))
    owner = np.repeat(np.arange(math.prod(shape)), inner)
    return affine(call, shape, [(x, then(terms, Adjoint(gather(owner, math.prod(shape)))))])


def _as_matrix(call: Call, found: _Sum, x: Signal, place: int, weight: Array) -> Emitted | None:
    """A matrix along the labels that are summed, where no label is common to all three."""
    own, others = found.operands[place], found.operands[1 - place]
    free = tuple(label for label in found.output if label not in others)
    fresh = tuple(label for label in found.output if label not in own)
    plain = len(free) + len(fresh) == len(found.output)
    plain &= sorted(own) == sorted((*free, *found.summed))
    plain &= sorted(others) == sorted((*fresh, *found.summed))
    if not plain or x.shape != found.shape(own) or weight.shape != found.shape(others):
        return None
    order = [own.index(label) for label in (*free, *found.summed)]
    turned = [others.index(label) for label in (*fresh, *found.summed)]
    rows = math.prod(found.shape(fresh))
    matrix = weight.transpose(turned).reshape(rows, -1)
    dense = Dense(tensor(matrix), math.prod(found.shape(free)))
    made = (*free, *fresh)
    back = indices(found.shape(made)).transpose([made.index(label) for label in found.output])
    before = gather(indices(x.shape).transpose(order), x.size)
    whole = then(then(before, dense), gather(back, dense.out_size))
    return affine(call, found.shape(found.output), [(x, whole)])


def _multiplied(call: Call, found: _Sum, x: Signal, y: Signal) -> Emitted:
    shape, inner = found.shape(found.output), math.prod(found.shape(found.summed))
    _limit(call, math.prod(shape) * inner)
    parts = [
        (one.node, gather(found.read(indices(one.shape), place), one.size))
        for place, one in enumerate((x, y))
    ]
    products = product_of(f"{call.output}:products", parts)
    return Emitted((*products, linear(call.output, [sum_of(call, shape, inner)])), shape)


def _limit(call: Call, count: int) -> None:
    if MOST < count:
        raise call.unsupported(f"it adds up {count:,} products of entries, more than {MOST:,}")


def _parsed(call: Call) -> _Sum:
    equation = call.attributes.text("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    is_plain = all(not t or t.isalpha() for term in (*terms, right) for t in term.split("..."))
    if len(terms) != len(call.inputs) or not is_plain:
        raise call.attributes.invalid("equation", f"is {equation!r}")
    shapes = [call.shape(place) for place in range(len(terms))]
    counts = [len(s) - len(t.replace("...", "")) for t, s in zip(terms, shapes, strict=True)]
    most = max(counts)
    if any("..." in term and count < most for term, count in zip(terms, counts, strict=True)):
        # onnxruntime refuses such files, or breaks down.
        raise call.unsupported("its ellipses stand for different numbers of axes")
    operands = [_labels(term, len(shape), most) for term, shape in zip(terms, shapes, strict=True)]
    sizes: dict[str, int] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        if len(labels) != len(shape):
            raise call.attributes.invalid("equation", f"is {equation!r} for {shapes}")
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
            if size not in {1, sizes[label]} or sizes[label] < size:
                raise call.attributes.invalid("equation", f"is {equation!r} for {shapes}")
    every = [label for labels in operands for label in labels]
    single = sorted(label for label in sizes if every.count(label) == 1 or label[0] == ".")
    output = _labels(right, -1, most) if arrow else tuple(single)
    if not set(output) <= sizes.keys() or len(set(output)) < len(output):
        raise call.attributes.invalid("equation", f"is {equation!r}")
    summed = tuple(dict.fromkeys(label for label in every if label not in output))
    return _Sum(tuple(operands), output, summed, sizes)


def _labels(term: str, rank: int, most: int) -> Labels:
    """A label for each axis; those of an ellipsis are counted from the last."""
    before, dots, after = term.partition("...")
    count = 0 if not dots else most if rank < 0 else rank - len(before) - len(after)
    return (*before, *(f".{place}" for place in range(most - count, most)), *after)


def _dft(call: Call) -> Emitted:
    """A matrix of cosines and sines along one axis of real or complex numbers."""
    x = call.signal(0)
    rank = len(x.shape)
    if call.opset < 20:
        axis = call.attributes.integer("axis", 1)
    else:
        given = call.integers(2)
        axis = -2 if given is None else given[0]
    axis = axis_of(call, axis, rank)
    inverse = bool(call.attributes.integer("inverse", 0))
    onesided = bool(call.attributes.integer("onesided", 0))
    halved = onesided and (inverse or x.shape[-1] == 2)
    if axis == rank - 1 or x.shape[-1] not in {1, 2} or halved:
        raise call.unsupported(f"axis {axis} of shape {list(x.shape)}, or one side of what has two")
    length = call.integers(1)
    count = x.shape[axis] if length is None else length[0]
    if count < 1 or MOST < 4 * count * min(count, x.shape[axis]):
        raise call.unsupported(f"its length is {count}")
    matrix = _fourier(count, min(count, x.shape[axis]), inverse, onesided)
    matrix = matrix if x.shape[-1] == 2 else matrix[..., :1]
    kept = np.moveaxis(indices(x.shape), axis, -2)[..., : matrix.shape[2], :]
    rest = kept.shape[:-2]
    whole = (*rest, len(matrix), 2)
    dense = Dense(tensor(matrix.reshape(2 * len(matrix), -1)), math.prod(rest))
    back = np.moveaxis(indices(checked_size(whole, call.name)), -2, axis)
    to = then(then(gather(kept, x.size), dense), gather(back, dense.out_size))
    return affine(call, back.shape, [(x, to)])


def _fourier(count: int, entries: int, inverse: bool, onesided: bool) -> Array:
    """[k, re/im of output, n, re/im of input]."""
    k = np.arange(count // 2 + 1 if onesided else count)
    # Reduced before it is multiplied by 2 pi, for angles of full precision.
    angle = 2 * np.pi * (np.outer(k, np.arange(entries)) % count) / count
    cos, sin = np.cos(angle), np.sin(angle) * (-1.0 if inverse else 1.0)
    rows = np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=1)
    return rows / count if inverse else rows


RULES: Final[Mapping[str, Callable[[Call], Emitted]]] = {"DFT": _dft, "Einsum": _einsum}

"""Einsum of a signal and a constant, of one signal, or of two; and DFT, a matrix along one axis.

    y[o] = sum over s of a[..] b[..]

The grid has the output's labels o and then the others s, in the order in which they first appear;
every operand is read at its own labels. A constant without a label that both others have is a
matrix. DFT is the matrix of cos(2 pi k n / N) and sin(2 pi k n / N).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, composed, indices, rearranged
from verifier.checker.cosines import cosine_table, sine_table
from verifier.checker.enclosures import TINY, U
from verifier.checker.maps import Adjoint, Composed, Dense, Diagonal, Gather
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.products import added_up

if TYPE_CHECKING:
    from verifier.checker.network import Map

MOST = 2**22  #: products of entries
_LONGEST = 2**13  #: of a DFT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Equation:
    """Labels by operand, and sizes by label."""

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    summed: tuple[str, ...]
    sizes: Mapping[str, int]

    def shape(self, labels: Sequence[str]) -> tuple[int, ...]:
        """The sizes of labels."""
        return tuple(self.sizes[label] for label in labels)

    def read(self, values: np.ndarray, place: int) -> np.ndarray:
        """An operand over the whole grid."""
        whole = (*self.output, *self.summed)
        shape = self.shape(whole)
        index: list[np.ndarray] = []
        for label, size in zip(self.operands[place], values.shape, strict=True):
            form = [1] * len(whole)
            form[whole.index(label)] = -1
            along = np.arange(self.sizes[label]) if size > 1 else np.zeros(1, np.int64)
            index.append(along.reshape(form))
        return np.broadcast_to(values[tuple(index)], shape)


def einsum(builder: Builder, call: Call) -> Signal:
    """Einsum."""
    call.arity(1, 2)
    call.one_float_type()
    found = _parsed(call)
    call.allowed(found.shape(found.output))
    operands = [call.operand(place) for place in range(len(call.operands))]
    signals = [item for item in operands if isinstance(item, Signal)]
    if len(signals) == 2:
        shape, term = _product(builder, call, found, signals)
        return builder.linear(call, shape, [term])
    place = 0 if isinstance(operands[0], Signal) else 1
    other = operands[1 - place] if len(operands) == 2 else None
    weight = other if isinstance(other, Constant) else None
    to = None if weight is None else _matrix(call, found, place, weight)
    if to is None:
        to = _entrywise(call, found, place, weight)
    return builder.linear(call, found.shape(found.output), [Term(signals[0].source, to)])


def _product(
    builder: Builder, call: Call, found: _Equation, signals: Sequence[Signal]
) -> tuple[tuple[int, ...], Term]:
    shape, inner = found.shape(found.output), math.prod(found.shape(found.summed))
    _limited(call, math.prod(shape) * inner)
    factors = [
        (one.source, Gather(found.read(indices(one.shape), place).reshape(-1), one.size))
        for place, one in enumerate(signals)
    ]
    return shape, added_up(builder, call, (factors[0], factors[1]), math.prod(shape), inner)


def _matrix(call: Call, found: _Equation, place: int, weight: Constant) -> Map | None:
    own, others = found.operands[place], found.operands[1 - place]
    shape = call.operand(place).shape
    kept = tuple(label for label in found.output if label not in others)
    fresh = tuple(label for label in found.output if label not in own)
    common = any(label in own and label in others for label in found.output)
    whole = sorted((*kept, *found.summed)) == sorted(own)
    if common or not whole or sorted((*fresh, *found.summed)) != sorted(others):
        return None
    if found.shape(own) != shape or found.shape(others) != weight.shape:
        return None
    order = [others.index(label) for label in (*fresh, *found.summed)]
    rows = math.prod(found.shape(fresh))
    error = None if weight.error is None else weight.error.transpose(order).reshape(rows, -1)
    matrix = weight.value.transpose(order).reshape(rows, -1)
    before = rearranged(shape, tuple(own.index(label) for label in (*kept, *found.summed)))
    dense = Dense(matrix, error, math.prod(found.shape(kept)))
    made = (*kept, *fresh)
    after = rearranged(found.shape(made), tuple(made.index(label) for label in found.output))
    return Composed(Composed(before, dense), after)


def _entrywise(call: Call, found: _Equation, place: int, weight: Constant | None) -> Map:
    shape = call.operand(place).shape
    size, inner = math.prod(found.shape(found.output)), math.prod(found.shape(found.summed))
    _limited(call, size * inner)
    to: Map = Gather(found.read(indices(shape), place).reshape(-1), math.prod(shape))
    if weight is not None:
        factors = found.read(weight.value, 1 - place).reshape(-1)
        error = None if weight.error is None else found.read(weight.error, 1 - place).reshape(-1)
        to = Composed(to, Diagonal(factors, error))
    owner = np.repeat(np.arange(size), inner)
    return Composed(to, Adjoint(Gather(owner, size)))


def _limited(call: Call, count: int) -> None:
    if count > MOST:
        call.not_checkable(f"{count} products of entries")


def _parsed(call: Call) -> _Equation:
    """The equation, spelled out for the operands' shapes."""
    text = call.string("equation", "").replace(" ", "")
    before, arrow, after = text.partition("->")
    terms = before.split(",")
    if len(terms) != len(call.operands) or not all(_is_plain(term) for term in (*terms, after)):
        call.invalid(f"equation {text[:80]!r}")
    shapes = [call.operand(place).shape for place in range(len(terms))]
    counts = [
        len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)
    ]
    if any(
        count < 0 or (count and "..." not in term)
        for term, count in zip(terms, counts, strict=True)
    ):
        call.invalid(f"equation {text[:80]!r}")
    most = max(counts)
    if any("..." in term and count < most for term, count in zip(terms, counts, strict=True)):
        call.not_checkable("ellipses that stand for different numbers of axes")
    operands = tuple(_spelled(term, count, most) for term, count in zip(terms, counts, strict=True))
    sizes = _sizes(call, operands, shapes)
    every = [label for labels in operands for label in labels]
    if arrow:
        output = _spelled(after, most, most)
    else:
        output = tuple(sorted(x for x in sizes if every.count(x) == 1 or x.startswith(".")))
        if not before.islower() and any(x.islower() for x in output):
            call.not_checkable("an order of small and capital letters")
    # What an ellipsis stands for is kept: whether it may be summed is said nowhere.
    kept = {label for label in sizes if label.startswith(".")} | {*output}
    if len(set(output)) != len(output) or not kept == {*output} <= sizes.keys():
        call.invalid(f"equation {text[:80]!r}")
    summed = tuple(dict.fromkeys(label for label in every if label not in output))
    return _Equation(operands=operands, output=output, summed=summed, sizes=sizes)


def _is_plain(term: str) -> bool:
    """Letters, and an ellipsis at most."""
    parts = term.split("...")
    return len(parts) <= 2 and all(not p or (p.isascii() and p.isalpha()) for p in parts)


def _sizes(
    call: Call, operands: Sequence[tuple[str, ...]], shapes: Sequence[tuple[int, ...]]
) -> dict[str, int]:
    """The size of every label; that of one operand may be 1 where that of another is not."""
    sizes: dict[str, int] = {}
    for labels, shape in zip(operands, shapes, strict=True):
        own: dict[str, int] = {}
        for label, size in zip(labels, shape, strict=True):
            known = sizes.get(label, 1)
            if own.setdefault(label, size) != size or 0 in (size, known):
                call.mismatch(f"label {label!r} of shapes {shapes}")
            if 1 not in (size, known) and size != known:
                call.mismatch(f"label {label!r} has sizes {known} and {size}")
            sizes[label] = max(size, known)
    return sizes


def _spelled(term: str, count: int, most: int) -> tuple[str, ...]:
    """One label for every axis; an ellipsis stands for the last `count` of its `most`."""
    left, dots, right = term.partition("...")
    inside = [f".{place:02d}" for place in range(most - count, most)] if dots else []
    return (*left, *inside, *right)


def fourier(builder: Builder, call: Call) -> Signal:
    """DFT."""
    call.arity(1, 3 if call.opset >= 20 else 2)
    signal = call.signal(0)
    rank = len(signal.shape)
    axis = call.integer("axis", 1) if call.opset < 20 else _whole(call, 2, -2)
    axis = call.axis(axis, rank)
    inverse, half = call.integer("inverse", 0) != 0, call.integer("onesided", 0) != 0
    parts = signal.shape[-1]
    if axis == rank - 1 or parts not in (1, 2) or (half and (inverse or parts == 2)):
        call.not_checkable("an axis of parts, or one side of what has two")
    size = signal.shape[axis]
    count = _whole(call, 1, size)
    if not 1 <= count <= _LONGEST or signal.size == 0:
        call.not_checkable(f"a length of {count}")
    if 4 * count * min(count, size) > MOST:
        call.not_checkable(f"a length of {count}")
    weight, error = _table(count, min(count, size), inverse, half)
    order = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    turned = indices(signal.shape).transpose(order)[..., : min(count, size), :]
    rest = turned.shape[:-2]
    kept = [2 * weight.shape[0], weight.shape[2] * parts]
    weight, error = (table[..., :parts].reshape(kept) for table in (weight, error))
    whole = call.allowed((*rest, kept[0] // 2, 2))
    gathered = Gather(np.ascontiguousarray(turned).reshape(-1), signal.size)
    dense = Composed(gathered, Dense(weight, error, math.prod(rest)))
    back = tuple(order.index(a) for a in range(rank))
    shape = tuple(whole[a] for a in back)
    return builder.linear(
        call, shape, [Term(signal.source, composed(dense, rearranged(whole, back)))]
    )


def _whole(call: Call, place: int, absent: int) -> int:
    """An operand that is one integer, if it is there."""
    if call.optional(place) is None:
        return absent
    if call.constant(place).dtype not in ("int64", "int32"):
        call.invalid(f"operand {place} is no integer")
    return int(call.scalar(place))


def _table(count: int, entries: int, inverse: bool, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """[k, output part, n, input part], each within u, or u of its size more where it is divided."""
    frequencies = np.arange(count // 2 + 1 if half else count)
    places = np.outer(frequencies, np.arange(entries)) % count
    cosine, sine = cosine_table(count)[places], sine_table(count)[places]
    sine = -sine if inverse else sine
    weight = np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], axis=1)
    error = np.full(weight.shape, U)
    if inverse:
        weight = weight / count
        error = (error / count + np.abs(weight) * U) * (1 + 8 * U) + TINY
    return weight, error

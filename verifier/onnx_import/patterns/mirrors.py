"""Householder activations, by relu or by Where: x - v (v.x) + v |v.x| in disjoint slices.

An entry is described as p.s + sigma |q.s| with vectors p and q over the whole base, so that any
way of writing the reflection is the same description. It is a mirror if, slice by slice,

    I - p = v v',    sigma |q.s| = v |v.s|

for one vector v. |v| need not be 1: that is the business of whoever asks for the norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from verifier.onnx_import.values import Shape

Array: TypeAlias = np.ndarray

MAX_BASE: Final = 1024  #: entries of a base: forms are matrices of that width
RELATIVE: Final = 1e-12  #: what products of float32 constants may differ by, in float64


@dataclass(frozen=True, slots=True, eq=False)
class GateForm:
    """p [*shape, n], q [*shape, n] and sigma [*shape] of every entry."""

    linear: Array
    gate: Array
    sigma: Array
    slices: Array | None  #: [slices, k] base indices that were contracted together

    @property
    def is_linear(self) -> bool:
        """Whether no |.| is in it."""
        return not self.sigma.any()


class GateAlgebra:
    """Forms with one gate an entry, over a small base."""

    def identity(self, shape: Shape) -> GateForm | None:
        """s_i."""
        size = prod(shape)
        if MAX_BASE < size:
            return None
        eye = np.eye(size).reshape(*shape, size)
        return GateForm(eye, np.zeros_like(eye), np.zeros(shape), None)

    def moved(self, form: GateForm, index: Array) -> GateForm:
        """Entries picked by flat index."""
        rows = form.linear.reshape(-1, form.linear.shape[-1])
        gates = form.gate.reshape(rows.shape)
        return GateForm(rows[index], gates[index], form.sigma.reshape(-1)[index], form.slices)

    def joined(self, forms: Sequence[GateForm], axis: int) -> GateForm:
        """Concatenation."""
        return GateForm(
            np.concatenate([form.linear for form in forms], axis),
            np.concatenate([form.gate for form in forms], axis),
            np.concatenate([form.sigma for form in forms], axis),
            _slices(*forms),
        )

    def summed(self, left: GateForm, right: GateForm, sign: float) -> GateForm | None:
        """Left + sign right, where gates are parallel."""
        p, pr = np.broadcast_arrays(left.linear, right.linear)
        q, qr = np.broadcast_arrays(left.gate, right.gate)
        sigma, other = np.broadcast_arrays(left.sigma, right.sigma)
        linear = p + sign * pr
        if not other.any():
            return GateForm(linear, q, sigma, _slices(left, right))
        if not sigma.any():
            return GateForm(linear, qr, sign * other, _slices(left, right))
        share = _ratio(qr, q)
        if share is None:
            return None
        total = sigma + sign * other * np.abs(share)
        return GateForm(linear, q, total, _slices(left, right))

    def scaled(self, form: GateForm, factor: Array) -> GateForm:
        """The entries times a broadcast constant."""
        shape = np.broadcast_shapes(form.sigma.shape, factor.shape)
        width = form.linear.shape[-1]
        times = np.broadcast_to(factor, shape)
        return GateForm(
            np.broadcast_to(form.linear, (*shape, width)) * times[..., None],
            np.broadcast_to(form.gate, (*shape, width)),
            np.broadcast_to(form.sigma, shape) * times,
            form.slices,
        )

    def contracted(self, form: GateForm, vector: Array, keep: bool) -> GateForm | None:
        """The sum of the last axis against a vector; remembers which entries met."""
        if not form.is_linear:
            return None
        slices = form.slices
        single = (form.linear != 0).sum(axis=-1) <= 1
        if slices is None and single.all():
            # Rows are multiples of unit vectors; where a weight is 0 the row still has its place.
            slices = _owners(form.linear)
        linear = np.einsum("...kn,k->...n", form.linear, vector)
        linear = linear[..., None, :] if keep else linear
        return GateForm(linear, np.zeros_like(linear), np.zeros(linear.shape[:-1]), slices)

    def absolute(self, form: GateForm) -> GateForm | None:
        """|p.s|."""
        if not form.is_linear:
            return None
        zeros = np.zeros_like(form.linear)
        return GateForm(zeros, form.linear, np.ones(form.sigma.shape), form.slices)

    def ratio(self, numerator: GateForm, denominator: GateForm) -> Array | None:
        """W with p = w p' row by row."""
        if not (numerator.is_linear and denominator.is_linear):
            return None
        p, other = np.broadcast_arrays(numerator.linear, denominator.linear)
        return _ratio(p, other)


def _slices(*forms: GateForm) -> Array | None:
    return next((form.slices for form in forms if form.slices is not None), None)


def _owners(linear: Array) -> Array | None:
    """[slices, k]: the base entry of every row, if each is used once."""
    size = linear.shape[-1]
    owners = np.argmax(linear != 0, axis=-1)
    empty = ~(linear != 0).any(axis=-1)
    if empty.any():
        # A weight of 0 hides the owner; rows in base order show it.
        owners = np.where(empty, np.arange(owners.size).reshape(owners.shape), owners)
    if not np.array_equal(np.sort(owners.reshape(-1)), np.arange(size)):
        return None
    return owners.reshape(-1, owners.shape[-1])


def _ratio(rows: Array, others: Array) -> Array | None:
    """W with rows = w others, or None."""
    place = np.argmax(np.abs(others), axis=-1)[..., None]
    largest = np.take_along_axis(others, place, axis=-1)
    if not largest.all():
        return None
    ratio = np.take_along_axis(rows, place, axis=-1) / largest
    scale = np.abs(rows).max(axis=-1, keepdims=True)
    if (np.abs(rows - ratio * others) > RELATIVE * scale).any():
        return None
    return ratio[..., 0]


@dataclass(frozen=True, slots=True, eq=False)
class Mirror:
    """Slices of flat base indices in the order of the file, and the vector of each."""

    slices: Array
    vectors: Array


def mirror(form: GateForm, size: int) -> Mirror | None:
    """The vectors, if the form is a Householder activation of a whole base of `size` entries."""
    slices = form.slices
    if slices is None or slices.size != size or form.sigma.size != size:
        return None
    linear, gate = form.linear.reshape(size, size), form.gate.reshape(size, size)
    sigma = form.sigma.reshape(size)
    vectors = np.zeros(slices.shape)
    for place, members in enumerate(slices):
        vector = _vector(linear[members], gate[members], sigma[members], members)
        if vector is None:
            return None
        vectors[place] = vector
    return Mirror(slices, vectors)


def _vector(linear: Array, gate: Array, sigma: Array, members: Array) -> Array | None:
    """V of one slice, verified entry by entry."""
    size = linear.shape[1]
    outer = np.eye(size)[members] - linear
    block = outer[:, members]
    lead = int(np.argmax(np.diag(block)))
    if not 0 < block[lead, lead]:
        return None
    vector = block[lead] / np.sqrt(block[lead, lead])
    whole = np.zeros(size)
    whole[members] = vector
    scale = RELATIVE * max(1.0, float(np.abs(block).max()))
    if (np.abs(outer - vector[:, None] * whole[None, :]) > scale).any():
        return None
    vector = vector if 0 < sigma[lead] else -vector
    whole = whole if 0 < sigma[lead] else -whole
    # sigma |q.s| = v |v.s| entry by entry: q = k v, sigma |k| = v.
    moved = np.flatnonzero(sigma)
    share = _ratio(gate[moved], np.broadcast_to(whole, gate[moved].shape))
    if share is None:
        return None
    found = np.zeros_like(sigma)
    found[moved] = sigma[moved] * np.abs(share)
    return None if (np.abs(found - vector) > scale).any() else vector


MIRRORS = GateAlgebra()

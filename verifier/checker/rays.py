"""Rays: that a signal is scale r + shift for an earlier signal r, the same for every entry.

So compounds are seen through every constant factor and summand on the way. Numbers are pairs: the
value, and a bound on its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.builder import Builder
from verifier.checker.enclosures import TINY, U
from verifier.checker.maps import Diagonal, Gather
from verifier.checker.network import Affine, Elementwise
from verifier.errors import NotCheckable

if TYPE_CHECKING:
    from verifier.checker.curves import Curve
    from verifier.checker.network import Node

Pair: TypeAlias = tuple[float, float]

ONE: Pair = (1.0, 0.0)
_LEAST = 2.0**-900  #: scales far above where products underflow: their errors are relative


@dataclass(frozen=True, slots=True)
class Ray:
    """scale r + shift, r the signal called `root`; each number with its error."""

    root: str
    scale: Pair
    shift: Pair


def times(a: Pair, b: Pair) -> Pair:
    """The product."""
    value = a[0] * b[0]
    error = (abs(a[0]) * b[1] + abs(b[0]) * a[1] + a[1] * b[1]) * (1 + 16 * U)
    return value, error if is_one(a) or is_one(b) else error + abs(value) * U + TINY


def is_one(a: Pair) -> bool:
    """Whether it is 1 or -1, exactly."""
    return abs(a[0]) == 1.0 and a[1] == 0


def divides(b: Pair) -> bool:
    """Whether b is far from 0, also against its error."""
    return max(2 * b[1], _LEAST) < abs(b[0])


def over(a: Pair, b: Pair) -> Pair:
    """The quotient. Raises NotCheckable where b is not far from 0, also against its error."""
    if is_one(b):
        return a[0] * b[0], a[1]
    if not divides(b):
        raise NotCheckable(f"a division by {b[0]}", fix="export with constants of usual size")
    value = a[0] / b[0]
    error = (a[1] + abs(value) * b[1]) / (abs(b[0]) - b[1]) * (1 + 16 * U)
    return value, error + abs(value) * (2 * U) + TINY


def plus(a: Pair, b: Pair) -> Pair:
    """The sum."""
    value = a[0] + b[0]
    exact = a == (0.0, 0.0) or b == (0.0, 0.0)
    return value, (a[1] + b[1]) * (1 + 16 * U) + (0.0 if exact else abs(value) * U)


def rays(builder: Builder, source: str) -> list[Ray]:
    """The signal itself, and what it is a multiple of, one after the other."""
    found = [Ray(source, ONE, (0.0, 0.0))]
    while True:
        last = found[-1]
        step = _uniform(builder.nodes.get(last.root))
        if step is None:
            return found
        scale = times(last.scale, step.scale)
        if abs(scale[0]) < _LEAST:
            return found
        shift = plus(last.shift, times(last.scale, step.shift))
        found.append(Ray(step.root, scale, shift))


def _uniform(node: Node | None) -> Ray | None:
    """What an affine node says if it does the same with every entry."""
    if not isinstance(node, Affine) or len(node.terms) != 1 or node.size == 0:
        return None
    term = node.terms[0]
    scale = ONE
    if isinstance(term.map, Diagonal):
        errors = np.zeros(1) if term.map.error is None else term.map.error
        if np.any(term.map.scale != term.map.scale[0]) or term.map.scale[0] == 0:
            return None
        scale = (float(term.map.scale[0]), float(errors.max()))
    elif not (isinstance(term.map, Gather) and _is_identity(term.map)):
        return None
    if np.any(node.bias != node.bias[0]):
        return None
    return Ray(term.source, scale, (float(node.bias[0]), float(node.bias_error.max())))


def _is_identity(gather: Gather) -> bool:
    return gather.out_size == gather.in_size and np.array_equal(
        gather.index, np.arange(gather.in_size)
    )


def curve_of(builder: Builder, ray: Ray, kind: type[Curve]) -> Elementwise | None:
    """The node that the ray starts from, if it is elementwise with a curve of this kind."""
    node = builder.nodes.get(ray.root)
    return node if isinstance(node, Elementwise) and isinstance(node.function, kind) else None


def meeting(first: Sequence[Ray], second: Sequence[Ray]) -> tuple[Ray, Ray] | None:
    """Rays of both lists with one root and no shift."""
    for a in first:
        for b in second:
            if a.root == b.root and a.shift == b.shift == (0.0, 0.0):
                return a, b
    return None

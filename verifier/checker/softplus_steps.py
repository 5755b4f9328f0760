"""Softplus as exporters write it with a threshold, where it jumps.

    y = where(t < k x, x, c softplus(k x)),    0 < k,  c k = 1.

Above the threshold c softplus(k x) - x = c log(1 + e^(-k x)) < c log(1 + e^-t): every entry of y
is that near to the softplus.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker import enclosures
from verifier.checker.arithmetic import up
from verifier.checker.compounds import Rescaled
from verifier.checker.scalars import Softplus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from verifier.checker.network import Scalar
    from verifier.checker.reader import Node
    from verifier.checker.shrinks import Number

_CURVATURE = 0.25  #: softplus'' = s(1 - s)


@dataclass(frozen=True, slots=True)
class Softened:
    """The tensor x, the softplus that the output is near to, and how near."""

    x: str
    function: Scalar
    constants: tuple[str, ...]  #: the numbers, which must not spread x out
    step: float


def softplus_steps(
    makers: Mapping[str, Node], number: Number, varying: Collection[str]
) -> dict[str, Softened]:
    """By tensor."""
    found = {
        name: _softened(node, _Look(makers, number))
        for name, node in makers.items()
        if node.op == "Where" and len(node.inputs) == 3 and node.inputs[1] in varying
    }
    return {name: soft for name, soft in found.items() if soft is not None}


def _softened(node: Node, look: _Look) -> Softened | None:
    test, x, soft = node.inputs
    compared = look.inputs(test, "Greater")
    if compared is None:
        return None
    scaled, limit = compared
    steepness, first = look.multiple(scaled, x)
    plain, factor, second = look.softplus(soft)
    threshold = look.number(limit)
    if threshold is None or plain != scaled or steepness <= 0 or factor * steepness != 1:
        return None
    base = Softplus()
    outer = float(factor)
    error = up(float(abs(factor - Fraction(outer)))) if Fraction(outer) != factor else 0.0
    rescaled = Rescaled(base, (float(steepness), 0.0), (outer, error), _CURVATURE)
    beyond = float(enclosures.softplus(np.array([-threshold]))[1][0])
    step = up(up(outer + error) * beyond)
    function = base if steepness == 1 else rescaled
    return Softened(x, function, (limit, *first, *second), step)


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks back from a tensor."""

    makers: Mapping[str, Node]
    number: Number

    def inputs(self, name: str, op: str) -> tuple[str, str] | None:
        """What enters the operator of two operands that made it, if it was this one."""
        node = self.makers.get(name)
        if node is None or node.op != op or len(node.inputs) != 2 or node.attributes:
            return None
        return node.inputs[0], node.inputs[1]

    def multiple(self, name: str, x: str) -> tuple[Fraction, tuple[str, ...]]:
        """(k, its tensors) where the tensor is k x; 0 where it is something else."""
        if name == x:
            return Fraction(1), ()
        product = self.inputs(name, "Mul") or ("", "")
        for base, factor in (product, product[::-1]):
            stored = self.number(factor) if base == x else None
            if stored is not None:
                return Fraction(stored), (factor,)
        return Fraction(0), ()

    def softplus(self, name: str) -> tuple[str, Fraction, tuple[str, ...]]:
        """Of c times the softplus of u: u, c and the tensors of c; c is 0 for something else."""
        node = self.makers.get(name)
        if node is not None and node.op == "Softplus" and len(node.inputs) == 1:
            return node.inputs[0], Fraction(1), ()
        quotient, product = self.inputs(name, "Div"), self.inputs(name, "Mul") or ("", "")
        ways = [] if quotient is None else [(*quotient, True)]
        ways += [(*product, False), (*product[::-1], False)]
        for inner, factor, divides in ways:
            soft, stored = self.makers.get(inner), self.number(factor)
            if soft is not None and soft.op == "Softplus" and stored:
                scale = 1 / Fraction(stored) if divides else Fraction(stored)
                return soft.inputs[0], scale, (factor,)
        return "", Fraction(0), ()

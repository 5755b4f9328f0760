"""Tensors that are simple functions of an earlier one, written as several nodes.

    sign(x) |x|                      x itself, see `identities`
    soft shrinkage                   see `shrinks`
    two lines that meet at a test    see `bends`
    softplus that jumps              see `softplus_steps`; only where the reading idealises

They are read from the nodes alone, before anything is evaluated. What stands between is not looked
at again: shapes and types of the constants met there have to be those that leave x's as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.bends import bends
from verifier.checker.identities import identities
from verifier.checker.scalars import soft_shrink
from verifier.checker.shrinks import shrinks
from verifier.checker.softplus_steps import softplus_steps
from verifier.checker.tensors import FLOATS, Tensor

if TYPE_CHECKING:
    from verifier.checker.network import Scalar
    from verifier.checker.operands import Signal, Value
    from verifier.checker.reader import Model, Node

_ZERO = Tensor(dtype="float32", array=np.zeros(1))  #: what ConstantOfShape repeats by itself


@dataclass(frozen=True, slots=True)
class Direct:
    """A function of the tensor x."""

    x: str
    function: Scalar | None  #: None where it is x
    constants: tuple[str, ...] = ()  #: what x is compared and combined with
    step: float | None = None  #: how far an entry may be from the function, where it jumps

    def leaves_shape(self, signal: Signal, values: Mapping[str, Value]) -> bool:
        """Whether no constant spreads x out or has another type."""
        operands = [values[name] for name in self.constants]
        if any(operand.dtype != signal.dtype for operand in operands):
            return False
        shapes = [operand.shape for operand in operands]
        try:
            return np.broadcast_shapes(signal.shape, *shapes) == signal.shape
        except ValueError:
            return False


def direct(model: Model, makers: Mapping[str, Node]) -> Mapping[str, Direct]:
    """By tensor."""
    numbers = _Numbers(model, makers)
    found = {name: Direct(x, None) for name, x in identities(makers).items()}
    for name, (x, limit) in shrinks(makers, numbers.single).items():
        found[name] = Direct(x, soft_shrink(limit))
    varying = _varying(model)
    for name, bend in bends(makers, numbers.repeated, varying).items():
        found.setdefault(name, Direct(bend.x, bend.function, bend.constants))
    if model.ends.idealises:
        for name, soft in softplus_steps(makers, numbers.repeated, varying).items():
            found.setdefault(name, Direct(soft.x, soft.function, soft.constants, soft.step))
    return found


def _varying(model: Model) -> frozenset[str]:
    """The tensors that may depend on the input; shapes do not."""
    found = set(model.ends.inputs)
    for node in model.nodes:
        if node.op not in ("Shape", "Size") and not found.isdisjoint(node.reads):
            found.update(node.outputs)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Tensors that the file fixes, as numbers."""

    model: Model
    makers: Mapping[str, Node]

    def single(self, name: str) -> float | None:
        """A stored number, of at most one axis."""
        stored = self._stored(name)
        if stored is None or stored.array.shape not in ((), (1,)):
            return None
        return float(stored.array.reshape(-1)[0])

    def repeated(self, name: str) -> float | None:
        """The number that every entry of a constant is."""
        stored = self._stored(name)
        if stored is None or stored.array.size == 0:
            return None
        first = stored.array.reshape(-1)[0]
        return float(first) if np.all(stored.array == first) else None

    def _stored(self, name: str) -> Tensor | None:
        maker = self.makers.get(name)
        stored = self.model.constants.get(name)
        if maker is not None and maker.op in ("Constant", "ConstantOfShape"):
            absent = _ZERO if maker.op == "ConstantOfShape" else None
            value = maker.attributes.get("value", absent)
            stored = value if isinstance(value, Tensor) else None
        return stored if isinstance(stored, Tensor) and stored.dtype in FLOATS else None

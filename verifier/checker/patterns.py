"""Patterns that a proof hints at, verified node by node.

A hint says that one tensor is a certain function of another. What lies between the two is evaluated
once more, on symbols: each entry in terms of the input's entries, with exact coefficients. The
pattern holds if the symbols that arrive at its output say so. Nothing is recognised by names of
operators; a look-alike computes other symbols and is refuted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.folded_second import FoldedSecond
from verifier.checker.folded_turns import FoldedTurns
from verifier.checker.movements import MOVEMENTS, MOVES_ALL
from verifier.checker.operands import Anything, Call, Constant, Operand, Signal, Symbols
from verifier.checker.pattern_mirrors import Mirrors
from verifier.checker.pattern_normals import Normals
from verifier.checker.pattern_pairs import Pairs
from verifier.checker.pattern_second import Second
from verifier.checker.pattern_sorts import Sorts
from verifier.checker.pattern_turns import Turns
from verifier.checker.tensors import FLOATS, Tensor
from verifier.errors import PatternRefuted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.certificate import Pattern
    from verifier.checker.network import Blocks, Reflection, Sort
    from verifier.checker.nodes import Node
    from verifier.checker.reader import Model

Fold: TypeAlias = "Callable[[Call], Sequence[Operand]]"
Rules: TypeAlias = "Mapping[str, Callable[[Call], list[np.ndarray]]]"
Algebra: TypeAlias = "Mirrors | Normals | Pairs | Second | Sorts | Turns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The node that stands for a verified pattern, and the tensor that it is."""

    node: Blocks | Reflection | Sort
    shape: tuple[int, ...]
    dtype: str
    deviation: float = 0.0  #: |pattern(v) - node(v)|_2 <= this |v|_2


def recognised(
    pattern: Pattern,
    source: Operand | None,
    model: Model,
    makers: Mapping[str, Node],
    fold: Fold,
) -> Recognised:
    """The verified pattern.

    Args:
        pattern: the hint.
        source: the value of its input.
        model: the file's nodes, in order.
        makers: the node that makes each tensor.
        fold: computes a node of constants.

    Raises:
        PatternRefuted: the output is not that function of the input.
    """
    if not isinstance(source, Signal) or pattern.input == pattern.output:
        raise refuted(pattern, "its input is no signal")
    if pattern.output not in makers:
        raise refuted(pattern, "its output is made by no node")
    algebra = _ALGEBRAS[pattern.kind](pattern)
    values: dict[str, Anything] = {
        name: Constant(tensor.array, tensor.dtype)
        for name, tensor in model.constants.items()
        if isinstance(tensor, Tensor)
    }
    values[pattern.input] = Symbols(algebra.inputs(source.shape), source.dtype)
    inside = _between(pattern, makers)
    for node in model.nodes:
        if not inside.isdisjoint(node.outputs) and pattern.input not in node.outputs:
            _evaluate(pattern, node, model.opset, values, algebra, fold)
    result = values[pattern.output]
    if not isinstance(result, Symbols):
        raise refuted(pattern, "its output does not depend on its input")
    return Recognised(
        node=algebra.node(source.source, result.array),
        shape=result.shape,
        dtype=result.dtype,
        deviation=algebra.deviation if isinstance(algebra, FoldedSecond | FoldedTurns) else 0.0,
    )


def refuted(pattern: Pattern, what: str, node: str | None = None) -> PatternRefuted:
    """The refutation of a hint."""
    return PatternRefuted(
        f"{pattern.output!r} is no {pattern.kind} of {pattern.input!r}: {what}",
        fix="state the proof without this pattern",
        node=pattern.output if node is None else node,
    )


def _between(pattern: Pattern, makers: Mapping[str, Node]) -> set[str]:
    """The tensors that the output depends on, not looking behind the pattern's input."""
    found: set[str] = set()
    pending = [pattern.output]
    while pending:
        name = pending.pop()
        if name and name not in found and name != pattern.input:
            found.add(name)
            if name in makers:
                pending.extend(makers[name].inputs)
    return found


def _evaluate(
    pattern: Pattern,
    node: Node,
    opset: int,
    values: dict[str, Anything],
    algebra: Algebra,
    fold: Fold,
) -> None:
    for name in node.inputs:
        if name and name not in values:
            raise refuted(pattern, f"{name!r} reaches it from outside", node.name)
    call = Call(node, opset, [values[name] if name else None for name in node.inputs])
    results = _results(call, pattern, algebra, fold)
    call.check_all_asked()
    values.update({name: value for name, value in zip(node.outputs, results, strict=False) if name})


def _results(call: Call, pattern: Pattern, algebra: Algebra, fold: Fold) -> Sequence[Anything]:
    op = call.node.op
    symbols = [item for item in call.operands if isinstance(item, Symbols)]
    if op == "Shape":
        return _shape(call)
    if not symbols:
        # Constants that are to stay what they are, as sines and cosines, are symbols too.
        kept: Rules = algebra.on_constants if isinstance(algebra, Second | Turns) else {}
        constants = [item for item in call.operands if isinstance(item, Constant)]
        if op not in kept or not constants or constants[0].dtype not in FLOATS:
            return fold(call)
        return [Symbols(array, constants[0].dtype) for array in kept[op](call)]
    dtype = symbols[0].dtype
    if op in MOVEMENTS and op != "Pad":
        moved = call.operands if op in MOVES_ALL else call.operands[:1]
        arrays = [item.array for item in moved if isinstance(item, Symbols)]
        if len(arrays) != len(moved):
            raise refuted(pattern, "constants are mixed in", call.node.name)
        return [Symbols(array, dtype) for array in MOVEMENTS[op](call, arrays, 0)]
    rule = algebra.rules.get(op)
    if rule is None:
        raise refuted(pattern, f"{op} has no place in it", call.node.name)
    return [Symbols(array, dtype) for array in rule(call)]


def _shape(call: Call) -> list[Constant]:
    call.arity(1, 1)
    shape = call.any_operand(0).shape
    start, end = call.integer("start", 0), call.integer("end", len(shape))
    return [Constant(np.array(shape[start:end], dtype=np.int64), "int64")]


_ALGEBRAS: Mapping[str, Callable[[Pattern], Algebra]] = {
    "folded-mirror": FoldedTurns,
    "folded-second-order-mirror": FoldedSecond,
    "groupsort": Sorts,
    "householder": Mirrors,
    "maxmin": Pairs,
    "normalise": Normals,
    "second-order-mirror": Second,
    "turned-mirror": Turns,
}

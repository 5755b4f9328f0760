"""Shapes of what is not read: outputs that are not chosen, but that indices count.

The file may declare any shape of them, and a claim about an index would then be about another
entry. So what it declares has to be what it is, and where that is not known nothing is claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.errors import DynamicShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.checker.operands import Call

#: Of the shape that their operands broadcast to.
_BROADCAST = frozenset(
    {"And", "Cast", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf"}
    | {"IsNaN", "Less", "LessOrEqual", "Mod", "Not", "Or", "Round", "Sign", "Where", "Xor"}
)
_REDUCED = frozenset({"ArgMax", "ArgMin"})
KNOWN = _BROADCAST | _REDUCED


def shape_of(call: Call, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of the first result of an operator of `KNOWN`, whose operands have these shapes."""
    if call.node.op in _BROADCAST:
        return call.broadcast(*shapes)
    axis = call.axis(call.integer("axis", 0), len(shapes[0]))
    kept = (1,) if call.integer("keepdims", 1) else ()
    return (*shapes[0][:axis], *kept, *shapes[0][axis + 1 :])


def unknown(name: str) -> DynamicShape:
    """The refusal of a tensor whose shape nothing tells."""
    return DynamicShape(
        f"{name!r} is not read, so that it is not known which entries indices behind it are",
        fix="choose outputs by their names",
        node=name,
    )

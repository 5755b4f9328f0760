"""Shapes of what no network has: outputs that are not chosen, but that indices count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from verifier.errors import DynamicShape, LipcertError
from verifier.onnx_import.moves import axis_of, broadcast_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verifier.onnx_import.call import Call
    from verifier.onnx_import.ends import Declared
    from verifier.onnx_import.values import Shape, Value

#: Of the shape that their operands broadcast to.
_BROADCAST: Final = frozenset(
    {"And", "Cast", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf"}
    | {"IsNaN", "Less", "LessOrEqual", "Mod", "Not", "Or", "Round", "Sign", "Where", "Xor"}
)
_REDUCED: Final = frozenset({"ArgMax", "ArgMin"})


def shape_of(call: Call, shapes: Sequence[Shape | None]) -> Shape | None:
    """The shape of a node's first result; None where the operator or an operand is not known."""
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        return None
    try:
        if call.op in _BROADCAST:
            return broadcast_shape(call, *known)
        if call.op in _REDUCED:
            axis = axis_of(call, call.attributes.integer("axis", 0), len(known[0]))
            left = (1,) if call.attributes.integer("keepdims", 1) else ()
            return (*known[0][:axis], *left, *known[0][axis + 1 :])
    except LipcertError:
        pass
    return None


def counted_shape(
    declared: Declared, values: Mapping[str, Value], unread: Mapping[str, Shape]
) -> Shape:
    """The shape of an output that is not chosen.

    Raises:
        DynamicShape: it is not known, and what the file declares may be wrong.
    """
    value = values.get(declared.name)
    shape = unread.get(declared.name) if value is None or value.shape is None else value.shape
    if shape is None:
        raise DynamicShape(
            f"output {declared.name!r} cannot be read, so that it is not known which entries "
            "indices behind it are",
            node=declared.name,
            fix="choose outputs by their names (outputs.names)",
        )
    return shape

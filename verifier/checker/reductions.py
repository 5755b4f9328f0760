"""Which axes a reduction runs over, as each opset says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier.checker.operands import Call


def reduced_axes(call: Call, rank: int, since: int) -> tuple[tuple[int, ...], bool]:
    """(the axes, whether they stay with length 1). `since`: the opset of axes as an operand."""
    call.arity(1, 2)
    keeps = call.integer("keepdims", 1) != 0
    given = call.moved_to_operand("axes", 1, since=since)
    if not given:
        # An empty list means all axes, or none where the node says so.
        if call.integer("noop_with_empty_axes", 0) != 0:
            return (), True
        return tuple(range(rank)), keeps
    call.integer("noop_with_empty_axes", 0)
    return call.axes(given, rank), keeps

"""Products that are the tensor itself: sign(x) |x| = x, also as sign(x) relu(|x|).

So exporters guard the root at the end of a pooling of powers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.checker.reader import Node


def identities(makers: Mapping[str, Node]) -> dict[str, str]:
    """By tensor, the earlier tensor that it is."""
    found: dict[str, str] = {}
    for name, node in makers.items():
        if node.op == "Mul" and len(node.inputs) == 2 and not node.attributes:
            for sign, size in (node.inputs, node.inputs[::-1]):
                x = _operand(makers.get(sign), "Sign")
                if x is not None and x == _magnitude(makers, size):
                    found[name] = x
    return found


def _magnitude(makers: Mapping[str, Node], name: str) -> str | None:
    """X where the tensor is |x|."""
    maker = makers.get(name)
    inner = _operand(maker, "Relu")
    return _operand(maker if inner is None else makers.get(inner), "Abs")


def _operand(node: Node | None, op: str) -> str | None:
    plain = node is not None and node.op == op and len(node.inputs) == 1 and not node.attributes
    return node.inputs[0] if node is not None and plain else None

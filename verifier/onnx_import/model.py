"""What an import leaves: the network, or the node that keeps it from being one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from verifier.errors import (
    CapabilityBlocked,
    DiscontinuousOp,
    NotCheckable,
    NotLipschitzGlobally,
)
from verifier.network.everywhere import REMEDY, unbounded_node, why_unbounded
from verifier.network.graph import Grouped
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.network.segments import segments
from verifier.onnx_import.values import Blocked

if TYPE_CHECKING:
    from verifier.network.graph import Network, Node
    from verifier.onnx_import.values import Shape

METHODS = ("product", "lipsdp", "propagation")
SCOPES = ("global", "local")
#: What `auto` chooses from; its first names the node that blocks them all.
AUTO = {"global": ("product", "lipsdp"), "local": ("propagation", "lipsdp", "product")}
NEED_GATES = frozenset({"lipsdp"})  #: what knows affine nodes, gates and sorts only


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model that was read. The symbolic batch, where there is one, is in neither shape."""

    sha256: str  #: "sha256:" and the digest of the original bytes
    network: Network | None  #: None where `blocked` says why
    blocked: Blocked | None
    input_name: str
    input_shape: Shape
    output_name: str
    output_shape: Shape | None  #: None where the file does not declare it and nothing computes it
    opset: int
    dtype: str
    parameters: int
    operators: Mapping[str, int] = field(default_factory=dict[str, int])

    def require_network(self) -> Network:
        """The network.

        Raises:
            CapabilityBlocked: a node keeps the model from being one.
        """
        if self.network is not None:
            return self.network
        assert self.blocked is not None  # noqa: S101 (one of the two is there)
        kinds = {kind.code: kind for kind in (DiscontinuousOp, NotLipschitzGlobally, NotCheckable)}
        blocked = self.blocked
        raise kinds[blocked.code](blocked.detail, node=blocked.node, fix=blocked.fix)

    def summary(self) -> dict[str, object]:
        """What `inspect` prints."""
        return {
            "model": self.sha256,
            "opset": self.opset,
            "dtype": self.dtype,
            "input": _tensor(self.input_name, self.input_shape),
            "output": _tensor(self.output_name, self.output_shape),
            "parameters": self.parameters,
            "operators": dict(self.operators),
            "nodes": {} if self.network is None else _kinds(self.network.nodes),
            "patterns": []
            if self.network is None
            else [
                {"kind": pattern.kind, "input": pattern.input, "output": pattern.output}
                for pattern in self.network.patterns
            ],
            "methods": {method: self._applies(method) for method in METHODS},
            "capabilities": self.capabilities(),
        }

    def capabilities(self) -> dict[str, dict[str, dict[str, object]]]:
        """By method and scope whether there is a bound to be had; else the code and the node."""
        found = {
            method: {scope: self._available(method, scope) for scope in SCOPES}
            for method in METHODS
        }
        # `auto` leaves out what does not apply: it has an answer where any of its methods has.
        chosen = {
            scope: max((found[method][scope] for method in AUTO[scope]), key=_is_available)
            for scope in SCOPES
        }
        return {"auto": chosen, **found}

    def _available(self, method: str, scope: str) -> dict[str, object]:
        told = self._applies(method)
        is_available = bool(told["applies"])
        if scope == "global":
            # What only a region gives has its reason beside `applies`.
            is_available = is_available and told["code"] is None
        elif is_available:
            told = _told(None, None, None, applies=True)
        if is_available and method == "propagation" and scope == "global":
            reason = "propagation bounds the Jacobian over a region"
            told = _told(None, "invalid-request", reason, applies=False)
            is_available = False
        return {"available": is_available, **{n: told[n] for n in ("code", "node", "reason")}}

    def _applies(self, method: str) -> dict[str, object]:
        """Whether a method has all that it needs; else, or where only a region gives it, why."""
        if self.network is not None and method in NEED_GATES:
            try:
                segments(self.network)
            except CapabilityBlocked as trouble:
                return _told(trouble.node, trouble.code, trouble.detail, applies=False)
        blocked = self.blocked or self.unbounded
        if blocked is None or (self.network is not None and method == "propagation"):
            return _told(None, None, None, applies=True)
        applies = self.network is not None and method == "lipsdp"
        return _told(blocked.node, blocked.code, blocked.detail, applies=applies)

    @property
    def unbounded(self) -> Blocked | None:
        """Why the network has no global constant that is known; None where it has one."""
        node = None if self.network is None else unbounded_node(self.network)
        if node is None:
            return None
        kind = "Product" if isinstance(node, Product) else "Elementwise"
        return Blocked(
            node=node.name,
            op=kind,
            code="not-lipschitz-globally",
            detail=f"{why_unbounded(node)}; over a region it has bounds",
            fix=REMEDY,
        )


def _is_available(told: Mapping[str, object]) -> bool:
    return bool(told["available"])


def _told(
    node: str | None, code: str | None, reason: str | None, *, applies: bool
) -> dict[str, object]:
    return {"applies": applies, "node": node, "code": code, "reason": reason}


def _tensor(name: str, shape: Shape | None) -> dict[str, object]:
    return {
        "name": name,
        "shape": None if shape is None else list(shape),
        "size": None if shape is None else prod(shape),
    }


def _kinds(nodes: tuple[Node, ...]) -> dict[str, object]:
    """How many nodes of each kind, and how many neurons."""
    kinds: Counter[str] = Counter()
    neurons = 0
    for node in nodes:
        match node:
            case Affine():
                kinds["affine"] += 1
            case Elementwise():
                kinds[type(node.function).__name__] += 1
                neurons += node.size
            case Product():
                kinds["product"] += 1
                neurons += node.size
            case Grouped():
                kinds[type(node.group).__name__] += 1
                neurons += node.size
    return {"kinds": dict(sorted(kinds.items())), "neurons": neurons}

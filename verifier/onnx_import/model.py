"""What an import leaves: the network, or the node that keeps it from being one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifier.errors import (
    CapabilityBlocked,
    DiscontinuousOp,
    DtypeUnsupported,
    NotLipschitzGlobally,
    OpUnsupported,
)
from verifier.network.everywhere import REMEDY, unbounded_node, why_unbounded
from verifier.network.graph import Grouped
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.network.segments import segments
from verifier.onnx_import.values import Blocked

if TYPE_CHECKING:
    from verifier.certificate import Assumption
    from verifier.network.graph import Network, Node
    from verifier.onnx_import.ports import Port

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
    inputs: tuple[Port, ...]  #: that make up the flat input, in the file's order
    outputs: tuple[Port, ...]  #: all of the file
    assumptions: tuple[Assumption, ...]  #: what the network rests on beside the file
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
        kinds = {
            kind.code: kind
            for kind in (DiscontinuousOp, DtypeUnsupported, NotLipschitzGlobally, OpUnsupported)
        }
        blocked = self.blocked
        raise kinds[blocked.code](blocked.detail, node=blocked.node, fix=blocked.fix)

    @property
    def output_places(self) -> dict[str, tuple[int, int]]:
        """Where each output starts and ends in the flat output."""
        return {port.name: port.place for port in self.outputs}

    def summary(self) -> dict[str, object]:
        """What `inspect` prints."""
        return {
            "model": self.sha256,
            "opset": self.opset,
            "dtype": self.dtype,
            "input": _flat(self.inputs),
            "output": _flat(self.outputs),
            "inputs": [_port_json(port) for port in self.inputs],
            "outputs": [_port_json(port) for port in self.outputs],
            "assumptions": [
                {"code": item.code, "node": item.node, "value": item.value}
                for item in self.assumptions
            ],
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


def _flat(ports: tuple[Port, ...]) -> dict[str, object]:
    """The flat vector of all inputs, or of all outputs; the shape of the only one."""
    known = all(port.shape is not None for port in ports)
    (first, *others) = ports
    if not others:
        shape = None if first.shape is None else list(first.shape)
        return {"name": first.name, "shape": shape, "size": first.size}
    size = ports[-1].place[1] if known else None
    return {"name": None, "shape": None if size is None else [size], "size": size}


def _port_json(port: Port) -> dict[str, object]:
    blocked = port.blocked
    return {
        "name": port.name,
        "dtype": port.dtype or None,
        "shape": None if port.shape is None else list(port.shape),
        "size": port.size,
        "range": None if port.shape is None else list(port.place),
        "blocked": None
        if blocked is None
        else {"code": blocked.code, "node": blocked.node, "reason": blocked.detail},
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

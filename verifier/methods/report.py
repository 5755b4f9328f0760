"""The report of a certificate: what a run learnt of the network's parts.

layers      norm, prefix and suffix of every nonlinear node and of the output, as the checker
            proved them with the product's proof (`verifier.checker.layers`);
estimates   not proved: condition numbers of dense layers, and how much of each layer's norm
            the witness uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch

from verifier.methods.fused import sources_of
from verifier.network.graph import Grouped, Network
from verifier.network.linear_map import Dense
from verifier.network.nodes import Affine, Elementwise

if TYPE_CHECKING:
    from verifier.certificate import Witness
    from verifier.checker import Layer

CONDITION_ENTRIES = 2**20  #: of the greatest weight whose condition number is found
CONDITION_TOTAL = 2**21  #: of all of them together


def completed(
    proved: Mapping[str, object] | None,
    notes: Mapping[str, object],
    network: Network,
    witness: Witness | None,
) -> Mapping[str, object]:
    """The report with its estimates.

    Args:
        proved: {"layers": ..}, as `proving.prove` attaches it to the product tier's certificate.
        notes: estimates of the tiers, by name.
        network: the network.
        witness: the best lower bound, if there is one.
    """
    layers = () if proved is None else cast("Sequence[Mapping[str, object]]", proved["layers"])
    norms = {str(layer["node"]): layer["norm"] for layer in layers}
    return {
        "layers": list(layers),
        "estimates": {
            **notes,
            "condition": conditions(network),
            "tightness": {} if witness is None else tightness(network, norms, witness),
        },
    }


def layers_json(layers: Sequence[Layer]) -> list[Mapping[str, object]]:
    """The proved numbers; null beyond float64."""
    return [
        {
            "node": layer.node,
            "size": layer.size,
            "norm": _finite(layer.norm.upper()),
            "prefix": _finite(layer.prefix.upper()),
            "suffix": _finite(layer.suffix.upper()),
        }
        for layer in layers
    ]


def conditions(network: Network) -> dict[str, float | None]:
    """About the greatest singular value over the least, by dense layer; null where that is 0."""
    found, spent = dict[str, float | None](), 0
    for node in network.nodes:
        for term in node.terms if isinstance(node, Affine) else ():
            if not isinstance(term.map, Dense) or CONDITION_ENTRIES < term.map.weight.numel():
                continue
            spent += term.map.weight.numel()
            if CONDITION_TOTAL < spent or node.name in found:
                continue
            values = torch.linalg.svdvals(term.map.weight)
            greatest, least = float(values[0]), float(values[-1])
            found[node.name] = greatest / least if 1e-14 * greatest < least else None
    return found


def tightness(
    network: Network, norms: Mapping[str, object], witness: Witness
) -> dict[str, float | None]:
    """|increment entering| / (norm |increments leaving the sources|), between the witness's points.

    In l2, whatever the claim's norms are; 1 where the pair uses all of a layer's norm.
    """
    pair = torch.tensor([witness.x, witness.y], dtype=torch.float64)
    rises = {
        name: float((signal[0] - signal[1]).norm())
        for name, signal in network.signals(pair).items()
    }
    gates = [node for node in network.nodes if isinstance(node, Elementwise | Grouped)]
    entered = {node.name: node.source for node in gates}
    entered[""] = network.output
    found: dict[str, float | None] = {}
    for name, norm in norms.items():
        signal = entered.get(name)
        if signal is None or not isinstance(norm, float):
            continue
        most = norm * math.hypot(*(rises[source] for source in sources_of(network, signal)))
        found[name] = _finite(rises[signal] / most) if 0 < most < math.inf else None
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

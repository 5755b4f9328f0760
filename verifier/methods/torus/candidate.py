"""From a property to candidates: starts, then the descent of all scales together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from verifier.certificate import Candidate, Pattern, TorusProof
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp import Options
from verifier.methods.progress import NO_AIM, Aim
from verifier.methods.torus.bounds import Measure
from verifier.methods.torus.plan import Plan, plan_of
from verifier.methods.torus.search import improving
from verifier.methods.torus.structure import refusal, structure_of
from verifier.methods.weights import plain_norms
from verifier.network.graph import Network
from verifier.network.linear_map import Adjoint, Composed, Convolution, LinearMap
from verifier.network.nodes import Affine
from verifier.property import Property
from verifier.regions import Everywhere


def applies(network: Network) -> bool:
    """Whether a network has convolutions at all: cheap, and no promise."""
    return any(
        _is_convolution(term.map)
        for node in network.nodes
        if isinstance(node, Affine)
        for term in node.terms
    )


def _is_convolution(linear: LinearMap) -> bool:
    match linear:
        case Convolution():
            return True
        case Adjoint():
            return _is_convolution(linear.of)
        case Composed():
            return _is_convolution(linear.first) or _is_convolution(linear.second)
        case _:
            return False


def candidates(
    network: Network,
    asked: Property,
    options: Options,  # noqa: ARG001 (all tiers of a method are called alike)
    clock: Clock,
    aim: Aim = NO_AIM,
) -> Iterator[Candidate]:
    """Scales shared by channels that prove ever better bounds.

    Raises:
        InvalidRequest: an index of the property is out of range.
        TooLarge: the network is no torus net, or too large a one.
    """
    if not isinstance(asked.region, Everywhere):
        raise refusal("the scope is local")
    measure = Measure(
        items=[item.rows for item in items_of(asked, network.output_size)],
        norm=plain_norms(asked.norm),
        inputs=len(varying_inputs(asked, network.input_size)),
    )
    plan = plan_of(structure_of(network))
    for found in improving(plan, measure, clock, aim):
        yield Candidate(
            method="lipsdp",
            estimates=found.bounds,
            proof=_proof(plan, network.patterns, found.scales),
        )


def _proof(plan: Plan, patterns: Sequence[Pattern], scales: Mapping[str, Tensor]) -> TorusProof:
    gates: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for step in (*plan.torus, *plan.dense):
        gate = step.gate
        if not gate.name:
            continue
        array = (masks if gate.is_mask else gates).setdefault(
            gate.name, torch.zeros(gate.scales, dtype=torch.float64)
        )
        if not gate.is_linear:
            array[gate.owner] = scales[gate.key]
    return TorusProof(
        patterns=tuple(patterns),
        sides=plan.sides,
        scales={name: array.numpy() for name, array in gates.items()},
        masks={name: array.numpy() for name, array in masks.items()},
    )

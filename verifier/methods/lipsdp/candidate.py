"""From a property to a candidate: slopes, form, inequalities, proof."""

from __future__ import annotations

from collections.abc import Mapping

from verifier.certificate import Candidate, ForwardProof, GateLmiProof, LmiItem, LmiProof, LmiRow
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp.form import form_of
from verifier.methods.lipsdp.options import Options
from verifier.methods.lipsdp.rows import Search
from verifier.methods.lipsdp.slopes import Slopes, global_slopes, local_slopes
from verifier.methods.progress import NO_AIM, Aim
from verifier.methods.weights import fronted, plain_norms
from verifier.network.gated import Gated
from verifier.network.graph import Grouped, Network, Node
from verifier.network.tangent import tangent
from verifier.property import Property
from verifier.regions import Everywhere


def candidate(
    network: Network,
    asked: Property,
    options: Options,
    clock: Clock,
    aim: Aim = NO_AIM,
    warm: LmiRow | None = None,
) -> Candidate:
    """Multipliers that prove a bound for each item of the property.

    When the clock runs out, what remains gets the bound of its start.

    Args:
        network: not lowered.
        asked: the property.
        options: of the method.
        clock: what may be spent.
        aim: when a bound is enough, and who is told of the steps.
        warm: multipliers to start near: those of a similar network, or of other outputs; whether
            they are feasible does not matter.

    Raises:
        InvalidRequest: an index of the property is out of range.
        NotLipschitzGlobally: a global bound is asked for, and an activation has none.
        TooLarge: the inequality is larger than dense matrices allow.
    """
    inputs = varying_inputs(asked, network.input_size)
    items = items_of(asked, network.output_size)
    if isinstance(asked.place, Everywhere):
        lowered = network.lowered("keep")
        slopes, forward = global_slopes(lowered), None
    else:
        lowered = network.lowered("compare")
        slopes, forward = local_slopes(lowered, asked.place)
    form = form_of(fronted(tangent(lowered), asked.norm, inputs), inputs, slopes)
    norms = plain_norms(asked.norm)
    search = Search(form=form, norm=norms, options=options, clock=clock, aim=aim, warm=warm)
    found = search.items([item.rows for item in items])
    proved = tuple(item for item, _ in found)
    return Candidate(
        method="lipsdp",
        estimates=tuple(bound for _, bound in found),
        proof=_proof(network, proved, slopes, forward),
    )


def _is_gated(node: Node) -> bool:
    return isinstance(node, Grouped) and isinstance(node.group, Gated)


def _proof(
    network: Network,
    items: tuple[LmiItem, ...],
    slopes: Mapping[str, Slopes],
    forward: ForwardProof | None,
) -> LmiProof | GateLmiProof:
    if forward is None:
        gated = tuple(node.name for node in network.nodes if _is_gated(node))
        return LmiProof(patterns=network.patterns, items=items, gated=gated)
    return GateLmiProof(
        patterns=network.patterns,
        forward=forward,
        slopes={gate: each.proved() for gate, each in slopes.items()},
        items=items,
    )

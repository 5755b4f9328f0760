"""From a base candidate to better ones: pair cuts and blocks of sorts, row by row, anytime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate, LmiItem, LmiProof, LmiRow, PairCuts
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp import Form, form_of, global_slopes
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.methods.refinement import vertices
from verifier.methods.refinement.assembly import Assembly, l2_assembly
from verifier.methods.refinement.rounds import Found, rounds
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Property

LARGEST = 700  #: psis beyond which a round takes minutes
TIGHT = 1e-5  #: a bound this close to the vertex maximum is not refined
_ROUNDS = 20
_VERTEX_ROUNDS = 12
_VERTEX_SHARE = 0.1  #: of what is left on the clock
L2 = NormPair(Norm.L2, Norm.L2)


def candidates(
    network: Network,
    asked: Property,
    options: lipsdp.Options,
    clock: Clock,
    aim: Aim = NO_AIM,
    *,
    base: Candidate,
) -> Iterator[Candidate]:
    """Candidates, each better than the base and than those before.

    Args:
        network: not lowered.
        asked: the property that the base is about.
        options: of LipSDP.
        clock: no step begins after it has expired.
        aim: when a bound is enough, and who is told of steps.
        base: of LipSDP, with global slopes.
    """
    if not isinstance(base.proof, LmiProof):
        return
    form = _form(network, asked)
    if LARGEST < len(form.inflow):
        return
    best = base
    items = items_of(asked, network.output_size)
    for place in sorted(range(len(items)), key=lambda i: -base.estimates[i]):
        proof = best.proof
        assert isinstance(proof, LmiProof)  # noqa: S101 (the base's kind)
        rows = proof.items[place].rows
        if len(rows) != 1 or rows[0].input_multipliers is not None or rows[0].level <= 0:
            continue
        share = base.estimates[place] / math.sqrt(rows[0].level)
        for row in _refined(form, items[place].rows, rows[0], clock, aim, share):
            best = _replaced(best, place, row, share)
            yield best


def vertex_maximum(network: Network, asked: Property, clock: Clock) -> float:
    """The greatest |J(T)| that a search over vertices of the gates meets, of all items.

    No bound that the activations' constraints prove is below it: an estimate of how tight they are.
    """
    form = _form(network, asked)
    return max(
        vertices.search(form, item.rows, asked.norm, rounds=_VERTEX_ROUNDS, clock=clock)
        for item in items_of(asked, network.output_size)
    )


def _form(network: Network, asked: Property) -> Form:
    lowered = network.lowered("keep")
    return form_of(lowered, varying_inputs(asked, network.input_size), global_slopes(lowered))


def _refined(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    base: LmiRow,
    clock: Clock,
    aim: Aim,
    share: float,
) -> Iterator[LmiRow]:
    """Rows that prove less and less."""
    budget = Clock.start(_VERTEX_SHARE * clock.remaining)
    reached = vertices.search(form, rows, L2, rounds=_VERTEX_ROUNDS, clock=budget)
    enough = max((reached * (1 + TIGHT)) ** 2, (aim.enough / share) ** 2) / base.level
    if 1 <= enough:
        return
    assembly = l2_assembly(form, rows, base)
    least = base.level
    count = 0

    def stop(objective: float) -> bool:
        return clock.has_expired or objective <= enough

    for found in rounds(assembly, limit=_ROUNDS, most_cuts=6.0, gap=1e-4, stop=stop):
        count += 1
        aim.report(Step(phase="refining", iteration=count))
        row = _row(assembly, base, found)
        if row.level < least:
            least = row.level
            yield row


def _row(assembly: Assembly, base: LmiRow, found: Found) -> LmiRow:
    """What the certificate stores."""
    values = (found.base * assembly.unit).numpy()
    multipliers = {gate: array.copy() for gate, array in base.multipliers.items()}
    entries = [(a.gate, int(entry)) for a in assembly.form.gates for entry in a.active]
    for number, value in zip(assembly.owners.tolist(), values[1:], strict=True):
        gate, entry = entries[number]
        multipliers[gate][entry] = value
    return replace(
        base,
        level=float(values[0]),
        multipliers=multipliers,
        cuts=_pair_cuts(assembly, found),
        sort_blocks={},
    )


def _pair_cuts(assembly: Assembly, found: Found) -> tuple[PairCuts, ...]:
    """The cuts by pairs of nodes."""
    cuts, names, scales = found.cuts, assembly.names, assembly.scales
    weights = torch.cat(
        [cuts.p * scales[cuts.first][:, None], cuts.r * scales[cuts.second][:, None]], dim=1
    ).numpy()
    grouped: dict[tuple[str, str], list[tuple[int, int, np.ndarray]]] = {}
    for one, other, weight in zip(cuts.first.tolist(), cuts.second.tolist(), weights, strict=True):
        (first, entry), (second, target) = names[one], names[other]
        grouped.setdefault((first, second), []).append((entry, target, weight))
    return tuple(
        PairCuts(
            first=first,
            second=second,
            first_entries=tuple(entry for entry, _, _ in members),
            second_entries=tuple(target for _, target, _ in members),
            weights=np.concatenate([weight for _, _, weight in members]),
        )
        for (first, second), members in grouped.items()
    )


def _replaced(candidate: Candidate, place: int, row: LmiRow, share: float) -> Candidate:
    """The candidate with another row for one item."""
    proof = candidate.proof
    assert isinstance(proof, LmiProof)  # noqa: S101 (the base's kind)
    items = [*proof.items]
    items[place] = LmiItem(rows=(row,))
    estimates = [*candidate.estimates]
    estimates[place] = share * math.sqrt(row.level)
    return replace(candidate, estimates=tuple(estimates), proof=replace(proof, items=tuple(items)))

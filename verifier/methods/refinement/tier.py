"""From a base candidate to better ones: pair cuts and blocks of sorts, row by row, anytime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate, LmiItem, LmiProof, LmiRow, PairCuts
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.lipsdp import Form, form_of, global_slopes
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.methods.refinement import vertices
from verifier.methods.refinement.assembly import Assembly, l2_assembly
from verifier.methods.refinement.rounds import Found, rounds
from verifier.methods.weights import fronted, plain_norms
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.property import Property

LARGEST = 700  #: psis beyond which a round takes minutes
TIGHT = 1e-5  #: a bound this close to the vertex maximum is not refined
_VERTEX_ROUNDS = 12
_VERTEX_SHARE = 0.1  #: of what is left on the clock
_FEWEST_CUTS = 12  #: times the gates, at any time, in small networks
_MOST_CUTS = 1500  #: in large ones, but not fewer than twice the gates
_GAP = 3e-4  #: that every round is solved to
_STALLED = 3e-5  #: rounds go on while two of them gain this share
L2 = NormPair(Norm.L2, Norm.L2)


def candidates(
    network: Network,
    asked: Property,
    options: lipsdp.Options,
    clock: Clock,
    aim: Aim = NO_AIM,
    *,
    base: Candidate,
    limit: int = 30,
) -> Iterator[Candidate]:
    """Candidates, each better than the base and than those before.

    Args:
        network: not lowered.
        asked: the property that the base is about.
        options: of LipSDP; only its own solver refines.
        clock: no step begins after it has expired.
        aim: when a bound is enough, and who is told of steps.
        base: of LipSDP, with global slopes.
        limit: rounds of each row, at most.
    """
    norms = plain_norms(asked.norm)
    if not isinstance(base.proof, LmiProof) or options.solver != "interior_point":
        return
    if norms.input is not Norm.L2:
        return
    form = form_of_property(network, asked)
    if LARGEST < len(form.inflow):
        return
    refiner = _Refiner(form, clock, aim, limit)
    best = base
    items = items_of(asked, network.output_size)
    for place in sorted(range(len(items)), key=lambda i: -base.estimates[i]):
        for rows, estimate in refiner.item(
            base.proof.items[place].rows, items[place], norms.output, base.estimates[place]
        ):
            best = _replaced(best, place, rows, estimate)
            yield best


def vertex_maximum(network: Network, asked: Property, clock: Clock) -> float:
    """The greatest |J(T)| that a search over vertices of the gates meets, of all items.

    No bound that the activations' constraints prove is below it: an estimate of how tight they are.
    """
    form = form_of_property(network, asked)
    return max(
        vertices.search(
            form, item.rows, plain_norms(asked.norm), rounds=_VERTEX_ROUNDS, clock=clock
        )
        for item in items_of(asked, network.output_size)
    )


def form_of_property(network: Network, asked: Property) -> Form:
    """The canonical form with global slopes."""
    lowered = network.lowered("keep")
    inputs = varying_inputs(asked, network.input_size)
    return form_of(fronted(lowered, asked.norm, inputs), inputs, global_slopes(lowered))


@dataclass(frozen=True, slots=True, eq=False)
class _Refiner:
    """One run."""

    form: Form
    clock: Clock
    aim: Aim
    limit: int

    def item(
        self, rows: tuple[LmiRow, ...], item: Item, output: Norm, estimate: float
    ) -> Iterator[tuple[tuple[LmiRow, ...], float]]:
        """Rows of one item that prove less and less, and the estimates."""
        measured = _measured(rows, output)
        if not 0 < measured or any(_is_bordered(row) for row in rows):
            return
        share = estimate / measured
        current = [*rows]
        for place in sorted(range(len(rows)), key=lambda i: -rows[i].level):
            row = rows[place]
            chosen = item.rows if row.output is None else item.rows[[row.output]]
            enough = (self.aim.enough / share) ** 2 if output is Norm.LINF or not place else 0.0
            others = [other.level for i, other in enumerate(current) if i != place]
            if output is Norm.LINF and others:
                # The greatest of the others is the item's bound from there on.
                enough = max(enough, *others)
            for better in self._refined(chosen, row, enough):
                current[place] = better
                estimate = share * _measured(current, output)
                yield tuple(current), estimate
            if self.clock.has_expired or estimate <= self.aim.enough:
                return

    def _refined(
        self, rows: Float64[Tensor, "selected outputs"], base: LmiRow, enough: float
    ) -> Iterator[LmiRow]:
        """Rows of lower and lower levels, until one is enough."""
        budget = Clock.start(_VERTEX_SHARE * self.clock.remaining)
        reached = vertices.search(self.form, rows, L2, rounds=_VERTEX_ROUNDS, clock=budget)
        enough = max((reached * (1 + TIGHT)) ** 2, enough) / base.level
        if 1 <= enough:
            return
        assembly = l2_assembly(self.form, rows, base)
        gates = max(1, len(assembly.names))
        levels = [base.level] * 3

        def stop(objective: float) -> bool:
            return self.clock.has_expired or objective <= enough

        found = rounds(
            assembly,
            limit=self.limit,
            most_cuts=min(_FEWEST_CUTS * gates, max(2 * gates, _MOST_CUTS)),
            fresh_cuts=gates,
            gap=_GAP,
            stop=stop,
        )
        for count, each in enumerate(found, start=1):
            self.aim.report(Step(phase="refining", iteration=count))
            row = _row(assembly, base, each)
            if row.level < min(levels):
                yield row
            levels.append(row.level)
            if count > 2 and min(levels[:-2]) * (1 - _STALLED) < min(levels):
                return


def _is_bordered(row: LmiRow) -> bool:
    """Whether a row is of another form than (1) of LipSDP."""
    return row.input_multipliers is not None or row.output_multipliers is not None


def _measured(rows: Sequence[LmiRow], output: Norm) -> float:
    """What the rows prove together, but for factors of the norms."""
    bounds = [math.sqrt(row.level) for row in rows]
    match output:
        case Norm.LINF:
            return max(bounds, default=0.0)
        case Norm.L2:
            return math.hypot(*bounds)
        case Norm.L1:
            return math.fsum(bounds)


def _row(assembly: Assembly, base: LmiRow, found: Found) -> LmiRow:
    """What the certificate stores."""
    values = (found.base * assembly.unit).numpy()
    multipliers = {gate: array.copy() for gate, array in base.multipliers.items()}
    for (gate, entry), value in zip(assembly.owners, values[1:], strict=True):
        multipliers[gate][entry] = value
    return replace(
        base,
        level=float(values[0]),
        multipliers=multipliers,
        cuts=_pair_cuts(assembly, found),
        sort_blocks=_sort_blocks(assembly, base, found),
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


def _sort_blocks(assembly: Assembly, base: LmiRow, found: Found) -> dict[str, np.ndarray]:
    """The blocks by node: lower triangles over contrasts, which are sqrt(j(j+1)) as long."""
    arrays: dict[str, np.ndarray] = {}
    for group, blocks in zip(assembly.groups, found.blocks, strict=True):
        steps = torch.arange(1, blocks.shape[1] // 2 + 1, dtype=torch.float64)
        roots = (steps * (steps + 1)).rsqrt().repeat(2)
        scaled = blocks * roots[:, None] * roots * group.multipliers[:, None, None]
        row, column = group.blocks.triangle
        for (node, entry), values in zip(group.names, scaled[:, row, column], strict=True):
            count = len(base.multipliers[node])
            whole = arrays.setdefault(node, np.zeros(count * len(row)))
            whole[entry * len(row) : (entry + 1) * len(row)] = values.numpy()
    return arrays


def _replaced(
    candidate: Candidate, place: int, rows: tuple[LmiRow, ...], estimate: float
) -> Candidate:
    """The candidate with other rows for one item."""
    proof = candidate.proof
    assert isinstance(proof, LmiProof)  # noqa: S101 (the base's kind)
    items = [*proof.items]
    items[place] = LmiItem(rows=rows)
    estimates = [*candidate.estimates]
    estimates[place] = estimate
    return replace(candidate, estimates=tuple(estimates), proof=replace(proof, items=tuple(items)))

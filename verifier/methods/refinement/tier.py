"""From a base candidate to better ones: pair cuts and blocks of sorts, row by row, anytime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate, LmiItem, LmiProof, LmiRow
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.lipsdp import SIGNS, Form, form_of, global_slopes, of_signs, with_signs
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.methods.refinement import vertices
from verifier.methods.refinement.assembly import assembled
from verifier.methods.refinement.rounds import rounds
from verifier.methods.refinement.stored import reach, stored_row
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
        base: of LipSDP, with global slopes; inputs in l1 are left as they are.
        limit: rounds of each row, at most.
    """
    norms = plain_norms(asked.norm)
    if not isinstance(base.proof, LmiProof) or options.solver != "interior_point":
        return
    if norms.input is Norm.L1:
        return
    form = form_of_property(network, asked)
    if LARGEST < len(form.inflow):
        return
    refiner = _Refiner(form, norms.input, clock, aim, limit)
    best = base
    items = items_of(asked, network.output_size)
    for place in sorted(range(len(items)), key=lambda i: -base.estimates[i]):
        rows = base.proof.items[place].rows
        for better, estimate in refiner.item(rows, items[place].rows, base.estimates[place]):
            best = _replaced(best, place, better, estimate)
            yield best


def vertex_maximum(network: Network, asked: Property, clock: Clock) -> float:
    """The greatest |J(T)| that a search over vertices of the gates meets, of all items.

    No bound that the activations' constraints prove is below it: an estimate of how tight they are.
    """
    form, norms = form_of_property(network, asked), plain_norms(asked.norm)
    return max(
        vertices.search(form, item.rows, norms, rounds=_VERTEX_ROUNDS, clock=clock)
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
    norm: Norm  #: of the inputs: l2 or linf
    clock: Clock
    aim: Aim
    limit: int

    def item(
        self,
        rows: tuple[LmiRow, ...],
        outputs: Float64[Tensor, "selected outputs"],
        estimate: float,
    ) -> Iterator[tuple[tuple[LmiRow, ...], float]]:
        """Rows of one item that prove less and less, and the estimates.

        Several rows are of one output each, and their maximum counts: the greatest is refined as
        far as it goes, and later ones only until they are below it.
        """
        reached = [reach(row) for row in rows if row.output is None or row.output < len(outputs)]
        # The base is not proved yet: its numbers may be anything.
        if (
            not reached
            or len(reached) < len(rows)
            or not 0 < min(reached) <= max(reached) < math.inf
        ):
            return
        share = estimate / max(reached)
        current, least, settled = [*rows], estimate, 0.0
        for place in sorted(range(len(rows)), key=lambda i: -reach(rows[i])):
            if self.clock.has_expired or reach(rows[place]) <= settled:
                return
            enough = max(self.aim.enough / share, settled)
            for better in self._refined(rows[place], outputs, enough):
                current[place] = better
                found = share * max(map(reach, current))
                if found < least:
                    least = found
                    yield tuple(current), found
            settled = max(settled, reach(current[place]))

    def _refined(
        self, base: LmiRow, outputs: Float64[Tensor, "selected outputs"], enough: float
    ) -> Iterator[LmiRow]:
        """Rows that prove less and less, until one is enough."""
        form, chosen = self.form, outputs
        if base.output is not None:
            chosen = outputs[[base.output]]
        if base.output_multipliers is not None:
            form, chosen = with_signs(form, outputs), outputs.new_ones(1, 1)
            multipliers = {**base.multipliers, SIGNS: base.output_multipliers}
            base = replace(base, output=0, multipliers=multipliers, output_multipliers=None)
            for row in self._found(form, chosen, base, enough):
                yield of_signs(row)
        else:
            yield from self._found(form, chosen, base, enough)

    def _found(
        self, form: Form, rows: Float64[Tensor, "selected outputs"], base: LmiRow, enough: float
    ) -> Iterator[LmiRow]:
        """The same, of a form whose outputs `rows` y the row bounds in l2."""
        first = reach(base)
        pair = NormPair(self.norm if base.input_multipliers is not None else Norm.L2, Norm.L2)
        budget = Clock.start(_VERTEX_SHARE * self.clock.remaining)
        reached = vertices.search(form, rows, pair, rounds=_VERTEX_ROUNDS, clock=budget)
        enough = max(reached * (1 + TIGHT), enough)
        if first <= enough:
            return
        power = 2 if base.input_multipliers is None else 1
        goal = (enough / first) ** power
        assembly = assembled(form, rows, base)
        if assembly is None:
            return
        gates = max(1, len(assembly.names))
        met = [first] * 3

        def stop(objective: float) -> bool:
            return self.clock.has_expired or objective <= goal

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
            row = stored_row(assembly, base, each)
            if reach(row) < min(met):
                yield row
            met.append(reach(row))
            if count > 2 and min(met[:-2]) * (1 - _STALLED) < min(met):
                return


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

"""Proof kinds over a region: `propagation`, and the slopes of `gate-lmi`.

With |J| bounded entry by entry over the region, |f(x) - f(y)|_q <= | max|J| |_(p,q) |x - y|_p, for
the mean of Jacobians along a segment is bounded by what bounds each. For linf inputs the sums of
rows are bounded jointly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, norm_up, sum_up
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved
from verifier.checker.followed import Followed, followed
from verifier.checker.forward import forward_bounds, forward_walk, slopes_over, varies
from verifier.checker.intervals import Interval
from verifier.checker.jacobian import Along, Jacobian
from verifier.checker.joint_products import SlopeLines, identity_lines, slope_lines
from verifier.checker.linearised import increments_over
from verifier.checker.lmi import prove_lmi
from verifier.checker.lowering import lowered
from verifier.checker.network import Elementwise, Product
from verifier.checker.operator_norms import matrix_norm
from verifier.checker.tangent import gates_of, tangent
from verifier.checker.weighting import unweighted
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float64

    from verifier.certificate import GateLmiProof, PropagationProof, SlopeRange
    from verifier.checker.constraints import Slopes
    from verifier.checker.items import Selection
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network
    from verifier.checker.substitution import Substitution
    from verifier.checker.weighting import Unweighted
    from verifier.norms import NormPair
    from verifier.property import Property


def prove_propagation(
    proof: PropagationProof, network: Network, asked: Property, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the technique gives, one for each item of the claim.

    Raises:
        NotProved: a bound is not finite, or lines name no gate.
    """
    small = lowered(network, sorts="compare", keeps_blocks=True)
    walk = forward_walk(network, small, asked.place, proof.forward)
    # A coordinate that the region fixes has no increment.
    wanted = np.zeros(network.input_size, np.bool_)
    wanted[selected.inputs] = varies(asked.place)[selected.inputs]
    plain, jacobian = _jacobian(proof, small, walk, asked, wanted, selected)
    pair = plain.pair
    entries = jacobian.entries(wanted)
    count = len(entries.lower)
    from_linf = pair.input is Norm.LINF
    sums = jacobian.row_sums(entries, wanted) if from_linf else np.zeros(count)
    bounds: list[Magnitude] = []
    end = 0
    for item in selected.items:
        begin, end = end, end + len(item.rows.index)
        own = Interval(entries.lower[begin:end][:, wanted], entries.upper[begin:end][:, wanted])
        bounds.append(Magnitude.of(_norm_of(own, sums[begin:end], pair)))
    return plain.bounds(bounds)


def _jacobian(
    proof: PropagationProof,
    small: Lowered,
    walk: Substitution,
    asked: Property,
    wanted: Bool[np.ndarray, " inputs"],
    selected: Selection,
) -> tuple[Unweighted, Jacobian]:
    """What the technique knows of the rows of all items, in coordinates with a plain norm."""
    increments, slopes, caps = tangent(small).network, slopes_over(small, walk.signals), {}
    along: Along | None = None
    if proof.technique == "joint":
        inner = followed(increments, walk)
        increments, slopes, caps = inner.network, {**slopes, **inner.slopes}, inner.caps
        along = _along(small, walk, inner)
    linear = increments_over(increments, walk.signals)
    rows = [item.rows.backward(np.eye(len(item.rows.index))) for item in selected.items]
    plain = unweighted(linear.network, asked.norm, np.flatnonzero(wanted))
    return plain, Jacobian(
        plain.network,
        slopes,
        np.concatenate(rows),
        linear=proof.technique != "interval",
        along=along,
        caps={**linear.caps, **caps},
    )


def _norm_of(entries: Interval, sums: Float64[np.ndarray, " rows"], pair: NormPair) -> float:
    """A number that no matrix within the entries exceeds: of magnitudes, or about the centre."""
    if pair.input is Norm.LINF:
        best = _of_row_sums(sums, pair.output)
    else:
        best = matrix_norm(Carried(entries.magnitude()), pair)
    if pair.output is Norm.LINF or pair.input is Norm.L1:
        return best  # signs do not matter
    return min(best, matrix_norm(Carried(*entries.centred()), pair))


def _along(small: Lowered, walk: Substitution, inner: Followed) -> Along:
    """How every gate's slope follows what enters it, those of blocks included."""
    slopes: dict[str, SlopeLines] = {**inner.lines}
    entering: dict[str, str] = {**inner.signals}
    for node in small.network.nodes:
        match node:
            case Elementwise():
                bounds = walk.signals[node.source]
                slopes[node.name] = slope_lines(node.function, bounds.lower[0], bounds.upper[0])
                entering[node.name] = node.source
            case Product():
                for gate, factor in gates_of(node):
                    slopes[gate] = identity_lines(walk.signals[factor].magnitude()[0])
                    entering[gate] = factor
            case _:
                pass
    return Along(slopes=slopes, forward=walk, entering=entering)


def _of_row_sums(sums: Float64[np.ndarray, " rows"], output: Norm) -> float:
    """|dx|_inf <= 1 gives |dy_i| <= sum_i."""
    match output:
        case Norm.LINF:
            return float(sums.max())
        case Norm.L2:
            return norm_up(sums)
        case Norm.L1:
            return sum_up(sums)


def prove_gate_lmi(
    proof: GateLmiProof, network: Network, asked: Property, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the rows prove with slopes that hold over the region.

    Raises:
        NotProved: a stored slope range does not contain the one that is proved here, or the
            inequalities do not hold with the stored ones.
    """
    small = lowered(network, sorts="compare", keeps_blocks=True)
    signals = forward_bounds(network, small, asked.place, proof.forward)
    increments = tangent(small)
    slopes = stored_slopes(increments, slopes_over(small, signals), proof.slopes)
    linear = increments_over(increments.network, signals).network
    plain = unweighted(linear, asked.norm, selected.inputs)
    measured = replace(increments, network=plain.network)
    return plain.bounds(prove_lmi(proof.items, measured, slopes, plain.pair, selected))


def stored_slopes(
    small: Lowered, proved: Mapping[str, Slopes], stored: Mapping[str, SlopeRange]
) -> dict[str, Slopes]:
    """The stored ranges, by the gates' own names; the proved one where none is stored."""
    if unknown := sorted(set(stored) - set(small.gates.values())):
        raise NotProved(f"slopes for {unknown}, which are no gates of the network")
    chosen: dict[str, Slopes] = {}
    for node, (lower, upper) in proved.items():
        name = small.gates[node]
        given = stored.get(name)
        if given is None:
            chosen[node] = (lower, upper)
            continue
        if given.lower.shape != lower.shape or given.upper.shape != upper.shape:
            raise NotProved(f"slopes of {name!r}: expected {len(lower)} of each")
        outside = ~((given.lower <= lower) & (upper <= given.upper))
        if np.any(outside):
            raise NotProved(
                f"slopes of {name!r}: entry {int(np.argmax(outside))} and "
                f"{int(outside.sum()) - 1} more are narrower than the region allows"
            )
        chosen[node] = (given.lower, given.upper)
    return chosen

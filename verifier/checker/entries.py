"""Kinds that are about entries of the Jacobian: `jacobian`, and the sign of one, `monotone`.

What is proved holds for every matrix of the Clarke Jacobian of f at every point of the region, also
where the region has no interior. Near such a point what enters each gate lies in an open interval
around its bounds [l, u], so that the gate's increments have slopes of the range over the next
float64 below l and above u. A derivative by x_k is a limit of quotients of increments, which the
pass through the graph reversed bounds for all slopes of those ranges; the Clarke Jacobian is the
hull of limits of derivatives. An interval holds for all of them.

Along a segment in x_k alone f moves by the integral of its derivative: 0 <= J_jk everywhere says
that f_j does not fall where x_k grows.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import PropagationProof, TreeProof
from verifier.checker.definite import NotProved
from verifier.checker.everywhere import everywhere
from verifier.checker.forward import forward_bounds
from verifier.checker.gradient_signs import derivative_signs
from verifier.checker.intervals import Interval
from verifier.checker.items import selection
from verifier.checker.jacobian import Jacobian
from verifier.checker.linearised import Linearised, increments_over
from verifier.checker.lmi import global_slopes
from verifier.checker.lowering import lowered
from verifier.checker.network import Elementwise, Product
from verifier.checker.part_entries import tree_entries
from verifier.checker.rejected import Rejected
from verifier.checker.tangent import gates_of, tangent
from verifier.checker.tree import require_gates
from verifier.checker.witness import point_values, require_pair
from verifier.regions import Everywhere

if TYPE_CHECKING:
    from verifier.certificate import Certificate, Entries, Proof, Verdict, Witness
    from verifier.checker.constraints import Slopes
    from verifier.checker.lowering import Lowered
    from verifier.checker.network import Network
    from verifier.property import Property


def prove_entries(proof: Proof, network: Network, asked: Property) -> Interval:
    """Bounds of the asked entries, a row for each output and a column for each input.

    Raises:
        NotProved: the proof is of another kind, or an entry has no finite bounds.
    """
    if not isinstance(proof, PropagationProof | TreeProof):
        raise NotProved(f"a proof of kind {proof.kind!r} bounds no entries of a Jacobian")
    selected = selection(asked.entries, network.input_size, network.output_size)
    is_global = isinstance(asked.place, Everywhere)
    if is_global:
        network = everywhere(network)
    # A tree knows affine nodes and gates: a block, as a product, is refused before it is read.
    keeps_blocks = not is_global and isinstance(proof, PropagationProof)
    small = lowered(network, sorts="compare", keeps_blocks=keeps_blocks)
    if isinstance(proof, TreeProof):
        require_gates(small)
    (item,) = selected.items
    rows = item.rows.backward(np.eye(len(item.rows.index)))
    slopes, near = _near(proof, network, small, asked)
    wanted = np.zeros(network.input_size, np.bool_)
    wanted[selected.inputs] = True
    if isinstance(proof, TreeProof):
        entries = tree_entries(proof, network, small, asked.place, rows, wanted)
    else:
        is_linear = proof.technique == "linear"
        jacobian = Jacobian(near.network, slopes, rows, linear=is_linear, caps=near.caps)
        entries = jacobian.entries(wanted)
    signs = derivative_signs(near.network, slopes, rows)
    lower = np.where(signs.below, entries.lower, np.maximum(entries.lower, 0.0))
    upper = np.where(signs.above, entries.upper, np.minimum(entries.upper, 0.0))
    return Interval(lower[:, selected.inputs], upper[:, selected.inputs])


def _near(
    proof: PropagationProof | TreeProof, network: Network, small: Lowered, asked: Property
) -> tuple[dict[str, Slopes], Linearised]:
    """Ranges that hold for increments near any point of the region, of gates and of blocks."""
    if isinstance(asked.place, Everywhere):
        return global_slopes(small), Linearised(small.network, {})
    signals = forward_bounds(network, small, asked.place, proof.forward)
    ranges: dict[str, Slopes] = {}
    for node in small.network.nodes:
        match node:
            case Elementwise():
                ranges[node.name] = node.function.slope_range_on(*_around(signals[node.source]))
            case Product():
                ranges |= {gate: _around(signals[factor]) for gate, factor in gates_of(node)}
            case _:
                pass
    return ranges, increments_over(tangent(small).network, signals, near=True)


def _around(entering: Interval) -> Slopes:
    """The next numbers below and above the bounds."""
    return np.nextafter(entering.lower[0], -np.inf), np.nextafter(entering.upper[0], np.inf)


# --- The claim -----------------------------------------------------------------------------------


def judge_entries(certificate: Certificate, network: Network) -> Interval:
    """What the proof proves of the entries, where that and the witness prove the claim.

    Raises:
        Rejected: the claim, its verdict or its witness say more than is proved.
        NotProved: the proof does not hold.
    """
    claim, witness = certificate.claim, certificate.lower_bound
    asked = claim.property
    numbers = (claim.bound, claim.log10_bound, claim.bounds, certificate.target)
    if any(number is not None for number in numbers):
        raise Rejected("inconsistent", f"a claim of kind {asked.kind} has no bound and no target")
    proved = prove_entries(certificate.proof, network, asked)
    if asked.kind == "jacobian":
        _require_within(claim.entries, proved)
    elif claim.entries is not None:
        raise Rejected("inconsistent", "a matrix is claimed, and the property asks for a sign")
    if witness is not None:
        _require_fall(witness, network, asked)
    if certificate.verdict != _verdict(asked, proved, witness):
        raise Rejected("inconsistent", f"verdict {certificate.verdict!r} does not follow")
    return proved


def _require_within(claimed: Entries | None, proved: Interval) -> None:
    """The claimed intervals contain the proved ones, read as float64 and as decimals."""
    if claimed is None or claimed.shape != proved.lower.shape:
        raise Rejected("inconsistent", f"the proof is of a matrix of shape {proved.lower.shape}")
    if not len(claimed.lower) == len(claimed.upper) == proved.lower.size:
        raise Rejected("inconsistent", f"the matrix has {proved.lower.size} entries")
    least, greatest = proved.lower.ravel().tolist(), proved.upper.ravel().tolist()
    ends = zip(claimed.lower, claimed.upper, least, greatest, strict=True)
    for place, (low, high, lower, upper) in enumerate(ends):
        if not (_is_below(low, lower) and _is_below(-high, -upper)):
            raise Rejected(
                "bound-not-proved",
                f"entry {place}: the proof proves [{lower!r}, {upper!r}], the claim is"
                f" [{low!r}, {high!r}]",
            )


def _is_below(claimed: float, proved: float) -> bool:
    """Whether claimed <= proved, the claimed number also as its decimal.

    A decimal is nearer to its float64 than any other is: it matters where the two are equal.
    """
    is_met = claimed == proved and Fraction(repr(claimed)) <= Fraction(claimed)
    return claimed < proved or is_met


def _verdict(asked: Property, proved: Interval, witness: Witness | None) -> Verdict | None:
    """What follows from the proof and a witness that refutes; None for kinds without a verdict."""
    sign = asked.monotone
    if sign is None:
        return None
    is_proved = bool(
        0 <= proved.lower[0, 0] if sign.direction == "increasing" else proved.upper[0, 0] <= 0
    )
    if is_proved and witness is not None:
        raise Rejected("contradiction", "a proof and a witness contradict each other")
    if is_proved:
        return "certified"
    return "undecided" if witness is None else "violated"


# --- The witness ---------------------------------------------------------------------------------


def _require_fall(witness: Witness, network: Network, asked: Property) -> None:
    """The output moves against the direction, by what the witness says."""
    try:
        fall = least_fall(witness, network, asked)
    except NotProved as error:
        raise Rejected("witness-refuted", str(error)) from error
    # Read as its bits and as its decimal, whichever says more.
    value = max(Fraction(witness.value), Fraction(repr(witness.value)))
    if not 0 < value <= fall:
        raise Rejected("witness-refuted", "the witness does not reach its value")


def least_fall(witness: Witness, network: Network, asked: Property) -> Fraction:
    """How far the output moves against the direction, at least, for each unit of the input.

    Raises:
        NotProved: the property has no direction, or the pair does not belong to it.
    """
    sign = asked.monotone
    if sign is None:
        raise NotProved("only properties of kind monotone are refuted by a pair")
    if witness.item is not None:
        raise NotProved("the witness names an item, and the claim has no list")
    selected = selection(asked.entries, network.input_size, network.output_size)
    require_pair(witness, network, asked, selected)
    run = Fraction(witness.y[sign.input]) - Fraction(witness.x[sign.input])
    if run == 0:
        raise NotProved("the witness is one point")
    values = point_values(network, np.array([witness.x, witness.y]))
    first, second = (0, 1) if (0 < run) == (sign.direction == "increasing") else (1, 0)
    high = Fraction(float(values.lower[first, sign.output]))
    low = Fraction(float(values.upper[second, sign.output]))
    return (high - low) / abs(run)

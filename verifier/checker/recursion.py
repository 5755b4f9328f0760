"""Proof kind `block-recursion`: the covariance of the increments, gate by gate.

Of the live signals' increments z let z z* <= J |dx|^2, which is z* J^+ z <= |dx|^2. A linear map
B takes J to B J B*. A gate phi = A v + Q psi with |psi_g| <= |(C v)_g| has, for any scales D > 0,

    z* J^+ z + psi* D^-1 psi - v* C* D^-1 C v <= |dx|^2,

one positive multiplier 1/D_g for each constraint. If 0 < D - C K C*, K = J_vv, the left side is
z* G^-1 z + psi* D^-1 psi with G = J + J_v C* (D - C K C*)^-1 C J_v*, so that blkdiag(G, D) is a
covariance of (z, psi), and phi is a linear map of it. At the output |dy|^2 <= lambda_max(J) |dx|^2.

Signals live as long as something that is not yet computed reads them; which signals stand between
two gates is the checker's choice, for J is carried through linear maps as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import Magnitude, above, enlarged
from verifier.checker.definite import NotProved
from verifier.checker.flat import FlatState, run_flat
from verifier.checker.frontier import Frontier
from verifier.checker.hermitian import Covariance, identity, require_scales
from verifier.checker.lowering import lowered
from verifier.checker.operator_norms import norm_factor
from verifier.checker.quadratic import item_bound
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.certificate import RecursionProof
    from verifier.checker.items import Selection
    from verifier.checker.network import Network


def prove_recursion(
    proof: RecursionProof, network: Network, pair: NormPair, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the proof proves, one for each item.

    Raises:
        NotProved: scales are missing, out of range or too small for a step.
        NotLipschitzGlobally: a node has no slope range.
    """
    small = lowered(network, "keep")
    inside, sizes = small.network, small.network.tensors
    variances, factor = _start(proof.inputs, pair, selected)
    whole = np.zeros(inside.input_size)
    whole[selected.inputs] = variances
    state = FlatState(identity(1, whole, real=True), sizes)
    frontier = Frontier(inside.nodes, inside.output, sizes)
    used = run_flat(frontier, state, inside.output, small.gates, proof.scales)
    if unknown := sorted(set(proof.scales) - used):
        raise NotProved(f"scales for {unknown}, which are no gates of the network")
    return item_bounds(state.covariance, pair, selected, factor)


def item_bounds(
    covariance: Covariance, pair: NormPair, selected: Selection, factor: Magnitude
) -> tuple[Magnitude, ...]:
    """The items' bounds from the output's covariance and what the input norm costs."""
    return tuple(item_bound(covariance, item.rows, pair.output) * factor for item in selected.items)


def input_factor(pair: NormPair, selected: Selection) -> Magnitude:
    """The least c with |dx|_2 <= c |dx|_in on the selected inputs.

    Raises:
        NotProved: the input norm is none that this is known of.
    """
    if pair.input not in tuple(Norm):
        raise NotProved(f"input norm {pair.input}")
    return Magnitude.of(norm_factor(NormPair(pair.input, Norm.L2), len(selected.inputs)))


def _start(
    inputs: Float64[np.ndarray, " inputs"] | None, pair: NormPair, selected: Selection
) -> tuple[Float64[np.ndarray, " selected"], Magnitude]:
    """(e, c) with dx' diag(e)^-1 dx <= c^2 |dx|_in^2: for linf inputs c^2 = sum 1/e_k."""
    count = len(selected.inputs)
    if inputs is None:
        return np.ones(count), input_factor(pair, selected)
    if pair.input is not Norm.LINF:
        raise NotProved("`inputs` of the proof is for linf inputs")
    if inputs.shape != (count,):
        raise NotProved(f"{inputs.shape} inputs for {count}")
    require_scales(inputs)
    shares = enlarged(np.sum(above(1 / inputs), keepdims=True), count)
    return inputs, Magnitude.of(float(shares.max())).root()

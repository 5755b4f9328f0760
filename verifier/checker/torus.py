"""Proof kind `torus`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from verifier.certificate import TorusProof
    from verifier.checker.arithmetic import Magnitude
    from verifier.checker.items import Selection
    from verifier.checker.network import Network
    from verifier.norms import NormPair


def prove_torus(
    proof: TorusProof, network: Network, pair: NormPair, selected: Selection
) -> tuple[Magnitude, ...]:
    """The bounds that the proof proves, one for each item.

    Raises:
        NotProved: the proof does not hold.
    """
    raise NotProved(f"kind {proof.kind!r} is not checked yet")

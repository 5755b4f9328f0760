"""What margins' bounds say of a label: that no point of the ball has another one.

Let x be the center, r the radius, L_j a bound of f_k - f_j over the ball in its own norm. For every
y of the ball

    f_k(y) - f_j(y)  >=  f_k(x) - f_j(x) - L_j r,                                          (1)

so that output k is the greatest everywhere if the right side is above 0 for every other j.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.api import check, read_certificate
from verifier.checker.arithmetic import require_sound_arithmetic
from verifier.checker.definite import NotProved
from verifier.checker.graph import read_network
from verifier.checker.verdict import rejection
from verifier.checker.witness import point_values
from verifier.norms import Norm, NormPair
from verifier.property import All, Margins, Reading
from verifier.regions import Ball, CenterBox

if TYPE_CHECKING:
    from verifier.certificate import Certificate
    from verifier.property import Property


@dataclass(frozen=True, slots=True, kw_only=True)
class Robust:
    """Whether a label holds on a ball, and which ball that is."""

    valid: bool
    code: str  #: "valid", or why not, as of a verdict
    reason: str
    node: str | None = None  #: what the checker cannot read
    label: int | None = None
    radius: float | None = None


def check_radius(certificate: Certificate | bytes, model: bytes) -> Robust:
    """Whether a certificate of margins proves that one output is the greatest on its whole ball.

    Args:
        certificate: of the margins (k, j) for one k and every other j, on a ball of the input norm.
        model: the ONNX file.

    Returns:
        The conclusion; never an exception: whatever goes wrong is none.
    """
    verdict = check(certificate, model)
    if not verdict.valid:
        said = f"the certificate is rejected: {verdict.reason}"
        return Robust(valid=False, code=verdict.code, reason=said, node=verdict.node)
    try:
        with np.errstate(all="ignore"):
            require_sound_arithmetic()
            return _concluded(read_certificate(certificate), model)
    except Exception as error:  # noqa: BLE001 (fail closed)
        why = rejection(error)
        return Robust(valid=False, code=why.code, reason=why.reason, node=why.node)


def _concluded(certificate: Certificate, model: bytes) -> Robust:
    claim = certificate.claim
    if claim.idealised:
        raise NotProved("where nodes were idealised, nothing is said of the file's own outputs")
    center, radius = _ball(claim.property)
    reading = Reading.of(claim.property, freezes=bool(claim.assumptions))
    network = read_network(model, certificate.proof.patterns, reading)
    label = _label(claim.property, network.output_size)
    values = point_values(network, np.array([center]))
    least = Fraction(float(values.lower[0, label]))
    for item in claim.bounds or ():
        if item.margin is None or item.bound is None:
            raise NotProved("a margin has no bound within float64")
        margin = least - Fraction(float(values.upper[0, item.margin[1]]))
        if margin <= Fraction(item.bound) * Fraction(radius):
            raise NotProved(f"output {item.margin[1]} may reach output {label} on the ball")
    return Robust(
        valid=True, code="valid", reason="no other output reaches it", label=label, radius=radius
    )


def _ball(asked: Property) -> tuple[tuple[float, ...], float]:
    """The center and the radius, where the region is a ball of the norm, perhaps clipped."""
    region, norm = asked.region, asked.norm
    if asked.kind != "lipschitz" or not isinstance(norm, NormPair):
        raise NotProved("the claim is no bound in a plain norm")
    if asked.inputs != All():
        raise NotProved("some inputs are held fixed")
    if isinstance(region, Ball):
        is_ball, radius = region.norm is norm.input, region.radius
    elif isinstance(region, CenterBox) and not isinstance(region.radius, tuple):
        is_ball, radius = norm.input is Norm.LINF, region.radius
    else:
        raise NotProved("the region is no ball around a center")
    if not is_ball:
        raise NotProved("the region is a ball of another norm than the claim's")
    if not region.contains(region.center):
        raise NotProved("the center is clipped off")
    return region.center, radius


def _label(asked: Property, outputs: int) -> int:
    """K, where the claim is of its margins over all other outputs."""
    pairs = asked.outputs.pairs if isinstance(asked.outputs, Margins) else None
    if not pairs:
        raise NotProved("the claim is not of one label's margins")
    label = pairs[0][0]
    others = [j for i, j in pairs if i == label]
    if sorted(others) != [j for j in range(outputs) if j != label] or len(others) != len(pairs):
        raise NotProved("the claim is not of one label's margins over all other outputs")
    return label

"""Products over all inputs: proofs without a region are of gates whose slopes hold everywhere.

Over all inputs the values of some functions stay within an interval, of others not, and sums and
products of bounded signals are bounded:

    input                 no bounds
    affine node           bounds where no entry without bounds has a weight, as intervals give them
    tanh, erf, x/(1+|x|)  [-1, 1];  sigmoid [0, 1];  sine, cosine [-1, 1];  clipping: its limits
    softmax               [0, 1];  normalisation: |z| <= sqrt(d), or 1 (`normalise`)
    other functions       bounds where what enters has them
    product               bounds where both factors have them

A product of two bounded factors is replaced by its increment (`tangent`, or `gated` where a proof
asks for that); another one refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import stages
from verifier.checker.compounds import Softsign
from verifier.checker.gated import with_gated
from verifier.checker.intervals import Interval, affine_image, scaled_by
from verifier.checker.lowering import lowered
from verifier.checker.network import Affine, Blocks, Elementwise, Network, Product
from verifier.checker.normalise import Normalise
from verifier.checker.scalars import Confined, Erf, PiecewiseLinear, Sigmoid, Tanh
from verifier.checker.softmax import Softmax
from verifier.checker.tangent import gates_of, increments_of
from verifier.checker.waves import Wave
from verifier.errors import NotLipschitzGlobally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float64

    from verifier.checker.network import Map, Scalar

    Vector = Float64[np.ndarray, " n"]


def everywhere(network: Network, gated: Sequence[str] = ()) -> Network:
    """The network with gates in the place of products, whose slopes hold for all inputs.

    Args:
        network: as it was read.
        gated: the names of products, and of sums of two, that are one gate of several inputs.

    Raises:
        NotProved: a name is not that of a signal that a sigmoid lets pass (`gated`).
        NotLipschitzGlobally: a node multiplies signals without bounds, or has secants of every
            slope.
    """
    _require_slopes(network)
    if not gated and not any(isinstance(node, Product) for node in network.nodes):
        return network
    signals = _signals(network)
    network = with_gated(network, gated, signals)
    ranges: dict[str, tuple[Vector, Vector]] = {}
    for node in network.nodes:
        for gate, factor in gates_of(node) if isinstance(node, Product) else ():
            known = signals[factor]
            if not np.all(_is_known(known)):
                raise NotLipschitzGlobally(
                    f"node {node.name!r} multiplies two signals: its slopes grow with them",
                    fix="ask for a bound on a region",
                    node=node.name,
                )
            ranges[gate] = known.lower[0], known.upper[0]
    return increments_of(network, ranges)


def _require_slopes(network: Network) -> None:
    for node in network.nodes:
        if isinstance(node, Elementwise):
            try:
                node.function.slope_range(node.size)
            except NotLipschitzGlobally as error:
                raise NotLipschitzGlobally(error.detail, fix=error.fix, node=node.name) from error


def _signals(network: Network) -> dict[str, Interval]:
    """Bounds of every signal over all inputs; infinite where there are none."""
    signals = {"": _endless(network.input_size)}
    for node in lowered(network, sorts="compare", keeps_blocks=True).network.nodes:
        match node:
            case Affine():
                signals[node.name] = _affine(node, signals)
            case Elementwise():
                signals[node.name] = _image(node.function, signals[node.source])
            case Product():
                signals[node.name] = _product(signals[node.left], signals[node.right])
            case Blocks(function=Softmax()):
                signals[node.name] = _between(node.size, 0.0, 1.0)
            case Blocks(function=Normalise() as normal):
                signals[node.name] = _between(node.size, -normal.longest, normal.longest)
            case _:
                signals[node.name] = _endless(node.size)
    return signals


def _endless(size: int) -> Interval:
    return Interval(np.full((1, size), -np.inf), np.full((1, size), np.inf))


def _between(size: int, lower: float, upper: float) -> Interval:
    return Interval(np.full((1, size), lower), np.full((1, size), upper))


def _is_known(signal: Interval) -> Bool[np.ndarray, "1 n"]:
    return np.isfinite(signal.lower) & np.isfinite(signal.upper)


def _kept(signal: Interval) -> Interval:
    """The bounds, with 0 in the place of an entry without them."""
    known = _is_known(signal)
    return Interval(np.where(known, signal.lower, 0.0), np.where(known, signal.upper, 0.0))


def _where(known: Bool[np.ndarray, "1 n"], signal: Interval) -> Interval:
    known = known & _is_known(signal)
    return Interval(np.where(known, signal.lower, -np.inf), np.where(known, signal.upper, np.inf))


def _affine(node: Affine, signals: Mapping[str, Interval]) -> Interval:
    known = np.ones((1, node.size), np.bool_)
    kept: dict[str, Interval] = {}
    for term in node.terms:
        known &= ~_reached(term.map, ~_is_known(signals[term.source]))
        kept[term.source] = _kept(signals[term.source])
    return _where(known, affine_image(node, kept))


def _reached(linear: Map, marked: Bool[np.ndarray, "1 n"]) -> Bool[np.ndarray, "1 m"]:
    """Where a marked entry may have a weight; stage by stage, so that no product underflows."""
    for stage in stages(linear):
        ones = marked.astype(np.float64)
        marked = ~(stage.magnitudes(ones) + stage.slack(ones) <= 0)
    return marked


def _image(function: Scalar, entering: Interval) -> Interval:
    inside = _kept(entering)
    least, greatest = function.image(inside.lower[0], inside.upper[0])
    known = _is_known(entering)
    found = Interval(np.where(known, least[None], -np.inf), np.where(known, greatest[None], np.inf))
    limits = _limits(function)
    if limits is not None:
        lower, upper = limits
        found = Interval(np.fmax(found.lower, lower), np.fmin(found.upper, upper))
    return _where(np.ones_like(known), found)


def _limits(function: Scalar) -> tuple[float | Vector, float | Vector] | None:
    """What no value of the function is beyond, anywhere."""
    match function:
        case Tanh() | Erf() | Softsign() | Wave():
            return -1.0, 1.0
        case Sigmoid():
            return 0.0, 1.0
        case Confined():
            return function.least, function.greatest
        case PiecewiseLinear(pieces=((first, low), *_, (last, high))):
            # Flat outside, and monotone between where it has at most three pieces.
            is_flat = bool(np.all(np.equal(first, 0)) and np.all(np.equal(last, 0)))
            if is_flat and len(function.pieces) == 3:
                return np.minimum(low, high), np.maximum(low, high)
            return None
        case _:
            return None


def _product(left: Interval, right: Interval) -> Interval:
    known = _is_known(left) & _is_known(right)
    return _where(known, scaled_by(_kept(left), _kept(right)))

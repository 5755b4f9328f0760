"""Intervals around many centers at once: one pass forwards and one back for all of them.

Affine maps, which are where the time goes, see the signals of all centers as one batch, and on the
way back those of all rows of all centers. The equations are those of `forward` and `jacobian`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate, ForwardProof, PropagationProof
from verifier.methods.domain import Domain
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.propagation.forward import BATCH_ENTRIES
from verifier.methods.propagation.intervals import image_of
from verifier.methods.propagation.norms import norm_bound
from verifier.methods.propagation.planes import product_interval
from verifier.network.graph import Network
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.network.tangent import left_gate, right_gate, tangent
from verifier.norms import NormPair
from verifier.property import Property


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """Numbers within `reach` of `center`, one row for each of a batch."""

    center: Float64[Tensor, "batch n"]
    reach: Float64[Tensor, "batch n"]

    @staticmethod
    def between(lower: Float64[Tensor, "batch n"], upper: Float64[Tensor, "batch n"]) -> _Spread:
        return _Spread((lower + upper) / 2, (upper - lower) / 2)

    @property
    def ends(self) -> tuple[Float64[Tensor, "batch n"], Float64[Tensor, "batch n"]]:
        return self.center - self.reach, self.center + self.reach


def candidates(network: Network, parts: Sequence[Property]) -> list[Candidate]:
    """Bounds of every item around every center, by intervals; none where the norm is weighted.

    Args:
        network: f.
        parts: the property of each center, alike but for the center.
    """
    norm = parts[0].norm
    if not isinstance(norm, NormPair) or network.has_blocks:
        return []  # each center would have a network of its own
    lowered = network.lowered("compare")
    rows = sum(len(item.rows) for item in items_of(parts[0], network.output_size))
    count = max(1, BATCH_ENTRIES // (rows * max(lowered.sizes.values())))
    chosen = [parts[start : start + count] for start in range(0, len(parts), count)]
    proof = PropagationProof(
        patterns=network.patterns,
        forward=ForwardProof(technique="interval"),
        technique="interval",
    )
    return [
        Candidate(method="propagation", estimates=estimates, proof=proof)
        for some in chosen
        for estimates in _bounds(lowered, norm, some)
    ]


def _bounds(lowered: Network, norm: NormPair, parts: Sequence[Property]) -> list[tuple[float, ...]]:
    """One bound for each item, by center."""
    items = items_of(parts[0], lowered.output_size)
    counts = [len(item.rows) for item in items]
    domains = [Domain.of(part.place, lowered.input_size) for part in parts]
    slopes = _slopes(lowered, domains)
    rows = torch.cat([item.rows for item in items])
    jacobian = _jacobian(tangent(lowered), slopes, rows, len(parts))
    found: list[tuple[float, ...]] = []
    for part, domain, magnitudes in zip(parts, domains, jacobian, strict=True):
        inputs = varying_inputs(part, lowered.input_size)
        entries = magnitudes[:, inputs[0 < domain.reach[inputs]]]
        found.append(
            tuple(float(norm_bound(norm, own, own.sum(dim=-1))) for own in entries.split(counts))
        )
    return found


def _slopes(
    lowered: Network, domains: Sequence[Domain]
) -> dict[str, tuple[Float64[Tensor, "batch n"], Float64[Tensor, "batch n"]]]:
    """[least, greatest] Clarke slope of every neuron around every center, by node of the tangent.

    Raises:
        NotLipschitzOnRegion: a gate's values or slopes have no bound around some center.
    """
    ends = [torch.stack(end) for end in zip(*(domain.ends for domain in domains), strict=True)]
    signals = {"": _Spread.between(*ends)}
    slopes: dict[str, tuple[Tensor, Tensor]] = {}
    for node in lowered.nodes:
        match node:
            case Affine():
                center, reach = node.bias[None], torch.zeros_like(node.bias)[None]
                for term in node.terms:
                    source = signals[term.source]
                    center = center + term.map.apply(source.center)
                    reach = reach + term.map.absolute().apply(source.reach)
                signals[node.name] = _Spread(center, reach)
            case Elementwise():
                # A function's facts are of one signal: they cost little beside the maps.
                each = list(zip(*signals[node.source].ends, strict=True))
                images = [image_of(node, pair) for pair in each]
                ranges = [node.function.slope_range_on(*pair) for pair in each]
                lower, upper = (torch.stack(end) for end in zip(*images, strict=True))
                signals[node.name] = _Spread.between(lower, upper)
                least, greatest = (torch.stack(end) for end in zip(*ranges, strict=True))
                slopes[node.name] = least, greatest
            case Product():
                left, right = signals[node.left].ends, signals[node.right].ends
                slopes |= {left_gate(node.name): right, right_gate(node.name): left}
                signals[node.name] = _Spread.between(*product_interval(left, right))
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    return slopes


def _jacobian(
    lowered: Network,
    slopes: dict[str, tuple[Float64[Tensor, "batch n"], Float64[Tensor, "batch n"]]],
    rows: Float64[Tensor, "rows outputs"],
    centers: int,
) -> Float64[Tensor, "centers rows inputs"]:
    """The greatest magnitude of every entry, by interval products."""
    start = rows.repeat(centers, 1)
    zero = start.new_zeros(len(start), lowered.input_size)
    arrived = {lowered.output: _Spread(start, torch.zeros_like(start))}

    def add(source: str, center: Tensor, reach: Tensor) -> None:
        if (known := arrived.get(source)) is not None:
            center, reach = known.center + center, known.reach + reach
        arrived[source] = _Spread(center, reach)

    for node in reversed(lowered.nodes):
        if (own := arrived.pop(node.name, None)) is None:
            continue
        match node:
            case Affine():
                for term in node.terms:
                    reach = term.map.absolute().adjoint(own.reach)
                    add(term.source, term.map.adjoint(own.center), reach)
            case Elementwise():
                least, greatest = (
                    end.repeat_interleave(len(rows), dim=0) for end in slopes[node.name]
                )
                ends = torch.stack([s * g for s in (least, greatest) for g in own.ends])
                scaled = _Spread.between(ends.amin(dim=0), ends.amax(dim=0))
                add(node.source, scaled.center, scaled.reach)
            case _:
                raise TypeError(f"node {node.name!r} is not lowered")
    last = arrived.get("", _Spread(zero, zero))
    magnitudes = last.center.abs() + last.reach
    return magnitudes.unflatten(0, (centers, len(rows)))

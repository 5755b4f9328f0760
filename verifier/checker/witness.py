"""The lower end: a pair (x, y) whose difference quotient reaches the stated value.

f(x) and f(y) are enclosed by the interval bounds of single points; from there on everything is
exact in rationals: with |f(x) - f(y)|_out at least `rise` and |x - y|_in equal to `run`,

    value <= rise / run,    compared as squares, so that l2 norms stay rational.             (1)
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval, affine_image, scaled_by
from verifier.checker.linearised import blocks_image
from verifier.checker.lowering import lowered
from verifier.checker.network import Affine, Blocks, Elementwise, Product
from verifier.checker.weighting import squared_length, squared_norm

if TYPE_CHECKING:
    from verifier.certificate import Witness
    from verifier.checker.items import Item, Selection
    from verifier.checker.network import Network
    from verifier.property import Property


def require_witness(
    witness: Witness, network: Network, asked: Property, selected: Selection
) -> None:
    """The pair lies in the region, differs only in the claim's inputs, and reaches the value.

    Raises:
        NotProved: it does not, or that is not shown.
    """
    squared = least_quotient(witness, network, asked, selected)
    # Read as its bits and as its decimal, whichever says more.
    value = max(Fraction(witness.value), Fraction(repr(witness.value)))
    if not (0 <= value and value * value <= squared):
        raise NotProved("the witness does not reach its value")


def quotient_bound(
    witness: Witness, network: Network, asked: Property, selected: Selection
) -> float:
    """The greatest float64 that the pair is shown to reach, whatever value it states.

    Raises:
        NotProved: as `require_witness`.
    """
    squared = least_quotient(witness, network, asked, selected)
    value = math.sqrt(float(squared))
    while squared < Fraction(value) ** 2:
        value = math.nextafter(value, -math.inf)
    return value


def float_below(number: Fraction) -> float:
    """The nearest float64 that is not above."""
    value = float(number)
    return math.nextafter(value, -math.inf) if number < Fraction(value) else value


def least_quotient(
    witness: Witness, network: Network, asked: Property, selected: Selection
) -> Fraction:
    """The square of a number that |f(x) - f(y)|_out / |x - y|_in is not below."""
    item = _item(witness, selected)
    steps = require_pair(witness, network, asked, selected)
    run = squared_length(steps, asked.norm)
    if run == 0:
        raise NotProved("the witness is one point")
    return squared_norm(_least_rises(witness, network, item), asked.norm.output) / run


def require_pair(
    witness: Witness, network: Network, asked: Property, selected: Selection
) -> list[Fraction]:
    """x - y, of two points of the region that differ in the claim's inputs only.

    Raises:
        NotProved: they are not.
    """
    if len(witness.x) != network.input_size or len(witness.y) != network.input_size:
        raise NotProved(f"the witness needs {network.input_size} coordinates")
    if not (asked.place.contains(witness.x) and asked.place.contains(witness.y)):
        raise NotProved("the witness is not in the region")
    steps = [Fraction(a) - Fraction(b) for a, b in zip(witness.x, witness.y, strict=True)]
    chosen = set(selected.inputs.tolist())
    if any(step != 0 for place, step in enumerate(steps) if place not in chosen):
        raise NotProved("the witness differs in an input that the claim holds fixed")
    return steps


def _item(witness: Witness, selected: Selection) -> Item:
    """The item of the claim's list that the witness is about."""
    first = selected.items[0]
    if first.output is None and first.margin is None:
        if witness.item is not None:
            raise NotProved("the witness names an item, and the claim has no list")
        return first
    if witness.item is None or not witness.item < len(selected.items):
        raise NotProved(f"the witness names item {witness.item} of {len(selected.items)}")
    return selected.items[witness.item]


def _least_rises(witness: Witness, network: Network, item: Item) -> list[Fraction]:
    """For each output of the item a number that |df| is not below."""
    values = point_values(network, np.array([witness.x, witness.y]))
    lower = [[Fraction(float(v)) for v in row] for row in values.lower]
    upper = [[Fraction(float(v)) for v in row] for row in values.upper]
    least = [a - b for a, b in zip(lower[0], upper[1], strict=True)]
    greatest = [a - b for a, b in zip(upper[0], lower[1], strict=True)]
    rises: list[Fraction] = []
    for index, weight in zip(item.rows.index, item.rows.weight, strict=True):
        low, high = Fraction(0), Fraction(0)
        for place, sign in zip(index, weight, strict=True):
            low += least[int(place)] if sign > 0 else -greatest[int(place)]
            high += greatest[int(place)] if sign > 0 else -least[int(place)]
        rises.append(max(low, -high, Fraction(0)))
    return rises


def point_values(network: Network, points: np.ndarray) -> Interval:
    """Enclosures of f at each row of points.

    Raises:
        NotProved: a value exceeds float64.
    """
    small = lowered(network, sorts="compare", keeps_blocks=True).network
    signals = {"": Interval(points, points)}
    for node in small.nodes:
        if isinstance(node, Affine):
            signals[node.name] = affine_image(node, signals)
        elif isinstance(node, Elementwise):
            entering = signals[node.source]
            ends = [
                node.function.image(low, high)
                for low, high in zip(entering.lower, entering.upper, strict=True)
            ]
            image = Interval(np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends]))
            signals[node.name] = image.required_finite(node.name)
        elif isinstance(node, Product):
            signals[node.name] = scaled_by(signals[node.left], signals[node.right])
        elif isinstance(node, Blocks):
            signals[node.name] = blocks_image(node, signals[node.source])
        else:
            raise NotProved("a group was not lowered")
    return signals[small.output]

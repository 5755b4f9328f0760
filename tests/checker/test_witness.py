from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import dense_network, evaluate
from verifier.certificate import Witness
from verifier.checker.definite import NotProved
from verifier.checker.items import selection
from verifier.checker.witness import point_values, quotient_bound, require_witness
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property
from verifier.regions import CenterBox


def squared(values: list[Fraction], norm: Norm) -> Fraction:
    match norm:
        case Norm.L1:
            return sum((abs(v) for v in values), Fraction(0)) ** 2
        case Norm.L2:
            return sum((v * v for v in values), Fraction(0))
        case Norm.LINF:
            return max(abs(v) for v in values) ** 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_proved_quotient_is_never_above_the_exact_one(family: str) -> None:
    rng = np.random.default_rng(13)
    whole = FAMILIES[family](rng)
    for given in Norm:
        for output in Norm:
            x, y = (tuple(rng.standard_normal(3).tolist()) for _ in range(2))
            asked = Property(norm=NormPair(given, output))
            found = quotient_bound(
                Witness(value=0.0, x=x, y=y), whole, asked, selection(asked, 3, 2)
            )
            points = [[Fraction(v) for v in p] for p in (x, y)]
            f, g = (evaluate(whole, p)["y"] for p in points)
            rise = squared([a - b for a, b in zip(f, g, strict=True)], output)
            run = squared([a - b for a, b in zip(*points, strict=True)], given)
            assert Fraction(found) ** 2 * run <= rise
            assert math.sqrt(rise / run) * (1 - 1e-9) <= found


def plain() -> tuple[Witness, Property]:
    return Witness(value=1.0, x=(1.0, 0.0), y=(0.0, 0.0)), Property()


def test_a_quotient_is_reached_up_to_rounding() -> None:
    witness, asked = plain()
    less = Witness(value=1 - 1e-14, x=witness.x, y=witness.y)
    require_witness(less, dense_network([np.eye(2)]), asked, selection(asked, 2, 2))


@pytest.mark.parametrize("value", [math.nextafter(1.0, 2.0), 2.0, math.nan, math.inf, -1.0])
def test_a_value_that_is_not_reached_is_refuted(value: float) -> None:
    witness, asked = plain()
    lying = Witness(value=value, x=witness.x, y=witness.y)
    with pytest.raises((NotProved, ValueError, OverflowError)):
        require_witness(lying, dense_network([np.eye(2)]), asked, selection(asked, 2, 2))


def test_a_pair_outside_the_region_is_refuted() -> None:
    witness, _ = plain()
    asked = Property(
        scope="local", region=CenterBox(center=(0.0, 0.0), radius=math.nextafter(1.0, 0.0))
    )
    with pytest.raises(NotProved, match="not in the region"):
        require_witness(witness, dense_network([np.eye(2)]), asked, selection(asked, 2, 2))


def test_a_pair_that_moves_a_fixed_input_is_refuted() -> None:
    witness, _ = plain()
    asked = Property(inputs=Indices((1,)))
    with pytest.raises(NotProved, match="holds fixed"):
        require_witness(witness, dense_network([np.eye(2)]), asked, selection(asked, 2, 2))


def test_a_witness_of_a_list_names_its_item() -> None:
    whole = dense_network([np.array([[1.0, 0.0], [3.0, 0.0]])])
    x, y = (1.0, 0.0), (0.0, 0.0)
    each, margins = Property(outputs=Each()), Property(outputs=Margins(None))
    for asked, item, value in ((each, 0, 1.0), (each, 1, 3.0), (margins, 0, 2.0)):
        chosen = selection(asked, 2, 2)
        less = value * (1 - 1e-14)
        require_witness(Witness(value=less, x=x, y=y, item=item), whole, asked, chosen)
        for wrong in (None, 2):
            with pytest.raises(NotProved):
                require_witness(Witness(value=0.5, x=x, y=y, item=wrong), whole, asked, chosen)
        above = Witness(value=math.nextafter(value, 9.0), x=x, y=y, item=item)
        with pytest.raises(NotProved):
            require_witness(above, whole, asked, chosen)


def test_values_of_points_are_enclosed() -> None:
    rng = np.random.default_rng(14)
    whole = FAMILIES["residual"](rng)
    points = rng.standard_normal((3, 3))
    values = point_values(whole, points)
    for place, point in enumerate(points):
        exact = evaluate(whole, [Fraction(float(v)) for v in point])["y"]
        for low, value, high in zip(values.lower[place], exact, values.upper[place], strict=True):
            assert Fraction(float(low)) <= value <= Fraction(float(high))

"""Functions that are not defined everywhere: facts on intervals of their domains, else none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from verifier.network.activations.arcs import Cosh, Sinh
from verifier.network.activations.restricted import Exp, Log, Power, Restricted

POSITIVE = ((0.0625, 0.0625), (0.0625, 3.0), (0.5, 0.75), (1.0, 1.0), (1.0, 20.0), (7.0, 7.5))
NEGATIVE = tuple((-high, -low) for low, high in POSITIVE)
ACROSS = ((-2.0, 3.0), (-1.0, 0.0), (0.0, 1.0), (0.0, 0.0))

CASES: dict[str, tuple[Callable[[int], Restricted], tuple[tuple[float, float], ...]]] = {
    "exp": (Exp, POSITIVE + NEGATIVE + ACROSS),
    "cosh": (Cosh, POSITIVE + NEGATIVE + ACROSS),
    "sinh": (Sinh, POSITIVE + NEGATIVE + ACROSS),
    "log": (Log, POSITIVE),
    "square": (lambda n: Power(n, 2.0), POSITIVE + NEGATIVE + ACROSS),
    "cube": (lambda n: Power(n, 3.0), POSITIVE + NEGATIVE + ACROSS),
    "reciprocal": (lambda n: Power(n, -1.0), POSITIVE + NEGATIVE),
    "inverse square": (lambda n: Power(n, -2.0), POSITIVE + NEGATIVE),
    "root": (lambda n: Power(n, 0.5), POSITIVE),
    "inverse root": (lambda n: Power(n, -0.5), POSITIVE),
    "three halves": (lambda n: Power(n, 1.5), (*POSITIVE, (0.0, 1.0), (0.0, 0.0))),
}
every_case = pytest.mark.parametrize("name", CASES)


def _ends(name: str) -> tuple[Restricted, torch.Tensor, torch.Tensor, torch.Tensor]:
    make, intervals = CASES[name]
    lower, upper = torch.tensor(intervals, dtype=torch.float64).T.contiguous()
    share = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    return make(len(intervals)), lower, upper, lower + (upper - lower) * share


@every_case
def test_values_and_slopes_lie_within_and_reach_the_ends(name: str) -> None:
    function, lower, upper, inside = _ends(name)
    for found, values in (
        (function.image(lower, upper), function.forward(inside)),
        (function.slope_range_on(lower, upper), function.derivative(inside)),
    ):
        room = 1e-12 * (1 + values.abs().amax(dim=0))
        assert (found[0] - room <= values).all()
        assert (values <= found[1] + room).all()
        assert torch.isfinite(torch.stack(found)).all()
        width = values.amax(dim=0) - values.amin(dim=0)
        assert (found[1] - found[0] <= width + room + 0.05 * width).all()


@every_case
def test_lines_hold(name: str) -> None:
    function, lower, upper, inside = _ends(name)
    below, least, above, greatest = function.relaxation(lower, upper)
    values = function.forward(inside)
    room = 1e-12 * (1 + values.abs() + (below * inside).abs() + (above * inside).abs())
    assert (below * inside + least <= values + room).all()
    assert (values <= above * inside + greatest + room).all()


@pytest.mark.parametrize(
    ("function", "lower", "upper"),
    [
        (Log(1), 0.0, 1.0),
        (Log(1), -1.0, 1.0),
        (Power(1, 0.5), 0.0, 1.0),
        (Power(1, 0.5), -1.0, 2.0),
        (Power(1, -1.0), -1.0, 1.0),
        (Power(1, -1.0), 0.0, 1.0),
        (Power(1, -2.0), -1.0, 0.0),
        (Power(1, 1.5), -1.0, 1.0),
        (Exp(1), 0.0, 800.0),
    ],
)
def test_beyond_the_domain_nothing_is_known(
    function: Restricted, lower: float, upper: float
) -> None:
    ends = torch.tensor([lower]).double(), torch.tensor([upper]).double()
    flat = torch.zeros(1, dtype=torch.float64)
    for least, greatest in (
        function.image(*ends),
        function.slope_range_on(*ends),
        function.offsets(*ends, flat, flat),
    ):
        assert (float(least), float(greatest)) == (-math.inf, math.inf)


@every_case
def test_no_slope_holds_everywhere(name: str) -> None:
    lower, upper = CASES[name][0](2).slope_range()
    assert lower.tolist() == [-math.inf] * 2
    assert upper.tolist() == [math.inf] * 2

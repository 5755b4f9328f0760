"""The facts of every activation: one battery, which an activation joins by one line.

Points are k/16 and slopes k/8, small: for a function of straight pieces every product and sum
below is exact in float64, and no tolerance is given. Curved functions are values of a library,
right to a few units in the last place: `ROUNDING` allows for these, and for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64
from torch import Tensor

import verifier.network.elementwise as catalogue
from tests.oracles import run_node
from verifier.checker import scalars
from verifier.network.activations.piecewise import Piecewise
from verifier.network.elementwise import (
    Abs,
    Asinh,
    Atan,
    Bent,
    Celu,
    Clip,
    Confined,
    Cos,
    Elu,
    Erf,
    Gelu,
    GeluTanh,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    LogSigmoid,
    Mish,
    PRelu,
    Relu,
    RootOfSquare,
    Scaled,
    Selu,
    Sigmoid,
    Silu,
    Sin,
    Softplus,
    SoftShrink,
    Softsign,
    Tanh,
)

ROUNDING = 2.0**-50
#: Not defined everywhere: in test_restricted, and what is known to lie somewhere below.
RESTRICTED = {"Cosh", "Exp", "Log", "Power", "Sinh", "Confined"}
SELU = (1.67326319217681884765625, 1.05070102214813232421875)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An activation, and what is known about it from elsewhere."""

    name: str
    make: Callable[[int], Piecewise]  #: of so many entries
    value: Callable[[float], float]  #: by Python's mathematics
    slopes: tuple[float, float]  #: the published slope range
    op: str | None = None  #: the ONNX operator, in opset 22
    attributes: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    constants: tuple[float, ...] = ()  #: the operator's further inputs
    straight: bool = False  #: made of straight pieces

    def __str__(self) -> str:
        return self.name


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if 0 <= x else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _gelu_tanh(x: float) -> float:
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


CASES = (
    Case(name="abs", make=Abs, value=abs, slopes=(-1, 1), op="Abs", straight=True),
    Case(
        name="relu",
        make=Relu,
        value=lambda x: max(x, 0.0),
        slopes=(0, 1),
        op="Relu",
        straight=True,
    ),
    Case(
        name="leaky",
        make=lambda n: LeakyRelu(n, 0.125),
        value=lambda x: max(x, x / 8),
        slopes=(0.125, 1),
        op="LeakyRelu",
        attributes={"alpha": 0.125},
        straight=True,
    ),
    Case(
        name="leaky-falling",
        make=lambda n: LeakyRelu(n, -0.5),
        value=lambda x: max(x, -x / 2),
        slopes=(-0.5, 1),
        op="LeakyRelu",
        attributes={"alpha": -0.5},
        straight=True,
    ),
    Case(
        name="bent",
        make=lambda n: Bent(n, 0.5, -1.0, -2.0, 0.25),
        value=lambda x: -2 * x if x < 0.5 else x / 4 - 1.125,
        slopes=(-2, 0.25),
        straight=True,
    ),
    Case(
        name="prelu-steep",
        make=lambda n: PRelu(n, torch.full((n,), 2.0, dtype=torch.float64)),
        value=lambda x: min(x, 2 * x),
        slopes=(1, 2),
        op="PRelu",
        constants=(2.0,),
        straight=True,
    ),
    Case(
        name="clip",
        make=lambda n: Clip(n, -1.0, 2.0),
        value=lambda x: min(max(x, -1.0), 2.0),
        slopes=(0, 1),
        op="Clip",
        constants=(-1.0, 2.0),
        straight=True,
    ),
    Case(
        name="soft-shrink",
        make=lambda n: SoftShrink(n, 0.5),
        value=lambda x: math.copysign(max(abs(x) - 0.5, 0.0), x),
        slopes=(0, 1),
        op="Shrink",
        attributes={"bias": 0.5, "lambd": 0.5},
        straight=True,
    ),
    Case(
        name="clip-below",
        make=lambda n: Clip(n, 0.5, math.inf),
        value=lambda x: max(x, 0.5),
        slopes=(0, 1),
        op="Clip",
        constants=(0.5,),
        straight=True,
    ),
    Case(
        name="hard-sigmoid",
        make=lambda n: HardSigmoid(n, 0.25, 0.5),
        value=lambda x: min(max(x / 4 + 0.5, 0.0), 1.0),
        slopes=(0, 0.25),
        op="HardSigmoid",
        attributes={"alpha": 0.25, "beta": 0.5},
        straight=True,
    ),
    Case(name="atan", make=Atan, value=math.atan, slopes=(0, 1), op="Atan"),
    Case(name="asinh", make=Asinh, value=math.asinh, slopes=(0, 1), op="Asinh"),
    Case(name="tanh", make=Tanh, value=math.tanh, slopes=(0, 1), op="Tanh"),
    Case(name="sigmoid", make=Sigmoid, value=_sigmoid, slopes=(0, 0.25), op="Sigmoid"),
    Case(name="softplus", make=Softplus, value=_softplus, slopes=(0, 1), op="Softplus"),
    Case(name="erf", make=Erf, value=math.erf, slopes=(0, 1.128379167096), op="Erf"),
    Case(
        name="softsign",
        make=Softsign,
        value=lambda x: x / (1 + abs(x)),
        slopes=(0, 1),
        op="Softsign",
    ),
    Case(
        name="gelu-doubled",
        make=lambda n: Scaled(n, Gelu(n), 2.0),
        value=lambda x: x * math.erfc(-x / math.sqrt(2)),
        slopes=(-0.25780829037, 2.25780829037),
    ),
    Case(
        name="gelu",
        make=Gelu,
        value=lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
        slopes=(-0.128904145185, 1.128904145185),
        op="Gelu",
    ),
    Case(
        name="gelu-tanh",
        make=GeluTanh,
        value=_gelu_tanh,
        slopes=(-0.128993068659, 1.128993068659),
        op="Gelu",
        attributes={"approximate": "tanh"},
    ),
    Case(
        name="silu",
        make=Silu,
        value=lambda x: x * _sigmoid(x),
        slopes=(-0.099839320129, 1.099839320129),
    ),
    Case(
        name="quick-gelu",
        make=lambda n: Silu(n, 1.702),
        value=lambda x: x * _sigmoid(1.702 * x),
        slopes=(-0.099839320129, 1.099839320129),
    ),
    Case(
        name="mish",
        make=Mish,
        value=lambda x: x * math.tanh(_softplus(x)),
        slopes=(-0.112526122389, 1.088498161252),
        op="Mish",
    ),
    Case(
        name="hard-swish",
        make=HardSwish,
        value=lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
        slopes=(-0.5, 1.5),
        op="HardSwish",
    ),
    Case(
        name="elu",
        make=lambda n: Elu(n, 1.0),
        value=lambda x: x if 0 < x else math.expm1(x),
        slopes=(0, 1),
        op="Elu",
    ),
    Case(
        name="elu-kinked",
        make=lambda n: Elu(n, 2.0),
        value=lambda x: x if 0 < x else 2 * math.expm1(x),
        slopes=(0, 2),
        op="Elu",
        attributes={"alpha": 2.0},
    ),
    Case(
        name="elu-falling",
        make=lambda n: Elu(n, -0.5),
        value=lambda x: x if 0 < x else -0.5 * math.expm1(x),
        slopes=(-0.5, 1),
        op="Elu",
        attributes={"alpha": -0.5},
    ),
    Case(
        name="selu",
        make=lambda n: Selu(n, *SELU),
        value=lambda x: SELU[1] * (x if 0 < x else SELU[0] * math.expm1(x)),
        slopes=(0, 1.758099346343),
        op="Selu",
    ),
    Case(
        name="celu",
        make=lambda n: Celu(n, 0.5),
        value=lambda x: x if 0 < x else math.expm1(2 * x) / 2,
        slopes=(0, 1),
        op="Celu",
        attributes={"alpha": 0.5},
    ),
    Case(
        name="log-sigmoid",
        make=LogSigmoid,
        value=lambda x: -_softplus(-x),
        slopes=(0, 1),
    ),
    Case(
        name="root-of-square",
        make=lambda n: RootOfSquare(n, 0.25, 2.0),
        value=lambda x: math.sqrt(2 + x * x / 4),
        slopes=(-0.5, 0.5),
    ),
    Case(
        name="silu-turned",
        make=lambda n: Scaled(n, Silu(n), -2.0, -1.0),
        value=lambda x: 2 * x * _sigmoid(-x),
        slopes=(-0.199678640258, 2.199678640258),
    ),
    Case(name="sin", make=Sin, value=math.sin, slopes=(-1, 1), op="Sin"),
    Case(name="cos", make=Cos, value=math.cos, slopes=(-1, 1), op="Cos"),
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)
straight_cases = pytest.mark.parametrize("case", [case for case in CASES if case.straight], ids=str)

POINT = st.integers(-64, 64).map(lambda k: k / 16)  # lands on kinks, corners and equal pairs


def _rounding(case: Case) -> float:
    return 0.0 if case.straight else ROUNDING


def _intervals() -> tuple[Float64[Tensor, " intervals"], Float64[Tensor, " intervals"]]:
    """All [l, u] between some points, single points included: kinks, corners, far ends."""
    points = [-64, -9, -4, -3, -2.25, -2, -1, -0.5, 0, 0.0625, 0.5, 1, 1.5, 2, 3, 4.5, 8, 32]
    pairs = [(low, high) for low in points for high in points if low <= high]
    lower, upper = torch.tensor(pairs, dtype=torch.float64).T
    return lower.contiguous(), upper.contiguous()


LOWER, UPPER = _intervals()
GRID = 256  #: steps of a grid within an interval: dyadic, so that its points are


def _grid() -> Float64[Tensor, "steps intervals"]:
    steps = torch.arange(GRID + 1, dtype=torch.float64)[:, None] / GRID
    return LOWER + steps * (UPPER - LOWER)


INSIDE = _grid()


def _of(case: Case) -> Piecewise:
    return case.make(LOWER.shape[0])


@dataclass(frozen=True)
class Outline:
    """A function on the grid of every interval."""

    slope: Float64[Tensor, " intervals"]
    heights: Float64[Tensor, "steps intervals"]  #: f(x) - slope x
    allowed: Float64[Tensor, " intervals"]  #: how much of a height may be rounding


def _outline(case: Case, slope: Float64[Tensor, " intervals"]) -> Outline:
    values = _of(case).forward(INSIDE)
    # k/2^20 times a small dyadic number is exact; a chord of any other slope was rounded.
    is_exact = (slope * 2**20 == (slope * 2**20).round()) & case.straight
    scale = (values.abs() + (slope * INSIDE).abs()).amax(dim=0)
    allowed = torch.where(is_exact, 0.0, ROUNDING * scale)
    return Outline(slope, values - slope * INSIDE, allowed)


def _subclasses(root: type) -> set[type]:
    below = {kind for child in root.__subclasses__() for kind in _subclasses(child)}
    return below | {root}


def test_every_activation_is_in_the_battery() -> None:
    """A class that is exported or written, and not tested here, is red."""
    tested = {type(case.make(1)) for case in CASES}
    written = {
        kind for kind in _subclasses(Piecewise) if not getattr(kind, "__abstractmethods__", None)
    }
    # A slotted dataclass leaves the class that it was made from behind: compare by name.
    names = {kind.__name__ for kind in tested} | RESTRICTED
    assert {kind.__name__ for kind in written} == names
    assert names | {"Activation"} == set(catalogue.__all__)


def test_what_is_confined_has_one_slope_and_its_part_of_the_interval() -> None:
    ends = torch.tensor([[-3.0, -0.5, 2.0], [-2.0, 4.0, 3.0]], dtype=torch.float64)
    known = Confined(3, -1.0, 1.0)
    assert [end.tolist() for end in known.image(*ends)] == [[-1, -0.5, 1], [-1, 1, 1]]
    assert all(bool((end == 1).all()) for end in known.slope_range_on(*ends))
    theirs = scalars.Confined(least=-1.0, greatest=1.0)
    found = theirs.image(ends[0].numpy(), ends[1].numpy())
    assert [end.tolist() for end in found] == [[-1, -0.5, 1], [-1, 1, 1]]
    assert all(np.all(end == 1) for end in theirs.slope_range(3))


@pytest.mark.parametrize("case", [case for case in CASES if case.op], ids=str)
def test_forward_equals_onnxruntime(case: Case) -> None:
    points = torch.arange(-128, 129, dtype=torch.float64)[None] / 16
    theirs = run_node(str(case.op), points.numpy(), case.constants, case.attributes)
    ours = case.make(points.shape[1]).forward(points).numpy()
    assert np.allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@every_case
def test_forward_is_the_formula(case: Case) -> None:
    values = _of(case).forward(INSIDE)
    expected = torch.tensor(
        [[case.value(x) for x in row] for row in INSIDE.tolist()], dtype=torch.float64
    )
    assert ((values - expected).abs() <= _rounding(case) * (1 + expected.abs())).all()


@every_case
def test_image_contains_values_and_is_reached(case: Case) -> None:
    least, greatest = _of(case).image(LOWER, UPPER)
    values = _of(case).forward(INSIDE)
    assert (least - _rounding(case) <= values).all()
    assert (values <= greatest + _rounding(case)).all()
    # Between points of the grid a function moves by less than its steepest slope, 2.
    step = 2 * (UPPER - LOWER) / GRID
    assert (values.amin(dim=0) <= least + step).all()
    assert (greatest - step <= values.amax(dim=0)).all()


@every_case
@settings(max_examples=20)
@given(x=POINT, y=POINT)
def test_slope_range_holds_every_secant(case: Case, x: float, y: float) -> None:
    ends = torch.tensor([[min(x, y)], [max(x, y)]], dtype=torch.float64)
    function = case.make(1)
    left, right = function.forward(ends).flatten().tolist()
    rise = Fraction(right) - Fraction(left)
    run = Fraction(max(x, y)) - Fraction(min(x, y))
    allowed = Fraction(_rounding(case)) * (1 + abs(Fraction(left)) + abs(Fraction(right)))
    for least, greatest in (function.slope_range(), function.slope_range_on(ends[0], ends[1])):
        assert Fraction(least.item()) * run <= rise + allowed
        assert rise <= Fraction(greatest.item()) * run + allowed


@every_case
def test_quadratic_constraint_holds(case: Case) -> None:
    """0 <= (df - a dx)(b dx - df) for all pairs of points of every interval's grid row."""
    values = _of(case).forward(INSIDE)
    dx, df = INSIDE - INSIDE.flip(1), values - values.flip(1)
    least, greatest = _of(case).slope_range()
    allowed = _rounding(case) * (dx.abs() + df.abs() + 1) ** 2
    assert (-allowed <= (df - least * dx) * (greatest * dx - df)).all()


@every_case
def test_slope_range_is_the_published_one(case: Case) -> None:
    least, greatest = (end[0].item() for end in case.make(3).slope_range())
    assert math.isclose(least, case.slopes[0], rel_tol=0, abs_tol=1e-12)
    assert math.isclose(greatest, case.slopes[1], rel_tol=0, abs_tol=1e-12)


@every_case
def test_slope_range_is_reached_within_each_interval(case: Case) -> None:
    """Some short secant is as steep as each end of the range, up to the length of a step."""
    narrow = UPPER - LOWER <= 8
    least, greatest = _of(case).slope_range_on(LOWER, UPPER)
    values = _of(case).forward(INSIDE)
    slopes = (values[1:] - values[:-1]) / (INSIDE[1:] - INSIDE[:-1])
    steep = torch.where(LOWER < UPPER, slopes.nan_to_num(), least)
    step = 3 * (UPPER - LOWER) / GRID
    assert (steep.amin(dim=0) <= least + step)[narrow & ~_kink_at_an_end(case)].all()
    assert (greatest - step <= steep.amax(dim=0))[narrow & ~_kink_at_an_end(case)].all()


def _kink_at_an_end(case: Case) -> Float64[Tensor, " intervals"]:
    """Whether an end is a kink: one of its two slopes is no secant of the interval."""
    return sum(
        (left != right for left, right in map(_of(case).sides, (LOWER, UPPER))),
        torch.zeros_like(LOWER, dtype=torch.bool),
    ).bool()


@every_case
def test_slopes_on_a_point_are_both_sides(case: Case) -> None:
    """The closed interval [k, k] at a kink has all slopes between the two sides."""
    function = _of(case)
    least, greatest = function.slope_range_on(LOWER, LOWER)
    left, right = function.sides(LOWER)
    assert torch.equal(least, torch.minimum(left, right))
    assert torch.equal(greatest, torch.maximum(left, right))


@every_case
def test_relaxation_holds_and_touches(case: Case) -> None:
    below, least, above, greatest = _of(case).relaxation(LOWER, UPPER)
    _assert_lines_hold_and_touch(case, below, least, above, greatest)


@every_case
@pytest.mark.parametrize("eighths", [(-12, 12), (0, 0), (1, 7), (8, -1), (5, 4), (-3, 2)])
def test_offsets_hold_and_touch_for_any_slopes(case: Case, eighths: tuple[int, int]) -> None:
    below, above = (torch.full_like(LOWER, k / 8) for k in eighths)
    least, greatest = _of(case).offsets(LOWER, UPPER, below, above)
    _assert_lines_hold_and_touch(case, below, least, above, greatest)


def _assert_lines_hold_and_touch(
    case: Case,
    below: Float64[Tensor, " intervals"],
    least: Float64[Tensor, " intervals"],
    above: Float64[Tensor, " intervals"],
    greatest: Float64[Tensor, " intervals"],
) -> None:
    under, over = _outline(case, below), _outline(case, above)
    assert (least - under.allowed <= under.heights).all()
    assert (over.heights <= greatest + over.allowed).all()
    step = 2 * (2 + below.abs() + above.abs()) * (UPPER - LOWER) / GRID
    assert (under.heights.amin(dim=0) <= least + under.allowed + step).all()
    assert (greatest - over.allowed - step <= over.heights.amax(dim=0)).all()


@every_case
def test_relaxation_has_the_least_area(case: Case) -> None:
    """No line of a fan of slopes is closer to the function at the middle of the interval."""
    function, middle = _of(case), (LOWER + UPPER) / 2
    below, least, above, greatest = function.relaxation(LOWER, UPPER)
    flattest, steepest = function.slope_range_on(LOWER, UPPER)
    fan = flattest + (steepest - flattest) * torch.linspace(0, 1, 97, dtype=torch.float64)[:, None]
    lower, upper = LOWER.expand_as(fan), UPPER.expand_as(fan)
    lowest, highest = function.offsets(lower, upper, fan, fan)
    slack = 1e-6 * (UPPER - LOWER) + ROUNDING * 64
    assert (fan * middle + lowest <= below * middle + least + slack).all()
    assert (above * middle + greatest - slack <= fan * middle + highest).all()


@straight_cases
def test_a_straight_piece_is_its_own_relaxation(case: Case) -> None:
    function = _of(case)
    below, least, above, greatest = function.relaxation(LOWER, UPPER)
    flattest, steepest = function.slope_range_on(LOWER, UPPER)
    straight = flattest == steepest
    assert torch.equal(below[straight], above[straight])
    assert torch.equal(least[straight], greatest[straight])


@every_case
def test_rows_of_a_batch_do_not_mix(case: Case) -> None:
    shape = (3, 19, 3)
    lower, upper = (
        LOWER[: math.prod(shape)].reshape(shape),
        UPPER[: math.prod(shape)].reshape(shape),
    )
    batched, flat = case.make(3), case.make(math.prod(shape))
    ours = batched.relaxation(lower, upper)
    alone = flat.relaxation(lower.flatten(), upper.flatten())
    for together, single in zip(ours, alone, strict=True):
        assert torch.equal(together, single.reshape(shape))


@every_case
def test_offsets_know_their_gradient(case: Case) -> None:
    """The offset's derivative in the slope is minus the touching point (Danskin)."""
    lower, upper = (torch.full((1,), end, dtype=torch.float64) for end in (-2.5, 1.25))
    slope = torch.full((1,), 0.21875, dtype=torch.float64, requires_grad=True)
    function = case.make(1)
    least, _ = function.offsets(lower, upper, slope, slope)
    least.sum().backward()
    assert slope.grad is not None
    touch = -slope.grad
    height = function.forward(touch) - slope.detach() * touch
    assert torch.allclose(height, least.detach(), rtol=0, atol=1e-12)


def test_prelu_has_a_slope_for_every_entry() -> None:
    function = PRelu(3, torch.tensor([0.25, -1.0, 2.0], dtype=torch.float64))
    ends = torch.tensor([[-2.0] * 3, [2.0] * 3], dtype=torch.float64)
    least, greatest = function.slope_range()
    assert torch.equal(least, torch.tensor([0.25, -1.0, 1.0], dtype=torch.float64))
    assert torch.equal(greatest, torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    assert torch.equal(
        function.forward(ends),
        torch.tensor([[-0.5, 2.0, -4.0], [2.0, 2.0, 2.0]], dtype=torch.float64),
    )


def test_relu_takes_the_lower_line_of_the_longer_side() -> None:
    lower = torch.tensor([-1.0, -2.0, -1.0], dtype=torch.float64)
    upper = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)
    below, *_ = Relu(3).relaxation(lower, upper)
    assert below.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Clip(1, 2.0, 1.0),
        lambda: HardSigmoid(1, 0.0, 0.5),
        lambda: Silu(1, -1.0),
        lambda: Celu(1, 0.0),
    ],
)
def test_parameters_without_a_meaning_are_refused(wrong: Callable[[], Piecewise]) -> None:
    with pytest.raises(ValueError, match=r"is expected|are crossed"):
        wrong()


def test_gelu_slope_exceeds_one() -> None:
    """[0, 1] for GELU is a false claim."""
    ends = torch.tensor([1.375, 1.4375], dtype=torch.float64)
    left, right = Gelu(2).forward(ends).tolist()
    assert 1.128 < (right - left) / 0.0625


def test_branches_meet_at_zero() -> None:
    """0 belongs to both sides of ReLU: no slab of width epsilon belongs to none."""
    zero = torch.zeros(1, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    for lower, upper in ((zero, one), (-one, zero), (zero, zero)):
        least, greatest = Relu(1).slope_range_on(lower, upper)
        assert (least.item(), greatest.item()) == (0.0, 1.0)

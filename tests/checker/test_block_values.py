"""What is known of blocks over a box, behind a map that mixes entries: exact values lie within."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from tests.blocks import log_softmax, rooted, softmax
from tests.exact import Exact, fractions, growth_below, sqrt_below
from verifier.certificate import ForwardProof, PropagationProof
from verifier.checker.followed import followed
from verifier.checker.forward import forward_walk
from verifier.checker.items import selection
from verifier.checker.lowering import lowered
from verifier.checker.maps import Dense
from verifier.checker.network import Affine, BlockFunction, Blocks, Network, Term
from verifier.checker.normalise import Normalise
from verifier.checker.propagation import prove_propagation
from verifier.checker.softmax import LogSoftmax, Softmax
from verifier.checker.substitution import Substitution
from verifier.norms import Norm, NormPair
from verifier.property import Property
from verifier.regions import CenterBox

EPSILON = 0.03125
INPUTS, GROUPS = 3, 2
KINDS = ("softmax", "log-softmax", "mean")
WHOLE = Fraction(1, 2**40)  #: of the steps of secants


@dataclass(frozen=True)
class Case:
    """x -> B f(A x) with blocks f of so many entries, and a box."""

    kind: str
    width: int
    before: np.ndarray
    after: np.ndarray
    center: tuple[float, ...]
    radius: float

    @property
    def region(self) -> CenterBox:
        """The box."""
        return CenterBox(center=self.center, radius=self.radius)

    @property
    def function(self) -> BlockFunction:
        """The function f of a group."""
        match self.kind:
            case "softmax":
                return Softmax()
            case "log-softmax":
                return LogSoftmax()
            case _:
                divisor = float(self.width)
                return Normalise(name="z", epsilon=EPSILON, form="root", divisor=divisor)

    @property
    def network(self) -> Network:
        """The checker's picture of it."""
        size = GROUPS * self.width
        groups = np.random.default_rng(self.width).permutation(size).reshape(GROUPS, -1)
        nodes = (
            _affine("v", "", self.before),
            Blocks(name="z", size=size, source="v", groups=groups, function=self.function),
            _affine("y", "z", self.after),
        )
        sizes = {"": INPUTS, "v": size, "z": size, "y": len(self.after)}
        return Network(
            input_size=INPUTS, output="y", output_size=sizes["y"], nodes=nodes, tensors=sizes
        )

    @property
    def groups(self) -> np.ndarray:
        """Which entries belong together."""
        block = self.network.nodes[1]
        assert isinstance(block, Blocks)
        return block.groups

    def points(self, count: int) -> list[Exact]:
        """Corners and others."""
        rng = np.random.default_rng(1)
        shares = [rng.uniform(-1, 1, INPUTS) for _ in range(count)]
        shares += [np.sign(rng.normal(size=INPUTS)) for _ in range(count)]
        center, radius = fractions(np.array(self.center)), Fraction(self.radius)
        return [center + radius * fractions(share) for share in shares]

    def values(self, v: Exact) -> Exact:
        """Of f."""
        found = v.copy()
        for group in self.groups:
            row = v[group]
            match self.kind:
                case "softmax":
                    found[group] = softmax(row)
                case "log-softmax":
                    found[group] = log_softmax(row)
                case _:
                    found[group] = rooted(Fraction(EPSILON), 0)(row)
        return found


def _affine(name: str, source: str, weight: np.ndarray) -> Affine:
    zero = np.zeros(len(weight))
    terms = (Term(source, Dense(weight)),)
    return Affine(name=name, size=len(weight), terms=terms, bias=zero, bias_error=zero)


def case(kind: str, seed: int) -> Case:
    """Boxes from thin to wide; of every other case what enters the groups has no mean."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 5))
    before = rng.integers(-16, 17, (GROUPS * width, INPUTS)) / 8.0
    if seed % 2 and 1 < width:
        before -= np.rint(before.mean(axis=0) * 8) / 8
    center = tuple((rng.integers(-16, 17, INPUTS) / 8).tolist())
    return Case(
        kind=kind,
        width=width,
        before=before,
        after=rng.integers(-8, 9, (2, GROUPS * width)) / 4.0,
        center=center,
        radius=float(2.0 ** rng.integers(-12, 2)),
    )


def walked(given: Case) -> Substitution:
    network = given.network
    small = lowered(network, sorts="compare", keeps_blocks=True)
    walk = forward_walk(network, small, given.region, ForwardProof(technique="linear"))
    followed(small.network, walk)
    return walk


def within(node: Affine, source: Exact, value: Exact) -> None:
    """The node's A x + b, its error included, is the value."""
    (term,) = node.terms
    rows = fractions(term.map.backward(np.eye(node.size)))
    off = value - rows @ source - fractions(node.bias)
    assert all(abs(off) <= fractions(node.bias_error))


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("kind", KINDS)
def test_values_lie_around_their_lines_and_within_their_bounds(kind: str, seed: int) -> None:
    given = case(kind, seed)
    walk = walked(given)
    nodes = {node.name: node for node in walk.nodes}
    for x in given.points(3):
        v = fractions(given.before) @ x
        z = given.values(v)
        known = {"z": z}
        if "z\0inverse" in nodes:
            known["z\0inverse"] = _inverse(given, v)
        for name, value in known.items():
            node, bounds = nodes[name], walk.signals[name]
            assert isinstance(node, Affine)
            within(node, v, value)
            assert all(fractions(bounds.lower[0]) <= value)
            assert all(value <= fractions(bounds.upper[0]))


def _inverse(given: Case, v: Exact) -> Exact:
    """1/s of each entry's group."""
    found = v.copy()
    for group in given.groups:
        squares = sum(v[group] * v[group], Fraction(0)) / len(group)
        found[group] = 1 / sqrt_below(squares + Fraction(EPSILON))
    return found


@pytest.mark.parametrize("technique", ["interval", "linear", "joint"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_no_bound_is_below_a_secant(kind: str, seed: int, technique: str) -> None:
    given = case(kind, seed)
    norm = (Norm.L2, Norm.LINF, Norm.L1)[seed % 3]
    asked = Property(scope="local", norm=NormPair(norm, norm), region=given.region)
    network = given.network
    proof = PropagationProof(
        patterns=(),
        forward=ForwardProof(technique="interval" if technique == "interval" else "linear"),
        technique=technique,  # pyright: ignore[reportArgumentType] (one of the three)
    )
    chosen = selection(asked, INPUTS, network.output_size)
    (bound,) = prove_propagation(proof, network, asked, chosen)
    after = fractions(given.after)
    for x in given.points(2):
        center = fractions(np.array(given.center))
        step = (center - x) * WHOLE
        if not any(step):
            continue
        ends = [after @ given.values(fractions(given.before) @ at) for at in (x, x + step)]
        assert growth_below(ends[1] - ends[0], step, (norm.value, norm.value)) <= bound.upper()

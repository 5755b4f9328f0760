"""Functions that jump by little: refused, or on request the continuous one next to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.onnx_import.graphs import model, node, run, serialised
from tests.onnx_import.test_second_order_mirrors import PI, second
from tests.onnx_import.test_second_order_mirrors import folded as numbers_of
from tests.onnx_import.test_turned_mirrors import HALF, mirror
from verifier import check, parse_request, verify
from verifier.certificate import Certificate, Idealised, Pattern
from verifier.checker.graph import read_network
from verifier.errors import DiscontinuousOp, PatternRefuted
from verifier.onnx_import import load
from verifier.property import Reading

NUMBERS = {
    "t": np.array(20.0, np.float32),
    "low": np.array(4.0, np.float32),
    "k": np.array(2.0, np.float32),
}


def folded(off: float = 0.0) -> bytes:
    """A mirror by numbers, of which one may be wrong."""
    sines, cosines = np.sin(HALF), np.cos(HALF)
    turned = np.sin(2 * HALF) + np.float32(off), np.cos(2 * HALF)
    return mirror(sh=sines, ch=cosines, st=turned[0], ct=turned[1])


def softplus(*, steep: bool, divisor: str = "k", limit: str = "t") -> bytes:
    """Softplus of k x, over k, and x itself where k x is above the limit."""
    scaled = "s" if steep else "x"
    nodes = [
        node("Mul", ["x", "k"], ["s"]),
        node("Softplus", [scaled], ["p"]),
        node("Div", ["p", divisor], ["q"]),
        node("Greater", [scaled, limit], ["g"]),
        node("Where", ["g", "x", "q" if steep else "p"], ["y"]),
    ]
    return model(nodes, NUMBERS)


FILES: Mapping[str, bytes] = {
    "softplus": softplus(steep=False),
    "a steep softplus": softplus(steep=True),
    "a folded mirror": folded(),
    "folded cones": second(**numbers_of()),
}
PATTERNS = {"a folded mirror": "folded-mirror", "folded cones": "folded-second-order-mirror"}


def certified(data: bytes, semantics: str = "real-idealised") -> Certificate:
    return verify(data, parse_request({"method": "product", "semantics": semantics}))


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_unless_it_is_asked_for(name: str) -> None:
    with pytest.raises(DiscontinuousOp):
        certified(FILES[name], "real")
    found = certified(FILES[name])
    assert found.claim.bound is not None
    assert 1 <= found.claim.bound < 1 + 1e-8
    assert check(found, FILES[name]).valid
    (one,) = found.claim.idealised
    assert (one.node, one.pattern) == ("y", PATTERNS.get(name, "thresholded-softplus"))


@pytest.mark.parametrize("name", FILES)
def test_no_value_deviates_by_more_than_is_claimed(name: str) -> None:
    data = FILES[name]
    network = load(data, Reading(idealises=True)).require_network()
    (one,) = network.idealised
    rng = np.random.default_rng(0)
    for scale in (1.0, 4.0, 1000.0):
        x = (rng.normal(size=network.input_size) * scale).astype(np.float32)
        ours = network.forward(torch.from_numpy(x.astype(np.float64))[None])[0].numpy()
        off = float(np.linalg.norm(run(data, x[None]).ravel() - ours))
        size = float(np.linalg.norm(x))
        rounding = 2.0**-20 * (size + 1)  # of float32
        assert off <= one.absolute + one.relative * size + rounding


@pytest.mark.parametrize("steepness", [1.0, 2.0])
def test_at_the_threshold_the_deviation_is_reached(steepness: float) -> None:
    """Above it the file has x itself, which float64 tells from the softplus."""
    network = load(softplus(steep=steepness > 1), Reading(idealises=True)).require_network()
    x = torch.full((1, 4), np.nextafter(20 / steepness, 99.0), dtype=torch.float64)
    off = float((network.forward(x) - x).norm())
    assert 0.999 * network.idealised[0].absolute <= off <= network.idealised[0].absolute


def rewired(inputs: Mapping[str, str], *nodes: Any, **numbers: np.ndarray) -> bytes:  # noqa: ANN401 (nodes)
    """Folded cones, with other operands for the tensors named, and more nodes and numbers."""
    made: Any = onnx.load_model_from_string(second(**numbers_of(**numbers)))
    for one in made.graph.node:
        if one.output[0] in inputs:
            one.input[:] = inputs[one.output[0]].split()
    made.graph.node.extend(nodes)
    return serialised(made)


OWN = numbers_of()["s3"]
REWIRED: Mapping[str, bytes] = {
    "the other half first": rewired({"p*0": "b mask0"}),
    "another pair": rewired(
        {"p11": "ar cos1"}, node("Gather", ["a", "i"], ["ar"], axis=1), i=np.array([1, 0])
    ),
    "other thresholds for one half": rewired(
        {"q*2": "q2 mask2'", "q*3": "q3 mask3'"},
        node("Less", ["t", "s"], ["below"]),
        node("GreaterOrEqual", ["t", "s"], ["above"]),
        node("And", ["ge2", "below"], ["m2"]),
        node("And", ["above", "lt3"], ["m3"]),
        node("Cast", ["m2"], ["mask2'"], to=1),
        node("Cast", ["m3"], ["mask3'"], to=1),
        s=np.array([[np.nextafter(OWN[0, 0], np.float32(9)), OWN[0, 1]]]),
    ),
}


@pytest.mark.parametrize("name", REWIRED)
def test_what_is_wired_otherwise_is_no_mirror(name: str) -> None:
    with pytest.raises(DiscontinuousOp):
        certified(REWIRED[name])
    hint = Pattern(kind="folded-second-order-mirror", input="x", output="y")
    with pytest.raises(PatternRefuted, match="entry"):
        read_network(REWIRED[name], [hint], Reading(idealises=True))


def written(x: np.ndarray, numbers: Mapping[str, np.ndarray], pair: int) -> np.ndarray:
    """What the numbers of a folded second-order mirror make of rows (a, b), as the file says."""
    a, b = x.T
    known = {name: float(array.ravel()[pair]) for name, array in numbers.items()}
    p = float(PI)
    f = np.arctan(b / a) + np.where(a < 0, np.where(b > 0, p, -p), 0)
    t = (f - known["h"]) % (2 * p)
    ends = [known["s1"], known["s2"], known["s3"]]
    c, s = ([known[f"{name}{k}"] for k in (1, 2, 3)] for name in ("cos", "sin"))
    made = [
        x.T,
        (a * c[0] + b * s[0], a * s[0] - b * c[0]),
        (a * c[1] + b * s[1], -a * s[1] + b * c[1]),
        (a * c[2] + b * s[2], a * s[2] - b * c[2]),
    ]
    return np.stack(made)[np.searchsorted(ends, t, side="right"), :, np.arange(len(x))]


@pytest.mark.parametrize("pair", [0, 1])
def test_cones_deviate_by_what_is_claimed_at_most(pair: int) -> None:
    numbers = numbers_of()
    network = load(second(**numbers), Reading(idealises=True)).require_network()
    ends = np.array([numbers[name].ravel()[pair] for name in ("s1", "s2", "s3")], np.float64)
    near = (ends[:, None] + np.linspace(-3e-7, 3e-7, 301)).ravel()
    angles = np.concatenate([near, np.linspace(0.001, 6.28, 2000)]) + float(
        numbers["h"].ravel()[pair]
    )
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    whole = np.zeros((len(rows), 4))
    whole[:, [pair, pair + 2]] = rows
    ours = network.forward(torch.from_numpy(whole)).numpy()[:, [pair, pair + 2]]
    off = np.linalg.norm(written(rows, numbers, pair) - ours, axis=1).max()
    (one,) = network.idealised
    assert 0.1 * one.relative < off <= one.relative + 1e-14
    assert one.relative < 3e-7


FORGED: Mapping[str, Callable[[Idealised], list[Idealised]]] = {
    "another deviation": lambda one: [replace(one, absolute=0.0, relative=0.0)],
    "nothing": lambda _: [],
    "another node": lambda one: [replace(one, node="x")],
    "a node too many": lambda one: [one, one],
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGED)
@pytest.mark.parametrize("name", ["softplus", "a folded mirror", "folded cones"])
def test_a_claim_that_hides_it_is_rejected(name: str, forgery: str) -> None:
    found = certified(FILES[name])
    listed = tuple(FORGED[forgery](found.claim.idealised[0]))
    verdict = check(replace(found, claim=replace(found.claim, idealised=listed)), FILES[name])
    assert not verdict.valid
    assert verdict.code in ("discontinuous-op", "idealised-mismatch")


@pytest.mark.parametrize(
    "data",
    [
        softplus(steep=True, divisor="t"),
        softplus(steep=False, limit="low"),
        folded(1e-3),
        second(**numbers_of(cos2=np.array([0.3, -0.7], np.float32))),
        second(**numbers_of(s3=np.array([3.77, 4.34], np.float32))),
        second(**numbers_of(s2=np.array([0.7, 1.3], np.float32))),
    ],
    ids=["another divisor", "a jump of 0.02", "no mirror", "no turn", "a cone beside", "no cones"],
)
def test_what_is_near_to_nothing_stays_refused(data: bytes) -> None:
    with pytest.raises(DiscontinuousOp):
        certified(data)


def test_without_a_jump_the_claim_is_about_the_file() -> None:
    data = model([node("Softplus", ["x"], ["y"])])
    found = certified(data)
    assert found.claim.idealised == ()
    assert check(found, data).valid

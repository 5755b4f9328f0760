"""The product of layer norms: exact on linear networks, never below a realised slope."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from jaxtyping import Float64

from verifier.certificate import ProductProof
from verifier.errors import InvalidRequest
from verifier.methods import product
from verifier.network.elementwise import Abs
from verifier.network.graph import Grouped, Network
from verifier.network.grouped import GroupSort
from verifier.network.linear_map import Dense, Identity
from verifier.network.nodes import Affine, Elementwise, Term, linear
from verifier.norms import Norm, NormPair
from verifier.property import Each, Indices, Margins, Property

PAIRS = list(itertools.product(Norm, Norm))
ORDER = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}


def dense(name: str, source: str, weight: Float64[np.ndarray, "out in"]) -> Affine:
    return linear(name, (Term(source, Dense(torch.from_numpy(weight))),))


def chain(*weights: Float64[np.ndarray, "out in"]) -> Network:
    """Dense layers with |.| between them."""
    nodes: list[Affine | Elementwise | Grouped] = []
    source = ""
    for depth, weight in enumerate(weights):
        nodes.append(dense(f"v{depth}", source, weight))
        source = f"v{depth}"
        if depth < len(weights) - 1:
            nodes.append(Elementwise(f"z{depth}", source, Abs(len(weight)), gate=f"z{depth}"))
            source = f"z{depth}"
    return Network(nodes=tuple(nodes), input_size=weights[0].shape[1], output=source)


def exact_norm(weight: Float64[np.ndarray, "out in"], pair: tuple[Norm, Norm]) -> float:
    """The operator norm: a convex function of x is greatest at an extreme point of the ball."""
    match pair:
        case (Norm.L1, out):
            points = list(np.eye(weight.shape[1]))
        case (Norm.LINF, out):
            points = [np.array(s) for s in itertools.product((-1.0, 1.0), repeat=weight.shape[1])]
        case (Norm.L2, Norm.L2):
            return float(np.linalg.norm(weight, 2))
        case (Norm.L2, Norm.LINF):
            return float(np.linalg.norm(weight, axis=1).max())
        case (Norm.L2, Norm.L1):
            signs = itertools.product((-1.0, 1.0), repeat=weight.shape[0])
            return max(float(np.linalg.norm(np.array(s) @ weight)) for s in signs)
    return max(float(np.linalg.norm(weight @ x, ORDER[out])) for x in points)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_a_linear_network_is_bounded_by_its_norm(pair: tuple[Norm, Norm]) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(5, 3)), rng.normal(size=(4, 5))
    network = Network(
        nodes=(dense("a", "", first), dense("b", "a", second)), input_size=3, output="b"
    )
    found = product.candidate(network, Property(norm=NormPair(*pair))).estimates[0]
    truth = exact_norm(second @ first, pair)
    assert truth <= found * (1 + 1e-15)
    if pair not in {(Norm.LINF, Norm.L2), (Norm.L2, Norm.L1), (Norm.LINF, Norm.L1)}:
        assert found <= truth * (1 + 1e-10)  # adjacent linear maps are fused: nothing is lost


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
@pytest.mark.parametrize("seed", range(5))
def test_product_holds_every_gate_pattern(pair: tuple[Norm, Norm], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3))]
    found = product.candidate(chain(*weights), Property(norm=NormPair(*pair))).estimates[0]
    for signs in itertools.product((-1.0, 1.0), repeat=7):
        gates = np.diag(signs[:4]), np.diag(signs[4:])
        jacobian = weights[2] @ gates[1] @ weights[1] @ gates[0] @ weights[0]
        assert exact_norm(jacobian, pair) <= found * (1 + 1e-14)


def test_the_bound_of_a_skip_connection_is_left_to_the_checker() -> None:
    weight = np.diag([2.0, 1.0])
    body = dense("v", "", weight)
    gate = Elementwise("z", "v", Abs(2), gate="z")
    total = linear("y", (Term("", Identity(2)), Term("z", Identity(2))))
    network = Network(nodes=(body, gate, total), input_size=2, output="y")
    candidate = product.candidate(network, Property())
    assert isinstance(candidate.proof, ProductProof)
    assert candidate.proof.items[0].techniques == ("sums", "joint", "balanced")
    assert candidate.estimates == (0.0,)


def test_sorting_keeps_the_norm() -> None:
    pairs = torch.tensor([[0, 1], [2, 3]])
    network = Network(
        nodes=(
            dense("v", "", np.eye(4) * 0.5),
            Grouped("s", "v", GroupSort(pairs, pairs)),
        ),
        input_size=4,
        output="s",
    )
    for norm in Norm:
        found = product.candidate(network, Property(norm=NormPair(norm, norm))).estimates[0]
        assert found == pytest.approx(0.5, rel=1e-10)


def test_deep_product_survives_overflow() -> None:
    network = chain(*[np.eye(2) * 1e200 for _ in range(3)])
    candidate = product.candidate(network, Property())
    assert candidate.estimates == (math.inf,)


def test_zero_network_has_bound_zero() -> None:
    network = chain(np.zeros((2, 2)), np.eye(2))
    assert product.candidate(network, Property()).estimates == (0.0,)


def test_each_and_margins_are_lists() -> None:
    weight = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    network = chain(weight)
    each = product.candidate(network, Property(outputs=Each())).estimates
    margins = product.candidate(network, Property(outputs=Margins(None))).estimates
    assert each == pytest.approx((3, 4, 0), rel=1e-10)
    assert margins == pytest.approx((5, 3, 4), rel=1e-10)


def test_only_selected_inputs_and_outputs_count() -> None:
    network = chain(np.array([[3.0, 10.0], [20.0, 30.0]]))
    asked = Property(inputs=Indices((0,)), outputs=Indices((0,)))
    assert product.candidate(network, asked).estimates == pytest.approx((3,), rel=1e-10)


def test_an_output_beyond_the_last_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="index 2 of `outputs`"):
        product.candidate(chain(np.eye(2)), Property(outputs=Indices((2,))))


def test_blocks_too_large_to_form_are_left_to_the_checker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(_: Network) -> bool:
        return False

    monkeypatch.setattr(product, "can_fuse", never)
    candidate = product.candidate(chain(np.diag([3.0, 1.0]), np.eye(2)), Property())
    assert isinstance(candidate.proof, ProductProof)
    (item,) = candidate.proof.items
    assert item.internal is Norm.L2
    assert candidate.estimates == (0.0,)

"""Signals that a sigmoid lets pass: GRU, LSTM and cells written out, bounded over all inputs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from itertools import product as pairs

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from verifier.certificate import Candidate, Certificate, LmiProof, decimal_upper, log10_upper
from verifier.certificate_json import certificate_text
from verifier.checker import check
from verifier.checker.definite import NotProved
from verifier.checker.everywhere import everywhere as increments
from verifier.checker.gated import with_gated as replaced
from verifier.checker.graph import read_network
from verifier.checker.intervals import Interval
from verifier.checker.network import Affine, Gated
from verifier.checker.network import Network as Read
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.methods.progress import NO_AIM
from verifier.network.everywhere import everywhere
from verifier.network.gated import with_gated
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Property, Request
from verifier.proving import Case, prove
from verifier.tiers import tiers_of

STEPS, WIDTH, HIDDEN = 3, 2, 2
KINDS = ("gru", "gru-reset", "lstm", "cell", "turned-cell")
L2 = NormPair(Norm.L2, Norm.L2)
PAIRS = ((Norm.L2, Norm.L2), (Norm.LINF, Norm.LINF), (Norm.L1, Norm.L1), (Norm.LINF, Norm.L2))


def _weights(kind: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    gates = 4 if kind == "lstm" else 3
    scale = 0.5 + seed % 3
    return {
        "w": (rng.normal(size=(1, gates * HIDDEN, WIDTH)) * scale).astype(np.float32),
        "r": (rng.normal(size=(1, gates * HIDDEN, HIDDEN)) * scale).astype(np.float32),
        "b": rng.normal(size=(1, 2 * gates * HIDDEN)).astype(np.float32),
    }


def model(kind: str, seed: int) -> bytes:
    """A layer of few steps, or a cell of its operators: x, then h', whose state is tanh(x)."""
    weights = _weights(kind, seed)
    if kind.endswith("cell"):
        nodes, weights = _cell(kind, weights)
        shape, out = [1, HIDDEN], [1, HIDDEN]
    else:
        op = "LSTM" if kind == "lstm" else "GRU"
        made = helper.make_node(op, ["x", "w", "r", "b"], ["", "y"], hidden_size=HIDDEN)
        if kind == "gru-reset":
            made.attribute.append(helper.make_attribute("linear_before_reset", 1))
        nodes, shape, out = [made], [STEPS, 1, WIDTH], [1, 1, HIDDEN]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def _cell(
    kind: str, weights: dict[str, np.ndarray]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """h' = (1 - z) n + z h, or with z and 1 - z the other way round; z, n of x, and h = tanh(x)."""
    matrices = {
        "wz": weights["w"][0, :HIDDEN].T.copy(),
        "wn": weights["w"][0, HIDDEN : 2 * HIDDEN].T.copy(),
        "one": np.ones((1, 1), np.float32),
    }
    fresh, kept = ("z", "rest") if kind == "turned-cell" else ("rest", "z")
    nodes = [
        helper.make_node("MatMul", ["x", "wz"], ["u"]),
        helper.make_node("Sigmoid", ["u"], ["z"]),
        helper.make_node("Sub", ["one", "z"], ["rest"]),
        helper.make_node("MatMul", ["x", "wn"], ["v"]),
        helper.make_node("Tanh", ["v"], ["n"]),
        helper.make_node("Tanh", ["x"], ["h"]),
        helper.make_node("Mul", ["n", fresh], ["taken"]),
        helper.make_node("Mul", [kept, "h"], ["held"]),
        helper.make_node("Add", ["taken", "held"], ["y"]),
    ]
    return nodes, matrices


def function(kind: str, seed: int, x: torch.Tensor) -> torch.Tensor:
    """The same of one flat input."""
    w, r, b = (torch.tensor(v).double()[0] for v in _weights(kind, seed).values())
    if kind.endswith("cell"):
        z, n, h = (w[:HIDDEN] @ x).sigmoid(), (w[HIDDEN : 2 * HIDDEN] @ x).tanh(), x.tanh()
        return z * n + (1 - z) * h if kind == "turned-cell" else (1 - z) * n + z * h
    gates = len(w) // HIDDEN
    bw, br = b.reshape(2, gates, HIDDEN)
    h = c = torch.zeros(HIDDEN, dtype=torch.float64)
    for step in x.reshape(STEPS, WIDTH):
        a = (w @ step).reshape(gates, HIDDEN) + bw
        s = (r @ h).reshape(gates, HIDDEN) + br
        if kind == "lstm":
            i, o, f = ((a[k] + s[k]).sigmoid() for k in range(3))
            c = f * c + i * (a[3] + s[3]).tanh()
            h = o * c.tanh()
            continue
        z, t = ((a[k] + s[k]).sigmoid() for k in range(2))
        inner = t * s[2] if kind == "gru-reset" else r[2 * HIDDEN :] @ (t * h) + br[2]
        h = (1 - z) * (a[2] + inner).tanh() + z * h
    return h


def certified(data: bytes, norm: NormPair) -> Certificate:
    """By the dense inequality, however long it takes."""
    network = load(data).require_network()
    gated, asked = with_gated(network), Property(norm=norm)
    assert gated is not None
    found = lipsdp.candidate(gated, asked, lipsdp.Options(), Clock.start(600.0))
    return _proved(data, network, asked, found)


def _proved(data: bytes, network: Network, asked: Property, found: Candidate) -> Certificate:
    case = Case(
        model=data,
        model_id="sha256:" + hashlib.sha256(data).hexdigest(),
        asked=asked,
        items=items_of(asked, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )
    certificate = prove(case, found, None, ())
    assert isinstance(certificate, Certificate)
    return certificate


def _size(kind: str) -> int:
    return HIDDEN if kind.endswith("cell") else STEPS * WIDTH


def _attained(matrix: np.ndarray, norms: tuple[Norm, Norm]) -> float:
    """What unit vectors and corners attain of a norm of the matrix; in l2 the norm."""
    if norms == (Norm.L2, Norm.L2):
        return float(np.linalg.norm(matrix, 2)) * (1 - 1e-13)
    order = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: np.inf}
    corners = np.array(list(pairs((1.0, -1.0), repeat=matrix.shape[1]))).T
    steps = np.eye(matrix.shape[1]) if norms[0] is Norm.L1 else corners
    return float(np.linalg.norm(matrix @ steps, order[norms[1]], axis=0).max()) * (1 - 1e-13)


def _steepest(kind: str, seed: int, norms: tuple[Norm, Norm]) -> float:
    """The greatest norm of the Jacobian at random points of every size, and uphill from them."""
    generator = torch.Generator().manual_seed(seed)
    best = 0.0
    for scale in (0.1, 1.0, 4.0):
        x = torch.randn(_size(kind), generator=generator, dtype=torch.float64) * scale
        x.requires_grad_(True)
        for _ in range(8):
            y = function(kind, seed, x)
            rows = [torch.autograd.grad(each, x, create_graph=True)[0] for each in y]
            jacobian = torch.stack(rows)
            best = max(best, _attained(jacobian.detach().numpy(), norms))
            (uphill,) = torch.autograd.grad(jacobian.square().sum().log(), x)
            x = (x + 0.5 * scale * uphill.clamp(-1, 1)).detach().requires_grad_(True)
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_no_jacobian_exceeds_the_bound_and_no_lesser_claim_is_proved(kind: str, seed: int) -> None:
    data, norms = model(kind, seed), PAIRS[(seed + len(kind)) % len(PAIRS)]
    certificate = certified(data, NormPair(*norms))
    assert certificate.claim.bound is not None
    assert _steepest(kind, seed, norms) <= certificate.claim.bound
    verdict = check(certificate_text(certificate).encode(), data)
    assert verdict.valid
    assert verdict.proved is not None
    _require_rejected(certificate, data, verdict.proved[0] * (1 - 2.0**-40))


def _require_rejected(certificate: Certificate, data: bytes, less: float) -> None:
    low = decimal_upper(less)
    claim = replace(certificate.claim, bound=low, log10_bound=log10_upper(low))
    forged = replace(certificate, claim=claim, lower_bound=None)
    assert not check(certificate_text(forged).encode(), data).valid


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_runtime_computes(kind: str) -> None:
    session = onnxruntime.InferenceSession(model(kind, 1), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).normal(size=_size(kind)).astype(np.float32)
    (found,) = session.run(None, {"x": x.reshape(session.get_inputs()[0].shape)})
    wanted = function(kind, 1, torch.tensor(x).double())
    assert np.asarray(found).ravel() == pytest.approx(wanted.numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gates_of_one_input_prove_much_less(kind: str) -> None:
    data = model(kind, 0)
    gated = certified(data, L2).claim.bound
    network = everywhere(load(data).require_network())
    apart = lipsdp.candidate(network, Property(norm=L2), lipsdp.Options(), Clock.start(600.0))
    assert gated is not None
    assert gated < 0.8 * apart.estimates[0]


def test_the_service_asks_for_them() -> None:
    """Of global questions by the dense inequality."""
    (tier,) = tiers_of(Request(property=Property(), method="lipsdp"), _network("lstm"))
    proof = next(iter(tier.run(Clock.start(600.0), NO_AIM))).proof
    assert isinstance(proof, LmiProof)
    assert len(proof.gated) == 3 * STEPS - 1


def _network(kind: str) -> Network:
    return load(model(kind, 0)).require_network()


@pytest.mark.parametrize("change", ["unknown", "twice", "no product", "none", "fewer"])
def test_other_names_prove_nothing(change: str) -> None:
    data = model("gru", 0)
    certificate = certified(data, L2)
    proof = certificate.proof
    assert isinstance(proof, LmiProof)
    names = {
        "unknown": (*proof.gated, "nothing"),
        "twice": (*proof.gated, proof.gated[0]),
        "no product": (*proof.gated, "y"),
        "none": (),
        "fewer": proof.gated[1:],
    }[change]
    forged = replace(certificate, proof=replace(proof, gated=names))
    verdict = check(certificate_text(forged).encode(), data)
    assert not verdict.valid
    assert verdict.code == "proof-refuted"


# --- The ellipsoids ------------------------------------------------------------------------------


def _gates(kind: str) -> tuple[Read, list[Gated]]:
    data = model(kind, 0)
    proof = certified(data, L2).proof
    assert isinstance(proof, LmiProof)
    network = increments(read_network(data), proof.gated)
    return network, [node for node in network.nodes if isinstance(node, Gated)]


def _form(network: Read, gate: Gated) -> list[tuple[dict[str, Fraction], Fraction, Fraction]]:
    """Of the gate's first entry: every way as a function of signals, its middle and its share."""
    factors = next(node for node in network.nodes if node.name == gate.source)
    assert isinstance(factors, Affine)
    found: list[tuple[dict[str, Fraction], Fraction, Fraction]] = []
    for place, middle in enumerate(gate.middles):
        row = np.zeros((1, factors.size))
        row[0, place * gate.size] = 1.0
        parts: dict[str, Fraction] = {}
        for term in factors.terms:
            weight = Fraction(float(term.map.backward(row)[0, 0]))
            if weight:
                parts[term.source] = parts.get(term.source, Fraction(0)) + weight
        found.append((parts, _simple(middle), Fraction(float(gate.shares[place * gate.size]))))
    return found


def _simple(number: float) -> Fraction:
    """The rational that the float64 number stands for."""
    return Fraction(number).limit_denominator(16)


def _holds(
    form: list[tuple[dict[str, Fraction], Fraction, Fraction]], gradient: dict[str, Fraction]
) -> None:
    """psi^2 is at most the form for increments of every direction."""
    names = sorted(gradient)
    for steps in pairs((-2, -1, 0, 1, 3), repeat=len(names)):
        moved = dict(zip(names, (Fraction(step) for step in steps), strict=True))
        ways = [
            (sum((c * moved[s] for s, c in parts.items()), Fraction(0)), middle, share)
            for parts, middle, share in form
        ]
        psi = sum((gradient[s] * moved[s] for s in names), Fraction(0))
        psi -= sum((middle * way for way, middle, _ in ways), Fraction(0))
        assert psi * psi <= sum((share * way * way for way, _, share in ways), Fraction(0))


SHARES = [Fraction(k, 4) for k in range(5)]
SIGNED = [Fraction(k, 2) for k in range(-2, 3)]


def test_gradients_of_means_lie_in_their_ellipsoid() -> None:
    network, gates = _gates("cell")
    (gate,) = gates
    form = _form(network, gate)
    assert len(form) == 4
    for z, n, h in pairs(SHARES, SIGNED, SIGNED):
        gradient = {"u": z * (1 - z) * (h - n), "v": (1 - z) * (1 - n * n), "h": z}
        _holds(form, gradient)


def test_gradients_of_products_lie_in_their_ellipses() -> None:
    network, gates = _gates("lstm")
    seen = set[Fraction]()
    for gate in gates:
        ((u, *_), _, _), ((v, *_), middle, _) = _form(network, gate)
        seen.add(middle)
        # After so many steps a cell's state is as large, nearly.
        reach = int(gate.name.split(".")[-2]) if gate.name.endswith(".fc") else 1
        for z, y in pairs(SHARES, SIGNED):
            slope = 1 - y * y if middle == Fraction(3, 8) else Fraction(1)
            _holds(_form(network, gate), {u: z * (1 - z) * y * reach, v: z * slope})
    assert seen == {Fraction(3, 8), Fraction(1, 2)}


def test_a_factor_without_bounds_is_refused() -> None:
    network = read_network(model("lstm", 0))
    gate = next(node.name for node in network.nodes if node.name.endswith(".fc"))
    endless = {
        name: Interval(np.full((1, size), -np.inf), np.full((1, size), np.inf))
        for name, size in network.tensors.items()
    }
    with pytest.raises(NotProved):
        replaced(network, [gate], endless)

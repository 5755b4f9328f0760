"""Self-attention over a region: products, softmax and normalisation in one network."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from verifier import check, parse_request, verify
from verifier.errors import NotLipschitzGlobally

TOKENS, WIDTH = 3, 4
SIZE = TOKENS * WIDTH
SCALE = 0.5


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 2 for name in "qkvo"}


def model() -> bytes:
    """LayerNorm(x + softmax(Q K' / 2) V O), of three tokens."""
    make = helper.make_node
    nodes = [make("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"]
    nodes += [
        make("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        make("MatMul", ["xq", "kt"], ["scores"]),
        make("Mul", ["scores", "scale"], ["scaled"]),
        make("Softmax", ["scaled"], ["shares"], axis=-1),
        make("MatMul", ["shares", "xv"], ["mixed"]),
        make("MatMul", ["mixed", "o"], ["out"]),
        make("Add", ["out", "x"], ["sum"]),
        make("LayerNormalization", ["sum", "gain", "shift"], ["y"], axis=-1),
    ]
    constants = {
        **weights(),
        "scale": np.float32(SCALE),
        "gain": np.ones(WIDTH, np.float32),
        "shift": np.zeros(WIDTH, np.float32),
    }
    shape = [1, TOKENS, WIDTH]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return made.SerializeToString()


def jacobian(x: np.ndarray) -> np.ndarray:
    """By automatic differentiation."""
    q, k, v, o = (torch.tensor(weight).double() for weight in weights().values())

    def attention(flat: torch.Tensor) -> torch.Tensor:
        x = flat.reshape(TOKENS, WIDTH)
        shares = torch.softmax(SCALE * (x @ q) @ (x @ k).T, dim=-1)
        out = torch.nn.functional.layer_norm(x + shares @ (x @ v) @ o, (WIDTH,))
        return out.flatten()

    return torch.autograd.functional.jacobian(attention, torch.tensor(x)).numpy()


ORDERS = {"l2": 2, "linf": np.inf, "l1": 1}


@pytest.mark.parametrize(("norm", "radius"), [("l2", 2.0**-40), ("linf", 0.02), ("l1", 0.1)])
def test_attention_is_bounded_over_a_region(norm: str, radius: float) -> None:
    rng = np.random.default_rng(1)
    center = rng.normal(size=SIZE)
    region = {"type": "box", "center": center.tolist(), "radius": radius}
    asked = {
        "property": {"scope": "local", "norm": norm, "region": region},
        "budget": {"seconds": 20},
    }
    data = model()
    certificate = verify(data, parse_request(asked))
    bound = certificate.claim.bound
    assert bound is not None
    assert check(certificate, data).valid
    points = center + radius * rng.uniform(-1, 1, (50, SIZE))
    sampled = [float(np.linalg.norm(jacobian(x), ORDERS[norm])) for x in points]
    assert max(sampled) <= bound
    if radius < 1e-9:
        assert bound <= max(sampled) * (1 + 1e-6)


def test_attention_has_no_global_constant() -> None:
    with pytest.raises(NotLipschitzGlobally) as refused:
        verify(model(), parse_request({"property": {"norm": "l2"}}))
    assert refused.value.node is not None
    assert "region" in refused.value.fix

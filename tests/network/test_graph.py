from __future__ import annotations

import pytest
import torch

from verifier.network.elementwise import Relu
from verifier.network.graph import Network
from verifier.network.linear_map import Dense, Identity
from verifier.network.nodes import Affine, Elementwise, Term


def _residual() -> Network:
    """2 relu(W x) + x + (1, 1)."""
    weight = torch.tensor([[1.0, -1.0], [2.0, 0.5]], dtype=torch.float64)
    ones = torch.ones(2, dtype=torch.float64)
    return Network(
        nodes=(
            Affine("a", (Term("", Dense(weight)),), 0 * ones),
            Elementwise("r", "a", Relu(2), gate="r"),
            Affine(
                "y",
                (Term("r", Dense(2 * torch.eye(2, dtype=torch.float64))), Term("", Identity(2))),
                ones,
            ),
        ),
        input_size=2,
        output="y",
    )


def test_forward_sums_the_terms_and_the_bias() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    expected = [[2.0, 9.0], [0.0, 1.0], [8.0, 15.0]]
    assert _residual().forward(x).tolist() == expected


def test_sizes_name_every_signal() -> None:
    assert _residual().sizes == {"": 2, "a": 2, "r": 2, "y": 2}
    assert _residual().output_size == 2


def test_a_network_may_be_the_identity() -> None:
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    assert torch.equal(Network(nodes=(), input_size=3, output="").forward(x), x)


@pytest.mark.parametrize(
    ("names", "output"),
    [(("r", "a"), "a"), (("a", "a"), "a"), (("a", "r"), "z")],
    ids=["out-of-order", "twice", "no-output"],
)
def test_a_network_that_is_no_graph_is_refused(names: tuple[str, str], output: str) -> None:
    sources = {"a": "", "r": "a"}
    nodes = tuple(Elementwise(name, sources[name], Relu(2), gate=name) for name in names)
    with pytest.raises(ValueError, match=r"out of order|no node"):
        Network(nodes=nodes, input_size=2, output=output)

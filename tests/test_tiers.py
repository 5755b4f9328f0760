"""What a request's tiers are told: how near is near enough, and what is left to a later one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

import numpy as np
import pytest

from tests.methods.toys import NETWORKS
from verifier.certificate import Candidate, ForwardProof, PropagationProof
from verifier.methods import lipsdp
from verifier.methods.clock import Clock
from verifier.methods.progress import NO_AIM, Aim
from verifier.network.graph import Network
from verifier.property import Method, OptionValue, Property, Request
from verifier.regions import CenterBox
from verifier.tiers import tiers_of

FOREVER = Clock.start(1e6)


def run(
    name: str, tier: str, method: Method, aim: Aim = NO_AIM, **options: OptionValue
) -> Iterable[Candidate]:
    """What one tier of a request about a region finds."""
    network = NETWORKS[name](np.random.default_rng(43))
    region = CenterBox(center=(0.125,) * network.input_size, radius=0.25)
    asked = Property(scope="local", region=region)
    request = Request(property=asked, method=method, options=options)
    (chosen,) = (each for each in tiers_of(request, network) if each.name == tier)
    return chosen.run(FOREVER, aim)


@pytest.mark.parametrize(
    ("options", "gap", "expected"),
    [({}, 0.01, 1e-3), ({}, 1e-9, 1e-6), ({"gap": 1e-4}, 0.01, 1e-4)],
)
def test_a_region_is_solved_as_near_as_the_request_asks(
    options: dict[str, OptionValue], gap: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    proof = PropagationProof(
        patterns=(), forward=ForwardProof(technique="interval"), technique="interval"
    )

    def candidate(
        _network: Network, _asked: Property, options: lipsdp.Options, *_: object
    ) -> Candidate:
        told.append(options.gap)
        return Candidate(method="lipsdp", estimates=(1.0,), proof=proof)

    monkeypatch.setattr(lipsdp, "candidate", candidate)
    assert len(list(run("relu", "lipsdp", "lipsdp", Aim(gap=gap), **options))) == 1
    assert told == pytest.approx([expected])


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("relu", "auto", {"interval"}),  # semidefinite bounds follow, and are better
        ("relu", "propagation", {"linear"}),
        ("tanh", "auto", {"linear", "joint"}),  # where slopes follow their gates, lines are near
    ],
)
def test_lines_that_cost_much_are_left_to_semidefinite_bounds(
    name: str, method: Method, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("verifier.methods.propagation.candidate")
    monkeypatch.setattr(module, "MOST_BEFORE", 0.0)
    (found,) = run(name, "propagation", method)
    assert isinstance(found.proof, PropagationProof)
    assert found.proof.technique in expected

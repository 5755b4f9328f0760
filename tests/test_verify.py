"""The conductor: what it keeps, when it stops, and what a failing tier may not take away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from verifier import verify as verify_face
from verifier.certificate import Candidate, Certificate, LmiItem, LmiProof, RecursionProof
from verifier.checker import check
from verifier.errors import (
    CheckRejected,
    InvalidRequest,
    JobFailed,
    NotCheckable,
    ResourceExhausted,
)
from verifier.methods import lipsdp, product
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import form
from verifier.methods.progress import Aim
from verifier.network.graph import Network
from verifier.onnx_import import load
from verifier.property import Budget, Property, Request
from verifier.proving import CLAIM_SLACK
from verifier.regions import CenterBox
from verifier.tiers import plan
from verifier.verify import Progress, verify

MODEL = (Path(__file__).parents[1] / "examples" / "relu_mlp.onnx").read_bytes()
SHORT = Budget(seconds=20.0, gap=0.0)


def _raising(error: Exception) -> Callable[..., Candidate]:
    def candidate(*_: object) -> Candidate:
        raise error

    return candidate


def test_every_published_certificate_is_valid_and_better_than_the_last() -> None:
    published: list[Certificate] = []
    last = verify(MODEL, Request(budget=SHORT), on_certificate=published.append)
    bounds = [certificate.claim.bound for certificate in published]
    assert bounds == sorted(bounds, key=lambda bound: -(bound or 0.0))
    assert published[-1].claim == last.claim
    assert all(check(certificate, MODEL).valid for certificate in (*published, last))


def test_progress_names_the_tiers_and_only_what_is_proved() -> None:
    seen: list[Progress] = []
    last = verify(MODEL, Request(budget=SHORT), on_progress=seen.append)
    phases = list(dict.fromkeys(step.phase for step in seen))
    assert phases == ["product", "witness", "lipsdp", "lipsdp: interior point"]
    steps = [step.iteration for step in seen if step.iteration is not None]
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert seen[0].upper is None
    assert seen[-1].upper is not None
    assert last.lower_bound is not None
    assert last.claim.bound is not None
    assert last.lower_bound.value <= last.claim.bound <= seen[-1].upper


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("not enough memory"),
        JobFailed("the solver overflowed", fix="ask for another method"),
        NotCheckable("no rule", node="n", fix="none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_tier_that_breaks_down_loses_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lipsdp, "candidate", _raising(error))
    certificate = verify(MODEL, Request(budget=SHORT))
    assert certificate.proof.kind == "product"
    assert [(a.method, a.bound is None) for a in certificate.attempts] == [
        ("product", False),
        ("lipsdp", True),
    ]


def test_the_only_tier_that_breaks_down_is_the_job_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lipsdp, "candidate", _raising(MemoryError()))
    with pytest.raises(ResourceExhausted, match="lipsdp broke down"):
        verify(MODEL, Request(method="lipsdp", budget=SHORT))


def test_a_lying_method_never_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that claims 0.9 of what its proof proves ends with what is proved."""
    truth = verify(MODEL, Request(method="product", budget=SHORT)).claim.bound
    honest = product.candidate

    def lying(network: Network, asked: Property) -> Candidate:
        candidate = honest(network, asked)
        return Candidate(
            method=candidate.method,
            estimates=tuple(0.9 * value for value in candidate.estimates),
            proof=candidate.proof,
        )

    monkeypatch.setattr(product, "candidate", lying)
    bound = verify(MODEL, Request(method="product", budget=SHORT)).claim.bound
    assert truth is not None
    assert bound is not None
    assert truth * (1 - 2 * CLAIM_SLACK) <= bound <= truth


def test_a_proof_that_nothing_rescues_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = lipsdp.candidate

    def wrong(
        network: Network, asked: Property, options: lipsdp.Options, clock: Clock, aim: Aim
    ) -> Candidate:
        found = honest(network, asked, options, clock, aim)
        assert isinstance(found.proof, LmiProof)
        ((row,),) = (item.rows for item in found.proof.items)
        item = LmiItem(rows=(replace(row, level=row.level / 4),))
        return replace(found, proof=replace(found.proof, items=(item,)))

    monkeypatch.setattr(lipsdp, "candidate", wrong)
    with pytest.raises(CheckRejected, match="lipsdp"):
        verify(MODEL, Request(method="lipsdp", budget=SHORT))


def test_a_target_that_is_met_stops_the_run() -> None:
    certificate = verify(MODEL, Request(budget=SHORT, target=1e6))
    assert certificate.verdict == "certified"
    assert certificate.proof.kind == "product"


def test_a_target_below_the_witness_is_violated() -> None:
    certificate = verify(MODEL, Request(budget=SHORT, target=1.0))
    assert certificate.verdict == "violated"
    assert check(certificate, MODEL).valid


def test_the_same_request_gives_the_same_certificate() -> None:
    request = Request(method="lipsdp", budget=SHORT)
    first, second = verify(MODEL, request), verify(MODEL, request)
    assert first.claim == second.claim


@pytest.mark.parametrize("name", ["foo", "solvers"])
def test_an_unknown_option_is_refused_before_any_work(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"option '{name}' is unknown"):
        plan(Request(options={name: 1}))


def test_an_option_of_the_wrong_type_is_refused_before_any_work() -> None:
    seen: list[Progress] = []
    with pytest.raises(InvalidRequest, match="gap"):
        verify(MODEL, Request(options={"gap": "small"}), on_progress=seen.append)
    assert seen == []


def test_the_public_face_is_this_function() -> None:
    assert verify_face is verify


def test_what_is_too_large_for_a_region_is_bounded_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A global bound holds on every region, and is an answer where the region's own is none."""
    monkeypatch.setattr(form, "LARGEST_XI", 3)
    size = load(MODEL).require_network().input_size
    region = CenterBox(center=(0.0,) * size, radius=0.5)
    asked = Property(scope="local", region=region)
    found = verify(MODEL, Request(property=asked, method="lipsdp", budget=SHORT))
    assert isinstance(found.proof, RecursionProof)
    assert found.claim.property.region == region
    assert check(found, MODEL).valid

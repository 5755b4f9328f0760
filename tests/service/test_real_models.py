"""The service with the real verifier: trained networks in, checked certificates out."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_process import ROOT, Service, free_port, problem

from service import child
from service.settings import Settings
from tests.random_networks import relu
from tests.tiny_networks import TinyBuilder
from tests.tiny_topologies import gemm
from verifier.certificate_json import certificate_id
from verifier.certificate_reader import certificate_from_json, parse_certificate
from verifier.checker import check_radius

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service as an installation has it."""
    data = tmp_path_factory.mktemp("real") / "data"
    with closing(Service(replace(Settings(port=free_port(), data=data), slots=1))) as running:
        yield running
        assert running.is_alive()


def _submit(real: Service, name: str, request: dict[str, Any]) -> dict[str, Any]:
    data = (EXAMPLES / f"{name}.onnx").read_bytes()
    response = real.client.post(
        "/v1/jobs",
        files={"model": (name, data), "request": (None, json.dumps(request))},
        headers={"Prefer": "wait=60"},
    )
    assert response.status_code in (200, 202), response.text
    return real.ended(response.json()["id"])


@pytest.mark.parametrize("name", ["relu_mlp", "maxmin_mlp", "small_cnn", "residual_groupsort"])
def test_a_trained_network_gets_a_certificate_that_the_checker_accepts(
    real: Service, name: str
) -> None:
    job = _submit(real, name, {"method": "product"})
    assert job["state"] == "succeeded", job["error"]
    text = real.client.get(f"/v1/jobs/{job['id']}/certificate").content
    certificate = parse_certificate(text)
    assert certificate.claim.bound == job["progress"]["upper"]
    again = real.client.post("/v1/certificates/check", json={"certificate": json.loads(text)})
    assert again.json()["valid"] is True
    other = real.upload((EXAMPLES / "small_cnn.onnx").read_bytes())
    if name != "small_cnn":
        body = {"certificate": json.loads(text), "model": other}
        wrong = real.client.post("/v1/certificates/check", json=body).json()
        assert (wrong["valid"], wrong["code"]) == (False, "model-mismatch")


def test_a_local_bound_comes_from_the_same_call(real: Service) -> None:
    request = json.loads((EXAMPLES / "request_local.json").read_text(encoding="utf-8"))
    request["budget"] = {"seconds": 20}
    job = _submit(real, "relu_mlp", request)
    assert job["state"] == "succeeded", job["error"]


def test_a_radius_is_the_one_that_the_command_finds(real: Service) -> None:
    """The work is bounded by the bisection's end, so that both have the same radii to the bit."""
    rng = np.random.default_rng(5)
    builder = TinyBuilder(rng, (1, 2))
    gemm(builder, rng.normal(size=(4, 2)), rng.normal(size=4))
    relu(builder)
    gemm(builder, rng.normal(size=(2, 4)), rng.normal(size=2))
    data = builder.finished().model
    question: dict[str, Any] = {"centers": [[0.5, 0.25]], "norm": "l2", "seconds": 60.0}
    body = {"model": real.upload(data), **question}
    job = real.client.post("/v1/radius", json=body, headers={"Prefer": "wait=60"}).json()
    assert (job["state"], job["verdict"]) == ("succeeded", "certified")
    answer = real.client.get(f"/v1/jobs/{job['id']}/radii").json()
    (ring,) = answer["radii"]
    assert check_radius(json.dumps(ring["certificate"]).encode(), data).radius == ring["radius"]
    said = child.radii(data, question, 60.0).radii
    assert said is not None
    assert _without_resources(said) == _without_resources(answer)


def _without_resources(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with the ids in the place of certificates, which hold times."""
    rings = [
        {**ring, "certificate": certificate_id(certificate_from_json(ring["certificate"]))}
        for ring in answer["radii"]
    ]
    return {**answer, "radii": rings}


def test_a_model_is_described_and_its_sizes_are_known(real: Service) -> None:
    model_id = real.upload((EXAMPLES / "relu_mlp.onnx").read_bytes())
    body = {"model": model_id, "property": {"outputs": {"indices": [10]}}}
    response = real.client.post("/v1/jobs?validate_only=true", json=body)
    assert problem(response)["errors"][0]["pointer"] == "/property/outputs/indices"
    answer = real.client.post("/v1/jobs?validate_only=true", json={"model": model_id}).json()
    assert (answer["inputs"], answer["outputs"]) == (64, 10)
    can = real.client.get(f"/v1/models/{model_id}").json()["capabilities"]
    assert [(name, can[name]["global"]["available"]) for name in can] == [
        ("auto", True),
        ("product", True),
        ("lipsdp", True),
        ("propagation", False),
    ]
    assert can["propagation"]["local"]["available"]


def test_a_truncated_model_is_refused(real: Service) -> None:
    data = Path(EXAMPLES / "relu_mlp.onnx").read_bytes()
    model_id = real.upload(data[: len(data) // 2])
    answer = real.client.get(f"/v1/models/{model_id}").json()
    assert answer["state"] == "refused"
    response = real.client.post("/v1/jobs", json={"model": model_id})
    assert (problem(response)["code"], response.status_code) == (answer["error"]["code"], 422)


def test_the_sign_and_the_matrix_of_derivatives_come_from_the_same_call(real: Service) -> None:
    region = json.loads((EXAMPLES / "request_local.json").read_text(encoding="utf-8"))["property"][
        "region"
    ]
    sign = {"input": 0, "output": 0, "direction": "decreasing"}
    asked = {"kind": "monotone", "monotone": sign, "region": region}
    job = _submit(real, "relu_mlp", {"property": asked})
    assert (job["state"], job["verdict"]) == ("succeeded", "violated"), job["error"]
    assert job["property"]["monotone"] == sign
    matrix = {"kind": "jacobian", "region": region, "inputs": {"indices": [0]}}
    job = _submit(real, "relu_mlp", {"property": matrix})
    assert (job["state"], job["verdict"]) == ("succeeded", None), job["error"]
    text = real.client.get(f"/v1/jobs/{job['id']}/certificate").content
    entries = parse_certificate(text).claim.entries
    assert entries is not None
    assert entries.shape == (10, 1)
    assert 0 < entries.lower[0]
    listed = real.client.get("/v1/certificates", params={"kind": "jacobian"}).json()["items"]
    assert [item["bound"] for item in listed] == [None]


def test_a_sign_of_what_the_model_does_not_have_is_refused(real: Service) -> None:
    model = real.upload((EXAMPLES / "relu_mlp.onnx").read_bytes())
    sign = {"input": 64, "output": 0, "direction": "increasing"}
    body = {"model": model, "property": {"kind": "monotone", "monotone": sign}}
    real.submit(model, wait=60, method="product")  # the model has been read after it
    refused = problem(real.client.post("/v1/jobs", json=body))
    assert refused["code"] == "invalid-request"
    assert "/property/monotone" in refused["detail"]


def test_many_centers_are_one_job(real: Service) -> None:
    region = {"type": "ball", "norm": "l2", "centers": [[0.0] * 64, [0.5] * 64], "radius": 0.1}
    job = _submit(real, "relu_mlp", {"property": {"region": region}, "budget": {"seconds": 5}})
    assert job["state"] == "succeeded", job["error"]
    text = real.client.get(f"/v1/jobs/{job['id']}/certificate").content
    certificate = parse_certificate(text)
    assert [item.center for item in certificate.claim.bounds or ()] == [0, 1]
    assert job["progress"]["upper"] == certificate.claim.bound
    again = real.client.post("/v1/certificates/check", json={"certificate": json.loads(text)})
    assert again.json()["valid"] is True

"""What is malformed is refused with a problem; nothing is stored half, and the service lives."""

import base64
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, problem

BINARY = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}


def _leaves_nothing(service: Service) -> None:
    """No temporary file is left; one of a job that another test has left running may be there."""
    folder = service.settings.data / "tmp"
    eventually(lambda: not [path for path in folder.iterdir() if "draft" in path.name])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- models --------------------------------------------------------------------------------------


def test_zero_bytes_are_no_model(service: Service) -> None:
    response = service.client.post("/v1/models", content=b"", headers=BINARY)
    assert (problem(response)["code"], response.status_code) == ("not-onnx", 422)
    empty = service.client.get(f"/v1/models/sha256:{_digest(b'')}")
    assert problem(empty)["code"] == "not-found"


def test_text_is_refused_by_the_child_that_reads_it(service: Service) -> None:
    model_id = service.upload(b"this is a letter")
    answer = service.client.get(f"/v1/models/{model_id}").json()
    assert (answer["state"], answer["error"]["code"]) == ("refused", "not-onnx")
    refused = service.client.post("/v1/jobs", json={"model": model_id})
    assert (problem(refused)["code"], refused.status_code) == ("not-onnx", 422)


def test_a_job_of_a_model_that_turns_out_unreadable_fails(service: Service) -> None:
    response = service.client.post("/v1/jobs", files={"model": ("m.onnx", b"another letter")})
    job = service.ended(response.json()["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "not-onnx")


@pytest.mark.parametrize("is_announced", [True, False])
def test_an_oversized_model_is_refused(service: Service, is_announced: bool) -> None:
    data = b"x" * 100_001
    content = data if is_announced else (data[at : at + 1000] for at in range(0, 100_001, 1000))
    response = service.client.post("/v1/models", content=content, headers=BINARY)
    assert (problem(response)["code"], response.status_code) == ("payload-too-large", 413)
    assert service.client.get(f"/v1/models/sha256:{_digest(data)}").status_code == 404
    _leaves_nothing(service)


def test_a_model_under_the_wrong_name_is_refused(service: Service) -> None:
    data, name = model("wrong name"), f"sha256:{'0' * 64}"
    response = service.client.put(f"/v1/models/{name}", content=data, headers=BINARY)
    assert (problem(response)["code"], response.status_code) == ("digest-mismatch", 422)
    assert service.client.get(f"/v1/models/sha256:{_digest(data)}").status_code == 404
    _leaves_nothing(service)


def test_a_model_under_its_name_is_taken_once(service: Service) -> None:
    data = model("right name")
    digest = hashlib.sha256(data)
    url = f"/v1/models/sha256:{digest.hexdigest()}"
    header = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    headers = {**BINARY, "Content-Digest": header}
    first = service.client.put(url, content=data, headers=headers)
    again = service.client.put(url, content=data, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    head = service.client.head(url)
    assert head.headers["content-length"] == str(len(data))
    content = service.client.get(f"{url}/content", headers={"Range": "bytes=0-3"})
    assert (content.status_code, content.content) == (206, data[:4])
    assert content.headers["content-digest"] == header


@pytest.mark.parametrize("header", ["md5=:AAAA:", "sha-256=nothing", "sha-256=:***:"])
def test_an_unreadable_digest_is_a_mismatch(service: Service, header: str) -> None:
    headers = {**BINARY, "Content-Digest": header}
    response = service.client.post("/v1/models", content=model(), headers=headers)
    assert problem(response)["code"] == "digest-mismatch"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, JSON, {**BINARY, "Content-Encoding": "gzip"}],
)
def test_another_type_of_model_is_refused(service: Service, headers: dict[str, str]) -> None:
    response = service.client.post("/v1/models", content=b"{}", headers=headers)
    assert (problem(response)["code"], response.status_code) == ("unsupported-media-type", 415)


def test_a_body_that_stops_coming_is_given_up(service: Service) -> None:
    head = "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream"
    address = ("127.0.0.1", service.settings.port)
    with socket.create_connection(address, timeout=120) as client:
        client.sendall(f"{head}\r\nContent-Length: 1000\r\n\r\nabc".encode())
        # The head and the body of the answer may arrive apart; after them the service hangs up.
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request-timeout"' in answer
    _leaves_nothing(service)


def test_a_client_that_goes_away_leaves_nothing(service: Service) -> None:
    head = "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream"
    address = ("127.0.0.1", service.settings.port)
    with socket.create_connection(address, timeout=120) as client:
        client.sendall(f"{head}\r\nContent-Length: 1000\r\n\r\nabc".encode())
    assert service.submit(service.upload(model("after a quitter")), wait=20)["state"] == "succeeded"
    _leaves_nothing(service)


def test_a_model_that_a_job_needs_is_not_deleted(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    model_id = service.upload(model(["wait-for", str(gate)]))
    job = service.submit(model_id)
    refused = service.client.delete(f"/v1/models/{model_id}")
    assert (problem(refused)["code"], refused.status_code) == ("model-in-use", 409)
    early = service.client.get(f"/v1/jobs/{job['id']}/certificate")
    assert (problem(early)["code"], early.status_code) == ("not-finished", 409)
    gate.touch()
    service.ended(job["id"])
    assert service.client.delete(f"/v1/models/{model_id}").status_code == 204
    assert problem(service.client.delete(f"/v1/models/{model_id}"))["code"] == "not-found"


def test_a_model_is_deleted_while_it_is_read(service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    data = model(["read-after", str(gate)])
    sent = service.client.post("/v1/models", content=data, headers=BINARY)
    place = f"/v1/models/{sent.json()['id']}"
    assert service.client.get(place).json()["state"] == "received"
    assert service.client.delete(place).status_code == 204
    assert problem(service.client.get(place))["code"] == "not-found"
    gate.touch()
    assert service.client.get(f"/v1/models/{service.upload(data)}").json()["state"] == "ready"


# --- jobs ----------------------------------------------------------------------------------------

CENTER = [0.0, 0.0, 0.0]
BAD_MEMBERS: list[tuple[dict[str, Any], str, str]] = [
    ({"colour": 1}, "invalid-request", "/colour"),
    ({"method": "magic"}, "invalid-request", "/method"),
    ({"options": {"magic": 1}}, "invalid-request", "/options/magic"),
    ({"options": {"seed": [1]}}, "invalid-request", "/options/seed"),
    ({"budget": {"seconds": 0}}, "invalid-request", "/budget/seconds"),
    ({"budget": {"seconds": -1}}, "invalid-request", "/budget/seconds"),
    ({"budget": {"seconds": "1"}}, "invalid-request", "/budget/seconds"),
    ({"target": {"upper": -1}}, "invalid-request", "/target/upper"),
    ({"priority": 1000}, "invalid-request", "/priority"),
    ({"priority": "high"}, "invalid-request", "/priority"),
    ({"labels": {"a": 1}}, "invalid-request", "/labels/a"),
    ({"deadline": 5}, "invalid-request", "/deadline"),
    ({"deadline": "soon"}, "invalid-request", "/deadline"),
    ({"deadline": "2030-01-01T00:00:00"}, "invalid-request", "/deadline"),
    ({"property": {"kind": "magic"}}, "invalid-request", "/property/kind"),
    ({"property": {"norm": "l3"}}, "invalid-request", "/property/norm"),
    ({"property": {"scope": "local"}}, "invalid-request", "/property/region"),
    ({"property": {"outputs": {"indices": [7]}}}, "invalid-request", "/property/outputs/indices"),
    ({"property": {"inputs": {"indices": [3]}}}, "invalid-request", "/property/inputs/indices"),
    (
        {"property": {"outputs": {"margins": [[0, 2]]}}},
        "invalid-request",
        "/property/outputs/margins",
    ),
]
BAD_REGIONS: list[tuple[dict[str, Any], str]] = [
    ({"type": "box", "center": [0.0, 0.0], "radius": 0.1}, "invalid-request"),
    ({"type": "box", "center": CENTER, "radius": 0}, "region-empty-interior"),
    ({"type": "box", "center": CENTER, "radius": -1}, "region-empty-interior"),
    ({"type": "box", "center": CENTER, "radius": [0, 0, 0]}, "region-empty-interior"),
    ({"type": "ball", "norm": "l2", "center": CENTER, "radius": 0}, "region-empty-interior"),
    ({"type": "box", "lower": CENTER, "upper": [-1, 0, 0]}, "region-empty-interior"),
    ({"type": "cube", "center": CENTER, "radius": 1}, "invalid-request"),
    ({"type": "box", "centers": [CENTER, [1.0]], "radius": 1}, "invalid-request"),
    ({"type": "box", "centers": [], "radius": 1}, "invalid-request"),
]


@pytest.fixture(scope="module")
def model_id(service: Service) -> str:
    return service.upload(model("bad requests"))


def _refused(service: Service, model_id: str, members: dict[str, Any]) -> dict[str, Any]:
    """The problem that a submission brings; and that it brings no job."""
    response = service.client.post("/v1/jobs", json={"model": model_id, **members})
    assert response.status_code == 422, response.text
    assert service.client.get(f"/v1/jobs?model={model_id}").json()["items"] == []
    return dict(problem(response))


@pytest.mark.parametrize(("members", "code", "pointer"), BAD_MEMBERS)
def test_a_bad_member_is_refused_with_a_pointer(
    service: Service, model_id: str, members: dict[str, Any], code: str, pointer: str
) -> None:
    refusal = _refused(service, model_id, members)
    assert (refusal["code"], refusal["errors"][0]["pointer"]) == (code, pointer)


@pytest.mark.parametrize(("region", "code"), BAD_REGIONS)
def test_a_bad_region_is_refused(
    service: Service, model_id: str, region: dict[str, Any], code: str
) -> None:
    assert _refused(service, model_id, {"property": {"region": region}})["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"budget": {"seconds": NaN}}',
        b'{"budget": {"seconds": Infinity}}',
        b'{"method": "auto", "method": "product"}',
        b"[" * 100_000,
    ],
    ids=["empty", "open", "no-utf8", "nan", "infinity", "twice", "deep"],
)
def test_what_is_no_json_is_refused(service: Service, body: bytes) -> None:
    response = service.client.post("/v1/jobs", content=body[:40_000], headers=JSON)
    assert (problem(response)["code"], response.status_code) == ("malformed-json", 400)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{}", b'{"model": "m"}'])
def test_json_that_is_no_submission_is_refused(service: Service, body: bytes) -> None:
    response = service.client.post("/v1/jobs", content=body, headers=JSON)
    assert (problem(response)["code"], response.status_code) == ("invalid-request", 422)


def test_an_unknown_model_is_not_found(service: Service) -> None:
    response = service.client.post("/v1/jobs", json={"model": f"sha256:{'a' * 64}"})
    assert (problem(response)["code"], response.status_code) == ("not-found", 404)


def test_an_oversized_request_is_refused(service: Service) -> None:
    response = service.client.post("/v1/jobs", content=b" " * 50_001, headers=JSON)
    assert problem(response)["code"] == "payload-too-large"


@pytest.mark.parametrize("number", ["1e999", "1" * 400])
def test_a_number_beyond_float64_is_refused(service: Service, model_id: str, number: str) -> None:
    body = f'{{"model": "{model_id}", "budget": {{"seconds": {number}}}}}'
    response = service.client.post("/v1/jobs", content=body, headers=JSON)
    assert problem(response)["code"] == "invalid-request"


# --- multipart -----------------------------------------------------------------------------------


def _multipart(service: Service, body: bytes, boundary: str = "; boundary=b") -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data{boundary}"}
    return service.client.post("/v1/jobs", content=body, headers=headers)


def _part(name: str, text: str) -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "garbage",
        _part("request", "{}") + "--b--\r\n",
        _part("model", "") + "--b--\r\n",
        _part("model", "x"),
        _part("model", "x") + _part("model", "y") + "--b--\r\n",
        _part("model", "x") + _part("colour", "y") + "--b--\r\n",
        "--b\r\n\r\nx\r\n--b--\r\n",
    ],
)
def test_a_bad_multipart_body_is_refused(service: Service, body: str) -> None:
    response = _multipart(service, body.encode())
    assert (problem(response)["code"], response.status_code) == ("malformed-multipart", 400)
    _leaves_nothing(service)


def test_multipart_without_a_boundary_is_refused(service: Service) -> None:
    assert problem(_multipart(service, b"", ""))["code"] == "malformed-multipart"


def test_a_bad_request_in_multipart_stores_no_model(service: Service) -> None:
    data = model("not stored")
    request = json.dumps({"method": "magic"})
    response = service.client.post(
        "/v1/jobs", files={"model": ("m", data), "request": (None, request)}
    )
    assert problem(response)["code"] == "invalid-request"
    assert service.client.get(f"/v1/models/sha256:{_digest(data)}").status_code == 404


def test_an_oversized_part_is_refused(service: Service) -> None:
    response = service.client.post("/v1/jobs", files={"model": ("m", b"x" * 100_001)})
    assert problem(response)["code"] == "payload-too-large"
    request = " " * 50_001
    response = service.client.post(
        "/v1/jobs", files={"request": (None, request), "model": ("m", b"x")}
    )
    assert problem(response)["code"] == "payload-too-large"


# --- paths and headers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", "not-found"),
        ("GET", f"/v1/jobs/{'0' * 32}", "not-found"),
        ("GET", f"/v1/jobs/{'0' * 32}/events", "not-found"),
        ("GET", f"/v1/jobs/{'0' * 32}/certificate", "not-found"),
        ("POST", f"/v1/jobs/{'0' * 32}/cancel", "not-found"),
        ("GET", "/v1/jobs/..%2f..%2fetc", "not-found"),
        ("GET", "/v1/jobs/short", "invalid-request"),
        ("GET", "/v1/jobs?limit=0", "invalid-request"),
        ("GET", "/v1/jobs?state=lost", "invalid-request"),
        ("GET", "/v1/models/sha256:short", "invalid-request"),
        ("GET", f"/v1/certificates/sha256:{'0' * 64}", "not-found"),
        ("GET", "/v1/schemas/nothing", "not-found"),
        ("PATCH", "/v1/jobs", "method-not-allowed"),
    ],
)
def test_a_bad_path_is_a_problem(service: Service, method: str, path: str, code: str) -> None:
    response = service.client.request(method, path)
    assert problem(response)["code"] == code


def test_events_come_in_two_forms_only(service: Service) -> None:
    job = service.submit(service.upload(model("forms")), wait=20)
    url = f"/v1/jobs/{job['id']}/events"
    response = service.client.get(url, headers={"Accept": "text/html"})
    assert (problem(response)["code"], response.status_code) == ("not-acceptable", 406)


def test_another_host_is_refused(service: Service) -> None:
    response = service.client.get("/healthz", headers={"Host": "evil.example"})
    assert (problem(response)["code"], response.status_code) == ("host-refused", 403)


def test_another_origin_may_not_write(service: Service) -> None:
    headers = {"Origin": "http://evil.example"}
    response = service.client.post("/v1/jobs", json={}, headers=headers)
    assert (problem(response)["code"], response.status_code) == ("origin-refused", 403)


def test_a_request_id_is_kept_if_it_is_harmless(service: Service) -> None:
    kept = service.client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    replaced = service.client.get("/healthz", headers={"X-Request-Id": "a b<script>"})
    assert "script" not in replaced.headers["x-request-id"]

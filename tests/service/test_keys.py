"""API keys: without one nothing is told, with one only what its scope and tenant allow."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from service_fakes import model
from service_process import Service, problem, settings_in

from service import cli
from service.access import SCOPES, ApiKey, Scope, matches, new_secret, parts_of
from service.app import describe_app
from service.serve import ready_database, require_safe_bind
from service.settings import Settings
from service.store import keys
from service.store.coordination import now_ms
from verifier.errors import InvalidRequest

Key = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has keys."""
    settings = settings_in(tmp_path_factory.mktemp("guarded"))
    make(settings, "admin", tenant="nobody")
    with closing(Service(settings)) as running:
        yield running


def make(
    settings: Settings, scope: Scope, tenant: str = "default", expires: int | None = None
) -> tuple[str, str]:
    """(id, text) of a new key, made on the service's machine."""
    with ready_database(settings) as database, database.write() as connection:
        key, text = keys.add(
            connection, tenant, scope=scope, label="", expires=expires, now=now_ms()
        )
    return key.id, text


@pytest.fixture
def client(guarded: Service) -> Iterator[Key]:
    """Clients with keys of their own."""
    made: list[httpx.Client] = []

    def client(
        scope: Scope = "admin", tenant: str = "default", text: str | None = None
    ) -> httpx.Client:
        key = make(guarded.settings, scope, tenant)[1] if text is None else text
        headers = {"Authorization": f"Bearer {key}"}
        made.append(httpx.Client(base_url=guarded.url, headers=headers, timeout=60.0))
        return made[-1]

    yield client
    for one in made:
        one.close()


def upload(client: httpx.Client, data: bytes) -> str:
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.post("/v1/models", content=data, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


OPEN = {"/healthz", "/readyz", "/v1/version", "/v1/schemas/{name}", "/v1/public-keys"}


def test_every_path_but_the_harmless_ones_needs_a_key(guarded: Service) -> None:
    """On the document's own list, so that a new route cannot be forgotten."""
    asked = 0
    for path, operations in describe_app().openapi()["paths"].items():
        for method in operations:
            if path in OPEN:
                continue
            asked += 1
            filled = path.replace("{model_id}", "sha256:" + "0" * 64).replace(
                "{certificate_id}", "sha256:" + "0" * 64
            )
            filled = filled.replace("{job_id}", "0" * 32).replace("{key_id}", "0" * 8)
            filled = filled.replace("{webhook_id}", "0" * 32).replace("{delivery_id}", "0" * 32)
            filled = filled.replace("{policy_name}", "x").replace("{gate_id}", "0" * 32)
            assert "{" not in filled
            answer = guarded.client.request(method, filled)
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            if method != "head":
                assert problem(answer)["code"] == "unauthorized"
    assert 15 <= asked
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("text", ["?", "lck_00000000_" + "A" * 43, "lck_é"])
def test_what_is_no_key_opens_nothing(text: str, guarded: Service) -> None:
    headers = {b"Authorization": f"Bearer {text}".encode()}
    answer = guarded.client.get("/v1/jobs", headers=headers)
    assert answer.status_code == 401
    assert text not in answer.text


def test_a_scope_allows_what_stands_before_it_and_no_more(client: Key) -> None:
    reading, submitting, admin = (client(scope) for scope in SCOPES)
    headers = {"Content-Type": "application/octet-stream"}
    refused = reading.post("/v1/models", content=model("scope"), headers=headers)
    assert (refused.status_code, problem(refused)["code"]) == (403, "forbidden")
    name = upload(submitting, model("scope"))
    for one in (reading, submitting, admin):
        assert one.get(f"/v1/models/{name}").status_code == 200
    for one in (reading, submitting):
        assert one.get("/v1/keys").status_code == 403
        assert one.post("/v1/keys", json={"scope": "read"}).status_code == 403
    assert admin.get("/v1/keys").status_code == 200


def test_policies_are_the_admins_and_gates_the_tenants(client: Key) -> None:
    admin, submitting = client(tenant="gating"), client("submit", tenant="gating")
    policy = {"version": 1, "rules": [{"name": "one", "max_bound": 5}]}
    refused = submitting.put("/v1/policies/p", json=policy)
    assert problem(refused)["code"] == "forbidden"
    stored = admin.put("/v1/policies/p", json=policy).json()
    assert submitting.delete("/v1/policies/p").status_code == 403
    body = {"model": upload(submitting, model("gating")), "policy": "p"}
    assert client("read", tenant="gating").post("/v1/gates", json=body).status_code == 403
    gate = submitting.post("/v1/gates", json=body, headers={"Prefer": "wait=30"}).json()
    theirs = client(tenant="another")
    for path in (
        "/v1/policies/p",
        f"/v1/policies/{stored['digest']}",
        f"/v1/gates/{gate['id']}",
        f"/v1/gates/{gate['id']}/badge.svg",
    ):
        assert submitting.get(path).status_code == 200, path
        assert theirs.get(path).status_code == 404, path
    assert theirs.get(f"/v1/gates/{gate['id']}/attestation").status_code == 404
    assert theirs.delete("/v1/policies/p").status_code == 404
    for path in ("/v1/gates", "/v1/policies"):
        assert theirs.get(path).json()["items"] == []
    upload(theirs, model("gating"))
    assert theirs.post("/v1/gates", json=body).status_code == 404


def test_tenants_do_not_see_each_other(client: Key) -> None:
    ours, theirs = client(tenant="ours"), client(tenant="theirs")
    name = upload(ours, model("secret"))
    job = ours.post("/v1/jobs", json={"model": name}, headers={"Prefer": "wait=20"}).json()
    assert job["state"] == "succeeded", job
    certificate = ours.get(f"/v1/jobs/{job['id']}/certificate")
    assert certificate.headers["cache-control"].startswith("private")
    for path in (
        f"/v1/models/{name}",
        f"/v1/models/{name}/content",
        f"/v1/jobs/{job['id']}",
        f"/v1/jobs/{job['id']}/events",
        f"/v1/certificates/{job['certificate']}",
    ):
        assert ours.get(path).status_code == 200, path
        assert theirs.get(path).status_code == 404, path
    assert theirs.post(f"/v1/jobs/{job['id']}/cancel").status_code == 404
    assert theirs.post("/v1/jobs", json={"model": name}).status_code == 404
    assert theirs.delete(f"/v1/models/{name}").status_code == 404
    for path in ("/v1/models", "/v1/jobs", "/v1/certificates"):
        assert theirs.get(path).json()["items"] == []
        assert len(ours.get(path).json()["items"]) == 1


def test_a_tenants_admin_rotates_its_keys(client: Key) -> None:
    admin = client(tenant="rotating")
    (first,) = admin.get("/v1/keys").json()["items"]
    end = datetime.now(UTC) + timedelta(days=30)
    asked = {"scope": "admin", "label": "next", "expires": end.isoformat()}
    made = admin.post("/v1/keys", json=asked)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    successor = client(text=made.json()["key"])
    assert successor.delete(f"/v1/keys/{first['id']}").status_code == 204
    refused = admin.get("/v1/keys")
    assert refused.status_code == 401
    listed = successor.get("/v1/keys").json()["items"]
    assert [(key["label"], key["revoked"] is None) for key in listed] == [
        ("next", True),
        ("", False),
    ]
    assert listed[0]["last_used"] is not None
    assert "digest" not in listed[0]
    assert made.json()["key"] not in successor.get("/v1/keys").text


def test_a_key_of_another_tenant_cannot_be_revoked(client: Key) -> None:
    mine, other = client(tenant="mine"), client(tenant="other")
    (victim,) = mine.get("/v1/keys").json()["items"]
    assert other.delete(f"/v1/keys/{victim['id']}").status_code == 404
    assert mine.get("/v1/keys").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scope": "root"},
        {"scope": "read", "tenant": "other"},
        {"scope": "read", "expires": "yesterday"},
        {"scope": "read", "expires": "2020-01-01T00:00:00Z"},
        {"scope": "read", "label": "x" * 201},
        [],
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(body: object, client: Key) -> None:
    answer = client(tenant="sensible").post("/v1/keys", json=body)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid-request")


def test_an_expired_key_opens_nothing(guarded: Service, client: Key) -> None:
    _, text = make(guarded.settings, "read", expires=now_ms() - 1)
    answer = client(text=text).get("/v1/jobs")
    assert answer.status_code == 401
    assert "expired" in problem(answer)["detail"]


def test_over_the_network_nobody_makes_the_first_key(service: Service) -> None:
    answer = service.client.post("/v1/keys", json={"scope": "admin"})
    assert (answer.status_code, problem(answer)["code"]) == (403, "forbidden")
    assert service.client.get("/v1/jobs").status_code == 200


def test_a_revoked_last_key_does_not_open_the_service(own_service: Callable[..., Service]) -> None:
    service = own_service()
    assert service.client.get("/v1/jobs").status_code == 200
    key_id, _ = make(service.settings, "admin")
    assert service.client.get("/v1/jobs").status_code == 401  # at once, without a restart
    with ready_database(service.settings) as database, database.write() as connection:
        assert keys.revoke(connection, "default", key_id, now_ms())
    assert service.client.get("/v1/jobs").status_code == 401


def test_an_address_beyond_loopback_needs_a_key(tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path), host="0.0.0.0")  # noqa: S104 - not bound here
    with pytest.raises(InvalidRequest, match="no keys"):
        require_safe_bind(settings, has_keys=False)
    require_safe_bind(settings, has_keys=True)


def test_the_command_makes_lists_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lipcert(*arguments: str) -> tuple[int, str]:
        code = cli.run(["api-keys", *arguments, "--data", str(tmp_path / "data")])
        return code, capsys.readouterr().out

    code, text = lipcert("new", "--scope", "read", "--label", "ci", "--days", "1")
    parts = parts_of(text.strip())
    assert code == 0
    assert parts is not None
    assert "read    valid      used never  ci" in lipcert("list")[1]
    assert parts[1] not in lipcert("list")[1]
    assert lipcert("revoke", parts[0])[0] == 0
    assert "not valid" in lipcert("list")[1]
    assert lipcert("revoke", "00000000")[0] == 3
    assert lipcert("new", "--scope", "root")[0] == 3
    assert lipcert("new", "--days", "-1")[0] == 3
    secrets = (tmp_path / "data" / "lipcert.db").read_bytes()
    assert parts[1].encode() not in secrets


def test_a_secret_opens_its_own_key_alone() -> None:
    (first, digest, text), (_, _, other) = new_secret(), new_secret()
    key = ApiKey(
        id=first,
        tenant="",
        digest=digest,
        scope="read",
        label="",
        created=0,
        expires=None,
        revoked=None,
        last_used=None,
    )
    own, foreign = parts_of(text), parts_of(other)
    assert own is not None
    assert foreign is not None
    assert matches(key, own[1])
    assert not matches(key, foreign[1])
    assert key.is_valid(int(time.time() * 1000))

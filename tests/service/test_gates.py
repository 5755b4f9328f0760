"""Gates over REST: a job for every rule, one decision, whatever dies on the way to it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from service_fakes import model
from service_process import Service, eventually, kill, problem, processes

HOSTILE = "</title><script>alert(1)</script>&\"'|"


def rule(name: str, max_bound: float, **members: object) -> dict[str, object]:
    return {"name": name, "max_bound": max_bound, "budget": {"seconds": 30}, **members}


def put(service: Service, name: str, *rules: dict[str, object]) -> str:
    """The digest of a policy that is stored under a name."""
    body = {"version": 1, "rules": rules}
    answer = service.client.put(f"/v1/policies/{name}", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["digest"]


def ask(
    service: Service, model_id: str, policy: str, wait: int = 30, key: str | None = None
) -> httpx.Response:
    headers = {"Prefer": f"wait={wait}"} | ({} if key is None else {"Idempotency-Key": key})
    body = {"model": model_id, "policy": policy}
    answer = service.client.post("/v1/gates", json=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    # On a machine that is slower than that the answer comes before the decision.
    return eventually(lambda: _decided(service, answer)) if wait else answer


def _decided(service: Service, answer: httpx.Response) -> httpx.Response | None:
    if answer.status_code == 202:
        answer = get(service, answer.json()["id"], Prefer="wait=30")
    return None if answer.json()["outcome"] == "pending" else answer


def get(service: Service, gate_id: str, **headers: str) -> httpx.Response:
    return service.client.get(f"/v1/gates/{gate_id}", headers=headers)


def test_every_rule_is_compared_with_what_was_checked(service: Service) -> None:
    """The bound is 4, and a witness reaches 1."""
    digest = put(
        service,
        "all-outcomes",
        rule("passes", 5.0),
        rule("fails", 0.5),
        rule("undecided", 2.0),
        rule("warns", 3.0, on_undecided="warn"),
    )
    answer = ask(service, service.upload(model("all outcomes")), "all-outcomes")
    gate = answer.json()
    assert (answer.status_code, gate["outcome"], gate["exit_code"]) == (200, "fail", 1)
    assert gate["policy"] == {"name": "all-outcomes", "version": 1, "digest": digest}
    shown = [(one["name"], one["outcome"], one["blocking"]) for one in gate["rules"]]
    assert shown == [
        ("passes", "pass", False),
        ("fails", "fail", True),
        ("undecided", "undecided", True),
        ("warns", "undecided", False),
    ]
    first = gate["rules"][0]
    numbers = (first["bound"], first["max_bound"], first["margin"], first["lower_bound"])
    assert numbers == (4.0, 5.0, 1.0, 1.0)
    assert 0 <= first["seconds"] < 30
    job = service.job(first["job"])
    assert (job["certificate"], job["labels"]) == (first["certificate"], {"gate": gate["id"]})
    assert job["target"] == {"upper": 5.0}


def test_a_gate_is_waited_for(service: Service, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    put(service, "waited", rule("one", 5.0))
    answer = ask(service, service.upload(model(["wait-for", str(opened)])), "waited@1", wait=0)
    gate = answer.json()
    assert (answer.status_code, gate["outcome"], gate["exit_code"]) == (202, "pending", None)
    assert answer.headers["retry-after"] == "1"
    assert (gate["rules"][0]["outcome"], gate["rules"][0]["bound"]) == ("pending", None)
    path = f"/v1/gates/{gate['id']}"
    assert answer.headers["location"] == path
    known = {"If-None-Match": answer.headers["etag"]}
    assert get(service, gate["id"], **known, Prefer="wait=0").status_code == 304
    report = get(service, gate["id"], Accept="application/xml")
    for early in (report, service.client.get(f"{path}/attestation")):
        assert (problem(early)["code"], early.status_code) == ("not-finished", 409)
    assert ">pending</text>" in service.client.get(f"{path}/badge.svg").text
    opened.touch()
    decided = get(service, gate["id"], **known, Prefer="wait=30")
    assert (decided.status_code, decided.json()["outcome"]) == (200, "pass")
    again = {"If-None-Match": decided.headers["etag"]}
    assert get(service, gate["id"], **again).status_code == 304


def test_a_repeated_call_makes_one_gate(service: Service) -> None:
    put(service, "repeated", rule("one", 5.0))
    model_id = service.upload(model("repeated"))
    first = ask(service, model_id, "repeated", key="once").json()
    put(service, "repeated", rule("one", 6.0))  # the same call is still the same gate
    assert ask(service, model_id, "repeated", key="once").json() == first
    body, headers = {"model": model_id, "policy": "repeated@2"}, {"Idempotency-Key": "once"}
    other = service.client.post("/v1/gates", json=body, headers=headers)
    assert problem(other)["code"] == "idempotency-key-reused"
    listed = service.client.get(f"/v1/gates?model={model_id}").json()["items"]
    assert [gate["id"] for gate in listed] == [first["id"]]


def test_what_was_proved_before_is_checked_again(service: Service) -> None:
    """The same question is answered from what is stored; bytes that have changed do not count."""
    put(service, "stored", rule("one", 5.0))
    model_id = service.upload(model("stored"))
    first = ask(service, model_id, "stored").json()["rules"][0]
    second = ask(service, model_id, "stored").json()["rules"][0]
    assert service.job(second["job"])["cached"]
    assert (second["outcome"], second["certificate"]) == ("pass", first["certificate"])
    with closing(sqlite3.connect(service.settings.data / "lipcert.db")) as database:
        query = "SELECT blob FROM certificate WHERE id = ?"
        (blob,) = database.execute(query, (first["certificate"],)).fetchone()
    path = service.settings.data / "certificates" / "default" / blob
    text = path.read_bytes()
    assert b'"bound":4,' in text
    path.write_bytes(text.replace(b'"bound":4,', b'"bound":3,'))
    third = ask(service, model_id, "stored").json()
    assert (third["outcome"], third["exit_code"]) == ("fail", 4)
    told = third["rules"][0]
    assert (told["outcome"], told["error"]["code"]) == ("error", "check-rejected")
    path.unlink()
    assert ask(service, model_id, "stored").json()["outcome"] == "fail"


def test_a_rule_without_a_certificate_keeps_the_gate_shut(service: Service) -> None:
    put(service, "jumping", rule("one", 5.0, on_undecided="warn"))
    gate = ask(service, service.upload(model("jump")), "jumping").json()
    assert (gate["outcome"], gate["exit_code"]) == ("fail", 3)
    told = gate["rules"][0]
    assert (told["outcome"], told["error"]["node"]) == ("error", "sign_1")
    assert (told["bound"], told["certificate"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"policy": "missing"}, 404, "not-found"),
        ({"policy": "asked@7"}, 404, "not-found"),
        ({"policy": "sha256:" + "0" * 64}, 404, "not-found"),
        ({"policy": "../x"}, 422, "invalid-request"),
        ({"model": "sha256:" + "0" * 64}, 404, "not-found"),
        ({"extra": 1}, 422, "invalid-request"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(
    changes: dict[str, object], status: int, code: str, service: Service
) -> None:
    put(service, "asked", rule("one", 5.0))
    body = {"model": service.upload(model("asked")), "policy": "asked", **changes}
    key = {"Idempotency-Key": f"refused-{code}-{status}"}
    refused = service.client.post("/v1/gates", json=body, headers=key)
    assert (refused.status_code, problem(refused)["code"]) == (status, code)


def test_a_policy_that_is_gone_is_used_no_more(service: Service) -> None:
    digest = put(service, "gone", rule("only here", 5.0))
    model_id = service.upload(model("gone"))
    assert ask(service, model_id, digest).json()["outcome"] == "pass"
    service.client.delete("/v1/policies/gone")
    for reference in ("gone", digest):
        body = {"model": model_id, "policy": reference}
        assert service.client.post("/v1/gates", json=body).status_code == 404
    assert service.client.get(f"/v1/policies/{digest}").status_code == 200


def test_reports_hold_hostile_names(service: Service) -> None:
    put(service, "hostile", rule(HOSTILE, 0.5))
    gate = ask(service, service.upload(model("hostile names")), "hostile").json()
    junit = get(service, gate["id"], Accept="application/xml")
    (case,) = ElementTree.fromstring(junit.text).findall("testcase")  # noqa: S314 - ours
    assert (case.get("name"), len(case.findall("failure"))) == (HOSTILE, 1)
    sarif = get(service, gate["id"], Accept="application/sarif+json").json()
    assert sarif["runs"][0]["results"][0]["ruleId"] == HOSTILE
    markdown = get(service, gate["id"], Accept="text/markdown")
    assert "<script>" not in markdown.text.replace("\\<", "")
    assert markdown.headers["vary"] == "Accept"
    assert problem(get(service, gate["id"], Accept="image/png"))["code"] == "not-acceptable"
    badge = service.client.get(f"/v1/gates/{gate['id']}/badge.svg")
    assert badge.headers["content-security-policy"] == "default-src 'none'"
    picture = ElementTree.fromstring(badge.text)  # noqa: S314 - ours
    assert picture[0].text == "hostile@1: fail"
    assert "http" not in badge.text.replace("http://www.w3.org/2000/svg", "")
    unsigned = service.client.get(f"/v1/gates/{gate['id']}/attestation")
    assert (unsigned.status_code, problem(unsigned)["code"]) == (409, "not-signed")


def test_a_crash_before_the_decision_is_made_good(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    """The dispatcher dies when all jobs have ended, and a certificate is being checked again."""
    service, opened = own_service(slots=1, check_s=60.0), tmp_path / "opened"
    put(service, "crash", rule("one", 5.0))
    model_id = service.upload(model(["check-waits-for", str(opened)]))
    opened.touch()
    assert ask(service, model_id, "crash").json()["outcome"] == "pass"
    opened.unlink()
    pending = ask(service, model_id, "crash", wait=0).json()
    dispatcher = service.dispatcher()

    def checks() -> bool:
        # One waits warm; a second one is at work.
        return 2 <= sum("check_child" in text for _, text in processes(dispatcher))

    eventually(checks)
    # Meanwhile other gates are decided.
    assert ask(service, service.upload(model("no crash")), "crash").json()["outcome"] == "pass"
    assert get(service, pending["id"]).json()["outcome"] == "pending"
    assert service.job(pending["rules"][0]["job"])["state"] == "succeeded"
    kill(dispatcher)
    opened.touch()
    decided = get(service, pending["id"], Prefer="wait=30").json()
    assert (decided["outcome"], decided["version"]) == ("pass", 2)


@pytest.mark.parametrize(
    ("allowed", "outcome"), [([], "error"), (["overridable-initializer"], "pass")]
)
def test_a_rule_says_what_a_bound_may_rest_on(
    service: Service, allowed: list[str], outcome: str
) -> None:
    """As in `lipcert gate` (test_bindings); also where the bound was proved before."""
    frozen = {"options": {"freeze_initializers": True}, "allow_assumptions": allowed}
    name = f"frozen-{outcome}"
    put(service, name, rule("one", 5.0, **frozen))
    stored = service.client.get(f"/v1/policies/{name}").json()["policy"]["rules"][0]
    assert stored.get("allow_assumptions", []) == allowed
    model_id = service.upload(model(name))
    for is_cached in (False, True):
        gate = ask(service, model_id, name).json()
        told = gate["rules"][0]
        assert (gate["outcome"], told["outcome"]) == ("pass" if allowed else "fail", outcome)
        assert allowed or told["error"]["detail"].endswith("overridable-initializer ('w')")
        assert service.job(told["job"])["cached"] == is_cached


def test_a_rule_says_which_function_counts(service: Service) -> None:
    """What was proved of one is no answer about the other."""
    model_id = service.upload(model("semantics"))
    put(service, "own", rule("own", 5.0))
    put(service, "near", rule("own", 5.0), rule("near", 5.0, semantics="real-idealised"))
    stored = service.client.get("/v1/policies/near").json()["policy"]["rules"]
    assert [one.get("semantics") for one in stored] == [None, "real-idealised"]
    assert ask(service, model_id, "own").json()["outcome"] == "pass"
    for is_cached in (False, True):  # proved by its own job, then checked again
        gate = ask(service, model_id, "near").json()
        assert [one["outcome"] for one in gate["rules"]] == ["pass", "pass"]
        jobs = [service.job(one["job"]) for one in gate["rules"]]
        assert [job["cached"] for job in jobs] == [True, is_cached]


def test_a_canceled_gate_ends_with_what_its_jobs_do(service: Service, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    put(service, "canceled", rule("one", 5.0), rule("two", 6.0), rule("three", 7.0))
    model_id = service.upload(model(["wait-for", str(opened)]))
    gate = ask(service, model_id, "canceled", wait=0).json()
    path = f"/v1/gates/{gate['id']}"
    answer = service.client.post(f"{path}/cancel")
    ended = answer.json()
    assert (answer.status_code, ended["outcome"], ended["exit_code"]) == (200, "canceled", 4)
    assert {one["outcome"] for one in ended["rules"]} == {"canceled"}
    # Two ran, one waited; the file that they wait for never comes.
    jobs = [service.ended(one["job"]) for one in gate["rules"]]
    assert [job["state"] for job in jobs] == ["canceled"] * 3
    assert service.client.post(f"{path}/cancel").json() == ended  # again: nothing happens
    assert get(service, gate["id"], Prefer="wait=30").json() == ended
    for refused in (
        get(service, gate["id"], Accept="text/markdown"),
        service.client.get(f"{path}/attestation"),
    ):
        assert (problem(refused)["code"], refused.status_code) == ("gate-canceled", 409)
    assert ">canceled</text>" in service.client.get(f"{path}/badge.svg").text
    listed = service.client.get("/v1/gates?outcome=canceled").json()["items"]
    assert gate["id"] in [one["id"] for one in listed]
    absent = service.client.post(f"/v1/gates/{'0' * 32}/cancel")
    assert problem(absent)["code"] == "not-found"
    decided = ask(service, service.upload(model("decided")), "canceled").json()
    assert service.client.post(f"/v1/gates/{decided['id']}/cancel").json() == decided

"""What operators see: metrics that Prometheus can read, logs of one object a line, no secrets."""

import io
import json
import logging
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_fakes import model
from service_process import Service, eventually

from service.logs import JsonLines
from service.store import keys
from service.store.coordination import now_ms
from service.store.engine import open_database

Sample = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(service: Service) -> Sample:
    """Every number by name and labels, as Prometheus' own parser reads it."""
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def number(found: Sample, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def _at_rest(service: Service) -> Sample | None:
    """The numbers of a service of which no job is left from other tests."""
    found = samples(service)
    states = [dict(labels).get("state") for name, labels in found if name == "lipcert_jobs"]
    return None if {"queued", "running"} & {*states} else found


def test_calls_are_counted_by_route(service: Service) -> None:
    route = {"method": "GET", "route": "/v1/jobs/{job_id}"}
    before = samples(service)
    for _ in range(3):
        service.client.get(f"/v1/jobs/{'0' * 32}")
    after = samples(service)
    name = "lipcert_http_requests_total"
    assert number(after, name, status="404", **route) == 3 + number(
        before, name, status="404", **route
    )
    count = "lipcert_http_request_seconds_count"
    assert number(after, count, **route) >= 3


def test_strangers_choose_no_labels(service: Service) -> None:
    service.client.get("/no/such/path/4711")
    service.client.request("BREW", "/v1/jobs")
    text = service.client.get("/metrics").text
    assert "4711" not in text
    assert "BREW" not in text
    assert number(
        samples(service),
        "lipcert_http_requests_total",
        method="GET",
        route="unmatched",
        status="404",
    )


def test_jobs_are_counted_by_state(service: Service) -> None:
    labels = {"kind": "verify", "state": "succeeded"}
    before = eventually(lambda: _at_rest(service))
    job = service.submit(service.upload(model("observed")), wait=30)
    assert job["state"] == "succeeded"
    after = samples(service)
    assert number(after, "lipcert_jobs", **labels) == 1 + number(before, "lipcert_jobs", **labels)
    assert number(after, "lipcert_dispatcher_up") == 1.0
    assert number(after, "lipcert_certificates") >= 1.0


def test_logs_name_calls_and_jobs_and_no_secret(
    own_service: Callable[..., Service], capfd: pytest.CaptureFixture[str]
) -> None:
    service = own_service()
    job = service.submit(service.upload(model("logged")), wait=30)
    database = open_database(service.settings.database)
    with database.write() as connection:
        _, text = keys.add(
            connection, "default", scope="read", label="", expires=None, now=now_ms()
        )
    database.close()
    headers = {"Authorization": f"Bearer {text}", "X-Request-Id": "mine-1"}
    assert service.client.get(f"/v1/jobs/{job['id']}", headers=headers).status_code == 200
    service.stop()
    said = capfd.readouterr().err
    assert text not in said
    assert text.rpartition("_")[2] not in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "message"} <= set(lines[0])
    assert any(
        line.get("request_id") == "mine-1" and line["message"] == "GET /v1/jobs/{job_id} 200"
        for line in lines
    )
    told = [line["message"] for line in lines if line.get("job") == job["id"]]
    assert told == ["attempt started", "attempt ended"]


def test_an_error_is_still_one_line() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        int("two\nlines")
    except ValueError:
        log.exception("it %s", "failed", extra={"with": {"job": "1"}})
    (line,) = out.getvalue().splitlines()
    members = json.loads(line)
    assert (members["message"], members["job"], members["level"]) == ("it failed", "1", "error")
    assert "ValueError: invalid literal" in members["error"]


def test_metrics_are_told_to_whoever_may_read(own_service: Callable[..., Service]) -> None:
    service = own_service()
    assert eventually(lambda: service.client.get("/metrics").status_code == 200)
    database = open_database(service.settings.database)
    with database.write() as connection:
        keys.add(connection, "default", scope="read", label="", expires=None, now=now_ms())
    database.close()
    assert service.client.get("/metrics").status_code == 401

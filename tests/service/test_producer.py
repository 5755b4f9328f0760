"""Every certificate says what sandbox the process was in that found it, outside its id."""

from dataclasses import replace

import pytest
from service_fakes import certificate, model
from service_process import Service

from service.producer import found_in, told_in
from verifier.certificate_json import certificate_id, certificate_json
from verifier.property import Request

LEVEL = "partial(seccomp)"


def test_the_service_tells_what_its_readiness_tells(service: Service) -> None:
    job = service.submit(service.upload(model("sandboxed")), wait=20)
    said = service.client.get(f"/v1/certificates/{job['certificate']}").json()["producer"]
    assert said["sandbox"] == service.client.get("/readyz").json()["sandbox"] != "none"


def test_the_sandbox_is_outside_the_id() -> None:
    plain = certificate(model(), Request(), 4.0)
    told = found_in(plain, LEVEL)
    assert told.producer["sandbox"] == LEVEL
    assert replace(told, producer=plain.producer) == plain
    assert certificate_id(told) == certificate_id(plain)


@pytest.mark.parametrize("kind", ["certificate", "ring", "radii"])
def test_a_child_tells_it_of_every_certificate(kind: str) -> None:
    plain = certificate_json(certificate(model(), Request(), 4.0))
    told = {**plain, "producer": {"version": "test", "torch": None, "seed": 0, "sandbox": LEVEL}}

    def message(one: object) -> dict[str, object]:
        ring = {"label": 0, "certificate": one}
        said = {"certificate": one, "ring": [3, ring], "radii": {"model": "m", "radii": [ring]}}
        return {kind: said[kind]}

    assert told_in(message(plain), LEVEL) == message(told)


def test_what_is_no_certificate_stays_as_it_is() -> None:
    none: dict[str, object] = {"radii": {"radii": [{"label": 0, "certificate": None}]}}
    assert told_in(none, LEVEL) == none
    assert told_in({"progress": {}}, LEVEL) == {"progress": {}}

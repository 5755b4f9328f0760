"""The judge of statements judges: what it lets pass and what not. It judges in every other test."""

import importlib
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tenant_guard import FOR_ALL_TENANTS, lacks_tenant

SERVICE = Path(__file__).parents[2] / "service"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT job.id FROM job WHERE job.tenant = ? AND job.id = ?", None),
        ("SELECT job.id FROM job WHERE job.id = ?", "job"),
        ("SELECT job.id FROM model, job WHERE model.tenant = ?", "job"),
        ("SELECT 1 FROM model JOIN job ON job.model = model.id WHERE job.tenant = ?", "model"),
        ("UPDATE job SET state=? WHERE job.tenant = %(t)s::VARCHAR", None),
        ("UPDATE job SET tenant=? WHERE job.id = ?", "job"),
        ("DELETE FROM idempotency WHERE idempotency.created < ?", "idempotency"),
        ("INSERT INTO model (tenant, id) VALUES (?, ?)", None),
        ("INSERT INTO model (id, size) VALUES (?, ?)", "model"),
        ("SELECT dispatcher.report FROM dispatcher", None),
    ],
)
def test_statements_are_judged_by_their_text(statement: str, expected: str | None) -> None:
    assert lacks_tenant(statement) == expected


def test_a_statement_of_the_service_without_a_tenant_is_refused() -> None:
    connection = create_engine("sqlite://").connect()
    planted = {"__name__": "service.planted", "connection": connection, "text": text}
    with pytest.raises(AssertionError, match=r"planted.*'job' without a tenant"):
        exec("def leak(): connection.execute(text('SELECT 1 FROM job'))\nleak()", planted)  # noqa: S102
    connection.close()
    connection.engine.dispose()


def test_the_list_has_nothing_that_does_not_exist() -> None:
    for module, function in FOR_ALL_TENANTS - {("metrics", "collect")}:
        assert hasattr(importlib.import_module(f"service.store.{module}"), function)

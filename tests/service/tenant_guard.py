"""Every statement that the service emits names a tenant, or is one of a short list.

Installed in the tests' own process and in that of every API they start, so that whatever a test
does is judged, on both databases. What is judged is the SQL as the driver gets it:

- INSERT INTO a tenant's table has the column `tenant`;
- SELECT, UPDATE, DELETE that read or write a tenant's table compare its `tenant` with something.
"""

import inspect
import re
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sqlalchemy import Engine, event

from service.store.tables import metadata

#: What works for all tenants, or comes before it is known whose a request is: module, function.
FOR_ALL_TENANTS = {
    # the dispatchers' queue
    ("leases", "has_work"),
    ("leases", "claim"),
    ("leases", "heartbeat"),
    ("leases", "held"),
    ("leases", "give_back_unknown"),
    ("leases", "lapse"),
    ("leases", "sweep"),
    ("leases", "needs_sweep"),
    ("retention", "forget_checkpoints"),
    # the deliverer's queue
    ("tries", "due"),
    ("tries", "sweep"),
    ("tries", "prune"),
    # gates that the dispatchers decide
    ("gates", "ripe"),
    # waking those who wait, each for a job or gate of its own
    ("gates", "decided_among"),
    ("jobs", "changed_after"),
    ("jobs", "last_change"),
    # whose key is it?
    ("keys", "of_any_tenant"),
    ("keys", "exist"),
    ("keys", "note_use"),
    # whether the whole service's queue has room
    ("jobs", "queue_length"),
    # the operator's view
    ("audit", "tenants"),
    ("limits", "tenants"),
    ("metrics", "collect"),
    ("migrate", "_upgrade"),
}

TABLES = {table.name for table in metadata.tables.values() if "tenant" in table.c}


def install() -> None:
    """Judge every statement of this process."""
    if not event.contains(Engine, "before_cursor_execute", _judge):
        event.listen(Engine, "before_cursor_execute", _judge)


def lacks_tenant(statement: str) -> str | None:
    """The table that a statement touches without naming a tenant, if there is one."""
    inserted = re.match(r"INSERT INTO (\w+) \(([^)]*)\)", statement)
    if inserted is not None:
        table, columns = inserted.groups()
        has_tenant = "tenant" in columns.split(", ")
        return table if table in TABLES and not has_tenant else None
    touched = re.findall(r"\b(?:FROM|JOIN|UPDATE)\s+(\w+(?:, \w+)*)", statement)
    names = {name for group in touched for name in group.split(", ")} & TABLES
    missing = {name for name in names if not re.search(rf"\b{name}\.tenant = ", statement)}
    return min(missing, default=None)


def _judge(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401 - events
    table = lacks_tenant(statement)
    if table is None:
        return
    names: list[tuple[str, str]] = []
    for frame in _frames():
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("service."):
            names.append((module.rpartition(".")[2], frame.f_code.co_name))
        elif not names and "/tests/" in frame.f_code.co_filename and module != __name__:
            return  # a test looks for itself
    if not FOR_ALL_TENANTS & set(names):
        raise AssertionError(f"{names[:3]} touches {table!r} without a tenant: {statement}")


def _frames() -> Iterator[FrameType]:
    """The callers of a statement, from the innermost."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back

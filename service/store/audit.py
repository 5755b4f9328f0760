"""The audit log: what was done in a tenant's name, in a chain that shows every later change.

    hash(n) = SHA-256 of the canonical JSON of row n without its hash, hash(n - 1) in it as
              `previous`; `previous` of row 1 is 64 zeros

Whoever changes, removes or reorders a row breaks the chain from there on, unless they compute all
later hashes again; and then the last one, the head, is another than the one that the operator
noted. A row is written in the transaction that does what it tells.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Connection, select

from service.store.coordination import now_ms
from service.store.inserts import insert_if_new
from service.store.paging import Columns
from service.store.tables import audit
from verifier.canonical_json import Json, content_id

START = "0" * 64  #: what stands for the hash before the first row
PAGE = 1000  #: rows that verifying reads at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row."""

    tenant: str
    seq: int
    at: int
    actor: str  #: key:<id>, operator, dispatcher, or anyone: where there are no keys
    action: str
    subject: str
    details: Mapping[str, object]
    previous: str
    hash: str

    @property
    def right_hash(self) -> str:
        """The hash that the row's content has, whatever it says."""
        return _hash({name: getattr(self, name) for name in CHAINED})


#: What a row's hash is about.
CHAINED = ("tenant", "seq", "at", "actor", "action", "subject", "details", "previous")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its last row's number and hash."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """What an operator keeps."""
        return f"{self.seq}:{self.hash}"


def append(
    connection: Connection,
    tenant: str,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, object],
) -> Head:
    """The new end of the tenant's chain, in this transaction.

    Args:
        connection: of the transaction that does what is told.
        tenant: whose chain.
        actor: who did it: `key:<id>`, `operator`, `dispatcher`, `anyone`.
        action: what was done, as `key.created`.
        subject: to what: an id.
        details: JSON without secrets.
    """
    while True:
        last = head(connection, tenant)
        row: dict[str, object] = {
            "tenant": tenant,
            "seq": last.seq + 1,
            "at": now_ms(),
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": dict(details),
            "previous": last.hash,
        }
        row["hash"] = _hash(row)
        # Where writers do not take turns, another one may have taken the number: it has committed
        # when this says so, and the next look sees it.
        if insert_if_new(connection, audit, row):
            return Head(last.seq + 1, str(row["hash"]))


def head(connection: Connection, tenant: str) -> Head:
    """The end of the tenant's chain; of an empty one number 0."""
    row = connection.execute(
        select(audit.c.seq, audit.c.hash)
        .where(audit.c.tenant == tenant)
        .order_by(audit.c.seq.desc())
        .limit(1)
    ).one_or_none()
    return Head(0, START) if row is None else Head(row.seq, row.hash)


def after(connection: Connection, tenant: str, seq: int, limit: int) -> list[Entry]:
    """The rows after number `seq`, in order."""
    rows = connection.execute(
        select(audit)
        .where(audit.c.tenant == tenant, seq < audit.c.seq)
        .order_by(audit.c.seq)
        .limit(limit)
    )
    return [_entry(cast("Columns", row)) for row in rows.mappings()]


def fault(connection: Connection, tenant: str, kept: Head | None = None) -> str | None:
    """What is wrong with the tenant's chain; None: nothing.

    Args:
        connection: any.
        tenant: whose chain.
        kept: an end that the chain had earlier: it has to lead through it.
    """
    last = Head(0, START)
    for entry in _all(connection, tenant):
        if entry.seq != last.seq + 1:
            return f"row {last.seq + 1} is missing"
        if entry.previous != last.hash:
            return f"row {entry.seq} does not follow row {last.seq}"
        if entry.hash != entry.right_hash:
            return f"row {entry.seq} was changed"
        last = Head(entry.seq, entry.hash)
        if kept is not None and kept.seq == last.seq and kept != last:
            return f"row {kept.seq} is not the one that was kept"
    if kept is not None and last.seq < kept.seq:
        return f"rows {last.seq + 1} to {kept.seq} were removed from the end"
    return None


def tenants(connection: Connection) -> list[str]:
    """Every tenant that has a chain: for the operator, who is none of them."""
    return list(connection.scalars(select(audit.c.tenant).distinct().order_by(audit.c.tenant)))


def _all(connection: Connection, tenant: str) -> Iterator[Entry]:
    last = 0
    while rows := after(connection, tenant, last, PAGE):
        yield from rows
        last = rows[-1].seq


def _hash(row: Mapping[str, object]) -> str:
    return content_id(cast("Json", row)).removeprefix("sha256:")


def _entry(row: Columns) -> Entry:
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})

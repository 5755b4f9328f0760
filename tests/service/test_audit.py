"""The audit log: every row follows from the one before, and what was altered shows."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from service import cli
from service.store import audit, keys, leases, models
from service.store.audit import START, Head
from service.store.database import Database
from service.store.engine import open_database
from service.store.migrate import migrate
from service.store.tables import audit as table

TENANT = "default"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated database."""
    opened = open_database(tmp_path / "lipcert.db")
    migrate(opened, tmp_path / "lock")
    yield opened
    opened.close()


def write(database: Database, *subjects: str, tenant: str = TENANT) -> Head:
    end = Head(0, START)
    for subject in subjects:
        with database.write() as connection:
            end = audit.append(connection, tenant, "operator", "thing.done", subject, {"n": 1})
    return end


def fault(database: Database, kept: Head | None = None) -> str | None:
    with database.read() as connection:
        return audit.fault(connection, TENANT, kept)


def test_a_chain_that_nobody_touched_is_whole(database: Database) -> None:
    end = write(database, "a", "b", "c")
    write(database, "x", tenant="another")
    assert fault(database, end) is None
    with database.read() as connection:
        assert audit.head(connection, TENANT) == end
        assert [row.seq for row in audit.after(connection, TENANT, 1, 10)] == [2, 3]


@pytest.mark.parametrize(
    ("column", "value"),
    [("actor", "someone"), ("details", {"n": 2}), ("at", 0), ("subject", "z"), ("tenant", "z")],
)
def test_a_changed_row_shows(column: str, value: object, database: Database) -> None:
    write(database, "a", "b", "c")
    with database.write() as connection:
        change = update(table).where(table.c.tenant == TENANT, table.c.seq == 2)
        connection.execute(change.values({column: value}))
    assert fault(database) is not None


def test_a_row_with_a_new_hash_breaks_the_chain_behind_it(database: Database) -> None:
    write(database, "a", "b", "c")
    with database.write() as connection:
        second = audit.after(connection, TENANT, 1, 1)[0]
        change = update(table).where(table.c.tenant == TENANT, table.c.seq == 2)
        connection.execute(change.values(subject="z"))
        altered = audit.after(connection, TENANT, 1, 1)[0]
        connection.execute(change.values(hash=altered.right_hash))
    assert second.hash != altered.right_hash
    assert fault(database) == "row 3 does not follow row 2"


def test_a_removed_row_shows(database: Database) -> None:
    write(database, "a", "b", "c")
    with database.write() as connection:
        connection.execute(delete(table).where(table.c.tenant == TENANT, table.c.seq == 2))
    assert fault(database) == "row 2 is missing"


def test_reordered_rows_show(database: Database) -> None:
    write(database, "a", "b", "c")
    with database.write() as connection:
        for old, new in ((2, 9), (3, 2), (9, 3)):
            change = update(table).where(table.c.tenant == TENANT, table.c.seq == old)
            connection.execute(change.values(seq=new))
    assert fault(database) is not None


def test_rows_removed_from_the_end_show_to_who_kept_the_head(database: Database) -> None:
    end = write(database, "a", "b", "c")
    with database.write() as connection:
        connection.execute(delete(table).where(table.c.tenant == TENANT, table.c.seq == 3))
    assert fault(database) is None
    assert fault(database, end) == "rows 3 to 3 were removed from the end"
    write(database, "d")
    assert fault(database, end) == "row 3 is not the one that was kept"


def test_writers_at_once_lose_no_row(database: Database) -> None:
    writers = [Thread(target=write, args=(database, "a", "b", "c", "d", "e")) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert fault(database) is None
    with database.read() as connection:
        assert audit.head(connection, TENANT).seq == 20


def test_a_number_that_is_taken_is_not_taken_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where writers do not take turns: another one commits between the look and the insert."""
    write(database, "a")
    stale, real = iter([Head(0, START)]), audit.head

    def head(connection: Connection, tenant: str) -> Head:
        return next(stale, None) or real(connection, tenant)

    monkeypatch.setattr(audit, "head", head)
    assert write(database, "b").seq == 2
    assert fault(database) is None


def test_what_is_told_to_the_log(database: Database) -> None:
    """Keys, and certificates with the key that signed them; other calls have tests of routes."""
    ball = {"id": "sha256:c", "blob": "b", "size": 1, "kind": "lipschitz", "scope": "global"}
    best = {**ball, "verdict": None, "summary": {}, "signed_by": "k"}
    with database.write() as connection:
        key, _ = keys.add(connection, TENANT, scope="read", label="", expires=None, now=0)
        assert keys.revoke(connection, TENANT, key.id, 1, "key:abc")
        assert keys.revoke(connection, TENANT, key.id, 2)  # again: nothing happens
        models.add(connection, TENANT, "sha256:m", 1, 0, 3)
        claim = leases.claim(connection, "one", 0, 1000, ["inspect"])
        assert claim is not None
        assert leases.finish(connection, claim, "succeeded", 1, incumbent=best)
    with database.read() as connection:
        rows = audit.after(connection, TENANT, 0, 10)
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("operator", "key.created", key.id),
        ("key:abc", "key.revoked", key.id),
        ("dispatcher", "certificate.issued", "sha256:c"),
        ("dispatcher", "certificate.signed", "sha256:c"),
    ]
    assert rows[-1].details["keyid"] == "k"


def test_the_command_verifies_and_prints_the_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data", str(tmp_path)]
    assert cli.run(["api-keys", "new", *folder]) == 0
    assert cli.run(["audit", "list", *folder]) == 0
    assert "key.created" in capsys.readouterr().out
    assert cli.run(["audit", "verify", *folder]) == 0
    head = capsys.readouterr().out.split()[-1]
    kept = [*folder, "--tenant", "default", "--head", head]
    assert cli.run(["audit", "verify", *kept]) == 0
    assert cli.run(["audit", "verify", *folder, "--head", head]) == 3
    opened = open_database(tmp_path / "lipcert.db")
    with opened.write() as connection:
        row = dict(connection.execute(select(table)).mappings().one())
        connection.execute(delete(table))
    assert cli.run(["audit", "verify", *kept]) == 1
    with opened.write() as connection:
        connection.execute(insert(table).values(**{**row, "action": "key.forgotten"}))
    capsys.readouterr()
    assert cli.run(["audit", "verify", *folder]) == 1
    assert "row 1 was changed" in capsys.readouterr().out
    opened.close()

"""Inserts that meet a row of the same key: one spelling for SQLite and PostgreSQL."""

from collections.abc import Mapping

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_if_new(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Whether the row was written; False where one of its key is there, which stays as it is."""
    statement = _insert(connection, table).values(**row).on_conflict_do_nothing()
    # Not `rowcount`, which SQLAlchemy keeps for no INSERT on PostgreSQL: it is -1 there.
    written = statement.returning(*table.primary_key)
    return connection.execute(written).first() is not None


def insert_or_update(connection: Connection, table: Table, row: Mapping[str, object]) -> None:
    """Write the row, over one of the same primary key where it is there."""
    keys = [column.name for column in table.primary_key]
    others = {name: value for name, value in row.items() if name not in keys}
    statement = _insert(connection, table).values(**row)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others))


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)

"""What Alembic runs: the migrations, on the connection that `service.store.migrate` gives it."""

from alembic import context

from service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds the write lock already
    render_as_batch=True,  # SQLite alters a column by copying the table
)
context.run_migrations()

"""Labels that lists are filtered by, and the trace that a job belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply."""
    label = op.create_table(
        "label",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("thing", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kind", "thing", "name", name="pk_label"),
    )
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.create_index(
            "ix_label_value", ["tenant", "kind", "name", "value", "thing"], unique=False
        )
    with op.batch_alter_table("model", schema=None) as batch_op:
        batch_op.add_column(sa.Column("labels", sa.JSON(), nullable=True))
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trace", sa.String(), nullable=True))
    _label_jobs(label)


def _label_jobs(label: sa.Table) -> None:
    """Jobs that were labelled before are found by their labels, too."""
    job = sa.table(
        "job",
        sa.column("id", sa.String),
        sa.column("tenant", sa.String),
        sa.column("labels", sa.JSON),
    )
    for row in op.get_bind().execute(sa.select(job)).all():
        labels: dict[str, str] = row.labels or {}
        for name, value in labels.items():
            op.get_bind().execute(
                sa.insert(label).values(
                    tenant=row.tenant, kind="job", thing=row.id, name=name, value=value
                )
            )


def downgrade() -> None:
    """Undo."""
    # Not in a batch: that would drop the table of which others have foreign keys.
    op.drop_column("job", "trace")
    op.drop_column("model", "labels")
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.drop_index("ix_label_value")
    op.drop_table("label")

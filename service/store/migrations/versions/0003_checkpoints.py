"""Jobs that can be resumed: where their checkpoint is, and what they go on from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checkpoint", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("resumed_from", sa.String(), nullable=True))
        batch_op.create_index("ix_job_checkpoint", ["tenant", "checkpoint"], unique=False)


def downgrade() -> None:
    """Undo."""
    # Not in a batch: that would drop the table of which others have foreign keys.
    op.drop_index("ix_job_checkpoint", "job")
    op.drop_column("job", "resumed_from")
    op.drop_column("job", "checkpoint")

"""What a gate's certificates may rest on, which deliverers live, and checkpoints that are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Apply."""
    allowed = sa.Column("allow_assumptions", sa.JSON(none_as_null=True), nullable=True)
    op.add_column("gate_rule", allowed)
    op.add_column("job", sa.Column("checkpoint_removed", sa.BigInteger(), nullable=True))
    op.create_table(
        "deliverer",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_deliverer"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("deliverer")
    op.drop_column("job", "checkpoint_removed")
    op.drop_column("gate_rule", "allow_assumptions")

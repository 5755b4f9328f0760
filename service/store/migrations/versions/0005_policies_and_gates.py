"""Policies in versions, and the gates that they decided."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "policy",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("hidden", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "name", "version", name="pk_policy"),
    )
    with op.batch_alter_table("policy", schema=None) as batch_op:
        batch_op.create_index("ix_policy_digest", ["tenant", "digest"], unique=False)
    op.create_table(
        "gate",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("policy_digest", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("results", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("attestation", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("decided", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gate"),
    )
    with op.batch_alter_table("gate", schema=None) as batch_op:
        batch_op.create_index("ix_gate_list", ["tenant", "created", "id"], unique=False)
        batch_op.create_index("ix_gate_pending", ["outcome", "created"], unique=False)
    op.create_table(
        "gate_rule",
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("max_bound", sa.Float(), nullable=False),
        sa.Column("on_undecided", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("gate", "place", name="pk_gate_rule"),
        sa.ForeignKeyConstraint(["gate"], ["gate.id"], name="fk_gate_rule_gate"),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name="fk_gate_rule_job"),
    )
    op.create_table(
        "gate_key",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_gate_key"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("gate_key")
    op.drop_table("gate_rule")
    with op.batch_alter_table("gate", schema=None) as batch_op:
        batch_op.drop_index("ix_gate_pending")
        batch_op.drop_index("ix_gate_list")
    op.drop_table("gate")
    with op.batch_alter_table("policy", schema=None) as batch_op:
        batch_op.drop_index("ix_policy_digest")
    op.drop_table("policy")

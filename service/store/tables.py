"""The tables. Times are integer milliseconds since 1970 UTC; every row has its tenant."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

metadata = MetaData()

model = Table(
    "model",
    metadata,
    Column("tenant", String, nullable=False),
    Column("id", String, nullable=False),  # sha256:<hex> of the bytes
    Column("size", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # received, ready, refused
    Column("labels", JSON(none_as_null=True)),
    Column("summary", JSON(none_as_null=True)),  # what the importer understood
    Column("error", JSON(none_as_null=True)),  # why it was refused
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id", name="pk_model"),
    Index("ix_model_created", "tenant", "created", "id"),
)

job = Table(
    "job",
    metadata,
    Column("id", String, primary_key=True),  # 128 random bits
    Column("tenant", String, nullable=False),
    Column("kind", String, nullable=False),  # verify, radius; inspect: reading a model
    Column("state", String, nullable=False),
    Column("verdict", String),
    Column("model", String, nullable=False),
    Column("request", JSON(none_as_null=True), nullable=False),  # every member present
    Column("labels", JSON(none_as_null=True), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("key", String),  # of the result cache; the same question has the same key
    Column("attempt", Integer, nullable=False),  # the fencing token
    Column("max_attempts", Integer, nullable=False),
    Column("lease_owner", String),
    Column("lease_until", BigInteger),
    Column("cancel_requested", Boolean, nullable=False),
    Column("deadline", BigInteger),
    Column("progress", JSON(none_as_null=True), nullable=False),
    Column("incumbent", JSON(none_as_null=True)),  # the best checked bound, before the end
    Column("checkpoint", String),  # hex SHA-256 of what branch and bound goes on from
    Column("resumed_from", String),  # the job whose checkpoint this one began with
    Column("certificate", String),
    Column("cached", Boolean, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("created", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("ended", BigInteger),
    Column("version", Integer, nullable=False),
    Column("event_seq", Integer, nullable=False),  # the last event's number
    Column("change_seq", BigInteger, nullable=False),  # grows over all jobs: wakes waiters
    Column("trace", String),  # the W3C traceparent of the request that made it
    Index("ix_job_queue", "state", "priority", "created"),
    Index("ix_job_list", "tenant", "kind", "created", "id"),
    Index("ix_job_model", "tenant", "model", "state"),
    Index("ix_job_key", "tenant", "key"),
    Index("ix_job_change", "change_seq"),
    Index("ix_job_checkpoint", "tenant", "checkpoint"),
)

job_event = Table(
    "job_event",
    metadata,
    Column("job", String, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("tenant", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("type", String, nullable=False),  # state, progress, end
    Column("data", JSON(none_as_null=True), nullable=False),
    PrimaryKeyConstraint("job", "seq", name="pk_job_event"),
    ForeignKeyConstraint(["job"], ["job.id"], name="fk_job_event_job"),
)

certificate = Table(
    "certificate",
    metadata,
    Column("tenant", String, nullable=False),
    Column("id", String, nullable=False),
    Column("blob", String, nullable=False),  # hex SHA-256 of the stored canonical bytes
    Column("size", BigInteger, nullable=False),
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("summary", JSON(none_as_null=True), nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id", name="pk_certificate"),
    Index("ix_certificate_list", "tenant", "created", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", String, nullable=False),
    Column("key", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("job", String, nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "key", name="pk_idempotency"),
    ForeignKeyConstraint(["job"], ["job.id"], name="fk_idempotency_job"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String, primary_key=True),  # 8 characters, part of the key's text
    Column("tenant", String, nullable=False),
    Column("digest", String, nullable=False),  # hex SHA-256 of the secret
    Column("scope", String, nullable=False),  # read, submit, admin
    Column("label", String, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("last_used", BigInteger),
    Index("ix_api_key_list", "tenant", "created", "id"),
)

label = Table(
    "label",
    metadata,
    Column("tenant", String, nullable=False),
    Column("kind", String, nullable=False),  # of the thing: job, model
    Column("thing", String, nullable=False),  # its id
    Column("name", String, nullable=False),
    Column("value", String, nullable=False),
    PrimaryKeyConstraint("tenant", "kind", "thing", "name", name="pk_label"),
    Index("ix_label_value", "tenant", "kind", "name", "value", "thing"),
)

# Not a tenant's: which dispatcher is alive, for the readiness probe.
dispatcher = Table(
    "dispatcher",
    metadata,
    Column("owner", String, primary_key=True),
    Column("seen", BigInteger, nullable=False),
    Column("report", JSON(none_as_null=True), nullable=False),
)

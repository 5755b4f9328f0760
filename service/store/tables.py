"""The tables. Times are integer milliseconds since 1970 UTC; every row has its tenant."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
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
    Column("webhook", JSON(none_as_null=True)),  # ids of those that the submission names
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
    Column("checkpoint_removed", BigInteger),  # when it was, being old
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
    Index("ix_job_turn", "state", "tenant", "kind", "priority", "created"),
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

# What the operator decided for a tenant, where it is not the default.
tenant_limit = Table(
    "tenant_limit",
    metadata,
    Column("tenant", String, nullable=False),
    Column("name", String, nullable=False),  # of service.limits.LIMITS
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "name", name="pk_tenant_limit"),
)

# What a tenant's attempts took of the processors, day by day.
tenant_day = Table(
    "tenant_day",
    metadata,
    Column("tenant", String, nullable=False),
    Column("day", Integer, nullable=False),  # since 1970-01-01 UTC
    Column("cpu_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "day", name="pk_tenant_day"),
)

# When a tenant was served last: tenants take turns.
tenant_turn = Table(
    "tenant_turn",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("turn", BigInteger, nullable=False),  # grows over all tenants
)

# A chain for each tenant: rows are only ever added.
audit = Table(
    "audit",
    metadata,
    Column("tenant", String, nullable=False),
    Column("seq", BigInteger, nullable=False),  # 1, 2, ... without gaps
    Column("at", BigInteger, nullable=False),
    Column("actor", String, nullable=False),  # key:<id>, operator, dispatcher, anyone
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("details", JSON(none_as_null=True), nullable=False),
    Column("previous", String, nullable=False),  # the hash of row seq - 1
    Column("hash", String, nullable=False),
    PrimaryKeyConstraint("tenant", "seq", name="pk_audit"),
)

webhook = Table(
    "webhook",
    metadata,
    Column("id", String, primary_key=True),  # 128 random bits
    Column("tenant", String, nullable=False),
    Column("url", String, nullable=False),
    Column("events", JSON(none_as_null=True), nullable=False),  # that it wants
    Column("jobs", String, nullable=False),  # all, named: only those that name it
    Column("label", String, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("disabled", String),  # why the service has disabled it: failing, gone
    Column("failing_since", BigInteger),  # the first failed try after the last good one
    Column("sealed", String, nullable=False),  # the secret
    Column("old_sealed", String),  # the one before, which signs too until
    Column("old_until", BigInteger),
    Column("created", BigInteger, nullable=False),
    Index("ix_webhook_list", "tenant", "created", "id"),
)

# The outbox. No foreign key to the webhook: its removal must not undo the end of a job.
webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("id", String, primary_key=True),  # 128 random bits: the receiver's webhook-id
    Column("tenant", String, nullable=False),
    Column("webhook", String, nullable=False),
    Column("event", String, nullable=False),
    Column("subject", String, nullable=False),  # the job's or gate's id
    Column("body", Text, nullable=False),  # the bytes that are signed and sent
    Column("state", String, nullable=False),  # waiting, sending, delivered, failed
    Column("tries", Integer, nullable=False),  # begun
    Column("max_tries", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("lease", String),  # of the try that goes on: the fencing token
    Column("lease_until", BigInteger),
    Column("outcome", String),  # of the last try
    Column("status", Integer),  # that the receiver last answered
    Column("created", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Index("ix_webhook_delivery_list", "tenant", "webhook", "created", "id"),
    Index("ix_webhook_delivery_due", "state", "due"),
    Index("ix_webhook_delivery_subject", "tenant", "subject", "event"),
)

policy = Table(
    "policy",
    metadata,
    Column("tenant", String, nullable=False),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),  # from 1, never given twice
    Column("digest", String, nullable=False),  # sha256:<hex> of the canonical document
    Column("document", JSON(none_as_null=True), nullable=False),  # every member present
    Column("created", BigInteger, nullable=False),
    Column("hidden", BigInteger),  # when its name was deleted
    PrimaryKeyConstraint("tenant", "name", "version", name="pk_policy"),
    Index("ix_policy_digest", "tenant", "digest"),
)

gate = Table(
    "gate",
    metadata,
    Column("id", String, nullable=False),  # 128 random bits
    Column("tenant", String, nullable=False),
    Column("model", String, nullable=False),
    Column("policy", String, nullable=False),  # its name
    Column("policy_version", Integer, nullable=False),
    Column("policy_digest", String, nullable=False),
    Column("outcome", String, nullable=False),  # pending, pass, fail, undecided
    Column("exit_code", Integer),  # what `lipcert gate` would end with
    Column("results", JSON(none_as_null=True)),  # of every rule, once it is decided
    Column("attestation", JSON(none_as_null=True)),  # the signed decision
    Column("created", BigInteger, nullable=False),
    Column("decided", BigInteger),
    Column("version", Integer, nullable=False),
    PrimaryKeyConstraint("id", name="pk_gate"),
    Index("ix_gate_list", "tenant", "created", "id"),
    Index("ix_gate_pending", "outcome", "created"),
)

gate_rule = Table(
    "gate_rule",
    metadata,
    Column("gate", String, nullable=False),
    Column("place", Integer, nullable=False),  # in the policy, from 0
    Column("tenant", String, nullable=False),
    Column("name", String, nullable=False),
    Column("max_bound", Float, nullable=False),
    Column("on_undecided", String, nullable=False),
    Column("job", String, nullable=False),  # that looks for the bound
    Column("allow_assumptions", JSON(none_as_null=True)),  # codes that it may rest on; null: none
    PrimaryKeyConstraint("gate", "place", name="pk_gate_rule"),
    ForeignKeyConstraint(["gate"], ["gate.id"], name="fk_gate_rule_gate"),
    ForeignKeyConstraint(["job"], ["job.id"], name="fk_gate_rule_job"),
)

# Idempotency keys of gates. No foreign key: the key is claimed before the gate is made.
gate_key = Table(
    "gate_key",
    metadata,
    Column("tenant", String, nullable=False),
    Column("key", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("gate", String, nullable=False),
    Column("created", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "key", name="pk_gate_key"),
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

# The processes that send webhooks: what a container's health is told from.
deliverer = Table(
    "deliverer",
    metadata,
    Column("owner", String, nullable=False),
    Column("node", String, nullable=False),  # the machine's or container's name
    Column("seen", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", name="pk_deliverer"),
)

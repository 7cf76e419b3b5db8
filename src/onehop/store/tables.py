"""The tables. A change here needs a migration beside it; a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("sandbox", String(64), nullable=False),
    Column("environment", String(255), nullable=False),
    Column("settings", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
    Column("reason", String(64), nullable=True),
    Index("sessions_ended_at", "ended_at"),
)

executions = Table(
    "executions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False, server_default=""),
    Column("session", String(64), nullable=True),
    Column("status", String(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=True),
    Column("document", LargeBinary, nullable=True),
    Column("events", LargeBinary, nullable=True),
    Column("stored_bytes", Integer, nullable=False),
    Column("key", String(64), nullable=False, server_default=""),
    Index("executions_started_at", "started_at"),
    Index("executions_status", "status"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("made", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Index("idempotency_created_at", "created_at"),
)
"""`request`: SHA-256 of what was asked for; `made`: id of the execution or session that came of it."""

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", String(255), nullable=False),
    Column("limits", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=True),
    Column("revoked_at", Float, nullable=True),
    Column("last_used_at", Float, nullable=True),
    Column("revision", Integer, nullable=False),
    Index("keys_revision", "revision", unique=True),
)
"""`revision` grows with every key that is made or revoked, so a gateway asks for what is new only. Rows stay."""

usage = Table(
    "usage",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("executions", BigInteger, nullable=False),
    Column("cpu_ms", Float, nullable=False),
    Column("memory_mb_s", Float, nullable=False),
    Column("tool_calls", BigInteger, nullable=False),
)
"""`hour`: hours since 1970, UTC, of the executions' ends."""

tool_calls = Table(
    "tool_calls",
    metadata,
    Column("execution", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments_sha256", String(64), nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ms", Float, nullable=False),
    Column("status", String(32), nullable=False),
    Column("error", String(2000), nullable=False),
    Index("tool_calls_started_at", "started_at"),
)
"""Every call of a tool that has ended. Written once, never changed."""

functions = Table(
    "functions",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("code", LargeBinary, nullable=False),
    Column("routed", String(255), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)
"""`routed`: why the code does not fit Monty, empty when it does."""

memory = Table(
    "memory",
    metadata,
    Column("owner", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("memory_expires_at", "expires_at"),
    Index("memory_created_at", "owner", "kind", "created_at"),
)
"""What the model loop has to know in a later request: stored responses, turns that wait for a client."""

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=True),
    Index("uploads_owner", "owner", "created_at"),
    Index("uploads_expires_at", "expires_at"),
)
"""Files that clients have uploaded for later; their content is in the state's folder `uploads`, by id."""

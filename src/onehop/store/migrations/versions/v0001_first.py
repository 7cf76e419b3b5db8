"""The first tables: sessions and executions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("sandbox", sa.String(64), nullable=False),
        sa.Column("environment", sa.String(255), nullable=False),
        sa.Column("settings", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=True),
        sa.Column("reason", sa.String(64), nullable=True),
    )
    op.create_index("sessions_ended_at", "sessions", ["ended_at"])
    op.create_table(
        "executions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("session", sa.String(64), nullable=True),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=True),
        sa.Column("document", sa.LargeBinary, nullable=True),
        sa.Column("events", sa.LargeBinary, nullable=True),
        sa.Column("stored_bytes", sa.Integer, nullable=False),
    )
    op.create_index("executions_started_at", "executions", ["started_at"])
    op.create_index("executions_status", "executions", ["status"])


def downgrade() -> None:
    op.drop_table("executions")
    op.drop_table("sessions")

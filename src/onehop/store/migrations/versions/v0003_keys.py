"""Keys, what was used with each of them, and by which of them an execution was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("limits", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=True),
        sa.Column("revoked_at", sa.Float, nullable=True),
        sa.Column("last_used_at", sa.Float, nullable=True),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_index("keys_revision", "keys", ["revision"], unique=True)
    op.create_table(
        "usage",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("executions", sa.BigInteger, nullable=False),
        sa.Column("cpu_ms", sa.Float, nullable=False),
        sa.Column("memory_mb_s", sa.Float, nullable=False),
        sa.Column("tool_calls", sa.BigInteger, nullable=False),
    )
    op.add_column("executions", sa.Column("key", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("executions", "key")
    op.drop_table("usage")
    op.drop_table("keys")

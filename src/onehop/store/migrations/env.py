"""Run by Alembic; the connection comes from onehop.store.database."""

from __future__ import annotations

from alembic import context

from onehop.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()

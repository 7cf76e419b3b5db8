"""The steps by which a database comes to today's tables (Alembic). Released steps are never changed."""

HEAD = "0006"
"""The newest step. A database that is there already needs no Alembic, which takes half a second to import."""

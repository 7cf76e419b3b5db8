"""The steps by which a database comes to today's tables (Alembic). Released steps are never changed."""

HEAD = "0005"
"""The newest step. A database that is there already needs no Alembic, which takes half a second to import."""

"""Alembic migrations. Apply with `pacsnode migrate`; `node.db.migrate` finds this folder."""

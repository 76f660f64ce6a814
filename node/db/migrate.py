"""Bring the database to the code's tables, and say whether it is there.

One migrator at a time: PostgreSQL takes an advisory lock, SQLite its write lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.engine import Connection

import migrations
from node.db.session import Database
from node.db.tables import Row
from node.errors import ConfigurationError

_LOCK = 0x70616373  # "pacs"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(migrations.__file__)).parent))
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, target: str = "head") -> None:
    """Apply what is missing. Safe to call from several processes at once.

    raises   ConfigurationError   a revision that this version does not know
    """
    with _in_words(), database.engine.begin() as connection:
        _lock(connection)
        command.upgrade(_config(connection), target)


def downgrade(database: Database, target: str) -> None:
    """raises   ConfigurationError   a revision that this version does not know"""
    with _in_words(), database.engine.begin() as connection:
        _lock(connection)
        command.downgrade(_config(connection), target)


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except CommandError as exc:
        raise ConfigurationError(
            f"the database was not migrated: {exc}. This version knows revisions up to {head()}; what a newer version"
            " made needs that version"
        ) from exc


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def current(database: Database) -> str | None:
    with database.engine.connect() as connection:
        revision: str | None = MigrationContext.configure(connection).get_current_revision()
    return revision


def head() -> str | None:
    newest: str | None = ScriptDirectory.from_config(_config()).get_current_head()
    return newest


def remedy(stands_at: str | None) -> str:
    """For a database that is not at the head."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return "run `pacsnode migrate`" if stands_at in {None, *known} else "use the newer pacsnode that brought it there"


def is_current(database: Database) -> bool:
    return current(database) == head()


def drift(database: Database) -> list[str]:
    """What differs between the migrated database and the rows in the code, in words."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Row.metadata)]

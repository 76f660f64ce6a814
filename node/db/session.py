"""One database, two kinds of transaction: `read` never blocks, `write` is short and commits or rolls back whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from node.errors import ConfigurationError

_WRITE = "pacsnode_write"
_KINDS = ("sqlite", "postgresql")
PATIENCE_S = 60.0
"""So long a process of the node waits for others that write."""


class Database:
    """Engine and transactions. `before_commit` ends every write transaction (it seals the audit trail).

    patience_s   for others that write; what then cannot be done raises an error for which `is_busy` holds
    raises       ConfigurationError   the URL is not one of a database that the node can use
    """

    def __init__(
        self,
        url: str,
        *,
        before_commit: Callable[[Session], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url = url
        self.patience_s = patience_s
        try:
            self.engine = _engine(url, patience_s)
        except (ArgumentError, ImportError, ValueError) as exc:  # it may hold a password: it is not repeated
            raise ConfigurationError(
                "the database URL is not one that can be used here: give postgresql+psycopg://USER:PASSWORD@HOST/NAME,"
                " with what is special in the password percent-encoded, or none for SQLite"
            ) from exc
        self._writer = self.engine.execution_options(**{_WRITE: True})
        self._before_commit = before_commit

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that changes rows. On SQLite it takes the write lock at once, so it never fails half-way."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session
            session.flush()
            if self._before_commit is not None:
                self._before_commit(session)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only looks."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Raises sqlalchemy.exc.SQLAlchemyError where the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def is_busy(exc: BaseException) -> bool:
    """Whether a statement was given up because others held what it needed for too long."""
    if not isinstance(exc, OperationalError):
        return False
    code = getattr(exc.orig, "sqlite_errorcode", None)
    if code is not None:
        return bool(code & _PRIMARY_CODE == sqlite3.SQLITE_BUSY)
    return getattr(exc.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def is_away(exc: BaseException) -> bool:
    """Whether it is the database that does not do its work, not a statement that is wrong: it may do it later."""
    is_read_only = isinstance(exc, DBAPIError) and getattr(exc.orig, "sqlstate", None) == _READ_ONLY
    return is_read_only or isinstance(exc, OperationalError | InterfaceError | PoolTimeout)


def why_away(exc: SQLAlchemyError) -> str:
    """In the driver's own words, one line: without the statement and its values, which may name a patient."""
    told = str(exc.orig).splitlines() if isinstance(exc, DBAPIError) and exc.orig is not None else []
    return told[0] if told else type(exc).__name__


_PRIMARY_CODE = 0xFF  # the rest of SQLite's result code says more precisely why
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's appendix A
_READ_ONLY = "25006"  # likewise: a standby that is not the primary yet


_UNREACHABLE = {"connect_timeout": 10, "tcp_user_timeout": 30_000}
"""libpq's, in s and ms: a host that is gone without a word would be waited for many minutes."""


def _engine(url: str, patience_s: float) -> Engine:
    """Its errors show no parameters of statements: they hold patient data, and errors go into logs."""
    if make_url(url).get_backend_name() not in _KINDS:
        raise ValueError("neither SQLite nor PostgreSQL")
    if not url.startswith("sqlite"):
        waits = {name: value for name, value in _UNREACHABLE.items() if name not in make_url(url).query}
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=waits)
        event.listen(engine, "connect", partial(_wait_at_most, patience_s))
        return engine
    # connections are kept: closing the last one would make SQLite write its whole log back, at every transaction
    engine = create_engine(
        url, max_overflow=-1, hide_parameters=True, connect_args={"timeout": patience_s, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _wait_at_most(patience_s: float, connection: Any, _record: Any) -> None:
    """For locks of others, on PostgreSQL: said once to a connection, not at each transaction."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {round(patience_s * 1000)}")
    connection.commit()  # the pool takes back what is not committed


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy says BEGIN, below, not the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a committed row survives a power cut: C-STORE success rests on it
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

"""Can the node take studies, and does work get done? Each part is asked; what is wrong is said in words.

The two are told apart, since who asks does other things with them: a node that is not ready should be sent nothing,
one whose work stands still should be sent all the same (it keeps what it takes), and looked after.
"""

from __future__ import annotations

import datetime as dt
import logging
import socket
from collections.abc import Callable, Mapping

from node.archive import Archive
from node.db import readiness, switches, views
from node.db.session import Database
from node.settings import Settings

LOGGER = logging.getLogger(__name__)

Probe = Callable[[], str | None]
"""None where the part answers, else why it does not."""

_PATIENCE_S = 3.0


def probes(
    settings: Settings, *, database: Database, archive: Archive, ping_broker: Callable[[], None]
) -> Mapping[str, Probe]:
    """What readiness depends on, by name."""
    return {
        "database": lambda: readiness.lack(database),
        "broker": lambda: _broker(ping_broker),
        "receiver": lambda: _receiver(settings),
        "archive": lambda: _archive(archive),
    }


def standstill(settings: Settings, database: Database) -> Mapping[str, str]:
    """What does not get done, by name; empty where all does. Names no study: others may look on."""
    lack = readiness.lack(database)
    if lack is not None:
        return {"database": lack}
    limit = dt.timedelta(seconds=settings.overdue_s)
    with database.read() as session:
        late = views.overdue(session, before=dt.datetime.now(dt.UTC) - limit)
        failed = views.failures(session)
    found = {one.stage.name.lower(): str(one) for one in late}
    if failed.reports:
        found["report"] = f"studies whose report failed: {len(failed.reports)} (see `pacsnode check`)"
    return found


def not_in_service(database: Database) -> Mapping[str, str]:
    """{analysis: "switched off" or "on trial", since when}. Not why, which is for those who run the node."""
    with database.read() as session:
        rows = switches.not_on(session)
    return {name: f"{switches.outcome(row)} since {row.since:%Y-%m-%d %H:%M} UTC" for name, row in rows.items()}


def _broker(ping: Callable[[], None]) -> str | None:
    try:
        ping()
    except Exception as exc:  # noqa: BLE001  (the broker's clients share no base error; any of theirs means "no")
        LOGGER.warning("broker: %s", type(exc).__name__)
        return f"does not answer ({type(exc).__name__})"
    return None


def _receiver(settings: Settings) -> str | None:
    host = settings.receiver_host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    try:
        socket.create_connection((host, settings.port), timeout=_PATIENCE_S).close()
    except OSError as exc:
        return f"{host}:{settings.port} does not answer ({type(exc).__name__})"
    return None


def _archive(archive: Archive) -> str | None:
    try:
        return archive.room()
    except OSError as exc:
        return f"cannot be looked at ({exc.strerror})"

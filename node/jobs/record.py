"""The audit trail, written in the transaction of the change it tells of.

`record` only notes the event; the chain is extended once, at the end of the transaction, so its head is locked
for the shortest time and always last (no deadlocks).
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from node.audit import chain
from node.audit.events import Action, Event
from node.db import trail

_PENDING = "pacsnode_events"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def process_name(role: str) -> str:
    """Who acts: role, host and process id."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}"


def is_dead(process: str) -> bool:
    """Whether this is a process of this host that is no more. Of other hosts nothing is known, so: False."""
    _, _, place = process.partition("@")
    host, _, pid = place.rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and not Path(f"/proc/{pid}").exists()


def record(session: Session, action: Action, **fields: Any) -> None:
    """Note an event of this transaction; see node.audit.events.Event for the fields."""
    session.info.setdefault(_PENDING, []).append(Event(at=now(), action=action, **fields))


def seal_pending(session: Session) -> None:
    """Extend the chain by the transaction's events. Database calls it before each commit."""
    events: list[Event] = session.info.pop(_PENDING, [])
    if not events:
        return
    number, digest = trail.lock_head(session)
    sealed = []
    for event in events:
        link = chain.seal(event, number=number + 1, previous=digest)
        sealed.append(vars(link))
        number, digest = link.number, link.digest
    trail.append(session, sealed)

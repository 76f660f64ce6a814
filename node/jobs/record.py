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
    """Who acts: role, host, process id and when that process began."""
    pid = os.getpid()
    return f"{role}@{socket.gethostname()}:{pid}.{_began(pid)}"


def is_dead(process: str) -> bool:
    """Whether this is a process of this host that is no more. Of other hosts nothing is known, so: False.

    In a container process ids begin anew with every start: only with its beginning is a process the same one.
    """
    _, _, place = process.partition("@")
    host, _, one = place.rpartition(":")
    pid, _, began = one.partition(".")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    now_there = _began(int(pid))
    return not now_there or (began != "" and now_there != began)


def _began(pid: int) -> str:
    """Clock ticks from the machine's start to the process's, "" where there is none: field 22 of proc(5) stat."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name in brackets may hold spaces and brackets; it ends at the last one. The state is field 3.
    return text.rpartition(")")[2].split()[19]


def record(session: Session, action: Action, *, at: dt.datetime | None = None, **fields: Any) -> None:
    """Note an event of this transaction, of now unless said; see node.audit.events.Event for the fields."""
    session.info.setdefault(_PENDING, []).append(Event(at=at or now(), action=action, **fields))


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

"""Tamper evidence: each event is hashed together with the digest of the one before.

What it shows: any changed, removed, inserted or reordered event up to the head. What it cannot show by itself:
somebody with write access to the database who rewrites the whole chain from some event on, head included.
Keep the head that `pacsnode audit verify` prints somewhere else, and give it back with `--expect`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from node.audit.events import Event

GENESIS = hashlib.sha256(b"pacsnode audit trail").hexdigest()


@dataclass(frozen=True)
class Sealed:
    """An event with its place in the chain, as it is kept."""

    number: int
    at: str
    action: str
    outcome: str
    peer: str
    study_instance_uid: str
    patient_id: str
    actor: str
    detail: Mapping[str, Any]
    previous: str
    digest: str


def seal(event: Event, *, number: int, previous: str) -> Sealed:
    """The event as link `number` behind the link of digest `previous`."""
    at = event.at.astimezone(dt.UTC).isoformat(timespec="microseconds")
    fields: dict[str, Any] = {
        "number": number,
        "at": at,
        "action": str(event.action),
        "outcome": event.outcome,
        "peer": event.peer,
        "study_instance_uid": event.study_instance_uid,
        "patient_id": event.patient_id,
        "actor": event.actor,
        "detail": dict(event.detail),
        "previous": previous,
    }
    return Sealed(**fields, digest=_digest(fields))


def _digest(fields: Mapping[str, Any]) -> str:
    # keys sorted, no spaces, ASCII: the same text from any database that gives the values back
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def verify(events: Iterable[Sealed], *, head_number: int, head_digest: str) -> list[str]:
    """Every break of the chain in words; an empty list where it holds from the first event to the head."""
    complaints = []
    number, previous = 0, GENESIS
    for event in events:
        if event.number != number + 1:
            complaints.append(f"event {number + 1} is missing: {event.number} follows {number}")
        elif event.previous != previous:
            complaints.append(f"event {event.number} does not follow from event {number}")
        if not _is_as_sealed(event):
            complaints.append(f"event {event.number} was changed")
        number, previous = event.number, event.digest
    if number != head_number:
        complaints.append(f"the trail ends at event {number}, but its head says {head_number}")
    elif previous != head_digest:
        complaints.append(f"event {number}, the last, is not the one that the head of the trail names")
    return complaints


def _is_as_sealed(event: Sealed) -> bool:
    fields = {name: getattr(event, name) for name in Sealed.__dataclass_fields__ if name != "digest"}
    try:
        return isinstance(event.detail, Mapping) and _digest({**fields, "detail": dict(event.detail)}) == event.digest
    except (TypeError, ValueError):  # nothing that could have been sealed
        return False

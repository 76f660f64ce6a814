"""The trail in standard form: events, with what rows say of them, as audit messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy.orm import Session

from node.audit import fhir
from node.audit.chain import Sealed
from node.audit.fhir import Resource
from node.audit.grouping import Told, details
from node.audit.meaning import Caller, Facts, Teller
from node.audit.message import Message, Origin
from node.db import feed
from node.db.tables import AuditEventRow
from node.settings import Settings

_FIELDS = tuple(field.name for field in dataclasses.fields(Sealed))


def sealed(row: AuditEventRow) -> Sealed:
    return Sealed(**{name: getattr(row, name) for name in _FIELDS})


def origin(settings: Settings) -> Origin:
    return Origin(settings.aet, settings.audit_site)


def messages(session: Session, settings: Settings, told: Sequence[Told]) -> list[Message]:
    """In the order of what is told."""
    teller = Teller(settings.aet, _facts(session, settings, [event for one in told for event in one.events]))
    return [message for one in told for message in teller.tell(one)]


def _facts(session: Session, settings: Settings, events: Sequence[Sealed]) -> Facts:
    associations = {str(value) for value in _named(events, "association")}
    instances = {str(value) for value in _named(events, "sop_instance_uid")}
    jobs = {value for value in _named(events, "job") if isinstance(value, int)}
    revisions = {(event.study_instance_uid, value) for event in events if (value := _revision(event)) is not None}
    found = feed.callers(session, associations)
    return Facts(
        callers={name: Caller(host, subject) for name, (host, subject) in found.items()},
        classes=feed.classes(session, instances),
        names=feed.names(session, {e.study_instance_uid for e in events}) if settings.audit_patient_names else {},
        hosts=feed.hosts(session),
        made=feed.made(session, jobs),
        on_their_way={
            (study, number, aet): counts
            for study, number in revisions
            for aet, counts in feed.on_their_way(session, study, number).items()
        },
    )


def _named(events: Iterable[Sealed], name: str) -> Iterator[object]:
    return (value for event in events if (value := details(event).get(name)) is not None)


def _revision(event: Sealed) -> int | None:
    """Of events that say where its results are to go."""
    number = details(event).get("revision")
    return number if isinstance(number, int) and "destinations" in details(event) else None


def resources(session: Session, settings: Settings, events: Sequence[Sealed]) -> Iterator[Resource]:
    """AuditEvents: at least one of every event, bookkeeping too."""
    teller = Teller(settings.aet, _facts(session, settings, events))
    for event in events:
        found = teller.tell_one(event)
        for place, message in enumerate(found, start=1):
            identity = f"{event.number}.{place}" if len(found) > 1 else str(event.number)
            yield fhir.to_resource(message, origin(settings), identity=identity)

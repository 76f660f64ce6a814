"""The trail in standard form: events, with what rows say of them, as audit messages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from node.audit import fhir
from node.audit.chain import Sealed
from node.audit.events import Action
from node.audit.fhir import Resource
from node.audit.grouping import Grouping, Told, details
from node.audit.meaning import Caller, Facts, Teller
from node.audit.message import Message, Origin
from node.audit.xml import to_xml
from node.db import feed, trail
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.db.trail import Question
from node.jobs.record import record
from node.settings import Settings

Format = Literal["dicom", "fhir", "jsonl"]

_TOGETHER = 1000
"""Events of one look."""
_OF_A_PAGE = ("patient_id", "after", "up_to", "limit")
"""Of a question: who is asked for has a field of the event, and the rest is how much is shown at once."""
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


@dataclass(frozen=True)
class Page:
    """What a search found. `after`: the last event looked at; `more`: whether others fit behind it."""

    resources: list[Resource]
    after: int
    up_to: int
    more: bool


@dataclass(frozen=True)
class Trail:
    """The trail for who may read it from outside."""

    settings: Settings
    database: Database

    def ask(self, question: Question, *, after: int, up_to: int | None, count: int, actor: str) -> Page:
        """AuditEvents of one page: behind event `after`, up to `up_to` (of the first page, so that a walk has an end).

        That somebody asks is on record before anything is answered.
        """
        asked = {name: value for name, value in dataclasses.asdict(question).items() if name not in _OF_A_PAGE}
        newest = _note(self.database, actor, {**asked, "over": "fhir"}, patient_id=question.patient_id)
        up_to = newest if up_to is None else min(newest, up_to)
        with self.database.read() as session:
            rows = trail.find(session, dataclasses.replace(question, after=after, up_to=up_to, limit=count + 1))
            shown = [sealed(row) for row in rows[:count]]
            found = list(resources(session, self.settings, shown))
        return Page(found, shown[-1].number if shown else after, up_to, len(rows) > count)


def export(database: Database, settings: Settings, question: Question, form: Format, *, actor: str) -> Iterator[bytes]:
    """A line for each message (dicom), AuditEvent (fhir) or event as it is sealed (jsonl), each on record first."""
    up_to = _note(database, actor, {"export": form, "since": question.since, "until": question.until})
    grouping, after = Grouping(), 0
    while True:
        with database.read() as session:
            rows = trail.find(session, dataclasses.replace(question, after=after, up_to=up_to, limit=_TOGETHER))
            events = [sealed(row) for row in rows]
            yield from _lines(session, settings, events, form, grouping, last=len(rows) < _TOGETHER)
        if len(rows) < _TOGETHER:
            return
        after = rows[-1].number


def _lines(
    session: Session, settings: Settings, events: Sequence[Sealed], form: Format, grouping: Grouping, *, last: bool
) -> Iterator[bytes]:
    if form == "dicom":
        told = [one for event in events for one in grouping.take(event)] + grouping.rest(all_of_it=last)
        found = messages(session, settings, sorted(told, key=lambda one: one.number))
        yield from (to_xml(message, origin(settings)) for message in found)
    elif form == "fhir":
        yield from (_json(resource) for resource in resources(session, settings, events))
    else:
        yield from (_json(dataclasses.asdict(event)) for event in events)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf8", "replace")


def _note(database: Database, actor: str, asked: dict[str, str], *, patient_id: str = "") -> int:
    """The newest event before this one."""
    with database.write() as session:
        head = trail.head(session)
        given = {name: value for name, value in asked.items() if value}
        record(session, Action.TRAIL_QUERIED, actor=actor, patient_id=patient_id, detail={"question": given})
    return head.number if head is not None else 0

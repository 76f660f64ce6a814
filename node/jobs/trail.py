"""Ask the audit trail, and prove it. Asking is recorded too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from node.audit import chain
from node.audit.events import Action
from node.db import trail
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.db.trail import Question
from node.jobs.record import record


@dataclass(frozen=True)
class Answer:
    """Events that fit, oldest first."""

    events: list[AuditEventRow]
    is_cut: bool
    """Whether more of them fit."""


def ask(database: Database, question: Question, *, actor: str) -> Answer:
    """The question itself becomes an event."""
    with database.read() as session:
        found = trail.find(session, dataclasses.replace(question, limit=question.limit + 1))
    is_cut = len(found) > question.limit
    if is_cut:
        found.pop(0 if question.after is None else -1)
    _record(database, question, actor, events=len(found))
    return Answer(found, is_cut)


def ask_all(database: Database, question: Question, *, actor: str) -> Iterator[list[AuditEventRow]]:
    """All events up to now that fit, oldest first, `limit` at a time. The question itself becomes an event first."""
    with database.read() as session:
        head = trail.head(session)
    up_to = head.number if head is not None else 0
    _record(database, question, actor, events="all", up_to=up_to)
    return _pages(database, dataclasses.replace(question, after=question.after or 0, up_to=up_to))


def _pages(database: Database, question: Question) -> Iterator[list[AuditEventRow]]:
    while True:
        with database.read() as session:
            found = trail.find(session, question)
        if not found:
            return
        yield found
        question = dataclasses.replace(question, after=found[-1].number)


def _record(database: Database, question: Question, actor: str, **found: object) -> None:
    asked = {name: value for name, value in dataclasses.asdict(question).items() if value}
    patient_id = asked.pop("patient_id", "")
    study = asked.pop("study_instance_uid", "")
    with database.write() as session:
        record(
            session,
            Action.TRAIL_QUERIED,
            actor=actor,
            patient_id=patient_id,
            study_instance_uid=study,
            detail={"question": asked, **found},
        )


@dataclass(frozen=True)
class Verdict:
    """What `audit verify` says. `head` is worth keeping elsewhere: it proves the trail up to `events`."""

    events: int
    head: str
    complaints: list[str]


def verify(database: Database, *, expect: str | None = None) -> Verdict:
    """Walk the whole chain. `expect` is the digest that an earlier verify printed: it must still be in the chain."""
    seen = False

    def walk(up_to: int) -> Iterator[chain.Sealed]:
        nonlocal seen
        for row in trail.walk(session, up_to=up_to):
            seen = seen or row.digest == expect
            yield chain.Sealed(**{field.name: getattr(row, field.name) for field in dataclasses.fields(chain.Sealed)})

    with database.read() as session:
        head = trail.head(session)
        if head is None:
            return Verdict(0, "", ["the trail has no head: the row was removed, or the database was never migrated"])
        try:
            complaints = chain.verify(walk(head.number), head_number=head.number, head_digest=head.digest)
        except ValueError:  # the driver cannot make JSON of it; nothing of it is shown, since it may hold anything
            complaints = ["an event cannot be read: its details are not what was written"]
        behind = trail.behind_head(session)
    if behind:
        complaints.append(f"events behind the head of the trail: {behind}")
    if expect is not None and not seen and expect != chain.GENESIS:
        complaints.append(f"digest {expect} is no longer in the trail: it was rewritten, or this is another trail")
    return Verdict(head.number, head.digest, complaints)

"""The proof of the trail, while others write to it and after somebody has meddled with it."""

from collections.abc import Callable

import pytest
from sqlalchemy import insert, text
from sqlalchemy.event import listen

from node.audit import chain
from node.audit.events import Action
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.jobs.record import record, seal_pending
from node.jobs.trail import verify

Write = Callable[[], None]


@pytest.fixture
def write(database: Database) -> Write:
    """Add one event."""

    def do() -> None:
        with database.write() as session:
            record(session, Action.NODE_STARTED)

    return do


def test_who_writes_while_the_trail_is_walked_raises_no_alarm(database: Database, write: Write) -> None:
    write()
    looker = Database(database.url, before_commit=seal_pending)
    late = [write, write, write]

    def meddle(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        """Between any two statements of the one who looks."""
        if "audit" in statement and late:
            late.pop()()

    listen(looker.engine, "before_cursor_execute", meddle)
    verdict = verify(looker)
    assert not late
    assert verdict.complaints == []
    looker.close()


def test_an_event_put_behind_the_head_shows(database: Database, write: Write) -> None:
    write()
    with database.write() as session:
        last = session.get_one(AuditEventRow, 1)
        forged = {column.name: getattr(last, column.name) for column in AuditEventRow.__table__.columns}
        session.execute(insert(AuditEventRow.__table__), [{**forged, "number": 2}])  # type: ignore[arg-type]
    assert verify(database).complaints == ["events behind the head of the trail: 1"]


def test_a_head_without_its_event_shows(database: Database, write: Write) -> None:
    write()
    with database.write() as session:
        session.execute(text("UPDATE audit_head SET number = 2"))
    assert verify(database).complaints == ["the trail ends at event 1, but its head says 2"]


def test_what_an_earlier_verify_printed_must_still_be_there(database: Database, write: Write) -> None:
    write()
    head = verify(database).head
    write()
    assert verify(database, expect=head).complaints == []
    assert verify(database, expect=chain.GENESIS).complaints == []
    assert verify(database, expect="0" * 64).complaints


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # PostgreSQL keeps nothing that is no JSON
def test_details_that_are_no_json_any_more_are_said_and_not_thrown(database: Database, write: Write) -> None:
    write()
    with database.write() as session:
        session.execute(text("UPDATE audit_event SET detail = '{' WHERE number = 1"))
    assert verify(database).complaints == ["an event cannot be read: its details are not what was written"]


def test_details_of_another_kind_are_a_change(database: Database, write: Write) -> None:
    write()
    with database.write() as session:
        session.execute(text("UPDATE audit_event SET detail = '[1]' WHERE number = 1"))
    assert verify(database).complaints == ["event 1 was changed"]

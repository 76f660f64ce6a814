"""The trail to a repository that is there, away or broken: each event is told, in order, and nothing is made up."""

from __future__ import annotations

import datetime as dt
import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from network.certificates import Authority
from network.repository import Receiver, mutual
from node.audit import grouping
from node.audit.events import Action
from node.db import feed as statements
from node.db.session import Database
from node.db.tables import AuditEventRow
from node.errors import NodeError, PeerUnreachable
from node.jobs import feed as feeding
from node.jobs.feed import Feed
from node.jobs.receive import ReceivingDesk
from node.jobs.record import process_name, record
from node.settings import Settings
from system.processes import wait_until

from .conftest import CALLER, ct_slice

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@pytest.fixture
def there() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def note(database: Database, count: int, *, patient: str = "P-77") -> None:
    """Events that each are a message."""
    for number in range(count):
        with database.write() as session:
            record(session, Action.JOB_STARTED, study_instance_uid=f"1.2.{number}", patient_id=patient, actor="test")


def feed_to(settings: Settings, database: Database, port: int, *, actor: str = "clock", **more: object) -> Feed:
    url = f"tcp://127.0.0.1:{port}"
    return Feed(settings.model_copy(update={"audit_url": url, **more}), database, actor=actor)


def tell_all(feed: Feed) -> None:
    while feed.tell_more():
        pass


def numbers(there: Receiver) -> list[int]:
    """Of the event that each message tells of, or of the last one."""
    found = [re.search(rb"(\d+) of the trail", message) for message in there.messages]
    return [int(match[1]) for match in found if match]


def head(database: Database) -> int:
    with database.read() as session:
        return max(session.scalars(select(AuditEventRow.number)), default=0)


def xml(message: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(message.partition(BYTE_ORDER_MARK)[2])


def test_each_event_is_told_once_in_order_and_telling_is_no_event(
    settings: Settings, database: Database, there: Receiver
) -> None:
    note(database, 5)
    feed = feed_to(settings, database, there.port)
    tell_all(feed)
    note(database, 2)
    tell_all(feed)
    assert numbers(there) == [1, 2, 3, 4, 5, 6, 7]
    assert head(database) == 7
    assert there.connections == 2
    with database.read() as session:
        assert (statements.position(session).number, statements.lag(session).events) == (7, 0)


def test_images_of_an_association_are_one_message_with_its_caller_and_their_classes(
    settings: Settings, database: Database, desk: ReceivingDesk, arrive: Callable[..., object], there: Receiver
) -> None:
    association = desk.admit(CALLER)
    feed = feed_to(settings, database, there.port)
    for number in range(1, 4):
        desk.take(arrive(ct_slice(number=number), association=association))  # type: ignore[arg-type]
        tell_all(feed)
    before = len(there.messages)
    again = feed_to(settings, database, there.port, actor="clock")  # it was started anew while images came
    desk.left(association, "released", 3, 0, [])
    tell_all(again)
    (message,) = there.messages[before:]
    root = xml(message)
    assert [one.attrib for one in root.iter("SOPClass")] == [
        {"UID": "1.2.840.10008.5.1.4.1.1.2", "NumberOfInstances": "3"}
    ]
    assert root.findall("ActiveParticipant")[0].get("NetworkAccessPointID") == CALLER.host
    assert "PHANTOM" not in message.decode()


def test_names_are_told_where_the_site_says_so(
    settings: Settings, database: Database, desk: ReceivingDesk, arrive: Callable[..., object], there: Receiver
) -> None:
    association = desk.admit(CALLER)
    desk.take(arrive(ct_slice(), association=association))  # type: ignore[arg-type]
    desk.left(association, "released", 1, 0, [])
    tell_all(feed_to(settings, database, there.port, audit_patient_names=True))
    assert "PHANTOM^TEST" in there.messages[-1].decode()


def test_while_the_repository_is_away_events_wait_and_the_row_says_why(
    settings: Settings, database: Database, there: Receiver
) -> None:
    note(database, 3)
    there.break_after = 1
    feed = feed_to(settings, database, there.port)
    for _ in range(3):
        feed._turn(0.0)
    with database.read() as session:
        row = statements.position(session)
        assert (row.number, statements.lag(session).events) == (0, 3)
        assert row.trouble.endswith("closed before all was read")
        assert row.trouble_since is not None
    there.break_after = None
    tell_all(feed)
    assert list(dict.fromkeys(numbers(there))) == [1, 2, 3]
    assert numbers(there)[-3:] == [1, 2, 3]
    with database.read() as session:
        row = statements.position(session)
        assert (row.number, row.trouble, row.trouble_since) == (3, "", None)


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends_without_patients(
    settings: Settings,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    there: Receiver,
) -> None:
    monkeypatch.setattr(feeding, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(feeding, "_LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(feeding, "_LOOK_S", 0.02)
    caplog.set_level(logging.INFO)
    note(database, 3)
    there.break_after = 1
    stop = threading.Event()
    thread = threading.Thread(target=feed_to(settings, database, there.port).run, args=[stop])
    thread.start()
    try:
        wait_until(lambda: there.connections > 4, "several tries")
        there.break_after = None
        wait_until(lambda: _told(database) == 3, "all told")
    finally:
        stop.set()
        thread.join()
    lines = [line.message for line in caplog.records if line.name == "node.jobs.feed"]
    assert len(lines) == 2
    assert lines[0].startswith("audit messages are not taken and wait in the trail: 127.0.0.1:")
    assert lines[1].startswith("audit messages are taken again, after ")
    assert "P-77" not in caplog.text


def _told(database: Database) -> int:
    with database.read() as session:
        return statements.position(session).number


def test_what_was_taken_just_before_an_outage_is_told_again_once(
    settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository may have crashed with what it had read and not yet written."""
    monkeypatch.setattr(feeding, "_EVENTS", 2)
    feed = feed_to(settings, database, there.port)
    note(database, 4)
    tell_all(feed)
    note(database, 1)
    there.break_after = 1
    feed._turn(0.0)
    there.break_after = None
    tell_all(feed)
    assert numbers(there) == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
    note(database, 1)
    there.break_after = 1
    feed._turn(0.0)
    there.break_after = None
    tell_all(feed)
    assert numbers(there)[10:] == [6, 5, 6]


def test_a_repository_that_comes_and_goes_hears_the_end(
    settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "_EVENTS", 2)
    note(database, 20)
    feed = feed_to(settings, database, there.port)
    for turn in range(60):
        there.break_after = 1 if turn % 3 == 2 else None
        feed._turn(0.0)
    assert _told(database) == 20


def test_connections_that_break_lose_nothing_and_keep_the_order(
    settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "_EVENTS", 4)
    note(database, 30)
    feed = feed_to(settings, database, there.port)
    for break_after in [3, None, None, 1, 2, None] * 5:
        there.break_after = break_after
        feed._turn(0.0)
    there.break_after = None
    tell_all(feed)
    heard = numbers(there)
    assert list(dict.fromkeys(heard)) == list(range(1, 31))
    assert len(heard) > 30  # what nobody knew to be taken came again


def test_a_feed_that_is_killed_in_the_middle_is_followed_by_one_that_tells_the_rest(
    settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "_EVENTS", 2)
    note(database, 6)
    dead = process_name("clock").rsplit(":", 1)[0] + ":999999999.1"
    assert feed_to(settings, database, there.port, actor=dead).tell_more()
    tell_all(feed_to(settings, database, there.port, actor=process_name("clock")))
    assert numbers(there) == [1, 2, 3, 4, 5, 6]


def test_of_two_that_live_one_tells_until_it_leaves(settings: Settings, database: Database, there: Receiver) -> None:
    note(database, 2)
    one = feed_to(settings, database, there.port, actor="clock@elsewhere:7.1")
    other = feed_to(settings, database, there.port, actor=process_name("clock"))
    tell_all(one)
    note(database, 2)
    assert not other.tell_more()
    stop = threading.Event()
    stop.set()
    one.run(stop)  # it leaves in order
    tell_all(other)
    assert numbers(there) == [1, 2, 3, 4]


def test_one_whose_lease_was_taken_over_does_not_move_the_position(
    settings: Settings, database: Database, there: Receiver
) -> None:
    note(database, 1)
    feed = feed_to(settings, database, there.port, actor="clock@elsewhere:7.1")
    tell_all(feed)
    with database.write() as session:
        later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        assert statements.claim(session, "clock@other:8.1", at=later, until=later)
    note(database, 1)
    assert not feed.tell_more()
    assert _told(database) == 1


def test_bookkeeping_moves_the_position_without_a_connection(
    settings: Settings, database: Database, there: Receiver
) -> None:
    with database.write() as session:
        record(session, Action.REVISION_COMPLETED, study_instance_uid="1.2.3")
    tell_all(feed_to(settings, database, there.port))
    assert (_told(database), there.connections) == (1, 0)


def test_a_new_process_holds_back_what_the_former_did_across_blocks(
    settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "BLOCK", 5)
    monkeypatch.setattr(feeding, "_EVENTS", 2)
    for number in range(12):
        with database.write() as session:
            record(
                session, Action.INSTANCE_STORED, study_instance_uid="1.2.3", patient_id="P", peer="CT1",
                detail={"association": "a", "sop_instance_uid": f"1.2.3.{number}"},
            )  # fmt: skip
        feed_to(settings, database, there.port).tell_more()
    with database.write() as session:
        record(session, Action.ASSOCIATION_CLOSED, peer="CT1", detail={"association": "a"})
    tell_all(feed_to(settings, database, there.port))
    told = [re.search(rb"(\d+ events up to \d+) of the trail", message) for message in there.messages]
    assert [match[1] for match in told if match] == [b"5 events up to 5", b"5 events up to 10", b"2 events up to 12"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "Hospital")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_certificates_that_end_stop_it_and_renewed_ones_are_taken_up(
    settings: Settings, database: Database, authority: Authority, tmp_path: Path
) -> None:
    def install(days: int) -> None:
        ours = authority.issue("node", days=days)
        for source, name in ((ours.certificate, "our.pem"), (ours.key, "our.key")):
            (tmp_path / name).write_bytes(source.read_bytes())

    note(database, 1)
    with Receiver(tls=mutual(authority.issue("repository", days=-1), authority)) as there:
        feed = Feed(
            settings.model_copy(
                update={
                    "audit_url": f"tls://127.0.0.1:{there.port}",
                    "audit_certificate": tmp_path / "our.pem",
                    "audit_key": tmp_path / "our.key",
                    "tls_authorities": authority.certificate,
                }
            ),
            database,
            actor="clock",
        )
        with pytest.raises(NodeError, match="certificate or key cannot be used"):
            feed.tell_more()
        install(days=2)
        with pytest.raises(PeerUnreachable, match="certificate has expired"):
            feed.tell_more()
        there.tls = mutual(authority.issue("repository"), authority)
        install(days=-1)
        with pytest.raises(PeerUnreachable, match=r"certificate expired|closed before all was read"):
            feed.tell_more()
        assert there.messages == []
        install(days=2)
        tell_all(feed)
        assert numbers(there) == [1]


@pytest.fixture
def hasty(settings: Settings, database: Database, there: Receiver, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """It waits for hardly anything."""
    monkeypatch.setattr(feeding, "_LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(feeding, "_LOOK_S", 0.01)
    return feed_to(settings, database, there.port)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_breaks_in_the_feed_is_told_once_and_does_not_end_it(
    hasty: Feed, database: Database, there: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(database, 1)
    feed, stop, tries = hasty, threading.Event(), [0]
    whole = feed.tell_more

    def flawed() -> bool:
        tries[0] += 1
        if tries[0] < 4:
            raise ZeroDivisionError
        if tries[0] > 5:
            stop.set()
        return whole()

    monkeypatch.setattr(feed, "tell_more", flawed)
    feed.run(stop)
    assert [record.message for record in caplog.records] == ["the trail could not be told; it is tried again"]
    assert numbers(there) == [1]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_a_line_and_no_traceback(
    hasty: Feed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, stop, tries = hasty, threading.Event(), []

    def away() -> bool:
        tries.append(1)
        if len(tries) > 3:
            stop.set()
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("unable to open database file"))

    monkeypatch.setattr(feed, "tell_more", away)
    feed.run(stop)
    (line,) = caplog.records
    assert line.message.startswith("the database is away")
    assert line.exc_info is None

"""Retention: what goes, what never does, what lives on, and what a crash leaves."""

import dataclasses
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from node.archive import Archive
from node.db import purging, timeline, views
from node.db.lifecycle import DeliveryState, JobState
from node.db.purging import Held
from node.db.session import Database
from node.db.tables import AuditEventRow, DeliveryRow, InstanceRow, JobRow, PurgeRow, ResultRow, RevisionRow, StudyRow
from node.errors import Conflict, OutOfResources
from node.jobs import purge
from node.jobs.again import retry
from node.jobs.deliver import resend
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.purge import Rules, judge
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.trail import verify
from node.settings import Settings

from .conftest import ct_slice
from .house import AT_ONCE, CHEST, HEAD, STUDY, Arrive, House, image

DAY = dt.timedelta(days=1)


@pytest.fixture
def house(settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive) -> House:
    return House(settings, database, archive, desk, arrive)


@pytest.fixture
def treated(house: House) -> House:
    """A study of one series of two images, delivered and proven."""
    house.treat(image(1), image(2))
    [revision] = house.rows(RevisionRow)
    assert revision.state == "delivered"
    return house


# -- what goes, and what lives on


def test_the_files_go_and_rows_uids_digests_and_the_trail_stay(treated: House) -> None:
    before = {
        kind: [{c.name: getattr(row, c.name) for c in kind.__table__.columns} for row in treated.rows(kind)]
        for kind in (InstanceRow, ResultRow, RevisionRow, DeliveryRow, JobRow)
    }
    events = len(treated.rows(AuditEventRow))
    row = treated.purge()
    assert row is not None
    assert (row.files, row.bytes) == (
        len(before[InstanceRow]) + len(before[ResultRow]),
        sum(one["size"] for kind in (InstanceRow, ResultRow) for one in before[kind]),
    )
    assert treated.files() == set(), "folders too"
    for kind, rows in before.items():
        now_there = [{c.name: getattr(row, c.name) for c in kind.__table__.columns} for row in treated.rows(kind)]
        assert [{**one, "purged_at": None} for one in now_there] == [{**one, "purged_at": None} for one in rows]
        if kind in (InstanceRow, ResultRow):
            assert {one["purged_at"] for one in now_there} == {row.purged_at}
    assert treated.actions()[events:] == ["study.purged", "study.files_deleted"]
    assert verify(treated.database).complaints == []


def test_the_trail_says_who_how_much_and_why(treated: House) -> None:
    treated.purge(dataclasses.replace(AT_ONCE, asked="asked for"))
    [event] = treated.rows(AuditEventRow, action="study.purged")
    assert (event.study_instance_uid, event.patient_id, event.actor) == (STUDY, "P-1", "test")
    results = len(treated.rows(ResultRow))
    assert (event.detail["images"], event.detail["results"]) == (2, results)
    assert event.detail["bytes"] == sum(row.size for kind in (InstanceRow, ResultRow) for row in treated.rows(kind))
    assert event.detail["because"] == "asked for: delivered and proven"
    [deleted] = treated.rows(AuditEventRow, action="study.files_deleted")
    assert deleted.detail["files_found"] == 2 + results


def test_lists_and_timeline_say_that_files_were_deleted_and_when(treated: House, database: Database) -> None:
    treated.purge()
    with database.read() as session:
        line = timeline.timeline(session, STUDY)
        [listed] = views.studies(session)
    assert line is not None
    [told] = line.purges
    assert (line.images_held, told.actor, told.ended_at is not None) == (0, "test", True)
    assert listed.purged_at == told.purged_at
    assert "retention policy" in told.because


def test_other_studies_lose_nothing(treated: House) -> None:
    other = ct_slice("9.9.1", study="9.9")
    treated.send(other)
    treated.purge()
    assert treated.lies() == []
    assert [row.purged_at for row in treated.rows(InstanceRow, study_instance_uid="9.9")] == [None]


def test_a_purge_that_is_done_again_finds_nothing_to_do(treated: House) -> None:
    assert treated.purge() is not None
    assert treated.purge() is None
    treated.retention.delete(STUDY)
    assert treated.actions().count("study.purged") == treated.actions().count("study.files_deleted") == 1
    assert purge.verdict(treated.database, AT_ONCE, STUDY) is None


# -- what never goes


def test_a_study_goes_only_once_it_is_delivered(house: House) -> None:
    everything = Rules(0.0, 0.0, 0.0)
    house.send(image(1))
    assert house.purge(everything) is None, "receiving"
    [revision_id] = complete_due(house.database, actor="test")
    assert house.purge(everything) is None, "complete"
    plan(house.database, revision_id, actor="test")
    assert house.purge(everything) is None, "planned"
    while house.worker.run_next():
        pass
    assert house.purge(everything) is None, "reported"
    assert house.lies() == []
    assert not house.rows(PurgeRow)
    house.deliver()
    assert house.purge(everything) is not None


def test_an_open_revision_keeps_the_earlier_images_of_its_study(treated: House) -> None:
    treated.send(image(1, series=HEAD))
    assert treated.purge(Rules(0.0, 0.0, 0.0)) is None
    assert treated.lies() == []


@pytest.mark.parametrize("state", [DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.SENT])
def test_a_result_on_its_way_keeps_its_study_whatever_its_revision_says(treated: House, state: DeliveryState) -> None:
    with treated.database.write() as session:
        session.get_one(DeliveryRow, treated.rows(DeliveryRow)[0].id).state = state
    assert treated.purge(Rules(0.0, 0.0, 0.0)) is None


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_a_job_to_be_done_keeps_its_study_whatever_its_revision_says(treated: House, state: JobState) -> None:
    with treated.database.write() as session:
        session.get_one(JobRow, treated.rows(JobRow)[0].id).state = state
    assert treated.purge(Rules(0.0, 0.0, 0.0)) is None


def undelivered(house: House) -> None:
    house.change(DeliveryRow, state=DeliveryState.DEAD)
    house.change(RevisionRow, state="incomplete")


def nowhere(house: House) -> None:
    with house.database.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            session.delete(row)


def unproven(house: House) -> None:
    house.change(DeliveryRow, proof=purging.UNPROVEN)


def failed(house: House) -> None:
    with house.database.write() as session:
        session.get_one(JobRow, house.rows(JobRow, pipeline="low_dose_ct")[0].id).state = JobState.FAILED


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (undelivered, "results refused for good"),
        (nowhere, "results went nowhere"),
        (unproven, "by the peer's word alone"),
        (failed, "analyses that failed"),
    ],
)
def test_what_a_person_may_still_want_to_send_or_repeat_is_kept_unless_a_limit_of_its_own_is_set(
    treated: House, spoil: Callable[[House], None], reason: str
) -> None:
    spoil(treated)
    judged = purge.verdict(treated.database, AT_ONCE, STUDY)
    assert judged is not None
    assert reason in judged.kept
    assert treated.purge() is None
    row = treated.purge(Rules(0.0, 0.0, None))
    assert row is not None
    assert reason in row.because


def unreported(house: House) -> None:
    """The report was given up, since its sources are lost (node.jobs.sources)."""
    with house.database.write() as session:
        session.get_one(JobRow, house.rows(JobRow, pipeline="report")[0].id).state = JobState.FAILED
        session.get_one(RevisionRow, house.rows(RevisionRow)[0].id).state = "planned"
        for row in session.scalars(select(DeliveryRow)):
            session.delete(row)


def test_a_report_that_was_given_up_does_not_keep_its_study_for_ever(treated: House) -> None:
    unreported(treated)
    judged = purge.verdict(treated.database, AT_ONCE, STUDY)
    assert judged is not None
    assert "no limit is set for: reports that were given up: 1" in judged.kept
    treated.treat(image(1, series=HEAD))
    assert treated.purge() is None
    assert treated.purge(Rules(0.0, 0.0, None)) is not None
    assert treated.files() == set()


def test_retry_of_a_purged_study_does_not_queue_a_report_without_sources(treated: House) -> None:
    unreported(treated)
    assert treated.purge(Rules(0.0, 0.0, None)) is not None
    refused = retry(treated.database, treated.settings, STUDY, actor="ada")
    assert not refused.queued
    assert "were deleted on" in refused.reason


@pytest.mark.parametrize("spoil", [undelivered, nowhere, unproven, unreported])
def test_what_was_given_up_with_its_failings_does_not_keep_what_comes_later(
    treated: House, spoil: Callable[[House], None]
) -> None:
    spoil(treated)
    assert treated.purge(Rules(0.0, 0.0, None)) is not None
    treated.treat(image(1, series=HEAD))
    assert treated.files() != set()
    assert treated.purge() is not None
    assert treated.files() == set()


def test_a_fallback_that_went_in_place_of_a_result_is_no_failing(treated: House) -> None:
    with treated.database.write() as session:
        session.get_one(DeliveryRow, treated.rows(DeliveryRow)[0].id).state = DeliveryState.REPLACED
    assert treated.purge() is not None


def test_objects_kept_aside_keep_their_study_unless_a_limit_of_their_own_is_set(treated: House) -> None:
    changed = image(1)
    changed.PatientName = "SOMEBODY^ELSE"
    with pytest.raises(Conflict):
        treated.send(changed)
    judged = purge.verdict(treated.database, AT_ONCE, STUDY)
    assert judged is not None
    assert "objects kept aside with other bytes: 1" in judged.kept
    assert treated.purge() is None
    assert treated.purge(Rules(0.0, None, 0.0)) is not None
    assert treated.files() == set()


def test_files_in_the_spool_are_nobodys_study(treated: House) -> None:
    waiting = treated.arrive(image(3)).path
    os.utime(waiting, (0, 0))
    treated.purge()
    assert waiting.exists()


# -- when


WHEN = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
NEVER = Rules(None, None, None)


@pytest.mark.parametrize(
    ("held", "rules", "goes"),
    [
        (Held("1", since=WHEN - 90 * DAY, results=1), Rules(90, None, None), True),
        (Held("1", since=WHEN - 89 * DAY, results=1), Rules(90, None, None), False),
        (Held("1", since=WHEN - 900 * DAY, results=1), NEVER, False),
        (Held("1", since=WHEN - 900 * DAY, dead_letters=1), Rules(90, None, 90), False),
        (Held("1", since=WHEN - 100 * DAY, dead_letters=1), Rules(90, 365, None), False),
        (Held("1", since=WHEN - 365 * DAY, dead_letters=1), Rules(None, 365, None), True),
        (Held("1", since=WHEN - 900 * DAY, conflicts=1), Rules(90, 90, None), False),
        (Held("1", since=WHEN - 100 * DAY, conflicts=1), Rules(90, None, 365), False),
        (Held("1", since=WHEN - 100 * DAY, conflicts=1), Rules(365, None, 90), False),
        (Held("1", since=WHEN - 365 * DAY, conflicts=1), Rules(90, None, 365), True),
        (Held("1", since=WHEN - 900 * DAY, under_way=["revision 1 is planned"]), Rules(1, 1, 1), False),
        (Held("1", since=WHEN, results=1), Rules(1e9, None, None), False),
    ],
)
def test_the_longest_limit_that_applies_decides(held: Held, rules: Rules, goes: bool) -> None:
    assert (judge(held, rules, WHEN).kept == "") is goes


def test_the_days_count_from_the_last_thing_that_happened(treated: House, database: Database) -> None:
    treated.change(RevisionRow, delivered_at=now() - 40 * DAY)
    treated.change(DeliveryRow, committed_at=now() - 30 * DAY)
    treated.change(InstanceRow, received_at=now() - 50 * DAY)
    treated.change(StudyRow, touched_at=now() - 60 * DAY)
    assert treated.purge(Rules(31, None, None)) is None
    assert treated.rows(PurgeRow) == []
    treated.send(image(1))
    assert treated.purge(Rules(29, None, None)) is None, "it was sent again a moment ago"
    treated.change(StudyRow, touched_at=now() - 60 * DAY)
    assert treated.purge(Rules(29, None, None)) is not None


def test_without_a_policy_the_clock_deletes_nothing(treated: House) -> None:
    treated.change(RevisionRow, delivered_at=now() - 4000 * DAY)
    keeper = treated.housekeeping()
    for _ in range(5):
        keeper.tick()
    assert treated.lies() == []
    assert not treated.rows(PurgeRow)


def test_the_clock_deletes_one_study_at_a_tick_until_none_is_due(house: House) -> None:
    for number in (4, 5, 6):
        house.treat(ct_slice(f"1.2.{number}.1", study=f"1.2.{number}"))
    keeper = house.housekeeping(keep_days=1e-9)
    gone = []
    for _ in range(8):
        keeper.tick()
        gone.append(len(house.rows(PurgeRow)))
    assert gone[-1] == 3
    assert all(after - before <= 1 for before, after in pairwise(gone))
    assert house.files() == set()


def test_studies_that_are_kept_do_not_stand_before_those_that_are_due(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "_TOGETHER", 1)
    house.treat(ct_slice("1.2.4.1", study="1.2.4"))
    house.send(ct_slice("1.2.5.1", study="1.2.5"))
    house.treat(ct_slice("1.2.6.1", study="1.2.6"))
    house.send(ct_slice("1.2.4.2", study="1.2.4"))
    keeper = house.housekeeping(keep_days=1e-9)
    for _ in range(8):
        keeper.tick()
    assert {row.study_instance_uid for row in house.rows(PurgeRow)} == {"1.2.5", "1.2.6"}


# -- at the same time


def test_two_who_purge_at_once_do_it_once(treated: House) -> None:
    start = threading.Barrier(4)

    def one() -> None:
        start.wait()
        treated.purge()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(treated.rows(PurgeRow)) == 1
    assert treated.actions().count("study.files_deleted") == 1
    assert verify(treated.database).complaints == []


def test_a_study_that_others_have_is_left_for_the_next_round(treated: House) -> None:
    if treated.database.engine.dialect.name == "sqlite":
        return  # one writer at a time: nobody else can have it
    with treated.database.write() as session:
        purging.lock_study(session, STUDY)
        assert treated.retention.purge(STUDY, AT_ONCE, wait=False) is None
    assert treated.retention.purge(STUDY, AT_ONCE, wait=False) is not None


def test_images_that_come_while_a_study_is_purged_are_never_success_and_missing(treated: House) -> None:
    """Senders and a purge in many turns: whatever was answered with success is there in the end, or is marked."""
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            treated.purge(Rules(0.0, 0.0, 0.0))

    thread = threading.Thread(target=clear)
    thread.start()
    refused = 0
    for _ in range(15):
        for number in (1, 2):
            try:
                treated.send(image(number))
            except OutOfResources:
                refused += 1
    stop.set()
    thread.join()
    assert treated.lies() == []
    assert len(treated.rows(InstanceRow)) == 2
    treated.send(image(1), image(2))
    assert [row.purged_at for row in treated.rows(InstanceRow)] == [None, None]


@pytest.mark.parametrize("own", [False, True], ids=["late image", "own result"])
def test_what_comes_while_the_mark_is_set_is_held_by_its_study(treated: House, own: bool) -> None:
    """The receiver knows the series, and has not seen the mark when it opens the next revision."""
    late = image(3)
    if own:
        late.SOPInstanceUID = treated.rows(ResultRow)[0].sop_instance_uid
    thread = threading.Thread(target=treated.send, args=[late])
    with treated.database.write() as session:
        purging.lock_study(session, STUDY)
        [one] = purging.held(session, [STUDY])
        purging.give_up(session, one, at=now(), because="test", actor="test")
        thread.start()
        time.sleep(0.5)  # it waits for this transaction
    thread.join()
    [study] = treated.rows(StudyRow)
    assert study.purged_at is None, "or no policy would ever look at it again"
    with treated.database.read() as session:
        assert purging.holding(session) == [STUDY]


def test_others_write_while_a_study_of_many_files_is_deleted(treated: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk on which deleting one file takes a while; SQLite has one writer at a time."""
    monkeypatch.setattr(purge, "_FILES_TOGETHER", 2)
    treated.treat(*(image(number, series=HEAD) for number in range(1, 13)))
    before, took, unlink = len(treated.files()), [], Path.unlink

    def slow(path: Path, *more: Any, **named: Any) -> None:
        time.sleep(0.05)
        unlink(path, *more, **named)

    monkeypatch.setattr(Path, "unlink", slow)
    thread = threading.Thread(target=treated.purge)
    thread.start()
    while thread.is_alive():
        begun = time.monotonic()
        with treated.database.write() as session:
            session.get_one(StudyRow, STUDY)
        took.append(time.monotonic() - begun)
    assert treated.files() == set()
    assert before > 20
    assert max(took) < 0.05 * before / 2, "nobody waited for the whole of it"
    [deleted] = treated.rows(AuditEventRow, action="study.files_deleted")
    [row] = treated.rows(PurgeRow)
    assert deleted.detail["files_found"] == row.files


def test_the_clock_deletes_a_large_study_in_many_ticks(treated: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "_FILES_TOGETHER", 2)
    keeper = treated.housekeeping(keep_days=1e-9)
    left: list[int] = []
    while not left or left[-1]:
        keeper.tick()
        left.append(sum(path.endswith(".dcm") for path in treated.files()))
    assert len(left) > 2
    assert all(before - after <= 4 for before, after in pairwise(left))
    [row] = treated.rows(PurgeRow)
    assert row.ended_at is not None


def test_one_that_cannot_be_deleted_does_not_stand_before_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def broken(path: Path, *more: Any, **named: Any) -> None:
        if "1.2.4" in path.parts:
            raise OSError(13, "Permission denied")
        unlink(path, *more, **named)

    monkeypatch.setattr(Path, "unlink", broken)
    monkeypatch.setattr(purge, "_PAUSE", dt.timedelta(0))
    for number in (4, 5, 6):
        house.treat(ct_slice(f"1.2.{number}.1", study=f"1.2.{number}"))
    keeper = house.housekeeping(keep_days=1e-9)
    for _ in range(12):
        keeper.tick()
    assert {row.study_instance_uid for row in house.rows(PurgeRow) if row.ended_at} == {"1.2.5", "1.2.6"}


@pytest.mark.parametrize("mounted_before", [True, False])
def test_an_archive_that_is_out_of_reach_is_not_taken_for_deleted_files(
    house: House, mounted_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mount point is there, with the folders that a receiver makes and what it has taken since."""
    for number in (3, 4):
        house.treat(ct_slice(f"1.2.{number}.1", study=f"1.2.{number}"))
    if not mounted_before:
        with house.database.write() as session:
            [one] = purging.held(session, [STUDY])
            purging.give_up(session, one, at=now(), because="test", actor="test")
    away, before = house.archive.root.with_name("away"), house.files()
    house.archive.root.rename(away)
    house.archive.prepare()
    house.send(*(ct_slice("1.2.9.1", number, study="1.2.9") for number in range(1, 40)))
    keeper = house.housekeeping(keep_days=1e-9)
    for _ in range(4):
        keeper.tick()
    assert "the archive seems to be out of reach" in caplog.text
    assert not [row for row in house.rows(PurgeRow) if row.ended_at]
    house.archive.root.rename(house.archive.root.with_name("mount point"))
    away.rename(house.archive.root)
    assert house.files() == before
    keeper = house.housekeeping(keep_days=1e-9)
    for _ in range(4):
        keeper.tick()
    assert house.files() == set()


# -- crashes

KILLED = """
import os, signal, sys
from pathlib import Path
from node.archive import Archive
from node.db.session import Database
from node.jobs.purge import Retention, Rules
from node.jobs.record import seal_pending
url, root, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
unlink = Path.unlink
def until_killed(path, *more, **named):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    unlink(path, *more, **named)
Path.unlink = until_killed
Retention(Database(url, before_commit=seal_pending), Archive(Path(root)), "test").purge("1.2.3", Rules(0.0, None, None))
"""


@pytest.mark.parametrize("after_files", [0, 3])
def test_a_purge_that_is_killed_leaves_no_row_that_claims_a_file_and_the_next_round_ends_it(
    treated: House, after_files: int
) -> None:
    before = treated.files()
    url = treated.database.engine.url.render_as_string(hide_password=False)
    arguments = [sys.executable, "-c", KILLED, url, str(treated.archive.root), str(after_files)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert len(treated.files()) == len(before) - after_files
    assert treated.lies() == []
    assert all(row.purged_at for kind in (InstanceRow, ResultRow) for row in treated.rows(kind))
    [row] = treated.rows(PurgeRow)
    assert row.ended_at is None

    treated.housekeeping().tick()  # of a node without a policy, too: this one was asked for
    assert treated.files() == set()
    [row] = treated.rows(PurgeRow)
    assert row.ended_at is not None
    assert treated.actions()[-1] == "study.files_deleted"
    assert verify(treated.database).complaints == []


def test_what_came_back_between_crash_and_next_round_stays(treated: House) -> None:
    with treated.database.write() as session:
        [one] = purging.held(session, [STUDY])
        purging.give_up(session, one, at=now(), because="test", actor="test")
    treated.send(image(1))
    treated.housekeeping().tick()
    first, second = treated.rows(InstanceRow)
    assert (first.purged_at, second.purged_at is not None) == (None, True)
    assert treated.lies() == []
    assert not treated.archive.holds(second.path)


def test_a_disk_that_does_not_delete_stops_nothing_else_and_is_asked_again(
    treated: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_path: Path, *_more: Any, **_named: Any) -> None:
        raise OSError(30, "Read-only file system")

    keeper = treated.housekeeping(keep_days=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", broken)
        for _ in range(3):
            keeper.tick()
    assert "Read-only file system" in caplog.text
    assert treated.lies() == []
    assert [row.ended_at for row in treated.rows(PurgeRow)] == [None]
    treated.housekeeping(keep_days=1e-9).tick()
    assert treated.files() == set()


def test_what_a_killed_worker_left_goes_too_and_what_is_on_its_way_in_stays(treated: House) -> None:
    old = treated.archive.root / "results" / STUDY / "1" / ".writing-x"
    new = treated.archive.root / "received" / STUDY / CHEST / f"{CHEST}.3-0.dcm"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    treated.purge()
    assert (old.exists(), new.exists()) == (False, True)


# -- what was asked for again


def test_retry_of_a_purged_study_says_why_it_cannot_and_can_once_it_was_sent_again(treated: House) -> None:
    failed(treated)
    assert treated.purge(Rules(0.0, 0.0, None)) is not None
    refused = retry(treated.database, treated.settings, STUDY, actor="ada")
    assert not refused.queued
    assert f"deleted on {now().astimezone():%Y-%m-%d}" in refused.reason
    assert len(treated.rows(RevisionRow)) == 1
    treated.send(image(1), image(2))
    assert retry(treated.database, treated.settings, STUDY, actor="ada").queued
    treated.report()
    assert treated.decisions(2) == {CHEST: "analysed"}


def test_dead_letters_of_a_purged_study_are_not_sent_and_no_fault_any_more(treated: House) -> None:
    undelivered(treated)
    with treated.database.read() as session:
        assert views.failures(session).dead_letters
    assert treated.purge(Rules(0.0, 0.0, None)) is not None
    assert resend(treated.database, study_instance_uid=STUDY, peer_aet=None, actor="ada") == 0
    with treated.database.read() as session:
        assert not views.failures(session).dead_letters
    assert {row.state for row in treated.rows(DeliveryRow)} == {"dead"}

"""What `check` says of disk and retention."""

import datetime as dt
import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from node.archive import Archive
from node.cli.check import Tried
from node.db import purging
from node.db.session import Database
from node.db.tables import InstanceRow, PurgeRow
from node.jobs.record import now
from seeded.rows import DELIVERED


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watermark just above what the disk of these tests holds, wherever that is."""
    monkeypatch.setattr(Archive, "used_percent", lambda _self: 85.0)


def tried(run, what: str) -> Tried:
    found = json.loads(run("check", "--json", "--no-models").stdout)
    [entry] = [entry for entry in found["tried"] if entry["what"] == what]
    return Tried(**entry)


def test_disk_use_is_said_with_the_watermark(run, seeded: Database, near: None) -> None:
    disk = tried(run, "disk")
    assert disk.verdict == "ok"
    assert "85.0 % used, watermark 90 %" in disk.found


def test_an_archive_that_is_not_the_one_of_the_database_is_a_fault(run, seeded: Database, home: Path) -> None:
    told = tried(run, "files")
    assert told.verdict == "fault"
    assert "of the first 10 and the last 10 received objects that are to be here none is in" in told.found
    with seeded.read() as session:
        newest = session.scalars(select(InstanceRow.path).order_by(InstanceRow.id.desc())).first()
    (home / "archive" / str(newest)).parent.mkdir(parents=True, exist_ok=True)
    (home / "archive" / str(newest)).touch()
    assert "files:" not in run("check", "--no-models").stdout


def test_studies_that_only_the_archive_knows_are_told_as_after_a_restored_backup(
    run, seeded: Database, home: Path
) -> None:
    received = home / "archive" / "received"
    for uid in (DELIVERED, "1.2.77.1", "1.2.77.2"):
        (received / uid).mkdir(parents=True, exist_ok=True)
    (received / "lost+found").mkdir()
    told = tried(run, "unknown files")
    assert told.verdict == "note"
    assert "2 (1.2.77.1, 1.2.77.2)" in told.found
    assert "sent again" in told.change
    for uid in ("1.2.77.1", "1.2.77.2"):
        (received / uid).rmdir()
    assert "unknown files" not in run("check", "--no-models").stdout


def test_a_node_that_holds_nothing_lacks_nothing(run, empty: Database) -> None:
    assert "files:" not in run("check", "--no-models").stdout


def test_that_no_policy_is_set_is_a_note_only_near_the_watermark(
    run, seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive, "used_percent", lambda _self: 50.0)
    assert tried(run, "retention").verdict == "ok"
    monkeypatch.setattr(Archive, "used_percent", lambda _self: 85.0)
    told = tried(run, "retention")
    assert told.verdict == "note"
    assert "no policy is set here (PACSNODE_KEEP_DAYS)" in told.found
    assert "pacsnode purge --older-than" in told.change


def test_near_the_watermark_it_says_what_the_policy_would_free(
    run, seeded: Database, near: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSNODE_KEEP_DAYS", "30")
    monkeypatch.setenv("PACSNODE_KEEP_CONFLICT_DAYS", "30")
    told = tried(run, "retention")
    assert told.verdict == "note"
    assert "delivered studies go after 30 days; due now: 1 of 4 studies, 10.9 KiB" in told.found


def test_a_full_disk_names_the_way_out(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DISK_WATERMARK_PERCENT", "0.0001")
    disk = tried(run, "disk")
    assert (disk.verdict, "pacsnode purge" in disk.change) == ("fault", True)


def test_files_that_were_given_up_and_do_not_go_are_a_fault(run, seeded: Database) -> None:
    with seeded.write() as session:
        [one] = purging.held(session, [DELIVERED])
        purging.give_up(session, one, at=now(), because="test", actor="test")
    assert "deletion" not in run("check", "--no-models").stdout, "it was a moment ago"
    with seeded.write() as session:
        session.execute(update(PurgeRow).values(purged_at=now() - dt.timedelta(hours=2)))
    told = tried(run, "deletion")
    assert told.verdict == "fault"
    assert DELIVERED in told.found
    assert "`clock` runs" in told.change

"""`purge`: dry unless told, a table that says what would go and why the rest is kept, and the same as JSON."""

import datetime as dt
import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from node.db.session import Database
from node.db.tables import AuditEventRow, ConflictRow, InstanceRow, PurgeRow, ResultRow, StudyRow
from node.settings import Settings
from seeded.rows import DELIVERED, INCOMPLETE, RECEIVING, RUNNING


@pytest.fixture
def archive(seeded: Database, home: Path) -> Path:
    """The files that the seeded rows claim."""
    root = Settings.load(home=home).archive_dir
    with seeded.read() as session:
        paths = [path for kind in (InstanceRow, ResultRow, ConflictRow) for path in session.scalars(select(kind.path))]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def why(run, *options: str) -> dict[str, str]:
    found = json.loads(run("purge", "--json", *options).stdout)
    return {one["study_instance_uid"]: one["why"] for one in found["studies"]}


def test_without_yes_it_says_what_would_go_and_why_the_rest_is_kept(run, archive: Path, seeded: Database) -> None:
    before = files(archive)
    result = run("purge", "--older-than", "30", "--conflicts")
    assert result.exit_code == 0
    assert "would be deleted: 1 study, 8 files, 10.9 KiB; kept: 3 studies" in result.stdout
    assert "nothing was changed" in result.stdout
    goes, *kept = [line for line in result.stdout.splitlines() if line.strip().startswith("1.2.3.")]
    assert DELIVERED in goes
    assert all("kept" in line for line in kept)
    assert files(archive) == before
    with seeded.read() as session:
        assert not session.scalars(select(PurgeRow)).all()


def test_each_study_that_is_kept_has_its_reason(run, archive: Path) -> None:
    reasons = why(run, "--older-than", "30")
    assert "objects kept aside with other bytes: 1" in reasons[DELIVERED]
    assert reasons[RUNNING].startswith("not finished: revision 1 is planned")
    assert "results refused for good: 3" in reasons[INCOMPLETE]
    assert reasons[RECEIVING].startswith("not finished: revision 1 is receiving")
    young = why(run, "--older-than", "36500", "--conflicts")[DELIVERED]
    assert young.startswith("until 21")


def test_with_yes_the_files_go_and_who_asked_is_in_the_trail(run, archive: Path, seeded: Database) -> None:
    before = files(archive)
    result = run("purge", "--older-than", "30", "--conflicts", "--yes")
    assert result.exit_code == 0
    assert "deleted: 1 study, 8 files" in result.stdout
    gone = before - files(archive)
    assert len(gone) == 8
    assert all(DELIVERED in path or path == "aside/x.dcm" for path in gone)
    with seeded.read() as session:
        [event] = session.scalars(select(AuditEventRow).where(AuditEventRow.action == "study.purged"))
    assert (event.study_instance_uid, event.detail["because"].startswith("by hand, older than 30 days")) == (
        DELIVERED,
        True,
    )
    assert run("audit", "verify").exit_code == 0
    assert run("purge", "--older-than", "30", "--conflicts", "--yes").exit_code == 1, "nothing more to delete"


def test_study_and_list_say_when_the_files_were_deleted(run, archive: Path) -> None:
    run("purge", "--study", DELIVERED, "--conflicts", "--yes")
    today = f"{dt.datetime.now():%Y-%m-%d}"
    told = run("study", DELIVERED).stdout
    assert "deleted 8 files" in told
    assert "received objects that are held: 0" in told
    assert json.loads(run("study", DELIVERED, "--json").stdout)["purges"][0]["files"] == 8
    assert f"files deleted {today}" in run("studies", DELIVERED).stdout
    again = run("purge", "--study", DELIVERED)
    assert again.exit_code == 2
    assert f"files of this study were deleted on {today}" in again.stderr


def test_one_study_goes_whatever_its_age_but_not_what_is_under_way_or_undelivered(run, archive: Path) -> None:
    assert run("purge", "--study", RUNNING, "--failed", "--conflicts", "--yes").exit_code == 1
    assert run("purge", "--study", INCOMPLETE, "--yes").exit_code == 1
    assert "results refused for good" in run("purge", "--study", INCOMPLETE).stdout
    assert run("purge", "--study", INCOMPLETE, "--failed", "--yes").exit_code == 0
    refused = run("resend", INCOMPLETE)
    assert refused.exit_code == 1
    assert "files of this study were deleted on" in refused.stdout


def test_without_a_policy_an_age_or_a_study_it_asks_for_one(run, archive: Path) -> None:
    result = run("purge", "--yes")
    assert result.exit_code == 2
    assert "no policy is set (PACSNODE_KEEP_DAYS)" in result.stderr
    assert run("purge", "--study", "9.9", "--yes").exit_code == 2


def test_the_policy_of_the_environment_is_what_it_does_by_itself(
    run, archive: Path, seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSNODE_KEEP_DAYS", "30")
    assert run("purge").exit_code == 1
    monkeypatch.setenv("PACSNODE_KEEP_CONFLICT_DAYS", "30")
    assert run("purge").exit_code == 0
    monkeypatch.setenv("PACSNODE_KEEP_FAILED_DAYS", "365000")
    assert why(run)[INCOMPLETE].startswith("until ")
    with seeded.write() as session:
        session.execute(update(StudyRow).values(touched_at=dt.datetime.now(dt.UTC)))
    assert run("purge").exit_code == 1, "each was sent again just now"


def test_yes_and_dry_run_contradict_each_other(run, archive: Path) -> None:
    before = files(archive)
    assert run("purge", "--older-than", "30", "--yes", "--dry-run").exit_code == 2
    assert run("purge", "--older-than", "30", "--conflicts", "--dry-run").exit_code == 0
    assert files(archive) == before


def test_a_disk_that_does_not_delete_is_said_and_ends_in_an_exit_code(
    run, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path, **_named: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", broken)
    result = run("purge", "--study", DELIVERED, "--conflicts", "--yes")
    assert result.exit_code == 3
    assert "Read-only file system" in result.stderr
    assert "given up" in run("study", DELIVERED).stdout


def test_an_archive_that_is_out_of_reach_is_told_and_nothing_is_given_up(run, archive: Path, seeded: Database) -> None:
    archive.rename(archive.with_name("away"))
    (archive / "received").mkdir(parents=True)
    result = run("purge", "--older-than", "30", "--conflicts", "--yes")
    assert result.exit_code != 0
    assert "the archive seems to be out of reach" in result.output
    with seeded.read() as session:
        assert not session.scalars(select(PurgeRow)).all()

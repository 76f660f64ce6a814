from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text

from network.certificates import Authority
from node.cli import home as homes
from node.cli.check import Tried, _judge
from node.cli.home import free_port
from node.cli.up import PROCESSES
from node.db import peers
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import JobRow, RevisionRow
from node.dicom.query import RESULT_CLASSES, EchoReport
from node.dicom.standin import StandInPacs
from node.jobs.site import apply_site
from node.settings import Peer, Settings, Site, Switch
from seeded.rows import INCOMPLETE, RUNNING, SITE

ALL = tuple(RESULT_CLASSES)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ports of our own, so that nothing else on this machine answers."""
    port = free_port("127.0.0.1")
    monkeypatch.setenv("PACSNODE_PORT", str(port))
    monkeypatch.setenv("PACSNODE_WEB_PORT", str(free_port("127.0.0.1")))
    return port


def tried(run, *options: str) -> dict[str, Tried]:
    found = json.loads(run("check", "--json", "--no-models", *options).stdout)
    return {entry["what"]: Tried(**entry) for entry in found["tried"]}


def test_before_the_first_start_nothing_is_at_fault(run, ports: int) -> None:
    result = run("check", "--no-models")
    assert result.exit_code == 0
    assert "database: not made yet" in result.stdout
    assert "nothing at fault" in result.stdout


def test_a_database_of_another_release_is_a_fault_with_its_remedy(run, ports: int, home: Path) -> None:
    run("migrate")
    run("migrate", "--down", "base")
    found = tried(run)["database"]
    assert (found.verdict, found.change) == ("fault", "run `pacsnode migrate`")


def test_a_port_in_use_is_said(run, ports: int, empty: Database) -> None:
    assert tried(run)["DICOM port"].found.endswith("is free")
    with socket.create_server(("127.0.0.1", ports)):
        assert "in use" in tried(run)["DICOM port"].found


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.9"])
def test_an_address_at_which_nobody_can_listen_here_is_a_fault(
    run, ports: int, empty: Database, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("PACSNODE_HOST", host)
    found = tried(run)["DICOM port"]
    assert (found.verdict, f"nobody can listen at {host}:{ports}" in found.found) == ("fault", True)


def test_a_database_of_a_newer_release_is_a_fault_that_no_migration_mends(run, ports: int, empty: Database) -> None:
    with empty.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "newer pacsnode" in tried(run)["database"].change


def test_a_peer_that_does_not_answer_is_a_fault(run, ports: int, empty: Database) -> None:
    site = SITE.model_dump(mode="json", by_alias=True)
    site["peer"][1]["port"] = free_port("127.0.0.1")
    apply_site(empty, Site.model_validate(site), actor="test")
    result = run("check", "--no-models")
    assert result.exit_code == 1
    assert "no connection" in result.stdout
    assert "1 fault" in result.stdout


def test_a_peer_that_takes_all_is_in_order(run, ports: int, empty: Database, tmp_path: Path) -> None:
    pacs = StandInPacs(tmp_path / "pacs", aet="PACS")
    port = pacs.start()
    site = {"peer": [{"aet": "PACS", "host": "127.0.0.1", "port": port}]}
    apply_site(empty, Site.model_validate(site), actor="test")
    try:
        found = tried(run)
    finally:
        pacs.stop()
    assert found[f"peer PACS (127.0.0.1:{port})"].verdict == "ok"
    assert "proof by storage commitment" in found[f"peer PACS (127.0.0.1:{port})"].found
    assert "the results go nowhere" in found["route of PACS"].found


def test_a_full_disk_is_a_fault(run, ports: int, empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_DISK_WATERMARK_PERCENT", "0.0001")
    assert "refused (0xA700)" in tried(run)["disk"].found


@pytest.fixture
def gone() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_of_a_running_node_every_process_that_does_not_run_is_a_fault(
    run, ports: int, empty: Database, home: Path, gone: int
) -> None:
    settings = Settings.load(home=home)
    homes.prepare(settings)
    with homes.sole_owner(settings):
        for name, pid, said in (("receive", os.getpid(), os.getpid()), ("infer", gone, gone), ("deliver", 1, gone)):
            (settings.run_dir / f"{name}.pid").write_text(f"{pid}\n", encoding="ascii")
            (settings.run_dir / f"{name}.ready").write_text(json.dumps({"pid": said}), encoding="ascii")
        found = tried(run)
    assert {name: found[name].verdict for name in PROCESSES} == {
        "receive": "ok",
        "infer": "fault",
        "deliver": "fault",
        "clock": "fault",
        "web": "fault",
    }
    assert "clock.log" in found["clock"].change
    assert "clock" not in tried(run), "no `up` has this home now: nothing is known of its processes"


def test_work_that_waits_too_long_is_a_fault_that_names_who_should_do_it(run, ports: int, seeded: Database) -> None:
    """The seeded studies are of long ago: one was never closed, one's worker never came back."""
    found = json.loads(run("check", "--json", "--no-models").stdout)["tried"]
    work = {one["found"].split(":")[0]: one for one in found if one["what"] == "work"}
    assert set(work) == {"studies to be closed", "jobs to be taken back from a silent worker"}
    assert all(one["verdict"] == "fault" and "clock" in one["change"] for one in work.values())


def test_work_that_waits_for_a_while_is_in_order(
    run, ports: int, seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSNODE_OVERDUE_S", str(10 * 366 * 86400))
    assert tried(run)["work"].verdict == "ok"


def test_what_failed_for_good_is_counted_with_the_command_that_helps(run, ports: int, seeded: Database) -> None:
    with seeded.write() as session:
        job = session.query(JobRow).join(RevisionRow).filter_by(study_instance_uid=RUNNING).one()
        job.state = JobState.FAILED
        session.add(
            JobRow(revision_id=job.revision_id, pipeline="report", state=JobState.FAILED, queued_at=job.queued_at)
        )
    found = tried(run)
    assert (found["reports"].verdict, found["analyses"].verdict) == ("fault", "note")
    assert RUNNING in found["reports"].found
    assert "pacsnode retry UID" in found["reports"].change
    dead = found["dead letters to PACS"]
    assert (dead.verdict, dead.found) == ("fault", f"results refused for good: 3, of studies: 1 ({INCOMPLETE})")
    assert "pacsnode resend --to PACS" in dead.change
    assert INCOMPLETE in run("studies", "--state", "incomplete").stdout
    assert run("check", "--no-models").exit_code == 1


def test_an_open_breaker_is_said(run, ports: int, seeded: Database) -> None:
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with seeded.write() as session:
        peers.note_failure(session, "PACS", limit=1, open_until=until)
    assert "failed associations: 1" in tried(run)["breaker of PACS"].found


def test_a_database_that_takes_no_change_is_a_fault(run, seeded: Database) -> None:
    full = "CREATE TRIGGER full BEFORE UPDATE ON audit_head BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    with seeded.engine.begin() as connection:
        connection.execute(text(full))
    found = tried(run)["database"]
    assert (found.verdict, "disk is full" in found.found) == ("fault", True)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that fit, apart from the port."""
    authority = Authority(tmp_path / "authority", "Hospital")
    identity = authority.issue("node")
    for name, path in (
        ("CERTIFICATE", identity.certificate),
        ("KEY", identity.key),
        ("AUTHORITIES", authority.certificate),
    ):
        monkeypatch.setenv(f"PACSNODE_TLS_{name}", str(path))


def test_a_tls_port_without_a_certificate_is_a_fault(run, ports: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSNODE_TLS_PORT", "2762")
    found = tried(run)["TLS"]
    assert (found.verdict, "`receive` does not start" in found.found) == ("fault", True)


def test_a_certificate_without_a_tls_port_is_a_fault_unless_it_serves_for_sending(
    run, ports: int, empty: Database, certificate: None
) -> None:
    found = tried(run)["TLS"]
    assert (found.verdict, "nothing listens for TLS" in found.found) == ("fault", True)
    site = {"peer": [{"aet": "PACS", "host": "127.0.0.1", "port": free_port("127.0.0.1"), "tls": True}]}
    apply_site(empty, Site.model_validate(site), actor="test")
    assert tried(run)["TLS"].verdict == "note"


def test_a_tls_port_with_its_certificate_is_in_order(
    run, ports: int, certificate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACSNODE_TLS_PORT", str(free_port("127.0.0.1")))
    found = tried(run)
    assert (found["TLS"].verdict, found["TLS port"].found.endswith("is free")) == ("ok", True)
    assert " ends on " in found["TLS certificate"].found, "those of the tests last two days"


def test_a_certificate_that_has_ended_is_a_fault(
    run, ports: int, certificate: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Authority(tmp_path / "other", "Other").issue("ended", days=-1)
    monkeypatch.setenv("PACSNODE_TLS_PORT", str(free_port("127.0.0.1")))
    monkeypatch.setenv("PACSNODE_TLS_CERTIFICATE", str(ended.certificate))
    monkeypatch.setenv("PACSNODE_TLS_KEY", str(ended.key))
    found = tried(run)["TLS"]
    assert (found.verdict, "certificate has expired" in found.found) == ("fault", True)


@pytest.mark.parametrize(
    ("peer", "report", "verdict", "remedy"),
    [
        ({}, EchoReport(0.1, ALL, commitment=True, find=True), "ok", ""),
        ({}, EchoReport(0.1, ALL, commitment=False, find=True), "ok", ""),
        ({}, EchoReport(0.1, ALL, commitment=False, find=False), "note", "on C-STORE success alone"),
        ({"commitment": "never"}, EchoReport(0.1, ALL, commitment=True, find=False), "note", "C-STORE success alone"),
        ({}, EchoReport(0.1, ("SC", "CT", "SEG"), commitment=True, find=True), "note", "it lacks sr:"),
        ({}, EchoReport(0.1, (), commitment=True, find=True), "fault", "it lacks sr, seg, sc, derived"),
        ({"reconcile": True}, EchoReport(0.1, ALL, commitment=True, find=True), "ok", ""),
        ({"reconcile": True}, EchoReport(0.1, ALL, commitment=True, find=False), "note", "`reconcile` is set"),
        ({"may_receive": False}, EchoReport(None, (), commitment=False, find=False), "ok", ""),
        ({"takes": ("sr",)}, EchoReport(0.1, ("Comprehensive SR",), commitment=True, find=True), "ok", ""),
        ({"takes": ("sr-text",)}, EchoReport(0.1, ("Basic Text SR",), commitment=True, find=True), "ok", ""),
        (
            {"takes": ("sr-text",)},
            EchoReport(0.1, ("Comprehensive SR",), commitment=True, find=True),
            "note",
            "sr-text:",
        ),
    ],
)
def test_what_a_peer_offers_is_judged_by_what_it_is_to_be_given(
    peer: dict[str, object], report: EchoReport, verdict: str, remedy: str
) -> None:
    known = Peer.model_validate({"aet": "PACS", "host": "pacs", "port": 104, **peer})
    _, changes, judged = _judge(known, report)
    assert judged == verdict
    assert remedy in "; ".join(changes)


def test_an_analysis_that_is_not_in_service_is_noted_and_what_is_to_be_done_once_it_is(
    run, ports: int, seeded: Database
) -> None:
    off = {"name": "low_dose_ct", "state": "off", "reason": "new kernel"}
    apply_site(seeded, SITE.model_copy(update={"switches": (Switch(**off),)}), actor="test")
    noted = tried(run)["analysis low_dose_ct"]
    assert noted.verdict == "note"
    assert "switched off, since" in noted.found
    assert "new kernel (studies that go without it: 0)" in noted.found
    with seeded.write() as session:
        job = session.scalars(select(JobRow).where(JobRow.outcome == "processed")).first()
        job.outcome = "switched off"
        job.revision.selection = [{**job.revision.selection[0], "withheld": "off"}]
        study = job.revision.study_instance_uid
    assert "(studies that go without it: 1)" in tried(run)["analysis low_dose_ct"].found
    apply_site(seeded, SITE, actor="test")
    noted = tried(run)["analysis low_dose_ct"]
    assert noted.found == f"on again; studies whose report goes without it: 1 ({study})"
    assert "retry UID, or --withheld" in noted.change

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from node.cli.check import Tried, _judge
from node.cli.home import free_port
from node.db.session import Database
from node.dicom.query import EchoReport
from node.dicom.standin import StandInPacs
from node.jobs.site import apply_site
from node.settings import Peer, Site
from seeded.rows import SITE

ALL = ("Comprehensive 3D SR", "Comprehensive SR", "Enhanced SR", "SEG", "SC", "CT", "CR", "DX", "GSPS")


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


def test_a_peer_that_does_not_answer_is_a_fault(run, ports: int, seeded: Database) -> None:
    site = SITE.model_dump(mode="json", by_alias=True)
    site["peer"][1]["port"] = free_port("127.0.0.1")
    apply_site(seeded, Site.model_validate(site), actor="test")
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


@pytest.mark.parametrize(
    ("peer", "report", "verdict", "remedy"),
    [
        ({}, EchoReport(0.1, ALL, commitment=True, find=True), "ok", ""),
        ({}, EchoReport(0.1, ALL, commitment=False, find=True), "ok", ""),
        ({}, EchoReport(0.1, ALL, commitment=False, find=False), "note", "on C-STORE success alone"),
        ({"commitment": "never"}, EchoReport(0.1, ALL, commitment=True, find=False), "note", "C-STORE success alone"),
        ({}, EchoReport(0.1, ("SC", "CT", "SEG"), commitment=True, find=True), "note", "it lacks sr:"),
        ({}, EchoReport(0.1, (), commitment=True, find=True), "fault", "it lacks sr, seg, sc, derived"),
        ({"may_receive": False}, EchoReport(None, (), commitment=False, find=False), "ok", ""),
    ],
)
def test_what_a_peer_offers_is_judged_by_what_it_is_to_be_given(
    peer: dict[str, object], report: EchoReport, verdict: str, remedy: str
) -> None:
    known = Peer.model_validate({"aet": "PACS", "host": "pacs", "port": 104, **peer})
    _, changes, judged = _judge(known, report)
    assert judged == verdict
    assert remedy in "; ".join(changes)

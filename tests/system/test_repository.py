"""The trail reaches a hospital's audit repository: rsyslog over mutual TLS, away, crashed and back."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from network.certificates import Authority
from network.ps3_15 import complaints
from node.db import feed
from system import dcmtk, studies
from system.dcmtk import Address
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.processes import free_port, wait_until
from system.rsyslog import Rsyslog
from system.standin import StandIn

SLICES = 6
NAME = "trail"
PATIENT_ID = f"TEST-{NAME}"


def kind(message: bytes) -> tuple[str, str]:
    root = ElementTree.fromstring(message)
    codes = [code.get("csd-code", "") for code in root.iter("EventTypeCode")]
    return root.find("EventIdentification/EventID").get("originalText", ""), codes[-1]  # type: ignore[union-attr]


def instances(messages: list[bytes], action: str) -> int:
    roots = [ElementTree.fromstring(message) for message in messages if kind(message)[1] == action]
    return sum(int(one.get("NumberOfInstances", "")) for root in roots for one in root.iter("SOPClass"))


@pytest.mark.timeout(600)
def test_the_whole_trail_of_a_study_is_told_though_the_repository_was_away_and_crashed(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority", "Hospital")
    ours = authority.issue("node")
    repository = Rsyslog(tmp_path / "rsyslog", authority)
    port, pacs_port = free_port(), free_port()
    settings = {
        "PACSNODE_AUDIT_URL": f"tls://127.0.0.1:{repository.port}",
        "PACSNODE_AUDIT_CERTIFICATE": str(ours.certificate),
        "PACSNODE_AUDIT_KEY": str(ours.key),
        "PACSNODE_AUDIT_AUTHORITIES": str(authority.certificate),
    }
    site = site_text(
        [PeerEntry("MODALITY", may_receive=False), PeerEntry("PACS", port=pacs_port)], {"MODALITY": ["PACS"]}
    )
    study = studies.ct_study(tmp_path / "study", name=NAME, slices=SLICES, size=64)
    with (
        StandIn(tmp_path / "pacs", reports_to=Address("NODE", port), aet="PACS", port=pacs_port) as pacs,
        Node(tmp_path / "node", site=site, port=port, env=settings) as node,
    ):
        ledger = Ledger(node)
        assert dcmtk.storescu(node.address, study.files).ok
        ledger.wait_ended(study.uid)  # results do not wait for the repository
        assert "Connection refused" in node.command("check", "--no-models").text
        node.kill("clock")
        repository.start()
        wait_until(lambda: is_told(ledger), f"the trail is told\n{node.tail()}", timeout_s=120)

        repository.crash()
        for _ in range(3):
            assert not dcmtk.echoscu(node.address, calling="STRANGER").ok
        wait_until(lambda: trouble(ledger), "the crash is noticed")
        repository.start()
        wait_until(lambda: is_told(ledger), f"the trail is told\n{node.tail()}", timeout_s=120)
        assert node.command("audit", "verify").ok
        stored = len(pacs.datasets())
        happened = ledger.audit_actions(study.uid)
    repository.stop()

    messages = repository.messages()
    assert [complaints(message) for message in messages if complaints(message)] == []
    assert len(messages) > len(set(messages))  # what it was told just before the crash came again, and shows
    messages = sorted(set(messages), key=messages.index)
    assert instances(messages, "instance.stored") == SLICES
    assert instances(messages, "delivery.sent") == happened["delivery.sent"] >= stored
    kinds = Counter(kind(message) for message in messages)
    assert kinds["Security Alert", "association.refused"] == 3
    assert kinds["Application Activity", "node.started"] == 1
    assert kinds["Begin Transferring DICOM Instances", "revision.reported"] == 1
    assert kinds["DICOM Instances Accessed", "job.started"] == happened["job.started"]
    log = (node.home / "log" / "clock.log").read_text(encoding="utf8")
    assert 1 <= len(re.findall("audit messages are not taken", log)) <= 3  # of each outage and each clock one line
    assert PATIENT_ID not in log


def trouble(ledger: Ledger) -> str:
    with ledger.session() as session:
        return feed.position(session).trouble


def is_told(ledger: Ledger) -> bool:
    with ledger.session() as session:
        return not feed.lag(session).events

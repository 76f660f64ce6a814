"""Nothing lost, nothing doubled: every process killed in every stage, Redis flushed, the PACS away and back.

Results say when their revision was complete, so two independent runs differ in that time. Both runs below therefore
begin from one copied home whose revision is complete and not yet planned: then every byte must agree.

A stage is held open by stopping the worker (SIGSTOP), or by a PACS that is slow or silent, until the kill has fallen
into it: no case passes because it came too late.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from node.audit.events import Action
from node.db.lifecycle import DeliveryState, RevisionState
from node.db.work import REPORT
from system import dcmtk, studies
from system.dcmtk import Address
from system.ledger import Ledger
from system.node_process import PARTS, Node, PeerEntry, site_text
from system.orthanc import Orthanc, Remote
from system.processes import Process, alive, free_port, wait_until
from system.standin import StandIn

pytestmark = pytest.mark.timeout(600)

ANALYSIS = "low_dose_ct"
SLICES = 24
SIZE = 256
PATIENT = {"PACSNODE_MAX_ATTEMPTS": "20", "PACSNODE_DELIVERY_ATTEMPTS": "1000"}
"""More tries than a test can kill."""


@dataclass(frozen=True)
class Received:
    """A home with one study in it that is complete, and nothing of it planned."""

    home: Path
    study: studies.Study
    node_port: int
    pacs_port: int

    def node(self, folder: Path) -> Node:
        """A node that goes on from a copy of this home."""
        folder.mkdir()
        shutil.copytree(self.home, folder / "home")
        peers = [PeerEntry("MODALITY", may_receive=False), PeerEntry("PACS", port=self.pacs_port)]
        return Node(folder, site=site_text(peers, {"*": ["PACS"]}), port=self.node_port, env=PATIENT)

    def pacs(self, folder: Path) -> StandIn:
        return StandIn(folder, reports_to=Address("NODE", self.node_port), aet="PACS", port=self.pacs_port)


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Received:
    """Every process is killed while the study comes in. Then the clock, alone and without broker, calls it complete."""
    folder = tmp_path_factory.mktemp("kill")
    study = studies.ct_study(folder / "study", name="kill", slices=SLICES, size=SIZE)
    pacs_port = free_port()
    slow = site_text([PeerEntry("MODALITY", quiet_s=3600, deadline_s=7200, may_receive=False)], {})
    node = Node(folder, site=slow, env=PATIENT)
    with node:
        ledger = Ledger(node)
        kill_while_receiving(node, study, ledger)
        assert dcmtk.storescu(node.address, study.files).ok
        assert ledger.instances(study.uid) == study.instance_uids()
        assert len(ledger.revisions(study.uid)) == 1
    quick = folder / "quick.toml"
    quick.write_text(site_text([PeerEntry("MODALITY", quiet_s=0.1, may_receive=False)], {}), encoding="utf8")
    assert node.command("peers", "apply", quick).ok
    clock = Process([*node.command_line(), "clock"], log=node.log, env=node.env)
    try:
        wait_until(lambda: ledger.revisions(study.uid)[0].state == "complete", "the clock calls the study complete")
    finally:
        clock.stop()
    return Received(node.home, study, node.port, pacs_port)


def kill_while_receiving(node: Node, study: studies.Study, ledger: Ledger) -> None:
    """Each process in turn, in the middle of an association. Only the receiver's death may be felt by the sender."""
    half = len(study.files) // 2
    for part in PARTS:
        with Sender(node.address) as sender:
            first = [sender.store(path) for path in study.files[:half]]
            pid = node.strike(part)
            rest = [sender.store(path) for path in study.files[half:]]
        assert set(first) == {0x0000}
        assert part == "receive" or set(rest) == {0x0000}, part
        node.wait_anew(part, pid)
        wait_until(lambda: dcmtk.echoscu(node.address).ok, "the node takes associations")
        assert len(ledger.instances(study.uid)) >= half


class Sender:
    """An association that sends object by object."""

    def __init__(self, to: Address) -> None:
        self._ae = AE(ae_title="MODALITY")
        self._ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        self._to = to

    def __enter__(self) -> Sender:
        self._association = self._ae.associate(self._to.host, self._to.port, ae_title=self._to.aet)
        assert self._association.is_established
        return self

    def __exit__(self, *exc: object) -> None:
        if self._association.is_established:
            self._association.release()

    def store(self, path: Path) -> int | None:
        """The status, or None where the association is gone."""
        if not self._association.is_established:
            return None
        return getattr(self._association.send_c_store(path), "Status", None)


def flush_broker(node: Node) -> None:
    with redis.Redis(unix_socket_path=str(node.home / "run" / "redis.sock")) as client:
        client.flushall()


@dataclass(frozen=True)
class Ended:
    """What came of the study."""

    produced: dict[str, str]
    """SHA-256 of each result file by SOP Instance UID."""
    stored: dict[str, str]
    """Digest of each data set in the PACS."""


def ended(ledger: Ledger, pacs: StandIn, study: studies.Study) -> Ended:
    revision = ledger.wait_ended(study.uid, timeout_s=240)
    assert revision.state == "delivered", ledger.summary(study.uid)
    assert len(ledger.revisions(study.uid)) == 1
    stored = {uid: studies.data_set_digest(path) for uid, path in pacs.stored.items()}
    return Ended(ledger.digests(study.uid), stored)


@pytest.fixture(scope="module")
def undisturbed(received: Received, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("calm")
    with received.pacs(folder / "pacs") as pacs, received.node(folder / "node") as node:
        return ended(Ledger(node), pacs, received.study)


def test_what_was_received_among_kills_is_what_was_sent(received: Received) -> None:
    node = Node(received.home.parent, site="")
    archived = {studies.data_set_digest(path) for path in Ledger(node).archived(received.study.uid)}
    assert archived == {studies.data_set_digest(path) for path in received.study.files}


@pytest.mark.parametrize("part", PARTS)
def test_the_results_are_the_same_when_a_process_dies_in_every_stage(
    received: Received, undisturbed: Ended, tmp_path: Path, part: str
) -> None:
    """One process, killed five times on the way of one study; with the broker dies all that it held."""
    with received.pacs(tmp_path / "pacs") as pacs:
        pacs.manners.delay_s, pacs.manners.silent = 1.0, True
        node = received.node(tmp_path / "node")
        ledger = Ledger(node)
        uid = received.study.uid
        try:
            with node.started_with_stopped("infer"):
                assert ledger.revisions(uid)[0].state == RevisionState.COMPLETE
                strike(node, part)
            for stage in (ANALYSIS, REPORT):
                with node.stopped("infer", once=lambda stage=stage: ledger.running(uid, stage)):
                    strike(node, part)
            wait_until(lambda: pacs.offered, "the first result reaches the PACS", timeout_s=120)
            first = next(iter(pacs.offered))
            assert first not in pacs.stored
            node.kill(part)
            pacs.manners.delay_s = 0.0
            wait_until(lambda: ledger.delivery_states(uid) == {DeliveryState.SENT}, "all is sent", timeout_s=120)
            pid = node.strike(part)
            assert ledger.delivery_states(uid) == {DeliveryState.SENT}
            node.wait_anew(part, pid)
            assert ended(ledger, pacs, received.study) == undisturbed
        finally:
            node.stop()
        attempts = {job.pipeline: job.attempt for job in ledger.jobs(uid)}
        assert attempts == dict.fromkeys((ANALYSIS, REPORT), 2 if part == "infer" else 1)
        assert pacs.offered[first] == (2 if part == "deliver" else 1)


def strike(node: Node, part: str) -> None:
    if part == "redis":
        flush_broker(node)
    node.kill(part)


def test_the_results_are_the_same_after_a_power_cut(received: Received, undisturbed: Ended, tmp_path: Path) -> None:
    """Everything dies at once: while a job runs, and again while results are sent."""
    with received.pacs(tmp_path / "pacs") as pacs, received.node(tmp_path / "node") as node:
        pacs.manners.delay_s = 1.0
        ledger = Ledger(node)
        ledger.wait_for_job(received.study.uid, "running", timeout_s=60)
        node.crash()
        node.start()
        wait_until(lambda: pacs.offered, "the first result reaches the PACS", timeout_s=120)
        node.crash()
        pacs.manners.delay_s = 0.0
        node.start()
        assert ended(ledger, pacs, received.study) == undisturbed


def test_the_results_are_the_same_when_the_pacs_was_away(
    received: Received, undisturbed: Ended, tmp_path: Path
) -> None:
    pacs = received.pacs(tmp_path / "pacs")
    with received.node(tmp_path / "node") as node:
        ledger = Ledger(node)
        wait_until(
            lambda: any(row.attempt for row in ledger.deliveries(received.study.uid)), "a delivery fails", timeout_s=120
        )
        assert not pacs.offered
        with pacs:
            assert ended(ledger, pacs, received.study) == undisturbed


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[Orthanc, Node]]:
    port = free_port()
    pacs = Orthanc(tmp_path / "orthanc", node=Remote("NODE", port))
    site = site_text([PeerEntry("PACS", port=pacs.port, quiet_s=4)], {"*": ["PACS"]})
    with Node(tmp_path / "node", site=site, port=port, env=PATIENT) as node:
        pacs.start()
        try:
            yield pacs, node
        finally:
            pacs.stop()


def test_orthanc_goes_away_after_routing_and_gets_everything_when_it_is_back(
    orthanc: tuple[Orthanc, Node], tmp_path: Path
) -> None:
    pacs, node = orthanc
    study = studies.ct_study(tmp_path / "study", name="away", slices=8)
    ledger = Ledger(node)
    pacs.upload(study.files)
    pacs.route(study.uid)
    pacs.stop()
    wait_until(lambda: any(row.attempt for row in ledger.deliveries(study.uid)), "a delivery fails", timeout_s=120)
    pacs.start()
    revision = ledger.wait_ended(study.uid)
    assert revision.state == "delivered", ledger.summary(study.uid)
    delivered = {row.sop_instance_uid for row in ledger.deliveries(study.uid)}
    assert set(pacs.fetch(study.uid, tmp_path / "back")) == study.instance_uids() | delivered


def test_the_node_ends_cleanly_when_asked_and_leaves_no_process_behind(tmp_path: Path) -> None:
    node = Node(tmp_path, site=site_text([PeerEntry("MODALITY")], {}))
    node.start()
    pids = [node.pid(part) for part in ("receive", "infer", "deliver", "clock", "web", "redis")]
    assert all(pids)
    assert node.stop() == 0
    assert not [pid for pid in pids if pid is not None and alive(pid)]


def test_a_process_is_started_again_though_somebody_holds_the_database(tmp_path: Path) -> None:
    """SQLite has one lock; the end of a process is on record once it is free."""
    with Node(tmp_path, site=site_text([PeerEntry("MODALITY")], {})) as node:
        with closing(sqlite3.connect(node.home / "node.sqlite", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            node.kill("clock")
            holder.execute("ROLLBACK")
        ledger = Ledger(node)
        wait_until(lambda: ledger.audit_actions()[Action.NODE_STOPPED], "the end of the clock is on record")

"""What is sent twice, late, in parallel, altered, by strangers, or back to us makes no second and no wrong result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from system import dcmtk, objects, studies
from system.dcmtk import Address
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.processes import free_port, wait_until
from system.standin import StandIn

SENDERS = 8
QUIET_S = 2.5


@dataclass(frozen=True)
class House:
    """One node, a modality that sends to it, and a PACS that gets the results."""

    node: Node
    ledger: Ledger
    pacs: StandIn

    def send(self, files: Sequence[Path], *, calling: str = "MODALITY") -> None:
        answer = dcmtk.storescu(self.node.address, files, calling=calling)
        assert answer.ok, answer.text[-2000:]

    def settle(self) -> None:
        """Longer than the quiet time and the clock's turn: what was to begin has begun."""
        time.sleep(QUIET_S + 1.5)

    def offered(self, study_uid: str) -> dict[str, int]:
        """How often the PACS was given each result of a study."""
        return {row.sop_instance_uid: self.pacs.offered[row.sop_instance_uid] for row in self.ledger.results(study_uid)}

    def report(self, revision_id: int) -> str:
        """Text of the report that the PACS holds for one revision."""
        held = {
            delivery.sop_instance_uid
            for delivery in self.ledger.rows_of_revision(revision_id)
            if delivery.state == "committed"
        }
        reports = [ds for ds in self.pacs.datasets() if ds.Modality == "SR" and ds.SOPInstanceUID in held]
        (report,) = reports
        return " ".join(objects.report_texts(report))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("once")
    port = free_port()
    with StandIn(folder / "pacs", reports_to=Address("NODE", port), aet="PACS") as pacs:
        peers = [
            PeerEntry("MODALITY", quiet_s=QUIET_S, may_receive=False),
            PeerEntry("PACS", port=pacs.port, quiet_s=QUIET_S),
            PeerEntry("ELSEWHERE", host="192.0.2.1"),
        ]
        with Node(folder / "node", site=site_text(peers, {"*": ["PACS"]}), port=port) as node:
            yield House(node, Ledger(node), pacs)


def test_eight_senders_of_one_series_at_once_make_one_set_of_results(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path, name="eight", slices=16)
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda _: house.send(study.files), range(SENDERS)))
    revision = house.ledger.wait_ended(study.uid)
    assert revision.state == "delivered", house.ledger.summary(study.uid)
    assert revision.number == 1
    assert house.ledger.instances(study.uid) == study.instance_uids()
    actions = house.ledger.audit_actions(study.uid)
    assert actions["instance.stored"] == 16
    assert actions["instance.duplicate"] == 16 * (SENDERS - 1)
    delivered = {row.sop_instance_uid for row in house.ledger.deliveries(study.uid)}
    assert {uid: times for uid, times in house.offered(study.uid).items() if times} == dict.fromkeys(delivered, 1)


def test_a_study_sent_three_times_is_worked_on_once(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path, name="thrice", slices=8)
    house.send(study.files)
    house.ledger.wait_ended(study.uid)
    digests, offered = house.ledger.digests(study.uid), house.offered(study.uid)
    house.send(study.files)
    house.send(study.files)
    wait_until(lambda: house.ledger.audit_actions(study.uid)["instance.duplicate"] == 16, "both are on record")
    house.settle()
    assert [revision.number for revision in house.ledger.revisions(study.uid)] == [1]
    assert house.ledger.digests(study.uid) == digests
    assert house.offered(study.uid) == offered


def test_late_images_make_a_second_revision_that_says_what_it_replaces(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path, name="late", slices=12)
    house.send(study.files[:8])
    first = house.ledger.wait_ended(study.uid)
    house.send(study.files[8:])
    second = house.ledger.wait_ended(study.uid, revisions=2)
    assert (first.number, second.number) == (1, 2)
    assert "replaces" not in house.report(first.id)
    text = house.report(second.id)
    assert "replaces revision 1" in text
    assert "12 images" in text
    house.settle()
    assert len(house.ledger.revisions(study.uid)) == 2


def test_results_routed_back_are_recognised_and_not_worked_on(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path, name="back", slices=8)
    house.send(study.files)
    house.ledger.wait_ended(study.uid)
    returned = [house.pacs.stored[uid] for uid, times in house.offered(study.uid).items() if times]
    assert returned
    before = house.ledger.digests(study.uid)
    house.send([*study.files, *returned], calling="PACS")
    house.settle()
    actions = house.ledger.audit_actions(study.uid)
    assert actions["instance.own_result"] == len(returned)
    assert len(house.ledger.revisions(study.uid)) == 1
    assert house.ledger.digests(study.uid) == before


def test_the_same_uid_with_other_bytes_is_kept_aside_and_changes_nothing(house: House, tmp_path: Path) -> None:
    study = studies.ct_study(tmp_path / "study", name="conflict", slices=8)
    house.send(study.files)
    house.ledger.wait_ended(study.uid)
    archived = house.ledger.archived(study.uid)
    contents = {path: path.read_bytes() for path in archived}
    other = studies.altered(study.files[3], tmp_path / "other")
    answer = dcmtk.storescu(house.node.address, [other])
    assert not answer.ok or "0xc001" in answer.text.lower()
    house.settle()
    (conflict,) = house.ledger.conflicts(study.uid)
    kept_aside = house.node.home / "archive" / conflict.path
    assert studies.data_set_digest(kept_aside) == studies.data_set_digest(other)
    assert {path: path.read_bytes() for path in archived} == contents
    assert len(house.ledger.revisions(study.uid)) == 1
    assert house.ledger.audit_actions(study.uid)["instance.conflict"] == 1
    assert house.node.json("study", study.uid)["conflicts"] == 1


@pytest.mark.parametrize(
    ("calling", "called"),
    [("STRANGER", "NODE"), ("MODALITY", "SOMEBODY"), ("ELSEWHERE", "NODE")],
    ids=["unknown calling title", "wrong called title", "known title from another host"],
)
def test_a_caller_we_do_not_know_is_refused_and_recorded(house: House, calling: str, called: str) -> None:
    answer = dcmtk.echoscu(Address(called, house.node.port), calling=calling)
    assert not answer.ok
    assert "Rejected" in answer.text
    events = house.node.json("audit", "--action", "association.refused", "--peer", calling)
    assert [event["outcome"] for event in events] == ["serious failure"]
    assert events[0]["detail"]["called_aet"] == called


def test_the_trail_of_all_this_holds(house: House) -> None:
    answer = house.node.command("audit", "verify")
    assert answer.ok, answer.text


def test_the_pages_for_machines_answer(house: House) -> None:
    assert house.node.web("/healthz").status_code == 200
    assert house.node.web("/readyz").status_code == 200
    assert "pacsnode" in house.node.web("/metrics").text

"""Destinations that take less, refuse, are full, or deny what they stored: what they get, and what is on record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from system import dcmtk, studies
from system.dcmtk import Address
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.processes import free_port, wait_until
from system.standin import Manners, StandIn

STRUCTURED = {Comprehensive3DSRStorage, ComprehensiveSRStorage}
ALL_SR = [*sorted(STRUCTURED), BasicTextSRStorage]

MANNERS = {
    "NO3DSR": Manners(refuses=[Comprehensive3DSRStorage]),
    "NOSR": Manners(refuses=ALL_SR),
    "NOSEG": Manners(refuses=[SegmentationStorage]),
    "TEXTONLY": Manners(),
    "NOPROOF": Manners(offers_commitment=False),
    "FULL": Manners(store_status=0xA700),
    "REFUSES": Manners(store_status=0xC000),
    "WARNS": Manners(),
    "DENIES": Manners(denies=True),
    "SILENT": Manners(silent=True),
    "ABORTS": Manners(aborts_after=0),
}
TAKES = {"TEXTONLY": ("sr-text", "sc"), "ABORTS": ("sr", "sc")}


@dataclass(frozen=True)
class House:
    node: Node
    ledger: Ledger
    peers: dict[str, StandIn]
    study: studies.Study

    def deliveries(self, aet: str) -> list[object]:
        return [row for row in self.ledger.deliveries(self.study.uid) if row.peer_aet == aet]

    def states(self, aet: str) -> set[str]:
        return {row.state for row in self.ledger.deliveries(self.study.uid) if row.peer_aet == aet}

    def wait_for(self, aet: str, *states: str) -> None:
        wait_until(
            lambda: self.states(aet) and self.states(aet) <= set(states),
            f"deliveries to {aet} are {states}\n{self.ledger.summary(self.study.uid)}",
            timeout_s=90,
        )

    def classes(self, aet: str) -> set[str]:
        return {str(dataset.SOPClassUID) for dataset in self.peers[aet].datasets()}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One study whose results go to every kind of destination at once: a bad one must not hold up the others."""
    folder = tmp_path_factory.mktemp("dest")
    port = free_port()
    with ExitStack() as stack:
        peers = {}
        for aet, manners in MANNERS.items():
            stand_in = StandIn(folder / aet, reports_to=Address("NODE", port), aet=aet, manners=manners)
            peers[aet] = stack.enter_context(stand_in)
        entries = [PeerEntry("MODALITY", quiet_s=1.5, may_receive=False)]
        entries += [PeerEntry(aet, port=peer.port, takes=TAKES.get(aet)) for aet, peer in peers.items()]
        quick = {"PACSNODE_DELIVERY_ATTEMPTS": "3", "PACSNODE_COMMITMENT_WAIT_S": "4"}
        site = site_text(entries, {"*": list(peers)})
        node = stack.enter_context(Node(folder / "node", site=site, port=port, env=quick))
        study = studies.ct_study(folder / "study", name="dest", slices=8)
        assert dcmtk.storescu(node.address, study.files).ok
        house = House(node, Ledger(node), peers, study)
        wait_until(lambda: house.deliveries("NOSR"), "results are on their way", timeout_s=90)
        yield house


def test_a_pacs_without_3d_sr_gets_the_next_best_report(house: House) -> None:
    house.wait_for("NO3DSR", "committed", "replaced")
    assert ComprehensiveSRStorage in house.classes("NO3DSR")
    assert Comprehensive3DSRStorage not in house.classes("NO3DSR")


def test_a_pacs_without_any_sr_gets_the_report_as_a_page(house: House) -> None:
    house.wait_for("NOSR", "committed", "replaced")
    assert house.classes("NOSR").isdisjoint(ALL_SR)
    descriptions = {ds.SeriesDescription for ds in house.peers["NOSR"].datasets() if ds.Modality == "OT"}
    assert any("report" in description for description in descriptions)
    assert SecondaryCaptureImageStorage in house.classes("NOSR")


def test_a_pacs_without_seg_gets_everything_else(house: House) -> None:
    house.wait_for("NOSEG", "committed", "replaced")
    assert SegmentationStorage not in house.classes("NOSEG")
    assert Comprehensive3DSRStorage in house.classes("NOSEG")


def test_a_workstation_that_is_to_get_text_gets_text(house: House) -> None:
    house.wait_for("TEXTONLY", "committed", "replaced")
    assert BasicTextSRStorage in house.classes("TEXTONLY")
    assert house.classes("TEXTONLY").isdisjoint(STRUCTURED)


def test_without_storage_commitment_a_query_is_the_proof(house: House) -> None:
    house.wait_for("NOPROOF", "committed")
    assert {row.proof for row in house.deliveries("NOPROOF")} == {"query"}


def test_a_full_pacs_is_tried_again_and_its_letters_can_be_sent_again(house: House) -> None:
    house.wait_for("FULL", "dead")
    assert min(row.attempt for row in house.deliveries("FULL")) >= 2
    house.peers["FULL"].manners.store_status = 0x0000
    answer = house.node.command("resend", house.study.uid, "--to", "FULL")
    assert answer.ok, answer.text
    house.wait_for("FULL", "committed")


def test_a_refusal_for_good_is_not_repeated(house: House) -> None:
    house.wait_for("REFUSES", "dead")
    offered = house.peers["REFUSES"].offered
    assert offered
    assert max(offered.values()) == 1
    assert all("c000" in row.reason.lower() for row in house.deliveries("REFUSES"))


def test_denied_at_commitment_is_never_called_delivered(house: House) -> None:
    house.wait_for("DENIES", "dead")
    assert all(row.reason for row in house.deliveries("DENIES"))


def test_a_commitment_report_that_never_comes_is_answered_by_a_query(house: House) -> None:
    house.wait_for("SILENT", "committed")
    assert {row.proof for row in house.deliveries("SILENT")} == {"query"}


def test_a_pacs_that_aborts_at_every_object_is_given_up_and_holds_nobody_up(house: House) -> None:
    house.wait_for("WARNS", "committed")
    house.wait_for("ABORTS", "dead")
    assert not house.peers["ABORTS"].stored
    house.peers["ABORTS"].manners.aborts_after = None
    assert house.node.command("resend", house.study.uid, "--to", "ABORTS").ok
    house.wait_for("ABORTS", "committed")


def test_the_study_is_called_incomplete_while_letters_are_dead(house: House) -> None:
    for aet in ("REFUSES", "DENIES"):
        house.wait_for(aet, "dead")
    revision = house.ledger.wait_ended(house.study.uid)
    assert revision.state == "incomplete"
    assert house.node.json("studies", "--state", "incomplete")[0]["study_instance_uid"] == house.study.uid

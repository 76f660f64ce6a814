"""A patient is merged and the order changed in a real Orthanc while the node works: results go to who it is now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from system import studies
from system.hospital import Hospital, Returned
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.orthanc import Orthanc, Remote
from system.processes import free_port

pytestmark = pytest.mark.timeout(600)

NEW = {
    "PatientID": "MERGED-77",
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientBirthDate": "19611213",
    "AccessionNumber": "ORDER-78",
}
QUIET_S = 10
"""Longer than Orthanc takes to change a small study."""


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returned]:
    """A study sent by Orthanc, whose patient and order Orthanc changes before the node has ended with it."""
    port, folder = free_port(), tmp_path_factory.mktemp("merged")
    study = studies.ct_study(folder / "study", name="merged", slices=6)
    with Orthanc(folder / "pacs", node=Remote("NODE", port)) as pacs:
        site = site_text([PeerEntry("PACS", port=pacs.port, quiet_s=QUIET_S, reconcile=True)], {"*": ["PACS"]})
        with Node(folder / "node", site=site, port=port) as node:
            ledger = Ledger(node)
            pacs.upload(study.files)
            pacs.route(study.uid)
            ledger.wait_for_images(study.uid, len(study.files))
            merge(pacs, study.uid)
            assert not ledger.deliveries(study.uid), "the node was faster"
            revision = ledger.wait_ended(study.uid, timeout_s=400)
            assert revision.state == "delivered", ledger.summary(study.uid)
            files = pacs.fetch(study.uid, folder / "back")
            results = {uid: dcmread(path) for uid, path in files.items() if uid not in study.instance_uids()}
            yield Returned(study, files, results, Hospital(pacs, node, ledger))


def merge(pacs: Orthanc, study_uid: str) -> None:
    """By image, since Orthanc 1.10 gives a study that it changes as a whole other UIDs."""
    change = {"Replace": NEW, "Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"], "Force": True}
    changed = [
        pacs.request("POST", f"/instances/{instance}/modify", json=change).content
        for instance in pacs.instances(study_uid)
    ]
    pacs.request("DELETE", f"/studies/{pacs.study_id(study_uid)}")
    for content in changed:
        pacs.request("POST", "/instances", content=content)


def test_all_results_stand_in_the_one_study_that_the_pacs_has(returned: Returned) -> None:
    found = returned.hospital.pacs.request("POST", "/tools/lookup", content=returned.study.uid).json()
    assert len([item for item in found if item["Type"] == "Study"]) == 1
    sent = {row.sop_instance_uid for row in returned.hospital.ledger.deliveries(returned.study.uid)}
    assert set(returned.results) == sent
    assert {ds.Modality for ds in returned.results.values()} >= {"SR", "OT"}


def test_results_have_the_values_of_the_pacs_and_say_what_they_had(returned: Returned) -> None:
    for ds in returned.results.values():
        assert {keyword: str(ds[keyword].value) for keyword in NEW} == NEW
        (item,) = ds.OriginalAttributesSequence
        (former,) = item.ModifiedAttributesSequence
        assert (former.PatientID, former.PatientName) == ("TEST-merged", "Test^merged")
        assert (item.ReasonForTheAttributeModification, item.ModifyingSystem) == ("COERCE", "NODE")


def test_results_pass_the_conformance_gate_beside_the_changed_images(returned: Returned) -> None:
    assert set(returned.sources()) == returned.study.instance_uids()
    assert returned.complaints() == []


def test_files_of_the_node_are_as_they_were_made(returned: Returned) -> None:
    ledger, uid = returned.hospital.ledger, returned.study.uid
    assert ledger.digests(uid) == {row.sop_instance_uid: row.sha256 for row in ledger.results(uid)}
    (path, *_) = (returned.hospital.node.home / "archive" / row.path for row in ledger.results(uid))
    assert dcmread(path).PatientID == "TEST-merged"


def test_the_study_and_the_trail_say_which_attributes_and_no_value(returned: Returned) -> None:
    node = returned.hospital.node
    told = node.command("study", returned.study.uid)
    assert f"{len(returned.results)} objects to PACS, with its own values of" in " ".join(told.text.split())
    trail = node.command("audit", "--action", "delivery.reconciled", "--all")
    assert trail.ok, trail.text
    assert "PatientBirthDate" in trail.text
    written = [path.read_text(encoding="utf8") for path in (node.log, *Path(node.home / "log").glob("*.log"))]
    for value in (*NEW.values(), "Yamada"):
        assert value not in trail.text
        assert value not in told.text
        assert not any(value in text for text in written)
    assert node.command("audit", "verify").ok

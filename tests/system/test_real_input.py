"""Real studies, the whole way: stored in a real Orthanc, routed by it, worked on, and back in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from system import objects, studies
from system.hospital import Hospital, Returned, go_round
from system.ledger import Ledger
from system.node_process import Node, PeerEntry, site_text
from system.orthanc import Orthanc, Remote
from system.processes import free_port

pytestmark = [pytest.mark.data, pytest.mark.timeout(1800)]

PART = {"ct-cptac-c3n-00249": 24, "ct-tcga-ov-09-2043": 24}
"""Slices taken from the middle of each, unless --full."""


@pytest.fixture(scope="module")
def hospital(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    port = free_port()
    folder = tmp_path_factory.mktemp("real")
    with Orthanc(folder / "pacs", node=Remote("NODE", port)) as pacs:
        site = site_text([PeerEntry("PACS", port=pacs.port, quiet_s=3)], {"*": ["PACS"]})
        threads = "2" if full else "1"
        env = {"PACSNODE_THREADS": threads, "OMP_NUM_THREADS": threads, "PACSNODE_LEASE_S": "120"}
        with Node(folder / "node", site=site, port=port, env=env) as node:
            yield Hospital(pacs, node, Ledger(node))


@pytest.fixture(scope="module", params=sorted(PART))
def returned(
    request: pytest.FixtureRequest,
    hospital: Hospital,
    unpacked: Path,
    full: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> Returned:
    study = studies.real_study(request.param, unpacked)
    if not full:
        study = studies.middle(study, PART[request.param])
    return go_round(hospital, study, tmp_path_factory.mktemp("back"))


def test_the_source_images_stand_unchanged_in_the_pacs(returned: Returned) -> None:
    assert returned.unlike_the_sources() == []


def test_the_pacs_holds_exactly_what_the_node_calls_delivered(returned: Returned) -> None:
    deliveries = returned.hospital.ledger.deliveries(returned.study.uid)
    assert {delivery.proof for delivery in deliveries} == {"storage commitment"}
    assert set(returned.results) == {delivery.sop_instance_uid for delivery in deliveries}
    made = {result.sop_instance_uid: result for result in returned.hospital.ledger.results(returned.study.uid)}
    for uid, path in returned.files.items():
        if uid in made:
            produced = returned.hospital.node.home / "archive" / made[uid].path
            assert studies.data_set_digest(path) == studies.data_set_digest(produced)


def test_the_results_pass_the_conformance_gate(returned: Returned) -> None:
    assert returned.complaints() == []


def test_every_reference_resolves_in_the_pacs(returned: Returned) -> None:
    assert objects.unresolved(returned.results.values(), set(returned.files)) == {}


def test_the_results_are_of_the_same_patient_and_study_and_look_like_no_original(returned: Returned) -> None:
    source = next(iter(returned.sources().values()))
    for dataset in returned.results.values():
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyID"):
            assert dataset.get(keyword) == source.get(keyword), keyword
        assert dataset.SeriesNumber >= 9000
        assert dataset.SeriesDescription.startswith("AI ")
        # PS3.3 C.8.20.2: a segmentation is DERIVED\\PRIMARY, and its class says what it is
        kind = ["DERIVED", "PRIMARY" if dataset.Modality == "SEG" else "SECONDARY"]
        assert "ImageType" not in dataset or list(dataset.ImageType[:2]) == kind


def test_the_denoised_series_lies_slice_by_slice_where_the_source_lies(returned: Returned) -> None:
    denoised = returned.of_modality("CT")
    sources = returned.sources()
    assert {objects.source_of(dataset) for dataset in denoised} == set(sources)
    assert len(denoised) == len(sources)
    for dataset in denoised:
        assert objects.same_place(dataset, sources[objects.source_of(dataset)]) == []
        assert dataset.FrameOfReferenceUID


def test_the_report_says_what_was_done(returned: Returned) -> None:
    (report,) = returned.of_modality("SR")
    assert report.SOPClassUID == Comprehensive3DSRStorage
    text = " ".join(objects.report_texts(report))
    assert "Denoising done" in text
    assert "Research use only" in text
    assert f"{len(returned.study.files)} images" in text


def test_every_slice_is_graded_and_the_grades_can_be_asked_for(returned: Returned) -> None:
    (report,) = returned.of_modality("SR")
    assert "Image quality scoring done" in " ".join(objects.report_texts(report))
    (series,) = {dataset.SeriesInstanceUID for dataset in returned.sources().values()}
    answer = returned.hospital.node.command("quality", "--series", series, "--json")
    assert answer.ok, answer.text
    detail = json.loads(answer.text)["detail"]
    assert {one["sop_instance_uid"] for one in detail} == returned.study.instance_uids()
    assert all(0 <= one["score"] <= 4 and abs(sum(one["probabilities"]) - 1) < 0.01 for one in detail)


def test_a_segmentation_that_calls_itself_ct_is_not_eligible(
    hospital: Hospital, unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = studies.real_study("ct-lungfcp-0001-seg", unpacked)
    returned = go_round(hospital, study, tmp_path_factory.mktemp("back"))
    assert returned.of_modality("CT") == []
    (report,) = returned.of_modality("SR")
    text = " ".join(objects.report_texts(report))
    assert "Not processed." in text
    assert "Denoising done" not in text
    jobs = hospital.ledger.jobs(study.uid)
    assert {job.outcome for job in jobs if job.pipeline != "report"} <= {"not eligible"}

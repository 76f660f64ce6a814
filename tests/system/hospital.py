"""A hospital around the node: a real Orthanc that routes to it and takes its results back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from gate.gate import complaints
from system import studies
from system.ledger import Ledger
from system.node_process import Node
from system.orthanc import Orthanc
from system.processes import require

WRITTEN_BY_THE_ARCHIVE = "an implementation class UID of somebody else"
"""Orthanc writes file meta information of its own, as it may; the data set is as it was sent."""


@dataclass(frozen=True)
class Hospital:
    pacs: Orthanc
    node: Node
    ledger: Ledger


@dataclass(frozen=True)
class Returned:
    """What stands in Orthanc for one study after the node has ended with it."""

    study: studies.Study
    files: dict[str, Path]
    results: dict[str, Dataset]
    hospital: Hospital

    def of_modality(self, modality: str) -> list[Dataset]:
        return [dataset for dataset in self.results.values() if dataset.Modality == modality]

    def sources(self) -> dict[str, Dataset]:
        wanted = self.study.instance_uids()
        return {uid: dcmread(path) for uid, path in self.files.items() if uid in wanted}

    def unlike_the_sources(self) -> list[str]:
        """Images that came back from the PACS with another data set than they were sent with."""
        sent = {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): path for path in self.study.files}
        return [
            uid
            for uid, path in sent.items()
            if studies.data_set_digest(self.files[uid]) != studies.data_set_digest(path)
        ]

    def complaints(self) -> list[object]:
        """What the conformance gate says of the results: dciodvfy without errors on each, and all else."""
        require("dciodvfy")
        produced = [self.files[uid] for uid in self.results]
        found = complaints(produced, [self.files[uid] for uid in self.sources()])
        return [complaint for complaint in found if complaint.text != WRITTEN_BY_THE_ARCHIVE]


def go_round(hospital: Hospital, study: studies.Study, folder: Path) -> Returned:
    pacs = hospital.pacs
    assert pacs.upload(study.files) == {study.uid}
    pacs.route(study.uid)
    revision = hospital.ledger.wait_ended(study.uid, timeout_s=1500)
    assert revision.state == "delivered", hospital.ledger.summary(study.uid)
    files = pacs.fetch(study.uid, folder)
    sources = study.instance_uids()
    results = {uid: dcmread(path) for uid, path in files.items() if uid not in sources}
    return Returned(study, files, results, hospital)

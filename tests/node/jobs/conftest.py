"""A receiving desk with known peers, and small CT objects as they arrive."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.archive import Archive
from node.db.session import Database
from node.dicom.receive import Arrival, Caller
from node.jobs.receive import ReceivingDesk
from node.jobs.site import apply_site
from node.settings import Completion, Peer, Route, Settings, Site

PACS = Peer(aet="PACS", host="127.0.0.1", port=11113, completion=Completion(quiet_s=0, deadline_s=3600))
CALLER = Caller(calling_aet="PACS", called_aet="PACSNODE", host="127.0.0.1", port=50000, tls_subject=None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(home=tmp_path / "home")


@pytest.fixture
def site(database: Database) -> Site:
    site = Site.model_validate({"peer": [PACS], "route": [Route.model_validate({"from": "*", "to": ["PACS"]})]})
    apply_site(database, site, actor="test")
    return site


@pytest.fixture
def desk(settings: Settings, database: Database, archive: Archive, site: Site) -> Iterator[ReceivingDesk]:
    desk = ReceivingDesk(settings, database, archive)
    desk.open()
    yield desk
    desk.close()


def ct_slice(series: str = "1.2.3.1", number: int = 1, *, study: str = "1.2.3") -> Dataset:
    """One 16 × 16 CT image."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{series}.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientID, ds.PatientName = "P-1", "PHANTOM^TEST"
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined, ds.SeriesNumber, ds.InstanceNumber = "CHEST", 2, number
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, float(number)]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = np.full((16, 16), 1024 + number, np.uint16).tobytes()
    return ds


@pytest.fixture
def arrive(archive: Archive, desk: ReceivingDesk) -> Callable[..., Arrival]:
    """Put a data set into the spool as a receiver does; its Arrival."""
    numbers = itertools.count()

    def put(ds: Dataset, *, association: str | None = None, priority: int = 0) -> Arrival:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = archive.spool / f"{next(numbers)}.part"
        ds.save_as(path, enforce_file_format=True)
        data = path.read_bytes()
        return Arrival(
            association=association or desk.admit(CALLER),
            caller=CALLER,
            path=path,
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            priority=priority,
        )

    return put


class SilentBroker:
    """A broker that loses every call: the clock must do without."""

    def waiting(self, _queue: str) -> int:
        return 0

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from images import shared
from node.dicom.folder import scan
from node.dicom.synthetic import write_ct_series


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return write_ct_series(tmp_path / "a" / "b", np.zeros((2, 16, 16), np.float32), (3.0, 1.0, 1.0))


def test_finds_images_in_sub_folders_with_what_sending_needs(tmp_path: Path, images: list[Path]) -> None:
    found = list(scan(tmp_path))
    header = pydicom.dcmread(images[0])
    assert [one.path for one in found] == images
    assert found[0].outgoing is not None
    assert found[0].outgoing.sop_instance_uid == header.SOPInstanceUID
    assert found[0].outgoing.transfer_syntax_uid == ExplicitVRLittleEndian
    assert (found[0].study_instance_uid, found[0].series_instance_uid) == (
        header.StudyInstanceUID,
        header.SeriesInstanceUID,
    )


def test_a_file_stands_for_itself(images: list[Path]) -> None:
    assert [one.path for one in scan(images[1])] == [images[1]]


def test_says_why_the_others_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello", encoding="utf8")
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\xff\xff")
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    reasons = {one.path.name: (one.outgoing, one.reason) for one in scan(tmp_path)}
    assert reasons["text"][0] is None
    assert reasons["empty"][0] is None
    assert reasons["cut"][0] is None
    assert reasons["DICOMDIR"] == (None, "a DICOMDIR: an index, not an image")
    assert all(reason for _, reason in reasons.values())


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    @pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # about what the odd files are there for
    def test_every_odd_file_gets_a_verdict(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        found = [one for path in shared.unpack("odd-dicom", tmp_path_factory.getbasetemp()) for one in scan(path)]
        assert len(found) == 352
        assert all((one.outgoing is None) == bool(one.reason) for one in found)
        assert sum(one.outgoing is not None for one in found) > 250

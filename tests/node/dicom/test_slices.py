"""CT files to training slices: HU, padding, no names, nothing that is not CT."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from node.dicom.slices import prepare_slices

SIDE = 256


@pytest.fixture
def ct_file(tmp_path):
    """Write one CT file with some attributes changed."""

    def write(name: str, **changes: object) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.PatientID, dataset.PatientName = "P-17", "Nobody^Known"
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows = dataset.Columns = SIDE
        dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 2.5
        dataset.KVP, dataset.Exposure, dataset.ConvolutionKernel = 120, 150, "B31f"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
        stored = np.full((SIDE, SIDE), 500, np.int16)
        stored[0, 0], stored[1, 1] = -2000, 7
        dataset.PixelData = stored.tobytes()
        for keyword, value in changes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def prepared(tmp_path):
    return prepare_slices(tmp_path / "in", tmp_path / "out", collection="drawn")


def test_applies_slope_and_intercept_and_marks_the_padding(ct_file, tmp_path):
    ct_file("a", PixelPaddingValue=7)
    (path,) = prepared(tmp_path)
    with np.load(path) as arrays:
        assert arrays["hu"].dtype == np.int16
        assert arrays["hu"][5, 5] == 2 * 500 - 1024
        assert np.argwhere(arrays["padding"]).tolist() == [[0, 0], [1, 1]]
        assert float(arrays["spacing_mm"]) == 0.7
        assert (float(arrays["kvp"]), float(arrays["exposure_mas"]), float(arrays["slice_thickness_mm"])) == (
            120,
            150,
            2.5,
        )
        assert (str(arrays["kernel"]), str(arrays["collection"])) == ("B31f", "drawn")


def test_what_the_header_does_not_say_is_not_a_number(ct_file, tmp_path):
    ct_file("a", Exposure=None)
    (path,) = prepared(tmp_path)
    with np.load(path) as arrays:
        assert np.isnan(arrays["exposure_mas"])


def test_holds_neither_name_nor_number_of_the_patient(ct_file, tmp_path):
    ct_file("a")
    ct_file("b")
    paths = prepared(tmp_path)
    for path in paths:
        with np.load(path) as arrays:
            texts = " ".join(str(arrays[name]) for name in arrays.files if arrays[name].dtype.kind == "U")
        assert "P-17" not in texts + path.name
        assert "Nobody" not in texts + path.name
    assert len({path.name.split("-")[0] for path in paths}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"Modality": "SEG"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"PixelSpacing": [0.7, 0.8]},
        {"PixelSpacing": None},
        {"PixelData": None},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
    ],
)
def test_leaves_out_what_is_no_square_axial_ct(ct_file, tmp_path, changes):
    ct_file("a", **changes)
    assert prepared(tmp_path) == []


def test_leaves_out_what_is_no_dicom(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "LICENSE").write_text("CC BY 3.0")
    assert prepared(tmp_path) == []


DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no real studies beside the checkout")
def test_a_real_series_keeps_its_circle(tmp_path):
    """Toshiba writes −2048 outside the circle."""
    import tarfile

    with tarfile.open(DATA / "ct-tcga-ov-09-2043.tar.xz") as archive:
        members = [member for member in archive if member.isfile()][:3]
        archive.extractall(tmp_path / "in", members, filter="data")
    paths = prepared(tmp_path)
    assert paths
    for path in paths:
        with np.load(path) as arrays:
            assert 0.2 < arrays["padding"].mean() < 0.4
            assert arrays["hu"][~arrays["padding"]].min() > -1500

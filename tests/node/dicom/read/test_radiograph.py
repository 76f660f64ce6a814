from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from images import phantom, shared
from images.phantom import REMOVED
from models.contract import Radiograph, SourceRef
from node.dicom.read import read_radiograph
from node.errors import NotEligible

STORED = phantom.stored_values(7).astype(np.float32)


def read(ds: Dataset, folder: Path) -> Radiograph:
    return read_radiograph(phantom.save(ds, folder / "a.dcm"))


def test_reads_stored_values_unwindowed(tmp_path: Path) -> None:
    found = read(phantom.radiograph(WindowCenter=["2000", "100"], WindowWidth=["800", "50"]), tmp_path)
    np.testing.assert_array_equal(found.pixels, STORED)
    assert found.pixels.dtype == np.float32
    assert found.value_range == (0, 4095)
    assert found.window == (2000, 800)
    assert found.source == SourceRef(f"{phantom.SERIES}.1")
    assert (found.view, found.for_presentation, found.inverted) == ("PA", True, False)


@pytest.mark.parametrize(
    ("stated", "view"),
    [
        ("AP SUPINE", "AP"),
        ("PA ERECT", "PA"),
        ("AP_PORTABLE", "AP"),
        ("AP LIEGEND", "AP"),
        ("FRONTAL", "FRONTAL"),
        ("PORTABLE", ""),
        ("LAT ERECT", "LAT ERECT"),
        ("AP LAT", "AP LAT"),
        ("AP LORDOTIC", "AP LORDOTIC"),
    ],
)
def test_knows_a_frontal_view_whatever_is_said_beside_it(tmp_path: Path, stated: str, view: str) -> None:
    assert read(phantom.radiograph(ViewPosition=stated), tmp_path).view == view


def test_turns_monochrome1_round_with_its_window(tmp_path: Path) -> None:
    ds = phantom.radiograph(PhotometricInterpretation="MONOCHROME1", WindowCenter="1000", WindowWidth="800")
    found = read(ds, tmp_path)
    np.testing.assert_array_equal(found.pixels, 4095 - STORED)
    assert (found.inverted, found.window) == (True, (3095, 800))


@pytest.mark.parametrize(
    ("photometric", "sign", "inverted"),
    [
        ("MONOCHROME1", 1, True),
        ("MONOCHROME2", 1, True),
        ("MONOCHROME1", -1, False),
        ("MONOCHROME2", -1, False),
        ("MONOCHROME1", REMOVED, True),
        ("MONOCHROME2", REMOVED, False),
    ],
)
def test_an_image_for_processing_says_itself_what_is_bright(
    tmp_path: Path, photometric: str, sign: object, inverted: bool
) -> None:
    ds = phantom.radiograph(PixelIntensityRelationshipSign=1, PhotometricInterpretation=photometric)
    ds = phantom.change(ds, PixelIntensityRelationshipSign=sign, PresentationIntentType="FOR PROCESSING")
    found = read(ds, tmp_path)
    assert (found.inverted, found.for_presentation) == (inverted, False)


def test_the_class_for_processing_says_so_where_the_intent_is_left_out(tmp_path: Path) -> None:
    ds = phantom.radiograph(PixelIntensityRelationshipSign=1)
    ds = phantom.change(ds, SOPClassUID=phantom.DX_PROCESSING, PresentationIntentType=REMOVED)
    found = read(ds, tmp_path)
    assert (found.inverted, found.for_presentation) == (True, False)


def test_the_sign_does_not_speak_for_images_for_presentation(tmp_path: Path) -> None:
    assert not read(phantom.radiograph(PixelIntensityRelationshipSign=1), tmp_path).inverted


def test_rescales_pixels_and_range(tmp_path: Path) -> None:
    found = read(phantom.radiograph(RescaleSlope="0.5", RescaleIntercept="-100"), tmp_path)
    np.testing.assert_array_equal(found.pixels, STORED * 0.5 - 100)
    assert found.value_range == (-100, 1947.5)


def table(first: int, entries: list[int], bits: int = 12) -> Dataset:
    found = Dataset()
    found.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    found.add_new("LUTData", "US", entries)
    found.ModalityLUTType = "US"
    return found


def words(first: int, entries: list[int]) -> Dataset:
    """The same table with its data as OW, which is as legal as US."""
    found = table(first, entries)
    found.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return found


def test_a_modality_table_in_words_of_bytes_is_read_like_one_of_numbers(tmp_path: Path) -> None:
    values = np.array([[0, 10, 11], [12, 13, 4000]], dtype=np.uint16)
    ds = phantom.radiograph(values, ModalityLUTSequence=[words(10, [100, 90, 70])])
    found = read(ds, tmp_path)
    np.testing.assert_array_equal(found.pixels, [[100, 100, 90], [70, 70, 70]])
    assert found.value_range == (0, 4095)
    assert "modality look-up table" in found.notes[0]


def test_goes_through_the_modality_table_and_stays_at_its_ends(tmp_path: Path) -> None:
    values = np.array([[0, 10, 11], [12, 13, 4000]], dtype=np.uint16)
    ds = phantom.radiograph(values, ModalityLUTSequence=[table(10, [100, 90, 70])])
    found = read(ds, tmp_path)
    np.testing.assert_array_equal(found.pixels, [[100, 100, 90], [70, 70, 70]])
    assert found.value_range == (0, 4095)
    assert "modality look-up table" in found.notes[0]


def test_a_table_may_begin_below_zero(tmp_path: Path) -> None:
    values = np.array([[-2, -1, 0]], dtype=np.int16)
    ds = phantom.radiograph(values, stored=None, ModalityLUTSequence=[table(65534, [5, 6, 7])])
    np.testing.assert_array_equal(read(ds, tmp_path).pixels, [[5, 6, 7]])


def test_a_table_of_bytes_may_be_packed_two_to_a_word(tmp_path: Path) -> None:
    packed = table(10, [100, 90, 70], bits=8)
    packed.add_new("LUTData", "OW", bytes([100, 90, 70, 0]))
    values = np.array([[0, 10, 11], [12, 13, 4000]], dtype=np.uint16)
    found = read(phantom.radiograph(values, ModalityLUTSequence=[packed]), tmp_path)
    np.testing.assert_array_equal(found.pixels, [[100, 100, 90], [70, 70, 70]])
    assert found.value_range == (0, 255)


def test_refuses_a_table_whose_entries_need_more_bits_than_it_says(tmp_path: Path) -> None:
    with pytest.raises(NotEligible, match="larger values than it says"):
        read(phantom.radiograph(ModalityLUTSequence=[table(0, [1, 2, 5000])]), tmp_path)


def test_refuses_a_table_that_is_too_short(tmp_path: Path) -> None:
    damaged = table(0, [1, 2, 3])
    damaged.LUTDescriptor = [9, 0, 12]
    with pytest.raises(NotEligible, match="shorter than it says"):
        read(phantom.radiograph(ModalityLUTSequence=[damaged]), tmp_path)


@pytest.mark.parametrize(
    ("elements", "spacing", "note"),
    [
        ({}, (0.143, 0.143), "at the detector"),
        ({"PixelSpacing": [0.13, 0.131]}, (0.13, 0.131), ""),
        ({"EstimatedRadiographicMagnificationFactor": "1.1"}, (0.13, 0.13), ""),
        ({"ImagerPixelSpacing": REMOVED}, None, "how large a pixel"),
        ({"ImagerPixelSpacing": [0, 0]}, None, "how large a pixel"),
    ],
)
def test_says_how_large_a_pixel_is(
    tmp_path: Path, elements: dict[str, object], spacing: tuple[float, float] | None, note: str
) -> None:
    found = read(phantom.radiograph(**elements), tmp_path)
    assert found.spacing_yx_mm == (None if spacing is None else pytest.approx(spacing))
    assert note in " ".join(found.notes)
    assert bool(found.notes) is bool(note)


def test_marks_padding(tmp_path: Path) -> None:
    values = phantom.stored_values(7)
    values[:, :3] = 4095
    found = read(phantom.radiograph(values, PixelPaddingValue=4095), tmp_path)
    assert found.padding is not None
    np.testing.assert_array_equal(found.padding, values == 4095)


def test_padding_beyond_the_stored_bits_is_marked_and_lies_within_the_range(tmp_path: Path) -> None:
    values = phantom.stored_values(7)
    values[:, :3] = 65535
    ds = phantom.radiograph(values)
    ds.add_new("PixelPaddingValue", "US", 65535)
    found = read(ds, tmp_path)
    assert found.padding is not None
    np.testing.assert_array_equal(found.padding, values == 65535)
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 4095


def test_a_range_of_padding_up_to_the_last_value_is_no_more_than_that(tmp_path: Path) -> None:
    values = phantom.stored_values(7)
    values[:, :3] = 4090
    ds = phantom.radiograph(values)
    ds.add_new("PixelPaddingValue", "US", 4090)
    ds.add_new("PixelPaddingRangeLimit", "US", 65535)
    found = read(ds, tmp_path)
    assert found.padding is not None
    np.testing.assert_array_equal(found.padding, values >= 4090)


def test_notes_a_display_table_and_lossy_compression(tmp_path: Path) -> None:
    ds = phantom.radiograph(LossyImageCompression="01", VOILUTSequence=[table(0, [1, 2, 3])])
    notes = " ".join(read(ds, tmp_path).notes)
    assert "with loss" in notes
    assert "VOI look-up table" in notes


def test_reads_compressed_radiographs(tmp_path: Path) -> None:
    values = phantom.stored_values(7, (64, 64))
    path = phantom.save_compressed(phantom.radiograph(values), tmp_path / "a.dcm", JPEG2000Lossless)
    np.testing.assert_array_equal(read_radiograph(path).pixels, values)


def test_knows_how_the_image_was_made(tmp_path: Path) -> None:
    made = read(phantom.radiograph(KVP="125", ExposureInuAs="1500", Manufacturer="ACME"), tmp_path).acquisition
    assert (made.modality, made.kvp, made.exposure_mas, made.manufacturer) == ("DX", 125, 1.5, "ACME")
    assert made.body_part == "CHEST"


@pytest.mark.parametrize(
    ("elements", "years"),
    [
        ({"PatientAge": "061Y"}, 61),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "010D"}, 10 / 365.25),
        ({"PatientAge": "026W"}, 0.5),
        ({"PatientAge": "61"}, None),
        ({"PatientBirthDate": "20080103"}, 18),
        ({"PatientBirthDate": "20080105"}, 17.99),
        ({"PatientAge": "070Y", "PatientBirthDate": "20080105"}, 70),
        ({"PatientAge": "000Y", "PatientBirthDate": "19660103"}, 60),
        ({"PatientAge": "000Y", "PatientBirthDate": "20250103"}, 1),
        ({"PatientAge": "000Y", "PatientBirthDate": "20270101"}, 0),
        ({"PatientAge": "000Y"}, 0),
        ({"PatientBirthDate": "20270101"}, None),
        ({"PatientBirthDate": "20089901"}, None),
        ({"PatientBirthDate": "19500101", "StudyDate": REMOVED}, None),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_knows_how_old_the_patient_was_where_the_header_does(
    tmp_path: Path, elements: dict[str, object], years: float | None
) -> None:
    age = read(phantom.radiograph(**elements), tmp_path).acquisition.patient_age_years
    assert age == (None if years is None else pytest.approx(years, abs=0.01))


@pytest.mark.parametrize(("stated", "known"), [("LIN", "LIN"), ("DISP", "DISP"), (REMOVED, "")])
def test_knows_how_values_follow_exposure(tmp_path: Path, stated: object, known: str) -> None:
    ds = phantom.radiograph(PixelIntensityRelationship="LOG")
    assert read(phantom.change(ds, PixelIntensityRelationship=stated), tmp_path).intensity == known


@pytest.mark.parametrize(("slope", "step"), [("1", 1.0), ("0.25", 0.25), ("-2", 2.0)])
def test_knows_how_far_neighbouring_values_are_apart(tmp_path: Path, slope: str, step: float) -> None:
    found = read(phantom.radiograph(RescaleSlope=slope, RescaleIntercept="7"), tmp_path)
    assert found.value_step == step
    places = (found.pixels - found.value_range[0]) / step
    np.testing.assert_array_equal(places, np.rint(places))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "CT"}, "modality says CT"),
        ({"Modality": ""}, "modality says nothing"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "slope is zero"),
        ({"BitsAllocated": 32, "BitsStored": 20, "HighBit": 19}, "Pixels of 20 bits"),
        ({"ImagerPixelSpacing": REMOVED, "PixelAspectRatio": ["2", "1"]}, "not square"),
        ({"PixelData": b"\0" * 10}, "truncated"),
        ({"PixelData": b"\0" * 384}, "same value"),
    ],
)
def test_refuses_what_is_no_radiograph(tmp_path: Path, elements: dict[str, object], words: str) -> None:
    with pytest.raises(NotEligible, match=words):
        read(phantom.radiograph(**elements), tmp_path)


class TestWithRealFiles:
    pytestmark = shared.needs_shared_data

    @pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
    def test_every_odd_file_is_read_or_refused_in_words(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        read_names = set()
        reasons: list[str] = []
        for path in shared.unpack("odd-dicom", tmp_path_factory.getbasetemp()):
            try:
                found = read_radiograph(path)
            except NotEligible as exc:
                reasons.append(exc.reason)
            else:
                low, high = found.value_range
                assert low <= found.pixels.min() < found.pixels.max() <= high
                read_names.add(path.name)
        assert all(len(reason) > 20 for reason in reasons)
        assert read_names == {"dx_image.dcm", "6154", "6247", "6278", "RG1_J2KI.dcm", "RG3_J2KI.dcm"}

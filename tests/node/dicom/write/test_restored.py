"""A restored radiograph beside the received one: the same coding, the same display, another picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from gate import made
from gate.files import items
from gate.gate import complaints
from images import chest
from node.dicom.read import read_radiograph
from node.pipelines.chest_xray import CAUTIONS, chest_xray
from node.pipelines.models import Models


def run(paths: list[Path], restorer: Any = None) -> made.Run:
    """Read, restored, written, reported, as the jobs do it."""
    models = Models(restorer=restorer or chest.restorer())
    return made.process(paths, pipeline=lambda grid: chest_xray(grid, models, chest.ignore, maps=True))


def restored_of(result: made.Run, read_back: Any) -> Any:
    return next(read_back(one) for one in result.images if one.kind == "derived")


KEPT = """
    SOPClassUID BitsAllocated BitsStored HighBit PixelRepresentation PhotometricInterpretation WindowCenter WindowWidth
    PresentationIntentType PixelSpacing ImagerPixelSpacing Modality RescaleSlope RescaleIntercept
"""
CODINGS: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "10 bits": {"bits": 10},
    "12 bits": {"bits": 12},
    "14 bits": {"bits": 14},
    "16 bits": {"bits": 16},
    "16 bits, signed": {"bits": 16, "signed": True},
    "12 bits, signed": {"bits": 12, "signed": True},
    "MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "CR MONOCHROME1": {"sop_class": made.CR, "PhotometricInterpretation": "MONOCHROME1"},
    "CR, 10 bits": {"sop_class": made.CR, "bits": 10},
    "for processing": {"sop_class": made.DX_PROCESSING},
    "rescaled": {"RescaleSlope": "2", "RescaleIntercept": "-100"},
}


@pytest.mark.parametrize("name", CODINGS)
def test_the_restored_image_is_coded_and_shown_as_the_received_one(name: str, tmp_path: Path, read_back: Any) -> None:
    paths = made.chest(tmp_path / "in", **CODINGS[name])
    before = paths[0].read_bytes()
    result = run(paths)
    received, ds = pydicom.dcmread(paths[0]), restored_of(result, read_back)
    for keyword in KEPT.split():
        assert ds.get(keyword) == received.get(keyword), keyword
    assert list(ds.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert ds.SOPInstanceUID != received.SOPInstanceUID
    back = read_radiograph(made.keep(tmp_path / "back", [one for one in result.images if one.kind == "derived"])[0])
    rounding = 1 if name == "rescaled" else 0
    assert np.abs(back.pixels - result.findings.images[0].array).max() <= rounding
    after, was = ds.pixel_array.astype(int), received.pixel_array.astype(int)
    assert (after[:12] == was[:12]).all(), "the shutter is as received"
    assert 0 < np.abs(after - was).mean() < 0.02 * np.ptp(was)
    assert paths[0].read_bytes() == before
    assert complaints(made.keep(tmp_path / "out", result.images), paths, checks=("iod", "strict", "derived")) == []


def voi_table() -> pydicom.Dataset:
    """A curve for display, 4096 entries of 12 bits."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.LUTExplanation = "NORMAL"
    table.add_new("LUTData", "OW", np.rint(4095 * (np.arange(4096) / 4095) ** 1.5).astype("<u2").tobytes())
    return table


def test_a_table_for_display_is_kept_and_never_applied(tmp_path: Path, read_back: Any) -> None:
    paths = made.chest(tmp_path / "in", VOILUTSequence=[voi_table()], WindowCenter=None, WindowWidth=None)
    result = run(paths)
    ds, received = restored_of(result, read_back), pydicom.dcmread(paths[0])
    assert "WindowCenter" not in ds
    [kept], [was] = ds.VOILUTSequence, received.VOILUTSequence
    assert list(kept.LUTDescriptor) == list(was.LUTDescriptor)
    assert bytes(kept.LUTData) == bytes(was.LUTData)
    assert any("VOI look-up table" in note for note in result.grid.notes)
    assert complaints(made.keep(tmp_path / "out", result.results), paths) == []


@pytest.mark.parametrize("group", [0x6000, 0x6002])
def test_overlays_of_the_received_image_are_not_copied(group: int, tmp_path: Path, read_back: Any) -> None:
    paths = made.chest(tmp_path)
    ds = pydicom.dcmread(paths[0])
    for element, vr, value in (
        (0x0010, "US", 320),
        (0x0011, "US", 320),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", bytes(320 * 320 // 8)),
    ):
        ds.add_new(group << 16 | element, vr, value)
    ds.save_as(paths[0])
    written = restored_of(run(paths), read_back)
    assert not [element for element in written if element.tag.group & 0xFF00 == 0x6000]


def test_a_second_run_makes_the_same_bytes(tmp_path: Path) -> None:
    paths = made.chest(tmp_path)
    assert [one.data for one in run(paths).results] == [one.data for one in run(paths).results]


def test_the_report_says_what_was_changed_and_hangs_it_on_the_restored_image(tmp_path: Path, read_back: Any) -> None:
    result = run(made.chest(tmp_path))
    report = read_back(next(one for one in result.reports if one.kind == "sr"))
    said = " ".join(str(item.get("TextValue", "")) for item in items(report)) + str(list(items(report)))
    derived = restored_of(result, read_back)
    for words in (
        "Restoration done",
        "Lesion detection not done",
        "Local noise, standard deviation",
        "Pixels changed by more than the noise",
        "Change: restored minus received, as a map",
        *(caution[:60] for caution in CAUTIONS),
        "Not looked for disease",
        derived.SOPInstanceUID,
    ):
        assert words in said, words
    assert "4 steps from noise of seed 11" in derived.DerivationDescription


def test_a_withheld_image_leaves_its_reason_and_nothing_else(tmp_path: Path) -> None:
    result = run(made.chest(tmp_path / "in"), chest.adding(60.0))
    assert [one.kind for one in result.images] == ["sc"]
    report = next(one for one in result.reports if one.kind == "sr")
    assert b"Restoration withheld. The restored image was not returned" in report.data
    assert complaints(made.keep(tmp_path / "out", result.results), result.paths) == []


def test_an_unfit_image_leaves_its_reason(tmp_path: Path) -> None:
    result = run(made.chest(tmp_path / "in", PatientAge="017Y"))
    assert [one.kind for one in result.images] == ["sc"]
    report = next(one for one in result.reports if one.kind == "sr")
    assert b"the patient is younger than 18 years" in report.data
    assert complaints(made.keep(tmp_path / "out", result.results), result.paths) == []


@pytest.mark.parametrize("part", ["CHEST", "PULMO", None])
def test_the_region_is_coded_where_only_the_body_part_is_stated(
    part: str | None, tmp_path: Path, read_back: Any
) -> None:
    paths = made.chest(tmp_path / "in", AnatomicRegionSequence=None, BodyPartExamined=part)
    result = run(paths)
    regions = restored_of(result, read_back).AnatomicRegionSequence
    assert [region.CodeMeaning for region in regions] == (["Chest"] if part == "CHEST" else [])
    if part == "CHEST":
        assert complaints(made.keep(tmp_path / "out", result.images), paths) == []


def test_a_pixel_of_no_size_is_not_passed_on(tmp_path: Path, read_back: Any) -> None:
    paths = made.chest(tmp_path, sop_class=made.CR, PixelSpacing=[0, 0], ImagerPixelSpacing=[0.42, 0.42])
    ds = restored_of(run(paths), read_back)
    assert "PixelSpacing" not in ds
    assert list(ds.ImagerPixelSpacing) == [0.42, 0.42]

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gate import made, quirks
from gate.gate import complaints
from node.dicom.marks.gsps import read_presentation
from node.dicom.marks.mark import Lines
from node.dicom.marks.pairing import pair
from node.dicom.read import read_volume
from node.dicom.write import Produced, SeriesSource, write_images
from node.errors import AnalysisFailed


def states(run: Any) -> list[Produced]:
    return [result for result in run.images if result.kind == "gsps"]


def test_the_axes_come_back_as_they_were_given(ct_run: Any, read_back: Any) -> None:
    """Through our own reader: two lesions, each its long and its short axis, on their slices."""
    (state,) = states(ct_run)
    claims = read_presentation(read_back(state)).claims
    got = []
    for claim in claims:
        assert isinstance(claim, Lines)
        pairs, left = pair(claim.lines, (0.7, 0.7))
        assert left == []
        got += [(claim.image, claim.lines[p.long].ends, claim.lines[p.short].ends) for p in pairs]
    lesions = ct_run.findings.lesions
    wanted = [(ct_run.grid.sources[it.slice_index], it.long_axis_px, it.short_axis_px) for it in lesions]
    assert got == wanted  # made of halves: exact in float32


def test_pixel_centres_are_halves_in_the_file(ct_run: Any, read_back: Any) -> None:
    ds = read_back(states(ct_run)[0])
    long = ds.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert (long.GraphicAnnotationUnits, long.GraphicType) == ("PIXEL", "POLYLINE")
    assert list(long.GraphicData) == [5.5, 12.5, 13.5, 12.5]


def test_it_says_that_it_is_ai_and_research_and_what_was_measured(ct_run: Any, read_back: Any) -> None:
    ds = read_back(states(ct_run)[0])
    assert (ds.Modality, ds.ContentLabel, ds.SeriesNumber) == ("PR", "AI_LESIONS", 9030)
    assert ds.SeriesDescription.startswith("AI lesion axes")
    assert [layer.GraphicLayer for layer in ds.GraphicLayerSequence] == ["AI"]
    texts = [text.UnformattedTextValue for item in ds.GraphicAnnotationSequence for text in item.TextObjectSequence]
    assert texts == [f"AI lesion {number}: 5.6 x 2.8 mm, score 0.91, research use only" for number in (1, 2)]
    segmentation = read_back(next(result for result in ct_run.images if result.kind == "seg"))
    tracked = [item.GraphicObjectSequence[0].TrackingUID for item in ds.GraphicAnnotationSequence]
    assert tracked == [segment.TrackingUID for segment in segmentation.SegmentSequence]


def test_window_and_rescale_are_those_of_the_images(ct_run: Any, read_back: Any) -> None:
    """A state without them would show stored values."""
    ds = read_back(states(ct_run)[0])
    assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, -1024, "HU")
    (window,) = ds.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (40, 400), "the first of two: a state shows in one way"
    (area,) = ds.DisplayedAreaSelectionSequence
    assert (list(area.DisplayedAreaTopLeftHandCorner), list(area.DisplayedAreaBottomRightHandCorner)) == (
        [1, 1],
        [37, 40],
    )
    assert list(area.PresentationPixelSpacing) == [0.7, 0.7]


def test_the_same_findings_make_the_same_bytes(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    one, other = (states(made.process(paths, lesions=2))[0] for _ in range(2))
    assert one == other


def test_marked_images_of_different_rescale_have_a_state_each(tmp_path: Path, read_back: Any) -> None:
    paths = made.ct_series(tmp_path)
    ds = pydicom.dcmread(paths[3])
    ds.RescaleIntercept = -1000
    ds.save_as(paths[3])
    volume = read_volume(paths)
    first, second = made.lesion(volume, 0), made.lesion(volume, 1)
    findings = replace(
        made.findings(volume), images=(), lesions=(first, replace(second, slice_index=3)), measurements=()
    )
    written = write_images(findings, volume, SeriesSource.load(paths), made.stamp())
    states = [read_back(result) for result in written if result.kind == "gsps"]
    assert [state.RescaleIntercept for state in states] == [-1024, -1000]
    assert len({state.SOPInstanceUID for state in states}) == 2
    assert len({state.SeriesInstanceUID for state in states}) == 1


def test_a_frame_of_a_multi_frame_image_is_named(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.enhanced_ct(tmp_path), lesions=1)
    (annotation,) = read_back(states(run)[0]).GraphicAnnotationSequence
    frame = run.grid.sources[run.findings.lesions[0].slice_index].frame
    assert annotation.ReferencedImageSequence[0].ReferencedFrameNumber == frame


def test_several_marked_frames_stand_in_one_state(read_back: Any, tmp_path: Path) -> None:
    paths = made.enhanced_ct(tmp_path / "in")
    volume = read_volume(paths)
    one, other = made.lesion(volume, 0), made.lesion(volume, 1)
    found = replace(made.findings(volume), lesions=(one, replace(other, slice_index=one.slice_index + 1)))
    run = made.process(paths, pipeline=lambda _: found)
    (state,) = states(run)
    [image] = read_back(state).ReferencedSeriesSequence[0].ReferencedImageSequence
    marked = [volume.sources[lesion.slice_index].frame for lesion in found.lesions]
    assert list(image.ReferencedFrameNumber) == sorted(marked)
    assert complaints(made.keep(tmp_path / "out", run.results), paths) == []


def test_a_multi_frame_image_is_shown_as_its_marked_frames_say(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    """The rescale of one frame must not be taken for that of the others."""
    fault = quirks.MULTI_FRAME["another rescale per frame"]
    run = run_of(quirks.plant(fault, made.enhanced_ct(tmp_path)), lesions=1)
    ds = read_back(states(run)[0])
    frame = run.grid.sources[run.findings.lesions[0].slice_index].frame
    assert (ds.RescaleSlope, ds.RescaleIntercept) == (1, -1024 - (frame - 1))
    [image] = ds.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert image.ReferencedFrameNumber == frame
    assert ds.SoftcopyVOILUTSequence[0].WindowWidth == 400


def test_an_image_without_a_window_that_can_be_used_gets_none(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = quirks.plant(quirks.says(WindowCenter=0, WindowWidth=0), made.ct_series(tmp_path))
    ds = read_back(states(run_of(paths, lesions=1))[0])
    assert "SoftcopyVOILUTSequence" not in ds
    assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, -1024, "HU")


def test_marked_images_of_different_windows_keep_their_own(tmp_path: Path, read_back: Any) -> None:
    paths = made.ct_series(tmp_path)
    quirks.plant(quirks.on_one(3, quirks.says(WindowCenter=70, WindowWidth=700)), paths)
    volume = read_volume(paths)
    first, second = made.lesion(volume, 0), replace(made.lesion(volume, 1), slice_index=3)
    findings = replace(made.findings(volume), images=(), lesions=(first, second), measurements=())
    written = write_images(findings, volume, SeriesSource.load(paths), made.stamp())
    [state] = [read_back(result) for result in written if result.kind == "gsps"]
    one, other = state.SoftcopyVOILUTSequence
    assert (one.WindowWidth, other.WindowWidth) == (400, 700)
    for item, lesion in ((one, first), (other, second)):
        [image] = item.ReferencedImageSequence
        assert image.ReferencedSOPInstanceUID == volume.sources[lesion.slice_index].instance_uid


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("windows", [{}, {"WindowCenter": None, "WindowWidth": None}])
def test_a_table_for_display_is_taken_where_there_is_no_window(
    windows: Any, syntax: str, run_of: Any, read_back: Any, tmp_path: Path
) -> None:
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", (16 * np.arange(4096, dtype="<u2")).tobytes())
    [path] = made.radiograph(tmp_path / "in", VOILUTSequence=[table], **windows)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=True
    )
    run = run_of([path], lesions=1)
    [item] = read_back(states(run)[0]).SoftcopyVOILUTSequence
    if windows:
        assert item.VOILUTSequence[0].LUTData == table.LUTData
        assert "WindowCenter" not in item
    else:
        assert (item.WindowCenter, item.WindowWidth) == (2000, 3000)
        assert "VOILUTSequence" not in item
    assert complaints(made.keep(tmp_path / "out", states(run)), run.paths) == []


def test_an_inverted_radiograph_stays_inverted(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    run = run_of(made.radiograph(tmp_path, PhotometricInterpretation="MONOCHROME1"), lesions=1)
    assert read_back(states(run)[0]).PresentationLUTShape == "INVERSE"


def test_a_spacing_of_zero_is_none(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    """As a real radiograph has it."""
    run = run_of(made.radiograph(tmp_path, PixelSpacing=[0, 0], ImagerPixelSpacing=[0.2, 0.1]), lesions=1)
    (area,) = read_back(states(run)[0]).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.2, 0.1]


@pytest.mark.parametrize("axis", [((-3.0, 5.0), (6.0, 5.0)), ((3.0, 5.0), (np.nan, 5.0)), ((3.0, 5.0), (40.0, 5.0))])
def test_refuses_an_axis_outside_of_its_image(axis: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    lesion = replace(made.lesion(volume), long_axis_px=axis)
    findings = replace(made.findings(volume), images=(), lesions=(lesion,))
    with pytest.raises(AnalysisFailed, match="outside"):
        list(write_images(findings, volume, SeriesSource.load(paths), made.stamp()))


@pytest.mark.parametrize("scanned", ["ct", "enhanced", "radiograph"])
def test_nothing_speaks_against_it(scanned: str, run_of: Any, tmp_path: Path) -> None:
    source = {"ct": made.ct_series, "enhanced": made.enhanced_ct, "radiograph": made.radiograph}[scanned]
    run = run_of(source(tmp_path / "in"), lesions=1)
    assert complaints(made.keep(tmp_path / "out", states(run)), run.paths) == []

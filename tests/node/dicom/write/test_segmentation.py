from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest

from gate import made, quirks
from gate.gate import complaints
from node.dicom.read import read_volume
from node.dicom.write import SeriesSource, write_images
from node.errors import AnalysisFailed


def _segmentation(run: Any) -> Any:
    return next(result for result in run.images if result.kind == "seg")


@pytest.mark.parametrize(
    "scanned",
    [{}, {"orientation": made.OBLIQUE}, {"orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}, {"slices": 1}],
    ids=["axial", "oblique", "feet first", "one slice"],
)
def test_every_voxel_comes_back_where_it_was(scanned: Any, run_of: Any, tmp_path: Path) -> None:
    run = run_of(made.ct_series(tmp_path, **scanned), lesions=2)
    path = tmp_path / "seg.dcm"
    path.write_bytes(_segmentation(run).data)
    segmentation = hd.seg.segread(path)
    uids = [ref.instance_uid for ref in run.grid.sources]
    used = [uid for index, uid in enumerate(uids) if any(lesion.mask[index].any() for lesion in run.findings.lesions)]
    back = segmentation.get_pixels_by_source_instance(used)  # (used, Y, X, segments)
    for number, lesion in enumerate(run.findings.lesions):
        wanted = np.stack([lesion.mask[uids.index(uid)] for uid in used])
        assert np.array_equal(back[..., number] > 0, wanted)


@pytest.mark.parametrize("lesions", [1, 3])
def test_frames_of_a_multi_frame_image_are_named(lesions: int, run_of: Any, read_back: Any, tmp_path: Path) -> None:
    """Those of several lesions on one slice too."""
    run = run_of(made.enhanced_ct(tmp_path / "in"), lesions=lesions)
    ds = read_back(_segmentation(run))
    [shared] = ds.SharedFunctionalGroupsSequence
    named = []
    for group in ds.PerFrameFunctionalGroupsSequence:
        [segment] = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        [image] = group.DerivationImageSequence[0].SourceImageSequence
        named.append((int(segment.ReferencedSegmentNumber), int(image.ReferencedFrameNumber)))
    wanted = [
        (number, ref.frame)
        for number, lesion in enumerate(run.findings.lesions, start=1)
        for index, ref in enumerate(run.grid.sources)
        if lesion.mask[index].any()
    ]
    assert sorted(named) == sorted(wanted)
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


def test_who_found_what_where_stands_in_each_segment(ct_run: Any, read_back: Any) -> None:
    ds = read_back(_segmentation(ct_run))
    assert ds.SegmentationType == "BINARY"
    assert [segment.SegmentLabel for segment in ds.SegmentSequence] == ["AI lesion 1", "AI lesion 2"]
    for segment in ds.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "lidnet"
        assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"
        assert len(segment.RecommendedDisplayCIELabValue) == 3
    colours = {tuple(segment.RecommendedDisplayCIELabValue) for segment in ds.SegmentSequence}
    assert len(colours) == 2


def test_without_lesions_there_is_no_segmentation(run_of: Any, tmp_path: Path) -> None:
    assert "seg" not in [result.kind for result in run_of(made.ct_series(tmp_path)).images]


@pytest.mark.parametrize("fault", ["empty", "shape"])
def test_refuses_a_mask_that_is_empty_or_off_the_grid(fault: str, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    lesion = made.lesion(volume)
    mask = np.zeros_like(lesion.mask) if fault == "empty" else lesion.mask[:-1]
    findings = made.findings(volume, images=(), lesions=0)
    findings = replace(findings, lesions=(replace(lesion, mask=mask),))
    with pytest.raises(AnalysisFailed, match=fault):
        list(write_images(findings, volume, SeriesSource.load(paths), made.stamp()))


def test_refuses_slices_of_two_patients(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    source = SeriesSource.load(paths)
    list(source.headers.values())[2].PatientID = "P-18"
    findings = replace(made.findings(volume, lesions=1), images=())
    with pytest.raises(AnalysisFailed, match="PatientID"):
        list(write_images(findings, volume, source, made.stamp()))


UNEVEN_MM = (0, 1, 2, 3, 4, 5, 10, 15, 20)


def test_between_uneven_steps_there_is_no_spacing(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    def move(ds: Any, index: int) -> None:
        ds.ImagePositionPatient = [-20, -30, UNEVEN_MM[index]]

    run = run_of(quirks.plant(move, made.ct_series(tmp_path / "in", slices=9)), lesions=1)
    assert not run.grid.even_steps
    ds = read_back(_segmentation(run))
    [measures] = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert "SpacingBetweenSlices" not in measures
    assert "DimensionOrganizationType" not in ds
    assert measures.SliceThickness == 2.5
    assert complaints(made.keep(tmp_path / "out", run.results), run.paths) == []


def test_even_steps_are_those_of_the_whole_stack(ct_run: Any, read_back: Any) -> None:
    [measures] = read_back(_segmentation(ct_run)).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SpacingBetweenSlices == 2.5


def test_refuses_positions_that_differ_from_the_headers(tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path)
    volume = read_volume(paths)
    turned = replace(volume, sources=volume.sources[::-1])
    findings = replace(made.findings(volume, lesions=1), images=())
    with pytest.raises(AnalysisFailed, match="position"):
        list(write_images(findings, turned, SeriesSource.load(paths), made.stamp()))

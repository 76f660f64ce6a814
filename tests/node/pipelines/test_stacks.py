"""Series that are not continuous: each stack is searched as if it were a series of its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from models.contract import FloatArray, Lesion, ModelIdentity, SourceRef, Volume
from models.deeplesion.grouping import Region, axes_of
from models.deeplesion.place import SITES
from models.deeplesion.run import Found
from node.dicom.read import read_volume
from node.dicom.synthetic import write_ct_series
from node.pipelines.fidelity import contrast_kept
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Denoiser, Detector, Models
from node.pipelines.stacks import stacks_of

IDENTITY = ModelIdentity("threshold", "1", "ab" * 32, "trained on nothing")
STEP_MM = 2.0
BALL_HU = 300.0


def bright(volume: Volume, progress: Callable[[int, int], None]) -> list[Found]:
    """Every connected piece above `BALL_HU` is a lesion."""
    pieces, count = label(volume.voxels > BALL_HU)
    found = []
    for number, box in enumerate(find_objects(pieces), start=1):
        inside = pieces[box] == number
        region = Region(box, inside, inside.astype(np.float32), 0.5)
        score = float(volume.voxels[box][inside].max()) / 1000
        axes = axes_of(region, volume.spacing_zyx_mm)
        found.append(Found("lung", score, 0.3, region, axes, SITES["lung"], None))
    progress(max(count, 1), max(count, 1))
    return found


MODELS = Models(detector=Detector(IDENTITY, bright, "balls"))


def ignore(_done: int, _total: int) -> None:
    return None


def body(slices: int) -> FloatArray:
    """A cylinder of soft tissue in air with noise, (Z, 96, 96), voxels of 1 mm in plane."""
    y, x = np.mgrid[:96, :96] - 47.5
    inside = np.hypot(y, x) < 40
    noise = np.random.default_rng(3).normal(0, 10, (slices, 96, 96))
    return (np.where(inside, 40, -1000) + noise).astype(np.float32)


def with_balls(slices: int, places: Sequence[tuple[int, int, int]], radius_mm: float = 5.0) -> FloatArray:
    voxels = body(slices)
    z, y, x = np.mgrid[:slices, :96, :96]
    for number, (k, i, j) in enumerate(places):
        away = np.sqrt(((z - k) * STEP_MM) ** 2 + (y - i) ** 2 + (x - j) ** 2)
        voxels[away < radius_mm] = 500 + 50 * number
    return voxels


def series(tmp_path: Path, voxels: FloatArray, kept: Sequence[int]) -> Volume:
    """As read from files, of which only some came."""
    files = write_ct_series(tmp_path, voxels, (STEP_MM, 1.0, 1.0))
    return read_volume([files[index] for index in kept])


def facts(lesion: Lesion, volume: Volume) -> tuple[object, ...]:
    """All that a reader or a PACS is told of a lesion."""
    shown = {volume.sources[k].instance_uid: lesion.mask[k].sum() for k in np.flatnonzero(lesion.mask.any((1, 2)))}
    slice_uid = volume.sources[lesion.slice_index].instance_uid
    axes = (lesion.long_axis_px, lesion.short_axis_px, lesion.long_axis_mm, lesion.short_axis_mm)
    return lesion.tracking_id, slice_uid, shown, axes, pytest.approx(lesion.volume_mm3), lesion.score


def test_each_stack_is_searched_as_if_it_were_a_series_of_its_own(tmp_path: Path) -> None:
    voxels = with_balls(40, [(6, 40, 40), (13, 60, 40), (26, 50, 60)])
    chest, abdomen = range(15), range(25, 40)
    together = series(tmp_path, voxels, [*chest, *abdomen])
    findings = low_dose_ct(together, MODELS, ignore)
    alone = [
        facts(lesion, part)
        for part in (series(tmp_path, voxels, chest), series(tmp_path, voxels, abdomen))
        for lesion in low_dose_ct(part, MODELS, ignore).lesions
    ]
    assert sorted(map(str, (facts(lesion, together) for lesion in findings.lesions))) == sorted(map(str, alone))
    assert [lesion.score for lesion in findings.lesions] == [0.6, 0.55, 0.5], "surest first, over all stacks"


def test_what_is_not_continuous_is_told_with_its_place(tmp_path: Path) -> None:
    volume = series(tmp_path, body(40), [*range(15), *range(25, 40)])
    [_, detection, _] = low_dose_ct(volume, MODELS, ignore).analyses
    assert (detection.outcome, detection.looks_for) == ("done", "balls")
    assert "not continuous: there is no image between z = -11.0 and 11.0 mm." in detection.reason
    assert "no lesion was followed across" in detection.reason
    [_, whole, _] = low_dose_ct(series(tmp_path, body(40), range(40)), MODELS, ignore).analyses
    assert whole.reason == ""


def test_a_lesion_that_a_gap_cuts_is_two_and_neither_is_measured_over_the_gap(tmp_path: Path) -> None:
    voxels = with_balls(20, [(10, 48, 48)], radius_mm=14.0)
    volume = series(tmp_path, voxels, [*range(9), *range(13, 20)])
    above, below = sorted(low_dose_ct(volume, MODELS, ignore).lesions, key=lambda lesion: lesion.slice_index)
    pixels = (voxels > BALL_HU).sum((1, 2))
    assert above.volume_mm3 == pytest.approx(STEP_MM * pixels[:9].sum())
    assert below.volume_mm3 == pytest.approx(STEP_MM * pixels[13:].sum())
    assert not (above.mask & below.mask).any()


def test_a_stack_that_is_too_short_is_not_searched_and_that_is_an_analysis_not_done(tmp_path: Path) -> None:
    voxels = with_balls(40, [(6, 40, 40), (31, 50, 60)])
    volume = series(tmp_path, voxels, [*range(15), 30, 31])
    findings = low_dose_ct(volume, MODELS, ignore)
    assert [lesion.score for lesion in findings.lesions] == [0.5]
    [_, _, apart, _] = findings.analyses
    assert (apart.name, apart.outcome) == ("Lesion detection in images that stand apart", "not done")
    assert "2 images of the series stand apart from the others (z = 21.0 to 23.0 mm)" in apart.reason


def test_a_series_of_which_most_slices_stand_alone_is_not_said_to_be_searched(tmp_path: Path) -> None:
    volume = series(tmp_path, body(40), [0, 1, 2, 8, 14, 20, 26])
    [_, detection, _] = low_dose_ct(volume, MODELS, ignore).analyses
    assert (detection.outcome, detection.looks_for) == ("not done", "")
    assert "up to 12.0 mm apart" in detection.reason


def test_stacks_that_are_shifted_sideways_are_told_as_such(tmp_path: Path) -> None:
    volume = series(tmp_path, with_balls(20, [(4, 40, 40)]), range(20))
    origins = volume.slice_origins_mm.copy()
    origins[12:, 0] += 30
    shifted = replace(volume, slice_origins_mm=origins, even_steps=False)
    findings = low_dose_ct(shifted, MODELS, ignore)
    assert len(findings.lesions) == 1
    assert "at z = 5.0 mm the images are shifted sideways by 30.0 mm" in findings.analyses[1].reason


def test_of_many_gaps_some_are_told_and_the_others_counted(tmp_path: Path) -> None:
    kept = [index for index in range(80) if index % 8 < 4]
    [_, detection, _] = low_dose_ct(series(tmp_path, body(80), kept), MODELS, ignore).analyses
    assert detection.reason.count("no image between") == 4
    assert "; and 5 more." in detection.reason


def test_denoising_goes_on_over_all_slices_and_is_held_to_each_stack(tmp_path: Path) -> None:
    voxels = with_balls(40, [(6, 40, 40)])
    volume = series(tmp_path, voxels, [*range(15), *range(25, 40)])

    def adding(volume: Volume, _progress: object) -> FloatArray:
        array = volume.voxels.copy()
        array[20, 50:56, 50:56] = 500
        return array

    same = Denoiser(IDENTITY, lambda volume, _progress: volume.voxels.copy())
    [image] = low_dose_ct(volume, replace(MODELS, denoiser=same), ignore).images
    assert len(image.array) == 30
    withheld = low_dose_ct(volume, replace(MODELS, denoiser=Denoiser(IDENTITY, adding)), ignore)
    assert "1 in them that the images as received do not support" in withheld.analyses[0].reason


def test_the_ring_around_a_lesion_reaches_over_no_gap(tmp_path: Path) -> None:
    voxels = with_balls(40, [(14, 48, 48)])
    voxels[25:] += 400  # the other stack is brighter than the lesion
    volume = series(tmp_path, voxels, [*range(15), *range(25, 40)])
    [lesion] = [
        stack.lesion(one, volume, IDENTITY) for stack in stacks_of(volume)[:1] for one in bright(stack.volume, ignore)
    ]
    [kept] = contrast_kept(volume, volume.voxels * 0.5, [lesion])
    assert kept == pytest.approx(0.5)
    brighter = volume.voxels.copy()
    brighter[15:] += 1000
    assert contrast_kept(volume, brighter, [lesion]) == pytest.approx([1.0])


def test_progress_of_several_stacks_is_one(tmp_path: Path) -> None:
    told: list[int] = []
    volume = series(tmp_path, body(30), [*range(10), *range(20, 30)])
    low_dose_ct(volume, MODELS, lambda done, total: told.append(round(100 * done / total)))
    assert told == [25, 50], "the other half is for the denoised images"


def test_slices_that_reach_less_far_than_the_detector_looks_are_not_given_to_it(tmp_path: Path) -> None:
    findings = low_dose_ct(series(tmp_path, with_balls(40, [(6, 40, 40)]), range(5, 8)), MODELS, ignore)
    assert len(findings.lesions) == 1
    thin = read_volume(write_ct_series(tmp_path / "thin", body(4), (1.0, 1.0, 1.0)))
    reason = low_dose_ct(thin, MODELS, ignore).analyses[1].reason
    assert reason == "It needs slices that reach over at least 4 mm, and these reach over 3.0 mm."


def test_slices_of_six_millimetres_whose_positions_are_rounded_are_one_stack() -> None:
    volume = Volume(
        voxels=body(12),
        affine=np.diag([1.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]] * [72.0000001 / 12, 1, 1, 1],
        spacing_zyx_mm=(6.0, 1.0, 1.0),
        slice_origins_mm=np.outer(np.round(6.0 * np.arange(12), 1), (0.0, 0.0, 1.0)),
        sources=tuple(SourceRef(f"1.{number}") for number in range(12)),
    )
    assert len(stacks_of(volume)) == 1

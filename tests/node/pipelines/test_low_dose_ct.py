import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.contract import (
    Acquisition,
    Analysis,
    BoolArray,
    Findings,
    FloatArray,
    Lesion,
    ModelError,
    ModelIdentity,
    Quality,
    SourceRef,
    Volume,
)
from models.deeplesion.grouping import Region
from node.pipelines.fidelity import contrast_kept
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Denoiser, Detector, Models, Scorer

IDENTITY = ModelIdentity("lidnet-fast", "1", "ab" * 32, "simulated low-dose CT")
AXIAL = np.eye(4)[:, [2, 1, 0, 3]]
"""(z, y, x) index → (L, P, S) mm, voxels of 1 mm."""


def tissue(noise_hu: float, *, slices: int = 3) -> Volume:
    """Homogeneous soft tissue with white noise."""
    rng = np.random.default_rng(1)
    voxels = (50 + rng.normal(0, noise_hu, (slices, 64, 64))).astype(np.float32)
    return Volume(
        voxels=voxels,
        affine=AXIAL,
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        slice_origins_mm=np.outer(np.arange(slices), (0.0, 0.0, 1.0)),
        sources=tuple(SourceRef(f"1.{number}") for number in range(slices)),
    )


def offer(run: Callable[[FloatArray], FloatArray]) -> Models:
    return Models(denoiser=Denoiser(IDENTITY, lambda volume, _progress: run(volume.voxels)))


def ignore(_done: int, _total: int) -> None:
    return None


def test_without_weights_nothing_is_offered_and_that_is_said() -> None:
    findings = low_dose_ct(tissue(20), Models(), ignore)
    assert findings.images == ()
    assert {analysis.outcome for analysis in findings.analyses} == {"not done"}
    assert all(analysis.reason for analysis in findings.analyses)


def test_a_denoised_series_that_passes_is_returned_with_its_numbers() -> None:
    findings = low_dose_ct(tissue(20), offer(lambda voxels: 50 + (voxels - 50) / 4), ignore)
    [image] = findings.images
    assert image.model == IDENTITY
    assert "read the original images" in findings.notes[0]
    assert findings.analyses[0].outcome == "done"
    before, after = findings.measurements
    assert (before.group, after.group) == ("input", "denoised")
    assert before.value == pytest.approx(20, rel=0.1)
    assert after.value == pytest.approx(5, rel=0.1)


def test_a_denoiser_that_shifts_tissue_is_withheld_with_the_reason() -> None:
    findings = low_dose_ct(tissue(20), offer(lambda voxels: voxels - 3), ignore)
    assert findings.images == ()
    assert findings.analyses[0].outcome == "withheld"
    assert "soft tissue" in findings.analyses[0].reason
    assert [m.group for m in findings.measurements] == ["input"], "no number of images that nobody gets"


def test_a_shift_within_the_limit_passes_and_is_told() -> None:
    findings = low_dose_ct(tissue(20), offer(lambda voxels: voxels - 1), ignore)
    assert "-1.00 HU (limit 2)" in findings.images[0].checks["HU shift in soft tissue"]
    assert "not measurable" in findings.images[0].checks["HU shift in lung"]


def test_a_head_is_not_given_to_a_network_that_never_saw_one() -> None:
    volume = dataclasses.replace(tissue(20), acquisition=Acquisition(body_part="HEAD"))
    findings = low_dose_ct(volume, offer(lambda voxels: voxels), ignore)
    assert findings.images == ()
    assert {one.outcome for one in findings.analyses} == {"not done"}
    assert 'the body part in the header is "HEAD"' in findings.analyses[0].reason


CUBE = (slice(2, 5), slice(20, 30), slice(24, 34))


@dataclasses.dataclass(frozen=True)
class Spot:
    """A candidate that is a box of voxels."""

    score: float
    box: tuple[slice, slice, slice] = CUBE
    operating_point: float = 0.5

    @property
    def region(self) -> Region:
        whole = np.ones([part.stop - part.start for part in self.box], np.bool_)
        return Region(self.box, whole, whole.astype(np.float32), 0.5)

    def mask(self, volume: Volume) -> BoolArray:
        inside = np.zeros(volume.voxels.shape, np.bool_)
        inside[self.box] = True
        return inside

    def lesion(self, volume: Volume, identity: ModelIdentity) -> Lesion:
        axis = ((24.0, 25.0), (33.0, 25.0))
        code = ("52988006", "SCT", "Lesion")
        return Lesion("one", code, code, None, self.mask(volume), 3, axis, axis, 9, 9, 300, self.score, 0.5, identity)


def with_cube(contrast_hu: float, noise_hu: float = 10) -> Volume:
    volume = tissue(noise_hu, slices=8)
    volume.voxels[CUBE] += np.float32(contrast_hu)
    return volume


def detect(*by_look: list[Spot]) -> Detector:
    """Finds one list the first time it looks, the next the second time."""
    looks = iter(by_look)
    return Detector(IDENTITY, lambda _volume, _progress: next(looks), "cubes")


def unchanged(volume: Volume, _progress: object) -> FloatArray:
    return volume.voxels.copy()


def test_findings_are_the_candidates_from_the_operating_point_on_as_received() -> None:
    models = Models(detector=detect([Spot(0.9), Spot(0.5), Spot(0.2)]))
    findings = low_dose_ct(with_cube(50), models, ignore)
    assert [lesion.score for lesion in findings.lesions] == [0.9, 0.5]
    detection = next(analysis for analysis in findings.analyses if analysis.name == "Lesion detection")
    assert (detection.outcome, detection.looks_for) == ("done", "cubes")
    assert "marks what is none" in findings.notes[-1]


def test_a_lesion_that_only_the_denoised_images_show_withholds_them() -> None:
    models = Models(Denoiser(IDENTITY, unchanged), detect([], [Spot(0.8)]))
    findings = low_dose_ct(with_cube(50), models, ignore)
    assert findings.images == ()
    assert findings.lesions == (), "a finding never comes from the denoised images"
    assert "do not support" in findings.analyses[0].reason


def test_a_weak_candidate_in_the_original_supports_what_is_found_after_denoising() -> None:
    models = Models(Denoiser(IDENTITY, unchanged), detect([Spot(0.1)], [Spot(0.8)]))
    findings = low_dose_ct(with_cube(50), models, ignore)
    assert findings.images[0].checks["lesions only in the denoised images"] == "0 (limit 0)"
    assert findings.lesions == ()


@pytest.mark.parametrize(("kept", "outcome"), [(1.0, "done"), (0.85, "done"), (0.7, "withheld")])
def test_a_denoiser_that_fades_a_lesion_is_withheld(kept: float, outcome: str) -> None:
    def fade(volume: Volume, _progress: object) -> FloatArray:
        faded = volume.voxels.copy()
        faded[CUBE] -= np.float32((1 - kept) * 50)
        return faded

    findings = low_dose_ct(with_cube(50), Models(Denoiser(IDENTITY, fade), detect([Spot(0.9)], [Spot(0.9)])), ignore)
    assert findings.analyses[0].outcome == outcome
    said = findings.analyses[0].reason if outcome == "withheld" else findings.images[0].checks["contrast of lesions"]
    assert f"{100 * kept:.0f} %" in said


def test_contrast_is_measured_against_the_ring_and_only_where_there_is_some() -> None:
    volume = with_cube(-60, noise_hu=0)
    lesion = Spot(0.9).lesion(volume, IDENTITY)
    assert contrast_kept(volume, volume.voxels * 0.5, [lesion]) == pytest.approx([0.5])
    assert contrast_kept(with_cube(5, noise_hu=0), volume.voxels, [lesion]) == []


def test_progress_of_several_stages_never_runs_back() -> None:
    seen: list[tuple[int, int]] = []

    def find(_volume: Volume, progress: Callable[[int, int], None]) -> list[Spot]:
        for done in range(1, 5):
            progress(done, 4)
        return []

    def run(volume: Volume, progress: Callable[[int, int], None]) -> FloatArray:
        progress(1, 1)
        return volume.voxels.copy()

    models = Models(Denoiser(IDENTITY, run), Detector(IDENTITY, find, "cubes"))
    low_dose_ct(with_cube(50), models, lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [100] * 9
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == 100


def test_a_result_of_another_shape_is_an_error() -> None:
    with pytest.raises(ModelError):
        low_dose_ct(tissue(20), offer(lambda voxels: voxels[:1]), ignore)


def test_the_input_is_untouched() -> None:
    volume = tissue(20)
    before = volume.voxels.copy()
    low_dose_ct(volume, offer(lambda voxels: voxels * np.float32(0.99)), ignore)
    assert np.array_equal(volume.voxels, before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing_zyx_mm": (1.0, 2.8, 2.8)}, "pixels of 2.8 mm"),
        ({"slice_origins_mm": np.outer(np.arange(8), (0.0, 0.0, 7.5))}, "7.5 mm apart"),
        ({"slice_origins_mm": np.outer([0, 1, 2, 12, 22, 32, 42, 52], (0.0, 0.0, 1.0))}, "10.0 mm apart"),
        (
            {"slice_origins_mm": np.stack([[0, 9, 0, 9, 9, 0, 0, 9], np.zeros(8), np.arange(8)], axis=1)},
            "shifted sideways against their neighbours by up to 9.0 mm",
        ),
        ({"slice_origins_mm": np.outer(np.arange(8), (0.0, 3.0, 5.5)), "gantry_tilt_deg": 28.6}, "6.3 mm apart"),
    ],
)
def test_series_that_the_detector_was_not_made_for_are_not_given_to_it(change: dict[str, Any], said: str) -> None:
    volume = dataclasses.replace(with_cube(50), even_steps=False, **change)
    findings = low_dose_ct(volume, Models(Denoiser(IDENTITY, unchanged), detect()), ignore)
    detection = next(analysis for analysis in findings.analyses if analysis.name == "Lesion detection")
    assert detection.outcome == "not done"
    assert said in detection.reason
    assert len(findings.images) == 1, "the denoised series does not wait for it"
    assert "lesions only in the denoised images" not in findings.images[0].checks


def turned(degrees: float, axis: int) -> FloatArray:
    """The axial grid turned about the patient's left (0) or back (1)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    one, other = (1, 2) if axis == 0 else (0, 2)
    rotation = np.eye(4)
    rotation[one, one], rotation[one, other], rotation[other, one], rotation[other, other] = cos, -sin, sin, cos
    return rotation @ AXIAL


@pytest.mark.parametrize(
    ("affine", "angle"),
    [(turned(90, 0), 90), (turned(90, 1), 90), (turned(45, 0), 45), (turned(-120, 1), 60)],
    ids=["coronal", "sagittal", "oblique", "turned over"],
)
def test_lesions_are_searched_for_on_axial_slices_only(affine: FloatArray, angle: int) -> None:
    volume = dataclasses.replace(with_cube(50), affine=affine)
    findings = low_dose_ct(volume, Models(Denoiser(IDENTITY, unchanged), detect()), ignore)
    detection = analysis(findings, "Lesion detection")
    assert (detection.outcome, findings.lesions) == ("not done", ())
    assert f"axial slices, and these are turned by {angle}°" in detection.reason
    assert len(findings.images) == 1, "the denoised series does not wait for it"


@pytest.mark.parametrize("affine", [turned(30, 0), turned(180, 0), turned(-20, 1)], ids=["tilt", "upside down", "side"])
def test_a_tilted_gantry_is_axial_still(affine: FloatArray) -> None:
    volume = dataclasses.replace(with_cube(50), affine=affine)
    findings = low_dose_ct(volume, Models(detector=detect([Spot(0.9)])), ignore)
    assert len(findings.lesions) == 1


def test_two_slices_are_too_few_to_tell_a_vessel_from_a_nodule() -> None:
    findings = low_dose_ct(tissue(20, slices=2), Models(detector=detect()), ignore)
    assert "at least 3 slices" in findings.analyses[1].reason


def test_images_smaller_than_the_detector_can_see_are_not_given_to_it() -> None:
    volume = tissue(20, slices=4)
    small = dataclasses.replace(volume, voxels=volume.voxels[:, :16, :24])
    assert (
        "at least 32 pixels a side, and these have 16"
        in low_dose_ct(small, Models(detector=detect()), ignore).analyses[1].reason
    )


def grade(*scores: float, refused: str = "") -> Scorer:
    """Gives the slices these scores, or says why not."""
    values = np.array(scores, np.float32)
    summed = (float(np.median(values)), float(np.percentile(values, 10))) if scores else (np.nan, np.nan)
    poor = tuple(int(index) for index in np.flatnonzero(values < 1.5))
    levels, probabilities = np.arange(21, dtype=np.float32) / 5, np.zeros((len(values), 21), np.float32)
    found = Quality(levels, probabilities, values, values, *summed, poor, refused)
    return Scorer(GRADER, lambda _volume, _progress: found)


GRADER = dataclasses.replace(IDENTITY, name="clinreadnet-fast")


def analysis(findings: Findings, name: str) -> Analysis:
    return next(one for one in findings.analyses if one.name == name)


def test_quality_is_told_as_median_low_percentile_and_lowest_slice() -> None:
    findings = low_dose_ct(tissue(20), Models(scorer=grade(3.0, 2.0, 2.6)), ignore)
    assert analysis(findings, "Image quality scoring").outcome == "done"
    assert [score.value for score in findings.scores] == pytest.approx([2.6, 2.12, 2.0])
    assert [score.slice_index for score in findings.scores] == [None, None, 1]
    assert {score.applies_to for score in findings.scores} == {"input"}
    assert findings.quality is not None


@pytest.mark.parametrize(("least", "outcome"), [(0.0, "done"), (0.875, "done"), (1.0, "not done")])
def test_below_the_gate_lesions_are_not_searched_for_and_the_reader_is_told(least: float, outcome: str) -> None:
    models = Models(Denoiser(IDENTITY, unchanged), detect([Spot(0.9)], []), grade(*[0.875] * 8))
    findings = low_dose_ct(with_cube(50), models, ignore, least_quality=least)
    detection = analysis(findings, "Lesion detection")
    assert detection.outcome == outcome
    assert (len(findings.lesions), detection.reason.startswith("The image quality of the series is 0.88 of 4")) == (
        (1, False) if outcome == "done" else (0, True)
    )
    assert analysis(findings, "Denoising").outcome == "done", "the gate is the detector's"


def test_a_series_that_cannot_be_scored_is_searched_and_the_reason_told() -> None:
    models = Models(detector=detect([Spot(0.9)]), scorer=grade(refused="made for soft-tissue kernels"))
    findings = low_dose_ct(with_cube(50), models, ignore, least_quality=4.0)
    assert len(findings.lesions) == 1
    assert findings.scores == ()
    scoring = analysis(findings, "Image quality scoring")
    assert (scoring.outcome, scoring.reason) == ("not done", "It does not apply: made for soft-tissue kernels.")


def test_poor_slices_in_a_searched_series_are_a_caution() -> None:
    models = Models(detector=detect([]), scorer=grade(*[3.0] * 7, 1.0))
    findings = low_dose_ct(with_cube(50), models, ignore, least_quality=1.0)
    assert "says little" in findings.notes[-1]
    good = dataclasses.replace(models, detector=detect([]), scorer=grade(*[3.0] * 8))
    assert not any("says little" in note for note in low_dose_ct(with_cube(50), good, ignore).notes)


def test_progress_runs_once_from_nothing_to_all() -> None:
    def counting(volume: Volume, progress: Callable[[int, int], None]) -> Any:
        for done in range(1, 5):
            progress(done, 4)
        return volume.voxels.copy()

    def scored(volume: Volume, progress: Callable[[int, int], None]) -> Quality:
        counting(volume, progress)
        return grade(*[3.0] * 8).run(volume, progress)

    told: list[int] = []
    models = Models(denoiser=Denoiser(IDENTITY, counting), scorer=Scorer(GRADER, scored))
    low_dose_ct(with_cube(50), models, lambda done, total: told.append(round(100 * done / total)))
    assert told == [12, 25, 38, 50, 62, 75, 88, 100]


@pytest.mark.parametrize("padded", [False, True], ids=["air", "padding far above air"])
def test_nothing_is_said_to_be_found_in_air(padded: bool) -> None:
    volume = tissue(8, slices=5)
    padding = np.full(volume.voxels.shape, padded)
    voxels = volume.voxels + np.float32(60_000 if padded else -1050)
    volume = dataclasses.replace(volume, voxels=voxels, padding=padding if padded else None)
    detection = analysis(low_dose_ct(volume, Models(detector=detect()), ignore), "Lesion detection")
    assert (detection.outcome, detection.looks_for) == ("not done", "")
    assert "hardly anything but air" in detection.reason

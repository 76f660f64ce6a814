import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from models.contract import Acquisition, FloatArray, ModelError, ModelIdentity, SourceRef, Volume
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Denoiser, Models

IDENTITY = ModelIdentity("lidnet-fast", "1", "ab" * 32, "simulated low-dose CT")


def tissue(noise_hu: float, *, slices: int = 3) -> Volume:
    """Homogeneous soft tissue with white noise."""
    rng = np.random.default_rng(1)
    voxels = (50 + rng.normal(0, noise_hu, (slices, 64, 64))).astype(np.float32)
    return Volume(
        voxels=voxels,
        affine=np.eye(4),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        slice_origins_mm=np.zeros((slices, 3)),
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
    assert "this is the head" in findings.analyses[0].reason


def test_a_result_of_another_shape_is_an_error() -> None:
    with pytest.raises(ModelError):
        low_dose_ct(tissue(20), offer(lambda voxels: voxels[:1]), ignore)


def test_the_input_is_untouched() -> None:
    volume = tissue(20)
    before = volume.voxels.copy()
    low_dose_ct(volume, offer(lambda voxels: voxels * np.float32(0.99)), ignore)
    assert np.array_equal(volume.voxels, before)

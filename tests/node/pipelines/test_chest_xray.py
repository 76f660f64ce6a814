"""One radiograph through the pipeline: restored, not done or withheld, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from images import chest
from models.contract import Analysis, Findings, FloatArray, ModelError, Radiograph
from models.diffusionxray.model import build_fast
from models.diffusionxray.samplers import seed_of
from node.dicom.write.sentences import of_findings
from node.pipelines.chest_xray import CAUTIONS, CHANGED_SHARE, DETECTION, NOISE, RESTORATION, chest_xray
from node.pipelines.models import Models, Progress, Restored, restore

RESTORER = Models(restorer=chest.restorer())


def run(image: Radiograph, models: Models = RESTORER, **given: Any) -> Findings:
    return chest_xray(image, models, chest.ignore, **given)


def analysis(findings: Findings, name: str = RESTORATION) -> Analysis:
    return next(one for one in findings.analyses if one.name == name)


def test_says_which_analyses_were_not_done_and_why() -> None:
    findings = run(chest.radiograph(), Models())
    assert {one.outcome for one in findings.analyses} == {"not done"}
    assert all(one.reason for one in findings.analyses)
    assert (findings.images, findings.maps, findings.notes) == ((), (), ())


def test_a_fit_radiograph_comes_back_restored_with_its_numbers_and_cautions() -> None:
    image = chest.radiograph()
    findings = run(image)
    assert analysis(findings) == Analysis(RESTORATION, "done", "", chest.IDENTITY)
    assert analysis(findings, DETECTION).outcome == "not done"
    [restored] = findings.images
    assert restored.kind == "restored"
    assert restored.derivation == ("113087", "DCM", "Smoothing")
    assert "4 steps from noise of seed 11" in restored.description
    assert restored.array.dtype == np.float32
    before, after = (m.value for m in findings.measurements if m.name == NOISE)
    assert 0 < after < before
    assert before == pytest.approx(chest.NOISE, rel=0.2)
    assert [m.group for m in findings.measurements] == ["input", *["restored"] * 4]
    assert findings.notes[:-1] == CAUTIONS
    assert findings.notes[-1].startswith("The image covers 13 x 13 cm, less than nearly any chest of an adult.")
    assert findings.lesions == ()
    assert findings.maps == ()


def test_what_was_changed_and_by_how_much_is_said_in_words() -> None:
    said = " ".join(of_findings(run(chest.radiograph(), maps=True), [1]))
    for words in (
        "Restoration done. Network filter 1.0.",
        "Lesion detection not done.",
        "grey levels (as received), ",
        "Pixels changed by more than the noise: ",
        "Check of the AI restored images, shift of coarse structure: ",
        "Change: restored minus received, as a map. Red became denser",
        "Uncertainty: half width of the calibrated interval, as a map.",
        "not disease.",
    ):
        assert words in said


def test_the_pixels_received_are_not_touched() -> None:
    image = chest.radiograph()
    pixels = image.pixels.copy()
    run(image, maps=True)
    np.testing.assert_array_equal(image.pixels, pixels)


def test_two_runs_are_equal_to_the_bit() -> None:
    one, other = run(chest.radiograph(), maps=True), run(chest.radiograph(), maps=True)
    assert one.images[0].array.tobytes() == other.images[0].array.tobytes()
    assert [each.array.tobytes() for each in one.maps] == [each.array.tobytes() for each in other.maps]
    assert one.measurements == other.measurements


def test_padding_shutter_and_ends_of_the_range_stay_exactly_as_received() -> None:
    image = chest.radiograph()
    pixels, padding = image.pixels.copy(), np.zeros(image.pixels.shape, np.bool_)
    padding[40:50, 200:220] = True
    pixels[padding] = 3000
    pixels[100, 100:110] = 4095
    image = replace(image, pixels=pixels, padding=padding)
    [restored] = run(image).images
    assert (restored.array[padding] == 3000).all()
    assert (restored.array[100, 100:110] == 4095).all()
    assert (restored.array[:12] == 0).all()
    assert (restored.array[60:300, 60:90] != pixels[60:300, 60:90]).mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "words"), [({"view": "LL"}, "frontal"), ({"spacing_yx_mm": None}, "how large a pixel is")]
)
def test_what_is_unfit_is_never_given_to_the_restorer(changes: dict[str, Any], words: str) -> None:
    def never(_image: Radiograph, _progress: Progress, _spread: bool) -> Restored:
        raise AssertionError

    findings = run(replace(chest.radiograph(), **changes), Models(restorer=chest.restorer(never)))
    done = analysis(findings)
    assert (done.outcome, done.model) == ("not done", chest.IDENTITY)
    assert words in done.reason
    assert (findings.images, findings.measurements, findings.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("shape", "is_small"), [((500, 650), True), ((750, 600), True), ((760, 600), False), ((610, 610), False)]
)
def test_a_field_as_small_as_that_of_a_hand_is_a_caution(shape: tuple[int, int], is_small: bool) -> None:
    rows, columns = shape
    picture = np.kron(chest.lungs(400), np.ones((2, 2)))[:rows, :columns]
    said = [note for note in run(chest.radiograph(picture)).notes if "less than nearly any chest of an adult" in note]
    assert bool(said) == is_small


def test_where_the_header_tells_no_size_the_operator_may() -> None:
    image = replace(chest.radiograph(), spacing_yx_mm=None)
    findings = run(image, unstated_side_mm=128.0)
    assert analysis(findings).outcome == "done"
    assert findings.images[0].array.tobytes() == run(chest.radiograph()).images[0].array.tobytes()
    assert findings.notes[:-1] == CAUTIONS
    assert "as if the longer side were 128 mm, pixels of 0.40 mm" in findings.notes[-1]
    stated = run(chest.radiograph(), unstated_side_mm=128.0)
    assert not any("as if the longer side" in note for note in stated.notes), "what the header says stands"
    assert "these have 0.62 mm" in analysis(run(image, unstated_side_mm=200.0)).reason


def nodule(contrast: float) -> FloatArray:
    y, x = np.mgrid[:320, :320]
    made: FloatArray = (contrast * np.exp(-((y - 150) ** 2 + (x - 90) ** 2) / (2 * 8.0**2))).astype(np.float32)
    return made


@pytest.mark.parametrize(
    ("extra", "words"), [(60.0, "shifts coarse structure"), (nodule(300), "blobs of"), (nodule(-300), "blobs of")]
)
def test_what_changes_anatomy_is_withheld_with_the_reason(extra: Any, words: str) -> None:
    findings = run(chest.radiograph(), Models(restorer=chest.adding(extra)), maps=True)
    withheld = analysis(findings)
    assert withheld.outcome == "withheld"
    assert withheld.reason.startswith("The restored image was not returned: ")
    assert words in withheld.reason
    assert (findings.images, findings.maps, findings.notes) == ((), (), ())
    assert [m.group for m in findings.measurements] == ["input"]


def test_maps_come_on_request_with_their_meaning() -> None:
    image = chest.radiograph()
    findings = run(image, maps=True)
    change, uncertainty = findings.maps
    np.testing.assert_array_equal(change.array, findings.images[0].array - image.pixels)
    assert change.limits[0] == -change.limits[1]
    assert uncertainty.limits[0] == 0
    assert (uncertainty.array[:12] == 0).all()
    assert uncertainty.array[100:200, 100:200].min() > 0
    assert all("not disease" in one.explanation for one in findings.maps)


def test_changes_are_told_in_grey_levels_whatever_a_level_is() -> None:
    """The same picture on a scale of quarters has the same noise, changes and maps."""
    whole = chest.radiograph()
    quarters = replace(whole, pixels=whole.pixels / 4, value_range=(0.0, 4095 / 4), value_step=0.25)

    def scaled(image: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
        found = chest.smoothed(whole, on_progress, with_spread)
        names = ("pixels", "safe", "allowed", "spread", "noise_sd")
        return replace(found, **{name: getattr(found, name) / 4 for name in names})

    one, other = run(whole, maps=True), run(quarters, Models(restorer=chest.restorer(scaled)), maps=True)
    assert [m.value for m in other.measurements] == pytest.approx([m.value for m in one.measurements], abs=0.001)
    for was, found in zip(one.maps, other.maps, strict=True):
        assert found.limits == was.limits
        np.testing.assert_allclose(found.array, was.array, atol=1e-3)


def test_uncertainty_is_asked_for_only_with_maps() -> None:
    asked = []

    def noting(image: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
        asked.append(with_spread)
        return chest.smoothed(image, on_progress, with_spread)

    for maps in (False, True):
        run(chest.radiograph(), Models(restorer=chest.restorer(noting)), maps=maps)
    assert asked == [False, True]


def test_a_restorer_without_spread_gives_the_change_alone() -> None:
    def plain(image: Radiograph, on_progress: Progress, _with_spread: bool) -> Restored:
        return chest.smoothed(image, on_progress, False)

    findings = run(chest.radiograph(), Models(restorer=chest.restorer(plain)), maps=True)
    assert [one.kind for one in findings.maps] == ["change"]


@pytest.mark.parametrize("broken", ["shape", "finite", "spread"])
def test_a_broken_result_is_an_error_and_no_finding(broken: str) -> None:
    def breaking(image: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
        found = chest.smoothed(image, on_progress, with_spread)
        if broken == "shape":
            return replace(found, pixels=found.pixels[1:])
        bad = found.pixels.copy()
        bad[3, 3] = np.nan
        return replace(found, **{"pixels" if broken == "finite" else "spread": bad})

    with pytest.raises(ModelError):
        run(chest.radiograph(), Models(restorer=chest.restorer(breaking)), maps=True)


def test_progress_ends_at_all() -> None:
    for models, image in ((Models(), chest.radiograph()), (RESTORER, replace(chest.radiograph(), view="LL"))):
        told: list[tuple[int, int]] = []
        chest_xray(image, models, lambda done, total, told=told: told.append((done, total)))
        assert told[-1] == (1, 1)


def test_networks_without_training_are_held_to_the_same_checks() -> None:
    """Whatever they make: restored within its bounds or withheld, the same each time, seeded by the instance."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    network = build_fast().eval()
    image = chest.radiograph()
    told = restore(network, image, chest.ignore, True)
    assert told.seed == seed_of(image.source.instance_uid)
    assert told.spread is not None
    models = Models(restorer=chest.restorer(lambda *given: restore(network, *given)))
    one, other = run(image, models, maps=True), run(image, models, maps=True)
    assert analysis(one) == analysis(other)
    assert analysis(one).outcome in ("done", "withheld")
    assert [image.array.tobytes() for image in one.images] == [image.array.tobytes() for image in other.images]
    assert CHANGED_SHARE in {m.name for m in one.measurements} or analysis(one).outcome == "withheld"

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gate import made
from models.contract import Analysis, Findings, Measurement, Score
from node.dicom.read import read_volume
from node.dicom.write import SeriesEntry, StudyEntry, sentences


def _entry(**changes: Any) -> SeriesEntry:
    return replace(SeriesEntry("1.2", 3, "Chest  B40f ", "CT", 102, "axial chest", "processed", ""), **changes)


def test_each_series_is_named_as_the_viewer_names_it() -> None:
    assert sentences.series_name(_entry()) == 'Series 3 "Chest B40f" (CT, 102 images, axial chest)'
    assert sentences.series_name(replace(_entry(), role="ct")).endswith("(CT, 102 images)"), "nothing is said twice"
    bare = _entry(number=None, description="", modality="", role="", images=1)
    assert sentences.series_name(bare) == "Series without number (no modality, 1 image)"


def test_a_series_whose_images_met_different_fates_is_counted_once() -> None:
    frontal, lateral = _entry(images=1), _entry(images=1, outcome="not eligible", reason="A lateral view.")
    received, *_ = sentences.of_study(StudyEntry((frontal, lateral)), made.stamp())
    assert received == "Revision 1: 2 images in 1 series received."
    two_failed = StudyEntry((replace(frontal, outcome="failed"), replace(lateral, outcome="failed")))
    assert "AI processing failed for series 3." in " ".join(sentences.conclusion(two_failed))
    none_suited = StudyEntry((replace(frontal, outcome="not eligible"), lateral))
    assert "suitable for the series received" in " ".join(sentences.conclusion(none_suited))


def test_noise_before_and_after_stand_in_one_sentence() -> None:
    measured = [Measurement(made.NOISE, v, made.HU, "in the liver", g) for v, g in ((17.2, "input"), (8.1, "denoised"))]
    (sentence,) = sentences.of_measurements(measured)
    assert sentence == "Image noise: 17.2 HU (as received), 8.1 HU (denoised). Measured: in the liver."


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (8.1, "8.1"), (17.24, "17.2"), (0.3, "0.3"), (1240.6, "1241"), (-3.456, "-3.46"), (0.00321, "0.00321")],
)
def test_numbers_have_three_figures_and_no_needless_zeros(value: float, words: str) -> None:
    assert sentences.number(value) == words


def test_nothing_found_names_what_was_looked_for() -> None:
    looked = Analysis("lesion detection", "done", "", made.MODEL, looks_for="lung nodules from 4 mm on")
    study = StudyEntry((_entry(findings=Findings("p", "1", (looked,))),))
    (sentence,) = sentences.conclusion(study)
    assert (
        sentence
        == "Lesion detection found nothing. It looks only for lung nodules from 4 mm on, and misses some of them."
    )


def test_lesions_are_counted_by_series_and_a_series_without_any_is_named(ct_run: Any) -> None:
    looked = Analysis("lesion detection", "done", "", made.MODEL, looks_for="lung nodules")
    lesion = ct_run.findings.lesions[0]
    series = [
        replace(_entry(findings=Findings("p", "1", (looked,), lesions=(lesion,) * lesions)), number=number)
        for number, lesions in ((2, 1), (3, 2), (4, 0))
    ]
    assert sentences.conclusion(StudyEntry(tuple(series))) == [
        "Possible lesions are marked in 2 series (series 2: 1, series 3: 2); they may be the same ones."
        " Each one needs a reader's judgement.",
        "Lesion detection found nothing in series 4. It looks only for lung nodules, and misses some of them.",
    ]
    assert sentences.conclusion(StudyEntry((series[1],))) == [
        "2 possible lesions are marked. Each one needs a reader's judgement."
    ]


def test_where_not_all_was_searched_it_is_said_what_was() -> None:
    looked = Analysis("lesion detection", "done", "", made.MODEL, looks_for="lung nodules")
    searched = _entry(findings=Findings("p", "1", (looked,)))
    unfit = replace(_entry(findings=Findings("p", "1", (replace(looked, outcome="not done", reason="why"),))), number=4)
    localiser = replace(_entry(outcome="not eligible", reason="Localiser only."), number=1)
    assert sentences.conclusion(StudyEntry((searched, unfit)))[1:] == ["Lesion detection not done in series 4."]
    assert sentences.conclusion(StudyEntry((searched, localiser)))[1:] == []
    for other in (unfit, localiser):
        found_nothing, *_ = sentences.conclusion(StudyEntry((searched, other)))
        assert found_nothing.startswith("Lesion detection found nothing in series 3. It looks only for lung nodules, ")


def test_a_series_that_suited_no_analysis_was_not_processed() -> None:
    undone = Findings("p", "1", (Analysis("restoration", "not done", "No pixel size."),))
    said = sentences.of_series(_entry(findings=undone), ())
    assert said[0] == 'Series 3 "Chest B40f" (CT, 102 images, axial chest): Nothing was done.'
    assert sentences.is_warning(said[0])
    concluded = sentences.conclusion(StudyEntry((_entry(findings=undone),)))
    assert "No analysis was suitable for the series received." in concluded
    withheld = replace(undone, analyses=(Analysis("restoration", "withheld", "It moved structure."),))
    assert sentences.of_series(_entry(findings=withheld), ())[0].endswith("processed.")


def test_several_series_that_suited_nothing_are_counted() -> None:
    unfit = (
        _entry(outcome="not eligible", reason="A localiser."),
        replace(_entry(outcome="not eligible"), series_instance_uid="1.3"),
    )
    assert "No analysis was suitable for any of the 2 series received." in sentences.conclusion(StudyEntry(unfit))


@pytest.mark.parametrize(("mm3", "words"), [(52.3, "0.05 ml"), (4188.8, "4.2 ml"), (13961.0, "14 ml")])
def test_a_volume_has_no_more_figures_than_are_known(mm3: float, words: str, ct_run: Any) -> None:
    lesion = replace(ct_run.findings.lesions[0], volume_mm3=mm3)
    assert f" mm, {words}. " in sentences.of_lesion(1, lesion, ())


def test_a_count_is_said_with_what_is_counted() -> None:
    assert sentences.quantity(2.224, ("{levels}", "UCUM", "grey levels")) == "2.22 grey levels"


def test_a_lesion_of_no_known_kind_is_not_called_so_twice(ct_run: Any) -> None:
    lesion = replace(ct_run.findings.lesions[0], category=("52988006", "SCT", "Lesion"))
    assert sentences.of_lesion(1, lesion, ()).startswith("Lesion 1: Lung, left, slice 2. ")


def test_a_denoiser_alone_makes_no_statement_about_disease() -> None:
    study = StudyEntry((_entry(findings=Findings("p", "1", (Analysis("AI denoising", "done"),))),))
    (sentence,) = sentences.conclusion(study)
    assert sentence == "Not looked for disease: no such analysis was run. This report says nothing about findings."


def test_what_failed_or_was_withheld_is_concluded() -> None:
    looked = Analysis("lesion detection", "failed", "no memory", looks_for="lung nodules")
    analyses = (Analysis("denoising", "withheld", "It moved structure."), looked)
    concluded = sentences.conclusion(StudyEntry((_entry(findings=Findings("p", "1", analyses)),)))
    assert concluded == [
        "Denoising withheld in series 3.",
        "Lesion detection failed in series 3.",
        "Not looked for disease: no such analysis came to its end. This report says nothing about findings.",
    ]
    assert all(map(sentences.is_warning, concluded))
    broken = sentences.conclusion(StudyEntry((_entry(outcome="failed", reason="no memory"),)))
    assert "no such analysis came to its end" in broken[0]


@pytest.mark.parametrize(
    ("outcome", "words"), [("done", ": that nothing is marked there says little."), ("not done", ".")]
)
def test_that_nothing_is_marked_is_said_only_where_something_was_searched(outcome: Any, words: str) -> None:
    looked = Analysis("lesion detection", outcome, "", made.MODEL, looks_for="lung nodules")
    score = Score(("q", "99X", "Quality"), 1.0, (0.0, 4.0), made.MODEL, (1.0, 1.0), 1.5)
    concluded = sentences.conclusion(StudyEntry((_entry(findings=Findings("p", "1", (looked,), scores=(score,))),)))
    assert f"2 images of poor quality{words}" in concluded


def test_not_done_withheld_and_failed_are_warnings_and_done_is_none() -> None:
    for outcome in ("not done", "withheld", "failed"):
        assert sentences.is_warning(sentences.of_analysis(Analysis("denoising", outcome, "why")))  # type: ignore[arg-type]
    assert not sentences.is_warning(sentences.of_analysis(Analysis("denoising", "done")))


def test_every_sentence_begins_with_a_capital_and_ends_in_a_full_stop(ct_run: Any) -> None:
    entry = made.entry(ct_run.source, ct_run.findings, ct_run.grid)
    study = made.study(entry, _entry(outcome="failed", reason="no memory"), notes=["the sender was slow"])
    said = sentences.conclusion(study) + sentences.of_study(study, made.stamp(revision=2, replaces=1, new_images=1))
    for each in study.series:
        said += sentences.of_series(each, [1, 2, 3, 4, 5])
    assert len(said) > 10
    for sentence in said:
        assert re.fullmatch(r"[A-Z0-9].*[.!?]", sentence), sentence
        assert ".." not in sentence


def test_scores_of_one_network_stand_in_one_sentence_and_poor_images_are_named() -> None:
    scale = (0.0, 4.0)
    per_slice = (1.2, 1.1, 3.0, 3.0, 1.4)
    median = Score(
        ("q", "99X", "Median image quality"), 3.0, scale, made.MODEL, per_slice, 1.5, note="0 bad, 4 excellent"
    )
    lowest = Score(("l", "99X", "Image quality of the lowest slice"), 1.1, scale, made.MODEL, slice_index=1)
    said, poor = sentences.of_scores([median, lowest], [11, 12, 13, 14, 15])
    assert said == (
        "Images as received, on a scale from 0 to 4: median image quality 3.0, image quality of the lowest slice 1.1"
        f" (image 12). Network {made.MODEL.name} {made.MODEL.version}. 0 bad, 4 excellent."
    )
    assert poor == "Poor images (quality below 1.5): 11-12, 15."
    assert sentences.is_warning(poor)


def test_no_poor_image_is_said_and_is_no_warning() -> None:
    score = Score(("q", "99X", "Quality"), 3.0, (0.0, 4.0), made.MODEL, (3.0, 2.0), 1.5)
    assert sentences.of_poor(score, [1, 2]) == "No image is of poor quality (below 1.5)."
    assert not sentences.is_warning(sentences.of_poor(score, [1, 2]))


def test_many_stretches_are_counted() -> None:
    score = Score(("q", "99X", "Quality"), 3.0, (0.0, 4.0), made.MODEL, (1.0, 3.0) * 9, 1.5)
    assert sentences.of_poor(score, ()).endswith("1, 3, 5, 7, 9, 11 and 3 more stretches.")


@pytest.mark.parametrize(
    ("slices", "numbers", "said"),
    [((), (), []), ((0, 1, 2, 5), (), ["1-3", "6"]), ((0, 1), (40, 39), ["40-39"]), ((2,), (7, 8, 9), ["9"])],
)
def test_runs_carry_the_numbers_that_a_viewer_shows(
    slices: tuple[int, ...], numbers: tuple[int, ...], said: list[str]
) -> None:
    assert sentences.in_runs(slices, numbers) == said


def test_a_series_begins_with_its_lesions(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path))
    said = sentences.of_findings(made.findings(volume, lesions=2), list(range(1, len(volume.sources) + 1)))
    assert [text.split(":")[0] for text in said[:2]] == ["Lesion 1", "Lesion 2"]
    assert sum(text.startswith("Lesion ") and ":" in text for text in said) == 2


def test_a_page_begins_with_what_must_be_seen_and_leaves_nothing_out(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path))
    findings = made.findings(volume, lesions=2)
    numbers = list(range(1, len(volume.sources) + 1))
    must, told, rest = sentences.for_page(findings, numbers)
    on_page = must + told + rest
    assert [text.split(":")[0] for text in on_page[:2]] == ["Lesion 1", "Lesion 2"]
    assert on_page[2].startswith("Lesion detection not done")
    done = [text for text in told if " done. " in text and " not done. " not in text]
    assert done
    assert told[: len(done)] == done
    assert told[len(done)].startswith("Images as received, on a scale")
    assert not [text for text in must if text in done], "the cautions come before what was done"
    on_page += sentences.of_checks(findings)
    for whole in sentences.of_findings(findings, numbers):
        short = [text for text in done if whole.startswith(text)]
        training = whole.removeprefix(short[0]).strip() if short else whole
        assert any(text.endswith(training) for text in on_page), whole
    assert len(on_page) == len(set(on_page))


def test_a_page_says_that_nothing_was_found() -> None:
    looked = Analysis("lesion detection", "done", "", made.MODEL, looks_for="lung nodules")
    must, _, _ = sentences.for_page(Findings("p", "1", (looked,)), ())
    assert must == ["Lesion detection found nothing. It looks only for lung nodules, and misses some of them."]
    failed = replace(looked, outcome="failed", reason="no memory")
    assert not any(
        "found nothing" in text for part in sentences.for_page(Findings("p", "1", (failed,)), ()) for text in part
    )


def test_many_lesions_push_nothing_off_a_page_that_was_not_done(tmp_path: Path) -> None:
    volume = read_volume(made.ct_series(tmp_path))
    findings = replace(made.findings(volume), lesions=tuple(made.lesion(volume) for _ in range(40)))
    must, _, rest = sentences.for_page(findings, ())
    assert must[0] == "40 possible lesions are marked: the first 6 here, all in the report."
    assert [text.split(":")[0] for text in must[1:7]] == [f"Lesion {number}" for number in range(1, 7)]
    assert must[7].startswith("Lesion detection not done")
    assert sum(text.startswith("Lesion ") and " mm, " in text for text in rest) == 34


def test_cautions_of_a_series_come_before_its_numbers(ct_run: Any) -> None:
    findings = replace(ct_run.findings, notes=("Read the original images",))
    said = sentences.of_series(_entry(findings=findings), ())
    assert said.count("Read the original images.") == 1
    caution, noise = (
        next(k for k, text in enumerate(said) if text.startswith(word)) for word in ("Read", "Image noise")
    )
    assert caution < noise


def test_what_is_not_in_service_is_no_failure_and_no_search_that_found_nothing() -> None:
    off = _entry(outcome="withheld", reason="The analysis low_dose_ct is switched off by this site: new kernel.")
    concluded = sentences.conclusion(StudyEntry((off, replace(off, series_instance_uid="1.3"))))
    assert concluded == [off.reason, "This report says nothing about findings."]
    assert sentences.is_warning(concluded[0])
    assert sentences.of_series(off, ())[0].endswith(f"Not reported. {off.reason}")
    search = Findings("p", "1", (Analysis("lesion detection", "done", looks_for="nodules"),))
    beside = StudyEntry((replace(off, number=9), _entry(findings=search)))
    assert any("found nothing in series 3" in sentence for sentence in sentences.conclusion(beside))

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate import made
from gate.files import items, name
from gate.gate import complaints
from models.contract import Analysis, Findings, Measurement, Score
from node.dicom.read import read_volume
from node.dicom.write import SeriesEntry, SeriesSource, StudyEntry, write_report
from node.dicom.write.report import completion, incomplete, outcome
from node.errors import AnalysisFailed


def _texts(ds: Any) -> list[str]:
    return [str(item.TextValue) for item in items(ds) if item.get("ValueType") == "TEXT"]


def _not_eligible(source: SeriesSource, **changes: Any) -> SeriesEntry:
    return replace(made.entry(source, None), **changes)


def test_alternatives_stand_in_one_group_from_most_to_least_structured(ct_run: Any) -> None:
    assert [(r.kind, r.fallback, r.group) for r in ct_run.reports] == [
        ("sr", 0, "report"),
        ("sr", 1, "report"),
        ("sr-text", 2, "report"),
        ("sc", 3, "report"),
    ]
    classes = [result.sop_class_uid.rsplit(".", 1)[1] for result in ct_run.reports]
    assert classes == ["34", "33", "11", "7"]


def test_a_study_without_eligible_series_gets_a_report_too(tmp_path: Path, read_back: Any) -> None:
    paths = made.ct_series(tmp_path / "in", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    source = SeriesSource.load(paths)
    reports = write_report(made.study(_not_eligible(source)), {source.series_instance_uid: source}, made.stamp())
    assert complaints(made.keep(tmp_path / "out", reports), paths) == []
    texts = _texts(read_back(reports[0]))
    assert any("Not processed. Localiser only." in text for text in texts)
    assert any("Not looked for disease" in text for text in texts)
    codes = [i.ConceptCodeSequence[0].CodeValue for i in items(read_back(reports[0])) if i.get("ValueType") == "CODE"]
    assert not any(code.startswith("1112") for code in codes)


def test_a_study_without_any_image_gets_a_valid_report(tmp_path: Path, read_back: Any) -> None:
    header = SeriesSource.load(made.ct_series(tmp_path / "in", slices=1)).first
    for keyword in ("Rows", "Columns"):
        delattr(header, keyword)
    source = SeriesSource({str(header.SOPInstanceUID): header})
    reports = write_report(made.study(_not_eligible(source)), {source.series_instance_uid: source}, made.stamp())
    paths = made.keep(tmp_path / "out", reports)
    sources = sorted((tmp_path / "in").iterdir())
    assert complaints(paths, sources, checks=("iod", "srtree", "tid1500", "strict", "hdread", "refs", "codes")) == []
    assert not [i for i in items(read_back(reports[0])) if i.get("ValueType") in ("NUM", "IMAGE", "SCOORD")]


def test_findings_without_arrays_are_enough(ct_run: Any, read_back: Any) -> None:
    empty = replace(
        ct_run.findings,
        images=tuple(replace(i, array=np.zeros((0, 0, 0), np.float32)) for i in ct_run.findings.images),
        lesions=tuple(replace(lesion, mask=np.zeros((0, 0, 0), np.bool_)) for lesion in ct_run.findings.lesions),
    )
    entry = made.entry(ct_run.source, empty, ct_run.grid, [image.ref for image in ct_run.images])
    reports = write_report(made.study(entry), {ct_run.source.series_instance_uid: ct_run.source}, ct_run.stamp)
    assert [r.data for r in reports] == [r.data for r in ct_run.reports]


def test_lesions_are_drawn_half_a_pixel_on_and_keep_their_name(ct_run: Any, read_back: Any) -> None:
    ds = read_back(ct_run.reports[0])
    lines = [i for i in items(ds) if i.get("ValueType") == "SCOORD" and len(i.GraphicData) == 4]
    lesion = ct_run.findings.lesions[0]
    (x0, y0), (x1, y1) = lesion.long_axis_px
    assert list(lines[0].GraphicData) == [x0 + 0.5, y0 + 0.5, x1 + 0.5, y1 + 0.5]
    assert {"Lesion 1", "Lesion 2"} <= set(_texts(ds))
    names = {text for text in _texts(ds) if "Bidirectional" in text}
    assert names == {f"Cornerstone3DTools@^0.1.0:Bidirectional:Lesion {n}" for n in (1, 2)}
    lesion_image = lines[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert lesion_image == ct_run.grid.sources[lesion.slice_index].instance_uid


def test_lesions_of_several_series_have_names_of_their_own(ct_run: Any, read_back: Any, tmp_path: Path) -> None:
    """Each series has a first lesion, and viewers list those of all series together."""
    series = made.process(made.ct_series(tmp_path, series=5), lesions=1)
    entries = [made.entry(run.source, run.findings, run.grid, [i.ref for i in run.images]) for run in (ct_run, series)]
    sources = {run.source.series_instance_uid: run.source for run in (ct_run, series)}
    texts = _texts(read_back(write_report(made.study(*entries), sources, ct_run.stamp)[0]))
    names = {text.rpartition(":")[2] for text in texts if "Bidirectional" in text}
    assert names == {"Lesion 1 of series 3", "Lesion 2 of series 3", "Lesion 1 of series 5"}
    assert names <= set(texts)


def test_numbers_are_those_of_the_sentences(ct_run: Any, read_back: Any) -> None:
    lesion = replace(
        ct_run.findings.lesions[0], long_axis_mm=8.1432, short_axis_mm=0.0421, volume_mm3=1234.56, score=0.905
    )
    measured = Measurement(made.NOISE, 25.664, made.HU, "", "input")
    score = Score(made.QUALITY, 3.4143, (0.0, 4.0), made.MODEL)
    findings = replace(ct_run.findings, lesions=(lesion,), measurements=(measured,), scores=(score,))
    entry = made.entry(ct_run.source, findings, ct_run.grid, [image.ref for image in ct_run.images])
    sources = {ct_run.source.series_instance_uid: ct_run.source}
    tree = items(read_back(write_report(made.study(entry), sources, ct_run.stamp)[0]))
    said = [float(i.MeasuredValueSequence[0].NumericValue) for i in tree if i.get("ValueType") == "NUM"]
    assert said == [8.1, 0.0421, 91, 1230, 25.7, 3.4]


def test_pages_are_of_no_modality(ct_run: Any, read_back: Any) -> None:
    """CID 29, from which a modality in the image library must be, knows no "Other"."""
    library = next(i for i in items(read_back(ct_run.reports[0])) if name(i) == "Image Library")
    said = [
        [i.ConceptCodeSequence[0].CodeValue for i in g.ContentSequence if name(i) == "Modality"]
        for g in library.ContentSequence
    ]
    assert said == [[], ["CT"]]


def test_tracking_uids_are_the_same_in_both_groups_the_segmentation_and_the_next_revision(
    ct_run: Any, read_back: Any, run_of: Any
) -> None:
    def tracked(run: Any) -> set[str]:
        report = read_back(run.reports[0])
        return {str(i.UID) for i in items(report) if i.get("ValueType") == "UIDREF" and "Tracking" in str(i)}

    segmentation = next(read_back(r) for r in ct_run.images if r.kind == "seg")
    assert {str(s.TrackingUID) for s in segmentation.SegmentSequence} <= tracked(ct_run)
    later = run_of(ct_run.paths, lesions=2, stamp=made.stamp(revision=2, replaces=1, new_images=3))
    assert tracked(later) == tracked(ct_run)


def test_a_later_revision_says_what_it_replaces(ct_run: Any, read_back: Any, run_of: Any) -> None:
    earlier = tuple(report.ref for report in ct_run.reports[:1])
    stamp = made.stamp(revision=2, replaces=1, new_images=3, predecessors=earlier)
    ds = read_back(run_of(ct_run.paths, stamp=stamp).reports[0])
    assert any("replaces revision 1 because 3 more images arrived" in text for text in _texts(ds))
    series = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ct_run.reports[0].sop_instance_uid
    assert ds.SeriesDescription.startswith("AI report (rev 2)")


def test_a_report_with_other_content_has_another_uid(ct_run: Any) -> None:
    entry = made.entry(ct_run.source, ct_run.findings, ct_run.grid)
    sources = {ct_run.source.series_instance_uid: ct_run.source}
    one = write_report(made.study(entry), sources, ct_run.stamp)
    other = write_report(made.study(entry, notes=["An analysis was run again."]), sources, ct_run.stamp)
    assert not {r.sop_instance_uid for r in one} & {r.sop_instance_uid for r in other}


def test_evidence_names_all_images_analysed_and_all_results(ct_run: Any, read_back: Any) -> None:
    ds = read_back(ct_run.reports[0])
    listed = {
        str(ref.ReferencedSOPInstanceUID)
        for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for ref in series.ReferencedSOPSequence
    }
    made = {r.sop_instance_uid for r in ct_run.images if r.kind != "gsps"}  # a peer gets these only if it asks
    assert listed == {s.instance_uid for s in ct_run.grid.sources} | made


def test_a_failure_is_said_in_words_and_by_code(ct_run: Any, read_back: Any, tmp_path: Path) -> None:
    failed = replace(made.entry(ct_run.source, None), outcome="failed", reason="not enough memory for the network")
    reports = write_report(made.study(failed), {ct_run.source.series_instance_uid: ct_run.source}, ct_run.stamp)
    ds = read_back(reports[0])
    assert any("AI processing failed. Not enough memory for the network." in text for text in _texts(ds))
    assert ds.CompletionFlag == "PARTIAL"
    codes = {i.ConceptCodeSequence[0].CodeValue for i in items(ds) if i.get("ValueType") == "CODE"}
    assert "111245" in codes
    assert complaints(made.keep(tmp_path, reports), ct_run.paths) == []


def test_a_partial_report_says_why(ct_run: Any, read_back: Any) -> None:
    for result in ct_run.reports[:3]:
        ds = read_back(result)
        assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", "lesion detection not done")
    done = replace(ct_run.findings, analyses=ct_run.findings.analyses[:1])
    assert incomplete(made.study(made.entry(ct_run.source, done, ct_run.grid))) == ""
    lost = replace(made.study(made.entry(ct_run.source, done, ct_run.grid)), missing="Not looked at again.")
    assert incomplete(lost) == "images are no longer held"


def test_device_observes_and_nobody_has_verified(ct_run: Any, read_back: Any) -> None:
    for result in ct_run.reports[:3]:
        ds = read_back(result)
        assert ds.VerificationFlag == "UNVERIFIED"
        assert "VerifyingObserverSequence" not in ds
        assert not [i for i in items(ds) if i.get("ValueType") == "PNAME"]
        assert ds.TimezoneOffsetFromUTC == "+0100"
        assert (ds.ContentDate, ds.ContentTime) == ("20261120", "123456.123456")


def test_weights_of_the_network_stand_in_the_report(ct_run: Any, read_back: Any) -> None:
    assert any("ab" * 32 in text for text in _texts(read_back(ct_run.reports[0])))


@pytest.mark.parametrize("index", [0, 2])
def test_the_plain_text_report_says_every_sentence_of_the_structured_one(
    index: int, ct_run: Any, read_back: Any
) -> None:
    said = set(_texts(read_back(ct_run.reports[index])))
    assert any(text.startswith("AI denoising done.") for text in said)
    assert any(text.startswith("Lesion detection not done. No trained weights") for text in said)
    assert any(text.startswith("Image noise: 17.2 HU (as received), 8.1 HU (denoised).") for text in said)
    assert any(
        text.startswith('Series 3 "CT Thorax 2.5 B40f" (CT, 5 images, axial chest): processed.') for text in said
    )


def test_names_in_other_letters_survive(run_of: Any, read_back: Any, tmp_path: Path) -> None:
    paths = made.ct_series(
        tmp_path, SpecificCharacterSet="ISO_IR 192", PatientName="Иванов^Пётр", SeriesDescription="Грудь 2.5"
    )
    for result in run_of(paths).results:
        ds = read_back(result)
        assert str(ds.PatientName) == "Иванов^Пётр"
        assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert any("Грудь 2.5" in text for text in _texts(read_back(run_of(paths).reports[0])))


def _study(*outcomes: Any, failed: bool = False, lesions: Any = ()) -> StudyEntry:
    """Outcomes of searches, and of others where "other: " stands before them."""
    analyses = [
        Analysis("a", each.removeprefix("other: "), "why", looks_for="" if each.startswith("other: ") else "nodules")
        for each in outcomes
    ]
    findings = Findings("p", "1", tuple(analyses), lesions=tuple(lesions))
    entry = SeriesEntry("1.2", 1, "", "CT", 1, "", "failed" if failed else "processed", "", findings)
    return StudyEntry((entry,))


@pytest.mark.parametrize(
    ("outcomes", "failed", "code", "flag"),
    [
        (("done",), False, "111241", "COMPLETE"),
        (("done", "other: not done"), False, "111241", "PARTIAL"),
        (("done", "other: withheld"), False, "111243", "PARTIAL"),
        (("done",), True, "111243", "PARTIAL"),
        (("failed",), True, "111245", "PARTIAL"),
        (("failed", "other: done"), False, "111245", "PARTIAL"),
        (("other: failed",), False, "111245", "PARTIAL"),
        (("other: done",), False, None, "COMPLETE"),
        (("other: done", "not done"), False, None, "PARTIAL"),
        (("other: done", "other: withheld"), False, None, "PARTIAL"),
        ((), False, None, "COMPLETE"),
    ],
)
def test_outcome_code_and_completion_flag_are_honest(
    outcomes: tuple[Any, ...], failed: bool, code: str | None, flag: str
) -> None:
    study = _study(*outcomes, failed=failed)
    found = outcome(study)
    assert (None if found is None else found[0]) == code
    assert completion(study) == flag


def test_outcome_with_findings(ct_run: Any) -> None:
    study = _study("done", lesions=ct_run.findings.lesions)
    assert outcome(study) == ("111242", "DCM", "All algorithms succeeded; with findings")


def test_refuses_a_study_without_headers() -> None:
    with pytest.raises(AnalysisFailed, match="headers"):
        write_report(_study("done"), {}, made.stamp())


def test_refuses_a_reference_to_an_object_of_nobody(ct_run: Any, tmp_path: Path) -> None:
    paths = made.ct_series(tmp_path, series=5)
    volume = read_volume(paths)
    entry = made.entry(ct_run.source, ct_run.findings, volume)
    with pytest.raises(AnalysisFailed):
        write_report(made.study(entry), {ct_run.source.series_instance_uid: ct_run.source}, ct_run.stamp)

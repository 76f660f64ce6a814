from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from node.cli import words
from node.db import views, work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import DeliveryRow, JobRow, RevisionRow, RouteRow, StudyRow
from node.jobs.site import apply_site
from node.settings import Switch
from seeded.rows import DELIVERED, INCOMPLETE, REFUSAL, RUNNING, SITE

pytestmark = pytest.mark.usefixtures("seeded")


def test_studies_are_a_table_with_state_progress_and_reason(run) -> None:
    result = run("studies")
    assert result.exit_code == 0
    rows = {uid: next(line for line in result.stdout.splitlines() if uid in line) for uid in (RUNNING, INCOMPLETE)}
    assert "planned (STAT)" in rows[RUNNING]
    assert "40 % analyse" in rows[RUNNING]
    assert REFUSAL in rows[INCOMPLETE]


def test_studies_are_json_for_scripts(run) -> None:
    found = json.loads(run("studies", "--state", "delivered", "--json").stdout)
    assert [(line["study_instance_uid"], line["delivered"]) for line in found] == [(DELIVERED, 3)]


def test_nothing_found_is_exit_code_1(run) -> None:
    assert run("studies", "nobody").exit_code == 1
    assert run("study", "9.9.9").exit_code == 1
    assert "no study 9.9.9" in run("study", "9.9.9").stderr


def test_a_study_is_one_timeline_with_durations(run) -> None:
    text = run("study", DELIVERED).stdout
    stations = ["received", "complete", "planned", "queued", "started", "step", "done", "reported", "sent", "committed"]
    places = [text.index(f"{station} ") for station in stations]
    assert places == sorted(places)
    assert "3 images, 2.9 KiB from CT1 (127.0.0.1), association released" in text
    assert "2 AXIAL (CT, 3 images, ct): analysed by low_dose_ct: Original CT images, axial." in text
    assert "2 SCOUT (CT, 3 images, localiser): not eligible: A localiser" in text
    assert "proof: storage commitment" in text
    assert "in reserve for peers that lack the class" in text
    assert "From the last image to the last proof: 47 s" in text
    assert "Chest [CT]" in text
    assert "1 objects came again with other bytes" in text


def test_a_running_job_shows_where_it_is(run) -> None:
    text = run("study", RUNNING).stdout
    assert "planned, STAT" in text
    assert "40 % analyse" in text


def test_a_dead_letter_shows_why(run) -> None:
    (report,) = [line for line in run("study", INCOMPLETE).stdout.splitlines() if "1 × sr AI report to PACS" in line]
    assert report.split()[0] == "dead"
    assert REFUSAL in report


def test_a_study_is_found_by_accession_number_and_ambiguity_is_said(run) -> None:
    assert json.loads(run("study", "ACC2", "--json").stdout)["study_instance_uid"] == RUNNING
    several = run("study", "1.2.3")
    assert several.exit_code == 1
    assert DELIVERED in several.stderr


def test_a_state_that_there_is_not_is_said_with_those_there_are(run) -> None:
    result = run("studies", "--state", "incomplet")
    assert result.exit_code == 2
    assert "delivered, incomplete" in " ".join(result.stderr.replace("│", " ").split())


def test_resend_brings_dead_letters_back(run, seeded: Database) -> None:
    result = run("resend", INCOMPLETE)
    assert (result.exit_code, "3 results will be sent again" in result.stdout) == (0, True)
    again = run("resend", "--all")
    assert (again.exit_code, "no dead letter" in again.stdout) == (1, True)
    assert "delivery.resent" in run("audit", "--action", "delivery").stdout


def test_resend_wants_to_know_what(run) -> None:
    result = run("resend")
    assert result.exit_code == 2
    assert "--all" in result.stderr


def test_what_went_nowhere_is_not_called_delivered(run, seeded: Database) -> None:
    with seeded.write() as session:
        revision = session.query(RevisionRow).filter_by(study_instance_uid=DELIVERED).one()
        session.query(DeliveryRow).filter_by(revision_id=revision.id).delete()
        revision.state, revision.delivered_at = "unsent", None
        session.query(RouteRow).delete()
    (listed,) = [row for row in run("studies").stdout.splitlines() if DELIVERED in row]
    assert "unsent" in listed
    assert "its results went nowhere: no route of CT1 to a peer that takes any" in listed
    assert json.loads(run("studies", "--state", "unsent", "--json").stdout)[0]["study_instance_uid"] == DELIVERED
    told = run("study", DELIVERED).stdout
    assert "unsent" in told
    assert "delivered" not in told
    assert "last proof" not in told
    assert json.loads(run("study", DELIVERED, "--json").stdout)["revisions"][0]["state"] == "unsent"
    refused = run("resend", DELIVERED)
    assert (refused.exit_code, "still no route" in refused.stderr) == (1, True)


def test_resend_sends_what_went_nowhere_by_the_routes_of_today(run, seeded: Database) -> None:
    with seeded.write() as session:
        revision = session.query(RevisionRow).filter_by(study_instance_uid=DELIVERED).one()
        session.query(DeliveryRow).filter_by(revision_id=revision.id).delete()
        revision.state, revision.delivered_at = "unsent", None
    assert run("resend", "--to", "PACS").exit_code == 0  # dead letters alone
    result = run("resend", DELIVERED)
    assert (result.exit_code, "results that went nowhere will be sent" in result.stdout) == (0, True)


def test_of_an_incomplete_study_no_last_proof_is_told(run) -> None:
    told = run("study", INCOMPLETE).stdout
    assert "incomplete" in told
    assert "last proof" not in told


@pytest.fixture
def failed(seeded: Database) -> str:
    """The series whose analysis failed in the incomplete study."""
    with seeded.write() as session:
        job = session.query(JobRow).join(RevisionRow).filter_by(study_instance_uid=INCOMPLETE).one()
        job.state = JobState.FAILED
        return job.series_instance_uid


def test_retry_runs_again_what_failed_and_the_trail_names_who_asked(run, failed: str) -> None:
    result = run("retry", INCOMPLETE)
    assert result.exit_code == 0
    assert "its report will replace that of revision 1" in result.stdout
    assert f"queued in revision 2: low_dose_ct of series {failed}" in result.stdout
    (event,) = json.loads(run("audit", "--action", "job.requeued", "--json").stdout)
    assert event["actor"] == words.person()
    again = run("retry", INCOMPLETE)
    assert (again.exit_code, "not planned yet" in again.stderr) == (1, True)
    assert f"left: low_dose_ct of series {failed} of revision 1: the next revision analyses it again" in again.stdout
    assert f"left: dead letters of revision 1 that still stand: 3; pacsnode resend {INCOMPLETE}" in again.stdout


def test_retry_is_json_for_scripts(run, failed: str) -> None:
    found = json.loads(run("retry", INCOMPLETE, "--json").stdout)
    assert found["queued"][0] == {"pipeline": "low_dose_ct", "series_instance_uid": failed, "revision": 2}
    nothing = run("retry", "9.9", "--json")
    assert (nothing.exit_code, json.loads(nothing.stdout)["queued"]) == (1, [])


@pytest.mark.parametrize("patient", ["AB\\[/12]", "a\\[red]b", "x\\", "[/]"])
def test_a_patient_id_that_looks_like_markup_does_not_break_the_list(run, seeded: Database, patient: str) -> None:
    with seeded.write() as session:
        session.get_one(StudyRow, DELIVERED).patient_id = patient
    result = run("studies")
    assert result.exit_code == 0
    assert f" {patient} " in next(line for line in result.stdout.splitlines() if DELIVERED in line)


def test_a_home_without_a_node_is_said_with_its_remedy(run, home: Path) -> None:
    (home / "node.sqlite").unlink()
    for command in (["studies"], ["study", "1"], ["audit"], ["peers", "list"], ["resend", "--all"], ["retry", "1"]):
        result = run(*command)
        assert result.exit_code == 2
        assert "holds no database of a node" in result.stderr
    assert not (home / "node.sqlite").exists()


def test_a_list_that_is_cut_says_so_and_how_to_see_the_rest(run, seeded: Database) -> None:
    whole = run("studies")
    assert "there are more" not in whole.stderr
    cut = run("studies", "--limit", "2", "--json")
    assert len(json.loads(cut.stdout)) == 2
    assert "these are the newest 2, and there are more: give --limit 20" in cut.stderr


def test_what_check_counts_as_failed_is_listed(run, seeded: Database) -> None:
    with seeded.read() as session:
        failed = views.failures(session).studies
    assert failed
    found = json.loads(run("studies", "--failed", "--json").stdout)
    assert {line["study_instance_uid"] for line in found} == failed


def test_of_many_studies_that_may_be_meant_the_first_are_named(run, seeded: Database, monkeypatch) -> None:
    monkeypatch.setattr("node.cli.studies._MOST_NAMED", 2)
    told = run("study", "1.").stderr
    assert "may be any of" in told
    assert "and more: pacsnode studies 1." in told


def test_who_looks_at_studies_is_in_the_trail(run, seeded: Database) -> None:
    for _ in range(3):
        run("study", DELIVERED)
        run("studies", "--state", "delivered")
    run("studies", DELIVERED)
    events = json.loads(run("audit", "--json").stdout)
    looks = [one for one in events if one["action"] in ("study.viewed", "studies.listed")]
    assert [(one["action"], one["study_instance_uid"]) for one in looks] == [
        ("study.viewed", DELIVERED),
        ("studies.listed", DELIVERED),
        ("studies.listed", DELIVERED),
    ]
    assert all(one["patient_id"] and one["actor"] == words.person() for one in looks)
    assert looks[1]["detail"]["question"] == {"state": "delivered", "limit": 50}


def test_what_cannot_be_recorded_names_no_patient(run, seeded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.jobs.viewing.note", lambda *_given, **_more: False)
    with seeded.read() as session:
        patients = set(session.scalars(select(StudyRow.patient_id)))
    for asked in (("studies",), ("studies", "--json"), ("study", DELIVERED), ("study", DELIVERED, "--json")):
        shown = run(*asked)
        assert shown.exit_code == 0
        assert DELIVERED in shown.stdout
        assert not [one for one in patients if one in shown.stdout]
        assert "the audit trail cannot be written now" in shown.stderr


def test_what_a_trial_found_is_shown_here_and_done_again_once_it_is_on(run, seeded: Database) -> None:
    found = {"findings": {"analyses": [{"name": "Lesion detection", "outcome": "done"}], "lesions": [{"score": 0.873}]}}
    with seeded.write() as session:
        revision = session.scalars(select(RevisionRow).filter_by(study_instance_uid=DELIVERED)).one()
        (job,) = revision.jobs
        job.outcome, job.reason = "on trial", "not shown"
        revision.selection = [{**revision.selection[0], "withheld": "not shown"}]
        work.add_finding(session, job.id, found)
    shown = " ".join(run("study", DELIVERED).stdout.split())
    assert "left out of the report: not shown" in shown
    assert "Lesion detection done; possible lesions: 1 (scores 0.87)" in shown
    assert "on trial: sent to nobody, kept in archive/results" in shown
    (line,) = json.loads(run("study", DELIVERED, "--json").stdout)["revisions"][0]["jobs"]
    assert line["kept"] == found
    trial = Switch(name="low_dose_ct", state="shadow", reason="new version")
    apply_site(seeded, SITE.model_copy(update={"switches": (trial,)}), actor="test")
    refused = run("retry", "--withheld")
    assert refused.exit_code == 1
    assert "low_dose_ct is not in service: left as they are: 1 studies" in refused.stderr
    apply_site(seeded, SITE, actor="test")
    assert f"{DELIVERED}: revision 2 is opened" in run("retry", "--withheld").stdout
    assert run("retry").exit_code == 2

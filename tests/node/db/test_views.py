from __future__ import annotations

import datetime as dt

import pytest

from node.db import receiving, views
from node.db.lifecycle import DeliveryState, JobState, RevisionState
from node.db.session import Database
from node.db.tables import DeliveryRow, JobRow, RevisionRow
from node.db.views import Failures, Overdue, Stage, StudyLine
from node.jobs.site import apply_site
from node.settings import Site
from seeded.rows import DELIVERED, INCOMPLETE, RECEIVING, REFUSAL, RUNNING, SITE, after, seed


@pytest.fixture
def seeded(database: Database) -> Database:
    seed(database)
    return database


def lines(database: Database, **asked: str) -> dict[str, StudyLine]:
    with database.read() as session:
        return {line.study_instance_uid: line for line in views.studies(session, **asked)}


def test_lists_the_newest_study_first(seeded: Database) -> None:
    assert list(lines(seeded)) == [RECEIVING, INCOMPLETE, RUNNING, DELIVERED]


def test_a_line_says_how_far_a_study_is(seeded: Database) -> None:
    found = lines(seeded)
    assert (found[RUNNING].state, found[RUNNING].progress, found[RUNNING].step) == ("planned", 0.4, "analyse")
    assert found[RUNNING].urgent
    assert (found[DELIVERED].delivered, found[DELIVERED].deliveries) == (3, 3)
    assert (found[RECEIVING].state, found[RECEIVING].images, found[RECEIVING].progress) == ("receiving", 2, 0.0)


def test_a_line_gives_the_reason_that_somebody_must_act_on(seeded: Database) -> None:
    found = lines(seeded)
    assert found[INCOMPLETE].reason == REFUSAL
    assert found[RUNNING].reason == "A localiser (scout, topogram), not a cross-section."
    assert found[RECEIVING].reason == ""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"state": "incomplete"}, [INCOMPLETE]),
        ({"search": "P-2"}, [RUNNING]),
        ({"search": "ACC1"}, [DELIVERED]),
        ({"search": "2.3.4"}, [RECEIVING]),
        ({"search": "P-"}, []),
        ({"search": "%"}, []),
    ],
)
def test_finds_by_state_patient_accession_and_part_of_the_uid(
    seeded: Database, asked: dict[str, str], expected: list[str]
) -> None:
    assert list(lines(seeded, **asked)) == expected


def test_a_whole_uid_means_itself_even_where_it_is_part_of_another(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.find_studies(session, DELIVERED) == [DELIVERED]
        assert sorted(views.find_studies(session, "1.2.3")) == [DELIVERED, RUNNING, INCOMPLETE, RECEIVING]
        assert views.find_studies(session, "9.9") == []


def test_names_the_series_that_a_derived_one_was_made_from(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.derived_series(session, "CT") == {f"{uid}.8": f"{uid}.1" for uid in (DELIVERED, INCOMPLETE)}
        assert views.derived_series(session, "DX") == {}


def overdue(database: Database, before: dt.datetime) -> dict[Stage, Overdue]:
    with database.read() as session:
        return {one.stage: one for one in views.overdue(session, before=before)}


def test_a_study_is_overdue_from_when_its_peer_s_rule_would_close_it(seeded: Database) -> None:
    assert Stage.CLOSE not in overdue(seeded, after(332))
    assert overdue(seeded, after(332.1))[Stage.CLOSE] == Overdue(Stage.CLOSE, 1, after(332))
    slow = SITE.model_dump(mode="json", by_alias=True)
    slow["peer"][0]["completion"] = {"quiet_s": 600, "deadline_s": 400}
    apply_site(seeded, Site.model_validate(slow), actor="test")
    assert overdue(seeded, after(701))[Stage.CLOSE].since == after(700)


def test_each_stage_is_overdue_from_when_its_oldest_work_was_due(seeded: Database) -> None:
    with seeded.write() as session:
        planned = session.query(RevisionRow).filter_by(study_instance_uid=RUNNING).one()
        for number, at in ((1, 500), (2, 400)):
            series = f"{RUNNING}.7.{number}"
            session.add(
                JobRow(revision_id=planned.id, pipeline="low_dose_ct", series_instance_uid=series, queued_at=after(at))
            )
        closed = receiving.open_revision(session, DELIVERED, source_aet="CT1", urgent=False, at=after(600))
        receiving.close_revision(session, closed, at=after(601), because="test")
        dead = session.query(DeliveryRow).filter_by(state=DeliveryState.DEAD).first()
        dead.state = DeliveryState.SENT
    found = overdue(seeded, after(1000))
    assert {stage: (one.count, one.since) for stage, one in found.items()} == {
        Stage.CLOSE: (1, after(332)),
        Stage.PLAN: (1, after(601)),
        Stage.RUN: (2, after(400)),
        Stage.TAKE_BACK: (1, after(260)),
        Stage.DELIVER: (1, after(251)),
    }
    assert overdue(seeded, after(250)) == {}
    assert "jobs to be run: 2, the oldest due since 2026-01-15 07:16 UTC" in str(found[Stage.RUN])


def failures(database: Database) -> Failures:
    with database.read() as session:
        return views.failures(session)


def fail(database: Database, uid: str, *pipelines: str) -> None:
    """In the newest revision of the study."""
    with database.write() as session:
        revision = session.query(RevisionRow).filter_by(study_instance_uid=uid).one()
        for number, pipeline in enumerate(pipelines):
            session.add(
                JobRow(
                    revision_id=revision.id,
                    pipeline=pipeline,
                    series_instance_uid=f"1.9.{number}",
                    state=JobState.FAILED,
                    queued_at=after(500),
                )
            )


def replan(database: Database, uid: str, *, refers_to: bool) -> None:
    """A newer revision comes, and its plan takes the first analysis of the older one over, or not."""
    with database.write() as session:
        newer = receiving.open_revision(session, uid, source_aet="CT1", urgent=False, at=after(600))
        job = session.query(JobRow).join(RevisionRow).filter_by(study_instance_uid=uid).order_by(JobRow.id).first()
        newer.selection = [{"job_id": job.id if refers_to else None}]
        newer.state, newer.planned_at = RevisionState.PLANNED, after(610)


def test_what_failed_is_told_by_study(seeded: Database) -> None:
    fail(seeded, RUNNING, "low_dose_ct", "low_dose_ct", "report")
    assert failures(seeded) == Failures([RUNNING], [RUNNING], {"PACS": {INCOMPLETE: 3}})


def test_what_failed_stands_while_a_newer_revision_is_not_planned(seeded: Database) -> None:
    fail(seeded, RUNNING, "low_dose_ct", "report")
    found = failures(seeded)
    with seeded.write() as session:
        for uid in (RUNNING, INCOMPLETE):
            receiving.open_revision(session, uid, source_aet="CT1", urgent=False, at=after(600))
    assert failures(seeded) == found


def test_what_a_newer_plan_does_not_refer_to_is_replaced(seeded: Database) -> None:
    fail(seeded, INCOMPLETE, "low_dose_ct", "report")
    replan(seeded, INCOMPLETE, refers_to=False)
    assert failures(seeded) == Failures([], [], {})


def test_what_a_newer_plan_refers_to_still_stands(seeded: Database) -> None:
    """An unsent report of results that are not made again, and the results that a peer refused."""
    fail(seeded, INCOMPLETE, "low_dose_ct", "report")
    replan(seeded, INCOMPLETE, refers_to=True)
    assert failures(seeded) == Failures([INCOMPLETE], [], {"PACS": {INCOMPLETE: 3}})


def test_a_dead_letter_that_a_peer_is_no_longer_to_be_given_is_not_missed(seeded: Database) -> None:
    fewer = SITE.model_dump(mode="json", by_alias=True)
    fewer["peer"][1]["takes"] = ["sr"]
    apply_site(seeded, Site.model_validate(fewer), actor="test")
    assert failures(seeded).dead_letters == {"PACS": {INCOMPLETE: 1}}
    del fewer["peer"][1]
    apply_site(seeded, Site.model_validate({"peer": fewer["peer"]}), actor="test")
    assert failures(seeded).dead_letters == {}

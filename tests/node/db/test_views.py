from __future__ import annotations

import pytest

from node.db import views
from node.db.session import Database
from node.db.views import StudyLine
from seeded.rows import DELIVERED, INCOMPLETE, RECEIVING, REFUSAL, RUNNING, after, seed


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


def test_a_timeline_has_every_station_of_a_delivered_study(seeded: Database) -> None:
    with seeded.read() as session:
        found = views.timeline(session, DELIVERED)
    assert found is not None
    assert (found.conflicts, found.own_results_back) == (1, 0)
    (revision,) = found.revisions
    (association,) = revision.associations
    assert (association.calling_aet, association.images, association.bytes) == ("CT1", 3, 3000)
    assert (association.first_image_at, association.last_image_at) == (after(1), after(3))
    assert revision.completed_because == "no new image for 30 s"
    assert [series["decision"] for series in revision.selection] == ["analysed", "not eligible"]
    (job,) = revision.jobs
    assert [step["name"] for step in job.steps] == ["read", "analyse"]
    assert (job.started_at, job.ended_at, job.worker) == (after(36), after(46), "infer@test:7")


def test_results_and_deliveries_of_one_kind_are_one_line(seeded: Database) -> None:
    with seeded.read() as session:
        found = views.timeline(session, DELIVERED)
    assert found is not None
    results = {(r.kind, r.fallback): (r.objects, r.bytes) for r in found.revisions[0].results}
    assert results == {("derived", 0): (2, 4096), ("sr", 0): (1, 2048), ("sr-text", 1): (1, 2048)}
    sent = {d.kind: (d.objects, d.state, d.proof, d.sent_at, d.committed_at) for d in found.revisions[0].deliveries}
    assert sent == {
        "derived": (2, "committed", "storage commitment", after(48), after(50)),
        "sr": (1, "committed", "storage commitment", after(48), after(50)),
    }


def test_a_study_that_was_never_received_has_no_timeline(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.timeline(session, "9.9.9") is None


def test_names_the_series_that_a_derived_one_was_made_from(seeded: Database) -> None:
    with seeded.read() as session:
        assert views.derived_series(session, "CT") == {f"{uid}.8": f"{uid}.1" for uid in (DELIVERED, INCOMPLETE)}
        assert views.derived_series(session, "DX") == {}

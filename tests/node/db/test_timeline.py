from __future__ import annotations

import pytest

from node.db.session import Database
from node.db.timeline import timeline
from seeded.rows import DELIVERED, after, seed


@pytest.fixture
def seeded(database: Database) -> Database:
    seed(database)
    return database


def test_a_timeline_has_every_station_of_a_delivered_study(seeded: Database) -> None:
    with seeded.read() as session:
        found = timeline(session, DELIVERED)
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
        found = timeline(session, DELIVERED)
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
        assert timeline(session, "9.9.9") is None

from __future__ import annotations

import datetime as dt

from sqlalchemy import update

from node.archive import Archive
from node.db import migrate, receiving
from node.db.lifecycle import JobState, RevisionState
from node.db.tables import JobRow, RevisionRow
from node.jobs.site import apply_site
from node.settings import Switch
from node.web import health
from seeded.rows import RECEIVING, RUNNING, SITE


def readiness(site) -> tuple[int, dict[str, str]]:
    answer = site.client.get("/readyz")
    return answer.status_code, answer.json()["parts"]


def test_a_node_whose_parts_all_answer_is_ready(site) -> None:
    assert readiness(site) == (200, dict.fromkeys(("database", "broker", "receiver", "archive"), "ok"))


def test_an_analysis_that_is_not_in_service_is_named_without_its_reason_and_the_node_is_ready(site) -> None:
    off = Switch(name="low_dose_ct", state="off", reason="a reason of the house")
    apply_site(site.database, SITE.model_copy(update={"switches": (off,)}), actor="test")
    answer = site.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["analyses"]["low_dose_ct"].startswith("switched off since 20")
    assert "of the house" not in answer.text
    assert (
        'pacsnode_analysis_not_in_service{analysis="low_dose_ct",state="off"} 1.0' in site.client.get("/metrics").text
    )


def test_a_broker_that_is_away_is_named_without_its_address(site) -> None:
    site.broker_is_away.append(True)
    status, parts = readiness(site)
    assert (status, parts["broker"]) == (503, "does not answer (ConnectionError)")


def test_a_receiver_that_does_not_listen_is_named(site) -> None:
    site.receiver.close()
    status, parts = readiness(site)
    assert status == 503
    assert "does not answer" in parts["receiver"]


def test_a_database_of_another_release_is_named_with_its_remedy(site) -> None:
    migrate.downgrade(site.database, "base")
    status, parts = readiness(site)
    assert status == 503
    assert "pacsnode migrate" in parts["database"]


def test_an_archive_without_room_is_named(site) -> None:
    full = Archive(site.archive.root, watermark_percent=0.0001)
    assert "full" in (health._archive(full) or "")
    gone = Archive(site.archive.root / "gone")
    assert "cannot be looked at" in (health._archive(gone) or "")


def work(site) -> tuple[int, dict[str, str]]:
    answer = site.client.get("/workz")
    return answer.status_code, answer.json()["found"]


def catch_up(site, now: dt.datetime) -> None:
    """As if the seeded studies of long ago had come in just now."""
    with site.database.write() as session:
        session.execute(update(JobRow).values(lease_until=now, queued_at=now))
        session.execute(update(RevisionRow).values(first_image_at=now, last_image_at=now))


def test_work_that_gets_done_in_time_is_in_order(site) -> None:
    catch_up(site, dt.datetime.now(dt.UTC))
    assert work(site) == (200, {})


def test_work_that_stands_still_is_said_but_the_node_goes_on_taking_studies(site) -> None:
    status, found = work(site)
    assert status == 503
    assert set(found) == {"close", "take_back"}
    assert "2026-01-15" in found["close"]
    assert RECEIVING not in str(found)
    assert readiness(site)[0] == 200, "what is sent is kept all the same: turning it away would lose it"


def test_a_report_that_failed_for_good_is_said_until_it_is_mended(site) -> None:
    now = dt.datetime.now(dt.UTC)
    catch_up(site, now)
    with site.database.write() as session:
        revision = session.query(RevisionRow).filter_by(study_instance_uid=RUNNING).one()
        session.add(JobRow(revision_id=revision.id, pipeline="report", state=JobState.FAILED, queued_at=now))
    assert work(site) == (503, {"report": "studies whose report failed: 1 (see `pacsnode check`)"})
    with site.database.write() as session:
        newer = receiving.open_revision(session, RUNNING, source_aet="CT1", urgent=False, at=now)
        newer.state, newer.planned_at = RevisionState.DELIVERED, now
    assert work(site)[0] == 200


def test_work_without_a_usable_database_is_said(site) -> None:
    migrate.downgrade(site.database, "base")
    assert "pacsnode migrate" in work(site)[1]["database"]

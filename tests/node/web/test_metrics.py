from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from node.db import migrate
from node.db.tables import AssociationRow
from node.jobs.purge import Retention, Rules
from seeded.rows import DELIVERED, after


def scrape(site) -> dict[tuple[str, ...], float]:
    answer = site.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_say_what_the_database_says(site) -> None:
    found = scrape(site)
    expected = {
        ("pacsnode_associations_total", "released"): 4,
        ("pacsnode_objects_received_total",): 10,
        ("pacsnode_objects_conflicting_total",): 1,
        ("pacsnode_objects_refused_total",): 0,
        ("pacsnode_received_bytes_total",): 10_000,
        ("pacsnode_audit_events_total",): 6,
        ("pacsnode_last_image_timestamp_seconds", "CT1"): after(302).timestamp(),
        ("pacsnode_study_revisions", "incomplete"): 1,
        ("pacsnode_study_revisions", "complete"): 0,
        ("pacsnode_jobs", "low_dose_ct", "running"): 1,
        ("pacsnode_job_seconds_count", "low_dose_ct", "processed"): 2,
        ("pacsnode_deliveries", "PACS", "dead"): 3,
        ("pacsnode_peer_breaker_open", "PACS"): 0,
        ("pacsnode_oldest_queued_job_seconds",): 0,
        ("pacsnode_studies_purged_total",): 0,
    }
    assert {key: found[key] for key in expected} == expected
    assert math.isclose(found["pacsnode_job_seconds_sum", "low_dose_ct", "processed"], 20, abs_tol=0.1)
    assert found["pacsnode_disk_free_bytes",] > 0


def test_an_association_is_counted_once_it_has_ended_so_that_no_counter_falls(site) -> None:
    with site.database.write() as session:
        one = session.query(AssociationRow).first()
        one.outcome, one.closed_at = "open", None
    found = scrape(site)
    assert (found["pacsnode_associations_open",], found["pacsnode_associations_total", "released"]) == (1, 3)
    assert ("pacsnode_associations_total", "open") not in found


def test_what_was_purged_adds_up(site) -> None:
    held = site.archive.root / "received" / f"{DELIVERED}.1.1.dcm"
    held.parent.mkdir(parents=True, exist_ok=True)
    held.write_bytes(b"")
    at_once = Rules(days=0, failed=0, conflicts=0)
    assert Retention(site.database, site.archive, "test").purge(DELIVERED, at_once) is not None
    found = scrape(site)
    images, results, conflicts = 3, 4, 1
    assert found["pacsnode_studies_purged_total",] == 1
    assert found["pacsnode_files_purged_total",] == images + results + conflicts
    assert found["pacsnode_purged_bytes_total",] == images * 1000 + results * 2048


def test_metrics_show_no_patient(site) -> None:
    text = site.client.get("/metrics").text
    for secret in ("P-1", "PHANTOM", "ACC1", "1.2.3"):
        assert secret not in text


def test_a_scrape_without_a_usable_database_is_503_and_says_why(site) -> None:
    migrate.downgrade(site.database, "base")
    answer = site.client.get("/metrics")
    assert answer.status_code == 503
    assert "pacsnode migrate" in answer.text

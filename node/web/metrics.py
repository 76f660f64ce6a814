"""/metrics: what the database says, in Prometheus's words, read at each scrape."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from node.db.figures import Figures, Settled, figures, settle
from node.db.session import Database
from node.db.tables import OPEN

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """The text of each scrape. Several `web` processes say the same: all of it is read from the database."""

    def __init__(self, database: Database, archive_root: Path) -> None:
        self._database = database
        self._archive_root = archive_root
        self._settled = Settled()

    def scrape(self) -> bytes:
        now = dt.datetime.now(dt.UTC)
        with self._database.read() as session:
            self._settled = settled = settle(session, self._settled, now=now)
            found = figures(session, settled, now=now)
        metrics = [*_receiving(found), *_work(found, now), *_delivery(found, now)]
        metrics += [*_retention(found), *_disk(self._archive_root)]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(metrics))
        return generate_latest(registry)


class _Once(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _receiving(found: Figures) -> Iterator[Metric]:
    associations = CounterMetricFamily(
        "pacsnode_associations", "Associations that others opened to us, by how they ended", labels=["outcome"]
    )
    for outcome, count in sorted(found.associations.items()):
        if outcome != OPEN:
            associations.add_metric([outcome], count)
    yield associations
    yield GaugeMetricFamily(
        "pacsnode_associations_open", "Associations that others have with us now", value=found.associations.get(OPEN, 0)
    )
    for name, text, value in (
        ("pacsnode_objects_received", "Objects kept, each once", found.objects_received),
        ("pacsnode_objects_refused", "C-STORE requests that were not answered with success", found.objects_refused),
        ("pacsnode_objects_conflicting", "Objects kept aside: a known UID with other bytes", found.objects_conflicting),
        ("pacsnode_received_bytes", "Bytes of the objects kept", found.bytes_received),
        ("pacsnode_audit_events", "Events in the audit trail", found.audit_events),
    ):
        yield CounterMetricFamily(name, text, value=value)
    last = GaugeMetricFamily(
        "pacsnode_last_image_timestamp_seconds", "When the newest image of a peer came", labels=["peer"]
    )
    for aet, at in sorted(found.last_image_at.items()):
        last.add_metric([aet], at.timestamp())
    yield last


def _work(found: Figures, now: dt.datetime) -> Iterator[Metric]:
    studies = GaugeMetricFamily("pacsnode_study_revisions", "Study revisions by state", labels=["state"])
    for state, count in sorted(found.revisions.items()):
        studies.add_metric([state], count)
    yield studies
    jobs = GaugeMetricFamily("pacsnode_jobs", "Jobs by pipeline and state", labels=["pipeline", "state"])
    for key, count in sorted(found.jobs.items()):
        jobs.add_metric(list(key), count)
    yield jobs
    yield GaugeMetricFamily(
        "pacsnode_oldest_queued_job_seconds", "Age of the oldest queued job", value=_age(found.oldest_queued_at, now)
    )
    analyses = GaugeMetricFamily(
        "pacsnode_analysis_not_in_service",
        "1 while it is switched off or on trial",
        labels=["analysis", "state"],
    )
    for name, state in sorted(found.analyses.items()):
        analyses.add_metric([name, state], 1)
    yield analyses
    seconds = SummaryMetricFamily(
        "pacsnode_job_seconds", "Time that ended jobs took, last attempt", labels=["pipeline", "outcome"]
    )
    for labels, (count, total) in sorted(found.job_seconds.items()):
        seconds.add_metric(list(labels), count_value=count, sum_value=total)
    yield seconds


def _delivery(found: Figures, now: dt.datetime) -> Iterator[Metric]:
    deliveries = GaugeMetricFamily("pacsnode_deliveries", "Deliveries by peer and state", labels=["peer", "state"])
    for key, count in sorted(found.deliveries.items()):
        deliveries.add_metric(list(key), count)
    yield deliveries
    yield GaugeMetricFamily(
        "pacsnode_oldest_undelivered_seconds",
        "Age of the oldest result that is not yet proven stored",
        value=_age(found.oldest_undelivered_at, now),
    )
    breakers = GaugeMetricFamily(
        "pacsnode_peer_breaker_open", "1 while nothing is sent to a peer that failed", labels=["peer"]
    )
    for aet, is_open in sorted(found.breakers_open.items()):
        breakers.add_metric([aet], float(is_open))
    yield breakers


def _retention(found: Figures) -> Iterator[Metric]:
    for name, text, value in (
        ("pacsnode_studies_purged", "Studies whose files were deleted, each time they were", found.studies_purged),
        ("pacsnode_files_purged", "Files deleted with their studies", found.files_purged),
        ("pacsnode_purged_bytes", "Bytes of the images and results deleted", found.bytes_purged),
    ):
        yield CounterMetricFamily(name, text, value=value)


def _disk(archive_root: Path) -> Iterator[Metric]:
    usage = shutil.disk_usage(archive_root)
    yield GaugeMetricFamily("pacsnode_disk_free_bytes", "Free room of the archive's file system", value=usage.free)
    yield GaugeMetricFamily("pacsnode_disk_total_bytes", "Size of the archive's file system", value=usage.total)


def _age(since: dt.datetime | None, now: dt.datetime) -> float:
    return max((now - since).total_seconds(), 0.0) if since is not None else 0.0

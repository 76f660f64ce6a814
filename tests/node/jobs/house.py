"""The node without its processes and without networks: studies are received, reported, delivered and purged."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from sqlalchemy import select

from node.archive import Archive
from node.db import deliveries
from node.db.lifecycle import DeliveryState
from node.db.session import Database
from node.db.tables import AuditEventRow, ConflictRow, DeliveryRow, InstanceRow, PurgeRow, ResultRow, RevisionRow
from node.dicom.receive import Arrival
from node.jobs.analyse import Analyst, read_one_volume
from node.jobs.deliver import finish_revision
from node.jobs.intake import complete_due
from node.jobs.plan import plan
from node.jobs.purge import Housekeeping, Retention, Rules
from node.jobs.receive import ReceivingDesk
from node.jobs.record import now
from node.jobs.report import Reporter
from node.jobs.run import Worker
from node.pipelines.low_dose_ct import low_dose_ct
from node.pipelines.models import Models
from node.settings import Settings

from .conftest import ct_slice

STUDY, CHEST, HEAD = "1.2.3", "1.2.3.1", "1.2.3.2"
AT_ONCE = Rules(0.0, None, None)
Arrive = Callable[..., Arrival]


def image(number: int = 1, *, series: str = CHEST) -> Dataset:
    ds = ct_slice(series, number)
    ds.Rows = ds.Columns = 64
    ds.PixelData = np.full((64, 64), 1064 + number, np.uint16).tobytes()
    return ds


def worker_of(settings: Settings, database: Database, archive: Archive, analyst: Analyst) -> Worker:
    """Who runs these analyses, and reports."""
    reporter = Reporter(settings, database, archive, "test")
    return Worker(
        settings,
        database,
        actor="test",
        analyse=analyst.analyse,
        report=reporter.report,
        after_report=reporter.hand_over,
    )


class House:
    """The node without its processes and without networks."""

    def __init__(
        self, settings: Settings, database: Database, archive: Archive, desk: ReceivingDesk, arrive: Arrive
    ) -> None:
        self.settings, self.database, self.archive, self.desk, self.arrive = settings, database, archive, desk, arrive
        self.retention = Retention(database, archive, "test")
        analyst = Analyst(
            settings, database, archive, models=Models, pipelines={"low_dose_ct": (read_one_volume, low_dose_ct)}
        )
        self.worker = worker_of(settings, database, archive, analyst)

    def send(self, *objects: Dataset) -> None:
        for ds in objects:
            self.desk.take(self.arrive(ds))

    def report(self) -> None:
        """From the last image to a written report."""
        complete_due(self.database, actor="test")
        for row in self.rows(RevisionRow, state="complete"):
            plan(self.database, row.id, actor="test")
        while self.worker.run_next():
            pass

    def deliver(self, proof: str = "storage commitment") -> None:
        """All that is on its way has come, and is proven so."""
        with self.database.write() as session:
            for row in session.scalars(select(DeliveryRow).where(DeliveryRow.state == DeliveryState.WAITING)):
                row.state = DeliveryState.SENT
                deliveries.move(session, row, DeliveryState.COMMITTED, committed_at=now(), proof=proof)
        for row in self.rows(RevisionRow):
            with self.database.write() as session:
                finish_revision(session, row.id, "test")

    def treat(self, *objects: Dataset, proof: str = "storage commitment") -> None:
        self.send(*objects)
        self.report()
        self.deliver(proof)

    def purge(self, rules: Rules = AT_ONCE) -> PurgeRow | None:
        return self.retention.purge(STUDY, rules)

    def housekeeping(self, **policy: float) -> Housekeeping:
        settings = self.settings.model_copy(update=policy)
        return Housekeeping(settings, self.database, self.archive, actor="clock")

    def rows(self, kind: Any, /, **fields: Any) -> list[Any]:
        with self.database.read() as session:
            return list(session.scalars(select(kind).filter_by(**fields).order_by(*kind.__table__.primary_key)))

    def change(self, kind: Any, **values: Any) -> None:
        with self.database.write() as session:
            for row in session.scalars(select(kind)):
                for name, value in values.items():
                    setattr(row, name, value)

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.archive.root))
            for name in ("received", "results")
            for path in (self.archive.root / name).rglob("*")
        }

    def lies(self) -> list[str]:
        """Rows that claim a file that is not there."""
        claimed = [row for kind in (InstanceRow, ResultRow, ConflictRow) for row in self.rows(kind)]
        return [row.path for row in claimed if row.purged_at is None and not self.archive.holds(row.path)]

    def actions(self) -> list[str]:
        return [row.action for row in self.rows(AuditEventRow)]

    def document(self, revision: int) -> Any:
        [at] = self.rows(RevisionRow, number=revision)
        return self.document_of(at)

    def document_of(self, at: RevisionRow) -> Any:
        [row] = [row for row in self.rows(ResultRow, revision_id=at.id, kind="sr") if not row.fallback]
        return pydicom.dcmread(io.BytesIO(self.archive.path(row.path).read_bytes()))

    def decisions(self, revision: int) -> dict[str, str]:
        [row] = self.rows(RevisionRow, number=revision)
        return {entry["series_instance_uid"]: entry["decision"] for entry in row.selection}


def words(item: Any) -> str:
    parts = [str(item.get("TextValue", ""))]
    return " ".join([*parts, *(words(child) for child in item.get("ContentSequence", []))])

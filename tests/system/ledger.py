"""The node's own rows, read from beside it: what a test waits for and compares."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from node.db import tables
from node.db.lifecycle import FINISHED_DELIVERY, FINISHED_JOB, JobState, RevisionState
from system.node_process import Node
from system.processes import NotReady, wait_until

ENDED = (RevisionState.DELIVERED, RevisionState.INCOMPLETE, RevisionState.UNSENT)


class Ledger:
    """Rows of one node; every question is a short transaction of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        url = node.env.get("PACSNODE_DATABASE_URL") or f"sqlite:///{node.home.resolve() / 'node.sqlite'}"
        self.engine = create_engine(url, poolclass=NullPool)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    def rows(self, statement: Any) -> list[Any]:
        with self.session() as session:
            return list(session.scalars(statement))

    def instances(self, study_uid: str) -> set[str]:
        row = tables.InstanceRow
        return set(self.rows(select(row.sop_instance_uid).where(row.study_instance_uid == study_uid)))

    def all_instances(self) -> set[str]:
        return set(self.rows(select(tables.InstanceRow.sop_instance_uid)))

    def conflicts(self, study_uid: str) -> list[tables.ConflictRow]:
        row, instance = tables.ConflictRow, tables.InstanceRow
        joined = select(row).join(instance, instance.id == row.instance_id)
        return self.rows(joined.where(instance.study_instance_uid == study_uid))

    def archived(self, study_uid: str) -> list[Path]:
        """Received files of a study, as they lie in the archive."""
        row = tables.InstanceRow
        paths = self.rows(select(row.path).where(row.study_instance_uid == study_uid))
        return [self.node.home / "archive" / path for path in paths]

    def revisions(self, study_uid: str) -> list[tables.RevisionRow]:
        row = tables.RevisionRow
        return self.rows(select(row).where(row.study_instance_uid == study_uid).order_by(row.number))

    def jobs(self, study_uid: str) -> list[tables.JobRow]:
        ids = [revision.id for revision in self.revisions(study_uid)]
        return self.rows(select(tables.JobRow).where(tables.JobRow.revision_id.in_(ids)).order_by(tables.JobRow.id))

    def results(self, study_uid: str) -> list[tables.ResultRow]:
        ids = [revision.id for revision in self.revisions(study_uid)]
        return self.rows(select(tables.ResultRow).where(tables.ResultRow.revision_id.in_(ids)))

    def deliveries(self, study_uid: str) -> list[tables.DeliveryRow]:
        ids = [revision.id for revision in self.revisions(study_uid)]
        return self.rows(select(tables.DeliveryRow).where(tables.DeliveryRow.revision_id.in_(ids)))

    def rows_of_revision(self, revision_id: int) -> list[tables.DeliveryRow]:
        return self.rows(select(tables.DeliveryRow).where(tables.DeliveryRow.revision_id == revision_id))

    def audit_actions(self, study_uid: str | None = None) -> Counter[str]:
        """How often each action is on record, of one study or of all."""
        row = tables.AuditEventRow
        counted = select(row.action, func.count()).group_by(row.action)
        if study_uid is not None:
            counted = counted.where(row.study_instance_uid == study_uid)
        with self.session() as session:
            return Counter(dict(session.execute(counted).all()))

    def digests(self, study_uid: str) -> dict[str, str]:
        """SHA-256 of each produced file as it lies on disk, by SOP Instance UID."""
        found = {}
        for result in self.results(study_uid):
            path = Path(result.path)
            path = path if path.is_absolute() else self.node.home / "archive" / path
            found[result.sop_instance_uid] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def wait_for_job(self, study_uid: str, state: str, *, timeout_s: float = 90) -> None:
        seen = partial(self._has_job, study_uid, state)
        self._wait(seen, f"a job {state}", timeout_s, every_s=0.02)  # it may take no longer than a fraction of a second

    def running(self, study_uid: str, pipeline: str) -> bool:
        """Whether a job of this pipeline is in a worker's hands."""
        return any(job.pipeline == pipeline and job.state == JobState.RUNNING for job in self.jobs(study_uid))

    def delivery_states(self, study_uid: str) -> set[str]:
        return {row.state for row in self.deliveries(study_uid)}

    def wait_for_images(self, study_uid: str, number: int, *, timeout_s: float = 60) -> None:
        self._wait(lambda: len(self.instances(study_uid)) >= number, f"{number} images received", timeout_s)

    def wait_ended(self, study_uid: str, *, revisions: int = 1, timeout_s: float = 180) -> tables.RevisionRow:
        """The last revision, once there are so many and each has ended with every job and delivery."""

        def ended() -> bool:
            rows = self.revisions(study_uid)
            return (
                len(rows) >= revisions
                and all(row.state in ENDED for row in rows)
                and all(job.state in FINISHED_JOB for job in self.jobs(study_uid))
                and all(delivery.state in FINISHED_DELIVERY for delivery in self.deliveries(study_uid))
            )

        self._wait(ended, f"{revisions} revision(s) of {study_uid} ended", timeout_s)
        return self.revisions(study_uid)[-1]

    def summary(self, study_uid: str) -> str:
        """States in words, for the report of a test that failed."""
        revisions = [(row.number, row.state, row.images, row.completed_because) for row in self.revisions(study_uid)]
        jobs = [(row.pipeline, row.state, row.attempt, row.outcome, row.reason) for row in self.jobs(study_uid)]
        sent = Counter((row.peer_aet, row.state, row.attempt, row.reason) for row in self.deliveries(study_uid))
        return f"images {len(self.instances(study_uid))}\nrevisions {revisions}\njobs {jobs}\ndeliveries {dict(sent)}"

    def _has_job(self, study_uid: str, state: str) -> bool:
        job, revision = tables.JobRow, tables.RevisionRow
        found = select(job.id).join(revision, revision.id == job.revision_id)
        return bool(self.rows(found.where(revision.study_instance_uid == study_uid, job.state == state)))

    def _wait(self, condition: Any, what: str, timeout_s: float, *, every_s: float = 0.2) -> None:
        try:
            wait_until(condition, what, timeout_s=timeout_s, every_s=every_s)
        except NotReady as exc:
            uids = self.rows(select(tables.StudyRow.study_instance_uid))
            told = "\n".join(f"{uid}\n{self.summary(uid)}" for uid in uids[-5:])
            raise NotReady(f"{exc}\n{told}\n{self.node.tail()}") from exc

"""One job: claim it, read, analyse, write, and enter everything in one transaction, or nothing.

Result objects are written before that transaction under names that hold their digest. A worker that dies in between
leaves files which the next attempt makes again, byte for byte; nobody has been told of them.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from node.archive import Archive
from node.audit.events import FAILED, FAILED_FOR_NOW, Action
from node.db import quality, receiving, work
from node.db.lifecycle import JobState
from node.db.session import Database
from node.db.tables import JobRow, QualityRow, ResultRow, RevisionRow
from node.dicom.write import Produced
from node.errors import NodeError, NotEligible, Transient
from node.jobs.plan import queue_report_if_ready
from node.jobs.record import now, record
from node.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """One claimed job while it is worked on: renews its lease, keeps its progress and its steps."""

    job: JobRow
    revision: RevisionRow
    database: Database
    lease_s: float
    steps: list[dict[str, Any]] = field(default_factory=list)
    _progress: float = 0.0
    _step: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Renew the lease from a thread of its own until the work is over."""
        thread = threading.Thread(target=self._renew, name=f"lease-{self.job.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _renew(self) -> None:
        pause_s = min(1.0, self.lease_s / 4)
        while not self._over.wait(pause_s):
            with self.database.write() as session:
                until = now() + dt.timedelta(seconds=self.lease_s)
                still_ours = work.renew(
                    session,
                    self.job.id,
                    self.job.attempt,
                    lease_until=until,
                    progress=round(self._progress, 3),
                    step=self._step,
                )
            if not still_ours:
                return  # the result is refused at the end; nothing else to do here

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time one step; yields a progress callback (done, total)."""
        self._step, self._progress = name, 0.0
        started, clock = now(), monotonic()

        def progress(done: int, total: int) -> None:
            self._progress = done / max(total, 1)

        yield progress
        seconds = round(monotonic() - clock, 3)
        self.steps.append({"name": name, "started_at": started.isoformat(), "seconds": seconds})


@dataclass(frozen=True)
class Outcome:
    """What an attempt achieved; entered in one transaction with the end of its job."""

    outcome: str
    reason: str
    results: tuple[ResultRow, ...] = ()
    body: Mapping[str, Any] | None = None
    quality: QualityRow | None = None


class Worker:
    """Runs the jobs of this node, one at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        actor: str,
        analyse: Callable[[Attempt], Outcome],
        report: Callable[[Attempt], Outcome],
        after_report: Callable[[Any, Attempt], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._actor = actor
        self._analyse = analyse
        self._report = report
        self._after_report = after_report

    def run_next(self) -> bool:
        """Do the most urgent job; False where there was none."""
        attempt = self._claim()
        if attempt is None:
            return False
        do = self._report if attempt.job.pipeline == work.REPORT else self._analyse
        try:
            with attempt.held():
                outcome = do(attempt)
        except NotEligible as exc:
            self._finish(attempt, Outcome("not eligible", exc.reason))
        except Exception as exc:  # noqa: BLE001  (entry point of a job: whatever broke is told, never hidden)
            self._broke(attempt, exc)
        else:
            self._finish(attempt, outcome)
        return True

    def _claim(self) -> Attempt | None:
        until = now() + dt.timedelta(seconds=self._settings.lease_s)
        with self._database.write() as session:
            job = work.claim(session, worker=self._actor, now=now(), lease_until=until)
            if job is None:
                return None
            revision = receiving.revision(session, job.revision_id)
            _ = revision.study.patient_id  # loaded now: the session ends before the work begins
            self._record(session, Action.JOB_STARTED, job, revision)
        return Attempt(job, revision, self._database, self._settings.lease_s)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        job = attempt.job
        with self._database.write() as session:
            kept = work.finish(
                session,
                job.id,
                job.attempt,
                JobState.DONE,
                ended_at=now(),
                outcome=outcome.outcome,
                reason=outcome.reason,
                progress=1.0,
                step="",
                steps=attempt.steps,
            )
            if not kept:
                log.warning("job %d attempt %d: the lease was lost, its result is not kept", job.id, job.attempt)
                return
            work.add_results(session, outcome.results)
            if outcome.body is not None:
                work.add_finding(session, job.id, dict(outcome.body))
            if outcome.quality is not None:
                quality.add(session, outcome.quality)
            self._record(
                session, Action.JOB_DONE, job, attempt.revision, result=outcome.outcome, objects=len(outcome.results)
            )
            self._after(session, attempt)

    def _after(self, session: Any, attempt: Attempt) -> None:
        if attempt.job.pipeline == work.REPORT:
            self._after_report(session, attempt)
        else:
            queue_report_if_ready(session, receiving.revision(session, attempt.revision.id))

    def _broke(self, attempt: Attempt, exc: Exception) -> None:
        """Another attempt, or the end: a failure that is told in the report."""
        job = attempt.job
        reason = exc.reason if isinstance(exc, NodeError) else f"{type(exc).__name__} in step {attempt._step!r}"
        log.error("job %d attempt %d broke: %s", job.id, job.attempt, reason, exc_info=exc)
        last = job.attempt >= self._settings.max_attempts and not isinstance(exc, Transient)
        with self._database.write() as session:
            if last:
                fail_job(session, job, attempt.revision, reason, actor=self._actor)
                return
            later = now() + dt.timedelta(seconds=self._settings.retry_first_s * 2 ** min(job.attempt - 1, 8))
            if work.give_back(session, job.id, job.attempt, not_before=later, reason=reason):
                self._record(session, Action.JOB_REQUEUED, job, attempt.revision, outcome=FAILED_FOR_NOW, reason=reason)

    def _record(
        self, session: Any, action: Action, job: JobRow, revision: RevisionRow, *, outcome: str = "success", **more: Any
    ) -> None:
        record_job(session, action, job, revision, actor=self._actor, outcome=outcome, **more)


def keep_produced(archive: Archive, attempt: Attempt, produced: Produced) -> ResultRow:
    """Write one object durably; its row, not yet entered."""
    path, sha256 = archive.write(
        produced.data,
        study=attempt.revision.study_instance_uid,
        revision=attempt.revision.number,
        instance=produced.sop_instance_uid,
    )
    return ResultRow(
        sop_instance_uid=produced.sop_instance_uid,
        series_instance_uid=produced.series_instance_uid,
        sop_class_uid=produced.sop_class_uid,
        transfer_syntax_uid=produced.transfer_syntax_uid,
        revision_id=attempt.revision.id,
        job_id=attempt.job.id,
        kind=produced.kind,
        label=produced.label,
        alternatives=produced.group,
        fallback=produced.fallback,
        path=path,
        size=len(produced.data),
        sha256=sha256,
        made_at=now(),
    )


def record_job(
    session: Any,
    action: Action,
    job: JobRow,
    revision: RevisionRow,
    *,
    actor: str,
    outcome: str = "success",
    **more: Any,
) -> None:
    record(
        session,
        action,
        outcome=outcome,
        peer=revision.source_aet,
        study_instance_uid=revision.study_instance_uid,
        patient_id=revision.study.patient_id,
        actor=actor,
        detail={
            "job": job.id,
            "pipeline": job.pipeline,
            "series_instance_uid": job.series_instance_uid,
            "attempt": job.attempt,
            "revision": revision.number,
            **more,
        },
    )


def fail_job(session: Any, job: JobRow, revision: RevisionRow, reason: str, *, actor: str) -> None:
    """A job that will not be tried again. Its revision still gets a report, which says so."""
    if work.finish(
        session, job.id, job.attempt, JobState.FAILED, ended_at=now(), outcome="failed", reason=reason, step=""
    ):
        record_job(session, Action.JOB_FAILED, job, revision, actor=actor, outcome=FAILED, reason=reason)
        if job.pipeline != work.REPORT:
            queue_report_if_ready(session, receiving.revision(session, revision.id))

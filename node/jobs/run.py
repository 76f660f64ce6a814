"""One job: claim it, read, analyse, write, and enter everything in one transaction, or nothing.

Result objects are written before that transaction under names that hold their digest. An attempt that breaks, or a
worker that dies, leaves files which the next attempt makes again, byte for byte; nobody has been told of them, and what
is never made again goes with its study.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import FAILED, FAILED_FOR_NOW, Action
from node.db import quality, receiving, switches, work
from node.db.lifecycle import JobState
from node.db.session import Database, is_away, why_away
from node.db.tables import JobRow, QualityRow, ResultRow, RevisionRow, SwitchRow
from node.dicom.write import Produced
from node.errors import NodeError, NotEligible, OutOfResources, SourceLost, Transient
from node.jobs import patience
from node.jobs.outage import persist
from node.jobs.plan import queue_report_if_ready
from node.jobs.record import now, record
from node.settings import Settings

log = logging.getLogger(__name__)

_MOST_HICCUP = dt.timedelta(days=1)
"""A file that cannot be read for longer is taken for lost, and the reader is told. One that is known to be, at once."""
ROUTINE_SHARE = 0.5
"""Of `overdue_s`: a routine job that has waited for so long gets turns between urgent ones."""
_LEAST_BARE = 2
"""The attempt from which on a report may leave findings out, where analyses have one attempt only."""


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

    @property
    def doing(self) -> str:
        """The name of the step that was begun last."""
        return self._step

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
        is_told = False
        while not self._over.wait(pause_s):
            try:
                still_ours = self._renew_once()
            except SQLAlchemyError as exc:  # the lease is longer than a pause: it may be renewed before it is over
                if not is_told:
                    log.warning("job %d: the lease is not renewed (%s)", self.job.id, why_away(exc))
                is_told = True
                continue
            is_told = False
            if not still_ours:
                return  # the result is refused at the end; nothing else to do here

    def _renew_once(self) -> bool:
        """False where the job is no longer ours."""
        with self.database.write() as session:
            return work.renew(
                session,
                self.job.id,
                self.job.attempt,
                lease_until=now() + dt.timedelta(seconds=self.lease_s),
                progress=round(self._progress, 3),
                step=self._step,
            )

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
            end = partial(self._finish, attempt, Outcome("not eligible", exc.reason))
        except Exception as exc:  # noqa: BLE001  (entry point of a job: whatever broke is told, never hidden)
            self._tell(attempt, exc)
            end = partial(self._broke, attempt, exc)
        else:
            end = partial(self._finish, attempt, outcome)
        persist(end, patience_s=self._settings.retry_most_s)
        return True

    def _claim(self) -> Attempt | None:
        """Analyses that are switched off end here, one after another: those behind them do not wait for that."""
        while True:
            at, wait_s = now(), self._settings.overdue_s * ROUTINE_SHARE
            until, since = at + dt.timedelta(seconds=self._settings.lease_s), at - dt.timedelta(seconds=wait_s)
            with self._database.write() as session:
                job = work.claim(session, worker=self._actor, now=at, lease_until=until, waiting_since=since)
                if job is None:
                    return None
                revision = receiving.revision(session, job.revision_id)
                _ = revision.study.patient_id  # loaded now: the session ends before the work begins
                off = switches.is_off(session, job.pipeline)
                if off is not None:
                    self._end_unrun(session, job, revision, off)
                    continue
                self._record(session, Action.JOB_STARTED, job, revision)
            return Attempt(job, revision, self._database, self._settings.lease_s)

    def _end_unrun(self, session: Session, job: JobRow, revision: RevisionRow, off: SwitchRow) -> None:
        reason = switches.in_words(off)
        outcome = switches.outcome(off)
        work.finish(
            session, job.id, job.attempt, JobState.DONE, ended_at=now(), outcome=outcome, reason=reason, step=""
        )
        self._record(session, Action.JOB_WITHHELD, job, revision, result=outcome, reason=reason)
        queue_report_if_ready(session, revision)

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

    def _tell(self, attempt: Attempt, exc: Exception) -> None:
        reason = what_broke(exc, attempt.doing)
        where = None if is_away(exc) else exc
        log.error("job %d attempt %d broke: %s", attempt.job.id, attempt.job.attempt, reason, exc_info=where)

    def _broke(self, attempt: Attempt, exc: Exception) -> None:
        """Another attempt, or the end: a failure that is told in the report."""
        job = attempt.job
        reason = what_broke(exc, attempt.doing)
        with self._database.write() as session:
            if isinstance(exc, SourceLost):
                fail_job(session, job, attempt.revision, reason, actor=self._actor)
            elif passes(exc, job):
                wait = patience.after_trouble(self._settings, job.queued_at)
                put_back(session, job, attempt.revision, reason, actor=self._actor, wait=wait, counted=False)
            elif may_be_tried_again(self._settings, job):
                wait = patience.after_failures(self._settings, job.attempt)
                put_back(session, job, attempt.revision, reason, actor=self._actor, wait=wait)
            else:
                fail_job(session, job, attempt.revision, reason, actor=self._actor)

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


def what_broke(exc: Exception, step: str) -> str:
    """The reason of an error of ours; of any other its kind, and of a disk's failure what the system says.

    Never the text of another's, which may hold anything.
    """
    if isinstance(exc, NodeError):
        return exc.reason
    told = f" ({os.strerror(exc.errno)})" if isinstance(exc, OSError) and exc.errno is not None else ""
    return f"{type(exc).__name__} in step {step!r}{told}"


def passes(exc: Exception, job: JobRow) -> bool:
    """Whether it is the surroundings that failed, not the job: waited for, and not counted as an attempt."""
    if isinstance(exc, Transient | OutOfResources) or is_away(exc):
        return True
    told = exc if isinstance(exc, OSError) else exc.__cause__
    is_hiccup = isinstance(told, OSError) and told.errno is not None  # a library's own, of damage, has no number
    return is_hiccup and now() - job.queued_at < _MOST_HICCUP


def may_be_tried_again(settings: Settings, job: JobRow) -> bool:
    """A report is never given up, unless its sources are lost: nobody else would tell the reader."""
    return job.pipeline == work.REPORT or job.attempt < settings.max_attempts


def leaves_findings_out(settings: Settings, job: JobRow) -> bool:
    """So late an attempt at a report, never its first, goes without whatever may have broken those before."""
    return job.pipeline == work.REPORT and job.attempt >= max(settings.max_attempts, _LEAST_BARE)


def put_back(
    session: Session,
    job: JobRow,
    revision: RevisionRow,
    reason: str,
    *,
    actor: str,
    wait: dt.timedelta = dt.timedelta(0),
    counted: bool = True,
) -> None:
    """Another attempt, after so long."""
    later = now() + wait
    if work.give_back(session, job.id, job.attempt, not_before=later, reason=reason, counted=counted):
        record_job(
            session, Action.JOB_REQUEUED, job, revision, actor=actor, outcome=FAILED_FOR_NOW, reason=reason,
            again_in_s=round(wait.total_seconds()),
        )  # fmt: skip


def fail_job(session: Any, job: JobRow, revision: RevisionRow, reason: str, *, actor: str) -> None:
    """A job that will not be tried again. After an analysis the revision still gets its report, which says so."""
    if work.finish(
        session, job.id, job.attempt, JobState.FAILED, ended_at=now(), outcome="failed", reason=reason, step=""
    ):
        record_job(session, Action.JOB_FAILED, job, revision, actor=actor, outcome=FAILED, reason=reason)
        queue_report_if_ready(session, receiving.revision(session, revision.id))

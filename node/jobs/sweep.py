"""The clock: closes studies, wakes what is due, and takes back what a dead worker held.

It only reads rows and sends wake-up calls, so two clocks do no harm and none for a while only delays.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Hashable

from node.audit.events import FAILED_FOR_NOW, Action
from node.db import deliveries, receiving, work
from node.db.lifecycle import DeliveryState, RevisionState
from node.db.session import Database
from node.db.tables import DeliveryRow, JobRow
from node.jobs import intake
from node.jobs.broker import DELIVER, INFER, Broker
from node.jobs.record import now, record
from node.jobs.run import fail_job, record_job
from node.settings import Settings

log = logging.getLogger(__name__)

_WAKE_AGAIN = dt.timedelta(seconds=30)


class Clock:
    """One tick after another until told to stop."""

    def __init__(self, settings: Settings, database: Database, broker: Broker, *, actor: str) -> None:
        self._settings = settings
        self._database = database
        self._broker = broker
        self._actor = actor
        self._woken: dict[Hashable, dt.datetime] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.tick()
            except Exception:
                log.exception("tick failed; the next one tries again")
            stop.wait(self._settings.clock_interval_s)

    def tick(self) -> None:
        """All that time brings about, once."""
        intake.complete_due(self._database, actor=self._actor)
        self._take_back_jobs()
        self._take_back_deliveries()
        self._wake()

    # -- leases that ran out

    def _take_back_jobs(self) -> None:
        with self._database.read() as session:
            lapsed = work.lapsed(session, now())
        for job in lapsed:
            self._take_back_job(job)

    def _take_back_job(self, job: JobRow) -> None:
        reason = f"worker {job.worker} went silent in step {job.step or 'start'!r}"
        with self._database.write() as session:
            revision = receiving.revision(session, job.revision_id)
            if job.attempt >= self._settings.max_attempts:
                fail_job(session, job, revision, f"{reason}, {job.attempt} times", actor=self._actor)
            elif work.give_back(session, job.id, job.attempt, not_before=now(), reason=reason):
                record_job(
                    session,
                    Action.JOB_REQUEUED,
                    job,
                    revision,
                    actor=self._actor,
                    outcome=FAILED_FOR_NOW,
                    reason=reason,
                )

    def _take_back_deliveries(self) -> None:
        with self._database.read() as session:
            lapsed = deliveries.lapsed(session, now())
        for row in lapsed:
            self._take_back_delivery(row)

    def _take_back_delivery(self, row: DeliveryRow) -> None:
        """The object may have arrived: sending it again is harmless, its UID and bytes are the same."""
        reason = "the deliverer went silent while sending"
        with self._database.write() as session:
            if deliveries.move(session, row, DeliveryState.WAITING, not_before=now(), reason=reason):
                record(
                    session,
                    Action.DELIVERY_DEFERRED,
                    outcome=FAILED_FOR_NOW,
                    peer=row.peer_aet,
                    actor=self._actor,
                    detail={"sop_instance_uid": row.sop_instance_uid, "attempt": row.attempt, "reason": reason},
                )

    # -- wake-up calls

    def _wake(self) -> None:
        idle_infer = self._broker.waiting(INFER) == 0
        idle_deliver = self._broker.waiting(DELIVER) == 0
        with self._database.read() as session:
            complete = receiving.revisions_in(session, RevisionState.COMPLETE)
            jobs = work.due(session, now())
            groups = deliveries.due_groups(session, now())
        for revision in complete:
            if self._may_wake(("plan", revision.id), idle_infer):
                self._broker.plan(revision.id, urgent=revision.urgent)
        woken = [job for job in jobs if self._may_wake(("job", job.id, job.attempt), idle_infer)]
        for job in woken:
            self._broker.run_job(job.id, urgent=job.urgent)
        if woken:
            with self._database.write() as session:
                work.mark_woken(session, [job.id for job in woken], at=now())
        for revision_id, aet, urgent in groups:
            if self._may_wake(("deliver", revision_id, aet), idle_deliver):
                self._broker.deliver(revision_id, aet, urgent=urgent)
        self._woken = {key: at for key, at in self._woken.items() if now() - at < _WAKE_AGAIN}

    def _may_wake(self, key: Hashable, idle: bool) -> bool:
        """Once, and again when the broker has lost it: its queue is empty although there is something to do."""
        last = self._woken.get(key)
        if last is not None and (not idle or now() - last < dt.timedelta(seconds=5)):
            return False
        self._woken[key] = now()
        return True

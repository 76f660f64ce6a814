"""The clock: closes studies, wakes what is due, takes back what a dead worker held, deletes what is kept no longer.

It decides nothing that a row does not decide, so two clocks do no harm and none for a while only delays.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError

from node.audit.events import FAILED_FOR_NOW, Action
from node.db import deliveries, receiving, work
from node.db.lifecycle import DeliveryState
from node.db.session import Database, is_away, why_away
from node.db.tables import DeliveryRow, JobRow
from node.jobs import intake, patience
from node.jobs.deliver import finish_revision, record_delivery
from node.jobs.plan import queue_report_if_ready
from node.jobs.purge import Housekeeping
from node.jobs.record import is_dead, now
from node.jobs.run import fail_job, may_be_tried_again, put_back
from node.jobs.wake import Waker
from node.settings import Settings

log = logging.getLogger(__name__)

_TELL_AGAIN_S = 60.0


class Clock:
    """One tick after another until told to stop."""

    def __init__(
        self, settings: Settings, database: Database, waker: Waker, housekeeping: Housekeeping, *, actor: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._waker = waker
        self._housekeeping = housekeeping
        self._actor = actor
        self._trouble = ""
        """What the last tick failed of."""
        self._told = 0.0
        self._since: dt.datetime | None = None
        """When the node came up, or the database came back."""

    def run(self, stop: threading.Event) -> None:
        self._since = now()
        while not stop.is_set():
            try:
                self.tick()
            except Exception as exc:  # noqa: BLE001  (entry point: the clock goes on, whatever broke)
                self._failed(exc)
            else:
                self._succeeded()
            stop.wait(self._settings.clock_interval_s)

    def _failed(self, exc: Exception) -> None:
        """With its traceback the first time only: an outage of hours must not push all else out of the log."""
        kind = type(exc).__name__
        outage = exc if isinstance(exc, SQLAlchemyError) and is_away(exc) else None
        if outage is not None:
            self._since = None
        if kind != self._trouble and outage is not None:
            log.error("the database is away (%s): the clock waits", why_away(outage))
        elif kind != self._trouble:
            log.exception("tick failed; the next one tries again")
        elif monotonic() - self._told > _TELL_AGAIN_S:
            log.error("ticks still fail (%s)", kind)
        else:
            return
        self._trouble, self._told = kind, monotonic()

    def _succeeded(self) -> None:
        if self._trouble:
            log.info("ticks succeed again")
        self._trouble = ""

    def tick(self) -> None:
        """All that time brings about, once."""
        if self._since is None:
            self._database.ping()
            self._since = now()
        intake.complete_due(self._database, actor=self._actor, since=self._since)
        self._take_back_jobs()
        self._take_back_deliveries()
        self._go_on()
        self._housekeeping.tick()  # before the broker is asked, whose outage must not fill the disk
        self._waker.wake()

    # -- leases that ran out

    def _take_back_jobs(self) -> None:
        with self._database.read() as session:
            lapsed = work.lapsed(session, now())
        for job in lapsed:
            take_back(self._database, self._settings, job, actor=self._actor)

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
                record_delivery(
                    session, Action.DELIVERY_DEFERRED, row, self._actor, outcome=FAILED_FOR_NOW, reason=reason
                )

    # -- what nobody has moved on

    def _go_on(self) -> None:
        """Whoever ends the last job or delivery of a revision takes its next step; where nobody did, the clock does."""
        with self._database.read() as session:
            unreported, ended = work.without_report(session), deliveries.ended_unnoticed(session)
        for revision_id in unreported:
            with self._database.write() as session:
                queue_report_if_ready(session, receiving.revision(session, revision_id))
        for revision_id in ended:
            with self._database.write() as session:
                finish_revision(session, revision_id, self._actor)


def take_back(database: Database, settings: Settings, job: JobRow, *, actor: str) -> None:
    """A job whose worker is gone: another attempt; once they are used up, an analysis has failed, which is told."""
    reason = f"worker {job.worker} went silent in step {job.step or 'start'!r}"
    with database.write() as session:
        revision = receiving.revision(session, job.revision_id)
        if job.attempt < settings.max_attempts:
            put_back(session, job, revision, reason, actor=actor)
        elif may_be_tried_again(settings, job):  # not at once: it may be what kills its workers
            wait = patience.after_failures(settings, job.attempt)
            put_back(session, job, revision, reason, actor=actor, wait=wait)
        else:
            fail_job(session, job, revision, f"{reason}, {job.attempt} times", actor=actor)


def release_dead(database: Database, settings: Settings, *, actor: str) -> None:
    """At the start of a worker: what one that died on this host still holds need not wait for its lease to lapse."""
    with database.read() as session:
        running = work.running(session)
    for job in running:
        if is_dead(job.worker):
            take_back(database, settings, job, actor=actor)

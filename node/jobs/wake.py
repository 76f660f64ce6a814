"""Tell the broker what is due. A task calls it after its commit, the clock calls it at every tick."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Hashable

from node.db import deliveries, receiving, work
from node.db.lifecycle import RevisionState
from node.db.session import Database
from node.db.tables import JobRow
from node.jobs.broker import DELIVER, INFER, Broker
from node.jobs.record import now

_LOST_AFTER = dt.timedelta(seconds=5)
"""A wake-up call that is neither waiting in the broker nor answered for so long was lost: call again."""
_FORGET_AFTER = dt.timedelta(seconds=60)


class Waker:
    """Calls once for everything that is due, and again for what the broker has lost."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._called: dict[Hashable, dt.datetime] = {}
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Thread safe. raises kombu.exceptions.OperationalError or redis.RedisError where the broker is away."""
        with self._lock:
            self._wake()

    def _wake(self) -> None:
        with self._database.read() as session:
            complete = receiving.revisions_in(session, RevisionState.COMPLETE)
            jobs = work.due(session, now())
            groups = deliveries.due_groups(session, now())
        if complete or jobs:
            idle = self._broker.waiting(INFER) == 0
            for revision in complete:
                if self._may_call(("plan", revision.id), idle):
                    self._broker.plan(revision.id, urgent=revision.urgent)
            self._wake_jobs([job for job in jobs if _unheard(job, idle)])
        if groups:
            idle = self._broker.waiting(DELIVER) == 0
            for revision_id, aet, urgent in groups:
                if self._may_call(("deliver", revision_id, aet), idle):
                    self._broker.deliver(revision_id, aet, urgent=urgent)
        self._called = {key: at for key, at in self._called.items() if now() - at < _FORGET_AFTER}

    def _wake_jobs(self, jobs: list[JobRow]) -> None:
        if not jobs:
            return
        with self._database.write() as session:
            work.mark_woken(session, [job.id for job in jobs], at=now())
        for job in jobs:
            self._broker.run_job(job.id, urgent=job.urgent)

    def _may_call(self, key: Hashable, idle: bool) -> bool:
        last = self._called.get(key)
        if last is not None and (not idle or now() - last < _LOST_AFTER):
            return False
        self._called[key] = now()
        return True


def _unheard(job: JobRow, idle: bool) -> bool:
    return job.woken_at is None or (idle and now() - job.woken_at > _LOST_AFTER)

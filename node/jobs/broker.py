"""The broker wakes workers and knows nothing else: every message may be lost or come twice."""

from __future__ import annotations

from celery import Celery
from redis import Redis

TASK_PLAN = "pacsnode.plan"
TASK_RUN = "pacsnode.run_job"
TASK_DELIVER = "pacsnode.deliver"

INFER = "infer"
DELIVER = "deliver"

PRIORITY_STAT = 0  # kombu's Redis transport serves the lowest number first
PRIORITY_PLAN = 3
PRIORITY_ROUTINE = 6
PRIORITY_STEPS = (PRIORITY_STAT, PRIORITY_PLAN, PRIORITY_ROUTINE)


class Broker:
    """Sends wake-up calls. raises kombu.exceptions.OperationalError or redis.RedisError where Redis is away."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def plan(self, revision_id: int, *, urgent: bool) -> None:
        priority = PRIORITY_STAT if urgent else PRIORITY_PLAN
        self._app.send_task(TASK_PLAN, args=[revision_id], queue=INFER, priority=priority)

    def run_job(self, job_id: int, *, urgent: bool) -> None:
        priority = PRIORITY_STAT if urgent else PRIORITY_ROUTINE
        self._app.send_task(TASK_RUN, args=[job_id], queue=INFER, priority=priority)

    def deliver(self, revision_id: int, peer_aet: str, *, urgent: bool) -> None:
        priority = PRIORITY_STAT if urgent else PRIORITY_ROUTINE
        self._app.send_task(TASK_DELIVER, args=[revision_id, peer_aet], queue=DELIVER, priority=priority)

    def waiting(self, queue: str) -> int:
        """Messages that nobody has taken yet."""
        with self._app.connection_for_read() as connection:
            client: Redis = connection.default_channel.client
            separator = connection.default_channel.sep
            names = [queue, *(f"{queue}{separator}{step}" for step in PRIORITY_STEPS[1:])]
            return sum(int(client.llen(name)) for name in names)

    def ping(self) -> None:
        with self._app.connection_for_read() as connection:
            connection.default_channel.client.ping()

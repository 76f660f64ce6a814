"""The three Celery tasks. Each is a wake-up call with ids: what there is to do stands in the database."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from node.db.session import is_away, why_away
from node.jobs.broker import PRIORITY_STEPS, TASK_DELIVER, TASK_PLAN, TASK_RUN

log = logging.getLogger(__name__)


def make_app(broker_url: str) -> Celery:
    """A Celery app that is nobody's global: late acknowledgement, one message at a time, no results kept."""
    app = Celery("pacsnode", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            # a message that is not acknowledged for so long comes again; the claim makes that harmless
            "visibility_timeout": 6 * 3600,
            "socket_connect_timeout": 5,
        },
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
    )
    return app


def register(
    app: Celery,
    *,
    plan: Callable[[int], object],
    run_job: Callable[[], object],
    deliver: Callable[[int, str], object],
) -> None:
    """Bind the three names to what this process does about them."""

    @app.task(name=TASK_PLAN, shared=False)
    def _plan(revision_id: int) -> None:
        _unless_away(plan, revision_id)

    @app.task(name=TASK_RUN, shared=False)
    def _run_job(job_id: int) -> None:  # noqa: ARG001  (a wake-up: the database says which job is next)
        _unless_away(run_job)

    @app.task(name=TASK_DELIVER, shared=False)
    def _deliver(revision_id: int, peer_aet: str) -> None:
        _unless_away(deliver, revision_id, peer_aet)


def _unless_away(do: Callable[..., object], *given: object) -> None:
    """A call that the database is not there for is lost like any other: it comes again once it is back."""
    try:
        do(*given)
    except SQLAlchemyError as exc:
        if not is_away(exc):
            raise
        log.error("the database is away (%s): the clock calls again", why_away(exc))

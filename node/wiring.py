"""The only place where things are put together. Nothing here starts at import, and nothing is global.

Each process imports what it needs when it starts: the receiver, the clock, the deliverer and the pages must outlive a
broken GPU, so what leads to torch is imported inside `_worker` alone; and a query by command waits for nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Literal

from celery import Celery

from node.archive import Archive
from node.db.session import PATIENCE_S, Database
from node.errors import ConfigurationError
from node.jobs import broker, record, tasks
from node.jobs.broker import Broker
from node.jobs.wake import Waker
from node.settings import Settings

if TYPE_CHECKING:
    from node.jobs.run import Worker
    from node.pipelines.models import Models

Queue = Literal["infer", "deliver"]

DELIVER_THREADS = 4
"""Peers that are served at the same time; one peer never has more than one association from us."""


@dataclass(frozen=True)
class Node:
    """The parts that every process shares."""

    settings: Settings
    database: Database
    archive: Archive
    celery: Celery
    broker: Broker


def build(settings: Settings, *, patience_s: float = PATIENCE_S) -> Node:
    """Construct everything, start nothing. `patience_s`: as of Database. raises ConfigurationError"""
    archive = Archive(
        settings.archive_dir,
        watermark_percent=settings.disk_watermark_percent,
        reserve_mb=settings.disk_reserve_mb,
    )
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        archive.prepare()
    except PermissionError:
        raise  # whose file it is, is the reader's first question
    except OSError as exc:
        raise ConfigurationError(f"{settings.home}: cannot be the home of a node ({exc.strerror})") from exc
    app = tasks.make_app(settings.broker_url)
    database = Database(settings.sqlalchemy_url, before_commit=record.seal_pending, patience_s=patience_s)
    return Node(settings, database, archive, app, Broker(app))


def receive(node: Node, stop: threading.Event, on_ready: Callable[[int], None]) -> None:
    """Run the Storage SCP until `stop`; on_ready(port) once it accepts associations."""
    from node.dicom.receive import StorageScp
    from node.jobs.receive import ReceivingDesk

    desk = ReceivingDesk(node.settings, node.database, node.archive)
    desk.open()
    scp = StorageScp(node.settings, desk, desk.spool)
    try:
        on_ready(scp.start())
        stop.wait()
    finally:
        scp.stop()
        desk.close()


def clock(node: Node, stop: threading.Event) -> None:
    """Run the clock until `stop`, and beside it what tells the audit repository."""
    from node.jobs import feed
    from node.jobs.purge import Housekeeping
    from node.jobs.sweep import Clock

    actor = record.process_name("clock")
    waker = Waker(node.database, node.broker)
    housekeeping = Housekeeping(node.settings, node.database, node.archive, actor=actor)
    telling = feed.start(node.settings, node.database, stop, actor=actor)
    Clock(node.settings, node.database, waker, housekeeping, actor=actor).run(stop)
    telling.join(feed.LEAVE_S)


def work(node: Node, queue: Queue) -> None:
    """Run the Celery worker of one queue in this process until SIGTERM."""
    from node.jobs.sweep import release_dead

    bind(node, queue)
    if queue == broker.INFER:
        release_dead(node.database, node.settings, actor=record.process_name(queue))
    options = [
        "worker",
        f"--queues={queue}",
        f"--hostname={queue}@%h-{os.getpid()}",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    if queue == broker.INFER:
        options += ["--pool=solo"]  # CUDA does not survive a fork; one job at a time
    else:
        options += ["--pool=threads", f"--concurrency={DELIVER_THREADS}"]
    node.celery.worker_main(options)


def bind(node: Node, queue: Queue) -> None:
    """Give the three tasks their meaning in a process that serves `queue`."""
    from node.jobs.deliver import Deliverer
    from node.jobs.plan import plan

    actor = record.process_name(queue)
    deliverer = Deliverer(node.settings, node.database, node.archive, actor)
    worker = _worker(node, actor) if queue == broker.INFER else None

    waker = Waker(node.database, node.broker)

    def plan_revision(revision_id: int) -> None:
        plan(node.database, revision_id, actor=actor)
        waker.wake()

    def run_job() -> None:
        if worker is None:
            raise RuntimeError("this process serves no inference queue")
        worker.run_next()
        waker.wake()

    def deliver(revision_id: int, peer_aet: str) -> None:
        deliverer.deliver(revision_id, peer_aet)
        waker.wake()  # other studies may have waited for this peer's lane

    tasks.register(node.celery, plan=plan_revision, run_job=run_job, deliver=deliver)


def _worker(node: Node, actor: str) -> Worker:
    from node.jobs.analyse import Analyst, read_one_radiograph, read_one_volume
    from node.jobs.report import Reporter
    from node.jobs.run import Worker
    from node.pipelines.chest_xray import chest_xray
    from node.pipelines.low_dose_ct import low_dose_ct

    analyst = Analyst(
        node.settings,
        node.database,
        node.archive,
        models=cache(lambda: _models(node.settings)),
        pipelines={
            "low_dose_ct": (read_one_volume, partial(low_dose_ct, least_quality=node.settings.least_quality)),
            "chest_xray": (
                read_one_radiograph,
                partial(
                    chest_xray, maps=node.settings.radiograph_maps, unstated_side_mm=node.settings.radiograph_side_mm
                ),
            ),
        },
    )
    reporter = Reporter(node.settings, node.database, node.archive, actor)
    return Worker(
        node.settings,
        node.database,
        actor=actor,
        analyse=analyst.analyse,
        report=reporter.report,
        after_report=reporter.hand_over,
    )


def _models(settings: Settings) -> Models:
    from node.pipelines import models

    return models.load(device=settings.device, threads=settings.threads)

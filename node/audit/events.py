"""What is recorded. An action is `subject.past participle`; details hold UIDs and numbers, never image content."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    NODE_STARTED = "node.started"
    NODE_STOPPED = "node.stopped"
    ASSOCIATION_ADMITTED = "association.admitted"
    ASSOCIATION_REFUSED = "association.refused"
    ASSOCIATION_CLOSED = "association.closed"
    INSTANCE_STORED = "instance.stored"
    INSTANCE_DUPLICATE = "instance.duplicate"
    INSTANCE_CONFLICT = "instance.conflict"
    INSTANCE_REFUSED = "instance.refused"
    INSTANCE_LOST = "instance.lost"
    INSTANCE_OWN_RESULT = "instance.own_result"
    INSTANCE_HELD_AGAIN = "instance.held_again"
    REVISION_COMPLETED = "revision.completed"
    REVISION_PLANNED = "revision.planned"
    REVISION_REPORTED = "revision.reported"
    REVISION_DELIVERED = "revision.delivered"
    REVISION_INCOMPLETE = "revision.incomplete"
    REVISION_UNSENT = "revision.unsent"
    REVISION_ADDRESSED = "revision.addressed"
    JOB_STARTED = "job.started"
    JOB_DONE = "job.done"
    JOB_FAILED = "job.failed"
    JOB_REQUEUED = "job.requeued"
    JOB_WITHHELD = "job.withheld"
    DELIVERY_SENT = "delivery.sent"
    DELIVERY_COMMITTED = "delivery.committed"
    DELIVERY_REPLACED = "delivery.replaced"
    DELIVERY_DEFERRED = "delivery.deferred"
    DELIVERY_DEAD = "delivery.dead"
    DELIVERY_RECALLED = "delivery.recalled"
    DELIVERY_RESENT = "delivery.resent"
    DELIVERY_RECONCILED = "delivery.reconciled"
    DELIVERY_UNRECONCILED = "delivery.unreconciled"
    STUDY_PURGED = "study.purged"
    STUDY_FILES_DELETED = "study.files_deleted"
    STUDY_HELD = "study.held"
    STUDY_RELEASED = "study.released"
    STUDY_VIEWED = "study.viewed"
    STUDIES_LISTED = "studies.listed"
    PEER_BREAKER_OPENED = "peer.breaker_opened"
    PEERS_APPLIED = "config.peers_applied"
    TRAIL_QUERIED = "trail.queried"


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    at: dt.datetime
    action: Action
    outcome: str = "success"
    """success, minor failure (will be tried again), serious failure: the scale of PS3.15 A.5."""
    peer: str = ""
    study_instance_uid: str = ""
    patient_id: str = ""
    actor: str = ""
    """Which process or person."""
    detail: Mapping[str, Any] = field(default_factory=dict)


FAILED_FOR_NOW = "minor failure"
FAILED = "serious failure"

"""The legal moves of every state, as one table; queries move rows by this table only.

States never run backwards, except where a person asks for what failed to be done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RevisionState(StrEnum):
    RECEIVING = "receiving"  # images may still come
    COMPLETE = "complete"  # closed: its set of images no longer changes
    PLANNED = "planned"  # every series has a decision, jobs exist
    REPORTED = "reported"  # every result object exists, deliveries exist
    DELIVERED = "delivered"  # every delivery is committed
    INCOMPLETE = "incomplete"  # at least one delivery is a dead letter
    # a dead letter that is sent again, or taken back, brings INCOMPLETE to its end; nothing else leaves it
    UNSENT = "unsent"  # there is nobody whom a result may go to; a person may ask again once there is
    RECALLED = "recalled"  # all of it was taken back before it was sent: its analysis is not in service any more


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # attempts used up, or an error that another attempt cannot mend; may be asked for again


class DeliveryState(StrEnum):
    WAITING = "waiting"  # to be sent, now or at not_before
    SENDING = "sending"
    SENT = "sent"  # C-STORE succeeded; not proven stored yet
    COMMITTED = "committed"  # storage commitment, or found by query
    REPLACED = "replaced"  # something else goes instead: a fallback where the peer lacks the class, or a later report
    DEAD = "dead"  # permanent failure, or attempts used up; re-sendable


MOVES: Mapping[type[StrEnum], Mapping[StrEnum, frozenset[StrEnum]]] = {
    RevisionState: {
        RevisionState.RECEIVING: frozenset({RevisionState.COMPLETE}),
        RevisionState.COMPLETE: frozenset({RevisionState.PLANNED}),
        RevisionState.PLANNED: frozenset({RevisionState.REPORTED}),
        RevisionState.REPORTED: frozenset(
            {RevisionState.DELIVERED, RevisionState.INCOMPLETE, RevisionState.UNSENT, RevisionState.RECALLED}
        ),
        RevisionState.INCOMPLETE: frozenset({RevisionState.DELIVERED, RevisionState.RECALLED}),
        RevisionState.UNSENT: frozenset({RevisionState.REPORTED}),
        RevisionState.DELIVERED: frozenset(),
        RevisionState.RECALLED: frozenset(),
    },
    JobState: {
        # a lapsed lease or a passing failure gives a job back: RUNNING → QUEUED is a new attempt, counted
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED}),
        JobState.RUNNING: frozenset({JobState.QUEUED, JobState.DONE, JobState.FAILED}),
        JobState.DONE: frozenset(),
        JobState.FAILED: frozenset({JobState.QUEUED}),
    },
    DeliveryState: {
        DeliveryState.WAITING: frozenset({DeliveryState.SENDING, DeliveryState.REPLACED, DeliveryState.DEAD}),
        DeliveryState.SENDING: frozenset(
            {DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.REPLACED, DeliveryState.DEAD}
        ),
        DeliveryState.SENT: frozenset({DeliveryState.COMMITTED, DeliveryState.WAITING, DeliveryState.DEAD}),
        DeliveryState.DEAD: frozenset({DeliveryState.WAITING}),
        DeliveryState.COMMITTED: frozenset(),
        DeliveryState.REPLACED: frozenset(),
    },
}


def may_become(before: StrEnum, after: StrEnum) -> bool:
    """Whether the move stands in the table."""
    return after in MOVES[type(before)][before]


def before(after: StrEnum) -> tuple[StrEnum, ...]:
    """Every state from which `after` may be reached in one move."""
    return tuple(state for state, targets in MOVES[type(after)].items() if after in targets)


FINISHED_JOB = frozenset({JobState.DONE, JobState.FAILED})
FINISHED_DELIVERY = frozenset({DeliveryState.COMMITTED, DeliveryState.REPLACED, DeliveryState.DEAD})

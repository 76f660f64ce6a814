"""Which events of the trail leave together as one message, and which leave at all.

What one association brought of one study is one message, when the association ends: PS3.15 A.5.3.7 tells of the
completion of a transfer, with its instances counted. What one look at the trail finds of one study on its way to one
peer is one message too. Every other event is a message of its own, or none, where DICOM has no message for it.

What is held back for the end of an association goes at the latest at the end of a block of the trail. So whoever
begins again at the beginning of a block (`block_of`) holds back the same, and nothing need be stored but a number.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from node.audit.chain import Sealed
from node.audit.events import Action

BLOCK = 10_000

UNTOLD = frozenset(
    {
        Action.ASSOCIATION_ADMITTED,  # its caller is named in what it brought
        Action.REVISION_COMPLETED,
        Action.REVISION_PLANNED,
        Action.REVISION_DELIVERED,
        Action.REVISION_INCOMPLETE,
        Action.REVISION_UNSENT,
        Action.JOB_WITHHELD,
        Action.DELIVERY_RECALLED,
        Action.DELIVERY_COMMITTED,
        Action.DELIVERY_UNRECONCILED,
        Action.PEER_BREAKER_OPENED,
    }
)
"""Bookkeeping: nobody saw, sent or changed anything by it. Exports and FHIR have these events too."""

_OF_ASSOCIATION = frozenset(
    {
        Action.INSTANCE_STORED,
        Action.INSTANCE_DUPLICATE,
        Action.INSTANCE_CONFLICT,
        Action.INSTANCE_REFUSED,
        Action.INSTANCE_LOST,
        Action.INSTANCE_OWN_RESULT,
        Action.INSTANCE_HELD_AGAIN,
    }
)
_OF_A_RUN = frozenset(
    {
        Action.DELIVERY_SENT,
        Action.DELIVERY_REPLACED,
        Action.DELIVERY_DEFERRED,
        Action.DELIVERY_DEAD,
        Action.DELIVERY_RESENT,
    }
)


@dataclass(frozen=True)
class Told:
    """Events that one message tells of: alike in all but number, time and object."""

    events: tuple[Sealed, ...]
    number: int
    """The event at which it is known to be complete."""


def block_of(number: int) -> int:
    """The last event before the block that `number + 1` is in."""
    return number // BLOCK * BLOCK


def details(event: Sealed) -> Mapping[str, Any]:
    """The details, whatever somebody who meddled made of them."""
    return event.detail if isinstance(event.detail, Mapping) else {}


class Grouping:
    """Takes events in the order of the trail."""

    def __init__(self) -> None:
        self._arriving: dict[str, dict[Hashable, list[Sealed]]] = {}
        self._leaving: dict[Hashable, list[Sealed]] = {}

    def take(self, event: Sealed) -> list[Told]:
        """What is complete with this event."""
        told: list[Told] = []
        if event.action in _OF_A_RUN:
            self._leaving.setdefault(_kind(event), []).append(event)
        elif event.action == Action.ASSOCIATION_CLOSED:
            told = self._end(_association(event), event.number)
        elif event.action in _OF_ASSOCIATION:
            self._arriving.setdefault(_association(event), {}).setdefault(_kind(event), []).append(event)
        elif event.action not in UNTOLD:
            told = [Told((event,), event.number)]
        if event.number % BLOCK == 0:
            told += [one for name in list(self._arriving) for one in self._end(name, event.number)]
        return told

    def rest(self, *, all_of_it: bool = False) -> list[Told]:
        """At the end of a look at the trail: what need not wait for an association; or everything."""
        told = [Told(tuple(events), events[-1].number) for events in self._leaving.values()]
        self._leaving.clear()
        if all_of_it:
            for name, kinds in list(self._arriving.items()):
                told += self._end(name, max(events[-1].number for events in kinds.values()))
        return sorted(told, key=lambda one: one.number)

    def _end(self, association: str, number: int) -> list[Told]:
        return [Told(tuple(events), number) for events in self._arriving.pop(association, {}).values()]


def _association(event: Sealed) -> str:
    return str(details(event).get("association", ""))


def _kind(event: Sealed) -> Hashable:
    reason = str(details(event).get("reason", ""))
    return event.action, event.outcome, event.peer, event.study_instance_uid, event.patient_id, event.actor, reason

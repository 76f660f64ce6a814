"""What an event of the trail means in the words of PS3.15 A.5.3.

Nothing is read out of free text: the action decides, and the fields of the event, with what rows say of the
associations, objects and peers that it names (Facts). Any event that can be stored has a message, one that somebody
meddled with too: a trail that cannot be told is no reason to be silent.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from node.audit import codes
from node.audit.chain import Sealed
from node.audit.codes import Code
from node.audit.events import FAILED, FAILED_FOR_NOW, Action
from node.audit.grouping import Told, details
from node.audit.message import (
    EventAction,
    LifeCycle,
    Message,
    ObjectRole,
    ObjectType,
    Participant,
    Subject,
)

_OUTCOMES = {"success": 0, FAILED_FOR_NOW: 4, FAILED: 8}
"""EventOutcomeIndicator of our words; of any other word: 8."""
_NOBODY = "(none)"
"""Where a mandatory field has nothing to say: a patient without an id."""
_MOST_CHANGES = 8
"""Told one by one of a change of the site file: a message stays well within the 32768 octets of PS3.15 A.6."""
_PROCESS = re.compile(r"[a-z]+@(?P<host>.+):\d+(\.\d*)?")
_PERSON = re.compile(r".+@(?P<host>[^@]+)")


@dataclass(frozen=True)
class Caller:
    """Who opened an association."""

    host: str
    tls_subject: str = ""


@dataclass(frozen=True)
class Facts:
    """What rows say of what some events name."""

    callers: Mapping[str, Caller] = field(default_factory=dict)
    """Of associations."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """{SOP Instance UID: SOP Class UID} of objects received or made here."""
    names: Mapping[str, str] = field(default_factory=dict)
    """{Study Instance UID: patient's name}; empty where names are not to be told."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """{AE title: where the peer is}."""
    made: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """{job: {SOP Class UID: objects that it made}}."""
    on_their_way: Mapping[tuple[str, int, str], Mapping[str, int]] = field(default_factory=dict)
    """{(Study Instance UID, revision, AE title): {SOP Class UID: objects that are to go there}}."""


@dataclass(frozen=True)
class Teller:
    """Events to messages. `aet` is ours."""

    aet: str
    facts: Facts = Facts()

    def tell(self, told: Told) -> list[Message]:
        """Usually one; one for each destination of what begins to be transferred, and none of work without results."""
        return _MEANING.get(told.events[0].action, _bookkeeping)(self, told)

    def tell_one(self, event: Sealed) -> list[Message]:
        """An event by itself: at least one message."""
        told = Told((event,), event.number)
        return self.tell(told) or _bookkeeping(self, told)

    # -- parts of messages

    def message(
        self,
        told: Told,
        event: Code,
        action: EventAction,
        participants: Iterable[Participant],
        subjects: Iterable[Subject] = (),
        *,
        types: tuple[Code, ...] = (),
    ) -> Message:
        last = told.events[-1]
        return Message(
            event=event,
            action=action,
            at=last.at,
            outcome=_OUTCOMES.get(last.outcome, 8),
            types=(*types, codes.own(last.action)),
            description=_description(told),
            participants=tuple(participants),
            subjects=tuple(subjects),
        )

    def actor(self, told: Told, *, is_requestor: bool = False, role: Code | None = None) -> Participant:
        """The process or person of the event: a process is known by our AE title too."""
        name = told.events[-1].actor
        process, person = _PROCESS.fullmatch(name), _PERSON.fullmatch(name)
        place = process or person
        return Participant(
            user_id=name or _NOBODY,
            alternative_id="" if person and not process else f"AETITLES={self.aet}",
            is_requestor=is_requestor,
            role=role,
            host=place["host"] if place else "",
        )

    def peer(self, told: Told, *, is_requestor: bool = False, role: Code | None = None) -> Participant:
        """The other side, as the association or the site file has it."""
        event = told.events[-1]
        caller = self.facts.callers.get(_text(event, "association"))
        aet = event.peer or _NOBODY
        return Participant(
            user_id=aet,
            alternative_id=f"AETITLES={aet}",
            name=caller.tls_subject if caller else "",
            is_requestor=is_requestor,
            role=role,
            host=caller.host if caller else self.facts.hosts.get(event.peer, ""),
        )

    def study(
        self, told: Told, sop_classes: Mapping[str, int] | None = None, *, life_cycle: LifeCycle | None = None
    ) -> Subject:
        return Subject(
            id=told.events[-1].study_instance_uid or _NOBODY,
            id_type=codes.STUDY_UID,
            type=ObjectType.SYSTEM,
            role=ObjectRole.REPORT,
            life_cycle=life_cycle,
            sop_classes=sop_classes or {},
        )

    def patient(self, told: Told) -> Subject:
        event = told.events[-1]
        return Subject(
            id=event.patient_id or _NOBODY,
            id_type=codes.PATIENT_NUMBER,
            type=ObjectType.PERSON,
            role=ObjectRole.PATIENT,
            name=self.facts.names.get(event.study_instance_uid, ""),
        )

    def counted(self, told: Told) -> Mapping[str, int]:
        """SOP classes of the objects that the events name."""
        uids = (_text(event, "sop_instance_uid") for event in told.events)
        return Counter(self.facts.classes[uid] for uid in uids if uid in self.facts.classes)


def _activity(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.1."""
    starts = told.events[-1].action == Action.NODE_STARTED
    kind = codes.APPLICATION_START if starts else codes.APPLICATION_STOP
    who = replace(teller.actor(told, role=codes.APPLICATION), alternative_id=f"AETITLES={teller.aet}")
    return [teller.message(told, codes.APPLICATION_ACTIVITY, EventAction.EXECUTE, [who], types=(kind,))]


def _refused_caller(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.11: who is not let in."""
    return [_alert(teller, told, codes.NODE_AUTHENTICATION, [_stranger(teller, told)])]


def _stranger(teller: Teller, told: Told) -> Subject:
    event = told.events[-1]
    name = teller.peer(told).host or _text(event, "host") or event.peer
    return _alerted(name, _text(event, "reason"))


def _alert(teller: Teller, told: Told, kind: Code | None, subjects: Iterable[Subject]) -> Message:
    participants = [teller.actor(told)]
    if told.events[-1].peer:
        other = teller.peer(told)
        participants.append(replace(other, host=other.host or _text(told.events[-1], "host")))
    types = (kind,) if kind is not None else ()
    return teller.message(told, codes.SECURITY_ALERT, EventAction.EXECUTE, participants, subjects, types=types)


def _alerted(node: str, text: str) -> Subject:
    return Subject(
        id=node or _NOBODY,
        id_type=codes.NODE_ID,
        type=ObjectType.SYSTEM,
        role=ObjectRole.SECURITY_RESOURCE,
        details={"Alert Description": text or _NOBODY},
    )


def _received(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.7: C where we held none, R where what we hold stays as it is. Without a study there is no such message."""
    event = told.events[-1]
    if not event.study_instance_uid:
        return [_alert(teller, told, None, [_stranger(teller, told)])]
    held = event.action in (Action.INSTANCE_DUPLICATE, Action.INSTANCE_CONFLICT)
    return [
        teller.message(
            told,
            codes.INSTANCES_TRANSFERRED,
            EventAction.READ if held else EventAction.CREATE,
            [teller.peer(told, is_requestor=True, role=codes.SOURCE), teller.actor(told, role=codes.DESTINATION)],
            [teller.study(told, teller.counted(told)), teller.patient(told)],
        )
    ]


def _sent(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.7: R, since only the receiver knows whether it held them."""
    return [
        teller.message(
            told,
            codes.INSTANCES_TRANSFERRED,
            EventAction.READ,
            [teller.actor(told, is_requestor=True, role=codes.SOURCE), teller.peer(told, role=codes.DESTINATION)],
            [teller.study(told, teller.counted(told)), teller.patient(told)],
        )
    ]


def _sent_again(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.3: a person has results sent once more."""
    return [_beginning(teller, told, teller.peer(told, role=codes.DESTINATION), teller.counted(told))]


def _addressed(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.3: what is going to be sent to each destination."""
    event = told.events[-1]
    messages = []
    for aet in _texts(event, "destinations"):
        there = Participant(
            user_id=aet,
            alternative_id=f"AETITLES={aet}",
            role=codes.DESTINATION,
            host=teller.facts.hosts.get(aet, ""),
        )
        counted = teller.facts.on_their_way.get((event.study_instance_uid, _number(event, "revision"), aet))
        messages.append(_beginning(teller, told, there, counted or {}))
    return messages


def _beginning(teller: Teller, told: Told, there: Participant, sop_classes: Mapping[str, int]) -> Message:
    return teller.message(
        told,
        codes.BEGIN_TRANSFERRING,
        EventAction.EXECUTE,
        [teller.actor(told, is_requestor=True, role=codes.SOURCE), there],
        [teller.study(told, sop_classes), teller.patient(told)],
    )


def _used(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.6: an analysis reads images, a person looks at a study, or has it analysed again."""
    return [_accessed(teller, told, EventAction.READ, {})]


def _changed(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.6: a legal hold of a study begins or ends; results leave with other values than they were made with."""
    return [_accessed(teller, told, EventAction.UPDATE, {})]


def _listed(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.10, of a query that is not DICOM's: a person has studies listed."""
    here = Participant(teller.aet, f"AETITLES={teller.aet}", role=codes.DESTINATION)
    asked = Subject(
        id=told.events[-1].action,
        id_type=codes.SEARCH_CRITERIA,
        type=ObjectType.SYSTEM,
        role=ObjectRole.REPORT,
        query=json.dumps(details(told.events[-1]), ensure_ascii=False, default=str),
    )
    who = teller.actor(told, is_requestor=True, role=codes.SOURCE)
    found = [teller.patient(told)] if told.events[-1].patient_id else []  # where all that was listed is of one
    return [teller.message(told, codes.QUERY, EventAction.EXECUTE, [who, here], [asked, *found])]


def _made(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.6: an analysis has made results; that it read images was told when it began."""
    made = teller.facts.made.get(_number(told.events[-1], "job"), {})
    return [_accessed(teller, told, EventAction.CREATE, made)] if made else []


def _accessed(teller: Teller, told: Told, action: EventAction, sop_classes: Mapping[str, int]) -> Message:
    subjects = [teller.study(told, sop_classes), teller.patient(told)]
    who = teller.actor(told, is_requestor=True)
    return teller.message(told, codes.INSTANCES_ACCESSED, action, [who], subjects)


def _purged(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.8, twice: the files are given up, and they are gone."""
    gone = told.events[-1].action == Action.STUDY_FILES_DELETED
    life_cycle = LifeCycle.PERMANENT_ERASURE if gone else LifeCycle.LOGICAL_DELETION
    subjects = [teller.study(told, life_cycle=life_cycle), teller.patient(told)]
    who = teller.actor(told, is_requestor=True)
    return [teller.message(told, codes.STUDY_DELETED, EventAction.DELETE, [who], subjects)]


def _configured(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.11, informative: who may come in, and where results go, was changed."""
    event = told.events[-1]
    changes = [f"{aet} {how}" for how in ("added", "removed") for aet in _texts(event, how)] + _texts(event, "fields")
    shown = [_alerted(change.split(" ", 1)[0], change) for change in changes[:_MOST_CHANGES]]
    if len(changes) > _MOST_CHANGES:
        shown.append(_alerted(teller.aet, f"and {len(changes) - _MOST_CHANGES} more changes"))
    return [_alert(teller, told, codes.NETWORK_CONFIGURATION, shown)]


def _trail_used(teller: Teller, told: Told) -> list[Message]:
    """A.5.3.2."""
    log = Subject(
        id=f"urn:pacsnode:{teller.aet}:audit",
        id_type=codes.URI,
        type=ObjectType.SYSTEM,
        role=ObjectRole.SECURITY_RESOURCE,
        name="Security Audit Log",
    )
    who = teller.actor(told, is_requestor=True)
    return [teller.message(told, codes.AUDIT_LOG_USED, EventAction.READ, [who], [log])]


def _bookkeeping(teller: Teller, told: Told) -> list[Message]:
    """DICOM has no message for it: our own event, in the form of the others."""
    event = told.events[-1]
    subjects = [teller.study(told), teller.patient(told)] if event.study_instance_uid else []
    participants = [teller.actor(told), *([teller.peer(told)] if event.peer else [])]
    own = teller.message(told, codes.own(event.action), EventAction.EXECUTE, participants, subjects)
    return [replace(own, types=())]


_MEANING: Mapping[str, Callable[[Teller, Told], list[Message]]] = {
    Action.NODE_STARTED: _activity,
    Action.NODE_STOPPED: _activity,
    Action.ASSOCIATION_REFUSED: _refused_caller,
    Action.INSTANCE_STORED: _received,
    Action.INSTANCE_DUPLICATE: _received,
    Action.INSTANCE_CONFLICT: _received,
    Action.INSTANCE_REFUSED: _received,
    Action.INSTANCE_LOST: _received,
    Action.INSTANCE_OWN_RESULT: _received,
    Action.INSTANCE_HELD_AGAIN: _received,
    Action.REVISION_REPORTED: _addressed,
    Action.REVISION_ADDRESSED: _addressed,
    Action.JOB_STARTED: _used,
    Action.JOB_DONE: _made,
    Action.JOB_FAILED: _used,
    Action.JOB_REQUEUED: _used,
    Action.DELIVERY_SENT: _sent,
    Action.DELIVERY_REPLACED: _sent,
    Action.DELIVERY_DEFERRED: _sent,
    Action.DELIVERY_DEAD: _sent,
    Action.DELIVERY_RESENT: _sent_again,
    Action.DELIVERY_RECONCILED: _changed,
    Action.STUDY_PURGED: _purged,
    Action.STUDY_FILES_DELETED: _purged,
    Action.STUDY_HELD: _changed,
    Action.STUDY_RELEASED: _changed,
    Action.STUDY_VIEWED: _used,
    Action.STUDIES_LISTED: _listed,
    Action.PEERS_APPLIED: _configured,
    Action.TRAIL_QUERIED: _trail_used,
}


def _description(told: Told) -> str:
    """Which events, and why: with number and digest a reader finds them, tells repeats, and can prove the trail."""
    last = told.events[-1]
    reason = _text(last, "reason") or _text(last, "because")
    count = len(told.events)
    which = f"event {last.number}" if count == 1 else f"{count} events up to {last.number}"
    return f"{which} of the trail, sha256 {last.digest}{'; ' if reason else ''}{reason}"


def _text(event: Sealed, name: str) -> str:
    value = details(event).get(name)
    return "" if value is None else str(value)


def _texts(event: Sealed, name: str) -> list[str]:
    value: Any = details(event).get(name)
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _number(event: Sealed, name: str) -> int:
    value = details(event).get(name)
    return value if isinstance(value, int) else -1

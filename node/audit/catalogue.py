"""Which audit message each event of the trail becomes: found by telling one of each, for the conformance statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from node.audit.chain import Sealed
from node.audit.codes import OWN_SYSTEM, Code
from node.audit.events import Action
from node.audit.grouping import UNTOLD, Told
from node.audit.meaning import Facts, Teller

_STUDY, _PEER, _JOB, _REVISION = "1.2.3", "PEER", 1, 1
_MADE = {"1.2.840.10008.5.1.4.1.1.2": 1}


@dataclass(frozen=True)
class Entry:
    """A message (EventID with its EventTypeCode, EventActionCode), and the events that are told by it."""

    event: str
    code: str
    action: str
    kind: str
    of: tuple[str, ...]


def catalogue() -> tuple[list[Entry], list[str]]:
    """(messages that are sent, events of which none is)."""
    found: dict[tuple[str, str, str, str], dict[str, None]] = defaultdict(dict)
    silent = []
    for action in Action:
        told = list(_told(action))
        for one in told:
            found[one][str(action)] = None
        if not told:
            silent.append(str(action))
    return [Entry(*one, tuple(of)) for one, of in sorted(found.items(), key=lambda each: each[0][1])], silent


def _told(action: Action) -> Iterable[tuple[str, str, str, str]]:
    if action in UNTOLD or action == Action.ASSOCIATION_CLOSED:  # which ends a message of what it brought
        return
    facts = Facts(made={_JOB: _MADE}, on_their_way={(_STUDY, _REVISION, _PEER): _MADE})
    for study in ("", _STUDY) if action in _OF_NO_STUDY else (_STUDY,):
        event = _event(action, study)
        for message in Teller("NODE", facts).tell(Told((event,), event.number)):
            kinds = (code for code in message.types if code.system != OWN_SYSTEM)
            yield message.event.meaning, message.event.value, str(message.action), ", ".join(map(_words, kinds))


_OF_NO_STUDY = frozenset({Action.INSTANCE_REFUSED, Action.INSTANCE_LOST})
"""Of which the study is not known in every case."""


def _event(action: Action, study: str) -> Sealed:
    detail = {"job": _JOB, "revision": _REVISION, "destinations": [_PEER], "added": [_PEER], "reason": "why"}
    return Sealed(1, "", str(action), "success", _PEER, study, "", "infer@host:1.0", detail, "", "")


def _words(code: Code) -> str:
    return f"{code.meaning} ({code.value})"

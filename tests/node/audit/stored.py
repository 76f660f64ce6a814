"""Events as the trail keeps them, and a study's way through the node as they tell it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from node.audit.chain import GENESIS, Sealed, seal
from node.audit.events import FAILED, FAILED_FOR_NOW, Action, Event

T0 = dt.datetime(2026, 1, 15, 7, 10, tzinfo=dt.UTC)
STUDY, PATIENT = "1.2.3", "P-1"
RECEIVER, DELIVERER, WORKER = "receive@node1:11112", "deliver@node1:42.1000", "infer@node1:43.1001"
AUDITOR = "auditor@node1"


class Trail:
    """Events sealed one after another, a second apart."""

    def __init__(self, first: int = 1) -> None:
        self.events: list[Sealed] = []
        self._next = first

    def add(self, action: Action, *, study: bool = False, outcome: str = "success", **fields: Any) -> Sealed:
        if study:
            fields = {"study_instance_uid": STUDY, "patient_id": PATIENT, **fields}
        event = Event(T0 + dt.timedelta(seconds=self._next), action, outcome, **fields)
        previous = self.events[-1].digest if self.events else GENESIS
        self.events.append(seal(event, number=self._next, previous=previous))
        self._next += 1
        return self.events[-1]

    def image(self, action: Action, number: int, association: str = "a-1", **fields: Any) -> Sealed:
        detail = {"association": association, "sop_instance_uid": f"{STUDY}.1.{number}", **fields.pop("detail", {})}
        return self.add(action, study=True, peer="CT1", actor=RECEIVER, detail=detail, **fields)

    def sent(self, number: int, action: Action = Action.DELIVERY_SENT, peer: str = "PACS", **fields: Any) -> Sealed:
        detail = {"sop_instance_uid": f"{STUDY}.9.{number}", "attempt": 1, **fields.pop("detail", {})}
        return self.add(action, study=True, peer=peer, actor=DELIVERER, detail=detail, **fields)


def one_of_each() -> list[Sealed]:
    """Every action there is, with the details that the node writes."""
    trail = Trail()
    job = {"job": 7, "pipeline": "low_dose_ct", "series_instance_uid": f"{STUDY}.1", "attempt": 1}
    routed = {"revision": 1, "results": 3, "deliveries": 3, "destinations": ["PACS", "BACKUP"]}
    for action in Action:
        subject, _, verb = action.partition(".")
        bad = verb in ("refused", "conflict", "lost", "failed", "dead")
        outcome = FAILED if bad else FAILED_FOR_NOW if verb in ("deferred", "breaker_opened") else "success"
        reason = {"reason": "why it was so"} if outcome != "success" else {}
        if subject == "instance":
            known = action not in (Action.INSTANCE_REFUSED, Action.INSTANCE_LOST)
            detail = {"association": "a-1", "sop_instance_uid": f"{STUDY}.1.1", **reason}
            trail.add(action, study=known, outcome=outcome, peer="CT1", actor=RECEIVER, detail=detail)
        elif subject == "delivery":
            trail.sent(1, action, outcome=outcome, detail=reason)
        elif subject == "job":
            trail.add(action, study=True, outcome=outcome, peer="CT1", actor=WORKER, detail={**job, **reason})
        elif subject == "revision":
            trail.add(action, study=True, peer="CT1", actor=WORKER, detail=routed)
        elif subject == "study":
            trail.add(action, study=True, actor=AUDITOR, detail={"purge": 1, "because": "90 days"})
        elif subject == "association":
            detail = {"association": "a-1", "host": "10.1.0.7", "called_aet": "NODE", **reason}
            trail.add(action, outcome=outcome, peer="CT1", actor=RECEIVER, detail=detail)
        elif action == Action.PEERS_APPLIED:
            change = {"added": ["PACS"], "changed": ["CT1"], "removed": [], "fields": ["CT1 host: 10.1.0.6 → 10.1.0.7"]}
            trail.add(action, actor=AUDITOR, detail=change)
        else:
            trail.add(action, outcome=outcome, peer="PACS" if subject == "peer" else "", actor=AUDITOR, detail=reason)
    return trail.events

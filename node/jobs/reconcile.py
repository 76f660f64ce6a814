"""Results follow what the PACS has now: patients are merged and orders changed while an analysis runs.

A peer with `reconcile` is asked before each round of a delivery. Results whose own values differ leave as copies with
the peer's; the files stay as they are. Where it tells nothing that can be used they leave as they are, and the timeline
of the study says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from node.audit.events import FAILED_FOR_NOW, Action
from node.db import receiving
from node.db.session import Database
from node.db.tables import RevisionRow
from node.dicom.reconcile import Coercion, Identity, differences, find_identity
from node.dicom.send import Outgoing
from node.errors import NodeError, NotUnderstood
from node.jobs.record import record
from node.jobs.stamp import stamp
from node.settings import Peer, Settings

_SHARE_OF_LEASE = 0.25
"""Longer a peer is not waited for, or the deliveries would be given to another worker meanwhile."""


@dataclass(frozen=True)
class Reconciled:
    """What one round sends.

    reason   why values stay that the peer may have otherwise; "" where none does
    """

    objects: tuple[Outgoing, ...]
    reason: str = ""


def reconcile(
    settings: Settings, database: Database, peer: Peer, revision_id: int, objects: Sequence[Outgoing]
) -> Reconciled:
    """Ask the peer, where it is to be asked, and give the objects what it says."""
    if not peer.reconcile or not objects:
        return Reconciled(tuple(objects))
    with database.read() as session:
        revision = receiving.revision(session, revision_id)
    patience_s = min(settings.dimse_timeout_s, settings.lease_s * _SHARE_OF_LEASE)
    impatient = settings.model_copy(update={"dimse_timeout_s": patience_s})
    try:
        identity = find_identity(impatient, peer, revision.study_instance_uid)
    except NodeError as exc:
        return Reconciled(tuple(objects), exc.reason)
    coerced = tuple(_coerced(settings, revision, identity, each) for each in objects)
    return Reconciled(coerced, _reason(peer, identity))


def _coerced(settings: Settings, revision: RevisionRow, identity: Identity, outgoing: Outgoing) -> Outgoing:
    try:
        values, removed = differences(outgoing.path, identity)
    except (NotUnderstood, OSError):
        return outgoing  # whoever sends it finds out, and says what is wrong with the file
    if not values:
        return outgoing
    coercion = Coercion(values, removed, stamp(settings, revision).made_at, settings.aet, revision.source_aet)
    return replace(outgoing, coercion=coercion)


def _reason(peer: Peer, identity: Identity) -> str:
    unusable = f"what {peer.aet} has cannot be used: {', '.join(identity.unusable)}" if identity.unusable else ""
    return "; ".join(filter(None, (identity.reason, unusable)))


def note(session: Session, peer: Peer, revision_id: int, sent: Collection[str], round_: Reconciled, actor: str) -> None:
    """What was sent with other values than it had, and what was sent as it is for want of an answer.

    sent   SOP Instance UIDs of what the peer has taken in this round
    """
    taken = [each for each in round_.objects if each.sop_instance_uid in sent]
    changed = [each.coercion for each in taken if each.coercion is not None]
    revision = receiving.revision(session, revision_id)
    if changed:
        attributes = sorted({keyword for coercion in changed for keyword in coercion.attributes})
        because = f"{peer.aet} has other values"
        detail = {"objects": len(changed), "attributes": attributes, "because": because}
        _record(session, Action.DELIVERY_RECONCILED, peer, revision, actor, "success", detail)
    if taken and round_.reason:
        detail = {"objects": len(taken) - len(changed), "reason": round_.reason}
        _record(session, Action.DELIVERY_UNRECONCILED, peer, revision, actor, FAILED_FOR_NOW, detail)


def _record(
    session: Session,
    action: Action,
    peer: Peer,
    revision: RevisionRow,
    actor: str,
    outcome: str,
    detail: dict[str, Any],
) -> None:
    record(
        session,
        action,
        outcome=outcome,
        peer=peer.aet,
        study_instance_uid=revision.study_instance_uid,
        patient_id=revision.study.patient_id,
        actor=actor,
        detail={"revision": revision.number, **detail},
    )

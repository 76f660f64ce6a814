"""Whom the results of a revision go to, by the routes of this moment; and once more, when a person asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import deliveries, peers, receiving, switches, work
from node.db.lifecycle import RevisionState
from node.db.session import Database
from node.db.tables import ResultRow, RevisionRow
from node.jobs.deliver import new_delivery
from node.jobs.record import record


def address(
    session: Session, revision: RevisionRow, *, jobs: Collection[int] | None = None
) -> tuple[Sequence[str], int]:
    """Put its results on their way, all or those of some jobs; (destinations of the route, deliveries made)."""
    route = peers.route_for(session, revision.source_aet)
    destinations = route.destinations if route is not None else ()
    results = [row for row in work.results_of_revision(session, revision.id) if jobs is None or row.job_id in jobs]
    shown = switches.shown(session, {row.job_id for row in results})
    results = [row for row in results if row.job_id in shown]
    count = 0
    for aet in destinations:
        peer = peers.peer(session, aet)
        for row in _chosen(results, peer.takes if peer is not None else ()):
            count += deliveries.add(session, new_delivery(row, aet, urgent=revision.urgent))
    return destinations, count


def _chosen(results: Sequence[ResultRow], kinds: Sequence[str]) -> list[ResultRow]:
    """Of each group of alternatives the most preferred that this peer is to get."""
    best: dict[str, ResultRow] = {}
    for row in results:
        if row.kind not in kinds:
            continue
        # a group is named within one job; objects of one series that are no alternatives have groups of their own
        key = f"{row.job_id}/{row.alternatives}"
        if key not in best or row.fallback < best[key].fallback:
            best[key] = row
    return list(best.values())


def address_again(database: Database, study_instance_uid: str | None, *, actor: str) -> tuple[int, int]:
    """What went nowhere, by the routes of today: (results on their way, revisions that still have nobody to go to).

    Of what a newer revision replaces only that goes out which its report refers to.
    """
    sent = left = 0
    with database.write() as session:
        for revision in deliveries.unsent(session, study_instance_uid=study_instance_uid):
            planned = [row for row in revision.study.revisions if row.planned_at is not None]
            jobs = work.jobs_with_results(session, revision.id)
            if planned[-1].id != revision.id:
                jobs &= work.standing(session, revision.study_instance_uid)
            destinations, count = address(session, revision, jobs=jobs)
            sent += count
            if count:
                _record(session, revision, destinations, count, actor)
            elif jobs:
                left += 1
    return sent, left


def _record(session: Session, revision: RevisionRow, destinations: Sequence[str], count: int, actor: str) -> None:
    receiving.move_revision(session, revision.id, RevisionState.REPORTED)
    record(
        session,
        Action.REVISION_ADDRESSED,
        peer=revision.source_aet,
        study_instance_uid=revision.study_instance_uid,
        patient_id=revision.study.patient_id,
        actor=actor,
        detail={"revision": revision.number, "deliveries": count, "destinations": list(destinations)},
    )

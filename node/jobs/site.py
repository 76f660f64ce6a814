"""Peers, routes and which analyses are in service, as the reviewed site file says."""

from __future__ import annotations

from node.audit.events import Action
from node.db import deliveries, peers
from node.db.session import Database
from node.jobs.record import now, record
from node.settings import Site


def apply_site(database: Database, site: Site, *, actor: str) -> dict[str, list[str]]:
    """Make the rows what the file says; {"added", "changed", "removed", "routes", "analyses", "fields"}.

    Audited where anything changes.
    """
    with database.write() as session:
        change = peers.replace_site(session, site, at=now())
        for aet in change["changed"]:  # what it could not be reached for may be mended
            deliveries.hasten(session, aet, at=now())
        if any(change.values()):
            record(session, Action.PEERS_APPLIED, actor=actor, detail=change)
    return change

"""Statements about peers and routes, and each peer's breaker."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from node.db import switches
from node.db.tables import PeerRow, RouteRow
from node.settings import Peer, Route, Site, Switch


def peers(session: Session) -> list[Peer]:
    return [Peer.model_validate(row.config) for row in session.scalars(select(PeerRow).order_by(PeerRow.aet))]


def peer(session: Session, aet: str) -> Peer | None:
    row = session.get(PeerRow, aet)
    return Peer.model_validate(row.config) if row is not None else None


def breakers(session: Session) -> Sequence[PeerRow]:
    return session.scalars(select(PeerRow).order_by(PeerRow.aet)).all()


def route_for(session: Session, source_aet: str) -> Route | None:
    """The route of this source, else the one of "*"."""
    row = session.get(RouteRow, source_aet) or session.get(RouteRow, "*")
    return Route.model_validate(row.config) if row is not None else None


def routes(session: Session) -> list[Route]:
    return [Route.model_validate(row.config) for row in session.scalars(select(RouteRow).order_by(RouteRow.source))]


def replace_site(session: Session, site: Site, *, at: dt.datetime) -> dict[str, list[str]]:
    """Make the rows what the file says; returns {"added", "changed", "removed"} AE titles, {"routes"} sources, the
    {"analyses"} that are in another state now, and the {"fields"} of all of these that are not as they were: each with
    its old and its new value.
    """
    old = {row.aet: row for row in session.scalars(select(PeerRow))}
    new = {peer.aet: peer.model_dump(mode="json") for peer in site.peers}
    change: dict[str, list[str]] = {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(aet for aet in new.keys() & old.keys() if old[aet].config != new[aet]),
        "removed": sorted(old.keys() - new.keys()),
    }
    change["fields"] = list(_differences({aet: row.config for aet, row in old.items()}, new, Peer(aet="-", host="")))
    for aet in change["removed"]:
        session.delete(old[aet])
    for aet in change["changed"]:
        old[aet].config, old[aet].applied_at = new[aet], at
        old[aet].failures, old[aet].open_until = 0, None
    for aet in change["added"]:
        session.add(PeerRow(aet=aet, config=new[aet], applied_at=at, failures=0))
    before = {row.source: row.config for row in session.scalars(select(RouteRow))}
    after = {route.source: route.model_dump(mode="json", by_alias=True) for route in site.routes}
    change["routes"] = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    change["fields"] += _differences(before, after, Route.model_validate({"from": "*", "to": ()}), prefix="route from ")
    was = _switched(session)
    is_now: dict[str, Any] = {one.name: one.model_dump(mode="json") for one in site.switches if one.state != "on"}
    change["analyses"] = sorted(name for name in was.keys() | is_now.keys() if was.get(name) != is_now.get(name))
    change["fields"] += _differences(was, is_now, Switch(name="low_dose_ct"), prefix="analysis ")
    switches.replace(session, site.switches, at=at)
    session.execute(delete(RouteRow))
    session.add_all(RouteRow(source=source, config=config) for source, config in after.items())
    return change


def _switched(session: Session) -> dict[str, Any]:
    rows = switches.not_on(session)
    return {name: {"name": name, "state": row.state, "reason": row.reason} for name, row in rows.items()}


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], default: Peer | Route | Switch, *, prefix: str = ""
) -> Iterator[str]:
    """ "PACS port: 104 → 11112". What is added or removed differs from what such a row is by default."""
    usual = default.model_dump(mode="json", by_alias=True)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, usual), after.get(name, usual)
        for field in sorted(usual.keys() - {"aet", "from", "name"}):
            if old.get(field) != new.get(field):
                yield f"{prefix}{name} {field}: {_in_words(old.get(field))} → {_in_words(new.get(field))}"


def _in_words(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def note_failure(session: Session, aet: str, *, limit: int, open_until: dt.datetime) -> bool:
    """Count one failed association; True where this opens the breaker."""
    row = session.scalar(select(PeerRow).where(PeerRow.aet == aet).with_for_update())
    if row is None:
        return False
    row.failures += 1
    if row.failures < limit:
        return False
    row.open_until = open_until
    return True


def note_success(session: Session, aet: str) -> bool:
    """True where it had failed before."""
    failed = session.execute(
        update(PeerRow).where(PeerRow.aet == aet, PeerRow.failures > 0).values(failures=0, open_until=None)
    )
    return bool(failed.rowcount)  # type: ignore[attr-defined]

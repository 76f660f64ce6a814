"""What `check` says of the audit repository: whether it answers, and how far it has been told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.cli.check import Tried
from node.cli.door import endings
from node.errors import NodeError

if TYPE_CHECKING:
    from node.settings import Settings
    from node.wiring import Node

_WHAT = "audit repository"
_PATIENCE = dt.timedelta(minutes=10)
"""So old an event that was not told is a fault."""


def repository(node: Node) -> Iterator[Tried]:
    """Needs a migrated database."""
    if not node.settings.audit_url:
        yield Tried(_WHAT, "ok", "none is set (PACSNODE_AUDIT_URL): the trail stays here")
        return
    yield _answers(node.settings)
    yield from _certificates(node.settings)
    yield _told(node)


def _answers(settings: Settings) -> Tried:
    from node.audit.syslog import Repository, probe
    from node.jobs.feed import context

    there = Repository.of(settings.audit_url)
    try:
        probe(there, tls=context(settings, there))
    except NodeError as exc:
        change = "see that it runs, and PACSNODE_AUDIT_URL, _CERTIFICATE, _KEY and _AUTHORITIES; until then events wait"
        return Tried(_WHAT, "fault", exc.reason, change)
    if there.scheme == "udp":
        return Tried(_WHAT, "note", f"{there}: by UDP nobody knows whether messages arrive", "use tls:// or tcp://")
    return Tried(_WHAT, "ok", f"{there} answers")


def _certificates(settings: Settings) -> Iterator[Tried]:
    from node.dicom.tls import ends
    from node.jobs.feed import with_files

    if settings.audit_certificate is None or not settings.audit_url.startswith("tls:"):
        return  # those of DICOM TLS are looked at with it
    try:
        yield from endings(ends(with_files(settings)))
    except NodeError as exc:
        yield Tried(
            _WHAT, "fault", exc.reason, "mend the files named by PACSNODE_AUDIT_CERTIFICATE, _KEY, _AUTHORITIES"
        )


def _told(node: Node) -> Tried:
    from node.db import feed

    with node.database.read() as session:
        row, lag = feed.position(session), feed.lag(session)
    if not lag.events:
        return Tried("audit messages", "ok", f"all {row.number} events of the trail have been told")
    waits = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(lag.oldest)
    why = f": {row.trouble}" if row.trouble else ""
    found = f"events that wait to be told: {lag.events}, the first of {lag.oldest[:16].replace('T', ' ')} UTC{why}"
    if waits < _PATIENCE and not row.trouble:
        return Tried("audit messages", "ok", found)
    change = "they go by themselves once the repository takes them; see that `clock` runs, and its log"
    return Tried("audit messages", "fault" if waits > _PATIENCE else "note", found, change)

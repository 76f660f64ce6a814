"""Whether received files are where they were put: there, gone for good, or out of reach for now."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from node.archive import Archive
from node.db import receiving
from node.db.session import Database
from node.db.tables import InstanceRow
from node.errors import SourceLost


def lost(database: Database, archive: Archive, rows: Sequence[InstanceRow]) -> list[InstanceRow]:
    """Those whose file is gone, while others that were kept at the same time are there.

    raises   OSError   the archive is out of reach: no file of that time is there, or the disk failed
    """
    gone = [row for row in rows if not archive.holds(row.path)]
    if gone and not _within_reach(database, archive, gone[0]):
        raise FileNotFoundError(errno.ENOENT, "no file of that time is there: the archive seems to be out of reach")
    return gone


def demand_all(database: Database, archive: Archive, rows: Sequence[InstanceRow]) -> None:
    """raises   SourceLost   some are gone
    OSError      the archive is out of reach
    """
    if gone := lost(database, archive, rows):
        raise SourceLost(words(gone, len(rows)))


def words(gone: Sequence[InstanceRow], of: int) -> str:
    """Which files are gone, for whoever has to find out why."""
    return (
        f"{len(gone)} of {of} received files are gone from the archive, though others are there; the first is that of"
        f" image {gone[0].sop_instance_uid}."
    )


def _within_reach(database: Database, archive: Archive, gone: InstanceRow) -> bool:
    """An empty mount point has no file; one that was written to meanwhile has newer ones only."""
    with database.read() as session:
        around = [row.path for row in receiving.kept_about_then(session, gone)]
    return any(archive.holds(path) for path in around)

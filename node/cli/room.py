"""What `check` says of the disk and of the retention: how full it is, what may go, and what does not go away."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.cli.check import Tried
from node.cli.words import size

if TYPE_CHECKING:
    from node.wiring import Node

_NEAR_PERCENT = 10.0
"""So far below the watermark somebody should think of room."""
_PATIENCE = dt.timedelta(hours=1)
"""The clock deletes what was given up long before."""
_NAMED = 3
_BY_HAND = "`pacsnode purge --older-than DAYS` says what could go"


def disk(node: Node) -> Tried:
    lack = node.archive.room()
    if lack is None:
        free = size(shutil.disk_usage(node.archive.root).free)
        used = f"{node.archive.used_percent():.1f} % used, watermark {node.archive.watermark_percent:.0f} %"
        return Tried("disk", "ok", f"{free} free for the archive ({used})")
    return Tried(
        "disk",
        "fault",
        f"{lack}: images are refused (0xA700)",
        f"{_BY_HAND}; or free disk space, or change PACSNODE_DISK_WATERMARK_PERCENT or PACSNODE_DISK_RESERVE_MB",
    )


def files(node: Node) -> Iterator[Tried]:
    """Whether the archive is the one of this database: a disk may not be mounted, a home may be another's."""
    from node.db import receiving

    with node.database.read() as session:
        groups = receiving.first_and_last_held(session)
    lacking = [f"{which} {len(paths)}" for which, paths in groups if not any(_holds(node, path) for path in paths)]
    if lacking:
        yield Tried(
            "files",
            "fault",
            f"of {' and '.join(lacking)} received objects that are to be here none is in {node.archive.root}",
            "see that its disk is mounted, and that all processes of this database share this folder",
        )


def unknown(node: Node) -> Iterator[Tried]:
    """What a database that was put back from an older copy does not know of."""
    from node.db import receiving

    try:
        with node.database.read() as session:
            found = sorted(receiving.unknown(session, node.archive.studies()))
    except OSError:
        return  # said of the archive itself
    if found:
        named = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        yield Tried(
            "unknown files",
            "note",
            f"studies of which received files are here and the database knows nothing: {len(found)} ({named})",
            "was it put back from an older copy, or away as they came? Have these studies sent again",
        )


def _holds(node: Node, path: str) -> bool:
    try:
        return node.archive.holds(path)
    except OSError:
        return False


def retention(node: Node) -> Iterator[Tried]:
    """What the policy would free now. Near the watermark a note, whatever it is."""
    from node.jobs.purge import Rules, verdicts

    rules = Rules.of(node.settings)
    near = node.archive.used_percent() > node.archive.watermark_percent - _NEAR_PERCENT
    if not rules.any:
        found = "no policy is set here (PACSNODE_KEEP_DAYS), so no file is ever deleted"
        change = f"{_BY_HAND}; PACSNODE_KEEP_DAYS makes the clock delete by itself"
        yield Tried("retention", "note" if near else "ok", found, change if near else "")
    else:
        all_held = list(verdicts(node.database, rules))
        due = [one.held for one in all_held if not one.kept]
        octets = size(sum(one.bytes for one in due))
        found = f"{_in_words(rules.days)}; due now: {len(due)} of {len(all_held)} studies, {octets}"
        change = "`pacsnode purge` says why the others are kept; fewer days or a larger disk make room"
        yield Tried("retention", "note" if near else "ok", found, change if near else "")
    yield from _left(node)


def _in_words(days: float | None) -> str:
    return "delivered studies are kept for ever" if days is None else f"delivered studies go after {days:g} days"


def _left(node: Node) -> Iterator[Tried]:
    from node.db import purging

    limit = dt.datetime.now(dt.UTC) - _PATIENCE
    with node.database.read() as session:
        late = [row for row in purging.unfinished(session) if row.purged_at < limit]
    if late:
        yield Tried(
            "deletion",
            "fault",
            f"studies whose files were given up and are still on disk: {len(late)}, the first since"
            f" {late[0].purged_at:%Y-%m-%d %H:%M} UTC ({late[0].study_instance_uid})",
            "see that `clock` runs, that it shares the archive and may delete there; its log says what stopped it",
        )

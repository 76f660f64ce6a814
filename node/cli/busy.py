"""Who keeps a command from writing: named where the system tells it, so that somebody can do something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.settings import Settings

PATIENCE_S = 10.0
"""So long a command that a person types waits for others that write."""
_WRITE_LOCK = 120
"""The byte of the file NAME-shm that a writer locks: WAL_WRITE_LOCK of SQLite's wal.c."""
_LOCKS = Path("/proc/locks")


def words(settings: Settings) -> str:
    """In a sentence. Nothing is repeated of what was asked for: it may name a patient."""
    if settings.database_url and not settings.database_url.startswith("sqlite"):
        who = "another session holds what is needed (pg_stat_activity and pg_locks name it)"
    else:
        pids = list(_writers(settings.home / "node.sqlite"))
        who = ", ".join(_name(pid, settings) for pid in pids) or "another process"
        who = f"{who} writes, or holds a transaction open"
    return f"the database is busy for longer than {PATIENCE_S:.0f} s: {who}. What was not done yet is as it was"


def _writers(database: Path) -> Iterator[int]:
    """Processes that hold SQLite's write lock, as Linux lists them (proc_locks(5)).

    The file itself is not opened: closing it would drop the locks that this process has on it.
    """
    try:
        inode = database.with_name(f"{database.name}-shm").stat().st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _, kind, _, mode, pid, file, first, last, *_ = [*line.replace("-> ", "").split(), "", ""]
        if (kind, mode) == ("POSIX", "WRITE") and file.endswith(f":{inode}") and _covers(first, last):
            yield int(pid)


def _covers(first: str, last: str) -> bool:
    return int(first) <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK)


def _name(pid: int, settings: Settings) -> str:
    """By the name that `up` gave it, else by its program."""
    for file in settings.run_dir.glob("*.pid"):
        if file.read_text(encoding="ascii").strip() == str(pid):
            return f"`{file.stem}` of this node (process {pid})"
    try:
        program = Path(f"/proc/{pid}/comm").read_text(encoding="utf8").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({program})"

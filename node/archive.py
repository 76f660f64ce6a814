"""Received and produced files on disk. What is said to be kept or deleted is so after a power cut too.

Nothing is ever overwritten.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from node.errors import OutOfResources, ResultLost

_UID = re.compile(r"[0-9.]{1,64}")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_OF_STUDIES = ("received", "results")
_STRAY_AFTER_S = 86400.0
"""A file that no row names, and that nobody has written for so long, is on its way to none."""
_TRIES = 3
_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY)
"""Of a folder that is not removed: something is in it, or it is a link to one, or a mount point."""


class Archive:
    """A folder with `spool` (on its way in, by receiver), `received` and `results`; one file system.

    Paths given out and taken are relative to the root, so the folder can be moved.
    """

    def __init__(self, root: Path, *, watermark_percent: float = 100.0, reserve_mb: int = 0) -> None:
        self.root = root
        self._watermark_percent = watermark_percent
        self._reserve_bytes = reserve_mb << 20

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    def prepare(self) -> None:
        """Make the folders."""
        for name in ("spool", "received", "results"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def spool_of(self, receiver: str) -> Path:
        """The folder into which this receiver takes, and which it alone clears: others take at the same time."""
        return self.spool / _NOT_IN_A_NAME.sub("-", receiver)

    def studies(self) -> Iterator[str]:
        """Study Instance UIDs that received files lie under, be they known to the database or not."""
        with os.scandir(self.root / "received") as entries:
            yield from (entry.name for entry in entries if _UID.fullmatch(entry.name))

    def path(self, relative: str) -> Path:
        return self.root / relative

    def holds(self, relative: str) -> bool:
        """Whether the file is there. It is opened: what other hosts did to a shared file system shows only so."""
        try:
            os.close(os.open(self.path(relative), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return False
        return True

    def used_percent(self) -> float:
        """Of the file system."""
        usage = shutil.disk_usage(self.root)
        return 100.0 * (usage.total - usage.free) / usage.total

    @property
    def watermark_percent(self) -> float:
        return self._watermark_percent

    def room(self) -> str | None:
        """None where there is room, else the reason in words."""
        usage = shutil.disk_usage(self.root)
        if (used_percent := self.used_percent()) > self._watermark_percent:
            return f"disk {used_percent:.1f} % full, watermark {self._watermark_percent:.0f} %"
        if usage.free < self._reserve_bytes:
            return f"only {usage.free >> 20} MiB of disk left, {self._reserve_bytes >> 20} MiB are held in reserve"
        return None

    def keep(self, arrived: Path, *, study: str, series: str, instance: str, sha256: str) -> str:
        """Move a synced spool file to its place, durably; the relative path.

        The digest is part of the name: two objects of one UID never meet (the second one becomes a conflict row).
        raises   OutOfResources
        """
        folder = Path("received") / _part(study) / _part(series)
        return self._move(arrived, folder / f"{_part(instance)}-{sha256[:16]}.dcm")

    def _move(self, arrived: Path, relative: Path) -> str:
        target = self.root / relative
        try:
            _replace(arrived, target, self.root)
            _sync_folder(target.parent)
        except OSError as exc:
            raise OutOfResources(f"the archive cannot keep the object: {exc.strerror}") from exc
        return str(relative)

    def write(self, data: bytes, *, study: str, revision: int, instance: str) -> tuple[str, str]:
        """A produced object, durable; (relative path, sha256). Writing the same bytes again changes nothing.

        raises   OutOfResources   no room
        """
        digest = hashlib.sha256(data).hexdigest()
        relative = Path("results") / _part(study) / str(revision) / f"{_part(instance)}-{digest[:16]}.dcm"
        target = self.root / relative
        try:
            if not (target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == digest):
                _make_durable_folder(target.parent, self.root)
                _write_whole(data, target)
        except OSError as exc:
            raise OutOfResources(f"the archive cannot keep a result: {exc.strerror}") from exc
        return str(relative), digest

    def delete(
        self, given_up: Collection[str], *, study: str, keep: Collection[str], before: Collection[str] = ()
    ) -> int:
        """Remove these files, durably, with folders that are then empty; how many were there. May be done again.

        In the folders of the study strays go too: files in neither list, such as a worker that was killed leaves. Not
        fresh ones, which may be waiting for their row.

        before   what `unlink` removed: its folders are looked after too
        raises   OSError   some are still there
        """
        found = [path for path in map(self._to_delete, given_up) if _unlink(path)]
        strays = [path for path in self._strays(study, keep) if _unlink(path)]
        files = [*map(self._to_delete, given_up), *map(self._to_delete, before), *strays]
        for folder in sorted({path.parent for path in files}):
            self._clear(folder)
        return len(found)

    def unlink(self, given_up: Collection[str]) -> int:
        """Remove these files, not durably: `delete` is to follow. How many were there. raises OSError"""
        return sum(_unlink(self._to_delete(path)) for path in given_up)

    def _to_delete(self, relative: str) -> Path:
        place = Path(relative)
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise OSError(errno.EINVAL, "not a file of the archive", relative)
        return self.root / place

    def _strays(self, study: str, keep: Collection[str]) -> Iterator[Path]:
        oldest = time.time() - _STRAY_AFTER_S
        for name in _OF_STUDIES:
            for path in (self.root / name / _part(study)).rglob("*"):
                is_named = str(path.relative_to(self.root)) in keep
                if not is_named and path.is_file() and path.stat().st_mtime < oldest:
                    yield path

    def _clear(self, folder: Path) -> None:
        """Remove it where it is empty, and its parents likewise; the first that stays knows durably what is gone."""
        last = {self.root, *(self.root / name for name in _OF_STUDIES)}
        while folder not in last:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as exc:
                if exc.errno not in _STAYS:
                    raise
                break
            folder = folder.parent
        _sync_folder(folder)

    def verify(self, relative: str, sha256: str) -> None:
        """raises   ResultLost   the file is gone or is not what was written."""
        try:
            found = hashlib.sha256(self.path(relative).read_bytes()).hexdigest()
        except OSError as exc:
            raise ResultLost(f"{Path(relative).name}: {exc.strerror}") from exc
        if found != sha256:
            raise ResultLost(f"{Path(relative).name}: its bytes are not what was written")


def _part(uid: str) -> str:
    if not _UID.fullmatch(uid) or set(uid) == {"."}:
        raise OutOfResources("a UID that is not one cannot name a file")
    return uid


def _replace(arrived: Path, target: Path, root: Path) -> None:
    """Again where a purge has taken the empty folder away in between."""
    for tries_left in reversed(range(_TRIES)):
        try:
            _make_durable_folder(target.parent, root)
            os.replace(arrived, target)
        except FileNotFoundError:
            if not tries_left or not arrived.exists():
                raise
        else:
            return


def _unlink(path: Path) -> bool:
    """False where it is gone already."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _make_durable_folder(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    _make_durable_folder(folder.parent, root)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _write_whole(data: bytes, target: Path) -> None:
    """All of it under that name, or nothing under any."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except OSError:
        with suppress(OSError):  # a disk that fails may fail here too: the first failure is told
            os.unlink(name)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Objects on their way in: one file each, written while it arrives, hashed, synced before anybody is told.

The names are our own counter's, never anything that a peer has said.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import secrets
from pathlib import Path

LOGGER = logging.getLogger(__name__)

_SUFFIX = ".part"
_PARTS_AT_ONCE = 512


class Spool:
    """A folder that belongs to one receiving process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)  # next() is atomic

    def sweep(self) -> int:
        """Make the folder; remove what a run that was killed has left: it was never answered for. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        left = list(self.folder.glob(f"*{_SUFFIX}"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def file(self, head: bytes) -> SpoolFile:
        """A new file that begins with `head`."""
        return SpoolFile(self.folder / f"{self._run}-{next(self._numbers):08d}{_SUFFIX}", head)


class SpoolFile:
    """One object. A disk that does not do its work shows in `failure`; the bytes that still come are let go.

    size     bytes of the data set so far, without the head
    """

    def __init__(self, path: Path, head: bytes) -> None:
        self.path = path
        self.size = 0
        self.failure: str | None = None
        self._hash = hashlib.sha256()
        self._head = head
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            self._fail(exc)

    @property
    def sha256(self) -> str:
        """Of the data set's bytes, without the head."""
        return self._hash.hexdigest()

    def write(self, pieces: list[memoryview]) -> None:
        if self.failure is not None:
            return
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)
        if self._head:
            pieces = [memoryview(self._head), *pieces]
            self._head = b""
        try:
            _write_all(self._descriptor, pieces)
        except OSError as exc:
            self._fail(exc)

    def sync(self) -> None:
        """Let the bytes reach the disk, and close. The folder's entry is synced by whoever moves the file."""
        if self._descriptor < 0:
            return
        try:
            os.fdatasync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        except OSError as exc:
            self._fail(exc)

    def discard(self) -> None:
        """Close, and remove the file where nobody has moved it away."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self.path.unlink(missing_ok=True)

    def _fail(self, exc: OSError) -> None:
        LOGGER.error("the spool cannot be written: %s", exc)
        self.failure = f"the object could not be written ({exc.strerror})"
        self.discard()


def _write_all(descriptor: int, pieces: list[memoryview]) -> None:
    first = 0
    while first < len(pieces):
        written = os.writev(descriptor, pieces[first : first + _PARTS_AT_ONCE])
        while first < len(pieces) and written >= len(pieces[first]):
            written -= len(pieces[first])
            first += 1
        if written:
            pieces[first] = pieces[first][written:]

"""The database is away: said in a line when it goes and when it is back, and what was to be recorded meanwhile is.

Nothing that a sender was told rests on this: an object is taken only once its row is committed. What waits here is
what the trail is to know of the time: associations that ended, objects and callers that were turned away.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from node.db import trail
from node.db.session import Database, is_away, why_away
from node.errors import OutOfResources

log = logging.getLogger(__name__)

AWAY = "the database does not answer: try again later"
_LOOK_S = 1.0
_MOST_OWED = 10_000

Act = Callable[[Session], None]


def persist(do: Callable[[], None], *, patience_s: float) -> None:
    """Again while the database is away: the work of an hour is not thrown away for its minute. raises SQLAlchemyError

    do      one transaction that may be tried again
    """
    until, told = monotonic() + patience_s, False
    while True:
        try:
            do()
        except SQLAlchemyError as exc:
            if not is_away(exc) or monotonic() > until:
                raise
            if not told:
                log.error("the database is away (%s): what was made is kept until it is back", why_away(exc))
            told = True
            sleep(_LOOK_S)
        else:
            break
    if told:
        log.warning("the database is back: what was made is entered")


class Outage:
    """Of one process. Thread safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owed: deque[Act] = deque()
        self._lost = 0
        """Acts beyond what is remembered."""
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None
        self._over = threading.Event()

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Around what cannot be done without the database. raises OutOfResources where it is away"""
        try:
            yield
        except SQLAlchemyError as exc:
            if not is_away(exc):
                raise
            self.begin(exc)
            raise OutOfResources(AWAY) from None

    def begin(self, exc: SQLAlchemyError) -> None:
        """It is away, as this error shows; said once until it is back."""
        with self._lock:
            if self._watch is not None:
                return
            self._watch = threading.Thread(target=self._wait, name="outage", daemon=True)
        log.error("the database is away (%s): nothing is taken until it is back", why_away(exc))
        self._watch.start()

    def write(self, act: Act) -> None:
        """In a transaction of its own: at once, or when the database is back."""
        while not self._owe(act):
            try:
                with self._database.write() as session:
                    act(session)
            except SQLAlchemyError as exc:
                if not is_away(exc):
                    raise
                self.begin(exc)
            else:
                return

    def _owe(self, act: Act) -> bool:
        """False where the database is not known to be away."""
        with self._lock:
            if self._watch is None:
                return False
            if len(self._owed) < _MOST_OWED:
                self._owed.append(act)
            else:
                self._lost += 1
            return True

    def close(self) -> None:
        """What is still owed is written, if that is possible now."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
        self._pay()
        if self._owed:
            log.error("events that could not be recorded, since the database is away: %d", len(self._owed))

    def _wait(self) -> None:
        began = monotonic()
        while not self._over.wait(_LOOK_S):
            if not self._pay():
                continue
            with self._lock:
                if self._owed:  # meanwhile
                    continue
                self._watch, lost, self._lost = None, self._lost, 0
            log.warning("the database is back after %.0f s", monotonic() - began)
            if lost:
                log.error("events of the outage beyond what is remembered, which the trail lacks: %d", lost)
            return

    def _pay(self) -> bool:
        """Whether the database did all that was owed."""
        try:
            with self._database.write() as session:
                trail.rewrite_head(session)
            while self._owed:
                self._do(self._owed[0])
                self._owed.popleft()
        except SQLAlchemyError as exc:
            if not is_away(exc):
                raise
            return False
        return True

    def _do(self, act: Act) -> None:
        try:
            with self._database.write() as session:
                act(session)
        except SQLAlchemyError as exc:
            if is_away(exc):
                raise
            log.exception("an event of the outage could not be recorded")

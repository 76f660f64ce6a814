"""The trail to the audit repository: in order, nothing left out, however long the repository is away.

The trail is the spool: a row says up to which event the repository has been told, and nothing else is kept. A message
is told again where nobody knows whether it was taken, and so is what was taken just before an outage: a repository that
crashes loses what it has read and not yet written. Event number and digest show repeats. Telling makes no event.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from node.audit.grouping import Grouping, Told, block_of
from node.audit.syslog import Repository, deliver, syslog_message
from node.audit.xml import to_xml
from node.db import feed, trail
from node.db.session import Database, is_away, why_away
from node.db.trail import Question
from node.dicom.tls import client_context
from node.errors import NodeError
from node.jobs import telling
from node.jobs.record import is_dead, now
from node.settings import Settings

log = logging.getLogger(__name__)

_LOOK_S = 2.0
"""Between two looks at the trail. Each with something new in it costs a connection."""
_EVENTS = 1000
"""Of one look."""
_LEASE = dt.timedelta(minutes=5)
"""Longer than one connection can last."""
_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST_WORDS_S = 60.0
"""What was taken in so long before the last success of all is told again after an outage, once."""
LEAVE_S = 5.0
"""What is under way gets so long to end when the node stops; what then has not ended is told again."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
"""While the repository takes nothing."""


@dataclass(frozen=True)
class _Batch:
    messages: Sequence[bytes]
    number: int
    """The last event that was looked at."""


class Feed:
    """Looks at the trail again and again until told to stop. Of several, on any hosts, one tells."""

    def __init__(self, settings: Settings, database: Database, *, actor: str) -> None:
        self._settings = settings
        self._database = database
        self._actor = actor
        self._repository = Repository.of(settings.audit_url)
        self._lease_until = _NEVER
        self._grouping = Grouping()
        self._position = -1
        self._batch: _Batch | None = None
        self._lately: deque[tuple[float, int]] = deque()
        """When a batch was taken, and the position before it."""
        self._told_twice = 0
        """Up to here nothing is told once more, or a repository that comes and goes would never hear the end."""
        self._away_since: float | None = None
        self._trouble = ""
        self._broken = ""

    def run(self, stop: threading.Event) -> None:
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                wait_s = self._turn(wait_s)
            except Exception as exc:  # noqa: BLE001  (entry point: the feed goes on, whatever broke)
                self._failed(exc)
                wait_s = _LONGEST_WAIT_S
            else:
                self._broken = ""
        self._leave()

    def _turn(self, waited_s: float) -> float:
        """One look; how long to wait before the next."""
        try:
            went_on = self.tell_more()
        except NodeError as exc:
            self._note(exc)
            return min(max(2 * waited_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        return 0.0 if went_on else _LOOK_S

    def tell_more(self) -> bool:
        """Tell what the next look finds; whether there was anything. raises PeerUnreachable, ConfigurationError"""
        if not self._is_ours():
            return False
        if self._batch is None:
            self._batch = self._look()
        if self._batch is None:
            return False
        if self._batch.messages:
            deliver(self._repository, self._batch.messages, tls=context(self._settings, self._repository))
            self._is_back()
            self._remember()
        with self._database.write() as session:
            until = now() + _LEASE
            kept = feed.advance(session, self._actor, self._batch.number, at=now(), until=until)
        self._position = self._batch.number if kept else -1
        self._lease_until = until if kept else _NEVER
        self._batch = None
        return kept

    def _is_ours(self) -> bool:
        at = now()
        if self._lease_until - at > _LEASE / 2:
            return True
        with self._database.write() as session:
            holder = feed.position(session).holder
            dead = holder if is_dead(holder) else ""
            ours = feed.claim(session, self._actor, at=at, until=at + _LEASE, dead=dead)
        if ours:
            self._lease_until = at + _LEASE
        else:
            self._batch = None
        return ours

    def _look(self) -> _Batch | None:
        with self._database.read() as session:
            position = feed.position(session).number
            if position != self._position:
                self._go_to(session, position)
            question = Question(after=position, limit=_EVENTS)
            events = [telling.sealed(row) for row in trail.find(session, question)]
            if not events:
                return None
            told = [one for event in events for one in self._grouping.take(event)] + self._grouping.rest()
            return _Batch(self._messages(session, told), events[-1].number)

    def _go_to(self, session: Session, position: int) -> None:
        """Hold back what somebody who had told everything up to there would hold back."""
        self._grouping, self._position = Grouping(), position
        after = block_of(position)
        while rows := trail.find(session, Question(after=after, up_to=position, limit=_EVENTS)):
            for row in rows:
                self._grouping.take(telling.sealed(row))
            after = rows[-1].number
        self._grouping.rest()

    def _messages(self, session: Session, told: Sequence[Told]) -> list[bytes]:
        origin = telling.origin(self._settings)
        found = telling.messages(session, self._settings, sorted(told, key=lambda one: one.number))
        return [syslog_message(to_xml(one, origin), at=one.at, success=one.outcome == 0) for one in found]

    # -- trouble is said once, and so is its end

    def _note(self, exc: NodeError) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            log.warning("audit messages are not taken and wait in the trail: %s", exc.reason)
            self._go_back()
        if exc.reason != self._trouble:
            self._trouble = exc.reason
            with self._database.write() as session:
                feed.note_trouble(session, self._actor, exc.reason, at=now())

    def _remember(self) -> None:
        taken = monotonic()
        self._lately.append((taken, self._position))
        while taken - self._lately[0][0] > _LAST_WORDS_S:
            self._lately.popleft()

    def _go_back(self) -> None:
        """To before what was taken last."""
        if not self._lately:
            return
        before, self._told_twice = max(self._lately[0][1], self._told_twice), self._position
        self._lately.clear()
        with self._database.write() as session:
            feed.go_back(session, self._actor, before)
        self._batch, self._position = None, -1

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.info("audit messages are taken again, after %.0f s", monotonic() - self._away_since)
        self._away_since, self._trouble = None, ""

    def _failed(self, exc: Exception) -> None:
        """With its traceback the first time only."""
        self._batch, self._position = None, -1
        kind = type(exc).__name__
        if kind != self._broken and isinstance(exc, SQLAlchemyError) and is_away(exc):
            log.error("the database is away (%s): the audit repository is told nothing", why_away(exc))
        elif kind != self._broken:
            log.exception("the trail could not be told; it is tried again")
        self._broken = kind

    def _leave(self) -> None:
        """So that the next one need not wait for the lease to end."""
        try:
            with self._database.write() as session:
                feed.release(session, self._actor)
        except SQLAlchemyError as exc:  # nothing is lost by it but minutes
            log.warning("the lease of the audit feed could not be given back (%s)", type(exc).__name__)


def context(settings: Settings, repository: Repository) -> ssl.SSLContext | None:
    """For a connection to the repository, from the files as they are now. raises ConfigurationError"""
    return client_context(with_files(settings)) if repository.scheme == "tls" else None


def with_files(settings: Settings) -> Settings:
    """With the repository's TLS files in the place of DICOM's, where it has its own."""
    key = settings.audit_key if settings.audit_certificate is not None else settings.tls_key
    files = {
        "tls_certificate": settings.audit_certificate or settings.tls_certificate,
        "tls_key": key,
        "tls_authorities": settings.audit_authorities or settings.tls_authorities,
    }
    return settings.model_copy(update=files)


def start(settings: Settings, database: Database, stop: threading.Event, *, actor: str) -> threading.Thread:
    """Tell until `stop`, where there is a repository: in a thread, so that a slow one keeps nothing else waiting."""

    def tell() -> None:
        if settings.audit_url:
            Feed(settings, database, actor=actor).run(stop)

    thread = threading.Thread(target=tell, name="audit feed", daemon=True)
    thread.start()
    return thread

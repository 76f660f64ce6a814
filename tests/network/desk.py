"""A desk that writes everything down, and says what it was told to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from node.dicom.commit import CommitmentReport
from node.dicom.receive import Arrival, Caller

T = TypeVar("T")

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Taken:
    """An arrival together with its file, as it was when offered."""

    arrival: Arrival
    file: bytes


class RecordingDesk:
    """`on_admit`, `on_take` and `room` may be set by a test; the first two may raise."""

    def __init__(self) -> None:
        self.on_admit: Callable[[Caller], None] = lambda caller: None
        self.on_take: Callable[[Arrival], None] = lambda arrival: None
        self.room: str | None = None
        self.callers: list[Caller] = []
        self.strangers: list[tuple[str, str]] = []
        self.taken: list[Taken] = []
        self.losses: list[tuple[str, str, str]] = []
        self.not_accepted: list[tuple[str, ...]] = []
        self.ends: list[tuple[str, str, int, int]] = []
        self.reports: list[CommitmentReport] = []
        self._changed = threading.Condition()

    def admit(self, caller: Caller) -> str:
        self.on_admit(caller)
        with self._changed:
            self.callers.append(caller)
            self._changed.notify_all()
            return f"association-{len(self.callers)}"

    def turned_away(self, host: str, reason: str) -> None:
        self._note(self.strangers, (host, reason))

    def take(self, arrival: Arrival) -> None:
        taken = Taken(arrival, arrival.path.read_bytes())
        self.on_take(arrival)
        self._note(self.taken, taken)

    def lost(self, association: str, sop_instance_uid: str, reason: str) -> None:
        self._note(self.losses, (association, sop_instance_uid, reason))

    def left(self, association: str, outcome: str, stored: int, refused: int, not_accepted: Sequence[str]) -> None:
        self._note(self.not_accepted, tuple(not_accepted))
        self._note(self.ends, (association, outcome, stored, refused))

    def committed(self, report: CommitmentReport) -> None:
        self._note(self.reports, report)

    def has_room(self) -> str | None:
        return self.room

    def wait(self, what: Callable[[RecordingDesk], object]) -> None:
        """Until `what` holds; fails after a generous time."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(what(self)), PATIENCE_S), "it never came to that"

    def _note(self, where: list[T], entry: T) -> None:
        with self._changed:
            where.append(entry)
            self._changed.notify_all()

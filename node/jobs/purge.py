"""Retention: which studies' files may be deleted, and their deletion.

Two steps, so that a crash at any point leaves what the next round ends. First every row of the study is marked, and the
trail says so, in one transaction: from then on nothing uses its files. Then the files go, and only once the disk has
forgotten them the purge is over. The other way round a row would claim a file that is gone. Both steps hold the study's
row, against which nothing can come in: what is sent again meanwhile waits, and then finds out (node.jobs.entry).
"""

from __future__ import annotations

import datetime as dt
import errno
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import Action
from node.db import purging
from node.db.purging import Held
from node.db.session import Database
from node.db.tables import PurgeRow, StudyRow
from node.jobs.record import now, record
from node.settings import Settings

log = logging.getLogger(__name__)

_TOGETHER = 200
"""Studies that one look asks about."""
_FILES_TOGETHER = 200
"""Files that go in one transaction: on SQLite nobody else can write meanwhile, and a disk may take its time."""
_BETWEEN_S = 0.1
"""Left to others between two transactions: who waits for SQLite looks that often."""
_PAUSE = dt.timedelta(minutes=10)
"""Between two walks through all studies."""


@dataclass(frozen=True)
class Rules:
    """Days after the last thing that happened to a study; None: for ever. `asked` names a person's own choice."""

    days: float | None
    failed: float | None
    conflicts: float | None
    asked: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(settings.keep_days or None, settings.keep_failed_days or None, settings.keep_conflict_days or None)

    @property
    def any(self) -> bool:
        return not (self.days is self.failed is self.conflicts is None)


@dataclass(frozen=True)
class Verdict:
    """May the files of this study go?"""

    held: Held
    kept: str
    """Why not; empty where they may."""
    because: str
    """Why they may, or might but for their age."""


def judge(one: Held, rules: Rules, at: dt.datetime) -> Verdict:
    """What is held or under way is never deleted, whatever the rules say."""
    if one.legal_hold:
        return Verdict(one, f"legal hold: {one.legal_hold}", "")
    under_way = [
        *one.under_way,
        *([f"jobs to be done: {one.open_jobs}"] if one.open_jobs else []),
        *([f"results on their way: {one.open_deliveries}"] if one.open_deliveries else []),
    ]
    if under_way:
        return Verdict(one, "not finished: " + ", ".join(under_way), "")
    failings = _failings(one)
    if failings:
        because, days = ", ".join(failings), rules.failed
    else:
        because, days = ("delivered and proven" if one.results else "nothing of it is to be delivered"), rules.days
    if one.conflicts:
        aside = f"objects kept aside with other bytes: {one.conflicts}"
        because = f"{because}, {aside}"
        days = None if days is None or rules.conflicts is None else max(days, rules.conflicts)
    if days is None:
        return Verdict(one, f"no limit is set for: {because}", because)
    try:
        due = one.since + dt.timedelta(days=days)
    except OverflowError:
        return Verdict(one, f"no limit is reached for: {because}", because)
    if at < due:
        return Verdict(one, f"until {due:%Y-%m-%d %H:%M} UTC ({days:g} days): {because}", because)
    return Verdict(one, "", f"{because}, for {days:g} days" if days else because)


def _failings(one: Held) -> list[str]:
    """Why a person may still want the files: to send them, or to try again."""
    told = {
        "analyses that failed": one.failed_analyses,
        "results refused for good": one.dead_letters,
        "results delivered by the peer's word alone": one.unproven,
        "revisions whose results went nowhere": one.unsent,
        "reports that were given up": one.unreported,
    }
    return [f"{what}: {count}" for what, count in told.items() if count]


def verdicts(database: Database, rules: Rules) -> Iterator[Verdict]:
    """All studies that hold files, by UID, each as it stands now."""
    after = ""
    while True:
        found = _look(database, rules, after)
        if not found:
            return
        yield from found
        after = found[-1].held.study_instance_uid


def _look(database: Database, rules: Rules, after: str) -> list[Verdict]:
    with database.read() as session:
        found = purging.held(session, purging.holding(session, after=after, most=_TOGETHER))
    return [judge(one, rules, now()) for one in found]


def verdict(database: Database, rules: Rules, study_instance_uid: str) -> Verdict | None:
    """None where this study was never received, or holds no file."""
    with database.read() as session:
        study = session.get(StudyRow, study_instance_uid)
        if study is None or study.purged_at is not None:
            return None
        [one] = purging.held(session, [study_instance_uid])
    return judge(one, rules, now())


class OutOfReach(OSError):
    """The archive is not where it was. Nothing is deleted, and nothing is said to be."""


@dataclass
class _Done:
    """How far one deletion has come."""

    gone: dict[int, set[str]] = field(default_factory=dict)
    """By the newest purge: what came back and was given up again is there again."""
    found: int = 0


@dataclass(frozen=True)
class Retention:
    """Deletes by rules."""

    database: Database
    archive: Archive
    actor: str

    def purge(self, study_instance_uid: str, rules: Rules, *, wait: bool = True) -> PurgeRow | None:
        """Give the files up, then delete them; None where that is no longer right, or where others have the study.

        raises   OSError      some could not be deleted: they are given up all the same, and the next round goes on
                 OutOfReach   nothing was given up
        """
        row = self._give_up(study_instance_uid, rules, wait=wait)
        if row is not None:
            self.delete(study_instance_uid, wait=wait)
        return row

    def _give_up(self, uid: str, rules: Rules, *, wait: bool) -> PurgeRow | None:
        with self.database.write() as session:
            if not purging.lock_study(session, uid, wait=wait):
                return None
            [one] = purging.held(session, [uid])
            judged = judge(one, rules, now())
            if judged.kept:
                return None
            if not one.files:  # what came last was refused
                purging.rest(session, uid, at=now())
                return None
            self._demand_reach(session, uid, purging.paths(session, uid)[1])
            why = f"{rules.asked}: {judged.because}" if rules.asked else f"retention policy: {judged.because}"
            row = purging.give_up(session, one, at=now(), because=why, actor=self.actor)
            counted = {"images": one.images, "results": one.results, "conflicts": one.conflicts}
            self._record(session, Action.STUDY_PURGED, row, bytes=one.bytes, because=why, **counted)
        return row

    def unfinished(self) -> list[str]:
        """Studies whose files were given up, and may still be there."""
        with self.database.read() as session:
            return list(dict.fromkeys(row.study_instance_uid for row in purging.unfinished(session)))

    def delete(self, uid: str, *, wait: bool = True) -> None:
        """The second step: what was given up goes. Harmless when done twice. raises OSError"""
        for _ in self.deleting(uid, wait=wait):
            time.sleep(_BETWEEN_S)

    def steps(self, uid: str, rules: Rules) -> Iterator[None]:
        """As `purge`, a little at every step, and only where nobody else has the study."""
        if self._give_up(uid, rules, wait=False) is not None:
            yield from self.deleting(uid, wait=False)

    def deleting(self, uid: str, *, wait: bool) -> Iterator[None]:
        """As `delete`, in short transactions with a step behind each but the last."""
        done = _Done()
        while self._delete_some(uid, done, wait=wait):
            yield

    def _delete_some(self, uid: str, done: _Done, *, wait: bool) -> bool:
        """Whether more is left to do, and nobody else has the study."""
        with self.database.write() as session:
            if not purging.lock_study(session, uid, wait=wait):
                return False
            rows = purging.open_purges(session, uid)
            if not rows:
                return False
            given_up, keep = purging.paths(session, uid)
            gone = done.gone.setdefault(rows[-1].id, set())
            left = sorted(given_up - gone)
            if len(left) > _FILES_TOGETHER:
                done.found += self.archive.unlink(left[:_FILES_TOGETHER])
                gone.update(left[:_FILES_TOGETHER])
                return True
            done.found += self.archive.delete(left, study=uid, keep=keep, before=gone)
            if not done.found:  # an earlier attempt had deleted all, or
                self._demand_reach(session, uid)
            for row in rows:
                row.ended_at = now()
            self._record(session, Action.STUDY_FILES_DELETED, rows[-1], files_found=done.found)
        log.info("study %s: %d files deleted (%s)", uid, done.found, rows[-1].because)
        return False

    def _demand_reach(self, session: Session, uid: str, own: Iterable[str] = ()) -> None:
        """Files of an archive that is not mounted look as if they had been deleted already, and would come back.

        raises   OutOfReach   neither of these files is there, nor any that came at about the same time
        """
        others = purging.about_then(session, uid)
        if others and not any(map(self.archive.holds, chain(others, own))):
            raise OutOfReach(errno.ENOENT, "no file of that time is there: the archive seems to be out of reach")

    def _record(self, session: Session, action: Action, row: PurgeRow, **more: object) -> None:
        study = session.get_one(StudyRow, row.study_instance_uid)
        record(
            session,
            action,
            study_instance_uid=study.study_instance_uid,
            patient_id=study.patient_id,
            actor=self.actor,
            detail={"purge": row.id, **more},
        )


class Housekeeping:
    """Retention by the policy, a little at every tick: a look at some studies, or the files of one deleted."""

    def __init__(self, settings: Settings, database: Database, archive: Archive, *, actor: str) -> None:
        self._rules = Rules.of(settings)
        self._database = database
        self._retention = Retention(database, archive, actor)
        self._earlier: list[str] = []
        """Studies that were given up, and whose files somebody did not delete to the end."""
        self._due: list[str] = []
        self._uid = ""
        self._steps: Iterator[None] = iter(())
        """What is left to do with that study."""
        self._after = ""
        self._not_before = dt.datetime.min.replace(tzinfo=dt.UTC)

    def tick(self) -> None:
        """A disk that does not do its work is told in the log, and asked again after a pause."""
        if self._goes_on():
            return
        if not (self._earlier or self._due) and now() >= self._not_before:
            self._look()
        if self._earlier:
            self._uid = self._earlier[0]
            self._steps = self._retention.deleting(self._uid, wait=False)
        elif self._due:
            self._uid = self._due.pop(0)
            self._steps = self._retention.steps(self._uid, self._rules)
        self._goes_on()

    def _goes_on(self) -> bool:
        """One step with the study that was begun; False where none was."""
        try:
            if next(self._steps, self) is None:
                return True
        except OutOfReach as exc:
            log.error("study %s: its files were not deleted (%s)", self._uid, exc.strerror)
            self._rest()
        except OSError as exc:
            log.error("study %s: files that were given up could not be deleted (%s)", self._uid, exc.strerror)
            if not self._earlier:
                self._rest()
        self._earlier = [uid for uid in self._earlier if uid != self._uid]
        return False

    def _look(self) -> None:
        if not self._after:
            self._earlier = self._retention.unfinished()
        found = _look(self._database, self._rules, self._after) if self._rules.any else []
        self._due = [one.held.study_instance_uid for one in found if not one.kept]
        if found:
            self._after = found[-1].held.study_instance_uid
        else:
            self._rest()

    def _rest(self) -> None:
        self._due, self._after, self._not_before = [], "", now() + _PAUSE

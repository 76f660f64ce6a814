"""Statements about analyses that are not in service, and about jobs whose results are for nobody."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from node.db.lifecycle import JobState
from node.db.tables import JobRow, RevisionRow, StudyRow, SwitchRow
from node.settings import Switch

SWITCHED_OFF, ON_TRIAL = "switched off", "on trial"
WITHHELD = (SWITCHED_OFF, ON_TRIAL)
"""Outcomes of analyses whose results, where there are any, are shown to nobody and sent to nobody."""
LEFT_OUT = "withheld"
"""In the selection of a revision: why its report leaves out what came of these images, as its reader is told."""


def not_on(session: Session) -> dict[str, SwitchRow]:
    """By the name of the analysis; empty where all are in service."""
    return {row.analysis: row for row in session.scalars(select(SwitchRow).order_by(SwitchRow.analysis))}


def is_on(session: Session, analysis: str) -> bool:
    return session.get(SwitchRow, analysis) is None


def is_off(session: Session, analysis: str) -> SwitchRow | None:
    """The row of an analysis that is not to run."""
    row = session.get(SwitchRow, analysis)
    return row if row is not None and row.state == "off" else None


def in_words(row: SwitchRow) -> str:
    """What a reader is told instead of results. Of a trial the same whatever came of it, and not why there is one:
    who reads that is to think of nothing but that nothing is said.
    """
    if row.state == "off":
        reason = " ".join(row.reason.split())
        stop = "" if reason.endswith((".", "!", "?")) else "."
        return f"The analysis {row.analysis} is switched off by this site: {reason}{stop} No result of it is shown."
    return (
        f"The analysis {row.analysis} is on trial at this site: its results are not shown, and nothing in this report "
        "rests on them."
    )


def outcome(row: SwitchRow) -> str:
    """Of a job that came to its end, or would begin, while its analysis is not in service."""
    return SWITCHED_OFF if row.state == "off" else ON_TRIAL


def replace(session: Session, switches: Sequence[Switch], *, at: dt.datetime) -> None:
    """Make the rows what the file says; how long an analysis has been in its state goes on."""
    since = {(name, row.state): row.since for name, row in not_on(session).items()}
    session.execute(delete(SwitchRow))
    session.add_all(
        SwitchRow(analysis=one.name, state=one.state, reason=one.reason, since=since.get((one.name, one.state), at))
        for one in switches
        if one.state != "on"
    )


def withhold(session: Session, job_id: int, *, outcome: str, reason: str) -> bool:
    """What this analysis found is for nobody from now on; False where there is nothing, or it is so already."""
    done = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == JobState.DONE, JobRow.outcome.in_(_SHOWN))
        .values(outcome=outcome, reason=reason)
        .execution_options(synchronize_session="fetch")
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


_SHOWN = ("processed", "failed in part")


def is_told_of(job: JobRow) -> bool:
    """Whether a report that does not leave it out tells what this analysis found."""
    return job.outcome in (*_SHOWN, *WITHHELD)


def is_shown() -> ColumnElement[bool]:
    """Of a job: its results, where it has any, are for those whom they are addressed to."""
    return JobRow.outcome.not_in(WITHHELD)


def shown(session: Session, job_ids: Collection[int]) -> set[int]:
    """Those of these jobs whose results are for anybody."""
    return set(session.scalars(select(JobRow.id).where(JobRow.id.in_(job_ids), is_shown())))


def to_be_done_again(session: Session) -> dict[str, list[str]]:
    """{analysis: Study Instance UIDs} of what the newest report leaves out, in the order in which the studies came."""
    found: dict[str, list[str]] = {}
    for revision in session.scalars(
        select(RevisionRow)
        .join(JobRow, JobRow.revision_id == RevisionRow.id)
        .join(StudyRow, StudyRow.study_instance_uid == RevisionRow.study_instance_uid)
        .where(JobRow.outcome.in_(WITHHELD), StudyRow.purged_at.is_(None))
        .order_by(RevisionRow.id)
    ):
        newest = max((row for row in revision.study.revisions if row.planned_at), key=lambda row: row.number)
        for entry in newest.selection:
            studies = found.setdefault(entry["pipeline"], []) if LEFT_OUT in entry else []
            if revision.study_instance_uid not in studies:
                studies.append(revision.study_instance_uid)
    return found

"""From a complete revision to jobs: which series is for which pipeline, and why the others are not."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from node.audit.events import Action
from node.db import peers, receiving, switches, work
from node.db.lifecycle import RevisionState
from node.db.session import Database
from node.db.tables import InstanceRow, JobRow, RevisionRow
from node.dicom.header import InstanceHeader
from node.dicom.select import CHEST_XRAY, Choice, choose
from node.jobs.record import now, record
from node.settings import Route

NO_LONGER_HELD = "no longer held"
"""The decision on images for an analysis whose files were deleted."""
MOST_SERIES = 6
"""Most series of one pipeline per study: a study with forty reconstructions would hold up everybody else."""


def plan(database: Database, revision_id: int, *, actor: str) -> bool:
    """Decide on every series of the revision and queue the jobs; False where somebody did so already."""
    with database.write() as session:
        receiving.lock_revision(session, revision_id)  # against images that come back while it looks what is missing
        revision = receiving.revision(session, revision_id)
        if revision.state != RevisionState.COMPLETE:
            return False
        by_series: dict[str, list[InstanceRow]] = defaultdict(list)
        purged: dict[str, dt.datetime] = {}
        for row in receiving.instances_up_to(session, revision):
            by_series[row.series_instance_uid].append(row)
            if row.purged_at is not None:
                purged[row.sop_instance_uid] = row.purged_at
        headers = {uid: [InstanceHeader.from_json(row.header) for row in rows] for uid, rows in by_series.items()}
        route = peers.route_for(session, revision.source_aet)
        aside = receiving.kept_aside(session, revision.study_instance_uid)
        taken: dict[str, int] = defaultdict(int)
        selection = [
            _decide(
                session,
                revision,
                _entry(choice, headers[choice.series_instance_uid]) | _aside(choice, aside),
                route=route,
                taken=taken,
                missing=_missing(session, revision, choice, purged),
            )
            for choice in choose(headers)
        ]
        receiving.move_revision(session, revision_id, RevisionState.PLANNED, planned_at=now(), selection=selection)
        record(
            session,
            Action.REVISION_PLANNED,
            peer=revision.source_aet,
            study_instance_uid=revision.study_instance_uid,
            patient_id=revision.study.patient_id,
            actor=actor,
            detail={
                "revision": revision.number,
                "series": [{k: e[k] for k in ("series_instance_uid", "role", "decision", "reason")} for e in selection],
            },
        )
        queue_report_if_ready(session, revision)
    return True


def _entry(choice: Choice, headers: Sequence[InstanceHeader]) -> dict[str, Any]:
    """What is known of these images before anything is decided."""
    chosen = [header for header in headers if header.sop_instance_uid in choice.sop_instance_uids]
    first = chosen[0]
    return {
        "series_instance_uid": choice.series_instance_uid,
        "sop_instance_uids": list(choice.sop_instance_uids),
        "role": str(choice.role),
        "number": first.series_number,
        "description": first.series_description,
        "modality": first.modality,
        "images": sum(header.frames for header in chosen) or len(chosen),
        "pipeline": choice.eligible_for,
        "decision": "not eligible",
        "reason": choice.reason,
        "job_id": None,
    }


def _aside(choice: Choice, aside: Mapping[str, int]) -> dict[str, Any]:
    """How many objects of other content came under the UIDs of these images, and were kept aside; {} where none did."""
    count = sum(aside.get(uid, 0) for uid in choice.sop_instance_uids)
    return {"kept_aside": count} if count else {}


def _missing(
    session: Session, revision: RevisionRow, choice: Choice, purged: Mapping[str, dt.datetime]
) -> dict[str, Any]:
    """How many of these images are no longer held, since when, and which revision told of them; {} where none is."""
    gone = [purged[uid] for uid in choice.sop_instance_uids if uid in purged]
    if not gone:
        return {}
    earlier = receiving.earlier_revisions(session, revision)
    told = [row.number for row in earlier if row.reported_at is not None and row.reported_at <= max(gone)]
    return {"missing": len(gone), "missing_since": max(gone).isoformat(), "told_in": told[0] if told else None}


def _why_missing(entry: Mapping[str, Any], missing: Mapping[str, Any]) -> str:
    """A part of a series is never analysed: it would pass for the whole."""
    here = len(entry["sop_instance_uids"]) - missing["missing"]
    deleted = f"deleted on {dt.datetime.fromisoformat(missing['missing_since']).astimezone():%Y-%m-%d} by the retention"
    stands = f" What revision {missing['told_in']} reported of them stands." if missing["told_in"] else ""
    if not here:
        return f"These images are no longer held here ({deleted}).{stands}"
    return (
        f"Of these images {missing['missing']} are no longer held here ({deleted}). The rest ({here}) is not analysed"
        f" without them.{stands} Sent again as a whole, the series is analysed."
    )


def _decide(
    session: Session,
    revision: RevisionRow,
    entry: dict[str, Any],
    *,
    route: Route | None,
    taken: dict[str, int],
    missing: Mapping[str, Any],
) -> dict[str, Any]:
    pipeline, series = entry["pipeline"], entry["series_instance_uid"]
    if pipeline is None:
        return entry
    if route is not None and pipeline not in route.pipelines:
        return {**entry, "reason": f"The route of this site does not include the analysis {pipeline}."}
    if missing:
        return {**entry, **missing, "decision": NO_LONGER_HELD, "reason": _why_missing(entry, missing)}
    if taken[pipeline] >= MOST_SERIES:
        return {**entry, "reason": f"Only the first {MOST_SERIES} eligible series of a study are analysed."}
    taken[pipeline] += 1
    earlier = work.earlier_job(session, revision, pipeline=pipeline, series_instance_uid=series)
    if earlier is not None and not _still_counts(session, earlier):
        earlier = None
    rests_on: list[int] = []
    if earlier is not None and (pipeline != CHEST_XRAY or _of_the_same(earlier, entry)):
        rests_on = work.rests_on(earlier.revision, earlier.id)
        if earlier.outcome != work.FAILED_IN_PART:
            unchanged = f"unchanged since revision {earlier.revision.number}"
            return {**entry, **_resting(rests_on), "decision": unchanged, "job_id": earlier.id}
        rests_on.append(earlier.id)
    job = JobRow(
        revision_id=revision.id,
        pipeline=pipeline,
        series_instance_uid=series,
        urgent=revision.urgent,
        queued_at=now(),
    )
    if not work.add_job(session, job):
        return {**entry, "reason": "Other images of this series are analysed already."}
    return {**entry, **_resting(rests_on), "decision": "analysed", "job_id": job.id}


def _still_counts(session: Session, earlier: JobRow) -> bool:
    """What was kept on trial is not published by a later revision: once the analysis is in service, it is done anew."""
    if earlier.outcome not in switches.WITHHELD:
        return True
    return earlier.outcome == switches.ON_TRIAL and not switches.is_on(session, earlier.pipeline)


def _resting(jobs: Sequence[int]) -> dict[str, Any]:
    """Which earlier jobs told of images that are not analysed again; {} where none did."""
    return {"rests_on": list(jobs)} if jobs else {}


def _of_the_same(earlier: JobRow, entry: Mapping[str, Any]) -> bool:
    """Whether that job was given these images. What came of one exposure in another series may leave one of them aside.

    The order does not matter: they are analysed one by one.
    """
    given = [uid for e in earlier.revision.selection if e["job_id"] == earlier.id for uid in e["sop_instance_uids"]]
    return set(given) == set(entry["sop_instance_uids"])


def queue_report_if_ready(session: Session, revision: RevisionRow) -> None:
    """Once every analysis of the revision has ended, its report is due. Adding it twice does nothing."""
    receiving.lock_revision(session, revision.id)  # of two workers that end the last two analyses one sees both ended
    if work.all_analysed(session, revision.id):
        work.add_job(
            session,
            JobRow(
                revision_id=revision.id,
                pipeline=work.REPORT,
                series_instance_uid="",  # the default comes too late to find the one that is there already
                urgent=revision.urgent,
                queued_at=now(),
            ),
        )

"""The report job: one SR for every revision of every study, whatever became of it; then deliveries of all results."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from node.archive import Archive
from node.audit.events import Action
from node.db import deliveries, receiving, work
from node.db.lifecycle import JobState, RevisionState
from node.db.session import Database
from node.db.switches import LEFT_OUT
from node.db.tables import InstanceRow, ResultRow, RevisionRow
from node.dicom.write import ResultRef, SeriesEntry, SeriesSource, StudyEntry, write_report
from node.errors import SourceLost
from node.jobs.address import address
from node.jobs.body import from_body, sources_from_body
from node.jobs.deliver import finish_revision
from node.jobs.record import now, record
from node.jobs.run import Attempt, Outcome, keep_produced, leaves_findings_out
from node.jobs.sources import lost, words
from node.jobs.stamp import stamp
from node.jobs.withhold import settle
from node.settings import Settings

_LEFT_OUT = "It was analysed, but this report leaves out its measurements and findings: "
_UNWRITABLE = f"{_LEFT_OUT}writing them failed repeatedly, and an administrator must look into it."


@dataclass(frozen=True)
class Reporter:
    settings: Settings
    database: Database
    archive: Archive
    actor: str

    def report(self, attempt: Attempt) -> Outcome:
        """Write the SR and its fallbacks."""
        settle(self.database, attempt.revision.id, actor=self.actor)
        with self.database.read() as session:
            revision = receiving.revision(session, attempt.revision.id)
            entries = tuple(entry for chosen in revision.selection for entry in _entries(session, chosen))
            rows = [row for row in receiving.instances_up_to(session, revision) if row.purged_at is None]
            missing, told_in = _missing(revision.selection)
            notes = _kept_aside(revision.selection)
            stands = revision.number - 1 in told_in  # the report before this one says what nobody can look at again
            predecessors = () if stands else _predecessors(session, revision)
        with attempt.step("read"):
            gone = lost(self.database, self.archive, rows)
            sources = self._sources(rows, gone)
        study = _without_lost(StudyEntry(entries, notes, missing), rows, gone)
        if leaves_findings_out(self.settings, attempt.job):
            # every study gets a report: at the last attempt one without anything that may have broken the others
            sources = {uid: source.bare() for uid, source in sources.items()}
            bare = tuple(e if e.findings is None else _without_findings(e, _UNWRITABLE) for e in study.series)
            study = replace(study, series=bare)
        with attempt.step("report"):
            made = replace(stamp(self.settings, revision), predecessors=predecessors)
            made = replace(made, replaces=None) if stands else made
            produced = write_report(study, sources, made)
            results = tuple(keep_produced(self.archive, attempt, item) for item in produced)
        return Outcome("processed", "", results)

    def _sources(self, rows: Sequence[InstanceRow], gone: Sequence[InstanceRow]) -> dict[str, SeriesSource]:
        """Headers by series, of the files that are there. raises SourceLost where none is."""
        if rows and len(gone) == len(rows):
            raise SourceLost(f"No report can be written of this revision: {words(gone, len(rows))}")
        paths: dict[str, list[Path]] = defaultdict(list)
        lacking = {row.id for row in gone}
        for row in rows:
            if row.id not in lacking:
                paths[row.series_instance_uid].append(self.archive.path(row.path))
        return {uid: SeriesSource.load(series) for uid, series in paths.items()}

    def hand_over(self, session: Session, attempt: Attempt) -> None:
        """In the transaction that ends the report job: the revision is reported, its results are on their way."""
        revision = receiving.revision(session, attempt.revision.id)
        destinations, count = address(session, revision)
        receiving.move_revision(session, revision.id, RevisionState.REPORTED, reported_at=now())
        record(
            session,
            Action.REVISION_REPORTED,
            peer=revision.source_aet,
            study_instance_uid=revision.study_instance_uid,
            patient_id=revision.study.patient_id,
            actor=self.actor,
            detail={
                "revision": revision.number,
                "results": len(work.results_of_revision(session, revision.id)),
                "deliveries": count,
                "destinations": list(destinations),
            },
        )
        finish_revision(session, revision.id, self.actor)


def _without_lost(study: StudyEntry, rows: Sequence[InstanceRow], gone: Sequence[InstanceRow]) -> StudyEntry:
    """Findings point at images: where some of these are gone, that is told instead of them."""
    if not gone:
        return study
    uids = {row.sop_instance_uid for row in gone}
    told = words(gone, len(rows))
    entries = tuple(
        _without_findings(entry, f"{_LEFT_OUT}{told}")
        if any(source.instance_uid in uids for source in entry.volume_sources)
        else entry
        for entry in study.series
    )
    return replace(study, series=entries, notes=(*study.notes, told))


def _without_findings(entry: SeriesEntry, reason: str) -> SeriesEntry:
    """Failed, as far as a reader is concerned: nobody must take it for a series that nothing was looked for in."""
    return replace(entry, outcome="failed", reason=reason, findings=None, volume_sources=())


def _entries(session: Session, chosen: dict[str, Any]) -> list[SeriesEntry]:
    """What the plan decided, and what became of it: of images that were analysed one by one, of each."""
    entry = SeriesEntry(
        series_instance_uid=chosen["series_instance_uid"],
        number=chosen["number"],
        description=chosen["description"],
        modality=chosen["modality"],
        images=chosen["images"],
        role=chosen["role"],
        outcome="not eligible",
        reason=chosen["reason"],
    )
    if chosen["job_id"] is None:
        return [entry]
    if LEFT_OUT in chosen:
        return [replace(entry, outcome="withheld", reason=chosen[LEFT_OUT])]
    job = work.job(session, chosen["job_id"])
    if job.state == JobState.FAILED:
        return [replace(entry, outcome="failed", reason=job.reason)]
    body = work.finding(session, job.id)
    if body is None and job.outcome != "processed":
        return [replace(entry, reason=job.reason)]
    if body is None:
        return [replace(entry, outcome="failed", reason="The finding of this analysis is missing.")]
    since = f"Series {chosen['decision']}" if chosen["decision"].startswith("unchanged") else ""
    if "one_by_one" not in body:
        results = tuple(_ref(row) for row in work.results_of_job(session, job.id))
        return [_processed(entry, body, since, results)]
    parts = body["one_by_one"]
    return [_told(session, replace(entry, image=part["image"], images=1), part, since) for part in parts]


def _told(session: Session, entry: SeriesEntry, part: Mapping[str, Any], since: str) -> SeriesEntry:
    """One image of several, with those of the results that are its own, be they of an earlier job."""
    if "findings" not in part:
        return replace(entry, outcome="failed" if part.get("failed") else entry.outcome, reason=part["reason"])
    results = tuple(_ref(row) for row in work.results(session, part["results"]))
    return _processed(entry, part, part.get("since", since), results)


def _processed(entry: SeriesEntry, body: Mapping[str, Any], since: str, results: tuple[ResultRef, ...]) -> SeriesEntry:
    """With what a pipeline said.

    since       "Series unchanged since revision 1"; "" where it was said in this revision
    """
    notes = [f"{since}: its results still stand."] if since else []
    return replace(
        entry,
        outcome="processed",
        reason=" ".join([*notes, *body["notes"]]),
        findings=from_body(body["findings"]),
        volume_sources=sources_from_body(body["sources"]),
        results=results,
    )


def _kept_aside(selection: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Of images that came twice with different content only the first was looked at: in a sentence per series."""
    return tuple(
        f"Images received again with other content under the same SOP Instance UID: {entry['kept_aside']}, of series "
        f"{'without number' if entry['number'] is None else entry['number']}. They were kept aside and not looked at."
        for entry in selection
        if entry.get("kept_aside")
    )


def _missing(selection: Sequence[dict[str, Any]]) -> tuple[str, set[int]]:
    """(what this report does without, as a sentence, "" where nothing is; the revisions whose reports tell of it)."""
    lacking = [entry for entry in selection if entry.get("missing")]
    if not lacking:
        return "", set()
    days = sorted({dt.datetime.fromisoformat(e["missing_since"]).astimezone().strftime("%Y-%m-%d") for e in lacking})
    told_in = {entry["told_in"] for entry in lacking if entry["told_in"]}
    stands = ", ".join(f"revision {number}" for number in sorted(told_in))
    return (
        f"Not looked at again: earlier images of this study ({sum(entry['missing'] for entry in lacking)}) that are no"
        f" longer held here (deleted on {', '.join(days)} by the retention)."
        + (f" What the report of {stands} says of them still stands." if stands else "")
    ), told_in


def _ref(row: ResultRow) -> ResultRef:
    return ResultRef(row.kind, row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid, row.label)


def _predecessors(session: Session, revision: RevisionRow) -> tuple[ResultRef, ...]:
    """The report of the revision that this one replaces."""
    for earlier in receiving.earlier_revisions(session, revision):
        rows = [row for row in work.results_of_revision(session, earlier.id) if row.kind == "sr" and not row.fallback]
        if rows and not deliveries.is_recalled(session, earlier.id):
            return tuple(_ref(row) for row in rows)
    return ()
